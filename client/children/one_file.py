"""The one file that a child which decodes a record sees: in memory, under its own path.

A kit's reader is given a path, as everywhere; here whatever opens it in Python (`open`, `pathlib`, the libraries on top
of them) gets the bytes that came through the pipe. This is no fence: no system call of a child takes a path. It is what
lets honest readers work there.

>>> import builtins
>>> before = builtins.open, io.open, os.stat
>>> only_file("/data/a.txt", b"1;2")
>>> with open("/data/a.txt") as file: file.read(), os.path.getsize("/data/a.txt"), os.path.exists("/data/b.txt")
('1;2', 3, False)
>>> builtins.open, io.open, os.stat = before
"""

import builtins
import errno
import io
import os
import stat
from typing import Any

_WRITES = frozenset("wax+")


class _Bytes(io.BytesIO):
    """A file's bytes, with its name."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def only_file(path: str, content: bytes) -> None:
    """Let this process see one file, for good: a child that decodes a record calls it."""

    def opened(
        file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, *others: Any, **named: Any
    ) -> Any:
        del buffering
        _require(file)
        if _WRITES & set(mode):
            raise PermissionError(errno.EPERM, "a record is only read", path)
        stream = _Bytes(content, path)
        if "b" in mode:
            return stream
        named.pop("closefd", None)
        return io.TextIOWrapper(stream, encoding or "utf-8", *others[:2], **named)

    def status(file: Any, **_: Any) -> os.stat_result:
        _require(file)
        return os.stat_result((stat.S_IFREG | 0o400, 1, 1, 1, 0, 0, len(content), 0, 0, 0))

    def _require(file: Any) -> None:
        if isinstance(file, int) or os.fspath(file) not in (path, os.fsencode(path)):
            raise FileNotFoundError(errno.ENOENT, "a child sees its record alone", "")

    builtins.open = io.open = opened
    os.stat = os.lstat = status  # type: ignore[assignment]
