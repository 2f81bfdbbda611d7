"""Batch-invariant linear stacks in exact products, with the same bits on every processor.

Order, batch and block change no bit. The factors of each product are rounded to whole numbers of `bits` binary digits,
times a power of two. Each sum of their products is then a whole number below 2^53, which float64 holds: every partial
sum is exact, so that no order, no BLAS kernel and no number of threads can change a bit.

What a row is rounded to follows from the row and the model alone: its own largest number, never the other rows of the
batch. So a row's output does not depend on the other rows, and no precision is lost to a bound that must hold for all.
The factors have 23 digits where no layer is wider than 127, about those of float32, 22 up to 511, and so on.

Arrays lie with the features first and the rows last, (..., features, rows), which makes the maxima over a row's
features cheap. Leading axes are models of the same shapes, worked through together, each with the bits it has alone.

>>> layers = Layers(((1, 2),))
>>> layers.load(np.array([1.0, 2.0, 0.5], np.float32))
>>> layers.outputs(np.array([[1.0, 1.0], [0.0, 1.0]], np.float32)).tolist()
[[3.5], [2.5]]
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.exact.functions import EXPONENT, ONE, power_below
from strategies.exact.weights import HeldWeights, Order, Shapes, WeightsInPieces, as_layers, by_parameter, pieces_of

IN_PIECES = 1 << 24  # parameters of a model from which on whole numbers are made anew for each product, in pieces
PORTION = 512  # rows that are worked through together: few enough for the cache
BLOCK = 64  # rows whose gradients are added up in one product
_MOST_BITS = 23  # of a factor: what a row read leaves room for what comes back to it
_KEPT_SIZES = 64  # numbers of rows whose arrays are kept
LARGEST = 2.0**1000  # scale
_LARGEST = np.array(LARGEST)

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Residual = Callable[[Doubles], Doubles]  # (..., rows, outputs) -> derivative of the loss, of the same shape


def bits_of(shapes: Shapes) -> int:
    """Return the factors' binary digits with which the longest sum of their products stays below 2^53."""
    longest = max(max(into + 1, out) for out, into in shapes)
    return min(_MOST_BITS, (53 - (longest - 1).bit_length()) // 2)


class Work:
    """The arrays of so many rows; at these sizes making room costs as much as the arithmetic.

    `reads[l]`: (..., in + 1, rows), what layer l read, whole numbers, its last feature the one of the bias; over
    `ones[l]`: (..., rows). `backs[l]`: (..., out, rows), the derivative that came back; over `scales[l]`.
    """

    def __init__(self, shapes: Shapes, lead: tuple[int, ...], rows: int, memory: "Memory") -> None:
        self.rows = rows
        self.all_reads = memory.array("reads", *lead, sum(into + 1 for _, into in shapes), rows)
        self.all_backs = memory.array("backs", *lead, sum(out for out, _ in shapes), rows)
        self.reads = _stacked(self.all_reads, [into + 1 for _, into in shapes])
        self.backs = _stacked(self.all_backs, [out for out, _ in shapes])
        self.read_room, self.back_room = (
            memory.array("room", *every.shape) for every in (self.all_reads, self.all_backs)
        )
        self.squares_by_model = [memory.array(f"{of} squares", *lead, len(shapes), rows) for of in ("read", "back")]
        self.units_by_model = memory.array("units", *lead, len(shapes), rows)
        self.read_squares, self.back_squares, self.units = (
            np.moveaxis(each, -2, 0) for each in (*self.squares_by_model, self.units_by_model)
        )
        self.ones, self.scales = (memory.array(name, len(shapes), *lead, rows) for name in ("ones", "scales"))
        self.inner = [read[..., :-1, :] for read in self.reads]
        self.bottoms = [read[..., -1:, :] for read in self.reads]
        self.columns = [np.swapaxes(read, -1, -2) for read in self.reads]
        self.blocks = rows // BLOCK if rows > BLOCK else 0
        self.read_blocks = [np.swapaxes(_blocks(read, self.blocks), -1, -2) for read in self.reads]
        self.back_blocks = [_blocks(back, self.blocks) for back in self.backs]
        self.rest = slice(BLOCK * self.blocks, rows)
        self.one_rows = [row[..., None, :] for row in self.ones]
        self.scale_rows = [scale[..., None, :] for scale in self.scales]
        self.unit_rows = [unit[..., None, :] for unit in self.units]
        self.masks = [memory.array("mask", *read.shape) for read in self.reads]
        self.inner_masks = [memory.array("mask", *inner.shape) for inner in self.inner]
        self.zeros = [memory.array("zeros", *read.shape) for read in self.reads]  # quicker than the number
        self.peaks, self.row = (memory.array(name, *lead, 1, rows) for name in ("peaks", "row"))
        self.peak_bits = self.peaks.view(np.int64)


class Memory:
    """Arrays by name that share their memory from one size to the next, so that it stays in the processor's cache.

    Batches of a sample differ in size: with arrays of its own each size would find them in slower memory. An array is
    zeros until somebody writes to it.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Doubles] = {}

    def array(self, name: str, *shape: int) -> Doubles:
        """Return an array of this shape at the start of what the name holds, which grows where it is too small."""
        size = math.prod(shape)
        if name not in self._kept or self._kept[name].size < size:
            self._kept[name] = np.zeros(1 << (size - 1).bit_length())
        return self._kept[name][:size].reshape(shape)


def _stacked(values: Doubles, sizes: Sequence[int]) -> list[Doubles]:
    """Return views of (..., features, rows) with so many features each."""
    ends = list(itertools.accumulate(sizes))
    return [values[..., end - size : end, :] for size, end in zip(sizes, ends, strict=True)]


def _blocks(values: Doubles, count: int) -> Doubles:
    """Return views of (..., features, rows) as whole blocks of rows: (blocks, ..., features, BLOCK)."""
    return np.moveaxis(values[..., : count * BLOCK].reshape(*values.shape[:-1], count, BLOCK), -2, 0)


class Layers:
    """The weights of one linear stack (or of several alike), ready for exact products.

    Args:
        shapes: (out, in) of each layer, a ReLU between two.
        lead: leading axes: () for one model, (models,) for several.
    """

    def __init__(self, shapes: Shapes, lead: tuple[int, ...] = ()) -> None:
        self.shapes, self.lead = shapes, lead
        self.bits = bits_of(shapes)
        self.top = math.ldexp(1.0, self.bits - 1)
        self._top = np.array(self.top)
        self.size = sum(out * (into + 1) for out, into in shapes)
        self.order = Order(shapes, lead)
        self.in_pieces = not lead and self.size >= IN_PIECES
        self._weights: WeightsInPieces | HeldWeights
        self._weights = (
            WeightsInPieces(shapes, self.top) if self.in_pieces else HeldWeights(shapes, lead, self.top, self.order)
        )
        self.read_starts = np.cumsum([0, *(into + 1 for _, into in shapes)])[:-1]
        self.back_starts = np.cumsum([0, *(out for out, _ in shapes)])[:-1]
        self.back_layers = np.repeat(np.arange(len(shapes)), [out for out, _ in shapes])
        self.widths = np.array([float(out) for out, _ in shapes]).reshape(-1, *(1 for _ in lead), 1)
        self._works: dict[int, Work] = {}
        self._memory = Memory()

    def load(self, flat: NDArray[np.float32]) -> None:
        """Take the parameters, (..., parameters), each layer's weight and then its bias.

        Of a large model they are read again in each product, and must stay as they are until then.
        """
        self._weights.load(flat)

    def top_of(self, rows: int) -> float:
        """Return half of the largest factor with which so many rows' gradients are added up in one exact product."""
        return math.ldexp(1.0, 52 - self.bits - (rows - 1).bit_length())

    def work(self, rows: int) -> Work:
        """Return working arrays for so many rows, overwritten by the next use."""
        if rows not in self._works:
            if len(self._works) >= _KEPT_SIZES:
                self._works.clear()
            self._works[rows] = Work(self.shapes, self.lead, rows, self._memory)
        return self._works[rows]

    def outputs(self, x: NDArray[Any]) -> Doubles:
        """Return the outputs: (..., rows, inputs) -> (..., rows, outputs)."""
        result = np.empty((*x.shape[:-1], self.shapes[-1][0]))
        with np.errstate(all="ignore"):
            for some in portions(x.shape[-2]):
                part = x[..., some, :]
                result[..., some, :] = self.forward(self.work(part.shape[-2]), part)
        return result

    def forward(self, work: Work, x: NDArray[Any]) -> Doubles:
        """Fill `reads` from one portion's rows: (..., rows, inputs) -> (..., rows, outputs), in float64."""
        scale_row, read, last = work.one_rows[0], work.reads[0], len(self.shapes) - 1
        peaks, bits, units, top, weights = work.peaks, work.peak_bits, work.row, self._top, self._weights
        np.copyto(work.inner[0], np.swapaxes(x, -1, -2))
        np.copyto(work.bottoms[0], ONE)
        np.maximum.reduce(np.absolute(read, work.masks[0]), axis=-2, keepdims=True, out=peaks)
        np.bitwise_and(bits, EXPONENT, bits)
        np.divide(top, peaks, scale_row)
        np.multiply(read, scale_row, read)
        np.rint(read, read)
        for i in range(last):
            read, bottom = work.reads[i + 1], work.bottoms[i + 1]
            weights.multiply(i, work.reads[i], work.inner[i + 1])
            np.multiply(scale_row, weights.scales[i], bottom)
            np.maximum.reduce(read, axis=-2, keepdims=True, out=peaks)
            np.bitwise_and(bits, EXPONENT, bits)
            np.divide(top, peaks, peaks)
            scale_row = np.multiply(bottom, peaks, work.one_rows[i + 1])
            np.multiply(read, peaks, read)
            np.maximum(read, work.zeros[i + 1], out=read)
            np.rint(read, read)
        outputs = np.empty((*self.lead, self.shapes[last][0], work.rows))
        weights.multiply(last, work.reads[last], outputs)
        np.divide(outputs, np.multiply(scale_row, weights.scales[last], units), outputs)
        return np.swapaxes(outputs, -1, -2)

    def backward(self, work: Work, residual: Doubles) -> None:
        """Fill `backs` from the loss's derivative with respect to the outputs, (..., rows, outputs)."""
        last, peaks, bits, top = len(self.shapes) - 1, work.peaks, work.peak_bits, self._top
        back, scale = work.backs[last], work.scale_rows[last]
        np.copyto(back, np.swapaxes(residual, -1, -2))
        if self.shapes[last][0] == 1:
            np.absolute(back, peaks)
        else:
            np.maximum.reduce(np.absolute(back), axis=-2, keepdims=True, out=peaks)
        np.bitwise_and(bits, EXPONENT, bits)
        np.divide(top, peaks, scale)
        np.minimum(scale, _LARGEST, out=scale)
        np.multiply(back, scale, back)
        np.rint(back, back)
        for i in range(last, 0, -1):
            before, mask = work.backs[i - 1], work.inner_masks[i]
            self._weights.multiply_back(i, back, before)
            np.maximum.reduce(np.absolute(before, mask), axis=-2, keepdims=True, out=peaks)
            np.bitwise_and(bits, EXPONENT, bits)
            np.divide(top, peaks, peaks)
            np.minimum(peaks, ONE, out=peaks)
            following = np.multiply(scale, self._weights.scales[i], work.scale_rows[i - 1])
            scale = np.multiply(following, peaks, following)
            # The ReLU: what was read is whole, so what is above zero is at least 1, which is the most of a scale.
            np.multiply(before, np.minimum(work.inner[i], peaks, out=mask), before)
            back = np.rint(before, before)


class MeanGradient:
    """The plain gradient of a batch's mean loss. What a portion is rounded to follows from all of its rows."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers

    @cached_property
    def _parts(self) -> Doubles:
        return np.empty((*self._layers.lead, self._layers.size))

    @cached_property
    def _by_layer(self) -> list[Doubles]:
        return list(as_layers(self._parts, self._layers.shapes))

    def of(
        self,
        x: NDArray[Any],
        residual: Callable[[slice], Residual],
        count: Any,
        counts: NDArray[np.int64] | None = None,
    ) -> Doubles:
        """Return the sum of the rows' gradients over `count`, (..., parameters) in the layers' order.

        They are valid until the next call.

        Args:
            x: (..., rows, inputs).
            residual: of the rows of a portion.
            count: rows, of all models or (models, 1, 1) of each.
            counts: rows of each model, (models,), where they differ; the rows after them are padding.
        """
        sums = None
        with np.errstate(all="ignore"):
            for some in portions(x.shape[-2]):
                if some.start:
                    sums = self._parts.copy() if sums is None else np.add(sums, self._parts, out=sums)
                work = self._layers.work(some.stop - some.start)
                outputs = self._layers.forward(work, x[..., some, :])
                back, lengths = residual(some)(outputs), None
                if counts is not None:
                    lengths = np.minimum(np.maximum(counts - some.start, 0), work.rows)
                    np.copyto(back, 0.0, where=(np.arange(work.rows) >= lengths[:, None])[..., None])
                self._layers.backward(work, back)
                self._fill(work, count, lengths)
            return self._parts if sums is None else np.add(sums, self._parts, out=sums)

    def write(
        self, x: NDArray[Any], residual: Callable[[slice], Residual], count: int, into: Sequence[tuple[Floats, Floats]]
    ) -> None:
        """Write `of` one model into each layer's weight, (out, in), and bias, (out, 1)."""
        if self._layers.in_pieces and len(x) <= PORTION:
            self._write_in_pieces(x, residual, count, into)
            return
        for layer, (weight, bias) in zip(
            as_layers(self.of(x, residual, count), self._layers.shapes), into, strict=True
        ):
            write_layer(layer, weight, bias)

    def _write_in_pieces(
        self, x: NDArray[Any], residual: Callable[[slice], Residual], count: int, into: Sequence[tuple[Floats, Floats]]
    ) -> None:
        work = self._layers.work(len(x))
        with np.errstate(all="ignore"):
            self._layers.backward(work, residual(slice(0, len(x)))(self._layers.forward(work, x)))
            top = self._layers.top_of(work.rows)
            self._invert_units(work)
            for i, (weight, bias) in enumerate(into):
                scale = self._round_back(work, i, top)
                for rows, room in pieces_of(*self._layers.shapes[i]):
                    np.matmul(work.backs[i][rows], work.columns[i], out=room)
                    room *= 1.0 / (scale * count)
                    write_layer(room, weight[rows], bias[rows])

    def _fill(self, work: Work, count: Any, own: NDArray[np.int64] | None) -> None:
        top: Any = self._layers.top_of(work.rows)
        if own is not None:  # each model's as it has it alone
            top = np.array([self._layers.top_of(max(1, rows)) for rows in own.tolist()])[:, None, None]
        self._invert_units(work)
        for i, part in enumerate(self._by_layer):
            scale = self._round_back(work, i, top)
            np.matmul(work.backs[i], work.columns[i], out=part)
            part *= 1.0 / (scale * count)

    def _invert_units(self, work: Work) -> None:
        np.divide(1.0, np.multiply(work.ones, work.scales, out=work.units), out=work.units)

    def _round_back(self, work: Work, i: int, top: Any) -> Doubles:
        """Round a layer's derivatives to the largest whole numbers with exact products; return their scale."""
        back = work.backs[i]
        back *= work.unit_rows[i]  # in units of what the layer read
        largest = np.maximum.reduce(back, (-2, -1), keepdims=True)
        np.maximum(largest, -np.minimum.reduce(back, (-2, -1), keepdims=True), out=largest)
        scale: Doubles = np.minimum(top / power_below(largest), LARGEST)
        back *= scale
        np.rint(back, out=back)
        return scale


def write_layer(layer: Doubles, weight: Floats, bias: Floats) -> None:
    """Write a layer's (..., out, in + 1) in float32 into its weight, (..., out, in), and bias, (..., out, 1)."""
    with np.errstate(over="ignore"):  # a fit that diverges is reported by its caller
        np.add(layer[..., :-1], 0.0, out=weight, casting="same_kind")  # a zero's sign could be an order's
        np.add(layer[..., -1:], 0.0, out=bias, casting="same_kind")


@lru_cache(maxsize=1)
def one_thread() -> None:
    """Keep NumPy's products on one thread: a second changes no bit, and costs more than it brings at these sizes."""
    from threadpoolctl import threadpool_limits  # binds what a worker's fence has replaced by then (client/fence.py)

    threadpool_limits(1, user_api="blas")


def portions(rows: int) -> Iterator[slice]:
    """Return spans of rows that are worked through together."""
    return (slice(start, min(rows, start + PORTION)) for start in range(0, rows, PORTION))


def in_order(flat: NDArray[Any], layers: Layers) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield views of (..., parameters) as each layer's weight, (..., out, in), and bias, (..., out, 1)."""
    return by_parameter(flat, layers.shapes, layers.lead)
