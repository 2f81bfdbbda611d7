"""What a study trains: its outcome and its model together.

>>> from configs.schema import Model, Task
>>> task = learning(Task("binary", "disease"), Model("logistic"), inputs=3)
>>> [(name, spec) for name, spec in task.parameters.items()]
[('0.weight', ((1, 3), 'float32')), ('0.bias', ((1,), 'float32'))]
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.schema import Model, Study, Task
from configs.wire import ArraySpec
from strategies.data.base import TrainablePatients
from strategies.models.base import Architecture, Arrays, LinearLayers, require_as_declared
from strategies.models.registry import architecture, architecture_of
from strategies.tasks.base import Objective
from strategies.tasks.registry import objective, objective_of
from strategies.tasks.scores import with_shares

if TYPE_CHECKING:  # a process that fits has PyTorch; a coordinator knows tasks too, and begins every run without it
    from torch import Tensor, nn


@dataclass(frozen=True)
class Learning:
    """One outcome and one model for it, with the model's outputs as the outcome asks."""

    objective: Objective
    architecture: Architecture

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
        """Return a module with arbitrary parameters: the caller copies its parameters in.

        Raises:
            KindError: the module does not have the parameters that its architecture declares.
        """
        module = self.architecture.build()
        require_as_declared(self.parameters, module)
        return module

    def initial(self, seed: int) -> Arrays:
        """Return the shared starting point."""
        return self.architecture.beginning_at(self.objective.beginning, self.architecture.initial(seed))

    def loss(self, outputs: "Tensor", y: "Tensor") -> "Tensor":
        """Return the loss of each row: (rows, outputs), (rows,) -> (rows,)."""
        return self.objective.loss(outputs, y)

    def residual(self, outputs: NDArray[np.float64], y: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return each row's derivative of the loss by its outputs, for any leading axes; y: (..., rows)."""
        return self.objective.residual(outputs, y)

    def predict(self, arrays: Mapping[str, NDArray[np.float32]], x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return what the model predicts of rows, as the objective has it."""
        return self.objective.predict(self.architecture.evaluate(arrays, x))

    def predictions(
        self, arrays: Mapping[str, NDArray[np.float32]], patients: TrainablePatients
    ) -> NDArray[np.float64]:
        """Return what the model predicts of these patients: as many rows as their `outcomes`.

        Of a task with a score it is each row's patient's score, with its share (strategies/tasks/scores.py).
        """
        if self.objective.has_score:
            return with_shares(self.scores(arrays, patients), patients.owners)
        if (outputs := self.architecture.outputs_of(arrays, patients)) is not None:
            return self.objective.predict(outputs)
        return np.concatenate([self.predict(arrays, x) for x in patients.judged()])

    def scores(self, arrays: Mapping[str, NDArray[np.float32]], patients: TrainablePatients) -> NDArray[np.float64]:
        """Return each patient's score from 0 to 1, (patients,), of a task that has one; 0 where it is no number."""
        if (own := self.architecture.scores(arrays, patients)) is not None:
            return own
        scores = np.zeros(patients.count)
        for i in range(patients.count):  # one at a time: a patient's maps may be large
            x, y = patients.take(patients.rows_of(np.array([i])))
            scores[i] = self.objective.score(self.architecture.evaluate(arrays, x), y)
        return np.clip(np.nan_to_num(scores, nan=0.0), 0.0, 1.0)


def learning(task: Task, model: Model, inputs: int, input_shape: tuple[int, ...] | None = None) -> Learning:
    """Return what is trained for a task by a model of the registry's names.

    Args:
        inputs: of the features; the task may add some.
        input_shape: (channels, sides...) of a record that the model reads in the place of a row.

    Raises:
        KindError: nothing of such a name is registered.
    """
    outcome = objective(task)
    inputs += len(outcome.added_inputs)
    return Learning(outcome, architecture(model, inputs, outcome.outputs, input_shape))


def inputs_of(study: Study) -> tuple[str, ...]:
    """Return the names of all inputs of a study's model: those of its features, then those that its outcome adds."""
    return study.inputs + objective_of(study).added_inputs


def learning_of(study: Study) -> Learning:
    """Return what a study trains.

    Raises:
        KindError: it trains nothing, or nothing of such a name is registered.
    """
    return Learning(objective_of(study), architecture_of(study))
