"""The base of binary and multiclass outcomes: words, probabilities and common metrics.

AUROC is the probability that a patient with the outcome scores above one without, ties counting half. It is
undefined, never a number, where a group has fewer than two patients of either outcome: one patient's rank is no rate.

>>> y, p = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.35, 0.8])
>>> float(auroc(y, np.stack([1 - p, p], 1), np.ones((1, 4)))[0])
0.75
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from configs.records.result import Bin
from strategies.exact.functions import logarithm
from strategies.tasks.base import Objective
from strategies.tasks.metrics import MIN_PER_CLASS, Floats, Metric, weighted_mean


def auroc(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Return the area under the ROC curve; for several classes the mean over classes of one against the rest."""
    if predicted.shape[1] == 2:
        return area(predicted[:, 1], weights * (y == 1), weights * (y != 1))
    classes = range(predicted.shape[1])
    per_class = [area(predicted[:, c], weights * (y == c), weights * (y != c)) for c in classes]
    return np.asarray(np.mean(per_class, axis=0))


def area(score: Floats, positive: Floats, negative: Floats) -> Floats:
    """Return the area under the ROC curve of rows that count as positive and negative by weights, (resamples, rows)."""
    order = np.argsort(score, kind="stable")
    ties = np.flatnonzero(np.concatenate([[True], np.diff(score[order]) > 0]))  # where each group of equals starts
    up = np.add.reduceat(positive[:, order], ties, axis=1)  # (resamples, groups)
    down = np.add.reduceat(negative[:, order], ties, axis=1)
    below = np.cumsum(down, axis=1) - down
    return np.asarray((up * (below + down / 2)).sum(axis=1) / (up.sum(axis=1) * down.sum(axis=1)))


def average_precision(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Return the area under the precision-recall curve: precision averaged over the steps of recall, ties together.

    Davis and Goadrich 2006 say why its points are not joined by lines.
    """
    positive, score = y == 1, predicted[:, 1]
    order = np.argsort(-score, kind="stable")
    ties = np.flatnonzero(np.concatenate([[True], np.diff(score[order]) < 0]))
    sorted_weights = weights[:, order]
    up = np.add.reduceat(sorted_weights * positive[order], ties, axis=1)  # (resamples, groups)
    called = np.cumsum(np.add.reduceat(sorted_weights, ties, axis=1), axis=1)
    precision = np.divide(np.cumsum(up, axis=1), called, out=np.zeros_like(up), where=called > 0)
    return np.asarray((up * precision).sum(axis=1) / up.sum(axis=1))


def _has_patients_of_each_class(y: Floats, predicted: Floats, patients: NDArray[np.int64]) -> bool:
    return all(len(np.unique(patients[y == c])) >= MIN_PER_CLASS for c in range(predicted.shape[1]))


def accuracy(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Return the share of rows with the right most probable class (of two classes: probability above one half)."""
    return weighted_mean((predicted.argmax(axis=1) == y).astype(np.float64), weights)


def balanced_accuracy(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Return the mean over classes of the share of their rows that are classified rightly."""
    right = (predicted.argmax(axis=1) == y).astype(np.float64)
    classes = [c for c in range(predicted.shape[1]) if (y == c).any()]
    return np.asarray(np.mean([weighted_mean(right[y == c], weights[:, y == c]) for c in classes], axis=0))


def brier(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Return the mean squared error of the probabilities: of the outcome for two classes, summed over more."""
    truth = np.eye(predicted.shape[1])[y.astype(int)]
    errors = ((predicted - truth) ** 2).sum(axis=1)
    return weighted_mean(errors / 2 if predicted.shape[1] == 2 else errors, weights)


def log_loss(y: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Return the mean of minus the log of the truth's probability, in nats; probabilities from 1e-15."""
    probability = np.clip(predicted[np.arange(len(y)), y.astype(int)], 1e-15, 1.0)
    return weighted_mean(-logarithm(probability), weights)


AUROC = Metric(
    "auroc",
    "AUROC",
    "how often a patient with the outcome gets the higher score; 0.5 is chance, 1 is perfect",
    auroc,
    chance=0.5,
    is_defined=_has_patients_of_each_class,
    needs="fewer than two test patients of one outcome",
)
ACCURACY = Metric("accuracy", "Accuracy", "share of patients classified rightly", accuracy)
BALANCED_ACCURACY = Metric(
    "balanced_accuracy", "Balanced accuracy", "the same, each outcome counting half", balanced_accuracy
)
BRIER = Metric("brier", "Brier score", "squared error of the probabilities; 0 is perfect", brier, lower_is_better=True)
AUPRC = Metric(
    "auprc",
    "AUPRC",
    "precision averaged over the recalls; the outcome's share is chance, 1 is perfect",
    average_precision,
    is_defined=_has_patients_of_each_class,
    needs=AUROC.needs,
)
LOG_LOSS = Metric(
    "log_loss", "Log loss", "penalty for confident mistakes, in nats; 0 is perfect", log_loss, lower_is_better=True
)


class Classification(Objective):
    """An outcome that is one of several words. `y` is a word's position in the task's classes."""

    metrics: ClassVar[tuple[Metric, ...]] = (AUROC, ACCURACY, BALANCED_ACCURACY, BRIER, LOG_LOSS)
    tuned_by = LOG_LOSS.name  # AUROC does not see a model that calls everybody ill

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        return max(2, len(self.task.classes))

    @property
    def predicted(self) -> tuple[str, ...]:
        """Return each class's probability."""
        return tuple(f"probability of {self.task.target} = {word}" for word in self.task.classes)

    def encode(self, targets: Mapping[str, Floats]) -> tuple[Floats, Mapping[str, int]]:
        """Return the positions as they are."""
        return targets[self.task.target], {}

    def made_up(self, rows: int) -> NDArray[np.float32]:
        """Return every class in turn."""
        return (np.arange(rows) % self.classes).astype(np.float32)


def calibration(y: Floats, probability: Floats, bins: int = 10) -> tuple[Bin, ...]:
    """Return, for each tenth of predicted probability, the mean prediction, the observed share, and the count.

    Args:
        y: (rows,) 1 with the outcome, else 0. probability: (rows,) of the outcome.
    """
    bin_of = np.minimum((probability * bins).astype(int), bins - 1)
    return tuple(
        Bin(
            low=b / bins,
            high=(b + 1) / bins,
            predicted=float(probability[bin_of == b].mean()),
            observed=float(y[bin_of == b].mean()),
            count=int((bin_of == b).sum()),
        )
        for b in range(bins)
        if (bin_of == b).any()
    )
