"""One private step: the sum of the patients' clipped gradients, noised, over the plan's public divisor.

Three engines, one seam (`Engine`), chosen by `private_engine`:

- `ClosedForm` for linear stacks, all that a study can name (stacks.py): in NumPy, each patient's part to the last bit
- `BookKeeping` (bookkeeping.py) for every other model, and on a GPU: one backward pass, the cheapest exact way for each
  layer
- `OpacusEngine` (reference.py), the reference, where a study says `engine: opacus`

All follow Opacus's conventions: one clip over all layers by clip / (norm + 1e-6), noise of noise_multiplier times clip
norm on the sum. Rows of one patient are added up before the clip, an empty Poisson batch is a step of noise alone, and
the divisor never depends on the batch that was drawn. A patient whose gradient is not finite adds nothing, as one who
was not drawn: an error would be an answer without noise.

>>> from configs.schema import Model, Task
>>> from strategies.privacy.plan import PrivacyPlan
>>> from strategies.tasks.tabular import tabular_task
>>> plan = PrivacyPlan(clip_norm=1.0, noise_multiplier=1.0, sampling_rate=1.0, steps_per_round=1, rounds=1,
...                    delta=1e-5, expected_patients=1)
>>> model = FlatModel(tabular_task(Task("binary", "disease"), Model("logistic"), inputs=1))
>>> engine = private_engine(model, plan, lambda size, deviation: torch.zeros(size))
>>> x, y, patients = torch.tensor([[30.0], [40.0]]), torch.tensor([1.0, 1.0]), torch.tensor([0, 0])
>>> round(float(engine.clipped_sum(x, y, patients, patients_in_batch=1).norm()), 4)  # one patient: 1 at most
1.0
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from strategies.privacy.layers import Groups, clip_factors, counts_up, positions
from strategies.privacy.plan import PrivacyPlan
from strategies.privacy.stacks import Stack
from strategies.tasks.gradients import FlatModel

Gaussian = Callable[[int, float], Tensor]  # (size, standard deviation) -> (size,) float64, on the processor
_DIGITS = 12  # binary digits of the noise's standard deviation that a release keeps
_CUDNN: Any = torch.backends.cudnn
_AT_ONCE = 2**13  # numbers that are noised together: few enough for the cache


class Engine(Protocol):
    """One local fit's private gradients. x: (rows, ...); y: (rows,); patients: (rows,), 0 to patients_in_batch - 1."""

    def clipped_sum(self, x: Tensor, y: Tensor, patients: Tensor, *, patients_in_batch: int) -> Tensor:
        """Sum of the patients' clipped gradients without noise, (parameters,): the very sum that training noises."""

    def noisy_gradient(self, x: Tensor, y: Tensor, patients: Tensor, *, patients_in_batch: int) -> Tensor:
        """The noisy mean gradient, (parameters,): `clipped_sum` plus noise, over the plan's expected patients.

        It is the model's `gradient`, overwritten.
        """

    def close(self) -> None:
        """Leave the model as it was, so that it can train plainly again."""


