"""Scaling by a public range to [-1, 1].

Nothing here is measured on patients.

>>> scaled(np.array([10.0, 20.0, 45.0]), 10.0, 30.0)
(array([-1.,  0.,  1.]), 1)
>>> unscaled(np.array([-1.0, 0.0]), 10.0, 30.0).tolist()
[10.0, 20.0]
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def scaled(values: NDArray[np.float64], low: float, high: float) -> tuple[NDArray[np.float64], int]:
    """Return the values in [-1, 1], clipped to their range, and how many were outside it."""
    inside = np.clip(values, low, high)
    return (inside - low) / (high - low) * 2.0 - 1.0, int((inside != values).sum())


def unscaled(values: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """Return scaled values in their own unit; those beyond -1 and 1 lie outside the range."""
    number: NDArray[np.float64] = low + np.add(values, 1.0, dtype=np.float64) / 2 * (high - low)
    return number
