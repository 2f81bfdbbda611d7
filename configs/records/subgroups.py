"""The release `subgroups`: its keys in a study, and the figures by group that follow from it in metrics.json."""

from dataclasses import dataclass
from typing import Annotated, Any

from configs.keys.declare import Entries, key
from configs.keys.values import Around, Integer, Place, Value, Words
from configs.records.estimate import Estimate
from configs.records.fields import LATER, OMIT
from configs.records.inference import COST, COST_ABOUT
from configs.records.outcome import AtThreshold, Calibrated
from configs.schema.releases import ReleaseKeys
from configs.schema.task import MAX_BINS, MIN_BINS, TASKS
from configs.sections import Section

MOST_COLUMNS, MOST_CUTS = 10, 10


class _Cuts(Value):
    """Ascending numbers."""

    expected = f"a list of 1 to {MOST_CUTS} ascending numbers"

    def read(self, at: Place) -> tuple[float, ...]:
        """Return the numbers, none in place of a mistake."""
        numbers = at.found if isinstance(at.found, list) else []
        real = all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers)
        if real and 1 <= len(numbers) <= MOST_CUTS and sorted({*numbers}) == numbers:
            return tuple(map(float, numbers))
        at.problem(self.expected, "for example [50, 70]")
        return ()

    def write(self, value: Any) -> list[float]:
        """Return the numbers as a list."""
        return list(value)

    @property
    def schema(self) -> dict[str, Any]:
        """Return a list of numbers."""
        return {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": MOST_CUTS}


_BY = f"1 to {MOST_COLUMNS} columns"


@dataclass(frozen=True, slots=True)
class SubgroupsKeys:
    """Noisy histograms of test patients' scores by outcome, for each group of the listed columns."""

    epsilon: float = key(COST, COST_ABOUT)
    by: tuple[str, ...] = key(
        Words(f"a list of {_BY}", 1, MOST_COLUMNS, _BY, "list fewer: each more is noise for all"),
        "the columns whose values are the groups, each by itself; each more is noise for all",
    )
    bins: int = key(Integer(MIN_BINS, MAX_BINS), "equal parts of the scores from 0 to 1", default=10)
    cuts: tuple[tuple[str, tuple[float, ...]], ...] = key(
        Entries(
            _Cuts(),
            lambda _: "",
            "a mapping of number: ascending cuts",
            required=False,
            build=lambda name, cuts: (name, cuts),
            split=lambda pair: pair,
            member="COLUMN",
        ),
        "where numbers among the columns are divided into groups, the upper one with the cut itself",
        default=(),
        unsaid="the middle of the range",
    )

    def check(self, section: Section, around: Around) -> None:
        """Note columns that are no features, cuts of no number, and a study that judges nobody."""
        features = {feature.name: feature for feature in around["features"]}
        for name in self.by:
            if name not in features:
                section.note("by", f"expected columns among the features, found {name!r}; correct it")
        for name, cuts in self.cuts:
            feature = features.get(name)
            if name not in self.by or feature is None or feature.minimum is None or feature.maximum is None:
                section.note("cuts", f"expected numbers that are listed in by, found {name!r}; remove it")
            elif cuts and not feature.minimum < cuts[0] <= cuts[-1] <= feature.maximum:
                section.note("cuts", f"{name}: expected cuts within the public range, found others; correct them")
        if not TASKS[around["task"].type].has_outcome:
            section.note("by", "expected a task with one outcome beside this release, found another; remove it")
        if around["evaluation"].split_column is None and around["evaluation"].test_fraction == 0.0:
            section.note("by", "expected test patients, found test_fraction 0; raise it, or remove this release")


@dataclass(frozen=True)
class Subgroup:
    """How good the shared model is for the test patients of one group; null where the noise would drown a figure."""

    column: Annotated[str, "The column."]
    group: Annotated[str, "The group: a value, or a part of the range."]
    patients: Annotated[Estimate, "Test patients, with the 95 % interval of the noise."]
    auroc: Annotated[Estimate | None, "Area under the ROC curve within the group."]
    calibrated: Annotated[Calibrated, "How predicted probabilities fit the outcomes."]
    thresholds: Annotated[tuple[AtThreshold, ...], "Figures at each threshold that the study states.", LATER]


@dataclass(frozen=True)
class Subgroups:
    """The shared model judged group by group, from noisy histograms of test patients."""

    groups: Annotated[tuple[Subgroup, ...], "Each group of each column.", LATER]
    sites: Annotated[tuple[str, ...], "Hospitals that released it.", LATER]
    noise: Annotated[float | None, "Standard deviation of the noise in each cell of a hospital, in patients."]
    exact: Annotated[tuple[Subgroup, ...], "The same without noise, of a simulation.", OMIT] = ()


SUBGROUPS_KEYS = ReleaseKeys("subgroups", SubgroupsKeys, Subgroups)
