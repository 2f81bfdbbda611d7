"""The section `task`: the outcome and the columns that are read.

>>> Feature("age", "number", minimum=20.0, maximum=90.0, unit="years").inputs
('age',)
>>> Feature("chol", "number", minimum=100.0, maximum=400.0, missing=("0",)).inputs
('chol', 'chol unknown')
>>> Feature("cp", "category", values=("typical", "atypical", "none")).inputs
('cp = atypical', 'cp = none')
>>> Feature("age", "number", minimum=20.0, maximum=90.0, curve=6).inputs
('age', 'age bends at 34', 'age bends at 48', 'age bends at 62', 'age bends at 76')
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from configs.keys.declare import REQUIRED, Declaration, Entries, Key, declaration_of, key
from configs.keys.one_of import Kind, OneOf, Sections
from configs.keys.values import COLUMN, COLUMN_NAME, LINE, Around, Integer, Number, Place, Span, Text, Words
from configs.sections import Section
from configs.shown import flaw_of

MIN_BINS, MAX_BINS, DEFAULT_BINS = 2, 100, 10  # of a noisy histogram: each more is fewer patients to as much noise
NO_RANGE = (None, None)
MIN_KNOTS, MAX_KNOTS = 3, 20  # of a curve: each inner one is an input more
_SOURCE = re.compile(r"literature|statistics:[0-9a-f]{8,64}")


@dataclass(frozen=True, slots=True)
class Feature:
    """One column, with its public range or values: agreed beforehand, never measured on patients.

    A number is scaled so that its range becomes [-1, 1]. A category of k values becomes k - 1 inputs of 0 or 1,
    the first value being the reference. Where `missing` lists codes, such a value (or an empty cell) is placed at
    the range's middle (or at no category) and an extra input says that it is unknown. With `curve` a number has an
    input more for each inner knot (strategies/data/curve.py), 0 where it is unknown.
    """

    name: str
    type: str
    minimum: float | None = key(
        Span(),
        "the public range, agreed beforehand; it becomes [-1, 1]",
        default=REQUIRED,
        init=None,
        name="range",
        fills=("maximum",),
    )
    maximum: float | None = None
    values: tuple[str, ...] = key(
        Words("a list of distinct words", 2, None, "at least two values", "list the public values"),
        "the public values; the first is the reference",
        init=(),
    )
    unit: str | None = key(LINE, "the unit, for the report", default=None)
    missing: tuple[str, ...] = key(
        Words("a list of codes that stand for unknown"),
        "codes that stand for unknown; with them an empty cell is unknown too",
        default=(),
    )
    curve: int | None = key(
        Integer(MIN_KNOTS, MAX_KNOTS),
        "how many public knots, equally spaced over the range, its effect may bend at: a curve, not a straight line",
        default=None,
    )

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the names of the model inputs that this column becomes, in order."""
        if self.type == "number":
            names = (self.name, *(f"{self.name} bends at {knot:.10g}" for knot in self.knots[1:-1]))
        else:
            names = tuple(f"{self.name} = {value}" for value in self.values[1:])
        return names + ((f"{self.name} unknown",) if self.missing else ())

    @property
    def is_record(self) -> bool:
        """Return whether its cells are paths of records (configs/schema/records.py)."""
        return False

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Return (channels, sides...) of a record that the model reads itself; None of any other column."""
        return None

    @property
    def predictors(self) -> tuple["Feature", ...]:
        """Return the numbers and categories that it becomes: itself, or what an encoder makes of a record."""
        return (self,)

    @property
    def knots(self) -> tuple[float, ...]:
        """Return the public knots of the curve, the ends of the range among them; nothing without a curve."""
        if self.curve is None or self.minimum is None or self.maximum is None:
            return ()
        width = self.maximum - self.minimum
        return tuple(self.minimum + width * i / (self.curve - 1) for i in range(self.curve))

    def check(self, section: Section, around: Around) -> None:
        """Note codes that are values too, and a curve where nothing is trained."""
        if set(self.missing) & set(self.values):
            section.problem("missing", "codes that are not values", list(self.missing), "keep a word in one of the two")
        if self.curve and TASKS[around["task"].type].procedure != "training":
            section.note("curve", "expected nothing, as no model is trained; remove it")


class _Share(Number):
    """A number in (0, 1)."""

    def read(self, at: Place) -> float:
        """Return the number, NaN in place of a mistake."""
        return Number(self.expected, self.low, math.nextafter(self.high, 0.0), above=True).read(at)


@dataclass(frozen=True, slots=True)
class Task:
    """The task that is learned. `classes` are the target column's words in order; of two, the second is the outcome.

    `statistics` predicts nothing: each hospital counts its patients by every column, in `bins` equal parts of the range
    of a number, and releases the counts once, with noise.
    """

    type: str
    target: str = key(COLUMN, "the column that is predicted, or counted beside the features")
    classes: tuple[str, ...] = key(
        Words("a list of the target's values"),
        "the target's values in order; of two, the second is the outcome",
        default=(),
    )
    minimum: float | None = key(
        Span(),
        "the target's public range, agreed beforehand, never measured on patients",
        default=NO_RANGE,
        init=None,
        name="range",
        fills=("maximum",),
    )
    maximum: float | None = None
    unit: str | None = key(LINE, "the target's unit, for the report", default=None)
    bins: int = key(
        Integer(MIN_BINS, MAX_BINS), "equal parts of a number's range to count in", default=DEFAULT_BINS, init=0
    )
    outcome_share: float | None = None
    outcome_share_source: str | None = None

    @property
    def maps(self) -> bool:
        """Return whether the outcome is a map of a record's sides, and not one row of numbers."""
        return False

    @property
    def columns(self) -> tuple[Feature, ...]:
        """Return the columns that the outcome is read from, with their public range or values."""
        kind = "category" if self.classes else "number"
        return (Feature(self.target, kind, self.minimum, self.maximum, self.classes, self.unit),)


