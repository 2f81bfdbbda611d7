"""The model `conv1d`: three convolutions over time with GroupNorm, for series such as vital signs.

Each has twice the channels of the one before and reads every second point; the mean over time goes through a linear
layer.

>>> from configs.schema.networks import Conv1d as Keys
>>> model = Conv1d(Keys("conv1d", width=8), 0, 1, (3, 100))
>>> [shape for name, (shape, _) in model.parameters.items() if name.endswith("0.weight")][:2]
[(8, 3, 7)]
"""

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from configs.schema import networks
from configs.wire import ArraySpec
from strategies.models.base import Architecture
from strategies.models.layers import Specs, convolution, linear, norm

if TYPE_CHECKING:
    from torch import Tensor, nn

_KERNELS = (7, 5, 5)


class Conv1d(Architecture):
    """Convolutions over time; x is (rows, channels, length)."""

    name = "conv1d"
    engine = "book-keeping"
    section: networks.Conv1d

    @property
    def _widths(self) -> tuple[int, ...]:
        assert self.input_shape is not None
        return (self.input_shape[0], *(self.section.width * 2**level for level in range(len(_KERNELS))))

    @property
    def parameters(self) -> Mapping[str, ArraySpec]:
        """Return the convolutions with their norms, and the last layer."""
        specs: Specs = {}
        for i, ((into, out), kernel) in enumerate(zip(itertools.pairwise(self._widths), _KERNELS, strict=True)):
            specs |= convolution(f"body.{3 * i}", out, into, (kernel,), bias=False) | norm(f"body.{3 * i + 1}", out)
        return specs | linear("out", self.outputs, self._widths[-1])

    def build(self) -> "nn.Module":
        """Return the network, for series of any length."""
        return _network(self._widths, self.outputs)


def _network(widths: tuple[int, ...], outputs: int) -> "nn.Module":
    from torch import nn  # only a process that trains or predicts has it

    class OverTime(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers: list[nn.Module] = []
            for (into, out), kernel in zip(itertools.pairwise(widths), _KERNELS, strict=True):
                layers.append(nn.Conv1d(into, out, kernel, stride=2, padding=kernel // 2, bias=False))
                layers += [nn.GroupNorm(4, out), nn.ReLU()]
            self.body, self.out = nn.Sequential(*layers), nn.Linear(widths[-1], outputs)

        def forward(self, x: "Tensor") -> "Tensor":
            outputs: Tensor = self.out(self.body(x).mean(2))
            return outputs

    return OverTime()
