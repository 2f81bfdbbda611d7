"""Files that are whole or absent: written beside their place, flushed to disk, then renamed over it.

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     write_atomically(Path(folder) / "a.txt", b"whole")
...     sorted(p.name for p in Path(folder).iterdir())
['a.txt']
"""

import contextlib
import os
from pathlib import Path


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Replace a file's content in one step. On any error the old file stays and no other is left.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
