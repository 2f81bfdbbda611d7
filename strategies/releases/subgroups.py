"""The release `subgroups`: noisy counts of test patients by score and outcome, within each group of some columns.

Both halves are here. A patient is in one group of each listed column, by the first row, and adds 1 to one cell of each:
adding or removing one moves the counts by sqrt(columns) (L2 norm), by which the noise is multiplied. The groups are
public: a category's values, and parts of a number's range. The figures follow as those of the score histogram do, group
by group (strategies/releases/figures.py, outcome_figures.py).
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from configs import wire
from configs.errors import WireError
from configs.records.estimate import Estimate
from configs.records.subgroups import SUBGROUPS_KEYS, Subgroup, Subgroups, SubgroupsKeys
from configs.schema import Feature, Study
from configs.wire import ArraySpec
from strategies.data.columns import UNKNOWN
from strategies.data.table import centres
from strategies.learning import Learning, learning_of
from strategies.models.registry import personal_parameters
from strategies.releases.base import Arrays, Each, Hospital, Judge, Making, People, Request, Sent, at_home
from strategies.releases.figures import figures
from strategies.releases.further import FurtherRelease, given_keys, keys_of
from strategies.releases.noisy_counts import FAR, cell_variance, noised
from strategies.releases.outcome_figures import outcome_figures
from strategies.releases.score_histogram import MOST_PATIENTS, cells_of
from strategies.tasks.metrics import NORMAL_975
from strategies.tasks.ranges import scaled

if TYPE_CHECKING:  # PyTorch, which the coordinator's half does not need
    from strategies.data.table import TablePatients
    from strategies.privacy.randomness import Randomness

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Groups:
    """The groups of one column.

    place: of the column's first input; cuts: as inputs have them, of a number; centre: what was taken off each input.
    """

    feature: Feature
    labels: tuple[str, ...]
    place: int
    cuts: tuple[float, ...] = ()
    centre: tuple[float, ...] = ()

    def of(self, x: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the group of each row of model inputs, (rows,)."""
        inputs = len(self.feature.inputs)
        if self.feature.type == "number":
            group = np.searchsorted(np.asarray(self.cuts, np.float32), x[:, self.place], side="right")
            unknown = x[:, self.place + inputs - 1] > 0.5 if self.feature.missing else np.zeros(len(x), bool)
            return np.where(unknown, len(self.labels) - 1, group).astype(np.int64)
        words = x[:, self.place : self.place + inputs] + np.asarray(self.centre) > 0.5
        return np.where(words.any(axis=1), 1 + words.argmax(axis=1), 0).astype(np.int64)


class SubgroupHistograms(FurtherRelease):
    """The final model's scores of the test patients, counted by outcome within each group; asked for once."""

    name: ClassVar[str] = SUBGROUPS_KEYS.name
    what: ClassVar[str] = "noisy histograms of test patients by group"
    message_type: ClassVar[str] = wire.SUBGROUPS
    of_test: ClassVar[bool] = True

    def arrays(self, study: Study) -> Mapping[str, ArraySpec]:
        """Return one row of counts: column by column, group by group, without the outcome and with it, by score."""
        keys = keys_of(study, SubgroupsKeys)
        if keys is None:
            return {}
        groups = sum(len(column.labels) for column in groups_of(study, keys))
        return {wire.COUNTS: ((2 * groups * keys.bins,), "float32")}

    def make(self, hospital: Hospital, people: People, request: Request, randomness: "Randomness") -> Making:
        """Score the test patients with the model, count them group by group and add the noise."""
        yield from ()  # nothing is fitted
        keys = given_keys(hospital.study, SubgroupsKeys)
        exact = counted(hospital.study, hospital.task, at_home(hospital, request.arrays), people.test)
        return {wire.COUNTS: noised(exact, self.own_multiplier(hospital) * math.sqrt(len(keys.by)), randomness)}

    def judge(self, study: Study, _shared: Arrays, _sent: Sent) -> Judge:
        """Return what refuses counts that noise and announced patients cannot explain."""

        def check(site: str, arrays: Arrays) -> None:
            require_plausible(study, arrays[wire.COUNTS], noise_of(study, site), study.announced_patients(site))

        return Each(check)

    def combine(self, study: Study, released: Mapping[str, Arrays], _shared: Arrays) -> Subgroups:
        """Return each group's figures with intervals that include the noise."""
        noise = {site: noise_of(study, site) for site in sorted(released)}
        total = np.sum([np.asarray(arrays[wire.COUNTS], np.float64) for arrays in released.values()], axis=0)
        variance = sum(cell_variance(deviation) for deviation in noise.values())
        return Subgroups(figures_of(study, total, variance), tuple(noise), max(noise.values()))

    def rehearsed(self, study: Study, result: Subgroups, shared: Arrays, people: Iterable[People]) -> Subgroups:
        """Return the result with the figures of the exact counts beside, unless hospitals keep parts of the model."""
        if personal_parameters(study):
            return result
        learning = learning_of(study)
        total = np.sum([counted(study, learning, shared, each.test) for each in people], axis=0)
        return replace(result, exact=figures_of(study, total, 0.0))

    def sentence(self, study: Study) -> str:
        """Return what leaves."""
        keys = given_keys(study, SubgroupsKeys)
        numbers = math.prod(self.arrays(study)[wire.COUNTS][0])
        return (
            f"once, after the last round, {numbers} counts of test patients by outcome and by the model's score in "
            f"{keys.bins} bins, within each group of {', '.join(keys.by)}, with noise"
        )


