"""The engine of linear stacks on the processor, without autograd.

A row's gradient is an outer product at each layer. The same bits on every processor; what a patient adds is a function
of that patient's rows and of the model alone (stack.py).

>>> import torch
>>> from configs.schema import Model, Task
>>> from strategies.privacy.plan import PrivacyPlan
>>> from strategies.learning import learning
>>> plan = PrivacyPlan(clip_norm=1.0, noise_multiplier=1.0, sampling_rate=1.0, steps_per_round=1, rounds=1,
...                    delta=1e-5, expected_patients=1)
>>> model = FlatModel(learning(Task("binary", "disease"), Model("logistic"), inputs=1))
>>> engine = ClosedForm(model, plan, lambda size, deviation: torch.zeros(size))
>>> x, y, patients = torch.tensor([[30.0], [40.0]]), torch.tensor([1.0, 1.0]), torch.tensor([0, 0])
>>> round(float(engine.clipped_sum(x, y, patients, patients_in_batch=1).norm()), 4)  # one patient: 1 at most
1.0
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from strategies.models.flat_model import FlatModel
from strategies.privacy.engines.base import Gaussian, NoisySum, Rows
from strategies.privacy.engines.groups import counts_up
from strategies.privacy.engines.stack import Stack
from strategies.privacy.plan import PrivacyPlan


class ClosedForm(NoisySum):
    """The clipped sums of a linear stack on the processor."""

    rows_at_once = 8192  # of made-up patients, in place of a batch that came out empty

    def __init__(
        self, model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian, *, rows_at_once: int | None = None
    ) -> None:
        super().__init__(model, plan, gaussian, rows_at_once=rows_at_once)
        self._parameters, self._layers = model.flat.data.numpy(), model.layers
        self._stack = Stack(model.layers, model.task.residual, plan.clip_norm)

    def noisy_gradient_of(self, patients: Rows, chosen: NDArray[np.int64]) -> Tensor:
        """See `NoisySum`. Of patients with one row each no tensor is made, which would cost a tenth of such a step."""
        if not len(chosen) or not patients.one_row_each:
            return super().noisy_gradient_of(patients, chosen)
        return self._noised(self._sums_of_rows(*patients.take(chosen)))

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
        """Add patients with equally many rows together: their number alone decides how they are worked out."""
        order, rows_of = np.argsort(patients, kind="stable"), np.bincount(patients, minlength=count)
        starts = np.cumsum(rows_of) - rows_of
        for each in np.unique(rows_of[rows_of > 0]):
            rows = order[starts[rows_of == each][:, None] + np.arange(each)]
            if each == 1:
                self._stack.add_rows(x[rows[:, 0]], y[rows[:, 0]])
            else:
                self._stack.add_patients(x, y, rows)
