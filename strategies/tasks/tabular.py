"""Tabular tasks: binary, multiclass, regression. Each knows its model's outputs, its loss and its predictions.

A linear stack (linear layers with ReLU between them) covers every tabular model; its gradient has a closed form that
starts from `residual`, the loss's derivative with respect to the model's outputs.

>>> from configs.schema import Model, Task
>>> task = tabular_task(Task("binary", "disease"), Model("logistic"), inputs=3)
>>> [(name, spec) for name, spec in task.parameters.items()]
[('0.weight', ((1, 3), 'float32')), ('0.bias', ((1,), 'float32'))]
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from configs import schema
from configs.schema import Model, Study
from configs.wire import ArraySpec
from strategies.exact.functions import sigmoid, softmax
from strategies.models.base import Architecture, Arrays, LinearLayers, require_as_declared
from strategies.models.registry import architecture
from strategies.tasks.shapes import outputs_of

if TYPE_CHECKING:  # whoever fits has PyTorch; a coordinator knows tasks too, and begins every run without it
    from torch import Tensor, nn


@dataclass(frozen=True)
class TabularTask:
    """One task and one model. `outputs` is 1, or the number of classes."""

    task: schema.Task
    model: Model
    inputs: int
    outputs: int

    @cached_property
    def architecture(self) -> Architecture:
        """Return the model."""
        return architecture(self.model, self.inputs, self.outputs)

    @property
    def parameters(self) -> Mapping[str, ArraySpec]:
        """Return name -> (shape, dtype) of what crosses the wire, in the model's order."""
        return {} if self.model.name == "none" else self.architecture.parameters

    @property
    def engine(self) -> str:
        """Return the name of the model's engine of private gradients."""
        return self.architecture.engine

    @property
    def linear_layers(self) -> LinearLayers | None:
        """Return each layer's (out, in) of a linear stack; None of any other model."""
        return self.architecture.linear_layers

    def build(self) -> "nn.Module":
        """Return a module with arbitrary parameters: the caller copies its parameters in."""
        module = self.architecture.build()
        require_as_declared(self.parameters, module)
        return module

    def initial(self, seed: int) -> Arrays:
        """Return the shared starting point."""
        return self.architecture.initial(seed)

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
        outputs = self.architecture.evaluate(arrays, x)
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
