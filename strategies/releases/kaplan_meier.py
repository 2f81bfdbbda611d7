"""The release `kaplan_meier`: noisy counts of how, and in which interval, training patients' times ended.

Both halves are here. A patient is in one of (causes + 1) * intervals + 1 cells: an event of one cause in an interval,
lost from sight in an interval, or followed to the last cut point. So adding or removing one moves the counts by 1 (L2
norm), which the noise is scaled by. The coordinator adds the hospitals' counts up and follows the risks from interval
to interval, those lost within an interval counting half in it (the life table: Cutler and Ederer 1958; for several
causes Aalen and Johansen 1978). Known from private counts: Gondara and Wang 2020, "Differentially private survival
function estimation".

An interval holds the noise and the sampling of patients: the risk is a smooth function of the cells, whose derivatives
weigh each cell's variance (delta method). A curve ends where the noisy counts do not say with 97.5 % that two patients
are still followed.

>>> cells = np.array([[[10.0, 10.0]]]), np.array([[0.0, 0.0, 80.0]])
>>> risks_over_time(*cells)[0].round(3).tolist()
[[[0.1, 0.2]]]
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from configs import wire
from configs.records.estimate import Estimate
from configs.records.kaplan_meier import KAPLAN_MEIER_KEYS, KaplanMeierKeys, ObservedRisk, ObservedRisks
from configs.schema import Study, Survival
from configs.wire import ArraySpec
from strategies.releases.base import Arrays, Each, Hospital, Judge, Making, People, Request, Sent
from strategies.releases.further import FurtherRelease, keys_of
from strategies.releases.noisy_counts import cell_variance, noised
from strategies.releases.score_histogram import require_plausible
from strategies.tasks.metrics import MIN_PER_CLASS, NORMAL_975, Floats

if TYPE_CHECKING:  # PyTorch, which the coordinator's half does not need
    from strategies.privacy.randomness import Randomness

_TINY = 1e-20  # an imaginary step: derivatives without a difference of two numbers


class KaplanMeier(FurtherRelease):
    """How training patients' times ended, counted; asked for once, after the last round."""

    name: ClassVar[str] = KAPLAN_MEIER_KEYS.name
    what: ClassVar[str] = "noisy counts of how and when times ended"
    message_type: ClassVar[str] = wire.KAPLAN_MEIER

    def arrays(self, study: Study) -> Mapping[str, ArraySpec]:
        """Return one count for each cell."""
        return {wire.ENDINGS: ((_cells_of(study),), "float32")} if keys_of(study, KaplanMeierKeys) else {}

    def make(self, hospital: Hospital, people: People, _request: Request, randomness: "Randomness") -> Making:
        """Count the training patients and add the noise."""
        yield from ()  # nothing is fitted
        exact = counts(people.train.outcomes, _task(hospital.study))
        return {wire.ENDINGS: noised(exact, self.own_multiplier(hospital), randomness)}

    def judge(self, study: Study, _shared: Arrays, _sent: Sent) -> Judge:
        """Return what refuses counts that noise and announced patients cannot explain."""

        def check(site: str, arrays: Arrays) -> None:
            noise, announced = self.noise_multiplier(study, site), study.announced_patients(site)
            require_plausible(arrays[wire.ENDINGS], noise, announced, form=self.reply)

        return Each(check)

    def combine(self, study: Study, released: Mapping[str, Arrays], _shared: Arrays) -> ObservedRisks:
        """Return the risks of all patients together, and of each hospital's."""
        cells = {site: np.asarray(arrays[wire.ENDINGS], np.float64) for site, arrays in sorted(released.items())}
        variance = {site: cell_variance(self.noise_multiplier(study, site)) for site in cells}
        together = np.sum(list(cells.values()), axis=0)
        return ObservedRisks(
            observed(together, _task(study), sum(variance.values())),
            {site: observed(each, _task(study), variance[site]) for site, each in cells.items()},
            {site: tuple(map(float, each)) for site, each in cells.items()},
            max(self.noise_multiplier(study, site) for site in cells),
        )

    def sentence(self, study: Study) -> str:
        """Return what leaves."""
        task = _task(study)
        return (
            f"once, after the last round, {_cells_of(study)} counts of training patients: in which interval of "
            f"{task.target!r} the time ended, and how, with noise"
        )


