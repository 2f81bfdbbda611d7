"""Counts of patients with Gaussian noise, rounded to whole numbers.

The noise is rounded to whole patients. The exact counts are whole, so this is the same as rounding the noisy counts:
no low bit of a float tells what was added to what (Mironov 2012, "On significance of the least significant bits for
differential privacy").

>>> round(cell_variance(2.0), 4)
4.0833
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # PyTorch, which the coordinator's half does not need
    from strategies.privacy.randomness import Randomness

ROUNDING_VARIANCE = 1.0 / 12  # of a number rounded to a whole one (Sheppard 1898)
FAR = 8.0  # standard deviations: none of 1,000 honest counts in a billion releases lies beyond


def noised(exact: NDArray[np.float64], standard_deviation: float, randomness: "Randomness") -> NDArray[np.float32]:
    """Return the counts with Gaussian noise of this standard deviation in each cell, in whole numbers; same shape."""
    noise = randomness.gaussian(exact.size, standard_deviation).numpy().reshape(exact.shape)
    return np.asarray(exact + np.rint(noise), np.float32)


def cell_variance(standard_deviation: float) -> float:
    """Return the variance of the noise in one cell, rounding included, in patients squared."""
    return standard_deviation**2 + ROUNDING_VARIANCE
