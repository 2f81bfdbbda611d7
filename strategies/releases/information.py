"""The score and the information of a logistic model, summed over patients with a bound on each patient's part.

A row z (the inputs about their public centre, and a 1 for the intercept) with outcome y and probability p adds
z (p - y) to the score and z z' p (1 - p) to the information. Both are one vector here: the score, then the
information's upper triangle, off the diagonal times sqrt 2, so that the vector's norm is the matrix's (Frobenius).

How long can one patient's vector be? With r = |p - y|, p (1 - p) is r (1 - r) whatever the outcome, and |z| is at most
a public L. Let the information be divided by L and multiplied by k. Then the squared norm is at most

    L^2 r^2 (1 + k^2 (1 - r)^2),

which is no more than L^2 for any r in [0, 1] as long as k^2 <= (1 + r) / (r^2 (1 - r)). The right side is least where
r^2 + r = 1: there it is phi^5, phi being the golden ratio. So with k = phi^2.5 the information costs nothing beside
the score: a patient's information is small where the score is long.

A patient of a study of hazards has a row for each interval at risk, with hazards h and an event in the last of them or
in none: the residuals are h, less 1 where the event is. Let s be the sum of the hazards, the events that are expected
of that patient. Then the squared norm is at most about

    L^2 ((1 - s)^2 + k^2 s^2) with an event, and L^2 s^2 (1 + k^2) without,

both no more than L^2 as long as s <= S, for k^2 = min((2 - S) / S, 1 / S^2 - 1). S is public: it follows from the
announced share of patients with an event. Who is beyond it is cut to the length L, as everybody is. Early, middle and
late intervals share one intercept each, and keep the differences that the final model has between them: columns and
intervals say little of each other, while an intercept for every interval would be drowned first.

The centre is public: the point that is nearest to the farthest row that the study's ranges and values allow. A category
of two values counts 1/4 in L^2 in the place of 1. Coefficients, but for the intercept's, do not depend on it.

>>> Frame(np.zeros(2), 1.5).dimension, round(SHARE**2, 3)
(3, 11.09)
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from configs.schema import Feature, Study
from strategies.data.base import TrainablePatients
from strategies.data.curve import largest_square
from strategies.data.table import centres
from strategies.learning import Learning
from strategies.releases.base import Arrays
from strategies.tasks.registry import objective_of

Floats = NDArray[np.float64]
SHARE: float = ((1.0 + math.sqrt(5.0)) / 2.0) ** 2.5  # k
GROUPS = 3  # of intervals with one intercept each
_AT_ONCE = 1 << 22  # numbers of patients' vectors that are held together
_BELOW = 1.0 - 1e-12  # of the bound: what a float's norm may be off by


@dataclass(frozen=True)
class Frame:
    """The public frame of a study's rows.

    centre: (inputs,) of the features; length: the most that |z| can be, its 1 included; expected: the most events that
    the rows of one patient are expected to have, None where a patient is a row. intercepts: (intervals,) the position
    of each interval's intercept; empty where there are none.
    """

    centre: Floats
    length: float
    expected: float | None = None
    intercepts: tuple[int, ...] = ()

    @property
    def ones(self) -> int:
        """Return the number of intercepts, the last of the coefficients: each row has a 1 at one of them."""
        return max(self.intercepts, default=0) + 1

    @property
    def dimension(self) -> int:
        """Return the number of coefficients."""
        return len(self.centre) + self.ones

    def rows(self, x: NDArray[np.floating]) -> Floats:
        """Return z of rows as a model reads them: (rows, dimension)."""
        width = len(self.centre)
        if not self.intercepts:
            return np.concatenate([x - self.centre, np.ones((len(x), 1))], axis=1)
        return np.concatenate(
            [x[:, :width] - self.centre, x[:, width:] @ np.eye(self.ones)[list(self.intercepts)]], axis=1
        )

    @property
    def size(self) -> int:
        """Return the numbers of a vector: a score, and the upper triangle of the information."""
        return self.dimension * (self.dimension + 3) // 2

    @property
    def share(self) -> float:
        """Return k."""
        return SHARE if self.expected is None else share_of(self.expected)

    @property
    def scale(self) -> float:
        """Return what the information is multiplied by in a vector."""
        return self.share / self.length

    @property
    def most_informative(self) -> float:
        """Return the most that one patient's curvature adds up to."""
        return 0.25 if self.expected is None else self.expected

    @cached_property
    def triangle(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return rows and columns of the upper triangle."""
        rows, columns = np.triu_indices(self.dimension)
        return rows.astype(np.int64), columns.astype(np.int64)

    @cached_property
    def weights(self) -> Floats:
        """Return what each entry of the triangle is multiplied by: `scale`, off the diagonal times sqrt 2."""
        rows, columns = self.triangle
        return np.where(rows == columns, 1.0, math.sqrt(2.0)) * self.scale

    def apart(self, vector: NDArray[np.floating]) -> tuple[Floats, Floats]:
        """Return the score, (dimension,), and the information, (dimension, dimension), of a vector."""
        numbers = np.asarray(vector, np.float64)
        information = np.zeros((self.dimension, self.dimension))
        rows, columns = self.triangle
        information[rows, columns] = information[columns, rows] = numbers[self.dimension :] / self.weights
        return numbers[: self.dimension], information


def frame_of(study: Study) -> Frame:
    """Return the frame of a study whose columns are scaled by their public ranges."""
    blocks = [_block(feature) for feature in study.predictors]
    centre = np.array([middle for middles, _ in blocks for middle in middles])
    if study.scaling == "centred":  # the rows are about a centre already
        centre -= [middle for feature in study.predictors for middle in centres(feature)]
    length, objective = math.sqrt(1.0 + sum(square for _, square in blocks)), objective_of(study)
    intervals = len(objective.added_inputs)
    groups = min(GROUPS, intervals)
    return Frame(centre, length, objective.most_expected, tuple(i * groups // intervals for i in range(intervals)))


def share_of(expected: float) -> float:
    """Return k where a patient's rows are expected to have so many events at most, above 0 and below 1."""
    return min(SHARE, math.sqrt(min((2.0 - expected) / expected, 1.0 / expected**2 - 1.0)))


def _block(feature: Feature) -> tuple[list[float], float]:
    """Return the centre of a column's inputs, and the square of the largest distance from it.

    A number is from -1 to 1, its bends beside it; where it is unknown these are 0 and another input 1. A category is
    one of the unit vectors or the origin: their centre is 1/2 of one, and the mean of several.
    """
    inputs = len(feature.inputs)
    if feature.type == "number":
        return [0.0] * inputs, largest_square(feature)
    return ([0.5], 0.25) if inputs == 1 else ([1.0 / inputs] * inputs, 1.0 - 1.0 / inputs)


def summed(patients: TrainablePatients, learning: Learning, model: Arrays, frame: Frame) -> Floats:
    """Return the sum of all patients' vectors, (frame.size,), none longer than `frame.length`.

    The vectors of a patient's rows are added up first. A patient with a number that is not finite adds nothing.
    """
    total = np.zeros(frame.size)
    with np.errstate(over="ignore", invalid="ignore"):
        for vectors in _vectors(patients, learning, model, frame):
            norms = np.sqrt(np.square(vectors).sum(axis=1))
            shares = np.minimum(1.0, frame.length * _BELOW / np.maximum(norms, 1e-300))
            finite = np.isfinite(norms)
            total += shares[finite] @ vectors[finite]
    return total


def _vectors(patients: TrainablePatients, learning: Learning, model: Arrays, frame: Frame) -> Iterator[Floats]:
    """Yield (patients, frame.size) of some patients at a time; one with more rows than fit together comes alone."""
    rows_at_once = max(1, _AT_ONCE // frame.size)
    first = 0
    while first < patients.count:
        end = max(first + 1, int(np.searchsorted(patients.starts, patients.starts[first] + rows_at_once, "right")) - 1)
        starts = patients.starts[first : end + 1]
        if starts[-1] - starts[0] > rows_at_once:
            yield _of_one(patients, starts, learning, model, frame)
        else:
            x, y = patients.take(np.arange(starts[0], starts[-1]))
            yield np.add.reduceat(_of_rows(x, y, learning, model, frame), starts[:-1] - starts[0], axis=0)
        first = end


def _of_one(
    patients: TrainablePatients, ends: NDArray[np.int64], learning: Learning, model: Arrays, frame: Frame
) -> Floats:
    """Return (1, frame.size) of a patient with the rows from the first of `ends` to the last, however many they are."""
    score, information = np.zeros(frame.dimension), np.zeros((frame.dimension, frame.dimension))
    rows_at_once = max(1, _AT_ONCE // frame.dimension)
    for start in range(int(ends[0]), int(ends[-1]), rows_at_once):
        x, y = patients.take(np.arange(start, min(start + rows_at_once, int(ends[-1]))))
        z, residual, curvature = _parts(x, y, learning, model, frame)
        score += (z * residual).sum(axis=0)
        information += (z * curvature).T @ z
    return np.concatenate([score, information[frame.triangle] * frame.weights])[None]


def _of_rows(x: NDArray[np.float32], y: NDArray[np.float32], learning: Learning, model: Arrays, frame: Frame) -> Floats:
    z, residual, curvature = _parts(x, y, learning, model, frame)
    rows, columns = frame.triangle
    return np.concatenate([z * residual, z[:, rows] * z[:, columns] * (frame.weights * curvature)], axis=1)


def _parts(
    x: NDArray[np.float32], y: NDArray[np.float32], learning: Learning, model: Arrays, frame: Frame
) -> tuple[Floats, Floats, Floats]:
    """Return of each row z, (rows, dimension), and the loss's slope and curvature along z, (rows, 1) each.

    A row whose outcome is unknown, below 0, has neither.
    """
    outputs = learning.architecture.evaluate(model, x)
    curvature = learning.objective.curvature(outputs)
    assert curvature is not None
    return frame.rows(x), learning.residual(outputs, y), np.where(y < 0, 0.0, curvature)[:, None]
