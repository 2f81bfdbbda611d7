"""The section `evaluation`: test patients, metrics, and what may leave a hospital."""

from dataclasses import dataclass
from typing import Any

from configs.keys.declare import Part, key
from configs.keys.values import COLUMN, Around, Integer, Number, Place, Value, Words, is_number, nearest
from configs.schema.privacy import MAX_EPSILON, MIN_EPSILON, PER_PATIENT
from configs.schema.task import DEFAULT_BINS, MAX_BINS, MIN_BINS, TASKS
from configs.sections import Section

MOST_THRESHOLDS = 10
_FRACTION = Number("a share of the patients from 0 to 0.9", 0.0, 0.9)


@dataclass(frozen=True, slots=True)
class EvaluationRelease:
    """The release asked of each hospital about its test patients, once: a noisy histogram of scores by outcome.

    `epsilon` is what this costs per patient at the study's delta, beside the training's; `bins` divide [0, 1] equally.
    """

    epsilon: float = key(
        Number(f"0.01 to {MAX_EPSILON:g}, {PER_PATIENT}, beside the training's", MIN_EPSILON, MAX_EPSILON),
        f"what it costs {PER_PATIENT}, beside the training's",
    )
    bins: int = key(Integer(MIN_BINS, MAX_BINS), "equal parts of the scores from 0 to 1", default=DEFAULT_BINS)


class _Metrics(Words):
    """Metrics of the study's task."""

    def read(self, at: Place) -> tuple[str, ...]:
        """Return the metrics; those that the task does not have are noted."""
        task = at.around["task"].type
        metrics = TASKS[task].metrics
        expected = ", ".join(metrics)
        words = Words(f"a list from {expected}").read(at)
        for word in words:
            if word not in metrics:
                advice = nearest(word, metrics, "remove it")
                at.problem(f"one of {expected} for a {task} task", advice, found=word)
        return words


def _usual_metrics(_section: Section, around: Around) -> tuple[str, ...]:
    kind = TASKS[around["task"].type]
    return tuple(metric for metric in kind.metrics if metric not in kind.unasked)


class _Thresholds(Value):
    """Probabilities from which on a patient is called ill."""

    expected = f"a list of 1 to {MOST_THRESHOLDS} distinct probabilities above 0 and below 1, such as [0.1, 0.2, 0.5]"

    def read(self, at: Place) -> tuple[float, ...]:
        """Return the probabilities, from the lowest to the highest."""
        numbers = at.found if isinstance(at.found, list) else []
        good = 0 < len(numbers) <= MOST_THRESHOLDS and len({*map(str, numbers)}) == len(numbers)
        if good and all(is_number(number) and 0 < number < 1 for number in numbers):
            return tuple(sorted(float(number) for number in numbers))
        at.problem(self.expected, "correct the list, or leave it out for 0.5")
        return ()

    def write(self, value: Any) -> list[float]:
        """Return the probabilities as a list."""
        return list(value)

    @property
    def schema(self) -> dict[str, Any]:
        """Return a list of distinct numbers between 0 and 1."""
        items = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
        return {"type": "array", "items": items, "minItems": 1, "maxItems": MOST_THRESHOLDS, "uniqueItems": True}


def _whole_fraction(section: Section, around: Around) -> float:
    if section.values.get("split_column") is not None:
        return 0.0
    return _FRACTION.read(Place(section, "test_fraction", None, around))


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The test patients and the metrics. `split_column` names a column of train/test instead of a fraction.

    Without a `release` no figure about test patients leaves a hospital.
    """

    test_fraction: float = key(
        _FRACTION,
        "the share of each hospital's patients that is kept aside",
        default=_whole_fraction,
        init=0.0,
        unsaid="none where split_column is given",
        written=lambda evaluation: not evaluation.split_column,
    )
    metrics: tuple[str, ...] = key(
        _Metrics("a list of the task's metrics"),
        "what is measured on test patients, where patients of all hospitals are at hand",
        default=_usual_metrics,
        init=(),
        unsaid="all of the task's metrics but auprc",
        written=lambda _: True,
    )
    split_column: str | None = key(
        COLUMN, "a column that says train or test, in the place of test_fraction", default=None
    )
    release: EvaluationRelease | None = key(
        Part(EvaluationRelease, "a mapping with epsilon and bins"),
        "a noisy histogram of scores by outcome, of survival of risks by the horizon, released once by each hospital",
        default=None,
    )

    test_only: tuple[str, ...] = key(
        Words("a list of hospitals of the cohort"),
        "hospitals that train nothing: all their patients are test patients, asked for the release alone",
        default=(),
        unsaid="none: every hospital trains",
    )
    thresholds: tuple[float, ...] = key(
        _Thresholds(),
        "probabilities from which on a patient is called ill: sensitivity, specificity and predictive values at each",
        default=(),
        unsaid="0.5",
    )

    def check(self, section: Section, around: Around) -> None:
        """Note what no key can see alone."""
        if self.thresholds and not TASKS[around["task"].type].has_outcome:
            section.problem("thresholds", "none for a task that is not binary", list(self.thresholds), "leave it out")
        if self.split_column is not None and section.values.get("test_fraction") is not None:
            section.note("split_column", "expected either test_fraction or split_column, found both; keep one")
        if self.release and not TASKS[around["task"].type].states:
            expected = f"none for a task that is not {' or '.join(name for name in TASKS.names if TASKS[name].states)}"
            section.problem("release", expected, around["task"].type, "leave it out")
        if self.release and self.split_column is None and self.test_fraction == 0.0:
            section.note("release", "expected test patients, found test_fraction 0; raise it, or remove release")
