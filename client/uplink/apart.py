"""Large messages as files, sent apart from their seals in windows and resumable.

Nothing here is believed: a file is read no further than its announced size, and what it holds is compared with the hash
in the seal by its reader.
"""

import contextlib
import json
import mmap
import os
import struct
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Protocol

from configs.errors import WireError
from configs.frame import MappedFile
from configs.memory import KEPT_ROOM_BYTES
from configs.pieces import FETCH_PATH, STORE_PATH, WINDOW, join

ATTEMPTS, PAUSE_S = 5, 0.5  # for one window, and how much longer each pause is
PIECE = 1 << 18  # of a window, as it is read and sent
_LENGTH = struct.Struct(">I")  # as of configs/pieces.py


class Ask(Protocol):
    """A function that asks one of the coordinator's paths."""

    def __call__(self, path: str, body: Sequence[bytes], into: Callable[[bytes], object] | None = None) -> bytes:
        """Send a body in pieces and return the answer, unless its pieces are handed to `into` as they come."""


class Scratch:
    """A file without a name for one message after the other: one that is written over costs a third of a new one.

    It is written over once nothing refers to the message before, and kept up to `KEPT_ROOM_BYTES`.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._held: weakref.ref[MappedFile] | None = None  # the newest message in it

    def take(self, folder: Path) -> IO[bytes]:
        """Return an empty or used file, to be written from its beginning.

        Raises:
            OSError: the disk is full.
        """
        file, holder, self._file, self._held = self._file, self._held, None, None
        if file is None or holder is None or holder() is not None:
            if file is not None:
                file.close()
            return tempfile.TemporaryFile(dir=folder, buffering=0)
        file.seek(0)
        return file

    def hold(self, file: IO[bytes], size: int) -> MappedFile:
        """Return the message in a file that `take` gave."""
        if os.fstat(file.fileno()).st_size > size:
            os.ftruncate(file.fileno(), size)
        mapped = MappedFile(file.fileno(), 0, access=mmap.ACCESS_READ)
        if size <= KEPT_ROOM_BYTES:
            self._file, self._held = file, weakref.ref(mapped)
        else:
            file.close()
        return mapped

    def close(self) -> None:
        """Let go of the file; a message in it stays as long as something refers to it."""
        if self._file is not None:
            self._file.close()
        self._file = self._held = None


def fetch(
    ask: Ask,
    unreachable: type[Exception],
    run: str,
    message: str,
    size: int,
    folder: Path,
    scratch: Scratch | None = None,
) -> MappedFile:
    """Return a message of so many bytes, in a file without a name.

    Args:
        scratch: has the file of the message before.

    Raises:
        WireError: it is shorter or longer than it says. Exception: `unreachable` again and again, or what `ask` raises.
        OSError: the disk is full.
    """
    store = scratch or Scratch()
    file = store.take(folder)
    try:
        written = _Written(file.fileno())
        while (start := written.size) < size:

            def one() -> bytes:
                written.most = min(size, written.size + WINDOW)
                return ask(FETCH_PATH, [join([_asked(run, message, written.size)])], written.take)

            _again(one, unreachable)
            if written.size == start:
                raise WireError("message: expected as many bytes as its seal says, found fewer or more")
        return store.hold(file, size)
    except BaseException:
        file.close()
        raise
    finally:
        if scratch is None:
            store.close()


def store(ask: Ask, unreachable: type[Exception], run: str, message: str, path: Path) -> int:
    """Send a file in answer to a message, and return its size.

    Raises:
        WireError: the coordinator's answer is none. Exception: as for `fetch`.
    """
    with path.open("rb", buffering=0) as file:
        size, start = os.fstat(file.fileno()).st_size, 0
        for _ in range(2 * (size // WINDOW + ATTEMPTS)):
            body = [join([_asked(run, message, start)]), *_window(file.fileno(), start)]
            answer = _again(partial(ask, STORE_PATH, body), unreachable)
            if not answer.isdigit() or int(answer[:20]) > size:
                raise WireError("reply: expected the coordinator to say how much it has, found something else")
            start = int(answer[:20])
            if start == size:
                _give_back(file.fileno())
                return size
    raise WireError("reply: expected the coordinator to keep it, it did not")


class _Written:
    """A file that grows as a message comes, up to `most` bytes; after a cut it continues where it stopped."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self.size, self.most = descriptor, 0, 0

    def take(self, data: bytes) -> None:
        """Write what has come.

        Raises:
            WireError: it is more than was asked for.
        """
        if self.size + len(data) > self.most:
            raise WireError("message: expected as many bytes as its seal says, found fewer or more")
        view = memoryview(data)
        while len(view):
            done = os.write(self._descriptor, view)
            self.size, view = self.size + done, view[done:]


def _give_back(descriptor: int) -> None:
    """Let the kernel drop the pages of a file that is on the disk: the next file takes them, not ever new ones."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _window(descriptor: int, start: int) -> list[bytes]:
    """Return a window of a file in pieces, its length first; small pieces lie in memory that is used again."""
    places = range(start, start + WINDOW, PIECE)
    pieces = [os.pread(descriptor, min(PIECE, start + WINDOW - place), place) for place in places]
    return [_LENGTH.pack(sum(map(len, pieces))), *filter(None, pieces)]


def _asked(run: str, message: str, start: int) -> bytes:
    return json.dumps({"run": run, "message": message, "start": start}).encode()


def _again(ask: Callable[[], bytes], unreachable: type[Exception]) -> bytes:
    for attempt in range(ATTEMPTS):
        try:
            return ask()
        except unreachable:
            if attempt + 1 == ATTEMPTS:
                raise
            time.sleep(PAUSE_S * (attempt + 1))
    raise AssertionError
