"""A model with parameters that are views of one flat vector, and the mean gradient of a batch.

For a linear stack on the processor the gradient is a product of what came in and what came back at each layer, in exact
arithmetic (strategies/exact/layers.py): the same bits on every processor. Models of other layers use autograd.

>>> from configs.schema import Model, Task
>>> from strategies.learning import learning
>>> model = FlatModel(learning(Task("binary", "disease"), Model("logistic"), inputs=2))
>>> model.load({"0.weight": np.zeros((1, 2), np.float32), "0.bias": np.zeros(1, np.float32)})
>>> model.mean_gradient(torch.tensor([[2.0, 0.0]]), torch.tensor([1.0])).tolist()
[-1.0, 0.0, -0.5]
"""

import mmap
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from configs.wire import ArraySpec
from strategies.exact.layers import Layers, MeanGradient, in_order
from strategies.exchange.arrays import Arrays, copied
from strategies.models.base import LinearLayers

RELEASED_BYTES = 1 << 26  # a model of this size is not kept warm between two fits


class Trainable(Protocol):
    """The interface of a trainable model: `Learning` is one. Losses are of each row, never of the batch."""

    @property
    def parameters(self) -> Mapping[str, ArraySpec]:
        """Return name -> (shape, dtype) of the model's parameters, in its order."""

    @property
    def engine(self) -> str:
        """Return the name of the model's engine of private gradients."""

    @property
    def linear_layers(self) -> LinearLayers | None:
        """Return each layer's (out, in) of a linear stack; None of any other model."""

    def build(self) -> nn.Module:
        """Return a module with arbitrary parameters."""

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the loss of each row: (rows, outputs), (rows,) -> (rows,)."""

    def residual(self, outputs: NDArray[np.float64], y: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the derivative of each row's loss with respect to its outputs, the same bits on every processor.

        Asked of linear stacks alone, for any leading axes; y: (..., rows).
        """


class FlatModel:
    """One model, reused for every hospital and round of this process: load, train, read out.

    `flat` and `gradient` are (parameters,) float32; `module` reads and autograd writes through views of them.
    """

    def __init__(self, task: Trainable, device: str = "cpu") -> None:
        self.task = task
        self.module = task.build().to(device)
        self.names = list(task.parameters)
        parameters = list(self.module.parameters())
        size = sum(p.numel() for p in parameters)
        kind = torch.get_default_dtype()
        large = kind.itemsize * size >= RELEASED_BYTES and device == "cpu"
        self._memory = [_memory(kind.itemsize * size) for _ in range(2)] if large else []
        flat, self.gradient = (
            [torch.frombuffer(memory, dtype=kind) for memory in self._memory]
            if large
            else [torch.zeros(size, device=device), torch.zeros(size, device=device)]
        )
        self.flat = nn.Parameter(flat)
        self.flat.grad = self.gradient
        self.views: list[Tensor] = []
        self.gradient_views: list[Tensor] = []
        start = 0
        for parameter in parameters:
            span = slice(start, start + parameter.numel())
            parameter.data = self.flat.data[span].view_as(parameter)
            parameter.grad = self.gradient[span].view_as(parameter)
            self.views.append(parameter.data)
            self.gradient_views.append(parameter.grad)
            start = span.stop
        self._on_host = None
        if self.flat.device.type == "cpu":
            self._on_host = self.flat.data.numpy(), self.gradient.numpy()

    @cached_property
    def layers(self) -> Layers:
        """Return a linear stack's layers for exact products on the processor; `load` them at each step."""
        assert self.task.linear_layers is not None
        return Layers(self.task.linear_layers)

    @cached_property
    def _mean(self) -> MeanGradient:
        return MeanGradient(self.layers)

    @cached_property
    def _ordered(self) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        assert self._on_host is not None
        return list(in_order(self._on_host[1], self.layers))

    def restore_gradients(self) -> None:
        """Point the parameters' `grad` at the flat gradient again, after an engine put its own tensors there."""
        for parameter, view in zip(self.module.parameters(), self.gradient_views, strict=True):
            parameter.grad = view

    def put_back(self, values: Tensor) -> bool:
        """Let the parameters be `values` again, (parameters,), in their own place; return whether they were not.

        A module may rewrite its parameters while it reads rows, as `nn.Embedding(max_norm=1)` does.
        """
        moved = False
        for parameter, view in zip(self.module.parameters(), self.views, strict=True):
            if parameter.data_ptr() != view.data_ptr():
                parameter.data, moved = view, True
        if not torch.equal(self.flat.data, values):
            self.flat.data.copy_(values)
            moved = True
        return moved

    def load(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Copy named arrays in; they have been checked against `task.parameters`."""
        vectors = [arrays[name].reshape(-1) for name in self.names]
        if self.flat.is_cuda:
            self.flat.data.copy_(torch.from_numpy(np.concatenate(vectors)))
        else:
            np.concatenate(vectors, out=self.flat.data.numpy())

    def arrays(self) -> Arrays:
        """Return copies of the parameters by name."""
        return {name: copied(view.cpu().numpy()) for name, view in zip(self.names, self.views, strict=True)}

    def take(self) -> Arrays:
        """Return `arrays` and give a large model's memory back, as the caller sends them away."""
        _give_back(self._memory[1:])
        arrays = self.arrays()
        _give_back(self._memory[:1])
        return arrays

    def mean_gradient(self, x: Tensor, y: Tensor, count: int | None = None) -> Tensor:
        """Write the gradient of the mean loss to `gradient`: x (rows, inputs), y (rows,).

        Args:
            count: what the sum over rows is divided by: the rows, unless given.
        """
        count = len(x) if count is None else count
        if self.task.linear_layers is not None and self._on_host is not None:
            self._write_exact(x.numpy(), y.numpy(), count)
        else:
            self.gradient.zero_()
            mean = self.task.loss(self.module(x), y).mean()
            (mean if count == len(x) else mean * (len(x) / count)).backward()  # type: ignore[no-untyped-call]
        return self.gradient

    def _write_exact(self, x: NDArray[np.float32], y: NDArray[np.float32], count: int) -> None:
        assert self._on_host is not None
        flat, _ = self._on_host
        self.layers.load(flat)
        self._mean.write(x, lambda some: lambda outputs: self.task.residual(outputs, y[some]), count, self._ordered)


def _memory(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _give_back(memory: Sequence[mmap.mmap]) -> None:
    """Let the kernel take these pages; on Linux they are zeros when they are touched again."""
    for pages in memory:
        pages.madvise(mmap.MADV_DONTNEED)
