"""The weights of linear stacks as whole numbers, for exact products.

strategies/exact/layers.py computes these products. Those of small models are held, in float64. A large model's would
take four times the model's memory with its gradient: they are made anew for each product, in pieces, with the same
bits, since sums of whole numbers are exact in any order.

>>> shapes = ((2, 1), (1, 2))
>>> held, made = HeldWeights(shapes, (), 4.0, Order(shapes, ())), WeightsInPieces(shapes, top=4.0)
>>> for weights in (held, made):
...     weights.load(np.arange(7, dtype=np.float32))
...     out = np.empty((2, 1))
...     weights.multiply(0, np.array([[3.0], [1.0]]), out)
...     print(out.tolist(), [float(scale) for scale in weights.scales])
[[4.0], [12.0]] [2.0, 1.0]
[[4.0], [12.0]] [2.0, 1.0]
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.exact.functions import power_below

_SMALL = 1 << 16  # parameters of a model that is held once more to be quick
_PIECE = 1 << 18  # numbers of a large model's weights that are made together

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Shapes = tuple[tuple[int, int], ...]


class Order:
    """The order of parameters, each layer's weight and then its bias, beside that of layers, (out, in + 1) each."""

    def __init__(self, shapes: Shapes, lead: tuple[int, ...]) -> None:
        self._shapes, self._lead = shapes, lead
        size = sum(out * (into + 1) for out, into in shapes)
        self.is_same = all(out == 1 for out, _ in shapes)
        self._to_layers = self._to_parameters = np.empty(0, np.int64)
        if size <= _SMALL and not self.is_same:
            self._to_layers, numbers = np.empty(size, np.int64), np.arange(size)
            self._copy(numbers, self._to_layers, ())
            self._to_parameters = np.argsort(self._to_layers)

    def to_layers(self, flat: NDArray[Any], out: NDArray[Any]) -> None:
        """Copy (..., parameters) in their order into the layers' order."""
        if self.is_same:
            np.copyto(out, flat)
        elif self._to_layers.size:
            flat.take(self._to_layers, axis=-1, out=out, mode="clip")
        else:
            self._copy(flat, out, self._lead)

    def to_parameters(self, layers: NDArray[Any], out: NDArray[Any]) -> None:
        """Copy (..., parameters) in the layers' order into their own."""
        if self.is_same:
            np.copyto(out, layers)
        elif self._to_parameters.size:
            layers.take(self._to_parameters, axis=-1, out=out, mode="clip")
        else:
            for layer, (weight, bias) in self._pairs(layers, out, self._lead):
                np.copyto(weight, layer[..., :-1])
                np.copyto(bias, layer[..., -1:])

    def _copy(self, flat: NDArray[Any], out: NDArray[Any], lead: tuple[int, ...]) -> None:
        for layer, (weight, bias) in self._pairs(out, flat, lead):
            np.copyto(layer[..., :-1], weight)
            np.copyto(layer[..., -1:], bias)

    def _pairs(self, layers: NDArray[Any], flat: NDArray[Any], lead: tuple[int, ...]) -> Iterator[Any]:
        return zip(as_layers(layers, self._shapes), by_parameter(flat, self._shapes, lead), strict=True)


class HeldWeights:
    """All layers' weights, or several models' of the same shapes.

    Args:
        top: what a layer's largest weight is brought to, at least, and less than twice that.
    """

    def __init__(self, shapes: Shapes, lead: tuple[int, ...], top: float, order: Order) -> None:
        self._shapes, self._lead, self._top, self._order = shapes, lead, top, order
        size = sum(out * (into + 1) for out, into in shapes)
        self._is_small, self._is_quick = size <= _SMALL, not lead and size <= _SMALL
        self._starts = [weight.start for weight, _, _ in spans(shapes)]
        self._whole = np.empty((*lead, size))
        self._scaled, self._steps = (np.empty(size if self._is_quick else 0) for _ in range(2))
        self._weights = list(as_layers(self._whole, shapes))
        self._transposed = [np.swapaxes(weight[..., :-1], -1, -2) for weight in self._weights]
        self._loaded_scales: list[float] = []
        self.scales: Sequence[Any] = [top] * len(shapes)

    def load(self, flat: Floats) -> None:
        """Take the parameters, (..., parameters), each layer's weight and then its bias."""
        sizes = np.abs(flat) if self._is_small else np.abs(flat, self._whole)
        largest = np.maximum.reduceat(sizes, self._starts, axis=-1)  # (..., layers)
        if self._is_quick:
            self._load_quickly(flat, [_scale(self._top, size) for size in largest.tolist()])
            return
        if self._lead:
            with np.errstate(all="ignore"):
                scales = self._top / power_below(largest.astype(np.float64))
            scales[largest == 0.0] = self._top
            scales[~(largest < math.inf)] = math.nan  # as `_scale`
            self.scales = [scales[..., i, None, None] for i in range(len(self._shapes))]
        else:
            self.scales = [np.array(_scale(self._top, size)) for size in largest.tolist()]
        parameters = by_parameter(flat, self._shapes, self._lead)
        for layer, scale, (weight, bias) in zip(self._weights, self.scales, parameters, strict=True):
            np.multiply(weight, scale, layer[..., :-1], dtype=np.float64)
            np.multiply(bias, scale, layer[..., -1:], dtype=np.float64)
        np.rint(self._whole, self._whole)

    def _load_quickly(self, flat: Floats, scales: list[float]) -> None:
        if scales != self._loaded_scales:  # seldom: they are powers of two
            self._loaded_scales, self.scales = scales, [np.array(scale) for scale in scales]
            for start, following, scale in zip(self._starts, [*self._starts[1:], None], scales, strict=True):
                self._steps[start:following] = scale
        np.multiply(flat, self._steps, self._scaled)
        np.rint(self._scaled, self._scaled)
        self._order.to_layers(self._scaled, self._whole)

    def multiply(self, layer: int, read: Doubles, out: Doubles) -> None:
        """Write weight times what the layer read: (..., in + 1, rows) -> (..., out, rows)."""
        np.matmul(self._weights[layer], read, out)

    def multiply_back(self, layer: int, back: Doubles, out: Doubles) -> None:
        """Write the transposed weight, without the bias, times what came back: (..., out, rows) -> (..., in, rows)."""
        if self._shapes[layer][0] == 1:
            np.multiply(self._transposed[layer], back, out)
        else:
            np.matmul(self._transposed[layer], back, out)


