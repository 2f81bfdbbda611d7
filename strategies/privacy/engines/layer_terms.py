"""The gradients of each layer type's parameters, one entry for each type.

Opacus works out all other layers.

>>> import torch
>>> layer = nn.Linear(2, 1)
>>> (weight, outer), (bias, built) = terms_of(layer, (torch.tensor([[3.0, 4.0]]),), torch.tensor([[2.0]]))
>>> outer.rows().tolist(), built.rows().tolist()
([[[6.0, 8.0]]], [[2.0]])
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from configs.errors import PrivacyError
from strategies.privacy.engines.terms import Built, Convolution, Lookup, Outer, Term

Terms = list[tuple[Tensor | None, Term]]  # a parameter that the layer does not have is None


def _linear(layer: nn.Linear, read: Tensor, back: Tensor) -> Terms:
    rows = len(back)
    back = back.reshape(rows, -1 if rows else 1, layer.out_features)
    read = read.reshape(*back.shape[:2], layer.in_features)
    return [
        (layer.weight, Outer(read, back, layer.weight.shape)),
        (layer.bias, Built(back[:, 0] if back.shape[1] == 1 else back.sum(1))),
    ]


def _convolution(layer: nn.Conv1d | nn.Conv2d, read: Tensor, back: Tensor) -> Terms | None:
    if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return None
    return [(layer.weight, Convolution(layer, read, back)), (layer.bias, Built(back.flatten(2).sum(2)))]


def _group_norm(layer: nn.GroupNorm, read: Tensor, back: Tensor) -> Terms:
    scaled = functional.group_norm(read, layer.num_groups, eps=layer.eps).mul_(back)
    return [(p, Built(t.flatten(2).sum(2))) for p, t in ((layer.weight, scaled), (layer.bias, back))]


def _layer_norm(layer: nn.LayerNorm, read: Tensor, back: Tensor) -> Terms:
    scaled = functional.layer_norm(read, layer.normalized_shape, eps=layer.eps).mul_(back)
    return [(p, Built(_over_positions(t, layer.weight))) for p, t in ((layer.weight, scaled), (layer.bias, back))]


def _embedding(layer: nn.Embedding, read: Tensor, back: Tensor) -> Terms | None:
    if layer.sparse:
        return None
    rows = len(back)
    back = back.reshape(rows, -1 if rows else 1, layer.embedding_dim)
    tokens = read.reshape(back.shape[:2])
    if layer.padding_idx is not None:  # never trained
        back = back * (tokens != layer.padding_idx)[:, :, None]
    return [(layer.weight, Lookup(tokens, back, layer.weight.shape))]


# (layer, what it read, what came back) -> its terms, or None where its options are for Opacus
LAYERS: dict[type[nn.Module], Callable[[Any, Tensor, Tensor], Terms | None]] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
    nn.Embedding: _embedding,
}


def terms_of(layer: nn.Module, inputs: tuple[Tensor, ...], back: Tensor) -> list[tuple[Tensor, Term]]:
    """Return the gradients of a layer's own parameters in one call of it. `inputs` and `back` have a row first.

    Raises:
        PrivacyError: neither we nor Opacus can tell the layer's gradients apart.
    """
    rule = LAYERS.get(type(layer))
    terms = rule(layer, inputs[0], back) if rule else None
    if terms is None:
        terms = [(p, Built(gradients)) for p, gradients in _by_opacus(layer, inputs, back)]
    return [(p, term) for p, term in terms if p is not None and p.requires_grad]


def is_known(layer: nn.Module) -> bool:
    """Return whether a layer's own parameters are all that `terms_of` gives; elsewhere torch.func gives all inside."""
    return type(layer) in LAYERS or not any(True for _ in layer.children())


def add_up(terms: list[tuple[Tensor, Term]]) -> dict[Tensor, Term]:
    """Return one term of each parameter: one used twice (tied weights) has its rows' gradients added."""
    totals: dict[Tensor, Term] = {}
    for parameter, term in terms:
        totals[parameter] = Built(totals[parameter].rows() + term.rows()) if parameter in totals else term
    return totals


def _by_opacus(layer: nn.Module, inputs: tuple[Tensor, ...], back: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
    """Return Opacus's own per-sample gradients, or, where it has none, those of torch.func through Opacus."""
    from opacus.grad_sample import GradSampleModule  # over a second to import, for unusual layers only
    from opacus.grad_sample.functorch import ft_compute_per_sample_gradient

    sampler = GradSampleModule.GRAD_SAMPLERS.get(type(layer))
    if sampler is None or getattr(layer, "padding_mode", "zeros") != "zeros":
        sampler = ft_compute_per_sample_gradient
    try:
        return [(p, gradient.detach()) for p, gradient in sampler(layer, list(inputs), back).items()]
    except NotImplementedError as error:
        raise PrivacyError(
            f"model: expected a layer whose gradients can be told apart by patient, found {type(layer).__name__}: "
            f"{error}; replace it, or build it from nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm and nn.Embedding"
        ) from None
    finally:
        if hasattr(layer, "ft_compute_sample_grad"):
            del layer.ft_compute_sample_grad


def _over_positions(gradients: Tensor, parameter: Tensor) -> Tensor:
    between = tuple(range(1, gradients.dim() - parameter.dim()))
    return gradients.sum(between) if between else gradients
