"""One private step: per-patient gradients, summed over a patient's rows, clipped, added up, noised.

Per-sample gradients, clipping and noise are Opacus's (`GradSampleModule`, `DPOptimizer`); what it lacks is added here:
several rows of one patient become one gradient before the clip, an empty Poisson batch is a step of noise alone, and
the divisor is the plan's public number, never the size of the batch that was drawn.

>>> from configs.schema import Model, Task
>>> from strategies.privacy.plan import PrivacyPlan
>>> from strategies.tasks.tabular import tabular_task
>>> plan = PrivacyPlan(clip_norm=1.0, noise_multiplier=1e-9, sampling_rate=1.0, steps_per_round=1, rounds=1,
...                    delta=1e-5, expected_patients=1)
>>> model = FlatModel(tabular_task(Task("binary", "disease"), Model("logistic"), inputs=1))
>>> engine = OpacusEngine(model, torch.optim.SGD(model.module.parameters(), lr=1.0), plan, torch.Generator())
>>> x, y, patients = torch.tensor([[30.0], [40.0]]), torch.tensor([1.0, 1.0]), torch.tensor([0, 0])
>>> engine.noisy_gradient(x, y, patients, patients_in_batch=1)
>>> round(float(torch.cat([p.grad.flatten() for p in model.module.parameters()]).norm()), 4)  # one patient: 1 at most
1.0
"""

import warnings

import torch
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor
from torch.optim import Optimizer

from strategies.privacy.plan import PrivacyPlan
from strategies.tasks.gradients import FlatModel

# Opacus hooks every layer; the first one has inputs without a gradient, which PyTorch mentions once a process.
warnings.filterwarnings("ignore", message="Full backward hook is firing")


class OpacusEngine:
    """Opacus's reference engine for one local fit. Use `close` when done, so that the model can train plainly again."""

    def __init__(self, model: FlatModel, optimizer: Optimizer, plan: PrivacyPlan, noise: torch.Generator) -> None:
        self._task = model.task
        self._module = GradSampleModule(model.module, loss_reduction="sum")
        self._optimizer = DPOptimizer(
            optimizer,
            noise_multiplier=plan.noise_multiplier,
            max_grad_norm=plan.clip_norm,
            expected_batch_size=plan.expected_patients,
            loss_reduction="mean",
            generator=noise,
        )

    def noisy_gradient(self, x: Tensor, y: Tensor, patients: Tensor, *, patients_in_batch: int) -> None:
        """Leave the noisy mean gradient in the parameters' `grad`.

        Args:
            x: (rows, inputs); y: (rows,); patients: (rows,) positions from 0 to patients_in_batch - 1.
        """
        self._optimizer.zero_grad(set_to_none=True)
        if len(x):
            self._task.loss(self._module(x), y).sum().backward()  # type: ignore[no-untyped-call]
        for parameter in self._module.parameters():
            rows = parameter.grad_sample if len(x) else parameter.new_zeros((0, *parameter.shape))
            parameter.grad_sample = _sum_by_patient(rows, patients, patients_in_batch)
        self._optimizer.pre_step()

    def close(self) -> None:
        """Take Opacus's hooks off the model again."""
        self._module.remove_hooks()
        for parameter in self._module.parameters():
            parameter.grad_sample = parameter.summed_grad = None


def _sum_by_patient(rows: Tensor, patients: Tensor, count: int) -> Tensor:
    """(rows, *shape) -> (count, *shape): what one patient contributes, before it is clipped."""
    if torch.equal(patients, torch.arange(count)):  # one row each
        return rows
    return rows.new_zeros((count, *rows.shape[1:])).index_add_(0, patients, rows)
