"""The release `score_sum`: two noisy sums of the test patients' scores, from which their mean follows.

Both halves are here. A patient with score s in [0, 1] adds s to the first sum and 1 - s to the second. Adding or
removing one moves the two by (s, 1 - s), at most 1 (L2 norm): s^2 + (1 - s)^2 <= 1. So the noise is that of any count.
The sums together are the number of patients, the first over both is the mean score. That costs no more than the sum of
scores alone, and half the variance of releasing the sum and the number side by side, which one patient moves by up to
the root of 2.

Scores are whole multiples of 1/256, and so is the noise: no low bit tells what was added to what. The interval is that
of a share (strategies/releases/figures.py): scores between 0 and 1 vary less than shares of the same mean, so as far
as patients are a sample it is wide rather than narrow; the noise in it is exact.

>>> sums_of(np.array([1.0, 0.5, 0.25])).tolist()
[448.0, 320.0]
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from configs import wire
from configs.errors import WireError
from configs.records.estimate import Estimate
from configs.records.score_sum import SCORE_SUM_KEYS, MeanScore, ScoreSumKeys
from configs.schema import Study
from configs.schema.task import TASKS
from configs.wire import ArraySpec
from strategies.learning import learning_of
from strategies.models.registry import personal_parameters
from strategies.releases.base import Arrays, Each, Hospital, Judge, Making, People, Request, Sent, at_home
from strategies.releases.figures import mean_of_cells, surely_holds
from strategies.releases.further import FurtherRelease, keys_of
from strategies.releases.noisy_counts import FAR, ROUNDING_VARIANCE, noised
from strategies.releases.score_histogram import MOST_PATIENTS
from strategies.tasks.metrics import NORMAL_975, Floats

if TYPE_CHECKING:  # PyTorch, which the coordinator's half does not need
    from strategies.privacy.randomness import Randomness

_PARTS = 256  # of a patient, in whole numbers of which scores are added up
_VALUES = np.array([1.0, 0.0])  # the score that a patient of each sum has


class ScoreSum(FurtherRelease):
    """The final model's scores of the test patients, added up; asked for once, after the last round."""

    name: ClassVar[str] = SCORE_SUM_KEYS.name
    what: ClassVar[str] = "noisy sums of test patients' scores"
    message_type: ClassVar[str] = wire.SCORE_SUM
    of_test: ClassVar[bool] = True

    def arrays(self, study: Study) -> Mapping[str, ArraySpec]:
        """Return the two sums."""
        return {wire.SCORES: ((2,), "float32")} if keys_of(study, ScoreSumKeys) else {}

    def make(self, hospital: Hospital, people: People, request: Request, randomness: "Randomness") -> Making:
        """Score the test patients with the model, add the scores up and add the noise."""
        yield from ()  # nothing is fitted
        exact = sums_of(hospital.task.scores(at_home(hospital, request.arrays), people.test))
        noisy = noised(exact, self.own_multiplier(hospital) * _PARTS, randomness)
        return {wire.SCORES: noisy / np.float32(_PARTS)}

    def judge(self, study: Study, _shared: Arrays, _sent: Sent) -> Judge:
        """Return what refuses sums that noise and announced patients cannot explain."""

        def check(site: str, arrays: Arrays) -> None:
            require_plausible(arrays[wire.SCORES], self.noise_multiplier(study, site), study.announced_patients(site))

        return Each(check)

    def combine(self, study: Study, released: Mapping[str, Arrays], _shared: Arrays) -> MeanScore:
        """Return the mean score of all hospitals' test patients together, and of each hospital's."""
        sums = {site: np.asarray(arrays[wire.SCORES], np.float64) for site, arrays in sorted(released.items())}
        noise = {site: self.noise_multiplier(study, site) for site in sums}
        total, variance = np.sum(list(sums.values()), axis=0), sum(map(_variance, noise.values()))
        count, margin = float(total.sum()), NORMAL_975 * math.sqrt(2 * variance)
        return MeanScore(
            score=TASKS[study.task.type].scored,
            together=mean(total, variance),
            sites={site: mean(each, _variance(noise[site])) for site, each in sums.items()},
            patients=Estimate(count, count - margin, count + margin),
            noise_multiplier=max(noise.values()),
        )

    def rehearsed(self, study: Study, result: MeanScore, shared: Arrays, people: Iterable[People]) -> MeanScore:
        """Return the result with the exact mean beside, unless hospitals keep parts of the model."""
        if personal_parameters(study):
            return result
        learning = learning_of(study)
        scores = np.concatenate([learning.scores(shared, each.test) for each in people])
        return replace(result, exact=float(scores.mean()) if len(scores) else None)

    def sentence(self, study: Study) -> str:
        """Return what leaves."""
        return (
            "once, after the last round, two sums over test patients, of each one's "
            f"{TASKS[study.task.type].scored} from 0 to 1, and of what it lacks to 1, with noise"
        )


def sums_of(scores: Floats) -> Floats:
    """Return both sums in 1/256 of a patient, (2,) whole numbers.

    Args:
        scores: (patients,) from 0 to 1.
    """
    parts = np.rint(np.clip(np.nan_to_num(scores, nan=0.0), 0.0, 1.0) * _PARTS)
    return np.array([parts.sum(), (_PARTS - parts).sum()])


def mean(sums: Floats, variance: float) -> Estimate | None:
    """Return the mean score that two noisy sums say; None where noise may hide that there are two patients.

    Args:
        variance: of the noise in each sum, in patients squared.
    """
    return mean_of_cells(sums, _VALUES, variance) if surely_holds(sums, variance) else None


def require_plausible(
    sums: NDArray[np.float32], noise_multiplier: float, announced_patients: int | None = None
) -> None:
    """Check that such sums can come from an honest hospital; their shape is known to be right.

    Raises:
        WireError: they cannot. The text holds no value.
    """
    form, slack = f"{wire.ASKS[wire.SCORE_SUM]} reply", FAR * math.sqrt(_variance(noise_multiplier))
    most = MOST_PATIENTS if announced_patients is None else announced_patients
    parts = sums.astype(np.float64) * _PARTS
    if not np.isfinite(parts).all() or (parts != np.rint(parts)).any():
        raise WireError(f"{form}: expected whole numbers of 1/{_PARTS}, found others")
    if sums.min() < -slack - 1:
        raise WireError(f"{form}: expected sums that the noise can explain, found one far below zero")
    if sums.astype(np.float64).sum() > most + slack * math.sqrt(2) + 1:
        raise WireError(f"{form}: expected no more patients than the hospital announced, found many more")


def _variance(noise_multiplier: float) -> float:
    return noise_multiplier**2 + ROUNDING_VARIANCE / _PARTS**2
