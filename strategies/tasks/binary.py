"""The task type `binary`: an outcome of two words, the second being the event.

A model puts out the outcome's log odds.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.records.result import Bin
from strategies.exact.functions import logarithm, sigmoid
from strategies.tasks.base import Measure
from strategies.tasks.classification import AUPRC, BALANCED_ACCURACY, BRIER, Classification, calibration
from strategies.tasks.metrics import Floats

if TYPE_CHECKING:
    from torch import Tensor


class Binary(Classification):
    """Logistic loss: y is 1 with the outcome, else 0."""

    name = "binary"
    prediction = "the probability of"
    outcome = 1
    metrics = (*Classification.metrics, AUPRC)
    always = (AUPRC.name, BALANCED_ACCURACY.name, BRIER.name)
    measure = Measure("odds ratio", "the odds of {target}")
    largest_curvature = 0.25

    @property
    def beginning(self) -> tuple[float, ...]:
        """Return the log odds of the announced outcome share; 0 where none is announced."""
        share = 0.5 if self.task.outcome_share is None else self.task.outcome_share
        return (float(logarithm(np.array([share / (1.0 - share)]))[0]),)

    @property
    def residual_bound(self) -> tuple[float, float]:
        """Return 1 at any outputs."""
        return 1.0, 0.0

    def loss(self, outputs: "Tensor", y: "Tensor") -> "Tensor":
        """Return each row's cross entropy in nats."""
        from torch.nn import functional

        return functional.binary_cross_entropy_with_logits(outputs[:, 0], y, reduction="none")

    def residual(self, outputs: Floats, y: NDArray[np.float32]) -> Floats:
        """Return the probability of the outcome less y."""
        residual = sigmoid(outputs)
        residual -= y[..., None]
        return residual

    def curvature(self, outputs: Floats) -> Floats:
        """Return the variance of the outcome: p (1 - p), 1/4 at most."""
        probability = sigmoid(outputs[:, 0])
        return probability * (1.0 - probability)

    def bins(self, y: Floats, predicted: Floats) -> tuple[Bin, ...]:
        """Return the tenths of the outcome's predicted probability."""
        return calibration(y, predicted[:, 1])

    def predict(self, outputs: Floats) -> Floats:
        """Return the probabilities of both words."""
        positive = np.where(outputs < -709.0, 0.0, sigmoid(outputs))  # e^709 is the last power that float64 holds
        return np.concatenate([1.0 - positive, positive], axis=1)
