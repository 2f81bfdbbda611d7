"""What patients are like, as a hospital may say it: how many have each value of each column, with noise. Both ends.

Every column of the study is a histogram: a category's values, or equal bins of a number's public range (values beyond
it lie in the first or last bin), then the patients of whom it is unknown. A patient is in exactly one cell of each: by
the mean of the known values of a number, by the most frequent known value of a category. So the exact counts are whole,
however many rows a patient has, and adding or removing a patient moves each of H histograms by 1 in one cell: sqrt(H)
in all (L2), which is the norm that the noise is scaled by (strategies/privacy/plan.py).

The noise is Gaussian. Laplace noise of the same epsilon would have scale H / epsilon, which is less only below six
columns or so; and beside the training that follows, a Gaussian release adds to the epsilon by the root of the sum of
squares, Laplace noise by the sum. As in strategies/tasks/histogram.py the noise is rounded to whole patients.

All histograms count the same patients, which the coordinator's end uses: what it knows best of the total is shared by
all (`consistent`; Hay et al. 2010, "Boosting the accuracy of differentially private histograms through consistency",
arXiv 0904.0942). Counts that are shown are moreover not negative. Intervals come from the counts before that, which are
unbiased, and say where the hospital's own exact figure lies: the noise is all that is uncertain about it.

>>> from configs.schema import Feature
>>> age, sex = Feature("age", "number", 20.0, 90.0), Feature("sex", "category", values=("f", "m"))
>>> layout = (Histogram(age, bins=7), Histogram(sex))
>>> exact = counts(np.array([[0, 1], [6, 1], [7, 2]]), layout)  # the third patient's age and sex are unknown
>>> exact.tolist()
[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 2.0, 1.0]
>>> layout[0].labels[0], layout[1].labels
('20 to 30', ('f', 'm', 'unknown'))
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import WireError
from configs.schema import Feature, Study
from strategies.tasks.metrics import Estimate
from strategies.tasks.table import Encoded, Table

if TYPE_CHECKING:  # PyTorch, which the coordinator's end does not need
    from strategies.privacy.plan import PrivacyPlan
    from strategies.privacy.randomness import Randomness

Floats = NDArray[np.float64]
ROUNDING_VARIANCE = 1.0 / 12  # of a number rounded to a whole one (Sheppard 1898)
UNKNOWN = "unknown"
_NORMAL = NormalDist()
_Z = 1.959964  # 97.5 % of the normal distribution
_FAR = 8.0  # standard deviations: none of 1,000 honest counts in a billion releases lies beyond
_ANNOUNCED = 10.0  # times an announced number, which is round and may be old: what is beyond is no honest mistake
MOST_PATIENTS = 1e9  # where the study announces no number
_STEP = 5e-4
_SHARES = np.arange(2001) * _STEP  # where the equation of a share is looked at
LEAST = 2.0  # patients that must be there for sure before a share of them is told


@dataclass(frozen=True, slots=True)
class Histogram:
    """One column's cells: its values or its bins in order, then the unknown."""

    column: Feature
    bins: int = 0

    @property
    def cells(self) -> int:
        """How many counts it has."""
        return (len(self.column.values) or self.bins) + 1

    @property
    def edges(self) -> tuple[float, ...]:
        """Where the bins of a number begin and end; none for a category."""
        if self.column.values or self.column.minimum is None or self.column.maximum is None:
            return ()
        return tuple(float(edge) for edge in np.linspace(self.column.minimum, self.column.maximum, self.bins + 1))

    @property
    def labels(self) -> tuple[str, ...]:
        """For people, in the cells' order."""
        edges = self.edges
        between = tuple(f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges))
        return (*(self.column.values or between), UNKNOWN)


def layout_of(study: Study) -> tuple[Histogram, ...]:
    """A study's histograms in the order of their cells: the features, then the target."""
    return tuple(Histogram(column, 0 if column.values else study.task.bins) for column in study.counted)


# The hospital's end


