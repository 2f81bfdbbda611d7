"""A toy task type whose outcome is two columns: how long a patient was followed, and whether the event ended it.

The public range of time is cut into equal intervals. A model puts out each interval's log odds of the event for those
who reached it (Gensheimer and Narasimhan 2019, "A scalable discrete-time survival model for neural networks"), so one
row says all of one patient. Its headline is Harrell's concordance index. Not part of the product.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from configs.keys.declare import REQUIRED, declaration_of, key
from configs.keys.values import COLUMN
from configs.schema.task import Feature, Task, TaskKeys
from strategies.exact.functions import sigmoid
from strategies.tasks.base import Objective
from strategies.tasks.metrics import Floats, Metric
from strategies.tasks.registry import register

if TYPE_CHECKING:
    from torch import Tensor

INTERVALS = 4


@dataclass(frozen=True, slots=True)
class FollowUp(Task):
    """The section `task`: the target is the time, with its public range."""

    event: str = key(COLUMN, init="", about="the column that says 1 where the event ended the time, else 0")

    @property
    def columns(self) -> tuple[Feature, ...]:
        """Return the time and the event."""
        time = Feature(self.target, "number", self.minimum, self.maximum, (), self.unit)
        return time, Feature(self.event, "category", values=("0", "1"))


def harrells_c(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Return how often, of two patients whose order is known, the one with the earlier event has the higher risk."""
    (time, event), risk = y.T, predicted[:, 0]
    known = (time[:, None] < time) & (event[:, None] == 1)  # (rows, rows): row i's event comes before j
    right = known * ((risk[:, None] > risk) + (risk[:, None] == risk) / 2)
    return np.asarray(((weights @ right) * weights).sum(axis=1) / ((weights @ known) * weights).sum(axis=1))


def _has_known_pairs(y: Floats, _predicted: Floats, _patients: NDArray[np.int64]) -> bool:
    return bool(((y[:, None, 0] < y[:, 0]) & (y[:, None, 1] == 1)).any())


class TimeToEvent(Objective):
    """Discrete hazards: y is the interval in which a patient was last seen, and whether the event came then."""

    name = "time_to_event"
    prediction = "the risk by"
    metrics = (
        Metric(
            "concordance",
            "Concordance index",
            "how often the patient with the earlier event has the higher risk; 0.5 is chance, 1 is perfect",
            harrells_c,
            chance=0.5,
            is_defined=_has_known_pairs,
            needs="no two test patients whose order is known",
        ),
    )

    @property
    def outputs(self) -> int:
        """Return the number of intervals."""
        return INTERVALS

    @property
    def residual_bound(self) -> tuple[float, float]:
        """Return the root of the outputs: each one's residual is at most 1."""
        return math.sqrt(INTERVALS), 0.0

    def encode(self, targets: Mapping[str, Floats]) -> tuple[Floats, Mapping[str, int]]:
        """Return (rows, 2): interval and event; times outside the range are clipped, and counted."""
        time, event = (targets[column.name] for column in self.columns)
        assert isinstance(self.task.minimum, float)
        assert isinstance(self.task.maximum, float)
        place = (time - self.task.minimum) / (self.task.maximum - self.task.minimum)
        beyond = int(((place < 0) | (place > 1)).sum())
        interval = np.clip(np.floor(place * INTERVALS), 0, INTERVALS - 1)
        return np.stack([interval, event], axis=1), {self.task.target: beyond} if beyond else {}

    def loss(self, outputs: "Tensor", y: "Tensor") -> "Tensor":
        """Return minus each row's log likelihood, in nats."""
        import torch
        from torch.nn import functional

        number = torch.arange(INTERVALS, device=y.device)
        ends = ((number == y[:, :1]) & (y[:, 1:] == 1)).to(outputs.dtype)
        entropies = functional.binary_cross_entropy_with_logits(outputs, ends, reduction="none")
        return (entropies * (number <= y[:, :1])).sum(dim=1)

    def residual(self, outputs: Floats, y: NDArray[np.float32]) -> Floats:
        """Return each reached interval's hazard, less 1 where the event came."""
        number, interval, event = np.arange(INTERVALS), y[..., :1], y[..., 1:]
        result: Floats = (sigmoid(outputs) - ((number == interval) & (event == 1))) * (number <= interval)
        return result

    def predict(self, outputs: Floats) -> Floats:
        """Return the probability of the event within the range: (rows, 1)."""
        survival = (1.0 - sigmoid(np.maximum(outputs, -709.0))).prod(axis=1, keepdims=True)
        result: Floats = 1.0 - survival
        return result

    def made_up(self, rows: int) -> NDArray[np.float32]:
        """Return patients whose event comes in each interval in turn."""
        return np.stack([np.arange(rows) % INTERVALS, np.ones(rows)], axis=1).astype(np.float32)

    def in_unit(self, y: NDArray[Any]) -> Floats:
        """Return intervals and events as they are."""
        return np.asarray(y, np.float64)


TIME_TO_EVENT_KEYS = TaskKeys(
    "time_to_event",
    declaration_of(FollowUp)
    .without("bins")
    .but(
        refused={"classes": "expected none for a time, found {found}; leave it out"},
        range={"default": REQUIRED},
    ),
    ("concordance",),
)


def install() -> None:
    """Let studies name it."""
    register(TimeToEvent, TIME_TO_EVENT_KEYS)
