"""What a hospital says about its test patients: a histogram of scores by outcome, with noise. Both ends of it.

A patient adds 1 to one cell whatever the model, so that adding or removing one changes the counts by 1 (L2 norm). The
noise is Gaussian; the noisy counts are rounded to whole patients, which is the same as rounding the noise alone, so
that no low bit of a float tells what was added to what (Mironov 2012, "On significance of the least significant bits
for differential privacy"). Not here: what it costs (strategies/privacy/plan.py), and what follows from it
(strategies/tasks/figures.py).

>>> found = counts(np.array([0.9, 0.7, 0.2]), np.array([1.0, 1.0, 0.0]), starts=np.array([0, 2, 3]), bins=5)
>>> found.tolist()
[[0.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]]
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.errors import WireError

if TYPE_CHECKING:  # PyTorch, which the coordinator's end does not need
    from strategies.privacy.randomness import Randomness

ROUNDING_VARIANCE = 1.0 / 12  # of a number rounded to a whole one (Sheppard 1898)
_FAR = 8.0  # standard deviations: none of 200 honest cells in a billion releases lies beyond
MOST_PATIENTS = 10_000_000  # in one cell, where the study announces no number


def counts(
    scores: NDArray[np.float64], outcomes: NDArray[np.floating], *, starts: NDArray[np.int64], bins: int
) -> NDArray[np.float64]:
    """(2, bins) patients: row 0 without the outcome, row 1 with it; column k has scores from k / bins.

    Args:
        scores: (rows,) from 0 to 1; a score that is no number counts as 0, so that the patient is in one cell.
        outcomes: (rows,) 0 or 1.
        starts: (patients + 1,) row offsets. Several rows are one patient, of their mean score and first row's outcome.
    """
    first, lengths = starts[:-1], np.diff(starts)
    rows = np.clip(np.nan_to_num(scores, nan=0.0), 0.0, 1.0)
    means = np.add.reduceat(rows, first) / lengths if len(first) else np.empty(0)
    column = np.minimum((means * bins).astype(np.int64), bins - 1)
    row = (outcomes[first] >= 0.5).astype(np.int64)
    return np.bincount(row * bins + column, minlength=2 * bins).reshape(2, bins).astype(np.float64)


def noised(exact: NDArray[np.float64], noise_multiplier: float, randomness: "Randomness") -> NDArray[np.float32]:
    """The counts with Gaussian noise of this standard deviation in each cell, in whole numbers: (2, bins)."""
    noise = randomness.gaussian(exact.size, noise_multiplier).numpy().reshape(exact.shape)
    return np.asarray(exact + np.rint(noise), np.float32)


def cell_variance(noise_multiplier: float) -> float:
    """Variance of the noise in one cell, in patients squared."""
    return noise_multiplier**2 + ROUNDING_VARIANCE


def require_plausible(
    histogram: NDArray[np.float32], noise_multiplier: float, announced_patients: int | None = None
) -> None:
    """Whether such a histogram can come from an honest hospital; its shape and finiteness are known to be right.

    Raises:
        WireError: it cannot. The text holds no value.
    """
    slack = _FAR * math.sqrt(cell_variance(noise_multiplier))
    most = MOST_PATIENTS if announced_patients is None else announced_patients
    if not np.isfinite(histogram).all() or (histogram != np.rint(histogram)).any():
        raise WireError("evaluate reply: expected whole numbers of patients, found others")
    if histogram.min() < -slack - 1:
        raise WireError("evaluate reply: expected counts that the noise can explain, found one far below zero")
    total = histogram.astype(np.float64).sum()
    if histogram.max() > most + slack or total > most + slack * math.sqrt(histogram.size):
        raise WireError("evaluate reply: expected no more patients than the hospital announced, found many more")
