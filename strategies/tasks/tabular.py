"""A study's outcome and its model together: what is trained.

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
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs import schema
from configs.schema import Model, Study
from configs.wire import ArraySpec
from strategies.models.base import Architecture, Arrays, LinearLayers, require_as_declared
from strategies.models.registry import architecture
from strategies.tasks.base import Objective
from strategies.tasks.registry import objective

if TYPE_CHECKING:  # whoever fits has PyTorch; a coordinator knows tasks too, and begins every run without it
    from torch import Tensor, nn


@dataclass(frozen=True)
class TabularTask:
    """One outcome and one model for it."""

    objective: Objective
    model: Model
    inputs: int

    @property
    def outputs(self) -> int:
        """Return how many numbers the model puts out for a row."""
        return self.objective.outputs

    @cached_property
    def architecture(self) -> Architecture:
        """Return the model."""
        return architecture(self.model, self.inputs, self.outputs)

    @property
    def parameters(self) -> Mapping[str, ArraySpec]:
        """Return name -> (shape, dtype) of what crosses the wire, in the model's order."""
        return self.architecture.parameters

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
        """Return the loss of each row: (rows, outputs), (rows,) -> (rows,)."""
        return self.objective.loss(outputs, y)

    def residual(self, outputs: "Tensor", y: "Tensor") -> "Tensor":
        """Return the derivative of each row's loss with respect to its outputs: (rows, outputs)."""
        return self.objective.residual(outputs, y)

    def exact_residual(self, outputs: NDArray[np.float64], y: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return `residual` with the same bits on every processor, for any leading axes; y: (..., rows)."""
        return self.objective.exact_residual(outputs, y)

    def predict(self, arrays: Mapping[str, NDArray[np.float32]], x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return what the model predicts, as the objective has it, with the same bits on every processor."""
        return self.objective.predict(self.architecture.evaluate(arrays, x))


def tabular_task(task: schema.Task, model: Model, inputs: int) -> TabularTask:
    """Return the task for a model of the registry's names."""
    return TabularTask(objective(task), model, inputs)


def task_of(study: Study) -> TabularTask:
    """Return the task that a study describes."""
    return tabular_task(study.task, study.model, len(study.inputs))