class WeightsInPieces:
    """The weights of one large model; its parameters are read again in each product."""

    def __init__(self, shapes: Shapes, top: float) -> None:
        self._shapes, self._top = shapes, top
        self._given: list[tuple[Floats, Floats]] = []
        self.scales: Sequence[Any] = [np.array(top)] * len(shapes)

    def load(self, flat: Floats) -> None:
        """Take the parameters, (parameters,), which must stay as they are until the last product."""
        self._given = list(by_parameter(flat, self._shapes, ()))
        self.scales = [np.array(_scale(self._top, _largest(*layer))) for layer in self._given]

    def multiply(self, layer: int, read: Doubles, out: Doubles) -> None:
        """See `HeldWeights`."""
        for rows, piece in self._pieces(layer):
            np.matmul(piece, read, out=out[rows])

    def multiply_back(self, layer: int, back: Doubles, out: Doubles) -> None:
        """See `HeldWeights`."""
        out.fill(0.0)
        for rows, piece in self._pieces(layer):
            out += np.matmul(piece[:, :-1].T, back[rows])  # whole numbers: exact in any order

    def _pieces(self, layer: int) -> Iterator[tuple[slice, Doubles]]:
        (weight, bias), scale = self._given[layer], self.scales[layer]
        for rows, room in pieces_of(*self._shapes[layer]):
            np.multiply(weight[rows], scale, room[:, :-1], dtype=np.float64)
            np.multiply(bias[rows], scale, room[:, -1:], dtype=np.float64)
            yield rows, np.rint(room, out=room)


def pieces_of(out: int, into: int) -> Iterator[tuple[slice, Doubles]]:
    """Yield spans of a layer's outputs, and room for their weights: (outputs, in + 1), the same memory each time."""
    most = max(1, min(out, _PIECE // (into + 1)))
    room = np.empty((most, into + 1))
    for start in range(0, out, most):
        end = min(out, start + most)
        yield slice(start, end), room[: end - start]


def _largest(*arrays: Floats) -> float:
    """Return the largest absolute value, no number where there is one that is none, without a copy of all."""
    largest = np.float32(0.0)
    for flat in (array.reshape(-1) for array in arrays):
        for start in range(0, len(flat), _PIECE):
            largest = np.maximum(largest, np.maximum.reduce(np.abs(flat[start : start + _PIECE])))
    return float(largest)


def _scale(top: float, largest: float) -> float:
    """Return `top` over the power of two below the largest weight; NaN where a weight is not finite."""
    if not largest < math.inf:
        return math.nan
    return math.ldexp(top, 1 - math.frexp(largest)[1]) if largest else top


def as_layers(flat: Doubles, shapes: Shapes) -> Iterator[Doubles]:
    """Yield views of (..., parameters) as each layer's (..., out, in + 1), the bias last."""
    start = 0
    for out, into in shapes:
        end = start + out * (into + 1)
        yield flat[..., start:end].reshape(*flat.shape[:-1], out, into + 1)
        start = end


def spans(shapes: Shapes) -> Iterator[tuple[slice, slice, tuple[int, int]]]:
    """Yield where each layer's weight and bias lie among a model's parameters."""
    ends = itertools.accumulate((out * (into + 1) for out, into in shapes), initial=0)
    for start, (out, into) in zip(ends, shapes, strict=False):
        middle = start + out * into
        yield slice(start, middle), slice(middle, middle + out), (out, into)


def by_parameter(
    flat: NDArray[Any], shapes: Shapes, lead: tuple[int, ...]
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield views of (..., parameters) as each layer's weight, (..., out, in), and bias, (..., out, 1)."""
    for weight, bias, (out, into) in spans(shapes):
        yield flat[..., weight].reshape(*lead, out, into), flat[..., bias, None]
