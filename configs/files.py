"""Atomic files: written beside their place, flushed to disk, then renamed over it.

A file is whole or absent.

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     write_atomically(Path(folder) / "a.txt", b"whole")
...     sorted(p.name for p in Path(folder).iterdir())
['a.txt']
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(
    path: Path, content: bytes | Callable[[Path], object], *, durable: bool = True, private: bool = False
) -> None:
    """Replace a file's content in one step. On any error the old file stays and no other is left.

    Args:
        content: the bytes, or what writes them to a path.
        private: only its owner may read it (mode 0600), whatever the process's mask allows.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if private:
            os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        if callable(content):
            content(beside)
        with beside.open("rb+" if callable(content) else "wb") as file:
            if not callable(content):
                file.write(content)
                file.flush()
            if durable:
                os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
