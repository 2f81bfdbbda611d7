"""Metrics of tasks that give each patient one score from 0 to 1: a Dice coefficient, or what a study kit says.

>>> metric = score_metric("dice", "Dice", "")
>>> predicted = with_shares(np.array([1.0, 0.5]), np.array([0, 0, 1]))  # the first patient has two rows
>>> metric.compute(np.zeros(3), predicted, np.ones((1, 3))).tolist()
[0.75]
"""

import numpy as np
from numpy.typing import NDArray

from strategies.exact.functions import added
from strategies.tasks.metrics import Floats, Metric


def score_metric(name: str, label: str, about: str) -> Metric:
    """Return the metric that is the mean score over patients, of predictions as `with_shares` returns them."""
    return Metric(name, label, about, _mean_score)


def with_shares(scores: Floats, owners: NDArray[np.int64]) -> Floats:
    """Return for each row its patient's score, and its share among the patient's rows: (rows, 2).

    Args:
        scores: (patients,); owners: (rows,) the patient of each row.
    """
    counts = np.bincount(owners, minlength=len(scores))
    return np.stack([scores[owners], 1.0 / counts[owners]], axis=1)


def _mean_score(_y: Floats, predicted: Floats, weights: Floats) -> Floats:
    scores, shares = predicted.T
    shared = weights * shares
    return np.asarray(added(shared * scores) / added(shared))
