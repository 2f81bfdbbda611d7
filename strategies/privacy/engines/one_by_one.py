"""The base of engines that work out one patient's gradient at a time, and their exact sum.

An engine of this family says only who works out a patient's gradient (`gradient_of`): this process, or another one.
What follows is the same for all: one clip over all layers, the public grid, a sum in whole numbers.

The grid. A clipped gradient becomes whole numbers of a step, 2^-30 to 2^-29 of the clip norm and a power of two.
Whole numbers have the same sum in any order, and one patient more or less changes it by exactly that patient's
numbers: that is what sums over Z_2^64 need, too. Within 64 bits there is room for 2^33 patients.

Nobody weighs more than the clip norm C. Let n be the exact norm of a gradient g (float32), and m the norm worked out
here. Squares of float32 are exact in float64. A portion of them is added in pairs, the portions by `math.fsum`, so
m >= n (1 - 2^-47); a square root, a division and two products round by 2^-53 each. Each number is multiplied by
min(1, C / (m + 1e-6)) (1 - 2^-40), which is less than C / n by more than all of that, and then cut off towards zero:
none grows. So the whole numbers' norm is at most C / step, without any slack.

>>> whole = np.zeros(2, np.int64)
>>> add_clipped(np.array([3.0, 4.0], np.float32), 1.0, whole)
>>> (whole * step_of_clip(1.0)).round(6).tolist(), bool((whole.astype(float) ** 2).sum() <= step_of_clip(1.0) ** -2)
([0.6, 0.8], True)
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from strategies.models.flat_model import FlatModel
from strategies.privacy.engines.base import Gaussian, NoisySum, Rows
from strategies.privacy.plan import PrivacyPlan

Arrays2 = tuple[NDArray[np.float32], NDArray[np.float32]]
Take = Callable[[], tuple[Tensor, Tensor]]  # one patient's rows, read when called: x (rows, ...), y (rows, ...)
_DIGITS = 30  # binary digits of the clip norm that a patient's numbers keep
_SLACK = 1.0 - 2.0**-40
_AT_ONCE = 2**13  # numbers that are worked on together: few enough for the cache


def step_of_clip(clip_norm: float) -> float:
    """Return the step of the grid of clipped gradients, a power of two."""
    return math.ldexp(1.0, math.frexp(clip_norm)[1] - _DIGITS)


def add_clipped(gradient: NDArray[np.float32], clip_norm: float, total: NDArray[np.int64]) -> None:
    """Clip one patient's gradient and add it to the sum in whole steps; one that is not finite contributes zero.

    Args:
        gradient: (parameters,), of the summed loss of the patient's rows.
        total: (parameters,) whole steps, in place.
    """
    room, whole = np.empty(_AT_ONCE), np.empty(_AT_ONCE, np.int64)
    portions = [gradient[start : start + _AT_ONCE] for start in range(0, len(gradient), _AT_ONCE)]
    norm = math.sqrt(_sum_of_squares(portions, room))
    if not math.isfinite(norm):
        return
    factor = min(1.0, clip_norm / (norm + 1e-6)) * _SLACK / step_of_clip(clip_norm)
    for start, portion in zip(range(0, len(gradient), _AT_ONCE), portions, strict=True):
        scaled, steps = room[: len(portion)], whole[: len(portion)]
        scaled[:] = portion
        scaled *= factor
        steps[:] = scaled  # towards zero
        total[start : start + len(portion)] += steps


def _sum_of_squares(portions: Iterable[NDArray[np.float32]], room: NDArray[np.float64]) -> float:
    sums = []
    for portion in portions:
        squares = room[: len(portion)]
        squares[:] = portion
        squares *= squares
        sums.append(float(np.add.reduce(squares)))
    return math.fsum(sums) if all(map(math.isfinite, sums)) else math.inf


class OneByOne(NoisySum):
    """Sum the clipped gradients of patients who are taken one at a time.

    No batch ever holds two patients, so layers may do with a patient's rows what they like. What goes wrong with one
    patient contributes zero, as an error would be an answer without noise.
    """

    def __init__(
        self, model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian, *, rows_at_once: int | None = None
    ) -> None:
        super().__init__(model, plan, gaussian, rows_at_once=rows_at_once)
        self._whole = np.zeros(len(model.flat), np.int64)
        self._summed = np.zeros(len(model.flat))

    @property
    def step(self) -> float:
        """Return the step of `whole_sum`."""
        return step_of_clip(self._plan.clip_norm)

    @abstractmethod
    def gradient_of(self, take: Take) -> NDArray[np.float32]:
        """Return the gradient of the summed loss of one patient's rows, (parameters,); the next call may overwrite it.

        Args:
            take: reads the patient's rows.

        Raises:
            Exception: of any kind, where this patient has no gradient: who has none contributes zero.
        """

    def begin(self, x: Tensor, y: Tensor) -> None:
        """Prepare a step: parameters may have changed. x and y have the rows' shapes, and no rows."""

    def gradients(self, takes: Iterable[Take]) -> Iterator[NDArray[np.float32]]:
        """Yield the gradients of patients who have one, in any order; the next one may overwrite it."""
        for take in takes:
            try:
                gradient = self.gradient_of(take)
            except (Exception, SystemExit):  # noqa: S112 - whatever it is, it is this patient's
                continue
            if gradient.shape == self._whole.shape:
                yield gradient

    def whole_sum(self, takes: Iterable[Take]) -> NDArray[np.int64]:
        """Return the sum of clipped gradients in whole steps, (parameters,); the next call overwrites it."""
        self._whole.fill(0)
        for gradient in self.gradients(takes):
            add_clipped(gradient, self._plan.clip_norm, self._whole)
        return self._whole

    def plain_mean_of(self, patients: Rows, rows: NDArray[np.int64], count: int) -> Tensor:
        """Return the gradient of these rows' loss without clip and noise, over `count`; it is the model's `gradient`.

        For studies without privacy, whose models are given one patient at a time all the same.
        """
        self.begin(*_tensors(patients.take(rows[:0])))
        owners = patients.patients[rows]
        takes = (partial(_tensors_of, patients, rows[owners == owner]) for owner in dict.fromkeys(owners.tolist()))
        self._summed.fill(0.0)
        for gradient in self.gradients(takes):
            if np.isfinite(gradient).all():
                self._summed += gradient
        self._model.gradient.copy_(torch.from_numpy(self._summed / count))
        return self._model.gradient

    def noisy_gradient_of(self, patients: Rows, chosen: NDArray[np.int64]) -> Tensor:
        """Return `noisy_gradient` of the chosen patients, each read when it is that patient's turn."""
        nobody = _tensors(patients.take(chosen[:0]))
        if not len(chosen):
            return self._noised(self._sum_over_nobody(*nobody))
        self.begin(*nobody)
        takes = (partial(_taken, patients, chosen[i : i + 1]) for i in range(len(chosen)))
        return self._noised(self._as_numbers(self.whole_sum(takes)))

    def _sums(self, x: Tensor, y: Tensor, patients: Tensor, count: int) -> NDArray[Any]:
        if not len(x):
            return self._sum_over_nobody(x, y)
        self.begin(x[:0], y[:0])
        return self._as_numbers(self.whole_sum(_split(x, y, patients, count)))

    def _as_numbers(self, whole: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.multiply(whole, self.step, out=self._summed)


def _taken(patients: Rows, chosen: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    return _tensors(patients.take(patients.rows_of(chosen)))


def _tensors_of(patients: Rows, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    return _tensors(patients.take(rows))


def _tensors(arrays: Arrays2) -> tuple[Tensor, Tensor]:
    x, y = map(torch.from_numpy, arrays)
    return x, y


def _split(x: Tensor, y: Tensor, patients: Tensor, count: int) -> Iterator[Take]:
    """Yield what reads each patient's rows of a batch; patients without any are left out."""
    order = torch.argsort(patients, stable=True)
    for rows in torch.split(order, torch.bincount(patients, minlength=count).tolist()):
        if len(rows):
            yield partial(_rows, x, y, rows.to(x.device))


def _rows(x: Tensor, y: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    return x[rows], y[rows]
