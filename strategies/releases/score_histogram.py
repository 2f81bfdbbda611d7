"""The release `score histogram`: noisy counts of test patients by score and outcome.

Of times to an event the score is the risk by the horizon, and a third row has those lost from sight before.

Both halves are here. A patient adds 1 to one cell whatever the model, so that adding or removing one changes the counts
by 1 (L2 norm), which the Gaussian noise is scaled by (strategies/releases/noisy_counts.py). Not here: what it costs
(strategies/privacy/plan.py), and the figures that follow from it (strategies/releases/figures.py).

>>> exact = counts(np.array([0.9, 0.7, 0.2]), np.array([1.0, 1.0, 0.0]), starts=np.array([0, 2, 3]), bins=5)
>>> exact.tolist()
[[0.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]]
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from configs import wire
from configs.errors import WireError
from configs.records.outcome import OutcomeFigures
from configs.records.result import ModelResult
from configs.schema import Study
from configs.schema.task import TASKS
from configs.wire import ArraySpec
from strategies.privacy.modes.registry import mode_of
from strategies.releases.base import Arrays, Each, Hospital, Judge, Making, People, Release, Request, Sent, at_home
from strategies.releases.figures import figures
from strategies.releases.noisy_counts import FAR, cell_variance, noised
from strategies.releases.outcome_figures import outcome_figures
from strategies.tasks.registry import objective_of

if TYPE_CHECKING:  # PyTorch, which the coordinator's half does not need
    from strategies.privacy.accounting import SampledGaussian
    from strategies.privacy.plan import PrivacyPlan
    from strategies.privacy.randomness import Randomness

MOST_PATIENTS = 10_000_000  # in one cell, where the study announces no number


class ScoreHistogram(Release):
    """The final model's scores of the test patients, counted by outcome; asked for once, after the last round."""

    name: ClassVar[str] = "score histogram"
    what: ClassVar[str] = "noisy histogram of test patients"
    message_type: ClassVar[str] = wire.EVALUATE
    number: ClassVar[int | None] = 0
    of_test: ClassVar[bool] = True
    after_training: ClassVar[bool] = True

    def arrays(self, study: Study) -> Mapping[str, ArraySpec]:
        """Return the histogram: the row is the outcome (without, with, unknown), the column the score's bin."""
        release = study.evaluation.release
        return {wire.HISTOGRAM: ((len(states_of(study)), release.bins), "float32")} if release else {}

    def event(self, plan: "PrivacyPlan") -> "SampledGaussian | None":
        """Return the cost of the one histogram."""
        return plan.evaluation

    def require_asked(self, study: Study) -> None:
        """Check that the study asks for figures.

        Raises:
            WireError: it does not.
        """
        if study.evaluation.release is None:
            raise WireError("evaluate: expected a study that asks for figures (evaluation.release), found another")

    def make(self, hospital: Hospital, people: People, request: Request, randomness: "Randomness") -> Making:
        """Yield score the test patients with the model, count them and add the noise."""
        yield from ()  # nothing is fitted
        release, plan, test = hospital.study.evaluation.release, hospital.plan, people.test
        assert release is not None
        assert plan is not None
        assert plan.evaluation is not None
        objective = hospital.task.objective
        scores = hospital.task.predictions(at_home(hospital, request.arrays), test)[:, objective.scored]
        starts = np.searchsorted(test.owners, np.arange(test.count + 1))
        states, rows = objective.states(test.outcomes), len(states_of(hospital.study))
        exact = counts(scores, states, starts=starts, bins=release.bins, rows=rows)
        return {wire.HISTOGRAM: noised(exact, plan.evaluation.noise_multiplier, randomness)}

    def judge(self, study: Study, _shared: Arrays, _sent: Sent) -> Judge:
        """Return what refuses counts that noise and announced patients cannot explain."""
        event = mode_of(study).evaluation(study)
        assert event is not None

        def check(site: str, arrays: Arrays) -> None:
            require_plausible(arrays[wire.HISTOGRAM], event.noise_multiplier, study.announced_patients(site))

        return Each(check)

    def words(self, _round_number: int) -> str:
        """Return how people call it."""
        return "the evaluation"

    def combine(self, study: Study, released: Mapping[str, Arrays], _shared: Arrays) -> ModelResult | None:
        """Return the shared model's entry in metrics.json; nothing where no hospital released anything."""
        event = mode_of(study).evaluation(study)
        if event is None or not released:
            return None
        histograms = {site: arrays[wire.HISTOGRAM] for site, arrays in released.items()}
        judged, names = study.evaluation, objective_of(study).figures
        return report(histograms, event.noise_multiplier, judged.metrics, judged.thresholds, names)

    def sentence(self, study: Study) -> str:
        """Return what leaves after the last round."""
        outcome = in_words(study)
        return f"once, after the last round, how many test patients have which score by {outcome}, with noise"


