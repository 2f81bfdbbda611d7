"""The common frame of the three commands: start, terminal output, exit codes.

Output goes to a terminal of any encoding. A terminal that knows ISO-8859-1 or ASCII alone gets plain signs for our
lines and dashes, and escapes for the rest.

>>> "── ε ≤ 3 at CHU Besançon".encode("ascii", SPELT)
b'-- epsilon <= 3 at CHU Besan\\\\xe7on'
"""

import argparse
import codecs
import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence

from configs.errors import ArchipelError
from configs.parts import shield
from configs.shown import guarded

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


def prepare(*, alone: bool, guard: bool = True) -> None:
    """Set threads and output for a command.

    Args:
        guard: whether whatever is printed is escaped; a command that draws on the terminal does so by itself.
        alone: whether the command is this process, so that what the process starts inherits its care.
    """
    for variable in THREADS:
        os.environ.setdefault(variable, "1")
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=SPELT)
            if alone and guard:
                setattr(sys, name, _Guarded(stream))
    if alone:
        shield()


class _Guarded(io.TextIOWrapper):
    """An output that escapes all control sequences, so that a terminal obeys none."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        encoding, errors, buffered = stream.encoding, stream.errors, not stream.line_buffering
        super().__init__(stream.detach(), encoding=encoding, errors=errors, line_buffering=not buffered)

    def write(self, text: str, /) -> int:
        """Write a text, with everything escaped that is none of letters, numbers, signs and line breaks."""
        return super().write(text if text.isascii() and text.replace("\n", "").isprintable() else guarded(text))


class _Lines(logging.Formatter):
    """Log lines on which nothing stands that a terminal or a viewer of logs would obey."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, escaped."""
        return guarded(super().format(record))


def guard_lines() -> None:
    """Write log lines to standard error from here on, escaped."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def run(
    parser: Callable[[], argparse.ArgumentParser],
    argv: Sequence[str] | None,
    *,
    guard: bool = True,
    beside: str = "",
    interrupted: Callable[[KeyboardInterrupt], object] = lambda _: None,
) -> int:
    """Run the command that was typed and return its exit code, as `carry_out`.

    Args:
        argv: the words after the program's name; None for those of this process.
        guard, beside: as for `prepare` and `carry_out`.
        interrupted: called at Ctrl-C.
    """
    prepare(alone=argv is None, guard=guard)
    commands = parser()
    commands.add_argument("--version", action=_Version, nargs=0, help="the versions of Archipel and of what it talks")
    arguments = commands.parse_args(argv)
    try:
        return carry_out(commands.prog, lambda: int(arguments.command(arguments)), beside=beside)
    except KeyboardInterrupt as stop:
        interrupted(stop)
        return INTERRUPTED


class _Version(argparse.Action):
    """Print the versions that two sides compare, and end."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print one line; what it reads is imported here, as no other command needs it at its start."""
        from importlib import metadata

        from configs.wire import ARITHMETIC, PROTOCOL, PROTOCOL_MAX

        release = metadata.version("archipel")
        print(f"{parser.prog} {release} (protocol {PROTOCOL} to {PROTOCOL_MAX}, arithmetic {ARITHMETIC})")
        parser.exit()


def carry_out(program: str, work: Callable[[], int], *, beside: str = "") -> int:
    """Run a command and return its exit code: 2 an error that is explained, 130 Ctrl-C, 141 a broken pipe.

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
    print(f"{program}: {guarded(text)}", file=sys.stderr)
    return EXPLAINED
