"""Figures of times to an event that some patients were not followed up to.

`y` is (patients, 4): time, cause (0: no event), the horizon, and the column of `predicted` with the risk of the first
cause by then. Patients whose event had another cause never have the first one (Wolbers 2009, Epidemiology 20:555).

- Concordance index (Harrell 1982, JAMA 247:2543): of two patients of whom it is known who had the event first, how
  often that one has the higher risk, ties of risk counting half.
- At the horizon: a patient has had the event, is free of it, or was lost from sight before. Those lost count as
  nothing, the others for as many as they stand for: one over the chance of not having been lost by then, by
  Kaplan-Meier among the same patients (inverse probability of censoring weights; Graf 1999, Uno 2007).

>>> y = np.array([[2.0, 1, 4, 0], [3, 0, 4, 0], [5, 1, 4, 0], [6, 0, 4, 0]])
>>> everybody = np.ones((1, 4))
>>> float(concordance(y, np.array([[0.9], [0.2], [0.1], [0.3]]), everybody)[0])
0.75
>>> weighed(y, everybody).round(2).tolist()  # the second is lost at 3: the last two stand for it
[[1.0, 0.0, 1.5, 1.5]]
"""

import numpy as np
from numpy.typing import NDArray

from configs.records.result import Bin
from strategies.exact.functions import added
from strategies.tasks.classification import area
from strategies.tasks.metrics import MIN_PER_CLASS, Floats, Metric

_BLOCK = 1 << 22  # pairs at once


def risks(y: Floats, predicted: Floats) -> Floats:
    """Return each patient's predicted risk of the first cause by the horizon."""
    return predicted[:, int(y[0, 3]) if len(y) else 0]


