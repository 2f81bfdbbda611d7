"""The public grid to which noised sums are rounded before they leave.

>>> on_grid(np.array([0.30001]), deviation=1.0, divisor=1.0).tolist()  # multiples of 2^-11
[0.2998046875]
"""

import math

import numpy as np
from numpy.typing import NDArray

_DIGITS = 12  # binary digits of the noise's standard deviation that a release keeps


def on_grid(noised: NDArray[np.float64], deviation: float, divisor: float) -> NDArray[np.float64]:
    """Round a noised sum to multiples of 2^-11 to 2^-12 deviations, a power of two, and divide it; overwritten.

    The last bits of a sum of floating-point numbers show how large its parts were: where the noise happens to cancel
    most of the exact sum, what is left has fewer bits than noise alone would (Mironov 2012, "On significance of the
    least significant bits for differential privacy"; Haney et al. 2022, arXiv 2207.13793). Rounded, every
    sum is a whole number of the same steps, and each step has 2^40 values of the noise behind it.
    """
    grid = step_of(deviation)
    noised *= 1.0 / grid
    np.rint(noised, out=noised)
    noised *= grid / divisor
    return noised


def step_of(deviation: float) -> float:
    """Return the grid's step for noise of this standard deviation, a power of two."""
    return math.ldexp(1.0, math.frexp(deviation)[1] - _DIGITS)
