"""The task type `multiclass`: an outcome of three words or more.

A model puts out a score for each.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from strategies.exact.functions import softmax
from strategies.tasks.classification import Classification
from strategies.tasks.metrics import Floats

if TYPE_CHECKING:
    from torch import Tensor


class Multiclass(Classification):
    """Softmax and cross entropy: y is the position of the row's class."""

    name = "multiclass"
    prediction = "the probability of each class of"
    largest_curvature = 0.25  # it is .5 only where two classes alone are probable

    @property
    def outputs(self) -> int:
        """Return the number of classes."""
        return len(self.task.classes)

    @property
    def residual_bound(self) -> tuple[float, float]:
        """Return the root of 2 at any outputs."""
        return math.sqrt(2.0), 0.0

    def loss(self, outputs: "Tensor", y: "Tensor") -> "Tensor":
        """Return each row's cross entropy in nats."""
        from torch.nn import functional

        return functional.cross_entropy(outputs, y.long(), reduction="none")

    def residual(self, outputs: Floats, y: NDArray[np.float32]) -> Floats:
        """Return each class's probability, less 1 for the row's own."""
        residual = softmax(outputs)
        residual -= y[..., None] == np.arange(self.outputs, dtype=np.float32)
        return residual

    def predict(self, outputs: Floats) -> Floats:
        """Return the probability of each class."""
        return softmax(outputs)
