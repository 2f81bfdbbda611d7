"""The tasks `survival` and `counts`: outcomes of two columns.

Their words and bounds are public, agreed beforehand. Registered when the schema is imported.

>>> task = Survival("survival", "follow_up", ("1",), event="died", intervals=(0.0, 90.0, 365.0), horizon=365.0)
>>> [(column.name, column.values) for column in task.columns]
[('follow_up', ()), ('died', ('0', '1'))]
"""

import itertools
from dataclasses import dataclass, replace
from typing import Any

from configs.keys.declare import REQUIRED, declaration_of, key
from configs.keys.values import COLUMN, LINE, Around, Number, Place, Span, Value, Words, is_number
from configs.schema.task import NO_RANGE, SHARE_KEYS, TASKS, Feature, Task, TaskKeys, check_share
from configs.sections import Section
from configs.shown import short

MAX_INTERVALS = 100
_STAND_IN = (0.0, 1.0)  # in the place of cut points that cannot be read


class _Cuts(Value):
    """Cut points of time, ascending from 0 or later."""

    expected = f"a list of 2 to {MAX_INTERVALS + 1} cut points of time, ascending, the first one 0 or more"

    def read(self, at: Place) -> tuple[float, ...]:
        """Return the cut points, stand-ins in place of a mistake."""
        cuts = at.found if isinstance(at.found, list) else []
        if 2 <= len(cuts) <= MAX_INTERVALS + 1 and all(map(is_number, cuts)):
            ascending = all(low < high for low, high in itertools.pairwise(cuts))
            if ascending and cuts[0] >= 0:
                return tuple(map(float, cuts))
        at.problem(self.expected, "for example [0, 90, 180, 365]")
        return _STAND_IN

    def write(self, value: Any) -> list[float]:
        """Return the cut points as a list."""
        return list(value)

    @property
    def schema(self) -> dict[str, Any]:
        """Return a list of numbers."""
        items = {"type": "number", "minimum": 0}
        return {"type": "array", "items": items, "minItems": 2, "maxItems": MAX_INTERVALS + 1, "uniqueItems": True}


class _Horizon(Number):
    """One of the cut points after the first."""

    def read(self, at: Place) -> float:
        """Return the horizon, the last cut point in place of a mistake; what cannot be judged is no second one."""
        ends = at.around["intervals"][1:]
        if at.around["intervals"] is _STAND_IN:
            return float(ends[-1])
        if at.found in ends:
            return float(at.found)
        at.problem(f"one of the intervals' ends, {short(', '.join(f'{end:g}' for end in ends))}", "choose one")
        return float(ends[-1])


@dataclass(frozen=True, slots=True)
class Survival(Task):
    """Time to event. `target` is the time that a patient was followed, `classes` are the causes.

    Time is cut into `intervals`, each (low, high]. A patient is at risk in every interval that is lived through, and in
    that of the event; not in the interval of censoring. Whoever reaches the last cut point is censored there.
    """

    event: str = key(COLUMN, "the column that says how a patient's time ended", init="")
    censored: str = key(LINE, "the word in it for a time that no event ended", default="0")
    intervals: tuple[float, ...] = key(_Cuts(), "public cut points of time, in its unit", init=(0.0, 1.0))
    horizon: float = key(
        _Horizon("one of the intervals' ends", 0.0, 1e300),
        "the end of an interval by which risks are judged",
        default=lambda _, around: around["intervals"][-1],
        init=1.0,
        unsaid="the last cut point",
        written=lambda _: True,
    )

    @property
    def columns(self) -> tuple[Feature, ...]:
        """Return the time with its public range, and the event with its words."""
        time = Feature(self.target, "number", self.intervals[0], self.intervals[-1], (), self.unit)
        return time, Feature(self.event, "category", values=(self.censored, *self.classes))

    def check(self, section: Section, around: Around) -> None:
        """Note a word that says two things, and a source of no share."""
        check_share(self, section, around)
        if self.censored in self.classes:
            section.problem("censored", "a word that is no cause", self.censored, "keep it in one of the two")


@dataclass(frozen=True, slots=True)
class Counts(Task):
    """How often something happened to a patient, in the time or number at risk that `exposure` says."""

    exposure: str | None = key(
        COLUMN, "the column with the time, or the number, in which they were counted", default=None
    )
    least_exposure: float | None = key(
        Span(),
        "the exposure's public range, above 0",
        default=NO_RANGE,
        init=None,
        name="exposure_range",
        fills=("most_exposure",),
    )
    most_exposure: float | None = None

    @property
    def columns(self) -> tuple[Feature, ...]:
        """Return the count and, where there is one, the exposure, with their public ranges."""
        count = Feature(self.target, "number", self.minimum, self.maximum, (), self.unit)
        if self.exposure is None:
            return (count,)
        return count, Feature(self.exposure, "number", self.least_exposure, self.most_exposure)

    def check(self, section: Section, _around: Around) -> None:
        """Note a range that is not of counts, and an exposure without its range or a range without exposure."""
        if self.minimum not in (None, 0.0):
            section.problem("range", "[0, high], as counts begin at 0", self.minimum, "begin it at 0")
        if self.exposure is not None and self.least_exposure is None:
            section.problem("exposure_range", "[low, high] with 0 < low < high", None, "add it")
        if self.exposure is None and self.least_exposure is not None:
            section.problem("exposure", "the column that exposure_range is about", None, "add it")
        if self.least_exposure is not None and self.least_exposure <= 0:
            section.problem("exposure_range", "a range above 0", self.least_exposure, "begin it above 0")


_CAUSES = Words(
    "a list of the words of an event", 1, MAX_INTERVALS, "one word or more", "or leave it out, where 1 is the event"
)
_SURVIVAL = declaration_of(Survival).without("range", "bins")
SURVIVAL_KEYS = TaskKeys(
    "survival",
    replace(_SURVIVAL, keys=(*_SURVIVAL.keys, *SHARE_KEYS)).but(
        target={"name": "time", "about": "the column with the time that a patient was followed"},
        classes={
            "name": "causes",
            "value": _CAUSES,
            "default": ("1",),
            "about": "the words of `event` for what may happen, the one that figures are about first",
        },
        unit={"about": "the unit of time, for the report"},
        outcome_share={"about": "the share of patients with an event by the last cut point, announced in public"},
    ),
    ("c_index", "horizon_auroc", "horizon_brier"),
    data="person_periods",
    has_information=lambda task: len(task.classes) == 1,  # several causes have several hazards
    states=("free of the event at the horizon", "with it by then", "lost from sight before"),
)
COUNTS_KEYS = TaskKeys(
    "counts",
    declaration_of(Counts)
    .without("bins")
    .but(
        refused={"classes": "expected none for counts, found {found}; leave it out"},
        range={"default": REQUIRED, "about": "the counts' public range from 0; larger ones are moved to its end"},
    ),
    ("deviance", "d2", "count_error"),
)
for keys in (SURVIVAL_KEYS, COUNTS_KEYS):
    TASKS.register(keys)
