"""Exact sums of whole numbers in float64, for any order and any number of terms.

>>> total = ExactSum((1,))
>>> for part in (2.0**53, 1.0, 1.0):
...     total.room()[:] = part
...     total.add()
>>> total.value().tolist() == [2.0**53 + 2.0]
True
"""

import numpy as np
from numpy.typing import NDArray

_SPLIT = 1.5 * 2.0**78  # added and taken away again it leaves multiples of 2^26
Doubles = NDArray[np.float64]


class ExactSum:
    """Adds up to 2^26 arrays of whole numbers of at most 2^53, each as a high and a low word."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._high = np.zeros(shape)
        self._low = self._part = np.empty(0)  # made where a sum has several parts
        self._count = 0

    def clear(self) -> None:
        """Begin again at zero."""
        self._count = 0

    def room(self) -> Doubles:
        """Return an array for the next part: fill it and call `add`."""
        if self._count and not self._part.size:
            self._low, self._part = np.zeros(self._shape), np.zeros(self._shape)
        return self._part if self._count else self._high

    def add(self) -> None:
        """Add the part that `room` was filled with."""
        if self._count:
            self._split_first()
            self._add_split(self._part[None])
        self._count += 1

    def add_all(self, parts: Doubles) -> None:
        """Add several parts: (parts, ...), overwritten."""
        self.room()
        if not self._count:
            self._high.fill(0.0)
            self._count = 1
            self.room()
        self._split_first()
        self._add_split(parts)
        self._count += len(parts)

    def _split_first(self) -> None:
        """Make two words of the sum, where it was one part."""
        if self._count == 1:
            first = self._high[None].copy()
            self._high.fill(0.0)
            self._low.fill(0.0)
            self._add_split(first)

    def value(self) -> Doubles:
        """Return the sum, rounded once, in an array that stays valid until the next use; zeros after no part."""
        if self._count == 0:
            self._high.fill(0.0)
        elif self._count > 1:
            return np.add(self._high, self._low, out=self._part)
        return self._high

    def _add_split(self, parts: Doubles) -> None:
        high = parts + _SPLIT
        high -= _SPLIT
        self._high += np.add.reduce(high, 0)
        self._low += np.add.reduce(np.subtract(parts, high, out=high), 0)
