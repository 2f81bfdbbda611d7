"""Exact figures of a model that gives the probability of one outcome: thresholds, decision curve, ROC, calibration.

They are of patients who are at hand, so of a simulation; strategies/releases/outcome_figures.py has those of noisy
histograms. A patient is called ill from the threshold on. Net benefit is the share of true alarms less the share of
false ones times the threshold's odds (Vickers and Elkin 2006, "Decision curve analysis"). Calibration in the large is
the mean prediction less the observed share; the slope is that of a logistic regression of the outcome on the predicted
log odds (Cox 1958; Van Calster et al. 2016), its interval from the sandwich variance by patient.

>>> y, p = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.35, 0.8])
>>> [round(point.model, 3) for point in decision_curve(y, p, thresholds=(0.2, 0.5))]
[0.438, 0.25]
>>> calibration_slope(y, p, np.arange(4)).value > 0
True
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.records.estimate import Estimate
from configs.records.outcome import AtThreshold, Calibrated, NetBenefit, OutcomeFigures, RocPoint
from strategies.exact.functions import logarithm, sigmoid
from strategies.tasks.metrics import MIN_PER_CLASS, Floats, Metric, estimates, weighted_mean

Rows = tuple[Floats, Floats, NDArray[np.int64]]  # outcome 0 or 1, probability, patient from 0: (rows,) each
USUAL = (0.5,)  # where a study states no threshold
CURVE = tuple(percent / 100 for percent in range(2, 100, 2))  # thresholds of the decision curve
MOST_POINTS = 60  # of an ROC curve
_Z, _STEPS, _TINY = 1.959964, 50, 1e-12


def outcome_figures(
    rows: Rows, sites: Mapping[str, Rows], thresholds: Sequence[float], *, seed: int = 0
) -> OutcomeFigures:
    """Return the figures of all patients, and the calibration at each hospital."""
    y, probability, _ = rows
    return OutcomeFigures(
        calibrated=calibrated(rows, seed=seed),
        calibrated_by_site={site: calibrated(own, seed=seed) for site, own in sites.items()},
        thresholds=tuple(at_threshold(rows, threshold, seed=seed) for threshold in thresholds or USUAL),
        decision=decision_curve(y, probability) if len(y) else (),
        roc=roc(y, probability),
    )


def at_threshold(rows: Rows, threshold: float, *, seed: int = 0) -> AtThreshold:
    """Return sensitivity, specificity, predictive values, share called ill and net benefit, with 95 % intervals."""
    y, probability, patients = rows
    predicted = np.stack([1 - probability, probability], axis=1)
    names = ("sensitivity", "specificity", "ppv", "npv", "flagged", "net_benefit")
    metrics = [Metric(name, name, "", _Compute(name, threshold), is_defined=_Enough(name)) for name in names]
    shares = estimates(metrics, y, [predicted], patients, seed=seed)
    called = probability >= threshold
    among = {"sensitivity": y == 1, "specificity": y == 0, "ppv": called, "npv": ~called, "flagged": y >= 0}
    wide = {name: _not_certain(shares[name], len(np.unique(patients[rows]))) for name, rows in among.items()}
    return AtThreshold(threshold=threshold, **shares | wide)


def _not_certain(share: Estimate | None, patients: int) -> Estimate | None:
    """Return a share of nobody or everybody with Wilson's interval: all resamples agree, and yet it is not certain."""
    if share is None or share.value not in (0.0, 1.0):
        return share
    return Estimate(share.value, *wilson(share.value * patients, patients))


