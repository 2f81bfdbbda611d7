"""A model whose parameters are views of one flat vector, and the mean gradient of a batch, without autograd.

For a linear stack the gradient is a product of what came in and what came back at each layer, so two matrix products a
layer replace PyTorch's graph: about half the time of a plain step at these sizes. Models of other layers use autograd.

>>> from configs.schema import Model, Task
>>> from strategies.tasks.tabular import tabular_task
>>> model = FlatModel(tabular_task(Task("binary", "disease"), Model("logistic"), inputs=2))
>>> model.load({"0.weight": np.zeros((1, 2), np.float32), "0.bias": np.zeros(1, np.float32)})
>>> model.mean_gradient(torch.tensor([[2.0, 0.0]]), torch.tensor([1.0])).tolist()
[-1.0, 0.0, -0.5]
"""

import mmap
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from configs.wire import ArraySpec
from strategies.arrays import Arrays, copied

STEP_AT_ONCE = 1 << 20  # parameters: a step of a large model needs no second one
RELEASED_BYTES = 1 << 26  # a model of this size is not kept warm between two fits


class Trainable(Protocol):
    """What a model needs to be trained: TabularTask is one. Losses are of each row, never of the batch."""

    @property
    def parameters(self) -> Mapping[str, ArraySpec]:
        """Name -> (shape, dtype) of the model's parameters, in its order."""

    def build(self) -> nn.Module:
        """A model with arbitrary parameters."""

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Loss of each row: (rows, outputs), (rows,) -> (rows,)."""

    def residual(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Derivative of each row's loss with respect to its outputs; asked of linear stacks alone."""

    def residual_in_numpy(self, outputs: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same in NumPy; `outputs` may be overwritten."""


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
            step = np.empty(min(size, STEP_AT_ONCE), np.float32)
            self._on_host = self.flat.data.numpy(), self.gradient.numpy(), step
        self.is_linear_stack = _is_linear_stack(self.module)
        self._weights, self._biases = self.views[0::2], self.views[1::2]  # of a linear stack
        self._transposed = [weight.T for weight in self._weights] if self.is_linear_stack else []

    def restore_gradients(self) -> None:
        """Point the parameters' `grad` at the flat gradient again, after an engine put its own tensors there."""
        for parameter, view in zip(self.module.parameters(), self.gradient_views, strict=True):
            parameter.grad = view

    def load(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Copy named arrays in; they have been checked against `task.parameters`."""
        given = [arrays[name].reshape(-1) for name in self.names]
        if self.flat.is_cuda:
            self.flat.data.copy_(torch.from_numpy(np.concatenate(given)))
        else:
            np.concatenate(given, out=self.flat.data.numpy())

    def arrays(self) -> Arrays:
        """Copies of the parameters by name."""
        return {name: copied(view.cpu().numpy()) for name, view in zip(self.names, self.views, strict=True)}

    def take(self) -> Arrays:
        """`arrays`, after which a large model gives its memory back: whoever sends it away needs it no more."""
        _give_back(self._memory[1:])
        arrays = self.arrays()
        _give_back(self._memory[:1])
        return arrays

    def mean_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Gradient of the mean loss over rows: x (rows, inputs), y (rows,) -> `gradient`, overwritten."""
        if self.is_linear_stack:
            self._closed_form(x, y)
        else:
            self.gradient.zero_()
            self.task.loss(self.module(x), y).mean().backward()  # type: ignore[no-untyped-call]
        return self.gradient

    def descend(self, rate: float) -> None:
        """One step of plain gradient descent along `gradient`."""
        if self._on_host is None:
            self.flat.data.add_(self.gradient, alpha=-rate)
        else:  # a third of the time
            flat, gradient, step = self._on_host
            for start in range(0, len(flat), STEP_AT_ONCE):
                some = flat[start : start + STEP_AT_ONCE]
                part = step[: len(some)]
                np.multiply(gradient[start : start + STEP_AT_ONCE], np.float32(rate), out=part)
                np.subtract(some, part, out=some)

    def factors(self, x: Tensor, y: Tensor, divisor: int = 1) -> list[tuple[Tensor, Tensor]]:
        """Of each linear layer what it read, (rows, in), and the loss's derivative there over `divisor`, (rows, out).

        A row's gradient is the outer product of the two, and its bias's is the second. For linear stacks alone.
        """
        read = [x]
        for weight, bias in zip(self._transposed[:-1], self._biases[:-1], strict=True):
            read.append(torch.addmm(bias, read[-1], weight).relu_())
        outputs = torch.addmm(self._biases[-1], read[-1], self._transposed[-1])
        back = [self.task.residual(outputs, y)]
        if divisor != 1:
            back[0].div_(divisor)
        for weight, before in zip(self._weights[:0:-1], read[:0:-1], strict=True):
            back.append(torch.mm(back[-1], weight).mul_(before > 0))
        return list(zip(read, reversed(back), strict=True))

    def _closed_form(self, x: Tensor, y: Tensor) -> None:
        for i, (read, back) in enumerate(self.factors(x, y, len(x))):
            torch.mm(back.T, read, out=self.gradient_views[2 * i])
            torch.sum(back, 0, out=self.gradient_views[2 * i + 1])


def _memory(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _give_back(memory: Sequence[mmap.mmap]) -> None:
    """Let the kernel take these pages; on Linux they are zeros when they are touched again."""
    for pages in memory:
        pages.madvise(mmap.MADV_DONTNEED)


def _is_linear_stack(module: nn.Module) -> bool:
    """Linear layers with biases, one ReLU between two, nothing else, all trained."""
    if type(module) is not nn.Sequential or not all(p.requires_grad for p in module.parameters()):
        return False
    layers = list(module)
    linear, between = layers[0::2], layers[1::2]
    return (
        len(linear) == len(between) + 1
        and all(type(layer) is nn.Linear and layer.bias is not None for layer in linear)
        and all(type(layer) is nn.ReLU for layer in between)
    )
