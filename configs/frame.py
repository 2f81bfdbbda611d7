"""One message as bytes.

The seal signs them, the outbox keeps them, and two processes of a node hand them to each other. A frame is a header
(canonical JSON, its length before it) and the arrays' bytes behind it, in the order of their names. The same message
always gives the same bytes, so its SHA-256 names it.

>>> frame = Frame("train reply", {}, {"bias": b"\\x00" * 4})
>>> Frame.decode(b"".join(frame.encode())) == frame, frame.sha256[:12]
(True, 'ecfa29639eaf')
>>> Frame.decode(b"\\x00\\x00\\x00\\x02{}")
Traceback (most recent call last):
    ...
configs.errors.WireError: frame: expected a header of form, fields and arrays, found something else
"""

import hashlib
import json
import mmap
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from configs.errors import WireError
from configs.schema import canonical_json

MAX_HEADER_BYTES = 4_000_000
MAX_ARRAYS = 100_000
WINDOW_BYTES = 1 << 18  # what is made of a window stays in the processor's cache, and asks for no new memory
_LENGTH = struct.Struct(">I")
Buffer = bytes | bytearray | memoryview


class MappedFile(mmap.mmap):
    """A file's content, shared with the file: its pages can be given back at any time, and nothing is lost."""

    def give_back(self) -> None:
        """Let the kernel take the pages that were touched."""
        self.madvise(mmap.MADV_DONTNEED)


def windows(data: Buffer, skip: int = 0) -> Iterator[memoryview]:
    """Yield a buffer from its byte `skip` on, in small pieces, so that a pass over a large model needs no second one.

    Where the buffer is a mapped file's, the pages read are given back behind each piece: the file still has them.
    """
    view = memoryview(data)
    for start in range(0, len(view), WINDOW_BYTES):
        yield view[max(start, skip) : start + WINDOW_BYTES]
        if isinstance(view.obj, MappedFile):
            view.obj.give_back()


@dataclass(frozen=True)
class Frame:
    """A form of configs/wire.py with its fields, and each array's bytes by name."""

    form: str
    fields: Mapping[str, str | int]
    arrays: Mapping[str, Buffer] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Return the number of bytes of the arrays."""
        return sum(len(data) for data in self.arrays.values())

    @cached_property
    def sha256(self) -> str:
        """Hash of the encoded frame, in hexadecimal."""
        digest = hashlib.sha256()
        for part in self.encode():
            for window in windows(part):
                digest.update(window)
        return digest.hexdigest()

    def let_go(self) -> None:
        """Forget the arrays, which are somewhere else now; a hash that was asked for before is kept."""
        object.__setattr__(self, "arrays", {})

    def encode(self) -> Iterator[Buffer]:
        """Yield the frame's bytes, part by part, so that a large model is never copied."""
        sizes = [[name, len(self.arrays[name])] for name in sorted(self.arrays)]
        header = canonical_json({"form": self.form, "fields": dict(self.fields), "arrays": sizes}).encode("ascii")
        yield _LENGTH.pack(len(header))
        yield header
        for name in sorted(self.arrays):
            yield self.arrays[name]

    @classmethod
    def decode(cls, data: Buffer, max_bytes: int | None = None) -> "Frame":
        """Return the frame in these bytes, all of them.

        Raises:
            WireError: it is not a frame, it is longer than it says, or larger than `max_bytes`.
        """
        view = memoryview(data)
        position = 0

        def take(count: int) -> bytes:
            nonlocal position
            if position + count > len(view):
                raise WireError("frame: expected more bytes, found its end; it was cut short")
            position += count
            return bytes(view[position - count : position])

        frame = cls.read(take, max_bytes)
        if position != len(view):
            raise WireError("frame: expected its end, found more bytes")
        return frame

    @classmethod
    def mapped(cls, data: MappedFile) -> "Frame":
        """Return the frame in a file, all of it; its arrays stay there.

        Raises:
            WireError: it is not a frame.
        """
        view, position = memoryview(data), 0

        def take(count: int) -> memoryview:
            nonlocal position
            if position + count > len(view):
                raise WireError("frame: expected more bytes, found its end; it was cut short")
            position += count
            return view[position - count : position]

        frame = cls.read(take)
        if position != len(view):
            raise WireError("frame: expected its end, found more bytes")
        return frame

    @classmethod
    def read(cls, take: Callable[[int], Buffer], max_bytes: int | None = None) -> "Frame":
        """Return the next frame of a stream. `take` returns exactly as many bytes as it is asked for.

        Raises:
            WireError: it is not a frame, or announces more than `max_bytes`, of which nothing is then read.
        """
        (length,) = _LENGTH.unpack(take(_LENGTH.size))
        if length > MAX_HEADER_BYTES:
            raise WireError(f"frame: expected a header of at most {MAX_HEADER_BYTES} bytes, found a longer one")
        form, fields, sizes = _header(bytes(take(length)))
        if max_bytes is not None and sum(sizes.values()) > max_bytes:
            raise WireError(f"frame: expected at most {max_bytes} bytes of arrays, found more announced")
        return cls(form, fields, {name: take(size) for name, size in sizes.items()})


def _header(text: bytes) -> tuple[str, dict[str, str | int], dict[str, int]]:
    try:
        header = json.loads(text)
        form, fields, arrays = header["form"], header["fields"], header["arrays"]
        sizes = dict(arrays)
        good = len(header) == 3 and len(sizes) == len(arrays) <= MAX_ARRAYS and list(sizes) == sorted(sizes)
        good = good and isinstance(form, str) and isinstance(fields, dict) and isinstance(arrays, list)
        good = good and all(type(value) in (str, int) for value in fields.values())
        good = good and all(type(n) is str and type(size) is int and 0 <= size < 2**40 for n, size in sizes.items())
        good = good and canonical_json(header).encode("ascii") == text
    except (ValueError, TypeError, KeyError, RecursionError):
        good = False
    if not good:
        raise WireError("frame: expected a header of form, fields and arrays, found something else")
    return form, fields, sizes
