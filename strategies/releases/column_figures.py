"""Totals, shares and intervals from noisy counts of each column.

This is the coordinator's half. All histograms count the same patients: what is known best of the total is shared by all
(`consistent`; Hay et al. 2010, "Boosting the accuracy of differentially private histograms through consistency", arXiv
0904.0942). Counts that are shown are moreover not negative. Intervals come from the counts before that, which are
unbiased, and say where the hospital's own exact figure lies: the noise is all that is uncertain about it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.records.estimate import Estimate
from configs.records.result import ColumnCounts, PatientCounts
from strategies.data.columns import Histogram
from strategies.releases.noisy_counts import ROUNDING_VARIANCE, cell_variance
from strategies.tasks.metrics import NORMAL_975

Floats = NDArray[np.float64]
_NORMAL = NormalDist()
_STEP = 5e-4
_SHARES = np.arange(2001) * _STEP  # where the equation of a share is looked at
LEAST = 2.0  # patients that must be there for sure before a share of them is told


@dataclass(frozen=True, slots=True)
class Column:
    """The figures of one column: patients in each cell, and their share of all patients.

    A share is None where the noise does not say for sure that there are LEAST patients.
    """

    name: str
    counts: tuple[Estimate, ...]
    shares: tuple[Estimate | None, ...]


@dataclass(frozen=True, slots=True)
class Statistics:
    """The figures of one hospital, or of several together. `outcome`: its share of those with a known target."""

    patients: Estimate
    columns: tuple[Column, ...]
    outcome: Estimate | None

    @property
    def record(self) -> PatientCounts:
        """Return them as metrics.json has them."""
        columns = {column.name: ColumnCounts(column.counts, column.shares) for column in self.columns}
        return PatientCounts(self.patients, self.outcome, columns)


def hidden_below(standard_deviation: float, hospitals: int = 1) -> float:
    """Return the count below which patients cannot be distinguished from none: noise alone passes it once in 20.

    Args:
        hospitals: of how many the counts are the sum.
    """
    return NORMAL_975 * math.sqrt(hospitals * cell_variance(standard_deviation))


def seen_with(patients: int, hospitals: int = 1) -> float:
    """Return the most noise (standard deviation) with which a count of all patients is distinguished from none."""
    return math.sqrt(max((patients / NORMAL_975) ** 2 / hospitals - ROUNDING_VARIANCE, 1e-6))


def statistics(vector: NDArray[Any], layout: Sequence[Histogram], *, variance: float) -> Statistics:
    """Return the figures of a noisy vector of counts: of one hospital, or the sum of several.

    Args:
        vector: (cells,).
        variance: of the noise in each cell; of a sum of vectors the sum of theirs.
    """
    fitted = consistent(vector, layout, variance=variance)
    columns = tuple(_column(histogram, part, fitted) for histogram, part in zip(layout, fitted.histograms, strict=True))
    patients = _count(fitted.patients, max(fitted.patients, 0.0), math.sqrt(fitted.patients_variance))
    return Statistics(patients, columns, _outcome(layout[-1], fitted))


@dataclass(frozen=True, slots=True)
class Consistent:
    """Unbiased counts with one total for all histograms. Negative ones are left: intervals need them."""

    histograms: tuple[Floats, ...]
    patients: float
    patients_variance: float
    variance: float

    def variance_of(self, weights: Floats) -> float:
        """Return the variance of a weighted sum of one histogram's counts.

        A count less its histogram's mean is independent of every total, so the two parts simply add up.
        """
        total, cells = float(weights.sum()), len(weights)
        within = float((weights**2).sum()) - total**2 / cells
        return self.variance * max(within, 0.0) + (total / cells) ** 2 * self.patients_variance


def consistent(vector: NDArray[Any], layout: Sequence[Histogram], *, variance: float) -> Consistent:
    """Return the least squares estimate of counts of the same patients (Hay et al. 2010, section 4).

    A total of k cells has k times a cell's variance; their best mean weighs each by 1 / k, and what a histogram lacks
    of it is shared among its cells equally.
    """
    parts = np.split(np.asarray(vector, np.float64), np.cumsum([histogram.cells for histogram in layout])[:-1])
    weight = sum(1.0 / len(part) for part in parts)
    patients = sum(float(part.sum()) / len(part) for part in parts) / weight
    fitted = tuple(part + (patients - part.sum()) / len(part) for part in parts)
    return Consistent(fitted, patients, variance / weight, variance)


def _column(histogram: Histogram, part: Floats, known: Consistent) -> Column:
    unit_vectors = np.eye(len(part))
    deviation = math.sqrt(known.variance_of(unit_vectors[0]))
    shown = not_negative(part, max(known.patients, 0.0))
    estimates = tuple(
        _count(count, value, deviation) for value, count in zip(shown.tolist(), part.tolist(), strict=True)
    )
    whole = max(float(shown.sum()), 1e-9)
    shares = tuple(
        _share(part, cell, np.ones(len(part)), known, float(value) / whole)
        for cell, value in zip(unit_vectors, shown, strict=True)
    )
    return Column(histogram.column.name, estimates, shares)


def _count(found: float, shown: float, deviation: float) -> Estimate:
    """Return a number of patients, shown as `shown`, with the interval of what was found."""
    spread = _reach(NORMAL_975, found, deviation) * deviation
    return Estimate(shown, min(max(found - spread, 0.0), shown), max(found + spread, shown))


def _reach(z: float, found: float, deviation: float) -> float:
    """Return how many deviations an interval of `z` of them reaches, around something that is zero at least.

    z, but for what was found below zero: the plain interval's end then comes near zero or falls below it, as if one
    knew that no patient is there. It is at least the end below which the truncated normal distribution (of the true
    number, given what was found) has the interval's probability. At zero both agree. A longer interval misses no more
    often.
    """
    if found >= 0.0 or not deviation:
        return z
    missed = (
        2.0 * _NORMAL.cdf(-z) * math.erfc(-found / deviation / math.sqrt(2.0)) / 2.0
    )  # exact far out, as cdf is not
    return max(z, -_NORMAL.inv_cdf(max(missed, 1e-300)))


def _outcome(histogram: Histogram, known: Consistent) -> Estimate | None:
    """Return the share of the second of two values; None for targets that have another number of them."""
    if len(histogram.column.values) != 2:
        return None
    return _share(known.histograms[-1], np.array([0.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0]), known)


def _share(
    part: Floats, of: Floats, among: Floats, known: Consistent, shown: float | None = None, z: float = NORMAL_975
) -> Estimate | None:
    """Return one weighted sum of counts over another, with its interval.

    The interval has every share r for which `of - r among` is within its noise of zero.

    (Fieller 1954, "Some problems in interval estimation"; the set is an interval where `among` is positive for sure.)

    Args:
        shown: the value that is told, where it is not the plain ratio; the interval holds it too.
        z: how many standard deviations the interval reaches.
    """
    total = float(among @ part)
    if total < LEAST + NORMAL_975 * math.sqrt(known.variance_of(among)):
        return None
    above, below = known.variance_of(of), known.variance_of(among)
    both = (above + below - known.variance_of(of - among)) / 2  # their covariance
    gap = float(of @ part) - _SHARES * total
    parts = ((of, above), (among - of, known.variance_of(among - of)))  # neither can be less than nothing
    z = max(_reach(z, float(weights @ part), math.sqrt(variance)) for weights, variance in parts)
    inside = _SHARES[gap**2 <= z**2 * (above - 2 * _SHARES * both + _SHARES**2 * below)]
    value = min(max(float(of @ part) / total if shown is None else shown, 0.0), 1.0)
    if not len(inside):
        return Estimate(value, value, value)
    low, high = max(0.0, float(inside[0]) - _STEP), min(1.0, float(inside[-1]) + _STEP)  # rounded outwards
    return Estimate(value, min(low, value), max(high, value))


def differing(vectors: Sequence[NDArray[Any]], layout: Sequence[Histogram], *, variance: float) -> tuple[str, ...]:
    """Return columns of which two hospitals surely have different shares: any is wrong in 5 % of studies at most.

    Intervals so wide that all of all hospitals hold together (Bonferroni) must lie apart.
    """
    if not vectors:
        return ()
    z = _NORMAL.inv_cdf(1.0 - 0.025 / (len(vectors) * sum(histogram.cells for histogram in layout)))
    everybody = [consistent(vector, layout, variance=variance) for vector in vectors]
    return tuple(h.column.name for n, h in enumerate(layout) if _lie_apart(everybody, n, z))


def _lie_apart(everybody: Sequence[Consistent], number: int, z: float) -> bool:
    for cell in np.eye(len(everybody[0].histograms[number])):
        parts = [(each.histograms[number], each) for each in everybody]
        candidates = (_share(part, cell, np.ones(len(part)), each, z=z) for part, each in parts)
        shares = [share for share in candidates if share]
        if shares and max(share.low for share in shares) > min(share.high for share in shares):
            return True
    return False


def not_negative(part: Floats, total: float) -> Floats:
    """Return the nearest counts of this total without a negative one (Duchi et al. 2008, ICML, figure 1).

    >>> not_negative(np.array([5.0, 3.0, -2.0]), 6.0).tolist()
    [4.0, 2.0, 0.0]
    """
    falling = np.sort(part)[::-1]
    excess = (np.cumsum(falling) - total) / np.arange(1, len(part) + 1)
    last = int(np.flatnonzero(falling - excess >= 0.0)[-1]) if total > 0 else 0
    return np.maximum(part - excess[last], 0.0) if total > 0 else np.zeros(len(part))
