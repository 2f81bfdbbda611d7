"""The task types that there are, by the name that a study's `task.type` uses.

>>> OBJECTIVES.names
('binary', 'multiclass', 'regression')
>>> [metric.name for metric in OBJECTIVES["regression"].metrics]
['mae', 'r2']
"""

from configs.kinds import Registry
from configs.schema import Study, Task
from strategies.tasks.base import PARTS, Objective
from strategies.tasks.binary import Binary
from strategies.tasks.multiclass import Multiclass
from strategies.tasks.regression import Regression

OBJECTIVES: Registry[type[Objective]] = Registry("task type", PARTS, [Binary, Multiclass, Regression])


def objective(task: Task) -> Objective:
    """Return what the task is about.

    Raises:
        KindError: nothing of that type is registered.
    """
    return OBJECTIVES[task.type](task)


def objective_of(study: Study) -> Objective:
    """Return what a study's models are trained for.

    Raises:
        KindError: its task trains no model, or its type is not registered.
    """
    return objective(study.task)
