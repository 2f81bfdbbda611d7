"""The model `gru`: a gated recurrent unit over time, for series such as vital signs.

The mean of its states goes through a linear layer (Cho et al. 2014, arXiv 1406.1078).

>>> from configs.schema.networks import GRU as Keys
>>> GRU(Keys("gru", width=8), 0, 1, (3, 100)).parameters["layer.weight_ih_l0"]
((24, 3), 'float32')
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from configs.schema import networks
from configs.wire import ArraySpec
from strategies.models.base import Architecture
from strategies.models.layers import linear, vector

if TYPE_CHECKING:
    from torch import Tensor, nn

_GATES = 3


class GRU(Architecture):
    """A recurrent unit; x is (rows, channels, length)."""

    name = "gru"
    engine = "alone"  # no gradient of a recurrent layer can be told apart by row
    section: networks.GRU

    @property
    def parameters(self) -> Mapping[str, ArraySpec]:
        """Return the unit's weights and biases, gate by gate, and the last layer."""
        assert self.input_shape is not None
        width, channels = self.section.width, self.input_shape[0]
        return {
            "layer.weight_ih_l0": ((_GATES * width, channels), "float32"),
            "layer.weight_hh_l0": ((_GATES * width, width), "float32"),
            **vector("layer.bias_ih_l0", _GATES * width),
            **vector("layer.bias_hh_l0", _GATES * width),
            **linear("out", self.outputs, width),
        }

    def build(self) -> "nn.Module":
        """Return the network, for series of any length."""
        assert self.input_shape is not None
        return _network(self.input_shape[0], self.section.width, self.outputs)


def _network(channels: int, width: int, outputs: int) -> "nn.Module":
    from torch import nn  # only a process that trains or predicts has it

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.out = nn.GRU(channels, width, batch_first=True), nn.Linear(width, outputs)

        def forward(self, x: "Tensor") -> "Tensor":
            states, _ = self.layer(x.transpose(1, 2))
            outputs: Tensor = self.out(states.mean(1))
            return outputs

    return Recurrent()
