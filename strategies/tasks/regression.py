"""The task type `regression`: a number with a public range, scaled to [-1, 1].

A model puts out the scaled number.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from strategies.exact.functions import added
from strategies.tasks.base import Measure, Objective
from strategies.tasks.metrics import Floats, Metric, weighted_mean
from strategies.tasks.ranges import scaled, unscaled

if TYPE_CHECKING:
    from torch import Tensor


def mae(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Return the mean absolute error, in the target's unit."""
    return weighted_mean(np.abs(predicted[:, 0] - y), weights)


def r2(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Return the share of the target's variance that is explained."""
    mean = weighted_mean(y, weights)
    gaps, errors = y[None, :] - mean[:, None], predicted[:, 0] - y
    return np.asarray(1 - added(weights * (errors * errors)) / added(weights * (gaps * gaps)))


def _varies(y: Floats, _predicted: Floats, _patients: NDArray[np.int64]) -> bool:
    return len(np.unique(y)) > 1


MAE = Metric(
    "mae",
    "Mean absolute error",
    "how far a prediction is off on average",
    mae,
    is_bounded=False,
    lower_is_better=True,
    in_unit=True,
)
R2 = Metric("r2", "R²", "share of the target's variance explained; 1 is perfect", r2, is_defined=_varies)


class Regression(Objective):
    """Half the squared error of the scaled number."""

    name = "regression"
    metrics = (MAE, R2)
    prediction = "the value of"
    lowest = -1.0
    measure = Measure("mean difference", "the mean of {target}", is_ratio=False)
    guess_in_words = "the middle of the range for every patient"

    @property
    def residual_bound(self) -> tuple[float, float]:
        """Return 1, as y is in [-1, 1], and as much as the outputs."""
        return 1.0, 1.0

    def encode(self, targets: Mapping[str, Floats]) -> tuple[Floats, Mapping[str, int]]:
        """Return the number scaled to [-1, 1]; values outside the range are clipped, and counted."""
        y, count = scaled(targets[self.task.target], *self._range)
        return y, {self.task.target: count} if count else {}

    def loss(self, outputs: "Tensor", y: "Tensor") -> "Tensor":
        """Return half of each row's squared error."""
        return (outputs[:, 0] - y).square() / 2

    def residual(self, outputs: Floats, y: NDArray[np.float32]) -> Floats:
        """Return each row's error."""
        return outputs - y[..., None]

    def predict(self, outputs: Floats) -> Floats:
        """Return the number in its own unit."""
        return self.in_unit(outputs)

    def made_up(self, rows: int) -> NDArray[np.float32]:
        """Return the middle of the range for every row."""
        return np.zeros(rows, np.float32)

    def in_unit(self, y: NDArray[Any]) -> Floats:
        """Return scaled numbers in their own unit."""
        return unscaled(y, *self._range)

    def effect(self, moved: float) -> float:
        """Return the difference in the target's own unit."""
        low, high = self._range
        return moved * ((high - low) / 2)

    def guess(self, y: Floats) -> float | None:
        """Return the mean absolute error of predicting the middle of the range for everybody."""
        low, high = self._range
        return float(np.abs(y - (low + high) / 2).mean())

    @property
    def _range(self) -> tuple[float, float]:
        assert self.task.minimum is not None
        assert self.task.maximum is not None
        return self.task.minimum, self.task.maximum