@dataclass(frozen=True)
class TaskKeys:
    """A type of task: its section, the metrics to ask for (the first is the headline), and what it makes of a study.

    `unasked` names those of the metrics that a study has only where it lists them, so that older studies keep their
    digests.

    `procedure` names what the coordinator does (server/procedures/), `data` how patients are read (strategies/data/).
    `has_outcome`: whether a prediction gives the probability of one outcome that each patient has or has not.
    `states`: the rows of a released histogram of scores, in words; none of a task that has no such release.
    `scored`: what the one score from 0 to 1 of each patient is called; empty of a task without such a score.
    `has_information`: whether of a task a linear model's score and information are bounded per patient, so that they
    may be released.
    """

    name: str
    section: Declaration
    metrics: tuple[str, ...] = ()
    procedure: str = "training"
    data: str = "table"
    has_outcome: bool = False
    unasked: tuple[str, ...] = ()
    has_information: Callable[[Any], bool] = lambda _task: False
    states: tuple[str, ...] = ()
    scored: str = ""


def _counted_classes(section: Section, _around: Around) -> tuple[str, ...]:
    return () if section.values.get("range") is not None else ("0", "1")


def _check_counted(task: Task, section: Section, _around: Around) -> None:
    if task.classes and task.minimum is not None:
        section.problem("range", "either classes or range", "[low, high]", "keep one")


def check_share(task: Task, section: Section, _around: Around) -> None:
    """Note a source of no share."""
    if task.outcome_share is None and task.outcome_share_source is not None:
        section.note("outcome_share_source", "expected nothing without an outcome_share, found a source; add the share")


SHARE_KEYS = (
    Key(
        "outcome_share",
        _Share("a share of patients above 0 and below 1", 0.0, 1.0, above=True),
        default=None,
        about="the share of patients with the outcome, announced in public: where training: auto begins",
    ),
    Key(
        "outcome_share_source",
        Text("literature, or statistics:DIGEST of a study of statistics", _SOURCE),
        default=None,
        about="where the outcome share is known from",
    ),
)
_LIST, OUTCOME = "a list of the target's values", declaration_of(Task).without("bins")
NO_RANGE_OF_CLASSES = "expected none for a classification, found {found}; leave it out"
BINARY_WORDS = Words(_LIST, 2, 2, "two values, the outcome second", "or leave it out for 0 and 1")
_MULTICLASS = Words(_LIST, 3, None, "three values or more", "list every value of the target")
_COUNTED = Words(_LIST, 2, None, "two values or more", "or leave it out for 0 and 1")
SCORES = ("auroc", "accuracy", "balanced_accuracy", "brier", "log_loss")
TASKS = Sections(
    "task type",
    [
        TaskKeys(
            "binary",
            replace(OUTCOME, keys=(*OUTCOME.keys, *SHARE_KEYS)).but(
                refused={"range": NO_RANGE_OF_CLASSES},
                classes={"value": BINARY_WORDS, "default": ("0", "1")},
                check=check_share,
            ),
            (*SCORES, "auprc"),
            has_outcome=True,
            unasked=("auprc",),
            has_information=lambda _task: True,
            states=("without the outcome", "with it"),
        ),
        TaskKeys(
            "multiclass",
            OUTCOME.but(refused={"range": NO_RANGE_OF_CLASSES}, classes={"value": _MULTICLASS, "default": REQUIRED}),
            SCORES,
        ),
        TaskKeys(
            "regression",
            OUTCOME.but(
                refused={"classes": "expected none for a regression, found {found}; leave it out"},
                range={"default": REQUIRED},
            ),
            ("mae", "r2"),
        ),
        TaskKeys(
            "statistics",
            declaration_of(Task).but(
                check=_check_counted,
                classes={"value": _COUNTED, "default": _counted_classes, "unsaid": "0 and 1, where there is no range"},
            ),
            procedure="statistics",
            data="cells",
        ),
    ],
    parts=("metrics",),
)
COX = (
    "expected a loss of each patient alone, found Cox's partial likelihood: its risk sets mix patients, so that no "
    "clip bounds what one of them changes; write type: survival, whose report shows a pooled Cox model beside its own"
)
TASK = OneOf(TASKS, "type", "a mapping with type and target", refused={"cox": COX})


_FEATURE = declaration_of(Feature)
_NO_CURVE = "expected none for a category, found {found}; leave it out"
_NO_VALUES = "expected none for a number, found {found}; leave it out, or say type: category"
FEATURE_TYPES = Sections(
    "column type",
    [
        Kind("number", _FEATURE.but(refused={"values": _NO_VALUES})),
        Kind(
            "category",
            _FEATURE.but(
                refused={"range": NO_RANGE_OF_CLASSES.replace("classification", "category"), "curve": _NO_CURVE}
            ),
        ),
    ],
)


def _column_flaw(name: str) -> str:
    if not COLUMN_NAME.fullmatch(name):
        return "expected a column's name of 1 to 128 printable characters; rename it"
    flaw = flaw_of(name)
    return f"{flaw}; rename it" if flaw else ""


FEATURES = Entries(
    OneOf(FEATURE_TYPES, "type", "a mapping with type and range or values", label="name"),
    _column_flaw,
    "a mapping of columns",
    member="COLUMN",
    least="expected at least one column, found none; list the columns that the model reads",
)
