"""The section `evaluation`: test patients, metrics, and what may leave a hospital."""

from dataclasses import dataclass

from configs.keys.declare import Part, key
from configs.keys.values import COLUMN, Around, Integer, Number, Place, Words, nearest
from configs.schema.privacy import MAX_EPSILON, MIN_EPSILON, PER_PATIENT
from configs.schema.task import DEFAULT_BINS, MAX_BINS, MIN_BINS, TASKS
from configs.sections import Section

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
        metrics = _all_metrics(at.section, at.around)
        expected = ", ".join(metrics)
        words = Words(f"a list from {expected}").read(at)
        for word in words:
            if word not in metrics:
                advice = nearest(word, metrics, "remove it")
                at.problem(f"one of {expected} for a {task} task", advice, found=word)
        return words


def _all_metrics(_section: Section, around: Around) -> tuple[str, ...]:
    return TASKS[around["task"].type].metrics


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
        default=_all_metrics,
        init=(),
        unsaid="all of the task's metrics",
        written=lambda _: True,
    )
    split_column: str | None = key(
        COLUMN, "a column that says train or test, in the place of test_fraction", default=None
    )
    release: EvaluationRelease | None = key(
        Part(EvaluationRelease, "a mapping with epsilon and bins"),
        "a noisy histogram of scores by outcome, released once by each hospital",
        default=None,
    )

    def check(self, section: Section, around: Around) -> None:
        """Note what no key can see alone."""
        if self.split_column is not None and section.values.get("test_fraction") is not None:
            section.note("split_column", "expected either test_fraction or split_column, found both; keep one")
        if self.release and not TASKS[around["task"].type].has_outcome:
            section.problem("release", "none for a task that is not binary", around["task"].type, "leave it out")
        if self.release and self.split_column is None and self.test_fraction == 0.0:
            section.note("release", "expected test patients, found test_fraction 0; raise it, or remove release")
