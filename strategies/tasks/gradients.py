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

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from strategies.arrays import Arrays
from strategies.tasks.tabular import TabularTask


class FlatModel:
    """One model, reused for every hospital and round of this process: load, train, read out.

    `flat` and `gradient` are (parameters,) float32; `module` reads and autograd writes through views of them.
    """

    def __init__(self, task: TabularTask) -> None:
        self.task = task
        self.module = task.build()
        self.names = list(task.parameters)
        parameters = list(self.module.parameters())
        size = sum(p.numel() for p in parameters)
        self.flat, self.gradient = nn.Parameter(torch.zeros(size)), torch.zeros(size)
        self.flat.grad = self.gradient
        self._views: list[Tensor] = []
        self._gradient_views: list[Tensor] = []
        start = 0
        for parameter in parameters:
            span = slice(start, start + parameter.numel())
            parameter.data = self.flat.data[span].view_as(parameter)
            parameter.grad = self.gradient[span].view_as(parameter)
            self._views.append(parameter.data)
            self._gradient_views.append(parameter.grad)
            start = span.stop
        self._numpy = self.flat.data.numpy()
        self._is_linear_stack = all(isinstance(layer, nn.Linear | nn.ReLU) for layer in self.module)

    def restore_gradients(self) -> None:
        """Point the parameters' `grad` at the flat gradient again, after an engine put its own tensors there."""
        for parameter, view in zip(self.module.parameters(), self._gradient_views, strict=True):
            parameter.grad = view

    def load(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Copy named arrays in; they have been checked against `task.parameters`."""
        np.concatenate([arrays[name].reshape(-1) for name in self.names], out=self._numpy)

    def arrays(self) -> Arrays:
        """Copies of the parameters by name."""
        return {name: view.numpy().copy() for name, view in zip(self.names, self._views, strict=True)}

    def mean_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Gradient of the mean loss over rows: x (rows, inputs), y (rows,) -> `gradient`, overwritten."""
        if self._is_linear_stack:
            self._closed_form(x, y)
        else:
            self.gradient.zero_()
            self.task.loss(self.module(x), y).mean().backward()  # type: ignore[no-untyped-call]
        return self.gradient

    @torch.no_grad()
    def _closed_form(self, x: Tensor, y: Tensor) -> None:
        weights, biases = self._views[0::2], self._views[1::2]
        inputs = [x]  # what each linear layer reads: (rows, its inputs)
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            inputs.append(torch.addmm(bias, inputs[-1], weight.T).relu_())
        outputs = torch.addmm(biases[-1], inputs[-1], weights[-1].T)
        back = self.task.residual(outputs, y).div_(len(x))  # (rows, outputs of the layer)
        for i in range(len(weights) - 1, -1, -1):
            torch.mm(back.T, inputs[i], out=self._gradient_views[2 * i])
            torch.sum(back, 0, out=self._gradient_views[2 * i + 1])
            if i:
                back = (back @ weights[i]).mul_(inputs[i] > 0)
