"""Layers that cannot be trained privately, with the reason and a replacement.

They are checked before the first gradient. A patient's gradient can be clipped only where it is that patient's alone. A
layer that computes with the whole batch (BatchNorm), keeps statistics of it, or hides its weights in one function gives
no such gradient. What Opacus's `ModuleValidator` refuses is refused here too, with the layer's place.

>>> require_separable(nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)))
Traceback (most recent call last):
    ...
configs.errors.PrivacyError: model: 1 layer cannot be trained privately
  1 (BatchNorm2d): it normalises a patient by the others of the batch, so no gradient is one patient's alone; use \
nn.GroupNorm
"""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from configs.errors import PrivacyError
from strategies.privacy.engines.layer_terms import LAYERS


def require_separable(module: nn.Module) -> None:
    """Check that every trainable layer's gradient is a sum of the patients' own.

    Raises:
        PrivacyError: names every layer that is not so, why, and what to use instead.
    """
    problems = {name: reason for name, layer in module.named_modules() if (reason := _why_not(layer))}
    unknown = {
        name: layer
        for name, layer in module.named_modules()
        if name not in problems and type(layer) not in LAYERS and any(True for _ in layer.parameters(recurse=False))
    }
    if unknown:
        problems |= _what_opacus_says(unknown)
    if problems:
        count = "1 layer" if len(problems) == 1 else f"{len(problems)} layers"
        lines = [
            f"{name or 'the model itself'} ({type(module.get_submodule(name)).__name__}): {reason}"
            for name, reason in problems.items()
        ]
        raise PrivacyError("\n  ".join([f"model: {count} cannot be trained privately", *lines]))


def _why_not(layer: nn.Module) -> str | None:
    if isinstance(layer, _InstanceNorm):
        if layer.track_running_stats:
            return "it keeps statistics of patients that no noise covers; say track_running_stats=False"
    elif isinstance(layer, _BatchNorm):
        return (
            "it normalises a patient by the others of the batch, so no gradient is one patient's alone; "
            "use nn.GroupNorm"
        )
    elif isinstance(layer, nn.MultiheadAttention):
        return (
            "it hides its projections in one function, where a patient's gradient cannot be read; "
            "use opacus.layers.DPMultiheadAttention, or nn.Linear projections"
        )
    elif isinstance(layer, nn.Embedding | nn.EmbeddingBag) and (layer.max_norm is not None or layer.scale_grad_by_freq):
        return (
            "max_norm rewrites the weights of the words that were read, scale_grad_by_freq divides by counts over the "
            "batch; leave both out"
        )
    return None


def _what_opacus_says(layers: dict[str, nn.Module]) -> dict[str, str]:
    from opacus.validators import ModuleValidator  # over a second to import, for unusual layers only

    reasons = {}
    for name, layer in layers.items():
        errors = ModuleValidator.VALIDATORS.get(type(layer), lambda _: [])(layer)
        if errors:
            reasons[name] = " ".join(str(error) for error in errors)
    return reasons
