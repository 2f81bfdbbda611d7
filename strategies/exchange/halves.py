"""Work on large arrays in two halves, one on each of two processors.

It is for processes that have nothing else to do meanwhile. What is computed of each piece is the same, and stands in
the same order: the same bits as one after the other.

>>> from operator import neg
>>> both(neg, [1, 2, 3], total_bytes=FROM_BYTES), both(neg, [1, 2, 3], total_bytes=0)
([-1, -2, -3], [-1, -2, -3])
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from configs.frame import WINDOW_BYTES

Part = TypeVar("Part")
Made = TypeVar("Made")
FROM_BYTES = 1 << 23  # of all parts: below, a thread costs more than it brings


def both(work: Callable[[Part], Made], parts: Sequence[Part], total_bytes: int) -> list[Made]:
    """Return what `work` makes of each part, in their order; two at a time where they are large."""
    if total_bytes < FROM_BYTES or len(parts) < 2:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(work, parts))


def spans(size: int) -> list[slice]:
    """Return two spans of so many bytes, of which the first is whole windows; one of a small array.

    >>> spans(10), spans(4 * WINDOW_BYTES + 4)
    ([slice(0, 10, None)], [slice(0, 524288, None), slice(524288, 1048580, None)])
    """
    middle = size // 2 // WINDOW_BYTES * WINDOW_BYTES
    return [slice(0, middle), slice(middle, size)] if middle else [slice(0, size)]
