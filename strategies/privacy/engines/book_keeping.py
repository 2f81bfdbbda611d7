"""Private gradients of any model in one backward pass.

Hooks note every layer's inputs in the forward pass and the gradients of its outputs in the backward pass; weights are
left out of that pass. From both follow each patient's squared norm and then the clipped sum, layer by layer (terms.py
and layer_terms.py; book-keeping: Bu et al. 2022, arXiv 2210.00038).

Attention is private where its projections are linear layers (a model's own, or those of Opacus's DPMultiheadAttention);
nn.MultiheadAttention hides them in one function, so separable.py refuses it and names the replacement.

Rows are worked out together: what one adds may depend on others in the last bits (stack.py keeps them apart).

>>> from configs.schema import Model, Task
>>> from strategies.privacy.plan import PrivacyPlan
>>> from strategies.learning import learning
>>> plan = PrivacyPlan(clip_norm=1.0, noise_multiplier=1.0, sampling_rate=1.0, steps_per_round=1, rounds=1,
...                    delta=1e-5, expected_patients=1)
>>> model = FlatModel(learning(Task("binary", "disease"), Model("logistic"), inputs=1))
>>> engine = BookKeeping(model, plan, lambda size, deviation: torch.zeros(size))
>>> x, y, patients = torch.tensor([[30.0], [40.0]]), torch.tensor([1.0, 1.0]), torch.tensor([0, 0])
>>> round(float(engine.clipped_sum(x, y, patients, patients_in_batch=1).norm()), 4)
1.0
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from configs.errors import PrivacyError
from strategies.models.flat_model import FlatModel
from strategies.privacy.engines.base import Gaussian
from strategies.privacy.engines.groups import Groups
from strategies.privacy.engines.in_portions import InPortions
from strategies.privacy.engines.layer_terms import add_up, is_known, terms_of
from strategies.privacy.engines.terms import Term, clipped_sums
from strategies.privacy.plan import PrivacyPlan


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of a layer; `version` tells whether its output was overwritten since."""

    name: str
    layer: nn.Module
    inputs: tuple[Tensor, ...]
    output: Tensor
    version: int


class BookKeeping(InPortions):
    """Clipped sums from one forward and one backward pass; Opacus works out layers of unknown types."""

    def __init__(
        self, model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian, *, rows_at_once: int | None = None
    ) -> None:
        super().__init__(model, plan, gaussian, rows_at_once=rows_at_once)
        self._calls: list[_Call] = []
        self._listening = self._copying = self._is_checked = False
        self._views: dict[Tensor, Tensor] = dict(zip(model.module.parameters(), model.gradient_views, strict=True))
        self._handles = [layer.register_forward_hook(self._note) for layer in trainable_layers(model.module)]
        self._names = {layer: name for name, layer in model.module.named_modules()}

    def close(self) -> None:
        """Take the hooks off the model again."""
        for handle in self._handles:
            handle.remove()

    def _note(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if not self._listening:
            return None
        call = _Call(self._names[layer], layer, tuple(i.detach() for i in inputs), output, output._version)
        self._calls.append(call)
        return output.clone() if self._copying else None

    def _sum_into_gradient(self, x: Tensor, y: Tensor, groups: Groups) -> None:
        if not self._is_checked:
            self._check_rows_come_first(x)
        self._model.gradient.zero_()  # of unused parameters
        terms = add_up(self._terms(x, y))
        order: list[Term] = list(terms.values())
        sums, finite = clipped_sums(order, groups, self._plan.clip_norm)
        if bool(finite.all()):
            for parameter, clipped in zip(terms, sums, strict=True):
                self._views[parameter].copy_(clipped)
        elif bool(finite.any()):  # once more without the others
            rows = groups.of_rows(finite).nonzero()[:, 0]
            place = finite.cumsum(0) - 1
            self._sum_into_gradient(
                x[rows], y[rows], Groups.of(place[groups.patients[rows]], int(finite.sum()), x.device)
            )

    def _terms(self, x: Tensor, y: Tensor) -> list[tuple[Tensor, Term]]:
        with torch.enable_grad():
            calls, outputs = self._forward(x)
            if any(call.output._version != call.version for call in calls):  # an in-place activation overwrote it
                self._copying = True
                calls, outputs = self._forward(x)
            loss = self._model.task.loss(outputs, y).sum()
            back = torch.autograd.grad(loss, [call.output for call in calls], allow_unused=True)
        terms: list[tuple[Tensor, Term]] = []
        for call, returned in zip(calls, back, strict=True):
            if returned is not None:
                terms += terms_of(call.layer, call.inputs, returned)
        return terms

    def _forward(self, x: Tensor) -> tuple[list[_Call], Tensor]:
        self._calls, self._listening = [], True
        try:
            outputs = self._model.module(x)
        finally:
            self._listening = False
        calls, self._calls = self._calls, []
        return calls, outputs

    def _check_rows_come_first(self, x: Tensor) -> None:
        """Check with two batch sizes that every layer has the rows first; a table of positions, say, has none."""
        for rows in (2, 3):
            with torch.no_grad():
                calls, _ = self._forward(x[:1].expand(rows, *x.shape[1:]))
            for call in calls:
                if len(call.output) != rows or len(call.inputs[0]) != rows:
                    raise PrivacyError(
                        f"model: expected layer {call.name!r} ({type(call.layer).__name__}) to read and return a row "
                        f"first for each of {rows} rows, found {len(call.inputs[0])} and {len(call.output)}; its "
                        "gradient cannot be told apart by patient. Put the rows first, and expand shared inputs to rows"
                    )
        self._is_checked = True


def trainable_layers(module: nn.Module) -> list[nn.Module]:
    """Return layers with trainable parameters of their own; one of an unknown type stands for everything inside it."""
    trains = any(p.requires_grad for p in module.parameters(recurse=False))
    if trains and not is_known(module):
        return [module]
    inner = [layer for child in module.children() for layer in trainable_layers(child)]
    return list(dict.fromkeys([module, *inner] if trains else inner))
