"""The model `resnet`: a small residual network with GroupNorm, for images of two axes.

A strided stem, four levels of one residual block each (He et al. 2016, arXiv 1512.03385) of 1, 2, 4 and 8 times the
width, the mean over all places, and a linear layer: 0.3 million numbers at width 16. GroupNorm (Wu and He 2018,
arXiv 1803.08494) in 8 groups, or 4 where the width asks for that: no statistic of a batch.

>>> from configs.schema.networks import ResNet as Keys
>>> model = ResNet(Keys("resnet"), 0, 1, (1, 128, 128))
>>> sum(math.prod(shape) for shape, _ in model.parameters.values())
307377
"""

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from configs.schema import networks
from configs.wire import ArraySpec
from strategies.models.base import Architecture
from strategies.models.layers import Specs, convolution, linear, norm

if TYPE_CHECKING:
    from torch import Tensor, nn

_KERNEL = (3, 3)
_SMALL = 96 * 96  # places: below, book-keeping wins (simulations/benchmarks/alone.py)


class ResNet(Architecture):
    """Residual blocks; x is (rows, channels, height, width)."""

    name = "resnet"
    section: networks.ResNet

    @property
    def engine(self) -> str:  # type: ignore[override]
        """Return book-keeping for small images, of which a single one is not worth the calls; else `alone`."""
        assert self.input_shape is not None
        return "book-keeping" if math.prod(self.input_shape[1:]) < _SMALL else "alone"

    @property
    def _widths(self) -> tuple[int, ...]:
        return tuple(self.section.width * 2**level for level in (0, 0, 1, 2, 3))  # of the stem, then of each block

    @property
    def parameters(self) -> Mapping[str, ArraySpec]:
        """Return the stem, the blocks, and the last layer."""
        assert self.input_shape is not None
        widths = self._widths
        specs = convolution("stem.0", widths[0], self.input_shape[0], _KERNEL, bias=False) | norm("stem.1", widths[0])
        for i, (into, out) in enumerate(itertools.pairwise(widths)):
            specs |= _block(f"blocks.{i}", into, out)
        return specs | linear("out", self.outputs, widths[-1])

    def build(self) -> "nn.Module":
        """Return the network; strides halve the sides at the stem and at each block but the first."""
        assert self.input_shape is not None
        return _network(self.input_shape[0], self._widths, self.outputs)


def _block(name: str, into: int, out: int) -> Specs:
    specs = convolution(f"{name}.body.0", out, into, _KERNEL, bias=False) | norm(f"{name}.body.1", out)
    specs |= convolution(f"{name}.body.3", out, out, _KERNEL, bias=False) | norm(f"{name}.body.4", out)
    if into != out:
        specs |= convolution(f"{name}.cut.0", out, into, (1, 1), bias=False) | norm(f"{name}.cut.1", out)
    return specs


def _network(channels: int, widths: tuple[int, ...], outputs: int) -> "nn.Module":
    from torch import nn  # only a process that trains or predicts has it
    from torch.nn import functional

    def normed(into: int, out: int, kernel: int, stride: int) -> list[nn.Module]:
        groups = 8 if out % 8 == 0 else 4
        return [nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False), nn.GroupNorm(groups, out)]

    class Block(nn.Module):
        def __init__(self, into: int, out: int) -> None:
            super().__init__()
            stride = 1 if into == out else 2
            self.body = nn.Sequential(*normed(into, out, 3, stride), nn.ReLU(), *normed(out, out, 3, 1))
            self.cut = nn.Sequential(*(normed(into, out, 1, stride) if into != out else []))

        def forward(self, x: "Tensor") -> "Tensor":
            return functional.relu(self.body(x) + self.cut(x))

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(*normed(channels, widths[0], 3, 2), nn.ReLU())
            self.blocks = nn.Sequential(*(Block(into, out) for into, out in itertools.pairwise(widths)))
            self.out = nn.Linear(widths[-1], outputs)

        def forward(self, x: "Tensor") -> "Tensor":
            outputs: Tensor = self.out(self.blocks(self.stem(x)).mean((2, 3)))
            return outputs

    return Residual()
