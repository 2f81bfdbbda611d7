"""The engine `alone`: one patient's rows through plain autograd, for every layer that PyTorch has.

Right by construction: no batch ever holds two patients. What a patient adds is a function of that patient's rows and of
the parameters: these, buffers and random states are put back after each, and chance within the model (dropout) is
seeded by rows and parameters.
Where one record costs milliseconds it is as fast as book-keeping, and it needs the memory of one patient.
Clip, grid and sum are those of one_by_one.py: the same bits in any order of the patients.

What a model keeps elsewhere, say in an attribute, is not put back. A model that does so is refused before the first
patient, where it shows on made-up ones. Code that hides it is no case for this engine.

>>> from configs.schema import Model, Task
>>> from strategies.learning import learning
>>> plan = PrivacyPlan(clip_norm=1.0, noise_multiplier=1.0, sampling_rate=1.0, steps_per_round=1, rounds=1,
...                    delta=1e-5, expected_patients=1)
>>> model = FlatModel(learning(Task("binary", "disease"), Model("logistic"), inputs=1))
>>> engine = Alone(model, plan, lambda size, deviation: torch.zeros(size))
>>> x, y, patients = torch.tensor([[30.0], [40.0]]), torch.tensor([1.0, 1.0]), torch.tensor([0, 0])
>>> round(float(engine.clipped_sum(x, y, patients, patients_in_batch=1).norm()), 4)  # one patient: 1 at most
1.0
"""

from hashlib import blake2b
from weakref import WeakSet

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from configs.errors import PrivacyError
from strategies.models.flat_model import FlatModel
from strategies.models.one_patient import as_it_was, bytes_of, seed_of
from strategies.privacy.engines.base import Gaussian
from strategies.privacy.engines.in_portions import digits_of
from strategies.privacy.engines.one_by_one import OneByOne, Take
from strategies.privacy.plan import PrivacyPlan

_STATELESS: WeakSet[nn.Module] = WeakSet()  # modules that were checked: once is enough
_NUMBERS_AT_ONCE = 1 << 19  # of one patient's rows: 32 images of 128 x 128, 4 volumes of 48 x 48 x 48


class Alone(OneByOne):
    """Clipped sums of patients who go through the model one by one."""

    def __init__(
        self, model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian, *, rows_at_once: int | None = None
    ) -> None:
        super().__init__(model, plan, gaussian, rows_at_once=rows_at_once)
        self._most_rows = rows_at_once
        self._salt = b""
        self._before = model.flat.detach().clone()

    def begin(self, x: Tensor, y: Tensor) -> None:
        """Note the parameters, which with a patient's rows seed chance within the model.

        Raises:
            PrivacyError: the model answers a made-up patient in another way after it has seen another one.
        """
        self._salt = blake2b(bytes_of(self._model.flat), digest_size=32).digest()
        self._before.copy_(self._model.flat.detach())
        if self._model.module not in _STATELESS:
            require_stateless(self, x, y, exact=self._host is not None)
            _STATELESS.add(self._model.module)

    def gradient_of(self, take: Take) -> NDArray[np.float32]:
        """See `OneByOne`."""
        x, y = take()
        device = self._model.flat.device
        try:
            with as_it_was(self._model.module, seed_of(self._salt, x, y), device), digits_of(device):
                gradient = gradient_of_rows(self._model, x.to(device), y.to(device), self._most_rows)
        finally:
            self._model.put_back(self._before)
        return gradient.cpu().numpy() if self._host is None else self._host


def gradient_of_rows(model: FlatModel, x: Tensor, y: Tensor, rows_at_once: int | None = None) -> Tensor:
    """Write the gradient of the summed loss of these rows to `model.gradient` and return it.

    Args:
        rows_at_once: rows that go through the model together; without it, as many as half a million numbers make.
    """
    most = rows_at_once or max(1, _NUMBERS_AT_ONCE // max(1, x[:1].numel()))
    model.gradient.zero_()
    with torch.enable_grad():
        for some, outcomes in zip(torch.split(x, most), torch.split(y, most), strict=True):
            model.task.loss(model.module(some), outcomes).sum().backward()  # type: ignore[no-untyped-call]
    return model.gradient


def require_stateless(engine: OneByOne, x: Tensor, y: Tensor, *, exact: bool = True) -> None:
    """Check that a made-up patient has the same gradient before and after another made-up one.

    Args:
        x: with the shape of the rows, and no rows; y as well.
        exact: whether the same rows have the same bits here, as on the processor.

    Raises:
        PrivacyError: it has another one.
    """

    def gradient(value: int) -> NDArray[np.float32]:
        row = x.new_full((1, *x.shape[1:]), value)
        return engine.gradient_of(lambda: (row, y.new_zeros((1, *y.shape[1:])))).copy()

    first, _, again = gradient(0), gradient(1), gradient(0)
    if not (first.tobytes() == again.tobytes() if exact else np.allclose(first, again, rtol=1e-3, atol=1e-5)):
        raise PrivacyError(
            "model: expected the same gradient of a made-up patient before and after another one, found two; the model "
            "keeps something of the patients that it saw. Keep it in no attribute, and draw chance from PyTorch alone"
        )
