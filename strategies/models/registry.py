"""The registered kinds of model, by the name in a study's `model.name`.

>>> ARCHITECTURES.names
('logistic', 'linear', 'mlp', 'resnet', 'unet', 'conv1d', 'gru')
"""

import math
from collections.abc import Mapping
from typing import Any

from configs.errors import KindError
from configs.keys.one_of import Kind
from configs.kinds import Family, Registry
from configs.kit import PART
from configs.schema import Study
from configs.schema.kit import FAMILY
from configs.schema.model import MODELS
from configs.wire import ArraySpec
from strategies.models.base import PARTS, Architecture
from strategies.models.conv1d import Conv1d
from strategies.models.gru import GRU
from strategies.models.linear_stack import MLP, Linear, Logistic
from strategies.models.of_a_kit import KitArchitecture
from strategies.models.resnet import ResNet
from strategies.models.unet import UNet
from strategies.tasks.registry import is_learned, objective_of

ARCHITECTURES: Registry[type[Architecture]] = Registry(
    "model", PARTS, [Logistic, Linear, MLP, ResNet, UNet, Conv1d, GRU]
)
ARCHITECTURES.register_family(Family(FAMILY, PART, lambda _: KitArchitecture))


def architecture(section: Any, inputs: int, outputs: int, input_shape: tuple[int, ...] | None = None) -> Architecture:
    """Return the model of a study's section `model`.

    Raises:
        KindError: nothing of that name is registered.
    """
    return ARCHITECTURES[section.name](section, inputs, outputs, input_shape)


def architecture_of(study: Study) -> Architecture:
    """Return a study's model.

    Raises:
        KindError: the study trains none, or nothing of its name is registered.
    """
    outcome = objective_of(study)
    inputs = len(study.inputs) + len(outcome.added_inputs)
    return ARCHITECTURES[study.model.name].of(study, inputs, outcome.outputs)


def study_parameters(study: Study) -> Mapping[str, ArraySpec]:
    """Return the parameters of a study's model: name -> (shape, dtype); nothing where no model is trained.

    The process of a hospital that talks to the network checks every message against this, without PyTorch.
    """
    return architecture_of(study).parameters if is_learned(study) else {}


def personal_parameters(study: Study) -> Mapping[str, ArraySpec]:
    """Return those of the parameters that every hospital keeps to itself."""
    parameters = study_parameters(study)
    return {name: parameters[name] for name in (architecture_of(study).personal if parameters else ())}


def shared_parameters(study: Study) -> Mapping[str, ArraySpec]:
    """Return those of the parameters that hospitals send in a round, and are sent."""
    personal = personal_parameters(study)
    return {name: spec for name, spec in study_parameters(study).items() if name not in personal}


def count_of(parameters: Mapping[str, ArraySpec]) -> int:
    """Return how many numbers such arrays hold."""
    return sum(math.prod(shape) for shape, _ in parameters.values())


def register(kind: type[Architecture], keys: Kind) -> None:
    """Add a kind of model, so that studies may name it.

    Raises:
        KindError: another one has its name, it lacks a part, or its keys have another name.
    """
    if kind.name != keys.name:
        raise KindError(
            f"model {kind.name!r} ({kind.__module__}.{kind.__qualname__}): expected keys of that name, "
            f"found those of {keys.name!r}; correct one of the two"
        )
    ARCHITECTURES.register(kind)
    MODELS.register(keys)
