"""What a study's model sends: each parameter's name, shape and type, computed without PyTorch.

The process of a hospital that talks to the network checks every message against this, and needs no model to do so.

>>> from configs.schema import Model
>>> parameters_of(Model("mlp", hidden=(8,)), inputs=3, outputs=1)["2.weight"]
((1, 8), 'float32')
"""

import itertools
import math
from collections.abc import Mapping

from configs import wire
from configs.federated import sent_arrays
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


def study_bytes(study: Study) -> int:
    """Bytes of the model's parameters, or of the statistics: the most that a message of the study carries."""
    arrays = arrays_of("train" if study.trains else "statistics reply", study)
    return sum(4 * math.prod(shape) for shape, _ in arrays.values())


def histogram_spec(bins: int) -> Mapping[str, ArraySpec]:
    """What a hospital says of its test patients: the row is the outcome (without, with), the column the score's bin."""
    return {wire.HISTOGRAM: ((2, bins), "float32")}


def cells_of(study: Study) -> int:
    """How many counts a hospital's statistics are: of each column its values or bins, and the unknown."""
    return sum((len(column.values) or study.task.bins) + 1 for column in study.counted)


def arrays_of(form: str, study: Study) -> Mapping[str, ArraySpec]:
    """The arrays of one form of configs/wire.py in this study.

    >>> from configs.schema import Model
    >>> histogram_spec(20)
    {'histogram': ((2, 20), 'float32')}
    """
    carried = wire.FORMS[form].arrays
    if carried == "histogram":
        release = study.evaluation.release
        return histogram_spec(release.bins) if release else {}
    if carried == "statistics":
        return {} if study.trains else {wire.COUNTS: ((cells_of(study),), "float32")}
    if form == "train":
        return {**(parameters := study_parameters(study)), **sent_arrays(study.training.strategy, parameters)}
    return study_parameters(study) if carried == "model" else {}
