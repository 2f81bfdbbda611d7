"""Metrics over patients, each with a 95 % bootstrap interval.

What each one is stands in its task type's file. A resample draws patients with replacement (all rows of a patient
together), which is the same as giving each patient a count; so every metric takes row weights, and one call computes it
for several resamples at once: as many as a piece of PIECE weights holds, so that memory does not grow with patients
times resamples. A resample's value is the same bits in whatever piece it lies. Intervals are the 2.5 and 97.5
percentiles over resamples where the metric is defined (Efron and Tibshirani 1993, chapter 13).

>>> mean = Metric("mean", "Mean", "the mean outcome", lambda y, predicted, weights: weighted_mean(y, weights))
>>> y = np.array([0.0, 1.0, 1.0, 0.0])
>>> estimate(mean, y, np.zeros((4, 1)), np.arange(4), resamples=0)
Estimate(value=0.5, low=0.5, high=0.5)
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.records.estimate import Estimate
from strategies.exact.functions import added

Floats = NDArray[np.float64]
RESAMPLES = 1000
NORMAL_975 = 1.959964  # 97.5 % of the normal distribution lie below: half of a 95 % interval, in deviations
PIECE = 4_000_000  # weights in one piece, 32 MB: a metric makes a few arrays of this size
MIN_PER_CLASS = 2


def _not_known(_y: Floats, _predicted: Floats, _weights: Floats) -> Floats:
    raise NotImplementedError("a metric that a report only reads the name of")


def _has_rows(y: Floats, _predicted: Floats, _patients: NDArray[np.int64]) -> bool:
    return bool(len(y))


@dataclass(frozen=True)
class Metric:
    """A measure of how well predictions fit, and its words in a report.

    `compute` takes y: (rows,) or (rows, targets), predictions: (rows, columns), and weights: (resamples, rows); it
    returns (resamples,). `is_defined` takes y, predictions and the rows' patients, of one row or more.
    """

    name: str
    label: str
    about: str
    compute: Callable[[Floats, Floats, Floats], Floats] = _not_known
    is_bounded: bool = True  # between 0 and 1, so two decimals say enough
    lower_is_better: bool = False
    in_unit: bool = False  # it is in the target's unit
    chance: float | None = None  # what a guess reaches
    is_defined: Callable[[Floats, Floats, NDArray[np.int64]], bool] = _has_rows
    needs: str = "no test patients"  # why a hospital may have no such figure

    def is_worse(self, than: float, value: float) -> bool:
        """Return whether a value is worse than another."""
        return value > than if self.lower_is_better else value < than


def estimate(
    metric: Metric,
    y: Floats,
    predicted: Floats,
    patients: NDArray[np.int64],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate | None:
    """Return the metric with its interval, or None where it is undefined.

    Args:
        y: (rows,) class numbers or values, or (rows, targets); predicted: (rows, classes or 1).
        patients: (rows,) from 0.
        resamples: 0 leaves the interval at the value.
    """
    return estimate_mean(metric, y, [predicted], patients, seed=seed, resamples=resamples)


def estimate_mean(
    metric: Metric,
    y: Floats,
    predictions: Sequence[Floats],
    patients: NDArray[np.int64],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate | None:
    """Return the mean of a metric over several models' predictions for the same patients, with its interval."""
    return estimates([metric], y, predictions, patients, seed=seed, resamples=resamples)[metric.name]


def estimates(
    metrics: Sequence[Metric],
    y: Floats,
    predictions: Sequence[Floats],
    patients: NDArray[np.int64],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Estimate | None]:
    """Return several metrics' means over models, of the same resamples, as `estimate_mean` has each."""
    values = resampled(metrics, y, predictions, patients, seed=seed, resamples=resamples)
    return {metric.name: interval(values.get(metric.name)) for metric in metrics}


def resampled(
    metrics: Sequence[Metric],
    y: Floats,
    predictions: Sequence[Floats],
    patients: NDArray[np.int64],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Floats]:
    """Return each metric that is defined, (1 + resamples,): its value, then that of each resample.

    Of as many patients and the same seed the resamples are the same, so that differences of two models are paired.
    """
    defined = [m for m in metrics if len(y) and m.is_defined(y, predictions[0], patients)]
    values: dict[str, list[Floats]] = {metric.name: [] for metric in defined}
    for weights in resamples_of(patients, seed, resamples) if defined else ():
        with np.errstate(all="ignore"):  # of a model that diverged, figures are what they are, or undefined
            for metric in defined:
                each = [metric.compute(y, predicted, weights) for predicted in predictions]
                values[metric.name].append(np.mean(each, axis=0))
    return {name: np.concatenate(pieces) for name, pieces in values.items()}


def interval(values: Floats | None) -> Estimate | None:
    """Return a value and the middle 95 % of its resamples; values: (1 + resamples,), the value itself first."""
    if values is None or not np.isfinite(values[0]):
        return None
    defined = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(defined if len(defined) else values[:1], [2.5, 97.5])
    return Estimate(float(values[0]), float(low), float(high))


def weighted_mean(values: Floats, weights: Floats) -> Floats:
    """Return weighted means, each summed by itself: a product of matrices would round a row by how many there are."""
    return np.asarray(added(weights * values) / weights.sum(axis=1))


def resamples_of(patients: NDArray[np.int64], seed: int, resamples: int = RESAMPLES) -> Iterator[Floats]:
    """Yield row weights in pieces, (resamples in the piece, rows): everybody once, then draws with replacement."""
    count = int(patients.max()) + 1
    rng = np.random.default_rng([seed, count])
    chances = np.full(count, 1.0 / count)
    yield np.ones((1, len(patients)))
    most = max(1, PIECE // max(count, len(patients)))
    for start in range(0, resamples, most):
        drawn = rng.multinomial(count, chances, size=min(most, resamples - start))
        yield drawn[:, patients].astype(np.float64, order="C")  # as sums round by how an array lies in memory
