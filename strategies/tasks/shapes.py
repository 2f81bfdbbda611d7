"""What a study's model sends: each parameter's name, shape and type, computed without PyTorch.

The process of a hospital that talks to the network checks every message against this, and needs no model to do so.

>>> from configs.schema import Model
>>> parameters_of(Model("mlp", hidden=(8,)), inputs=3, outputs=1)["2.weight"]
((1, 8), 'float32')
"""

import itertools
from collections.abc import Mapping

from configs.schema import Model, Study
from configs.wire import ArraySpec


def parameters_of(model: Model, inputs: int, outputs: int) -> Mapping[str, ArraySpec]:
    """Name -> (shape, dtype) of a linear stack's parameters, in the model's order; a ReLU stands between two layers.

    Of a study that trains nothing there are none.
    """
    if model.name == "none":
        return {}
    sizes = [inputs, *model.hidden, outputs]
    parameters: dict[str, ArraySpec] = {}
    for i, (before, after) in enumerate(itertools.pairwise(sizes)):
        parameters[f"{2 * i}.weight"] = ((after, before), "float32")
        parameters[f"{2 * i}.bias"] = ((after,), "float32")
    return parameters


def outputs_of(study: Study) -> int:
    """The model's outputs: 1, or the number of classes."""
    return len(study.task.classes) if study.task.type == "multiclass" else 1


def study_parameters(study: Study) -> Mapping[str, ArraySpec]:
    """What the study's model sends."""
    return parameters_of(study.model, len(study.inputs), outputs_of(study))
