"""Linear stacks: linear layers with a ReLU between two.

Logistic and linear regression have one layer. All that is known of their shape stands here. Their gradients have a
closed form, their sums and products are exact (strategies/exact): the same bits on every processor, and a row's output
never depends on the rest of the batch.

>>> from configs.schema import Model
>>> MLP(Model("mlp", hidden=(8,)), inputs=3, outputs=1).parameters["2.weight"]
((1, 8), 'float32')
"""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from configs.wire import ArraySpec
from strategies.exact.layers import Layers
from strategies.models.base import Architecture, Arrays, LinearLayers

if TYPE_CHECKING:  # planning, review and the coordinator need no PyTorch
    from torch import nn


class LinearStack(Architecture):
    """A linear stack; `section` is a `configs.schema.Model`."""

    engine = "closed form"
    exact = True

    @property
    def linear_layers(self) -> LinearLayers:
        """Return each layer's (out, in)."""
        sizes = [self.inputs, *self.section.hidden, self.outputs]
        return tuple((after, before) for before, after in itertools.pairwise(sizes))

    @property
    def parameters(self) -> Mapping[str, ArraySpec]:
        """Return each layer's weight and bias, named as in a sequence of layers: those of ReLU count."""
        parameters: dict[str, ArraySpec] = {}
        for i, (out, into) in enumerate(self.linear_layers):
            parameters[f"{2 * i}.weight"] = ((out, into), "float32")
            parameters[f"{2 * i}.bias"] = ((out,), "float32")
        return parameters

    @property
    def personal(self) -> tuple[str, ...]:
        """Return the last layer's bias where the study gives every hospital an intercept of its own."""
        return tuple(self.parameters)[-1:] if self.section.site_intercept else ()

    @property
    def all_shared(self) -> Any:
        """Return the section without an intercept of each hospital's own."""
        return replace(self.section, site_intercept=False) if self.personal else self.section

    def build(self) -> "nn.Sequential":
        """Return the layers in sequence."""
        from torch import nn

        layers: list[nn.Module] = []
        for out, into in self.linear_layers:
            layers += ([nn.ReLU()] if layers else []) + [nn.Linear(into, out)]
        return nn.Sequential(*layers)

    def initial(self, seed: int) -> Arrays:
        """Return zeros, or PyTorch's default initialisation under `seed`, as the study says; one layer needs none."""
        if self.section.init == "zeros" or (self.section.init == "share" and not self.section.hidden):
            return {name: np.zeros(shape, np.float32) for name, (shape, _) in self.parameters.items()}
        return super().initial(seed)

    def beginning_at(self, outputs: tuple[float, ...], arrays: Arrays) -> Arrays:
        """Return the arrays with these outputs as the last bias and zeros as its weights, under `init: share`."""
        if self.section.init != "share":
            return arrays
        weight, bias = list(arrays)[-2:]
        return arrays | {weight: np.zeros_like(arrays[weight]), bias: np.asarray(outputs, np.float32)}

    def evaluate(self, arrays: Mapping[str, NDArray[np.float32]], x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the outputs of rows, (rows, outputs), the same bits on every processor."""
        layers = Layers(self.linear_layers)
        layers.load(np.concatenate([arrays[name].reshape(-1) for name in self.parameters]))
        return layers.outputs(x)


class Logistic(LinearStack):
    """Logistic regression: one layer, for classes."""

    name = "logistic"


class Linear(LinearStack):
    """Linear regression: one layer, for a number."""

    name = "linear"


class MLP(LinearStack):
    """A multilayer perceptron: hidden layers of the sizes that the study says."""

    name = "mlp"
