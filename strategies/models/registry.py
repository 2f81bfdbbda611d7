"""The kinds of model that there are, by the name that a study's `model.name` uses.

>>> ARCHITECTURES.names
('logistic', 'linear', 'mlp')
"""

from typing import Any

from configs.kinds import Registry
from strategies.models.base import PARTS, Architecture
from strategies.models.linear_stack import MLP, Linear, Logistic

ARCHITECTURES: Registry[type[Architecture]] = Registry("model", PARTS, [Logistic, Linear, MLP])


def architecture(section: Any, inputs: int, outputs: int) -> Architecture:
    """Return the model of a study's section `model`.

    Raises:
        KindError: nothing of that name is registered.
    """
    return ARCHITECTURES[section.name](section, inputs, outputs)
