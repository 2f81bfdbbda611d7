"""The registered procedures, by the name that a task type gives.

>>> PROCEDURES.names
('training', 'statistics')
"""

from configs.kinds import Registry
from configs.schema import Study
from server.procedures.base import Procedure
from server.procedures.statistics import CountingProcedure
from server.procedures.training import TrainingProcedure

PROCEDURES: Registry[Procedure] = Registry(
    "procedure", ("run", "makes_model"), (TrainingProcedure(), CountingProcedure())
)


def procedure_of(study: Study) -> Procedure:
    """Return what the coordinator does with a study.

    Raises:
        KindError: nothing of its name is registered.
    """
    return PROCEDURES[study.procedure]
