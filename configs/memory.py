"""Memory that is let go of goes back to the operating system, at once.

The C library keeps blocks of some megabytes, once freed, for later; after a large model in pieces of five megabytes
that is as much again as the model. And around a request that carries such a piece, web libraries leave circles of
references, which hold its bytes several times until Python's garbage collector comes by: it counts objects, not bytes.

>>> return_large_blocks()
>>> tidy = Tidy(every_bytes=10)
>>> tidy.passed(6), tidy.passed(6), tidy.passed(6)
(False, True, False)
"""

import contextlib
import ctypes
import gc
import sys

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of <malloc.h>
LARGE_BLOCK_BYTES = 1 << 20
TIDY_BYTES = 20_000_000


def return_large_blocks() -> None:
    """For the rest of this process; a C library that knows no such setting goes on as before."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


class Tidy:
    """Calls the garbage collector after so many bytes of messages."""

    def __init__(self, every_bytes: int = TIDY_BYTES) -> None:
        self._every, self._passed = every_bytes, 0

    def passed(self, count: int) -> bool:
        """So many bytes more; whether it was called."""
        self._passed += count
        if self._passed <= self._every:
            return False
        self._passed = 0
        if not gc.get_freeze_count():
            gc.freeze()  # what is there by now stays; to look through it each time costs a tenth of a second
        gc.collect()
        return True
