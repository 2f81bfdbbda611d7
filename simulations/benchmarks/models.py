"""Models for the benchmarks and for tests of the private engines; no study can name them.

A convolutional network for 28x28 images, a ResNet18 with GroupNorm for 64x64 ones, a small Transformer over tokens, and
`Network`, which lets a FlatModel train any of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from configs.wire import ArraySpec
from strategies.models.base import LinearLayers
from strategies.models.flat_model import FlatModel

CLASSES = 10


@dataclass(frozen=True)
class Network:
    """A classifier as FlatModel trains one; `make` builds it under the same seed each time."""

    make: Callable[[], nn.Module]
    engine: str = "book-keeping"
    linear_layers: LinearLayers | None = None

    def build(self) -> nn.Module:
        """Return the model with its default initialisation."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.make()

    @cached_property
    def parameters(self) -> Mapping[str, ArraySpec]:
        """Name -> (shape, dtype)."""
        return {name: (tuple(p.shape), "float32") for name, p in self.build().named_parameters()}

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the cross-entropy of each row."""
        return functional.cross_entropy(outputs, y, reduction="none")

    def residual(self, outputs: NDArray[np.float64], y: NDArray[np.float32]) -> NDArray[np.float64]:
        """Raise, as only linear stacks are asked for it."""
        raise NotImplementedError

    def flat_model(self, device: str = "cpu") -> FlatModel:
        """Return the model with its parameters in one vector."""
        model = FlatModel(self, device)
        model.load({name: p.detach().numpy() for name, p in self.build().named_parameters()})
        return model


def cnn() -> nn.Module:
    """Return a model of two convolutions and two linear layers, for (rows, 1, 28, 28)."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 8, stride=2, padding=3), nn.ReLU(), nn.MaxPool2d(2, stride=1)),
        *(nn.Conv2d(16, 32, 4, stride=2), nn.ReLU(), nn.MaxPool2d(2, stride=1)),
        *(nn.Flatten(), nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, CLASSES)),
    )


class Residual(nn.Module):
    """Two 3x3 convolutions beside a short cut, with GroupNorm."""

    def __init__(self, before: int, after: int, stride: int, groups: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.GroupNorm(groups, after), nn.ReLU()),
            *(nn.Conv2d(after, after, 3, padding=1, bias=False), nn.GroupNorm(groups, after)),
        )
        self.cut = nn.Sequential()
        if stride != 1 or before != after:
            self.cut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.GroupNorm(groups, after))

    def forward(self, x: Tensor) -> Tensor:
        """Return the output: (rows, before, height, width) -> (rows, after, height / stride, width / stride)."""
        return functional.relu(self.body(x) + self.cut(x))


def resnet18() -> nn.Module:
    """Return a ResNet18 for (rows, 3, 64, 64)."""
    widths = [(64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)]
    blocks, before = [], 64
    for after, stride in widths:
        blocks.append(Residual(before, after, stride))
        before = after
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.GroupNorm(16, 64), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)),
        *(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES)),
    )


class Attention(nn.Module):
    """Self-attention with linear projections."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the same shape, (rows, tokens, width)."""
        q, k, v = (
            f(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value)
        )  # (rows, heads, tokens, width / heads)
        weights = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(3)
        outputs: Tensor = self.out((weights @ v).transpose(1, 2).flatten(2))
        return outputs


class Block(nn.Module):
    """Attention and a two-layer network, each after a LayerNorm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.first, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.second = nn.LayerNorm(width)
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the same shape, (rows, tokens, width)."""
        x = x + self.attention(self.first(x))
        outputs: Tensor = x + self.network(self.second(x))
        return outputs


class Transformer(nn.Module):
    """Tokens (rows, tokens) -> classes, by the mean over tokens."""

    def __init__(self, words: int = 1000, width: int = 128, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs: (rows, tokens) -> (rows, classes)."""
        outputs: Tensor = self.out(self.norm(self.blocks(self.words(x))).mean(1))
        return outputs
