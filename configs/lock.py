"""A lock on a folder, so that one process uses it.

The kernel releases the lock however its process ends; the file holds what its holder says of itself.

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     path = Path(folder) / "node.lock"
...     with only_one(path, "another node runs in this folder; stop it first", "started with this"):
...         holder(path)
...     holder(path) is None
'started with this'
True
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.errors import RunError

_PATIENCE_S = 0.5  # a process that asks for the lock's holder has it for a moment
_MAX_NOTE = 1000


@contextmanager
def only_one(path: Path, refusal: str, note: str = "") -> Iterator[None]:
    """Hold a lock file; it stays where it is.

    Args:
        refusal: what to say where another process holds it.
        note: what `holder` tells others; ASCII.

    Raises:
        RunError: another process does.
    """
    with os.fdopen(_own(path), "w", encoding="ascii") as file:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise RunError(f"{path.parent}: {refusal}") from None
                time.sleep(_PATIENCE_S / 10)
        file.truncate(0)
        file.write(note)
        file.flush()
        yield


def _own(path: Path) -> int:
    """Open the lock file, to be written. What it holds stays until the lock is held.

    Raises:
        RunError: a link or something else lies in its place; what a link leads to would be overwritten.
    """
    try:
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise RunError(f"{path}: expected a lock file of our own, found something else; remove it") from None
        raise
    there = os.fstat(opened)
    if not stat.S_ISREG(there.st_mode) or there.st_nlink != 1:
        os.close(opened)
        raise RunError(f"{path}: expected a lock file of our own, found something else; remove it")
    return opened


def holder(path: Path) -> str | None:
    """Return the note of the process that holds the lock; None where no process does, or this user cannot ask."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return file.read(_MAX_NOTE).decode("ascii", "replace")
    except OSError:
        pass
    return None
