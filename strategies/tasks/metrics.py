"""Metrics over patients, each with a 95 % bootstrap interval.

A resample draws patients with replacement (all rows of a patient together), which is the same as giving each patient
a count; so every metric takes row weights, and one call computes it for several resamples at once: as many as a piece
of PIECE weights holds, so that memory does not grow with patients times resamples. A resample's value is the same bits
in whatever piece it lies. Intervals are the 2.5 and 97.5 percentiles over resamples where the metric is defined (Efron
and Tibshirani 1993, chapter 13).

AUROC is the probability that a patient with the outcome scores above one without, ties counting half. It is
undefined, never a number, where a group has fewer than two patients of either outcome: one patient's rank is no rate.

>>> y, p = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.35, 0.8])
>>> float(auroc(y, np.stack([1 - p, p], 1), np.ones((1, 4)))[0])
0.75
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.exact.functions import added, logarithm

Floats = NDArray[np.float64]
# (rows,) target, (rows, outputs) prediction, (resamples, rows) weights -> (resamples,)
Metric = Callable[[Floats, Floats, Floats], Floats]
RESAMPLES = 1000
PIECE = 4_000_000  # weights in one piece, 32 MB: a metric makes a few arrays of this size
MIN_PER_CLASS = 2


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Plain numbers for metrics.json."""
        return asdict(self)


