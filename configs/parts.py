"""The start of Archipel's processes: installed code, a working folder of our own.

Only listed variables of the environment are passed on. `python -m module` puts the current folder first on the path,
and PYTHONPATH goes before the installation: a folder `client/` or a file `random.py` that somebody else left there
would run in the process that sees patients. So a part runs with `-P` (no folder that is not installed) and `-E` (no
PYTHON* variable is read), stands in a folder that its starter names, and gets no variable that is not listed here.

>>> [word for word in command("client.worker", "/srv/node")[1:] if word != "-B"]
['-P', '-E', '-m', 'client.worker', '/srv/node']
>>> environment(["EDS_URL"], {"EDS_URL": "postgresql://", "PYTHONPATH": ".", "HTTPS_PROXY": "http://me:mine@proxy"})
{'EDS_URL': 'postgresql://'}
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

KEPT = {
    *("HOME", "USER", "LOGNAME", "PATH", "LANG", "LANGUAGE", "TZ", "TERM", "COLUMNS"),
    *("TMPDIR", "TEMP", "TMP", "XDG_RUNTIME_DIR"),
    *("LD_LIBRARY_PATH", "LOCALDOMAIN", "RES_OPTIONS", "HOSTALIASES"),  # of the loader, and of names of machines
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_CORETYPE"),
    *("ARCHIPEL_SITE", "ARCHIPEL_COORDINATOR"),
}
PROXIES = frozenset(
    name for upper in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY") for name in (upper, upper.lower())
)
STRANGE = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONBREAKPOINT", "PYTHONINSPECT")


def command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs an installed module, for a part of Archipel."""
    quiet = ["-B"] if sys.dont_write_bytecode else []
    return [sys.executable, "-P", "-E", *quiet, "-m", module, *arguments]


def environment(also: Iterable[str] = (), given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that a part gets: the listed ones and those named in `also`, where they are set.

    Args:
        also: names; one that ends with `*` stands for all that begin so.
        given: the variables of this process.
    """
    named = set(also)
    begins = tuple(name[:-1] for name in {*named, "LC_*"} if name.endswith("*"))
    return {name: value for name, value in given.items() if name in KEPT | named or name.startswith(begins)}


def start(
    module: str, *arguments: str, folder: Path, also: Iterable[str] = (), **options: Any
) -> "subprocess.Popen[bytes]":
    """Start a part.

    Args:
        folder: where it stands; paths among the arguments are absolute.
        also: names of further variables that it gets.
        options: of `subprocess.Popen`.
    """
    return subprocess.Popen(  # noqa: S603 - an installed module of our own
        command(module, *arguments), cwd=folder, env=environment(also), **options
    )


def run(
    module: str, *arguments: str, folder: Path, also: Iterable[str] = (), timeout_s: float, given: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run a part to its end and return what it printed; `given` is its standard input.

    Raises:
        subprocess.TimeoutExpired: it takes longer than `timeout_s` seconds.
    """
    return subprocess.run(  # noqa: S603 - an installed module of our own
        command(module, *arguments),
        cwd=folder,
        env=environment(also),
        input=given,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        timeout=timeout_s,
    )


def programs() -> Path:
    """Return the folder of the installed commands."""
    return Path(sys.executable).parent


def shield() -> None:
    """Keep every process that this one starts from taking code from a folder that is not installed."""
    os.environ["PYTHONSAFEPATH"] = "1"
    for name in STRANGE:
        os.environ.pop(name, None)


def end_with_owner() -> None:
    """End this process, without delay, when its standard input is closed: it cannot outlive its parent."""

    def follow() -> None:
        while os.read(0, 4096):  # not sys.stdin, whose lock this thread would hold while the interpreter ends
            pass
        os._exit(0)

    threading.Thread(target=follow, daemon=True).start()