def places(table: Table, study: Study) -> Encoded:
    """In which cell of each histogram every patient is.

    Returns:
        x: (patients, histograms) cell numbers from 0, one row a patient; y: (patients,) zeros, which nothing reads.
    """
    people = len(table.keys)
    columns = []
    values = {**table.numbers, **table.categories, study.task.target: table.target}
    for histogram in layout_of(study):
        column = histogram.column
        found = values[column.name].astype(np.float64)
        known = found >= 0 if column.values else ~np.isnan(found)
        of = _most_frequent if column.values else _binned_mean
        columns.append(of(found[known], table.patients[known], people, histogram))
    x = np.stack(columns, axis=1).astype(np.float32)  # (patients, histograms)
    return Encoded(x, np.zeros(people, np.float32), np.arange(people), np.arange(people + 1), {})


def _most_frequent(codes: Floats, patients: NDArray[np.int64], people: int, histogram: Histogram) -> NDArray[np.int64]:
    """(patients,) the value that most of a patient's known rows have, of equals the first; the last cell for none."""
    values = histogram.cells - 1
    votes = np.bincount(patients * values + codes.astype(np.int64), minlength=people * values).reshape(people, values)
    return np.where(votes.any(axis=1), votes.argmax(axis=1), values)


def _binned_mean(values: Floats, patients: NDArray[np.int64], people: int, histogram: Histogram) -> NDArray[np.int64]:
    """(patients,) the bin of the mean of a patient's known values; the last cell for none."""
    low, high = histogram.column.minimum, histogram.column.maximum
    assert low is not None
    assert high is not None
    rows = np.bincount(patients, minlength=people)
    parts = (np.clip(values, low, high) - low) / (high - low)
    order = np.lexsort((parts, patients))  # a sum of floats depends on the order, which must say nothing
    sums = np.bincount(patients[order], parts[order], minlength=people)
    bins = np.floor(sums / np.maximum(rows, 1) * histogram.bins).astype(np.int64)
    return np.where(rows > 0, np.clip(bins, 0, histogram.bins - 1), histogram.bins)


def counts(cells: NDArray[Any], layout: Sequence[Histogram]) -> Floats:
    """(cells,) patients in each cell, from (patients, histograms) cell numbers: each patient once in each histogram."""
    found = [
        np.bincount(cells[:, n].astype(np.int64), minlength=histogram.cells)[: histogram.cells]
        for n, histogram in enumerate(layout)
    ]
    return np.concatenate(found).astype(np.float64)


def noised(exact: Floats, standard_deviation: float, randomness: "Randomness") -> NDArray[np.float32]:
    """The counts with Gaussian noise of this standard deviation in each cell, in whole numbers: (cells,)."""
    noise = randomness.gaussian(exact.size, standard_deviation).numpy()
    return np.asarray(exact + np.rint(noise), np.float32)


def standard_deviation(plan: "PrivacyPlan") -> float:
    """Of the Gaussian noise in each cell, in patients."""
    return plan.noise_multiplier * plan.clip_norm


# The coordinator's end


@dataclass(frozen=True, slots=True)
class Column:
    """What is known of one column: patients in each cell, and their share of all patients.

    A share is None where the noise does not say for sure that there are LEAST patients.
    """

    name: str
    counts: tuple[Estimate, ...]
    shares: tuple[Estimate | None, ...]


