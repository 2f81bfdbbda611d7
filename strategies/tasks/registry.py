"""The registered task types, by the name in a study's `task.type`.

>>> OBJECTIVES.names
('binary', 'multiclass', 'regression', 'survival', 'counts', 'segmentation', 'own', 'own_mask')
>>> [metric.name for metric in OBJECTIVES["regression"].metrics]
['mae', 'r2']
"""

from configs.errors import KindError
from configs.kinds import Registry
from configs.schema import Study, Task
from configs.schema.task import TASKS, TaskKeys
from strategies.tasks.base import PARTS, Objective
from strategies.tasks.binary import Binary
from strategies.tasks.counts import Counts
from strategies.tasks.multiclass import Multiclass
from strategies.tasks.own import Own, OwnMask
from strategies.tasks.regression import Regression
from strategies.tasks.segmentation import Segmentation
from strategies.tasks.survival import Survival

OBJECTIVES: Registry[type[Objective]] = Registry(
    "task type", PARTS, [Binary, Multiclass, Regression, Survival, Counts, Segmentation, Own, OwnMask]
)


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
    return OBJECTIVES[study.task.type].of(study)


def is_learned(study: Study) -> bool:
    """Return whether a study's task has an outcome that a model learns."""
    return study.task.type in OBJECTIVES


def register(kind: type[Objective], keys: TaskKeys) -> None:
    """Add a task type, so that studies may name it.

    Raises:
        KindError: another one has its name, it lacks a part, or it and its keys do not name the same metrics.
    """
    metrics = tuple(metric.name for metric in kind.metrics)
    if (kind.name, metrics) != (keys.name, keys.metrics):
        raise KindError(
            f"task type {kind.name!r} ({kind.__module__}.{kind.__qualname__}): expected the name and metrics of its "
            f"keys, {keys.name!r} with {', '.join(keys.metrics)}, found {kind.name!r} with {', '.join(metrics)}; "
            "correct one of the two"
        )
    OBJECTIVES.register(kind)
    TASKS.register(keys)
