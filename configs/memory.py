"""glibc allocator settings.

Relaying processes return large blocks at once, training processes keep them. The C library keeps blocks of some
megabytes, once freed, for later; after a large model in pieces of five megabytes that is as much again as the model.
And around a request that carries such a piece, web libraries leave circles of references, which hold its bytes several
times until Python's garbage collector comes by: it counts objects, not bytes.

A step of training is another matter. What it frees at its end, the next one asks for again, and memory that comes back
from the kernel is cleared page by page: a tenth of a step's time.

>>> return_large_blocks()
>>> keep_freed_blocks()
>>> tidy = Tidy(every_bytes=10)
>>> tidy.passed(6), tidy.passed(6), tidy.passed(6)
(False, True, False)
"""

import contextlib
import ctypes
import gc
import sys
import threading
from collections.abc import Mapping

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of <malloc.h>
LARGE_BLOCK_BYTES = 1 << 20
KEPT_ROOM_BYTES = 1 << 27
SMALL_BYTES = 1 << 24  # of smaller blocks, which are not given back each time
KEPT_BLOCK_BYTES, KEPT_BYTES = 1 << 25, 1 << 30  # larger blocks are never kept, nor more than this at the end
TIDY_BYTES = 20_000_000


def return_large_blocks() -> None:
    """Return freed large blocks to the system from now on; a C library without that setting goes on as before."""
    _set({_MMAP_THRESHOLD: LARGE_BLOCK_BYTES, _TRIM_THRESHOLD: SMALL_BYTES})


def keep_freed_blocks() -> None:
    """Keep freed memory, for a process that trains: its peak is no higher, it only lasts."""
    _set({_MMAP_THRESHOLD: KEPT_BLOCK_BYTES, _TRIM_THRESHOLD: KEPT_BYTES})


def _set(parameters: Mapping[int, int]) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):
            library = ctypes.CDLL(None)
            for name, value in parameters.items():
                library.mallopt(name, value)


class Room:
    """Memory for large buffers, used again once nothing refers to what was in it: new memory is cleared page by page.

    It keeps at most `KEPT_ROOM_BYTES`; larger buffers are new each time, and given back.

    >>> room = Room()
    >>> first = room.of(2_000_000); first[:1] = b"x"; address = id(first.obj)
    >>> second = room.of(2_000_000); id(second.obj) == address  # the first one is still in use
    False
    >>> del first; third = room.of(1_500_000); id(third.obj) == address, len(third)
    (True, 1500000)
    """

    def __init__(self) -> None:
        self._kept: list[bytearray] = []
        self._turn = threading.Lock()

    def of(self, count: int) -> memoryview:
        """Return so many bytes of any content."""
        with self._turn:
            fitting = [block for block in self._kept if count <= len(block) <= 2 * count and _is_free(block)]
            block = min(fitting, key=len) if fitting else bytearray(count)
            if not fitting and count <= KEPT_ROOM_BYTES:
                while sum(map(len, self._kept)) > KEPT_ROOM_BYTES - count:
                    self._kept.pop(0)
                self._kept.append(block)
            return memoryview(block)[:count]


def _is_free(block: bytearray) -> bool:
    """Return whether nothing refers to its content, so that its size can change."""
    try:
        block.append(block.pop())
    except BufferError:
        return False
    return True


ROOM = Room()  # of this process


class Tidy:
    """Calls the garbage collector after so many bytes of messages."""

    def __init__(self, every_bytes: int = TIDY_BYTES) -> None:
        self._every, self._passed = every_bytes, 0

    def passed(self, count: int) -> bool:
        """Count so many bytes more; return whether it was called."""
        self._passed += count
        if self._passed <= self._every:
            return False
        self._passed = 0
        if not gc.get_freeze_count():
            gc.freeze()  # what is there by now stays; to look through it each time costs a tenth of a second
        gc.collect()
        return True
