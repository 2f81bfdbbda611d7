"""Models that a simulation fits to all patients in one place beside the study's own, one for some task types.

An anchor is what a statistician would have done with all data on one desk. Nothing like it leaves a hospital.

>>> [anchor.key.value for anchor in anchors_of("survival")], [*anchors_of("binary")]
(['pooled_cox'], [])
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.kinds import Registry
from configs.records.models import ComparedModel
from configs.schema import Study, Survival
from simulations.cox import baseline, fit
from strategies.data.base import TrainablePatients
from strategies.data.person_periods import PersonPeriods

Floats = NDArray[np.float64]
Predict = Callable[[TrainablePatients], Floats]


@dataclass(frozen=True)
class Anchor:
    """A model beside the study's own: `fitted` returns its predictions, as the task's objective makes them."""

    name: str  # the task type's
    key: ComparedModel
    fitted: Callable[[Study, TrainablePatients], Predict]


def pooled_cox(study: Study, train: TrainablePatients) -> Predict:
    """Return a Cox model's risks of the first cause by each interval's end, by Breslow's baseline hazard.

    Whom another cause took is followed up to then, as if lost from sight: a cause-specific hazard.
    """
    assert isinstance(train, PersonPeriods)
    assert isinstance(study.task, Survival)
    x, (time, cause) = train.features.x.astype(np.float64), train.outcomes.T.astype(np.float64)
    event = cause == 1
    weights, ends = fit(x, time, event), np.array(study.task.intervals[1:])
    hazards = baseline(x, time, event, weights, ends)
    width = len(ends) * len(study.task.classes)

    def predict(patients: TrainablePatients) -> Floats:
        assert isinstance(patients, PersonPeriods)
        relative = np.exp(np.clip(patients.features.x.astype(np.float64) @ weights, -500, 500))
        risks = np.zeros((patients.count, width))
        risks[:, : len(ends)] = 1 - np.exp(-relative[:, None] * hazards)
        return risks

    return predict


_COX = Anchor("survival", ComparedModel.POOLED_COX, pooled_cox)
ANCHORS: Registry[Anchor] = Registry("anchor", ("key", "fitted"), [_COX])


def anchors_of(task_type: str) -> Iterator[Anchor]:
    """Yield the anchor of a task type, if there is one."""
    return (anchor for anchor in ANCHORS if anchor.name == task_type)
