"""Large messages as files between the conductor and the door.

Each is written once, sent in windows, and deleted with its run. What a run sends is one file, which each hospital gets
under a link of its own, named by the message that its seal names; what a hospital sends is appended to a file that
exists only while a reply of it is awaited, up to the size that was announced. The seal of a message holds the hash of
its content, so nothing here has to be believed. No name that comes from outside becomes a part of a path: runs and
hospitals are hashed, messages are hexadecimal.

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     shelf = Shelf(Path(folder), "run-1")
...     shelf.offer("ab" * 32, [b"model"], "lille", "0" * 32, most=5)
...     read(Path(folder), "lille", "run-1", "0" * 32, 2), append(Path(folder), "lille", "run-1", "0" * 32, 0, b"reply")
(b'del', 5)
"""

import contextlib
import fcntl
import hashlib
import mmap
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from configs.errors import WireError
from configs.frame import Buffer, MappedFile
from configs.pieces import WINDOW, fields_of, split

FOLDER = "shelf"
BATCH, LARGEST_HEAD = 1_000_000, 10_000  # bytes
_MESSAGE = re.compile(r"[0-9a-f]{32}")
_FETCH = {"run": str, "message": str, "start": int}
_OUT, _IN, _MOST = ".out", ".in", ".most"


class Shelf:
    """One run's large messages, for its conductor."""

    def __init__(self, folder: Path, run: str) -> None:
        """Make an empty place for a run; what it left behind before is deleted."""
        self._folder, self._run = folder, run
        self.clear()

    def offer(self, content: str, parts: Iterable[Buffer], site: str, message: str, *, most: int) -> None:
        """Let one hospital fetch a message, and send one of at most so many bytes in answer.

        Args:
            content: the message's hash; equal contents are written once.

        Raises:
            OSError: the disk is full.
        """
        shared, for_site = _run_folder(self._folder, self._run) / content, _path(self._folder, site, self._run, message)
        for_site.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not shared.exists():
            with shared.with_suffix(".part").open("wb", buffering=0) as file:
                for part in parts:
                    _write(file.fileno(), memoryview(part))
            shared.with_suffix(".part").replace(shared)
        os.link(shared, for_site.with_suffix(_OUT))
        for_site.with_suffix(_MOST).write_text(str(most))

    def taken(self, site: str, message: str) -> MappedFile:
        """Return what a hospital sent in answer to a message; its file goes when nothing refers to it any more.

        Raises:
            WireError: it sent nothing.
        """
        path = _path(self._folder, site, self._run, message).with_suffix(_IN)
        try:
            with path.open("rb") as file, _alone(file.fileno()):
                self.withdraw(site, message)  # before it is mapped: it does not change any more
                mapped = MappedFile(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):  # an empty file cannot be mapped
            raise WireError("reply: expected the message that its seal names, found none") from None
        finally:
            self.withdraw(site, message)
        return mapped

    def withdraw(self, site: str, message: str) -> None:
        """End an offer."""
        path = _path(self._folder, site, self._run, message)
        for suffix in (_MOST, _OUT, _IN):
            path.with_suffix(suffix).unlink(missing_ok=True)

    def forget(self, content: str) -> None:
        """Delete a content that no hospital is offered any more."""
        (_run_folder(self._folder, self._run) / content).unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete all of the run's."""
        shutil.rmtree(_run_folder(self._folder, self._run), ignore_errors=True)


def serve(folder: Path, site: str, path: str, body: bytes) -> bytes | None:
    """Answer an authorised hospital's request; None where it was offered no such thing.

    Raises:
        WireError: it is no request.
    """
    if path != "fetch":
        storing = Storing(folder, site)
        storing.take(body)
        return storing.end()
    pieces = split(body, 1)
    run, message, start = _place(pieces[0] if pieces else b"")
    return read(folder, site, run, message, start)