def estimate(
    metric: str,
    y: Floats,
    predicted: Floats,
    patients: NDArray[np.int64],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate | None:
    """The metric with its interval, or None where it is undefined.

    Args:
        y: (rows,) class numbers or values; predicted: (rows, classes or 1); patients: (rows,) from 0.
        resamples: 0 leaves the interval at the value.
    """
    return estimate_mean(metric, y, [predicted], patients, seed=seed, resamples=resamples)


def estimate_mean(
    metric: str,
    y: Floats,
    predictions: Sequence[Floats],
    patients: NDArray[np.int64],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate | None:
    """The mean of a metric over several models' predictions for the same patients, with its interval."""
    return estimates([metric], y, predictions, patients, seed=seed, resamples=resamples)[metric]


def estimates(
    metrics: Sequence[str],
    y: Floats,
    predictions: Sequence[Floats],
    patients: NDArray[np.int64],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Estimate | None]:
    """Return several metrics' means over models, of the same resamples, as `estimate_mean` has each."""
    defined = [m for m in metrics if len(y) and _defined(m, y, patients, predictions[0].shape[1])]
    values: dict[str, list[Floats]] = {metric: [] for metric in defined}
    for weights in _resampled(patients, seed, resamples) if defined else ():
        with np.errstate(all="ignore"):  # of a model that diverged, figures are what they are, or undefined
            for metric in defined:
                found = [METRICS[metric](y, predicted, weights) for predicted in predictions]
                values[metric].append(np.mean(found, axis=0))
    return {m: _interval(np.concatenate(values[m])) if m in values else None for m in metrics}


def _interval(values: Floats) -> Estimate | None:
    """A metric's value and the middle 95 % of its resamples; values: (1 + resamples,), the value itself first."""
    if not np.isfinite(values[0]):
        return None
    defined = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(defined if len(defined) else values[:1], [2.5, 97.5])
    return Estimate(float(values[0]), float(low), float(high))


def auroc(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Area under the ROC curve; for several classes the mean over classes of one against the rest."""
    if predicted.shape[1] == 2:
        return _auroc_binary(y == 1, predicted[:, 1], weights)
    per_class = [_auroc_binary(y == c, predicted[:, c], weights) for c in range(predicted.shape[1])]
    return np.asarray(np.mean(per_class, axis=0))


def _auroc_binary(positive: NDArray[np.bool_], score: Floats, weights: Floats) -> Floats:
    order = np.argsort(score, kind="stable")
    ties = np.flatnonzero(np.concatenate([[True], np.diff(score[order]) > 0]))  # where each group of equals starts
    sorted_weights = weights[:, order]
    up = np.add.reduceat(sorted_weights * positive[order], ties, axis=1)  # (resamples, groups)
    down = np.add.reduceat(sorted_weights * ~positive[order], ties, axis=1)
    below = np.cumsum(down, axis=1) - down
    return np.asarray((up * (below + down / 2)).sum(axis=1) / (up.sum(axis=1) * down.sum(axis=1)))


def accuracy(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Share of rows whose most probable class is right (for two classes: probability above one half)."""
    return _mean((predicted.argmax(axis=1) == y).astype(np.float64), weights)


def balanced_accuracy(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Mean over classes of the share found."""
    right = (predicted.argmax(axis=1) == y).astype(np.float64)
    classes = [c for c in range(predicted.shape[1]) if (y == c).any()]
    return np.asarray(np.mean([_mean(right[y == c], weights[:, y == c]) for c in classes], axis=0))


def brier(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Mean squared error of the probabilities: of the outcome for two classes, summed over classes for more."""
    truth = np.eye(predicted.shape[1])[y.astype(int)]
    errors = ((predicted - truth) ** 2).sum(axis=1)
    return _mean(errors / 2 if predicted.shape[1] == 2 else errors, weights)


def log_loss(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Mean of minus the log of the probability given to the truth, in nats; probabilities from 1e-15."""
    given = np.clip(predicted[np.arange(len(y)), y.astype(int)], 1e-15, 1.0)
    return _mean(-logarithm(given), weights)


def mae(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Mean absolute error, in the target's unit."""
    return _mean(np.abs(predicted[:, 0] - y), weights)


def r2(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Share of the target's variance that is explained."""
    mean = _mean(y, weights)
    gaps, errors = y[None, :] - mean[:, None], predicted[:, 0] - y
    return np.asarray(1 - added(weights * (errors * errors)) / added(weights * (gaps * gaps)))


METRICS: Mapping[str, Metric] = {
    "auroc": auroc,
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "brier": brier,
    "log_loss": log_loss,
    "mae": mae,
    "r2": r2,
}


def calibration(y: Floats, predicted: Floats, bins: int = 10) -> list[dict[str, float]]:
    """For two classes: per tenth of predicted probability the mean prediction, the observed share, the count."""
    probability = predicted[:, 1]
    bin_of = np.minimum((probability * bins).astype(int), bins - 1)
    return [
        {
            "low": b / bins,
            "high": (b + 1) / bins,
            "predicted": float(probability[bin_of == b].mean()),
            "observed": float(y[bin_of == b].mean()),
            "count": int((bin_of == b).sum()),
        }
        for b in range(bins)
        if (bin_of == b).any()
    ]


def _mean(values: Floats, weights: Floats) -> Floats:
    """Weighted means, each summed by itself: a product of matrices would round a row by how many there are."""
    return np.asarray(added(weights * values) / weights.sum(axis=1))


def _defined(metric: str, y: Floats, patients: NDArray[np.int64], classes: int) -> bool:
    if not len(y):
        return False
    if metric == "auroc":
        return all(len(np.unique(patients[y == c])) >= MIN_PER_CLASS for c in range(classes))
    return metric != "r2" or len(np.unique(y)) > 1


def _resampled(patients: NDArray[np.int64], seed: int, resamples: int) -> Iterator[Floats]:
    """Yield row weights in pieces, (resamples in the piece, rows): everybody once, then draws with replacement."""
    count = int(patients.max()) + 1
    rng = np.random.default_rng([seed, count])
    chances = np.full(count, 1.0 / count)
    yield np.ones((1, len(patients)))
    most = max(1, PIECE // max(count, len(patients)))
    for start in range(0, resamples, most):
        drawn = rng.multinomial(count, chances, size=min(most, resamples - start))
        yield drawn[:, patients].astype(np.float64, order="C")  # as sums round by how an array lies in memory
