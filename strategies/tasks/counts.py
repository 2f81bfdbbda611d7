"""The task type `counts`: how often something happened, in the time or number that `exposure` says (Poisson).

A model puts out the log of the expected count at the largest exposure of the public range; a row's own exposure is an
offset. Expected counts are at most the range's end: beyond, the loss goes on in a straight line, so that a row's
residual, expected less counted, is at most the range's end in size, and a patient's gradient is bounded by it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from configs.schema import Counts as CountsTask
from strategies.exact.functions import added, exponential, logarithm
from strategies.tasks.base import Measure, Objective
from strategies.tasks.metrics import Floats, Metric, weighted_mean

if TYPE_CHECKING:
    from torch import Tensor


def _deviances(count: Floats, expected: Floats) -> Floats:
    logs = logarithm(np.where(count > 0, count, 1.0)) - logarithm(np.maximum(expected, 1e-12))
    return np.asarray(2 * (np.where(count > 0, count * logs, 0.0) - (count - expected)))


def deviance(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Return the mean Poisson deviance; y: (rows, 2), counts and exposures as parts of the largest."""
    return weighted_mean(_deviances(y[:, 0], predicted[:, 0] * y[:, 1]), weights)


def d2(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Return the share of the deviance that is explained, against one rate for all."""
    rates = added(weights * y[:, 0]) / added(weights * y[:, 1])
    same = np.stack(
        [added(row * _deviances(y[:, 0], rate * y[:, 1])) for row, rate in zip(weights, rates, strict=True)]
    )
    return np.asarray(1 - added(weights * _deviances(y[:, 0], predicted[:, 0] * y[:, 1])) / same)


def count_error(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Return the mean absolute error of the expected counts."""
    return weighted_mean(np.abs(predicted[:, 0] * y[:, 1] - y[:, 0]), weights)


def _is_counted(y: Floats, _predicted: Floats, _patients: NDArray[np.int64]) -> bool:
    return bool(y[:, 0].any())


DEVIANCE = Metric(
    "deviance",
    "Poisson deviance",
    "how badly expected counts fit, twice the log likelihood lost; 0 is perfect",
    deviance,
    is_bounded=False,
    lower_is_better=True,
)
D2 = Metric(
    "d2",
    "D²",
    "share of the deviance explained; 1 is perfect",
    d2,
    is_defined=_is_counted,
    needs="no test patient with a count above 0",
)
COUNT_ERROR = Metric(
    "count_error",
    "Mean absolute error",
    "how far an expected count is off on average",
    count_error,
    is_bounded=False,
    lower_is_better=True,
    in_unit=True,
)


class Counts(Objective):
    """Poisson loss. An encoded outcome is (rows, 2): the count, and the log of the exposure's part of the largest."""

    name = "counts"
    measure = Measure("rate ratio", "the rate of {target}")
    prediction = "the expected number of"
    metrics = (DEVIANCE, D2, COUNT_ERROR)
    guess_in_words = "one rate for every patient"
    task: CountsTask

    @property
    def residual_bound(self) -> tuple[float, float]:
        """Return the largest count at any outputs: neither it nor what is expected is larger."""
        return self._most, 0.0

    @property
    def remark(self) -> str:
        """Return the bound of counts."""
        return f"counts above {self._most:g} are taken as {self._most:g}, and none larger is expected"

    def encode(self, targets: Mapping[str, Floats]) -> tuple[Floats, Mapping[str, int]]:
        """Return counts and log exposures, clipped to their ranges, which is counted."""
        count = targets[self.task.target]
        clipped = {self.task.target: int((count > self._most).sum())}
        exposure = np.ones(len(count))
        if self.task.exposure is not None:
            low, high = self.task.least_exposure, self.task.most_exposure
            assert low is not None
            assert high is not None
            given = targets[self.task.exposure]
            clipped[self.task.exposure] = int(((given < low) | (given > high)).sum())
            exposure = np.clip(given, low, high) / high
        y = np.stack([np.minimum(count, self._most), logarithm(exposure)], axis=1)
        return y, {name: rows for name, rows in clipped.items() if rows}

    def unsound(self, targets: Mapping[str, Floats]) -> Mapping[str, NDArray[np.bool_]]:
        """Return counts below 0 or between two whole numbers, and exposures of 0 and less."""
        count = targets[self.task.target]
        flaws = {self.task.target: (count < 0) | (count != np.floor(count))}
        if self.task.exposure is not None:
            flaws[self.task.exposure] = targets[self.task.exposure] <= 0
        return flaws

    def loss(self, outputs: "Tensor", y: "Tensor") -> "Tensor":
        """Return minus each row's log likelihood in nats, but for what does not depend on the model."""
        eta, cap = outputs[:, 0], self._cap
        below = eta.clamp(max=cap)
        return (below + y[:, 1]).exp() * (1 + eta - below) - y[:, 0] * eta

    def residual(self, outputs: Floats, y: NDArray[np.float32]) -> Floats:
        """Return the expected count less the count."""
        log_exposure, count = y[..., 1:].astype(np.float64), y[..., :1]
        residual: Floats = exponential(np.minimum(outputs, self._cap) + log_exposure) - count
        return residual

    def predict(self, outputs: Floats) -> Floats:
        """Return the expected count at the largest exposure: (rows, 1)."""
        return exponential(np.minimum(outputs, self._cap))

    def made_up(self, rows: int) -> NDArray[np.float32]:
        """Return no event and one event in turn, at the largest exposure."""
        return np.stack([np.arange(rows) % 2, np.zeros(rows)], axis=1).astype(np.float32)

    def in_unit(self, y: NDArray[Any]) -> Floats:
        """Return counts, and exposures as parts of the largest: (rows, 2)."""
        count, log_exposure = np.asarray(y, np.float64).T
        return np.stack([count, exponential(log_exposure)], axis=1)

    def guess(self, y: Floats) -> float | None:
        """Return the deviance of one rate for all rows."""
        if not y[:, 0].any():
            return None
        rate = y[:, 0].sum() / y[:, 1].sum()
        return float(_deviances(y[:, 0], rate * y[:, 1]).mean())

    @property
    def _most(self) -> float:
        assert self.task.maximum is not None
        return self.task.maximum

    @property
    def _cap(self) -> float:
        return float(logarithm(np.array([self._most]))[0])
