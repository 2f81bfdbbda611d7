"""The audit of the evaluation's noisy histogram.

It checks the noise, whole numbers, and how far one patient moves the histogram. Many evaluations of one model are made
through Site.evaluate, each with a ledger of its own, and compared with the exact histogram: scores by PyTorch in
float64, with nothing of the product's prediction. The noise of a cell must be a Gaussian of the booked deviation,
rounded to a whole number. One patient more or less, with the same noise, must move the histogram by 1 at most (L2
norm).
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from client.ledger import Release
from client.patients import Split
from client.site import Site
from client.trainer import Trainer
from configs.errors import ArchipelError
from configs.schema import Study
from configs.site import Policy
from configs.wire import HISTOGRAM
from simulations.audit.periods import PersonPeriods, at_horizon
from simulations.audit.rehearsal import plan_of
from simulations.audit.residuals import pairs_check
from simulations.audit.subject import Floats, Subject
from simulations.audit.verdict import Check, exact
from strategies.data.base import concatenate
from strategies.data.table import TablePatients
from strategies.exchange.arrays import Arrays
from strategies.learning import Learning, learning_of
from strategies.releases.base import Request
from strategies.releases.registry import RELEASES, SCORE_HISTOGRAM

_NEAR = 1e-4  # of a bin's width: a score so near to an edge may lie on either side of it
_FEW = 50  # evaluations
_LEAST_EXPECTED = 10.0  # releases in a class of the goodness of fit


@dataclass(frozen=True)
class Evaluations:
    """Evaluations of one model as they were released. noise: (releases, cells), released less exact counts."""

    noise: Floats
    deviation: float
    whole: bool


class Evaluator:
    """Evaluations of one model at one hospital. Each is of a data set of its own, so that its ledger allows it."""

    kind, array = SCORE_HISTOGRAM.name, HISTOGRAM

    def __init__(self, subject: Subject, study: Study, site: str, model: Arrays, folder: Path, *, seeded: bool) -> None:
        self._subject, self._study, self._site, self._model = subject, study, site, model
        self._seeded, self._count = seeded, 0
        folder.mkdir(parents=True)
        self._ledger = subject.ledger(folder / "ledger.sqlite")
        self.task: Learning = learning_of(study)
        self._trainer = Trainer(self.task)

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()

    def release(self, patients: TablePatients, seed: int, *, seeded: bool | None = None) -> Floats:
        """Return one released histogram, (cells,)."""
        study = replace(self._study, seed=seed)
        seeded = self._seeded if seeded is None else seeded
        hospital = self._hospital(study, patients, seeded=seeded)
        if not seeded:
            _train_once(hospital, study)
        return hospital.release(self.kind, Request(self._model))[self.array].astype(np.float64).ravel()

    def deviation(self, patients: TablePatients) -> float:
        """Return the booked noise multiplier: the standard deviation of a histogram's cells."""
        event = RELEASES[self.kind].event(plan_of(self._hospital(self._study, patients, seeded=True)))
        assert event is not None
        return event.noise_multiplier

    def _hospital(self, study: Study, patients: TablePatients, *, seeded: bool) -> Site:
        self._count += 1
        return self._subject.site(
            self._site,
            study,
            Split(patients, patients, {}),
            self._ledger,
            seeded=seeded,
            trainer=self._trainer,
            dataset=f"{self._site} {self._count}",
            policy=Policy(metrics="noisy"),
        )


def _train_once(hospital: Site, study: Study) -> None:
    """Book a round: a hospital evaluates only what it has trained."""
    release = Release(hospital.dataset, study.sha256, 1, plan_of(hospital).round_event, None)
    with hospital.ledger.reserve(release, plan_of(hospital)):
        pass


def noise_of_evaluations(
    evaluator: Evaluator, study: Study, patients: TablePatients, model: Arrays, seeds: range
) -> Evaluations:
    """Release one histogram a seed, and take the exact one away where no score is near an edge of its bin."""
    bins = study.evaluation.release.bins if study.evaluation.release else 1
    expected, clear = exact_histogram(evaluator.task, model, patients, bins)
    released = np.array([evaluator.release(patients, seed) for seed in seeds])
    noise = (released - expected)[:, clear]
    return Evaluations(noise, evaluator.deviation(patients), bool((released == np.rint(released)).all()))


