"""The reference engine: Opacus's per-sample gradients and clipping.

It uses `GradSampleModule` and `DPOptimizer`; the other engines must equal it. Much slower than the project's own
engines; a study asks for it with `training.local.engine: opacus`. What Opacus lacks is added here: several rows of one
patient become one gradient before the clip. The noise is that of base.py.

Opacus adds up squares in single precision one after the other: of a layer of two million numbers its norm is 1e-4 too
small, and a patient weighs as much more than the clip. And a row's last bits depend on the others in the batch (see
stack.py). The closed form does neither; a hospital's `review` says where a study asks for this engine.
"""

import contextlib
import warnings

import torch
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor

from strategies.models.flat_model import FlatModel
from strategies.privacy.engines.base import Gaussian
from strategies.privacy.engines.groups import Groups
from strategies.privacy.engines.in_portions import InPortions
from strategies.privacy.plan import PrivacyPlan

# Opacus hooks every layer; the first one has inputs without a gradient, which PyTorch mentions once a process.
warnings.filterwarnings("ignore", message="Full backward hook is firing")


class OpacusEngine(InPortions):
    """Opacus's own engine for one local fit. Use `close` when done, so that the model can train plainly again."""

    def __init__(
        self, model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian, *, rows_at_once: int | None = None
    ) -> None:
        super().__init__(model, plan, gaussian, rows_at_once=rows_at_once)
        self._parameters = [p for p in model.module.parameters() if p.requires_grad]
        self._module = GradSampleModule(model.module, loss_reduction="sum")
        self._optimizer = DPOptimizer(
            torch.optim.SGD(self._parameters, lr=1.0),  # never stepped: Opacus keeps its clip in an optimizer
            noise_multiplier=0.0,
            max_grad_norm=plan.clip_norm,
            expected_batch_size=None,
            loss_reduction="sum",
        )

    def _sum_into_gradient(self, x: Tensor, y: Tensor, groups: Groups) -> None:
        try:
            self._sum_together(x, y, groups)
        except (Exception, SystemExit):  # a kit's model may stumble over one patient: others do not fall with that one
            self._sum_each(x, y, groups)

    def _sum_each(self, x: Tensor, y: Tensor, groups: Groups) -> None:
        """Sum patients who go through the model alone; who has no gradient contributes zero."""
        total = torch.zeros_like(self._model.gradient)
        for patient in range(groups.count):
            rows = groups.patients == patient
            self._forget()
            with contextlib.suppress(Exception, SystemExit):
                self._sum_together(x[rows], y[rows], Groups.of(torch.zeros_like(groups.patients[rows]), 1, x.device))
                total += self._model.gradient
        self._forget()
        self._model.gradient.copy_(total)

    def _forget(self) -> None:
        """Forget what Opacus's hooks noted of a pass that did not end."""
        for layer in self._module.modules():
            if hasattr(layer, "activations"):
                layer.activations = []
        for parameter in self._parameters:
            parameter.grad_sample = parameter.summed_grad = None  # type: ignore[attr-defined]
            parameter._forward_counter = 0  # type: ignore[attr-defined]
            parameter.__dict__.pop("_current_grad_sample", None)

    def _sum_together(self, x: Tensor, y: Tensor, groups: Groups) -> None:
        with torch.enable_grad():
            self._model.task.loss(self._module(x), y).sum().backward()  # type: ignore[no-untyped-call]
        for parameter in self._parameters:
            parameter.grad_sample = groups.sum(parameter.grad_sample)  # type: ignore[attr-defined]
        self._leave_out_what_is_not_finite()
        self._optimizer.clip_and_accumulate()
        self._model.gradient.zero_()
        views = dict(zip(self._model.module.parameters(), self._model.gradient_views, strict=True))
        for parameter in self._parameters:
            views[parameter].copy_(parameter.summed_grad)  # type: ignore[attr-defined]
            parameter.grad_sample = parameter.summed_grad = None  # type: ignore[attr-defined]

    def _leave_out_what_is_not_finite(self) -> None:
        """Zero patients with a non-finite gradient; Opacus would make everybody's sum infinite, or no number."""
        gradients = [parameter.grad_sample.flatten(1) for parameter in self._parameters]  # type: ignore[attr-defined]
        finite = torch.stack([gradient.isfinite().all(1) for gradient in gradients]).all(0)
        if not bool(finite.all()):
            for gradient in gradients:
                gradient[~finite] = 0.0

    def _plain_sum(self, x: Tensor, y: Tensor) -> Tensor:
        self._module.disable_hooks()
        try:
            return super()._plain_sum(x, y)
        finally:
            self._module.enable_hooks()

    def close(self) -> None:
        """Take Opacus's hooks off the model again."""
        self._module.remove_hooks()
        for parameter in self._module.parameters():
            parameter.grad_sample = parameter.summed_grad = None
        self._model.restore_gradients()