def _event_times(y: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return times and whether the first cause ended them; whoever died of another cause is followed for ever."""
    return np.where(y[:, 1] > 1, np.inf, y[:, 0]), y[:, 1] == 1


def concordance(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Return Harrell's concordance index for each row of weights: (resamples, patients) -> (resamples,)."""
    risk, (time, event) = risks(y, predicted), _event_times(y)
    right, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    early = np.flatnonzero(event)
    for some in np.array_split(early, max(1, -(-len(early) * len(y) // _BLOCK))):
        later = (time > time[some, None]) | ((time == time[some, None]) & ~event)  # (events, patients)
        higher = later * ((risk[some, None] > risk) + (risk[some, None] == risk) / 2)
        # Counts times halves: exact, in whatever order they are added.
        right += ((weights @ higher.T) * weights[:, some]).sum(axis=1)
        pairs += ((weights @ later.T) * weights[:, some]).sum(axis=1)
    return np.asarray(right / pairs)


def _has_known_pairs(y: Floats, _predicted: Floats, _patients: NDArray[np.int64]) -> bool:
    time, event = _event_times(y)
    return bool(event.any() and (time > time[event].min()).any())


def state(y: Floats) -> NDArray[np.int64]:
    """Return 1 for patients with the event by the horizon, 0 for those free of it, -1 for those lost before."""
    by_then = y[:, 0] <= y[:, 2]
    has_event, is_lost = by_then & (y[:, 1] == 1), (y[:, 0] < y[:, 2]) & (y[:, 1] == 0)
    return np.where(has_event, 1, np.where(is_lost, -1, 0))


def weighed(y: Floats, weights: Floats) -> Floats:
    """Return for how many each patient stands at the horizon, nothing for those lost before: (resamples, patients).

    Args:
        weights: (resamples, patients).
    """
    order = np.argsort(y[:, 0], kind="stable")
    time, lost, counts = y[order, 0], y[order, 1] == 0, weights[:, order]
    first = np.flatnonzero(np.concatenate([[True], np.diff(time) > 0]))  # of each group of equal times
    there = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1][:, first]  # (resamples, groups): still followed
    leaving = np.add.reduceat(counts * lost, first, axis=1)
    events = np.add.reduceat(counts * ~lost, first, axis=1)
    left = there - events  # an event comes before a loss at the same time
    kept = np.cumprod(np.where(leaving > 0, 1 - leaving / np.maximum(left, 1e-12), 1.0), axis=1)
    before = np.concatenate([np.ones((len(weights), 1)), kept[:, :-1]], axis=1)
    at = np.searchsorted(time[first], np.minimum(y[:, 0], y[:, 2]))  # the group of each one's time, or of the horizon
    reached = np.concatenate([before, kept[:, -1:]], axis=1)[:, at]
    return np.where(state(y) >= 0, weights / reached, 0.0)


def horizon_area(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Return the area under the ROC curve of the risk by the horizon, of those with the event against those without."""
    stands, now = weighed(y, weights), state(y)
    return area(risks(y, predicted), stands * (now == 1), stands * (now == 0))


def horizon_brier(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Return the mean squared error of the risk by the horizon."""
    errors = (risks(y, predicted) - (state(y) == 1)) ** 2
    return np.asarray(added(weighed(y, weights) * errors) / weights.sum(axis=1))


def _has_both(y: Floats, _predicted: Floats, _patients: NDArray[np.int64]) -> bool:
    return all((state(y) == value).sum() >= MIN_PER_CLASS for value in (0, 1))


def horizon_bins(y: Floats, predicted: Floats, bins: int = 10) -> tuple[Bin, ...]:
    """Return mean predicted and observed risk by the horizon, and patients, for each tenth of predicted risk."""
    risk = risks(y, predicted)
    stands, had_event = weighed(y, np.ones((1, len(y))))[0], state(y) == 1
    bin_of = np.minimum((risk * bins).astype(int), bins - 1)
    made = []
    for b in range(bins):
        inside = bin_of == b
        if stands[inside].sum() > 0:
            observed = float((stands * had_event)[inside].sum() / stands[inside].sum())
            mean = float(risk[inside].mean())
            made.append(
                Bin(low=b / bins, high=(b + 1) / bins, predicted=mean, observed=observed, count=int(inside.sum()))
            )
    return tuple(made)


def incidence(y: Floats, cause: int, times: Floats) -> list[tuple[float, float]]:
    """Return the observed risk of a cause by each time and its standard error (Aalen and Johansen 1978).

    With one cause this is one less Kaplan and Meier's curve, with Greenwood's error. With several the error is that of
    the delta method (Marubini and Valsecchi 1995, chapter 10).
    """
    when, ends = np.unique(y[:, 0]), []
    at_risk = (y[:, 0] >= when[:, None]).sum(axis=1)
    any_event = ((y[:, 0] == when[:, None]) & (y[:, 1] > 0)).sum(axis=1)
    of_cause = ((y[:, 0] == when[:, None]) & (y[:, 1] == cause)).sum(axis=1)
    free = np.cumprod(1 - any_event / at_risk)
    before = np.concatenate([[1.0], free[:-1]])
    risk = np.cumsum(before * of_cause / at_risk)
    spread = any_event / np.maximum(at_risk * (at_risk - any_event), 1)
    for time in times:
        known = when <= time
        reached = float(risk[known][-1]) if known.any() else 0.0
        gap, share = reached - risk[known], before[known] / at_risk[known]
        variance = (
            (gap**2 * spread[known]).sum()
            + (share**2 * of_cause[known] * (at_risk[known] - of_cause[known]) / at_risk[known]).sum()
            - 2 * (gap * share * of_cause[known] / at_risk[known]).sum()
        )
        ends.append((reached, float(np.sqrt(max(variance, 0.0)))))
    return ends


C_INDEX = Metric(
    "c_index",
    "Concordance index",
    "how often the patient with the earlier event has the higher risk; 0.5 is chance, 1 is perfect",
    concordance,
    chance=0.5,
    is_defined=_has_known_pairs,
    needs="no two test patients of whom it is known who had the event first",
)
HORIZON_AUROC = Metric(
    "horizon_auroc",
    "AUROC at the horizon",
    "how often a patient with the event by then gets the higher risk; 0.5 is chance, 1 is perfect",
    horizon_area,
    chance=0.5,
    is_defined=_has_both,
    needs="fewer than two test patients with the event by the horizon, or without",
)
HORIZON_BRIER = Metric(
    "horizon_brier",
    "Brier score at the horizon",
    "squared error of the risk by then; 0 is perfect",
    horizon_brier,
    lower_is_better=True,
)
