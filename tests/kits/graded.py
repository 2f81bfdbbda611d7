"""A toy task type: an outcome of ordered grades, such as none, mild, severe. Not part of the product.

A model puts out the log odds of "worse than grade k" for each grade but the last: as many binary outcomes, whose losses
are summed (Frank and Hall 2001, "A simple approach to ordinal classification"). Its headline is the concordance index:
how often, of two patients of different grades, the one of the worse grade is expected to be worse.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.keys.declare import REQUIRED, declaration_of
from configs.keys.values import Words
from configs.schema.task import Task, TaskKeys
from strategies.exact.functions import sigmoid
from strategies.tasks.base import Objective
from strategies.tasks.metrics import MIN_PER_CLASS, Floats, Metric, weighted_mean
from strategies.tasks.registry import register

if TYPE_CHECKING:
    from torch import Tensor


def expected_grade(predicted: Floats) -> Floats:
    """Return the mean grade of probabilities (rows, grades): (rows,)."""
    return predicted @ np.arange(predicted.shape[1], dtype=np.float64)


def concordance(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Return the share of pairs of different grades that the expected grade orders rightly; ties count half."""
    score, grades = expected_grade(predicted), predicted.shape[1]
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(score[order]) > 0]))
    held = [np.add.reduceat((weights * (y == k))[:, order], starts, axis=1) for k in range(grades)]  # (resamples, ties)
    right, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for worse in range(1, grades):
        for better in range(worse):
            below = np.cumsum(held[better], axis=1) - held[better] / 2
            right += (held[worse] * below).sum(axis=1)
            pairs += held[worse].sum(axis=1) * held[better].sum(axis=1)
    return np.asarray(right / pairs)


def grade_error(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Return the mean distance, in grades, of the most probable grade from the true one."""
    return weighted_mean(np.abs(predicted.argmax(axis=1) - y), weights)


def _has_two_grades(y: Floats, _predicted: Floats, patients: NDArray[np.int64]) -> bool:
    return sum(len(np.unique(patients[y == k])) >= MIN_PER_CLASS for k in np.unique(y)) > 1


class Graded(Objective):
    """Ordered grades: y is the position of the row's grade in the task's classes."""

    name = "graded"
    prediction = "the grade of"
    metrics = (
        Metric(
            "concordance",
            "Concordance index",
            "how often the patient of the worse grade is expected to be worse; 0.5 is chance, 1 is perfect",
            concordance,
            chance=0.5,
            is_defined=_has_two_grades,
            needs="fewer than two test patients of two grades",
        ),
        Metric(
            "grade_error",
            "Grade error",
            "distance of the predicted grade from the true one, in grades",
            grade_error,
            is_bounded=False,
            lower_is_better=True,
        ),
    )

    @property
    def outputs(self) -> int:
        """Return the number of grades but one."""
        return len(self.task.classes) - 1

    @property
    def residual_bound(self) -> tuple[float, float]:
        """Return the root of the outputs: each one's residual is at most 1."""
        return math.sqrt(self.outputs), 0.0

    def encode(self, targets: Mapping[str, Floats]) -> tuple[Floats, Mapping[str, int]]:
        """Return the positions as they are."""
        return targets[self.task.target], {}

    def loss(self, outputs: "Tensor", y: "Tensor") -> "Tensor":
        """Return each row's sum of cross entropies, in nats."""
        import torch
        from torch.nn import functional

        is_worse = (y[:, None] > torch.arange(self.outputs, device=y.device)).to(outputs.dtype)
        return functional.binary_cross_entropy_with_logits(outputs, is_worse, reduction="none").sum(dim=1)

    def residual(self, outputs: Floats, y: NDArray[np.float32]) -> Floats:
        """Return the probability of each "worse than grade k", less 1 where it is so."""
        return sigmoid(outputs) - (y[..., None] > np.arange(self.outputs, dtype=np.float32))

    def predict(self, outputs: Floats) -> Floats:
        """Return the probability of each grade; chances of a worse grade never rise with the grade."""
        worse = np.minimum.accumulate(sigmoid(np.maximum(outputs, -709.0)), axis=1)  # exp(709) is finite
        ends = np.ones((len(worse), 1)), np.zeros((len(worse), 1))
        return -np.diff(np.concatenate([ends[0], worse, ends[1]], axis=1), axis=1)

    def made_up(self, rows: int) -> NDArray[np.float32]:
        """Return every grade in turn."""
        return (np.arange(rows) % len(self.task.classes)).astype(np.float32)


GRADED_KEYS = TaskKeys(
    "graded",
    declaration_of(Task)
    .without("bins")
    .but(
        refused={"range": "expected none for grades, found {found}; leave it out"},
        classes={
            "value": Words("a list of the target's values", 3, None, "three grades or more", "list them in order"),
            "default": REQUIRED,
        },
    ),
    tuple(metric.name for metric in Graded.metrics),
)


def install() -> None:
    """Let studies name it."""
    register(Graded, GRADED_KEYS)
