"""The release `statistics`: noisy counts of patients by each value of each column.

Both halves are here. Every column of the study is a histogram: a category's values, or equal bins of a number's public
range (values beyond it lie in the first or last bin), then the patients of whom it is unknown. A patient is in exactly
one cell of each: by the mean of the known values of a number, by the most frequent known value of a category. So the
exact counts are whole, however many rows a patient has, and adding or removing a patient moves each of H histograms by
1 in one cell: sqrt(H) in all (L2), which is the norm that the noise is scaled by (strategies/privacy/plan.py).

The noise is Gaussian. Laplace noise of the same epsilon would have scale H / epsilon, which is less only below six
columns or so; and beside the training that follows, a Gaussian release adds to the epsilon by the root of the sum of
squares, Laplace noise by the sum. What follows from the noisy counts is in strategies/releases/column_figures.py.

>>> from configs.schema import Feature
>>> age, sex = Feature("age", "number", 20.0, 90.0), Feature("sex", "category", values=("f", "m"))
>>> layout = (Histogram(age, bins=7), Histogram(sex))
>>> exact = counts(np.array([[0, 1], [6, 1], [7, 2]]), layout)  # the third patient's age and sex are unknown
>>> exact.tolist()
[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 2.0, 1.0]
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from configs import wire
from configs.errors import WireError
from configs.records.described import CountedColumn
from configs.records.result import ReleasedStatistics
from configs.schema import Study
from configs.wire import ArraySpec
from strategies.data.columns import Histogram, cells_of, layout_of
from strategies.privacy.modes.registry import statistics_plan
from strategies.privacy.plan import PrivacyPlan
from strategies.releases.base import Arrays, Each, Hospital, Judge, Making, People, Release, Request, Sent
from strategies.releases.column_figures import Floats, consistent, differing, statistics
from strategies.releases.noisy_counts import FAR, cell_variance, noised

if TYPE_CHECKING:  # PyTorch, which the coordinator's half does not need
    from strategies.privacy.accounting import SampledGaussian
    from strategies.privacy.randomness import Randomness

_ANNOUNCED = 10.0  # times an announced number, which is round and may be old: what is beyond is no honest mistake
MOST_PATIENTS = 1e9  # where the study announces no number


class Statistics(Release):
    """Noisy counts of all patients by each column's values; the one release of a study that trains nothing."""

    name: ClassVar[str] = "statistics"
    what: ClassVar[str] = "noisy counts of patients, by each column's values"
    message_type: ClassVar[str] = wire.STATISTICS
    number: ClassVar[int | None] = 1

    def arrays(self, study: Study) -> Mapping[str, ArraySpec]:
        """Return the counts: (cells,)."""
        return {wire.COUNTS: ((cells_of(study),), "float32")} if study.procedure == "statistics" else {}

    def event(self, plan: PrivacyPlan) -> "SampledGaussian | None":
        """Return the cost of the one release."""
        return plan.round_event

    def require_asked(self, study: Study) -> None:
        """Check that this is a private study of statistics.

        Raises:
            WireError: it is none.
        """
        if not self.arrays(study) or not study.privacy.keys.noised_here:
            raise WireError("statistics: expected a private study of statistics, found another")

    def make(self, hospital: Hospital, people: People, _request: Request, randomness: "Randomness") -> Making:
        """Count the patients and add the noise."""
        yield from ()  # nothing is fitted
        assert hospital.plan is not None
        exact = counts(people.train.cells, layout_of(hospital.study))
        return {wire.COUNTS: noised(exact, standard_deviation(hospital.plan), randomness)}

    def judge(self, study: Study, _shared: Arrays, _sent: Sent) -> Judge:
        """Return what refuses counts that noise and announced patients cannot explain."""
        layout, deviation = layout_of(study), standard_deviation(statistics_plan(study))

        def check(site: str, arrays: Arrays) -> None:
            require_plausible(arrays[wire.COUNTS], layout, deviation, study.announced_patients(site))

        return Each(check)

    def words(self, _round_number: int) -> str:
        """Return how people call it."""
        return "the release of statistics"

    def combine(self, study: Study, released: Mapping[str, Arrays], _shared: Arrays) -> ReleasedStatistics:
        """Return each hospital's figures and those of all that released theirs."""
        layout, plan = layout_of(study), statistics_plan(study)
        noise = standard_deviation(plan)
        variance = cell_variance(noise)
        vectors = {site: arrays[wire.COUNTS] for site, arrays in sorted(released.items())}
        summed = np.sum([vector.astype(np.float64) for vector in vectors.values()], axis=0)
        together = statistics(summed, layout, variance=len(vectors) * variance)
        return ReleasedStatistics(
            noise=noise,
            noise_multiplier=plan.noise_multiplier,
            columns=tuple(map(_column, layout)),
            outcome=study.task.classes[1] if len(study.task.classes) == 2 else None,
            sites={site: statistics(vector, layout, variance=variance).record for site, vector in vectors.items()},
            together=together.record,
            differing=tuple(differing(list(vectors.values()), layout, variance=variance)),
            missing={},
            released={site: tuple(vector.tolist()) for site, vector in vectors.items()},
        )

    def sentence(self, _study: Study) -> str:
        """Return what leaves."""
        return "once, how many patients have each value of each column, with noise; nothing is trained"


def _column(histogram: Histogram) -> CountedColumn:
    column = histogram.column
    return CountedColumn(column.name, column.type, column.unit, tuple(histogram.labels), tuple(histogram.edges))


def counts(cells: NDArray[Any], layout: Sequence[Histogram]) -> Floats:
    """Count (cells,) patients, each once in each histogram, from (patients, histograms) cell numbers."""
    each = [
        np.bincount(cells[:, n].astype(np.int64), minlength=histogram.cells)[: histogram.cells]
        for n, histogram in enumerate(layout)
    ]
    return np.concatenate(each).astype(np.float64)


def standard_deviation(plan: "PrivacyPlan") -> float:
    """Return the standard deviation of the Gaussian noise in each cell, in patients."""
    return plan.noise_multiplier * plan.clip_norm


def require_plausible(
    vector: NDArray[np.float32],
    layout: Sequence[Histogram],
    standard_deviation: float,
    announced_patients: int | None = None,
) -> None:
    """Check that such counts can come from an honest hospital; their shape is known to be right.

    Raises:
        WireError: they cannot. The text holds no value.
    """
    form, slack = "statistics reply", FAR * math.sqrt(cell_variance(standard_deviation))
    most = MOST_PATIENTS if announced_patients is None else _ANNOUNCED * announced_patients
    if not np.isfinite(vector).all() or (vector != np.rint(vector)).any():
        raise WireError(f"{form}: expected whole numbers of patients, found others")
    if vector.min() < -slack - 1:
        raise WireError(f"{form}: expected counts that the noise can explain, found one far below zero")
    estimate = consistent(vector, layout, variance=cell_variance(standard_deviation))
    if vector.max() > most + slack or estimate.patients > most + FAR * math.sqrt(estimate.patients_variance):
        raise WireError(f"{form}: expected no more patients than the hospital announced, found many more")
    parts = np.split(vector.astype(np.float64), np.cumsum([histogram.cells for histogram in layout])[:-1])
    if any(abs(part.sum() - estimate.patients) > slack * math.sqrt(len(part)) + 1 for part in parts):
        raise WireError(f"{form}: expected columns of the same patients, found totals that the noise cannot explain")
