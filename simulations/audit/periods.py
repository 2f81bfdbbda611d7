"""The audit's own risks by the horizon, and patients to plant where each has a time to an event.

The risks are PyTorch's in float64, interval by interval, with nothing of the product's prediction.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from configs.schema import Study, Survival
from simulations.audit.sensitivity import planted_patients
from simulations.audit.subject import Floats
from strategies.data.person_periods import HasPeriods, PersonPeriods, one_row_each, person_periods
from strategies.data.table import TablePatients
from strategies.learning import Learning
from strategies.tasks.registry import objective_of

__all__ = ["PersonPeriods", "at_horizon", "planted_to_judge"]


def at_horizon(task: Learning, module: nn.Module, patients: PersonPeriods) -> tuple[Floats, NDArray[np.int64]]:
    """Return each patient's risk of the first cause by the horizon, and 1 with it by then, 0 free of it, 2 lost."""
    of = task.objective.task
    assert isinstance(of, Survival)
    people = patients.features
    free, risk = torch.ones(people.count).double(), torch.zeros(people.count).double()
    for number in range(of.intervals[1:].index(of.horizon) + 1):
        interval = np.zeros((people.count, patients.intervals), np.float32)
        interval[:, number] = 1.0
        outputs = module(torch.from_numpy(np.hstack([people.x, interval])).double())
        single = outputs.shape[1] == 1
        hazards = torch.sigmoid(outputs) if single else torch.softmax(outputs, dim=1)[:, 1:]
        risk = risk + free * hazards[:, 0]
        free = free * (1 - hazards.sum(dim=1))
    states = [_state(float(time), int(cause), float(np.float32(of.horizon))) for time, cause in people.y]
    return risk.numpy(), np.array(states, np.int64)


def _state(time: float, cause: int, horizon: float) -> int:
    if cause == 0:
        return 2 if time < horizon else 0
    return int(cause == 1 and time <= horizon)


def planted_to_judge(study: Study, cohort: TablePatients) -> list[tuple[str, TablePatients]]:
    """Return worst-case patients, each with a name, as patients of the cohort's kind."""
    if not isinstance(cohort, PersonPeriods):
        return planted_patients(cohort)
    outcome = objective_of(study)
    assert isinstance(outcome, HasPeriods)
    return [(who, person_periods(one_row_each(people), outcome)) for who, people in planted_patients(cohort.features)]
