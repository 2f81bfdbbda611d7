"""The model `unet`: a small U-Net for images of two or three axes, with outputs for every place.

Two convolutions a level, each with GroupNorm; down by the largest of 2 x 2 (x 2) places, up by the nearest place, and
beside it what the level had on the way down (Ronneberger et al. 2015, arXiv 1505.04597). At width 8 and depth 3 it has
0.12 million numbers for images, 0.37 million for volumes.

A lone volume on one thread falls out of PyTorch's quick convolutions (oneDNN), which ask for two rows. So the upper
and the lower half of its slices go through a convolution as two rows, each with its neighbour's slice beside it: the
same products, at a third of the time.

>>> import math
>>> from configs.schema.networks import UNet as Keys
>>> model = UNet(Keys("unet"), 0, 1, (1, 48, 48, 48))
>>> sum(math.prod(shape) for shape, _ in model.parameters.values())
365537
"""

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from configs.schema import networks
from configs.wire import ArraySpec
from strategies.models.base import Architecture
from strategies.models.layers import Specs, convolution, norm

if TYPE_CHECKING:
    from torch import Tensor, nn

_GROUPS = 4
_VOLUMES = 3  # axes


class UNet(Architecture):
    """A U-Net; x is (rows, channels, sides...), its outputs are (rows, outputs, sides...)."""

    name = "unet"
    engine = "alone"
    section: networks.UNet

    @property
    def _axes(self) -> int:
        assert self.input_shape is not None
        return len(self.input_shape) - 1

    @property
    def _widths(self) -> list[int]:
        return [self.section.width * 2**level for level in range(self.section.depth + 1)]

    @property
    def parameters(self) -> Mapping[str, ArraySpec]:
        """Return the levels on the way down, those on the way up, and the last layer."""
        assert self.input_shape is not None
        widths = self._widths
        specs: Specs = {}
        for level, (into, out) in enumerate(itertools.pairwise([self.input_shape[0], *widths])):
            specs |= _level(f"down.{level}", into, out, self._axes)
        for level, (out, deeper) in enumerate(itertools.pairwise(widths)):
            specs |= _level(f"up.{level}", out + deeper, out, self._axes)
        return specs | convolution("out", self.outputs, widths[0], (1,) * self._axes)

    def build(self) -> "nn.Module":
        """Return the network, for sides of any length of at least 2 to the power of the depth."""
        assert self.input_shape is not None
        return _network(self._axes, [self.input_shape[0], *self._widths], self.outputs)


def _level(name: str, into: int, out: int, axes: int) -> Specs:
    kernel = (3,) * axes
    first = convolution(f"{name}.0", out, into, kernel, bias=False) | norm(f"{name}.1", out)
    return first | convolution(f"{name}.3", out, out, kernel, bias=False) | norm(f"{name}.4", out)


def _network(axes: int, widths: list[int], outputs: int) -> "nn.Module":
    import torch  # only a process that trains or predicts has it
    from torch import nn
    from torch.nn import functional

    class ByHalves(nn.Conv3d):
        """A convolution of 3 x 3 x 3 places with padding, which takes a lone volume by halves."""

        def forward(self, x: "Tensor") -> "Tensor":
            slices = x.shape[2]
            if len(x) != 1 or slices == 1:
                return super().forward(x)
            padded, half = functional.pad(x, (0, 0, 0, 0, 1, 1)), -(-slices // 2)
            halves = torch.cat([padded[:, :, : half + 2], padded[:, :, slices - half :]])
            both = functional.conv3d(halves, self.weight, self.bias, padding=(0, 1, 1))
            return torch.cat([both[:1], both[1:, :, 2 * half - slices :]], 2)

    convolve: type[nn.Conv2d | nn.Conv3d] = ByHalves if axes == _VOLUMES else nn.Conv2d
    place = nn.Conv3d if axes == _VOLUMES else nn.Conv2d
    halve = functional.max_pool3d if axes == _VOLUMES else functional.max_pool2d

    def level(into: int, out: int) -> nn.Sequential:
        return nn.Sequential(
            *(convolve(into, out, 3, padding=1, bias=False), nn.GroupNorm(_GROUPS, out), nn.ReLU()),
            *(convolve(out, out, 3, padding=1, bias=False), nn.GroupNorm(_GROUPS, out), nn.ReLU()),
        )

    class Shaped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.ModuleList(level(into, out) for into, out in itertools.pairwise(widths))
            self.up = nn.ModuleList(level(out + deeper, out) for out, deeper in itertools.pairwise(widths[1:]))
            self.out = place(widths[1], outputs, 1)

        def forward(self, x: "Tensor") -> "Tensor":
            skips: list[Tensor] = []
            for down in self.down:
                x = down(halve(x, 2) if skips else x)
                skips.append(x)
            for skip, up in zip(skips[-2::-1], reversed(self.up), strict=True):
                x = up(torch.cat([skip, functional.interpolate(x, size=skip.shape[2:])], 1))
            outputs: Tensor = self.out(x)
            return outputs

    return Shaped()