class Storing:
    """A window of a reply, written as it comes: the door holds no more of it than `BATCH` bytes."""

    def __init__(self, folder: Path, site: str) -> None:
        """Begin with nothing received."""
        self._folder, self._site = folder, site
        self._head, self._place = b"", ("", "", 0)
        self._begun, self._left, self._over = False, 0, False
        self._batch: list[bytes] = []
        self._held = 0
        self._size: int | None = None
        self._error: WireError | None = None

    def take(self, piece: bytes) -> bool:
        """Take what has come; whether it is time to `write`."""
        if self._error is None and not self._begun:
            self._head += piece
            piece = self._begin()
        if self._error is None and self._begun:
            self._left -= len(piece)
            if self._left < 0:
                self._error = WireError("shelf: expected as many bytes as announced, found more")
            self._batch.append(piece)
            self._held += len(piece)
        return self._held >= BATCH

    def write(self) -> None:
        """Append what was taken to the file; nothing more once that is not where it ends.

        Raises:
            WireError: the reply would be larger than was announced.
        """
        run, message, start = self._place
        if self._error is None and self._batch and not self._over:
            self._size = append(self._folder, self._site, run, message, start, *self._batch)
            self._over = self._size != start + self._held
            self._place = run, message, start + self._held
        self._batch, self._held = [], 0

    def end(self) -> bytes | None:
        """Note that all has come; return how much of the reply is here, None where none is awaited.

        Raises:
            WireError: it was no request, or the reply would be larger than was announced.
        """
        if self._error is None and (not self._begun or self._left):
            self._error = WireError("shelf: expected a window of a message, found something else")
        if self._error is not None:
            raise self._error
        self.write()
        return None if self._size is None else str(self._size).encode()

    def _begin(self) -> bytes:
        """Read the head once it is here; what of the window came with it."""
        if len(self._head) < 4:
            return b""
        ends = 4 + int.from_bytes(self._head[:4], "big")
        if ends > LARGEST_HEAD:
            self._error = WireError("shelf: expected a window of a message, found something else")
        elif len(self._head) >= ends + 4:
            try:
                self._place = _place(self._head[4:ends])
            except WireError as error:
                self._error = error
            self._begun, self._left = True, int.from_bytes(self._head[ends : ends + 4], "big")
            return self._head[ends + 4 :]
        return b""


def _place(piece: bytes) -> tuple[str, str, int]:
    """Return the run, the message and the place in it that a request names.

    Raises:
        WireError: it names none.
    """
    fields = fields_of(piece, _FETCH)
    run, message, start = str(fields["run"]), str(fields["message"]), fields["start"]
    if not _MESSAGE.fullmatch(message) or not isinstance(start, int) or not 0 <= start < 2**40:
        raise WireError("shelf: expected a message and a place in it, found something else")
    return run, message, start


def read(folder: Path, site: str, run: str, message: str, start: int) -> bytes | None:
    """Return a window of a message that a hospital was offered, empty at its end."""
    try:
        with _path(folder, site, run, message).with_suffix(_OUT).open("rb", buffering=0) as file:
            return os.pread(file.fileno(), WINDOW, start)
    except OSError:
        return None


def append(folder: Path, site: str, run: str, message: str, start: int, *data: bytes) -> int | None:
    """Append a window to what a hospital sends, and return how much of it is here; a start of 0 begins anew.

    A window that does not begin where the file ends changes nothing: a sender that was cut off learns where to go on.
    Nor does one that comes while, or after, the message is taken: it would change what was compared with its hash.

    Raises:
        WireError: it would be larger than was announced.
    """
    path = _path(folder, site, run, message)
    offer, upload = path.with_suffix(_MOST), path.with_suffix(_IN)
    try:
        most = int(offer.read_text())
        descriptor = os.open(upload, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0), _alone(descriptor):
            if not offer.exists():  # it ended meanwhile, and the file may be a new one
                upload.unlink(missing_ok=True)
                return None
            if not start:
                os.ftruncate(descriptor, 0)
            size = os.fstat(descriptor).st_size
            if start != size:
                return size
            more = sum(map(len, data))
            if size + more > most:
                raise WireError(f"shelf: expected at most {most} bytes, found more")
            os.lseek(descriptor, size, os.SEEK_SET)
            for piece in data:
                _write(descriptor, memoryview(piece))
            return size + more
    except (OSError, ValueError):
        return None


def clear(folder: Path) -> None:
    """Delete what all runs left behind."""
    with contextlib.suppress(OSError):
        shutil.rmtree(folder)


@contextlib.contextmanager
def _alone(descriptor: int) -> Iterator[None]:
    """Wait until no other process or thread is at a file, and keep them away; a mapping would keep the lock."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _run_folder(folder: Path, run: str) -> Path:
    return folder / _hashed(run)


def _path(folder: Path, site: str, run: str, message: str) -> Path:
    return _run_folder(folder, run) / _hashed(site) / message


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _write(descriptor: int, data: memoryview) -> None:
    while len(data):
        data = data[os.write(descriptor, data[: 1 << 24]) :]