def wilson(successes: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927), which unlike the textbook one works for few patients.

    >>> wilson(50, 100)[0] < 0.5 < wilson(50, 100)[1]
    True
    """
    z = 1.96
    rate, spare = successes / count, z * z / count
    middle = (rate + spare / 2) / (1 + spare)
    half = z / (1 + spare) * math.sqrt(rate * (1 - rate) / count + spare / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


class _Compute:
    """A figure at a threshold as a metric computes it, (resamples,) of weights (resamples, rows)."""

    def __init__(self, name: str, threshold: float) -> None:
        self._name, self._threshold = name, threshold

    def __call__(self, y: Floats, predicted: Floats, weights: Floats) -> Floats:
        ill, called = y == 1, predicted[:, 1] >= self._threshold
        among = {"sensitivity": ill, "specificity": ~ill, "ppv": called, "npv": ~called}.get(self._name)
        right = {"sensitivity": called, "specificity": ~called, "ppv": ill, "npv": ~ill, "flagged": called}
        if self._name == "net_benefit":
            odds = self._threshold / (1 - self._threshold)
            return weighted_mean((called & ill) - odds * (called & ~ill), weights)
        values = right[self._name].astype(np.float64)
        if among is None:
            return weighted_mean(values, weights)
        if not among.any():
            return np.full(len(weights), np.nan)
        return weighted_mean(values[among], weights[:, among])


class _Enough:
    """Whether there are patients enough for a share of those with the outcome, or of those without."""

    def __init__(self, name: str) -> None:
        self._outcome = {"sensitivity": 1.0, "specificity": 0.0}.get(name)

    def __call__(self, y: Floats, _predicted: Floats, patients: NDArray[np.int64]) -> bool:
        counted = patients if self._outcome is None else patients[y == self._outcome]
        return len(np.unique(counted)) >= MIN_PER_CLASS


def decision_curve(y: Floats, probability: Floats, thresholds: Sequence[float] = CURVE) -> tuple[NetBenefit, ...]:
    """Return the net benefit of treating by the model, and of treating everybody; y, probability: (rows,)."""
    share, points = float(y.mean()), []
    for threshold in thresholds:
        called, odds = probability >= threshold, threshold / (1 - threshold)
        model = float((called * (y - odds * (1 - y))).mean())
        points.append(NetBenefit(threshold, model, share - odds * (1 - share)))
    return tuple(points)


def roc(y: Floats, probability: Floats, most: int = MOST_POINTS) -> tuple[RocPoint, ...]:
    """Return the ROC curve, from nobody called ill to everybody; nothing where an outcome has no row."""
    ill = y == 1
    if not ill.any() or ill.all():
        return ()
    scores = np.unique(probability)[::-1]
    chosen = scores[np.unique(np.linspace(0, len(scores) - 1, min(most, len(scores))).astype(int))]
    having, without = np.sort(probability[ill]), np.sort(probability[~ill])
    sensitivity = 1 - np.searchsorted(having, chosen, side="left") / len(having)
    specificity = np.searchsorted(without, chosen, side="left") / len(without)
    return tuple(
        RocPoint(float(t), float(a), float(b)) for t, a, b in zip(chosen, sensitivity, specificity, strict=True)
    )


def calibrated(rows: Rows, *, seed: int = 0) -> Calibrated:
    """Return the observed share, calibration in the large and the slope, with 95 % intervals."""
    y, probability, patients = rows
    predicted = probability[:, None]
    observed = Metric("observed", "", "", lambda y, _predicted, weights: weighted_mean(y, weights))
    large = Metric("in_the_large", "", "", lambda y, predicted, weights: weighted_mean(predicted[:, 0] - y, weights))
    means = estimates([observed, large], y, [predicted], patients, seed=seed)
    return Calibrated(**means, slope=calibration_slope(y, probability, patients))


def calibration_slope(y: Floats, probability: Floats, patients: NDArray[np.int64]) -> Estimate | None:
    """Return the slope with its interval; None where it is undefined.

    It is where an outcome has fewer than two patients, where all predictions are equal, and where the predictions order
    the patients perfectly.
    """
    if any(len(np.unique(patients[y == outcome])) < MIN_PER_CLASS for outcome in (0, 1)):
        return None
    kept = np.clip(probability, _TINY, 1 - _TINY)
    odds = logarithm(kept) - logarithm(1 - kept)
    if np.ptp(odds) < 1e-9 or (fit := _logistic(odds, y)) is None:
        return None
    gaps = y - sigmoid(fit.intercept + fit.slope * odds)
    # The slope's row of the inverse information, times each patient's score.
    parts = np.bincount(patients, gaps * (fit.information[0] * odds - fit.information[1])) / fit.determinant
    half = _Z * float(np.sqrt((parts * parts).sum()))
    return Estimate(fit.slope, fit.slope - half, fit.slope + half)


@dataclass(frozen=True)
class _Fit:
    """A logistic regression on one number; information: its entries 11, 12 and 22."""

    intercept: float
    slope: float
    information: tuple[float, float, float]

    @property
    def determinant(self) -> float:
        constant, mixed, linear = self.information
        return constant * linear - mixed * mixed


def _logistic(x: Floats, y: Floats) -> _Fit | None:
    """Return the fit by Newton's method, None where there is none. Sums are plain: matrices round by processor."""
    fit = _Fit(0.0, 0.0, (0.0, 0.0, 0.0))
    for _ in range(_STEPS):
        chance = sigmoid(fit.intercept + fit.slope * x)
        weights, gaps = chance * (1 - chance), y - chance
        information = float(weights.sum()), float((weights * x).sum()), float((weights * x * x).sum())
        fit = _Fit(fit.intercept, fit.slope, information)
        if not fit.determinant > 1e-12 * information[0] * information[2]:
            return None
        up, along = float(gaps.sum()), float((gaps * x).sum())
        steps = np.array([information[2] * up - information[1] * along, information[0] * along - information[1] * up])
        steps /= fit.determinant
        largest = float(np.abs(steps).max())
        steps *= min(1.0, 4.0 / (largest or 1.0))
        fit = _Fit(fit.intercept + float(steps[0]), fit.slope + float(steps[1]), information)
        if largest < 1e-9:
            return fit
    return None