@dataclass(frozen=True, slots=True)
class Statistics:
    """What is known of one hospital, or of several together. `outcome`: its share of those whose target is known."""

    patients: Estimate
    columns: tuple[Column, ...]
    outcome: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for metrics.json."""
        return {
            "patients": self.patients.to_dict(),
            "outcome": self.outcome.to_dict() if self.outcome else None,
            "columns": {
                column.name: {
                    "counts": [count.to_dict() for count in column.counts],
                    "shares": [share.to_dict() if share else None for share in column.shares],
                }
                for column in self.columns
            },
        }


def cell_variance(standard_deviation: float) -> float:
    """Variance of the noise in one cell, rounding included, in patients squared."""
    return standard_deviation**2 + ROUNDING_VARIANCE


def hidden_below(standard_deviation: float, hospitals: int = 1) -> float:
    """A count of fewer patients is not told from none: noise alone passes it once in 20; of a sum over hospitals."""
    return _Z * math.sqrt(hospitals * cell_variance(standard_deviation))


def seen_with(patients: int, hospitals: int = 1) -> float:
    """The other way round: the most noise (standard deviation) with which a count of all patients is told from none."""
    return math.sqrt(max((patients / _Z) ** 2 / hospitals - ROUNDING_VARIANCE, 1e-6))


def statistics(vector: NDArray[Any], layout: Sequence[Histogram], *, variance: float) -> Statistics:
    """Figures of a noisy vector of counts: of one hospital, or the sum of several.

    Args:
        vector: (cells,).
        variance: of the noise in each cell; of a sum of vectors the sum of theirs.
    """
    known = consistent(vector, layout, variance=variance)
    columns = tuple(_column(histogram, part, known) for histogram, part in zip(layout, known.histograms, strict=True))
    patients = _count(known.patients, max(known.patients, 0.0), math.sqrt(known.patients_variance))
    return Statistics(patients, columns, _outcome(layout[-1], known))


@dataclass(frozen=True, slots=True)
class Consistent:
    """Unbiased counts whose histograms all have one total. Negative ones are left: intervals need them."""

    histograms: tuple[Floats, ...]
    patients: float
    patients_variance: float
    variance: float

    def variance_of(self, weights: Floats) -> float:
        """Variance of a weighted sum of one histogram's counts.

        A count less its histogram's mean is independent of every total, so the two parts simply add up.
        """
        total, cells = float(weights.sum()), len(weights)
        within = float((weights**2).sum()) - total**2 / cells
        return self.variance * max(within, 0.0) + (total / cells) ** 2 * self.patients_variance


def consistent(vector: NDArray[Any], layout: Sequence[Histogram], *, variance: float) -> Consistent:
    """The least squares estimate of counts of the same patients (Hay et al. 2010, section 4).

    A total of k cells has k times a cell's variance; their best mean weighs each by 1 / k, and what a histogram lacks
    of it is shared among its cells equally.
    """
    parts = np.split(np.asarray(vector, np.float64), np.cumsum([histogram.cells for histogram in layout])[:-1])
    weight = sum(1.0 / len(part) for part in parts)
    patients = sum(float(part.sum()) / len(part) for part in parts) / weight
    fitted = tuple(part + (patients - part.sum()) / len(part) for part in parts)
    return Consistent(fitted, patients, variance / weight, variance)


def _column(histogram: Histogram, part: Floats, known: Consistent) -> Column:
    one = np.eye(len(part))
    deviation = math.sqrt(known.variance_of(one[0]))
    shown = not_negative(part, max(known.patients, 0.0))
    estimates = tuple(
        _count(count, value, deviation) for value, count in zip(shown.tolist(), part.tolist(), strict=True)
    )
    whole = max(float(shown.sum()), 1e-9)
    shares = tuple(
        _share(part, cell, np.ones(len(part)), known, float(value) / whole)
        for cell, value in zip(one, shown, strict=True)
    )
    return Column(histogram.column.name, estimates, shares)


def _count(found: float, shown: float, deviation: float) -> Estimate:
    """A number of patients, told as `shown`, with the interval of what was found."""
    spread = _reach(_Z, found, deviation) * deviation
    return Estimate(shown, min(max(found - spread, 0.0), shown), max(found + spread, shown))


def _reach(z: float, found: float, deviation: float) -> float:
    """How many deviations an interval of `z` of them reaches, around something that is zero at least.

    z, but for what was found below zero: the plain interval's end then comes near zero or falls below it, as if one
    knew that nobody is there. It is at least the end below which the truncated normal distribution (of the true number,
    given what was found) has the interval's probability. At zero both agree. A longer interval misses no more often.
    """
    if found >= 0.0 or not deviation:
        return z
    missed = (
        2.0 * _NORMAL.cdf(-z) * math.erfc(-found / deviation / math.sqrt(2.0)) / 2.0
    )  # exact far out, as cdf is not
    return max(z, -_NORMAL.inv_cdf(max(missed, 1e-300)))


def _outcome(histogram: Histogram, known: Consistent) -> Estimate | None:
    """The share of the second of two values; None for targets that have another number of them."""
    if len(histogram.column.values) != 2:
        return None
    return _share(known.histograms[-1], np.array([0.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0]), known)


def _share(
    part: Floats, of: Floats, among: Floats, known: Consistent, shown: float | None = None, z: float = _Z
) -> Estimate | None:
    """One weighted sum of counts over another: every share r for which `of - r among` is within its noise of zero.

    (Fieller 1954, "Some problems in interval estimation"; the set is an interval where `among` is positive for sure.)

    Args:
        shown: the value that is told, where it is not the plain ratio; the interval holds it too.
        z: how many standard deviations the interval reaches.
    """
    total = float(among @ part)
    if total < LEAST + _Z * math.sqrt(known.variance_of(among)):
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
    """Columns of which two hospitals surely have different shares: any of them is wrong in 5 % of studies at most.

    Intervals so wide that all of all hospitals hold together (Bonferroni) must lie apart.
    """
    if not vectors:
        return ()
    z = _NORMAL.inv_cdf(1.0 - 0.025 / (len(vectors) * sum(histogram.cells for histogram in layout)))
    everybody = [consistent(vector, layout, variance=variance) for vector in vectors]
    return tuple(h.column.name for n, h in enumerate(layout) if _lie_apart(everybody, n, z))


def _lie_apart(everybody: Sequence[Consistent], number: int, z: float) -> bool:
    for cell in np.eye(len(everybody[0].histograms[number])):
        parts = [(known.histograms[number], known) for known in everybody]
        shares = [found for part, known in parts if (found := _share(part, cell, np.ones(len(part)), known, z=z))]
        if shares and max(share.low for share in shares) > min(share.high for share in shares):
            return True
    return False


def not_negative(part: Floats, total: float) -> Floats:
    """The nearest counts of this total without a negative one (Duchi et al. 2008, ICML, figure 1).

    >>> not_negative(np.array([5.0, 3.0, -2.0]), 6.0).tolist()
    [4.0, 2.0, 0.0]
    """
    falling = np.sort(part)[::-1]
    excess = (np.cumsum(falling) - total) / np.arange(1, len(part) + 1)
    kept = int(np.flatnonzero(falling - excess >= 0.0)[-1]) if total > 0 else 0
    return np.maximum(part - excess[kept], 0.0) if total > 0 else np.zeros(len(part))


def require_plausible(
    vector: NDArray[np.float32],
    layout: Sequence[Histogram],
    standard_deviation: float,
    announced_patients: int | None = None,
) -> None:
    """Whether such counts can come from an honest hospital; their shape is known to be right.

    Raises:
        WireError: they cannot. The text holds no value.
    """
    form, slack = "statistics reply", _FAR * math.sqrt(cell_variance(standard_deviation))
    most = MOST_PATIENTS if announced_patients is None else _ANNOUNCED * announced_patients
    if not np.isfinite(vector).all() or (vector != np.rint(vector)).any():
        raise WireError(f"{form}: expected whole numbers of patients, found others")
    if vector.min() < -slack - 1:
        raise WireError(f"{form}: expected counts that the noise can explain, found one far below zero")
    known = consistent(vector, layout, variance=cell_variance(standard_deviation))
    if vector.max() > most + slack or known.patients > most + _FAR * math.sqrt(known.patients_variance):
        raise WireError(f"{form}: expected no more patients than the hospital announced, found many more")
    parts = np.split(vector.astype(np.float64), np.cumsum([histogram.cells for histogram in layout])[:-1])
    if any(abs(part.sum() - known.patients) > slack * math.sqrt(len(part)) + 1 for part in parts):
        raise WireError(f"{form}: expected columns of the same patients, found totals that the noise cannot explain")
