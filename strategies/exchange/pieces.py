"""Large arrays piece by piece, without Flower: commands that plan read files of arrays too."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.frame import WINDOW_BYTES, MappedFile


def pieces(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield a contiguous array as flat pieces of 256 KB, for one pass; pages of a mapped file are given back."""
    flat, base = array.reshape(-1), array.base
    while isinstance(base, np.ndarray):
        base = base.base
    base = base.obj if isinstance(base, memoryview) else base
    count = max(1, WINDOW_BYTES // array.itemsize)
    for start in range(0, len(flat), count):
        yield flat[start : start + count]
        if isinstance(base, MappedFile):
            base.give_back()