def states_of(study: Study) -> tuple[str, ...]:
    """Return the rows of a study's histogram, in words."""
    return TASKS[study.task.type].states


def in_words(study: Study) -> str:
    """Return what the rows of a study's histogram are."""
    states = states_of(study)
    return "outcome" if len(states) == 2 else f"outcome ({', '.join(states)})"


def counts(
    scores: NDArray[np.float64], outcomes: NDArray[Any], *, starts: NDArray[np.int64], bins: int, rows: int = 2
) -> NDArray[np.float64]:
    """Count (rows, bins) patients: row 0 without the outcome, row 1 with it; column k has scores from k / bins.

    Args:
        scores: (rows,) from 0 to 1; a score that is no number counts as 0, so that the patient is in one cell.
        outcomes: (rows,) 0 or 1, and 2 where a third row has outcomes that nobody knows.
        starts: (patients + 1,) row offsets. Several rows are one patient, of their mean score and first row's outcome.
    """
    cells = cells_of(scores, outcomes, starts=starts, bins=bins)
    return np.bincount(cells, minlength=rows * bins).reshape(rows, bins).astype(np.float64)


def cells_of(
    scores: NDArray[np.float64], outcomes: NDArray[Any], *, starts: NDArray[np.int64], bins: int
) -> NDArray[np.int64]:
    """Return the one cell of each patient, (patients,): those without the outcome by score, then those with it."""
    first, lengths = starts[:-1], np.diff(starts)
    rows = np.clip(np.nan_to_num(scores, nan=0.0), 0.0, 1.0)
    means = np.add.reduceat(rows, first) / lengths if len(first) else np.empty(0)
    column = np.minimum((means * bins).astype(np.int64), bins - 1)
    row = np.rint(outcomes[first]).astype(np.int64)
    return np.asarray(row * bins + column)


def require_plausible(
    histogram: NDArray[np.float32],
    noise_multiplier: float,
    announced_patients: int | None = None,
    *,
    form: str = "evaluate reply",
) -> None:
    """Check that such a histogram can come from an honest hospital; its shape is known to be right.

    Args:
        form: what the message says that it is.

    Raises:
        WireError: it cannot. The text holds no value.
    """
    slack = FAR * math.sqrt(cell_variance(noise_multiplier))
    most = MOST_PATIENTS if announced_patients is None else announced_patients
    if not np.isfinite(histogram).all() or (histogram != np.rint(histogram)).any():
        raise WireError(f"{form}: expected whole numbers of patients, found others")
    if histogram.min() < -slack - 1:
        raise WireError(f"{form}: expected counts that the noise can explain, found one far below zero")
    total = histogram.astype(np.float64).sum()
    if histogram.max() > most + slack or total > most + slack * math.sqrt(histogram.size):
        raise WireError(f"{form}: expected no more patients than the hospital announced, found many more")


def report(
    histograms: Mapping[str, NDArray[Any]],
    noise_multiplier: float,
    metrics: tuple[str, ...],
    thresholds: tuple[float, ...] = (),
    names: tuple[str, str] = ("auroc", "brier"),
) -> ModelResult:
    """Return a model's entry in metrics.json, from the histograms that hospitals released.

    Metrics that the histogram does not give are null, like those that are undefined.

    Args:
        names: what the task's metrics call the AUROC and the Brier score.
    """
    variance = cell_variance(noise_multiplier)
    whole, of_whole = (
        np.sum([np.asarray(h, np.float64) for h in histograms.values()], axis=0),
        len(histograms) * variance,
    )
    together = figures(whole, cell_variance=of_whole)
    estimates = dict(zip(names, (together.auroc, together.brier), strict=True))
    each = {site: figures(h, cell_variance=variance).auroc for site, h in sorted(histograms.items())}
    return ModelResult(
        auroc=estimates.get("auroc"),
        per_site=each,
        metrics={name: estimates.get(name) for name in dict.fromkeys((names[0], *metrics, names[1]))},
        calibration=together.calibration,
        outcome=_outcome_figures(whole, histograms, thresholds, variance),
    )


def _outcome_figures(
    whole: NDArray[np.float64], histograms: Mapping[str, NDArray[Any]], thresholds: tuple[float, ...], variance: float
) -> OutcomeFigures | None:
    """Return the figures at thresholds; none where some outcomes are unknown."""
    if len(whole) > 2:
        return None
    together = len(histograms) * variance
    return outcome_figures(whole, histograms, cell_variance=together, thresholds=thresholds, site_variance=variance)
