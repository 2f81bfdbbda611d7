"""The base of the engines on autograd: batches in portions that fit into memory.

It also sets a GPU's full precision.

>>> [(rows.tolist(), members.tolist()) for rows, members in _portions(torch.tensor([0, 1, 0, 2]), 3, rows_at_once=2)]
[([0, 2], [0, 0]), ([1, 3], [0, 1])]
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from strategies.models.flat_model import FlatModel
from strategies.privacy.engines.base import Gaussian, NoisySum, Rows, batch_of
from strategies.privacy.engines.groups import Groups
from strategies.privacy.engines.separable import require_separable
from strategies.privacy.engines.terms import clip_factors
from strategies.privacy.plan import PrivacyPlan

_CUDNN: Any = torch.backends.cudnn


class InPortions(NoisySum):
    """Clipped sums of any batch, in portions that fit into memory.

    A batch of more than `rows_at_once` rows is worked through in portions of whole patients. Of a patient with more
    rows than that, the gradient is added up portion by portion and clipped as one. The sum is the same but for
    rounding: within 1e-5 of the clip norm.

    Raises:
        PrivacyError: when it is made, as a layer's gradient mixes patients.
    """

    def __init__(
        self, model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian, *, rows_at_once: int | None = None
    ) -> None:
        super().__init__(model, plan, gaussian, rows_at_once=rows_at_once)
        require_separable(model.module)
        self._precision = digits_of(model.flat.device)

    def noisy_gradient_of(self, patients: Rows, chosen: NDArray[np.int64]) -> Tensor:
        """See `NoisySum`. Patients that are not in memory anyway are asked for a few at a time."""
        if len(patients.rows_of(chosen)) <= patients.at_once:
            return super().noisy_gradient_of(patients, chosen)
        total = np.zeros(len(self._model.gradient))
        for some in _asked_together(patients, chosen):
            total += self._sums(*batch_of(patients, some, self._model.flat.device), len(some))
        return self._noised(total)

    @abstractmethod
    def _sum_into_gradient(self, x: Tensor, y: Tensor, groups: Groups) -> None:
        """Write the patients' clipped sum to `model.gradient`; one with a non-finite gradient contributes zero."""

    def _sums(self, x: Tensor, y: Tensor, patients: Tensor, count: int) -> NDArray[Any]:
        if not len(x):
            return self._sum_over_nobody(x, y)
        with self._precision:
            if x.shape[0] > self._rows_at_once:
                return self._sum_in_portions(x, y, patients, count)
            self._sum_into_gradient(x, y, Groups.of(patients, count, x.device))
        return self._model.gradient.cpu().numpy() if self._host is None else self._host

    def _sum_in_portions(self, x: Tensor, y: Tensor, patients: Tensor, count: int) -> NDArray[Any]:
        gradient, total = self._model.gradient, torch.zeros_like(self._model.gradient, dtype=torch.float64)
        for rows, members in _portions(patients, count, self._rows_at_once):
            if len(rows) <= self._rows_at_once:
                self._sum_into_gradient(x[rows], y[rows], Groups.of(members, int(members[-1]) + 1, x.device))
                total += gradient
            else:
                large = torch.zeros_like(gradient)
                for part in torch.split(rows, self._rows_at_once):
                    large += self._plain_sum(x[part], y[part])
                square = large.square().sum()
                if bool(square.isfinite()):
                    total += large * clip_factors(square, self._plan.clip_norm)
        return total.cpu().numpy()

    def _plain_sum(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            return self._model.mean_gradient(x, y) * len(x)


class AllDigits:
    """Give a GPU's products and convolutions all digits of float32 while entered, whatever the process has chosen.

    PyTorch lets a GPU's convolutions round what they multiply to ten binary digits (TF32). The norm that is clipped
    and the sum that is released come from different products: a patient could weigh a thousandth more than the clip.
    """

    _settings: tuple[Any, ...] = (torch.backends.cuda.matmul, _CUDNN.conv, _CUDNN.rnn)

    def __enter__(self) -> None:
        self._chosen = [setting.fp32_precision for setting in self._settings]
        for setting in self._settings:
            setting.fp32_precision = "ieee"

    def __exit__(self, *_: object) -> None:
        for setting, before in zip(self._settings, self._chosen, strict=True):
            setting.fp32_precision = before


def digits_of(device: torch.device) -> AbstractContextManager[object]:
    """Return what to enter before products on a device: `AllDigits` of a GPU, nothing of the processor."""
    return nullcontext() if device.type == "cpu" else AllDigits()


def _asked_together(patients: Rows, chosen: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the chosen patients in order, as many as have `at_once` rows together, or one with more."""
    start = rows = 0
    for place in range(len(chosen)):
        count = len(patients.rows_of(chosen[place : place + 1]))
        if rows and rows + count > patients.at_once:
            yield chosen[start:place]
            start, rows = place, 0
        rows += count
    yield chosen[start:]


def _portions(patients: Tensor, count: int, rows_at_once: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield row numbers and their patients, renumbered from 0: whole patients in order, at least one."""
    order = torch.argsort(patients, stable=True)
    counts = torch.bincount(patients, minlength=count).tolist()
    start = first = 0  # row and patient where the portion begins
    rows = 0
    for patient, patient_rows in enumerate(counts):
        if rows and rows + patient_rows > rows_at_once:
            yield order[start : start + rows], patients[order[start : start + rows]] - first
            start, first, rows = start + rows, patient, 0
        rows += patient_rows
    if rows:
        yield order[start:], patients[order[start:]] - first
