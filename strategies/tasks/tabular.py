"""Tabular tasks: binary, multiclass, regression. Each knows its model's outputs, its loss and its predictions.

A linear stack (linear layers with ReLU between them) covers every tabular model; its gradient has a closed form that
starts from `residual`, the loss's derivative with respect to the model's outputs.

>>> from configs.schema import Model, Task
>>> task = tabular_task(Task("binary", "disease"), Model("logistic"), inputs=3)
>>> [(name, spec) for name, spec in task.parameters.items()]
[('0.weight', ((1, 3), 'float32')), ('0.bias', ((1,), 'float32'))]
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from configs import schema
from configs.schema import Model, Study
from configs.wire import ArraySpec
from strategies.exact.functions import sigmoid, softmax
from strategies.exact.layers import Layers
from strategies.tasks.shapes import outputs_of, parameters_of

if TYPE_CHECKING:  # whoever fits has PyTorch; a coordinator knows tasks too, and begins every run without it
    from torch import Tensor, nn

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class TabularTask:
    """One task and one model. `outputs` is 1, or the number of classes."""

    task: schema.Task
    model: Model
    inputs: int
    outputs: int

    def build(self) -> "nn.Sequential":
        """A model with arbitrary parameters: whoever builds one copies its parameters in."""
        from torch import nn

        sizes = [self.inputs, *self.model.hidden, self.outputs]
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(itertools.pairwise(sizes)):
            layers += ([nn.ReLU()] if i else []) + [nn.Linear(before, after)]
        return nn.Sequential(*layers)

    @property
    def parameters(self) -> Mapping[str, ArraySpec]:
        """Name -> (shape, dtype) of what crosses the wire, in the model's order."""
        return parameters_of(self.model, self.inputs, self.outputs)

    def initial(self, seed: int) -> Arrays:
        """The shared starting point: zeros, or PyTorch's default initialisation under `seed`."""
        if self.model.init == "zeros":
            return {name: np.zeros(shape, np.float32) for name, (shape, _) in self.parameters.items()}
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return {name: p.detach().numpy().copy() for name, p in self.build().named_parameters()}

    def loss(self, outputs: "Tensor", y: "Tensor") -> "Tensor":
        """Loss of each row: (rows, outputs), (rows,) -> (rows,)."""
        from torch.nn import functional

        if self.task.type == "binary":
            return functional.binary_cross_entropy_with_logits(outputs[:, 0], y, reduction="none")
        if self.task.type == "multiclass":
            return functional.cross_entropy(outputs, y.long(), reduction="none")
        return (outputs[:, 0] - y).square() / 2

    def residual(self, outputs: "Tensor", y: "Tensor") -> "Tensor":
        """Derivative of each row's loss with respect to its outputs: (rows, outputs)."""
        from torch.nn import functional

        if self.task.type == "binary":
            return outputs.sigmoid().sub_(y[:, None])
        if self.task.type == "multiclass":
            return outputs.softmax(1).sub_(functional.one_hot(y.long(), self.outputs))
        return outputs - y[:, None]

    def exact_residual(self, outputs: NDArray[np.float64], y: NDArray[np.float32]) -> NDArray[np.float64]:
        """`residual` with the same bits on every processor, for any leading axes; y: (..., rows)."""
        if self.task.type == "binary":
            found = sigmoid(outputs)
            found -= y[..., None]
            return found
        if self.task.type == "multiclass":
            found = softmax(outputs)
            found -= y[..., None] == np.arange(self.outputs, dtype=np.float32)
            return found
        return outputs - y[..., None]

    def predict(self, arrays: Mapping[str, NDArray[np.float32]], x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities (rows, classes), or the target in its own unit (rows, 1); the same bits on every processor."""
        shapes = tuple((spec[0][0], spec[0][1]) for spec in list(self.parameters.values())[0::2])
        layers = Layers(shapes)
        layers.load(np.concatenate([arrays[name].reshape(-1) for name in self.parameters]))
        outputs = layers.outputs(x)
        if self.task.type == "binary":
            positive = np.where(outputs < -709.0, 0.0, sigmoid(outputs))  # e^709 is the last power that float64 holds
            return np.concatenate([1.0 - positive, positive], axis=1)
        if self.task.type == "multiclass":
            return softmax(outputs)
        return self.in_unit(outputs)

    def in_unit(self, y: NDArray[Any]) -> NDArray[np.float64]:
        """A regression target scaled to [-1, 1], back in its own unit; classes stay as they are."""
        if self.task.type != "regression":
            return np.asarray(y, np.float64)
        assert self.task.minimum is not None
        assert self.task.maximum is not None
        return np.asarray(
            self.task.minimum + (np.asarray(y, np.float64) + 1) / 2 * (self.task.maximum - self.task.minimum)
        )


def tabular_task(task: schema.Task, model: Model, inputs: int) -> TabularTask:
    """The task for a model of the registry's names."""
    return TabularTask(task, model, inputs, len(task.classes) if task.type == "multiclass" else 1)


def task_of(study: Study) -> TabularTask:
    """The task that a study describes."""
    return TabularTask(study.task, study.model, len(study.inputs), outputs_of(study))
