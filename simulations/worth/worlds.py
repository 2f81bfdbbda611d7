"""Variants of a study, trained in numbered synthetic worlds, with intervals of their figures.

Worlds are trained until the time is over. Within a world everything is paired: the same patients and seeds for every
variant. What a world assumes is synthetic.py's; which variants are asked for, and what follows, is weigh.py's.

>>> t_interval([0.01, 0.02, 0.03])
Interval(mean=0.02, low=-0.0048, high=0.0448)
>>> t_interval([0.01])
Interval(mean=0.01, low=None, high=None)
"""

import math
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from configs.errors import RunError
from configs.schema import CohortMember, Study
from simulations.memory import train
from simulations.worth.synthetic import Assumed, Judged, World, draw
from strategies.data.base import concatenate
from strategies.privacy.modes.none import without_privacy

DIVERGED = Judged(auroc=0.5, calibration=1.0, called=1.0)  # a model that diverged predicts nothing
ALL = "all-in-one-place"


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over worlds with its 95 % interval; None where one world alone was seen.

    >>> str(Interval(0.0123, 0.008, 0.0161))
    '0.012 (0.008 to 0.016)'
    """

    mean: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"


def t_interval(values: Sequence[float] | NDArray[np.float64]) -> Interval:
    """Return Student's t interval of a mean, to four decimals."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(rounded(mean), None, None)
    from scipy import stats

    reach = float(stats.t.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Interval(rounded(mean), rounded(mean - reach), rounded(mean + reach))


def rounded(value: float) -> float:
    """Return the value to four decimals, and never -0.0."""
    return round(value, 4) + 0.0


def at(study: Study, epsilon: float) -> Study:
    """Return the study at another epsilon."""
    return replace(study, privacy=replace(study.privacy, epsilon=epsilon))


def plain(study: Study) -> Study:
    """Return the same settings with nothing protected: neither clipped nor noised."""
    return without_privacy(study)


def in_one_place(study: Study, rounds: int) -> Study:
    """Return a study without privacy, all patients at one hospital, for so many rounds: a federation's best case."""
    patients = sum(member.patients for member in study.cohort)
    training = replace(study.training, quorum=1, rounds=rounds)
    return replace(plain(study), cohort=(CohortMember(ALL, patients),), training=training)


def largest(study: Study, count: int) -> Study:
    """Return the study with its largest hospitals alone."""
    members = sorted(study.cohort, key=lambda member: (-member.patients, member.site))[:count]
    training = replace(study.training, quorum=min(study.training.quorum, count))
    return replace(study, cohort=tuple(sorted(members, key=lambda m: m.site)), training=training)


class TimeIsOverError(Exception):
    """The time that may be spent until here is spent."""


class Bench:
    """Trains each variant of a study once a world, until so many seconds of computing are spent.

    Other programs' time is not counted. Every world is the whole study's, whichever of its hospitals train.
    """

    def __init__(self, study: Study, assumed: Assumed, seconds: float = math.inf) -> None:
        self.study, self._assumed, self.seconds = study, assumed, seconds
        self._started, self._ends = time.process_time(), math.inf
        self._worlds: dict[int, World] = {}
        self._judged: dict[tuple[str, bool, int], Judged] = {}
        self._costs: list[float] = []  # seconds of each training, with its world where that was drawn

    def until(self, share: float) -> None:
        """Begin a part, which ends when this share of all the time is spent."""
        self._ends = self._started + share * self.seconds

    def values(self, study: Study, worlds: Iterable[int], *, noise: bool = True) -> list[float]:
        """Return a variant's AUROC in each of these worlds; without `noise` it is sampled and clipped all the same.

        Raises:
            TimeIsOverError: before one that is not trained yet. RunError: without privacy, it diverges.
        """
        return [self.judged(study, number, noise=noise).auroc for number in worlds]

    def judged(self, study: Study, number: int, *, noise: bool = True) -> Judged:
        """Return a variant's figures in one world; see `values`."""
        key = (study.sha256, noise, number)
        if key not in self._judged:
            begun = time.process_time()
            if begun > self._ends:
                raise TimeIsOverError
            self._judged[key] = self._train(study, number, noise=noise)
            self._costs.append(time.process_time() - begun)
        return self._judged[key]

    @property
    def typical_s(self) -> float | None:
        """Return the median of what a training cost, in seconds of computing; None before the first."""
        return statistics.median(self._costs) if self._costs else None

    def _train(self, study: Study, number: int, *, noise: bool) -> Judged:
        if number not in self._worlds:
            self._worlds[number] = draw(self.study, self._assumed, self.study.seed + number)
        world, seeded = self._worlds[number], replace(study, seed=(self.study.seed + number) % 2**32)
        patients = {ALL: concatenate(list(world.train.values()))} if study.sites == (ALL,) else world.train
        try:
            return world.judge(train(seeded, patients, noise=noise).model)
        except RunError as error:
            # A loss against a model that learnt nothing would call anything worth it.
            if not study.privacy.keys.budgeted:
                raise RunError(
                    f"{study.name}: without privacy, on made-up patients: expected training to end, found: {error}; "
                    "lower the study's learning_rate"
                ) from None
            return DIVERGED
