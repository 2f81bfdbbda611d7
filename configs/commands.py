"""What the three commands share: how they begin, how they print on a terminal of any encoding, how they end.

A terminal that knows ISO-8859-1 or ASCII alone gets plain signs for our lines and dashes, and escapes for the rest.

>>> "── ε ≤ 3 at CHU Besançon".encode("ascii", SPELT)
b'-- epsilon <= 3 at CHU Besan\\\\xe7on'
"""

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Callable

from configs.errors import ArchipelError
from configs.parts import shield

# Sums of floats depend on how they are split over threads, and at these sizes a second thread only costs.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
EXPLAINED, INTERRUPTED, UNHEARD = 2, 130, 141
SPELT = "archipel.spelt"
_PLAIN = {
    **{"─": "-", "│": "|", "\u2013": "-", "—": "-", "…": "...", "·": ".", "\u00d7": "x", "±": "+/-", "√": "sqrt"},
    **{"≤": "<=", "≥": ">=", "≈": "~", "ε": "epsilon", "δ": "delta", "\u03c3": "sigma", "→": "->", "\u2019": "'"},
}


def _spell(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or _escaped(c) for c in text), error.end


def _escaped(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode("ascii")


codecs.register_error(SPELT, _spell)


def prepare(*, alone: bool) -> None:
    """Set threads and output for a command.

    Args:
        alone: whether the command is this process, so that what the process starts inherits its care.
    """
    for variable in THREADS:
        os.environ.setdefault(variable, "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=SPELT)
    if alone:
        shield()


def carry_out(program: str, work: Callable[[], int], *, beside: str = "") -> int:
    """Run a command and return its exit code: 2 an error that is explained, 130 Ctrl-C, 141 nobody reads the output.

    Args:
        beside: what is said beside an error of the system.
    """
    try:
        code = work()
        sys.stdout.flush()
        return code
    except ArchipelError as error:
        return fail(program, str(error))
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):  # else the interpreter complains once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNHEARD
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return fail(program, f"{where}{error.strerror or type(error).__name__}{beside}")


def fail(program: str, text: str) -> int:
    """Say what went wrong, and return the exit code of an error that is explained."""
    print(f"{program}: {text}", file=sys.stderr)
    return EXPLAINED