def evaluation_checks(seen: Evaluations) -> list[Check]:
    """Check the noise of released histograms: size, shape, centre, independence, and that it is whole numbers."""
    noise = seen.noise
    checks = [exact("evaluation: whole numbers", "a released histogram holds parts of a patient", holds=seen.whole)]
    if noise.size < 2 or not np.isfinite(noise).all():
        return [*checks, exact("evaluation: finite", "finite noise was expected", holds=False)]
    values, chances = rounded_gaussian(seen.deviation)
    variance, fourth = float(chances @ values**2), float(chances @ values**4)
    n = noise.size
    size = (float(np.sum(noise**2)) / variance - n) / math.sqrt(n * (fourth / variance**2 - 1))
    words = f"{math.sqrt(float(np.mean(noise**2)) / variance):.3f} of the booked standard deviation"
    centre = float(np.sum(noise.mean(axis=0) ** 2)) * len(noise) / variance
    return [
        *checks,
        Check("evaluation: size", float(2 * stats.norm.sf(abs(size))), words),
        Check("evaluation: centre", float(stats.chi2.sf(centre, noise.shape[1])), "a cell's mean is off"),
        _each_cell(noise, variance, fourth),
        _fit(noise.ravel(), values, chances),
        _cells_apart(noise, seen.deviation),
        _repeats(noise, float(chances @ chances)),
    ]


def _cells_apart(noise: Floats, deviation: float) -> Check:
    """Check the correlation of every two cells, where the noise has enough values for it to be a Gaussian's."""
    if deviation < 1.0 or len(noise) < _FEW:
        return exact("evaluation: cells", holds=True)
    return pairs_check("evaluation: cells", noise.T)


def _repeats(noise: Floats, equal: float) -> Check:
    """Check how many evaluations had equal noise; `equal`: the chance that one cell has it in both."""
    pairs = sum(int((noise[n + 1 :] == noise[n]).all(axis=1).sum()) for n in range(len(noise) - 1))
    by_chance = len(noise) * (len(noise) - 1) / 2 * equal ** noise.shape[1]
    # Pairs that share an evaluation are not quite independent: three times the mean is allowed for, and three more.
    p = float(stats.poisson.sf(pairs - 1, 3 * by_chance + 1e-9)) if pairs > 3 * by_chance + 3 else 1.0
    return Check("evaluation: repeats", p, f"{pairs} pairs of evaluations had the same noise")


def _each_cell(noise: Floats, variance: float, fourth: float) -> Check:
    """Check the size of each cell's noise, so that none has less."""
    n = len(noise)
    z = (np.sum(noise**2, axis=0) / variance - n) / math.sqrt(n * (fourth / variance**2 - 1))
    worst = int(np.abs(z).argmax())
    # A sum of squares is skewed where there are few: a chi-squared law of the same mean and variance.
    freedom = 2 * n / (fourth / variance**2 - 1)
    share = float(np.sum(noise[:, worst] ** 2)) / variance / n * freedom
    p = 2 * min(float(stats.chi2.cdf(share, freedom)), float(stats.chi2.sf(share, freedom))) * len(z)
    return Check("evaluation: each cell", min(1.0, p), f"cell {worst + 1} is off by {z[worst]:+.1f} standard errors")