class NoisySum(ABC):
    """What every engine shares: the noise and the divisor.

    Args:
        rows_at_once: rows whose gradients are worked out together. Without it, as many as suit the engine.
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
        """The clipped sum, (parameters,), on the processor; the next call may overwrite it."""

    def _sum_over_nobody(self, x: Tensor, y: Tensor) -> NDArray[Any]:
        """Zeros, after the work of a usual batch on made-up rows: how long it took does not tell that it was empty."""
        rows = max(1, min(round(self._plan.expected_patients), self._rows_at_once))
        x, y = (like.new_zeros((rows, *like.shape[1:])) for like in (x, y))
        sums = self._sums(x, y, positions(rows), rows)
        sums.fill(0.0)
        return sums


class ClosedForm(NoisySum):
    """Linear stacks on the processor, without autograd: a row's gradient is an outer product at each layer."""

    rows_at_once = 8192  # of made-up patients, in place of a batch that came out empty

    def __init__(
        self, model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian, *, rows_at_once: int | None = None
    ) -> None:
        super().__init__(model, plan, gaussian, rows_at_once=rows_at_once)
        self._parameters, self._layers = model.flat.data.numpy(), model.layers
        self._stack = Stack(model.layers, model.task.exact_residual, plan.clip_norm)

    def noisy_gradient_of_rows(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> Tensor:
        """Return `noisy_gradient` of patients with one row each, to the last bit: x (rows, inputs), y (rows,)."""
        if not len(x):
            return self._noised(self._sum_over_nobody(torch.from_numpy(x), torch.from_numpy(y)))
        return self._noised(self._sums_of_rows(x, y))

    def _sums_of_rows(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[Any]:
        self._layers.load(self._parameters)
        self._stack.add_rows(x, y)
        return self._stack.take()

    def _sums(self, x: Tensor, y: Tensor, patients: Tensor, count: int) -> NDArray[Any]:
        if not len(x):
            return self._sum_over_nobody(x, y)
        if counts_up(patients, count):
            return self._sums_of_rows(x.numpy(), y.numpy())
        self._layers.load(self._parameters)
        self._add_by_patient(x.numpy(), y.numpy(), patients.numpy(), count)
        return self._stack.take()

    def _add_by_patient(self, x: NDArray[np.float32], y: NDArray[np.float32], patients: Any, count: int) -> None:
        """Patients of equally many rows together: how a patient's are worked out follows from their number alone."""
        order, rows_of = np.argsort(patients, kind="stable"), np.bincount(patients, minlength=count)
        starts = np.cumsum(rows_of) - rows_of
        for each in np.unique(rows_of[rows_of > 0]):
            rows = order[starts[rows_of == each][:, None] + np.arange(each)]
            if each == 1:
                self._stack.add_rows(x[rows[:, 0]], y[rows[:, 0]])
            else:
                self._stack.add_patients(x, y, rows)


class InPortions(NoisySum):
    """What the engines of autograd share: portions that fit into memory.

    A batch of more than `rows_at_once` rows is worked through in portions of whole patients; a patient who alone has
    more has the gradient of the rows added up portion by portion, and clipped as one. The sum is the same but for
    rounding: within 1e-5 of the clip norm.
    """

    def __init__(
        self, model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian, *, rows_at_once: int | None = None
    ) -> None:
        super().__init__(model, plan, gaussian, rows_at_once=rows_at_once)
        self._precision: AbstractContextManager[object] = nullcontext() if self._host is not None else AllDigits()

    @abstractmethod
    def _sum_into_gradient(self, x: Tensor, y: Tensor, groups: Groups) -> None:
        """Write the clipped sum of these patients into the model's `gradient`; who is not finite adds nothing."""

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
                own = torch.zeros_like(gradient)
                for part in torch.split(rows, self._rows_at_once):
                    own += self._plain_sum(x[part], y[part])
                square = own.square().sum()
                if bool(square.isfinite()):
                    total += own * clip_factors(square, self._plan.clip_norm)
        return total.cpu().numpy()

    def _plain_sum(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            return self._model.mean_gradient(x, y) * len(x)


def on_grid(noised: NDArray[np.float64], deviation: float, divisor: float) -> NDArray[np.float64]:
    """A noised sum, overwritten: the nearest multiple of 2^-11 to 2^-12 deviations, a power of two; over the divisor.

    The last bits of a sum of floating-point numbers show how large its parts were: where the noise happens to cancel
    most of the exact sum, what is left has fewer bits than noise alone would (Mironov 2012, "On significance of the
    least significant bits for differential privacy"; Haney et al. 2022, arXiv 2207.13793). Rounded, every
    sum is a whole number of the same steps, and each step has 2^40 values of the noise behind it.
    """
    grid = math.ldexp(1.0, math.frexp(deviation)[1] - _DIGITS)
    noised *= 1.0 / grid
    np.rint(noised, out=noised)
    noised *= grid / divisor
    return noised


class AllDigits:
    """While entered, a GPU's products and convolutions have all digits of float32, whatever the process has chosen.

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


def private_engine(
    model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian, name: Literal["auto", "opacus"] = "auto"
) -> Engine:
    """The cheapest exact engine for a model, or Opacus where the study asks for the reference.

    Raises:
        PrivacyError: a layer's gradient mixes patients; see compat.py.
    """
    if name == "auto" and model.is_linear_stack and model.flat.device.type == "cpu":
        return ClosedForm(model, plan, gaussian)
    from strategies.privacy.compat import require_separable

    require_separable(model.module)
    if name == "opacus":
        from strategies.privacy.reference import OpacusEngine  # over a second to import

        return OpacusEngine(model, plan, gaussian)
    from strategies.privacy.bookkeeping import BookKeeping

    return BookKeeping(model, plan, gaussian)


def _portions(patients: Tensor, count: int, rows_at_once: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Row numbers and their patients, renumbered from 0: whole patients, as many as fit, in order; at least one."""
    order = torch.argsort(patients, stable=True)
    counts = torch.bincount(patients, minlength=count).tolist()
    start = first = 0  # row and patient where the portion begins
    rows = 0
    for patient, own in enumerate(counts):
        if rows and rows + own > rows_at_once:
            yield order[start : start + rows], patients[order[start : start + rows]] - first
            start, first, rows = start + rows, patient, 0
        rows += own
    if rows:
        yield order[start:], patients[order[start:]] - first
