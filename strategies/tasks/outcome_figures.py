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
from strategies.tasks.metrics import MIN_PER_CLASS, NORMAL_975, Floats, interval, resamples_of, weighted_mean

Rows = tuple[Floats, Floats, NDArray[np.int64]]  # outcome 0 or 1, probability, patient from 0: (rows,) each
USUAL = (0.5,)  # where a study states no threshold
CURVE = tuple(percent / 100 for percent in range(2, 100, 2))  # thresholds of the decision curve
MOST_POINTS = 60  # of an ROC curve
_STEPS, _TINY = 50, 1e-12


def outcome_figures(
    rows: Rows, sites: Mapping[str, Rows], thresholds: Sequence[float], *, seed: int = 0
) -> OutcomeFigures:
    """Return the figures of all patients, and the calibration at each hospital."""
    y, probability, _ = rows
    drawn = _Drawn(rows, thresholds or USUAL, seed)
    return OutcomeFigures(
        calibrated=drawn.calibrated(),
        calibrated_by_site={site: calibrated(own, seed=seed) for site, own in sites.items()},
        thresholds=tuple(drawn.at(place) for place in range(len(thresholds or USUAL))),
        decision=decision_curve(y, probability) if len(y) else (),
        roc=roc(y, probability),
    )


def at_threshold(rows: Rows, threshold: float, *, seed: int = 0) -> AtThreshold:
    """Return sensitivity, specificity, predictive values, share called ill and net benefit, with 95 % intervals."""
    return _Drawn(rows, (threshold,), seed).at(0)


def calibrated(rows: Rows, *, seed: int = 0) -> Calibrated:
    """Return the observed share, calibration in the large and the slope, with 95 % intervals."""
    return _Drawn(rows, (), seed).calibrated()


class _Drawn:
    """All shares over one draw of resamples: counts are whole numbers, so that a product of matrices is exact."""

    def __init__(self, rows: Rows, thresholds: Sequence[float], seed: int) -> None:
        self._y, self._probability, self._patients = rows
        self._thresholds, ill = thresholds, self._y == 1
        self._called = [self._probability >= threshold for threshold in thresholds]
        columns = [np.ones(len(ill), bool), ill, *(c for called in self._called for c in (called, called & ill))]
        cells, gaps = np.stack(columns, axis=1).astype(np.float64), self._probability - self._y
        counts, means = [], []
        for weights in resamples_of(self._patients, seed) if len(ill) else ():
            counts.append(weights @ cells)  # (resamples, 2 + 2 thresholds)
            means.append(weighted_mean(gaps, weights))
        self._counts = np.concatenate(counts) if counts else np.full((1, cells.shape[1]), np.nan)
        self._gap = np.concatenate(means) if means else np.full(1, np.nan)

    def calibrated(self) -> Calibrated:
        """Return the observed share, calibration in the large and the slope."""
        everybody = np.ones(len(self._y), bool)
        return Calibrated(
            observed=self._share(self._counts[:, 1], self._counts[:, 0], everybody),
            in_the_large=interval(self._gap),
            slope=calibration_slope(self._y, self._probability, self._patients),
        )

    def at(self, place: int) -> AtThreshold:
        """Return the figures at one of the thresholds."""
        called, right = self._counts[:, 2 + 2 * place], self._counts[:, 3 + 2 * place]
        total, ill = self._counts[:, 0], self._counts[:, 1]
        threshold, rows = self._thresholds[place], self._called[place]
        odds = threshold / (1 - threshold)
        is_ill, everybody = self._y == 1, np.ones(len(self._y), bool)
        enough = len(np.unique(self._patients)) >= MIN_PER_CLASS
        return AtThreshold(
            threshold=threshold,
            sensitivity=self._share(right, ill, is_ill),
            specificity=self._share(total - ill - called + right, total - ill, ~is_ill),
            ppv=self._share(right, called, rows, least=1),
            npv=self._share(total - ill - called + right, total - called, ~rows, least=1),
            flagged=self._share(called, total, everybody),
            net_benefit=interval((right - odds * (called - right)) / total) if enough else None,
        )

    def _share(self, part: Floats, of: Floats, rows: NDArray[np.bool_], least: int = MIN_PER_CLASS) -> Estimate | None:
        """Return a share of the patients in some rows; None where there are fewer than `least` of them."""
        patients = len(np.unique(self._patients[rows]))
        if patients < least or len(np.unique(self._patients)) < MIN_PER_CLASS:
            return None
        with np.errstate(invalid="ignore"):  # a resample without such a patient has no share
            return _not_certain(interval(part / of), patients)


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
    half = NORMAL_975 * float(np.sqrt((parts * parts).sum()))
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
