"""The base of every engine of private gradients: interface, noise, public grid and divisor.

One private step is the sum of the patients' clipped gradients, noised, over the plan's public divisor. All engines
follow Opacus's conventions: one clip over all layers by clip / (norm + 1e-6), noise of noise_multiplier times clip norm
on the sum. Rows of one patient are added up before the clip, an empty Poisson batch is a step of noise alone, and the
divisor never depends on the batch that was drawn. A patient with a non-finite gradient contributes zero, like one who
was not drawn: an error would be an answer without noise.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from strategies.models.flat_model import FlatModel
from strategies.privacy.engines.groups import positions
from strategies.privacy.grid import on_grid
from strategies.privacy.plan import PrivacyPlan

Gaussian = Callable[[int, float], Tensor]  # (size, standard deviation) -> (size,) float64, on the processor
_AT_ONCE = 2**13  # numbers that are noised together: few enough for the cache


class Rows(Protocol):
    """Patients as an engine may ask for them: strategies/data/base.py has them all."""

    @property
    def patients(self) -> NDArray[np.int64]:
        """Return (rows,) the patient of each row."""

    @property
    def one_row_each(self) -> bool:
        """Return whether every patient has exactly one row."""

    @property
    def at_once(self) -> int:
        """Return how many rows should be asked for together."""

    def rows_of(self, chosen: NDArray[np.int64], /) -> NDArray[np.int64]:
        """Return row numbers of the chosen patients, patient by patient."""

    def rows_and_patients(self, chosen: NDArray[np.int64], /) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return row numbers of the chosen patients, and each row's patient: positions from 0 in the order given."""

    def take(self, rows: NDArray[np.int64], /) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return rows as a model reads them: x (rows, ...) and y (rows, ...)."""


def batch_of(patients: Rows, chosen: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows of the chosen patients, and each row's patient: x (rows, ...), y (rows, ...), (rows,).

    Args:
        device: where x and y are to be.
    """
    if patients.one_row_each:
        rows, whose = chosen, positions(len(chosen))
    else:
        rows, owners = patients.rows_and_patients(chosen)
        whose = torch.from_numpy(owners)
    x, y = map(torch.from_numpy, patients.take(rows))
    return x.to(device), y.to(device), whose


class Engine(Protocol):
    """One local fit's private gradients. x: (rows, ...); y: (rows,); patients: (rows,), 0 to patients_in_batch - 1."""

    def clipped_sum(self, x: Tensor, y: Tensor, patients: Tensor, *, patients_in_batch: int) -> Tensor:
        """Sum the patients' clipped gradients without noise, (parameters,): the very sum that training noises."""

    def noisy_gradient(self, x: Tensor, y: Tensor, patients: Tensor, *, patients_in_batch: int) -> Tensor:
        """Return the noisy mean gradient, (parameters,): `clipped_sum` plus noise, over the expected patients.

        It is the model's `gradient`, overwritten.
        """

    def close(self) -> None:
        """Leave the model as it was, so that it can train plainly again."""


class NoisySum(ABC):
    """Noise and divide the clipped sum that an engine works out.

    Args:
        rows_at_once: rows with gradients that are worked out together. Without it, as many as suit the engine.
    """

    rows_at_once = 128

    def __init__(
        self, model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian, *, rows_at_once: int | None = None
    ) -> None:
        self._model, self._plan, self._gaussian = model, plan, gaussian
        self._rows_at_once = rows_at_once or self.rows_at_once
        self._host = model.gradient.numpy() if model.gradient.device.type == "cpu" else None
        self._dtype = np.float64 if model.gradient.dtype == torch.float64 else np.float32

    def clipped_sum(self, x: Tensor, y: Tensor, patients: Tensor, *, patients_in_batch: int) -> Tensor:
        """See `Engine`."""
        sums = self._sums(x, y, patients, patients_in_batch)
        return torch.from_numpy(sums.astype(self._dtype)).to(x.device)

    def noisy_gradient(self, x: Tensor, y: Tensor, patients: Tensor, *, patients_in_batch: int) -> Tensor:
        """See `Engine`."""
        return self._noised(self._sums(x, y, patients, patients_in_batch))

    def noisy_gradient_of(self, patients: Rows, chosen: NDArray[np.int64]) -> Tensor:
        """Return `noisy_gradient` of the chosen patients, which an engine may read in portions."""
        x, y, whose = batch_of(patients, chosen, self._model.flat.device)
        return self.noisy_gradient(x, y, whose, patients_in_batch=len(chosen))

    def _noised(self, sums: NDArray[Any]) -> Tensor:
        gradient = self._model.gradient
        noised = np.empty(len(sums), self._dtype) if self._host is None else self._host
        deviation = self._plan.noise_multiplier * self._plan.clip_norm
        for start in range(0, len(sums), _AT_ONCE):
            some = sums[start : start + _AT_ONCE]
            exact = np.add(some, self._gaussian(len(some), deviation).numpy(), dtype=np.float64)
            noised[start : start + _AT_ONCE] = on_grid(exact, deviation, self._plan.expected_patients)
        if self._host is None:
            gradient.copy_(torch.from_numpy(noised))
        return gradient

    def close(self) -> None:  # noqa: B027 - an engine that changes nothing has nothing to undo
        """See `Engine`."""

    @abstractmethod
    def _sums(self, x: Tensor, y: Tensor, patients: Tensor, count: int) -> NDArray[Any]:
        """Return the clipped sum, (parameters,), on the processor; the next call may overwrite it."""

    def _sum_over_nobody(self, x: Tensor, y: Tensor) -> NDArray[Any]:
        """Return zeros after the work of a usual batch on made-up rows, so that the time does not tell an empty one."""
        rows = max(1, min(round(self._plan.expected_patients), self._rows_at_once))
        x, y = (like.new_zeros((rows, *like.shape[1:])) for like in (x, y))
        sums = self._sums(x, y, positions(rows), rows)
        sums.fill(0.0)
        return sums