def _fit(noise: Floats, values: Floats, chances: Floats) -> Check:
    """Check the shape against the rounded Gaussian (Pearson's goodness of fit), rare neighbours joined."""
    expected, observed, at = [], [], 0
    counts = np.array([(noise == value).sum() for value in values], float)
    while at < len(values):
        mass, number = 0.0, 0.0
        while at < len(values) and mass * len(noise) < _LEAST_EXPECTED:
            mass, number, at = mass + float(chances[at]), number + counts[at], at + 1
        expected.append(mass * len(noise))
        observed.append(number)
    if len(expected) > 1 and expected[-1] < _LEAST_EXPECTED:
        last, number = expected.pop(), observed.pop()
        expected[-1], observed[-1] = expected[-1] + last, observed[-1] + number
    if len(expected) < 2:
        return exact("evaluation: shape", holds=True)
    beyond = len(noise) - sum(observed)
    distance = sum((s - e) ** 2 / e for s, e in zip(observed, expected, strict=True))
    p = float(stats.chi2.sf(distance, len(expected) - 1))
    # The law is a limit; its far tail is not: a classes' share of an observation more is allowed for.
    p = float(stats.chi2.sf(distance / (1 + 2 / _LEAST_EXPECTED), len(expected) - 1)) if p < 1e-3 else p
    return Check("evaluation: shape", 0.0 if beyond else p, "the noise is not a rounded Gaussian")


def rounded_gaussian(deviation: float) -> tuple[Floats, Floats]:
    """Return the whole numbers that a rounded Gaussian takes, up to 12 deviations, and the chance of each.

    >>> values, chances = rounded_gaussian(2.0)
    >>> round(float(chances @ values**2), 6), round(float(chances.sum()), 12)
    (4.083333, 1.0)
    """
    far = math.ceil(12 * deviation) + 1
    values = np.arange(-far, far + 1, dtype=np.float64)
    near = stats.norm.sf((np.abs(values) - 0.5) / deviation) - stats.norm.sf((np.abs(values) + 0.5) / deviation)
    return values, np.asarray(near, np.float64)


def exact_histogram(
    task: Learning, model: Arrays, patients: TablePatients, bins: int
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the exact histogram by outcome and mean score, (cells,), and which cells no rounding can change."""
    module = task.build().double()
    module.load_state_dict({name: torch.from_numpy(array.astype(np.float64)) for name, array in model.items()})
    with torch.no_grad():
        if isinstance(patients, PersonPeriods):
            scores, states = at_horizon(task, module, patients)
            starts, rows = np.arange(len(scores) + 1), 3
        else:
            scores = torch.sigmoid(module(torch.from_numpy(patients.x).double())[:, 0]).numpy()
            states, starts, rows = (patients.y >= 0.5).astype(np.int64), patients.starts, 2
    counts, clear = np.zeros((rows, bins)), np.ones((rows, bins), bool)
    for first, end in itertools.pairwise(starts):
        place = float(np.clip(np.nan_to_num(scores[first:end], nan=0.0), 0, 1).mean()) * bins
        row, column = int(states[first]), min(bins - 1, int(place))
        counts[row, column] += 1
        edge = round(place)
        if abs(place - edge) < _NEAR and 0 < edge < bins:
            clear[row, [edge - 1, edge]] = False
    return counts.ravel(), clear.ravel()


def largest_move(
    evaluator: Evaluator, cohort: TablePatients, planted: list[tuple[str, TablePatients]], patients_out: int
) -> tuple[float, str]:
    """Return how far one patient moves the histogram at most (L2 norm), and who does.

    Args:
        planted: patients that are put in, first, last and alone. patients_out: how many are taken out, one at a time.
    """
    nobody = cohort.subset(np.empty(0, np.int64))
    moves = list(
        _moves(lambda people: evaluator.release(people, 0, seeded=True), cohort, nobody, planted, patients_out)
    )
    return max(moves, key=lambda move: move[0] if math.isfinite(move[0]) else math.inf)


def _moves(
    release: Callable[[TablePatients], Floats],
    cohort: TablePatients,
    nobody: TablePatients,
    planted: list[tuple[str, TablePatients]],
    patients_out: int,
) -> Iterator[tuple[float, str]]:
    everybody = release(cohort)
    for number in range(min(cohort.count, patients_out)):
        rest = release(cohort.subset(np.delete(np.arange(cohort.count), number)))
        yield float(np.linalg.norm(everybody - rest)), "a patient of the hospital"
    try:
        empty = release(nobody)
    except ArchipelError:
        empty = None
    for who, patient in planted:
        for people in (concatenate([cohort, patient]), concatenate([patient, cohort])):
            yield float(np.linalg.norm(release(people) - everybody)), who
        if empty is not None:
            yield float(np.linalg.norm(release(patient) - empty)), who
