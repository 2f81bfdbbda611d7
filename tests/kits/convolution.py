"""A toy model: a small convolution over the columns of a table, then a linear layer. Not part of the product."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from configs.keys.declare import key
from configs.keys.one_of import Kind
from configs.keys.values import Integer
from configs.wire import ArraySpec
from strategies.models.base import Architecture
from strategies.models.registry import register

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class ConvolutionKeys:
    """The section `model` of a convolution."""

    name: str
    channels: int = key(Integer(1, 64), default=4, about="channels of the convolution")
    width: int = key(Integer(1, 9), default=2, about="neighbouring columns that it reads at once")


class Convolution(Architecture):
    """Conv1d with a ReLU, then a linear layer over all positions; book-keeping makes it private."""

    name = "convolution"
    section: ConvolutionKeys

    @property
    def _positions(self) -> int:
        return self.inputs - self.section.width + 1

    @property
    def parameters(self) -> Mapping[str, ArraySpec]:
        """Return the convolution's weight and bias, then the linear layer's."""
        channels = self.section.channels
        return {
            "1.weight": ((channels, 1, self.section.width), "float32"),
            "1.bias": ((channels,), "float32"),
            "4.weight": ((self.outputs, channels * self._positions), "float32"),
            "4.bias": ((self.outputs,), "float32"),
        }

    def build(self) -> "nn.Sequential":
        """Return the layers in sequence: a row becomes one channel of its columns."""
        from torch import nn

        channels = self.section.channels
        return nn.Sequential(
            *(nn.Unflatten(1, (1, self.inputs)), nn.Conv1d(1, channels, self.section.width), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(channels * self._positions, self.outputs)),
        )


CONVOLUTION_KEYS = Kind("convolution", ConvolutionKeys)


def install() -> None:
    """Let studies name it."""
    register(Convolution, CONVOLUTION_KEYS)
