"""Memory that is let go of goes back to the operating system.

The C library keeps blocks of some megabytes, once freed, for later; after a large model in pieces of five megabytes
that is as much again as the model. Here such blocks are always the kernel's.

>>> return_large_blocks()
"""

import contextlib
import ctypes
import sys

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of <malloc.h>
LARGE_BLOCK_BYTES = 1 << 20


def return_large_blocks() -> None:
    """For the rest of this process; a C library that knows no such setting goes on as before."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