def counts(outcomes: NDArray[np.float32], task: Survival) -> Floats:
    """Return how many patients are in each cell: events cause by cause, then those lost, then those at the end.

    Args:
        outcomes: (patients, 2), time and cause, as the objective encodes them.
    """
    cuts = np.array(task.intervals, np.float32)  # as times are kept
    intervals, causes = len(cuts) - 1, len(task.classes)
    time, cause = outcomes[:, 0], outcomes[:, 1].astype(np.int64)
    within = np.minimum(np.searchsorted(cuts[1:], time, side="left"), intervals - 1)
    passed = np.searchsorted(cuts[1:], time, side="right")
    cell = np.where(cause > 0, (cause - 1) * intervals + within, causes * intervals + passed)
    return np.bincount(cell, minlength=(causes + 1) * intervals + 1).astype(np.float64)


def risks_over_time(events: NDArray[Any], others: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return each cause's risk by each interval's end, and how many are followed in the interval.

    Args:
        events: (..., causes, intervals); others: (..., intervals + 1), those lost in each, and at the end.
    """
    lost = others[..., :-1]
    leaving = events.sum(axis=-2) + others[..., 1:]  # who leaves in an interval by an event, or lost in the next
    followed = np.cumsum(leaving[..., ::-1], axis=-1)[..., ::-1] + lost / 2
    free = np.cumprod(1 - events.sum(axis=-2) / followed, axis=-1)
    before = np.concatenate([np.ones_like(free[..., :1]), free[..., :-1]], axis=-1)
    return np.cumsum((before / followed)[..., None, :] * events, axis=-1), followed


def observed(cells: Floats, task: Survival, variance: float) -> tuple[ObservedRisk, ...]:
    """Return the risks that noisy counts say, None from where noise would drown them.

    Args:
        cells: as `counts` has them; variance: of the noise in each.
    """
    intervals, causes = len(task.intervals) - 1, len(task.classes)

    def of(some: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        events = some[..., : causes * intervals].reshape(*some.shape[:-1], causes, intervals)
        return risks_over_time(events, some[..., causes * intervals :])

    with np.errstate(all="ignore"):  # where nobody is followed, the curve has ended
        risk, followed = of(cells)
        steps = of(cells + 1j * _TINY * np.eye(len(cells)))[0].imag / _TINY  # (cells, causes, intervals)
        spread = np.sqrt(np.einsum("cki,c->ki", steps**2, variance + _positive(cells)))
    behind = (causes + 1) * np.arange(intervals, 0, -1)  # cells that say who is followed in an interval
    is_known = np.logical_and.accumulate(followed >= MIN_PER_CLASS + NORMAL_975 * np.sqrt(variance * behind))
    points = []
    for number, cause in enumerate(task.classes):
        for k, time in enumerate(task.intervals[1:]):
            points.append(ObservedRisk(cause, time, _estimate(risk[number, k], spread[number, k], known=is_known[k])))
    return tuple(points)


def _estimate(risk: float, spread: float, *, known: bool) -> Estimate | None:
    if not known or not math.isfinite(risk) or not math.isfinite(spread):
        return None
    value, low, high = (
        min(max(float(end), 0.0), 1.0) for end in (risk, risk - NORMAL_975 * spread, risk + NORMAL_975 * spread)
    )
    return Estimate(value, low, high)


def _positive(cells: Floats) -> Floats:
    """Return counts as a variance needs them: none below zero, of the same total."""
    positive = np.maximum(cells, 0.0)
    return np.asarray(positive * (max(float(cells.sum()), 0.0) / max(float(positive.sum()), 1e-9)))


def _cells_of(study: Study) -> int:
    task = _task(study)
    return (len(task.classes) + 1) * (len(task.intervals) - 1) + 1


def _task(study: Study) -> Survival:
    assert isinstance(study.task, Survival)
    return study.task