def groups_of(study: Study, keys: SubgroupsKeys) -> list[Groups]:
    """Return the groups of each listed column, in the order of the study's list."""
    features = {feature.name: feature for feature in study.features}
    groups = [_groups(features[name], study.inputs, dict(keys.cuts)) for name in keys.by]
    if study.scaling != "centred":
        return groups
    return [replace(column, centre=tuple(centres(column.feature))) for column in groups]


def _groups(feature: Feature, inputs: tuple[str, ...], cuts: Mapping[str, tuple[float, ...]]) -> Groups:
    place, unknown = inputs.index(feature.inputs[0]), (UNKNOWN,) if feature.missing else ()
    if feature.type == "category":
        return Groups(feature, (*feature.values, *unknown), place, centre=(0.0,) * len(feature.inputs))
    assert feature.minimum is not None
    assert feature.maximum is not None
    chosen = cuts.get(feature.name, ((feature.minimum + feature.maximum) / 2,))
    between = [f"{low:g} to under {high:g}" for low, high in itertools.pairwise(chosen)]
    labels = (f"under {chosen[0]:g}", *between, f"{chosen[-1]:g} or more", *unknown)
    as_inputs, _ = scaled(np.array(chosen), feature.minimum, feature.maximum)
    return Groups(feature, labels, place, tuple(as_inputs.tolist()))


def counted(study: Study, learning: Learning, model: Arrays, test: "TablePatients") -> Floats:
    """Return the exact counts, (cells,): each patient is in one cell of each column."""
    keys = given_keys(study, SubgroupsKeys)
    scores = learning.predictions(model, test)[:, learning.objective.outcome]
    cells, width = cells_of(scores, test.y, starts=test.starts, bins=keys.bins), 2 * keys.bins
    x, _ = test.take(test.starts[:-1])
    parts = [
        np.bincount(groups.of(x) * width + cells, minlength=width * len(groups.labels))
        for groups in groups_of(study, keys)
    ]
    return np.concatenate(parts).astype(np.float64)


def figures_of(study: Study, counts: Floats, variance: float) -> tuple[Subgroup, ...]:
    """Return the figures of each group.

    Args:
        counts: (cells,) of all hospitals; variance: of the noise in each.
    """
    keys = given_keys(study, SubgroupsKeys)
    histograms = iter(counts.reshape(-1, 2, keys.bins))
    return tuple(
        _figures(column.feature.name, label, next(histograms), variance, study.evaluation.thresholds)
        for column in groups_of(study, keys)
        for label in column.labels
    )


def _figures(column: str, label: str, histogram: Floats, variance: float, thresholds: tuple[float, ...]) -> Subgroup:
    total, margin = float(histogram.sum()), NORMAL_975 * math.sqrt(histogram.size * variance)
    told = outcome_figures(histogram, {}, cell_variance=variance, thresholds=thresholds)
    return Subgroup(
        column=column,
        group=label,
        patients=Estimate(total, total - margin, total + margin),
        auroc=figures(histogram, cell_variance=variance).auroc,
        calibrated=told.calibrated,
        thresholds=told.thresholds,
    )


def require_plausible(
    study: Study, counts: NDArray[np.float32], deviation: float, announced_patients: int | None = None
) -> None:
    """Check that such counts can come from an honest hospital; their shape is known to be right.

    Raises:
        WireError: they cannot. The text holds no value.
    """
    keys, slack = given_keys(study, SubgroupsKeys), FAR * math.sqrt(cell_variance(deviation))
    if not np.isfinite(counts).all() or (counts != np.rint(counts)).any():
        raise WireError("subgroups reply: expected whole numbers of patients, found others")
    if counts.min() < -slack - 1:
        raise WireError("subgroups reply: expected counts that the noise can explain, found one far below zero")
    most = MOST_PATIENTS if announced_patients is None else announced_patients
    widths = [2 * keys.bins * len(groups.labels) for groups in groups_of(study, keys)]
    totals = [float(part.sum()) for part in np.split(counts.astype(np.float64), np.cumsum(widths)[:-1])]
    of_totals = [slack * math.sqrt(width) for width in widths]
    if any(total > most + far for total, far in zip(totals, of_totals, strict=True)):
        raise WireError("subgroups reply: expected no more patients than the hospital announced, found many more")
    if max(totals) - min(totals) > 2 * max(of_totals):
        raise WireError("subgroups reply: expected as many patients by one column as by another, found other numbers")


def noise_of(study: Study, site: str) -> float:
    """Return the standard deviation of the noise in each cell of a hospital, in patients."""
    columns = given_keys(study, SubgroupsKeys).by
    return SubgroupHistograms().noise_multiplier(study, site) * math.sqrt(len(columns))
