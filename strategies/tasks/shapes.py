"""What a study's model sends: each parameter's name, shape and type, computed without PyTorch.

The process of a hospital that talks to the network checks every message against this, and needs no model to do so.
"""

from collections.abc import Mapping

from configs.schema import Study
from configs.wire import ArraySpec
from strategies.models.registry import architecture
from strategies.tasks.registry import objective_of


def study_parameters(study: Study) -> Mapping[str, ArraySpec]:
    """Return what the study's model sends: name -> (shape, dtype); nothing where no model is trained."""
    if not study.trains:
        return {}
    return architecture(study.model, len(study.inputs), objective_of(study).outputs).parameters
