"""Clipped sums of linear stacks in exact arithmetic.

A row's gradient is an outer product at each layer, of what the layer read and what came back to it, so that the norm
and the sum of patients with one row need no (patients, parameters) tensor (Goodfellow 2015, arXiv 1510.01799).

**What one patient adds is a function of that patient's rows and of the model alone, to the last bit.** A coordinator
can send parameters under which the last bit is the whole gradient: were anybody's last bit to turn on who else is in
the batch, everybody's would turn at once (Casacuberta et al. 2022, arXiv 2207.10635, show what orders of addition do
to sensitivities). Therefore:

- each row is rounded by its own size, and every product after that is exact (strategies/exact/layers.py)
- each patient's gradient is brought to a norm of at most one, rounded to whole multiples of one public step, 2^-47,
  with room left for the rounding, and added up without any loss (strategies/exact/sums.py); then comes the clip norm
- how a patient is worked out follows from that patient's own number of rows, never from another's
- no absolute size decides anything: norms are worked out from factors that were brought to the same size first
- patients with a non-finite gradient contribute zero: an error would reveal, without noise, that they are there

>>> layers = Layers(((1, 1),))
>>> layers.load(np.zeros(2, np.float32))
>>> stack = Stack(layers, lambda outputs, y: outputs - y[:, None], clip_norm=0.5)
>>> stack.add_rows(np.array([[30.0], [40.0]], np.float32), np.ones(2, np.float32))  # two patients
>>> round(float(np.linalg.norm(stack.take())), 4)
1.0
"""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.exact.functions import ONE, added, power_below
from strategies.exact.layers import BLOCK, LARGEST, PORTION, Layers, Work, portions
from strategies.exact.sums import ExactSum
from strategies.exact.weights import as_layers

_TINY = np.array(1e-6)  # Opacus's
_ZERO, _HALF_A_STEP = np.array(0.0), np.array(0.5)
_BUILT = 1 << 18  # numbers of several patients' gradients that are built together
_ROWS = 1 << 13  # of several patients whose gradients are built together
_STEPS = 2.0**47  # of the public grid to a norm of one: BLOCK patients of them stay below 2^53

_STEPS_TO_ONE = np.array(_STEPS)
_FEW_ROWS = 80  # up to which all layers' squares are quicker added up in one call

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Residual = Callable[[Doubles, Floats], Doubles]  # (..., rows, outputs), (..., rows) -> (..., rows, outputs)


class Stack:
    """The clipped sums of the models that `layers` has loaded, one sum each.

    Args:
        residual: derivative of each row's loss with respect to its outputs.
    """

    def __init__(self, layers: Layers, residual: Residual, clip_norm: float) -> None:
        self._layers, self._residual, self._clip = layers, residual, clip_norm
        self._most = np.array(4.0 * _STEPS / layers.top)
        self._unit = np.array(clip_norm / _STEPS)
        self._sum = ExactSum((*layers.lead, layers.size))
        self._total = np.zeros((*layers.lead, layers.size))
        self._rooms: dict[int, list[Doubles]] = {}

    @cached_property
    def _block_sums(self) -> Doubles:
        return np.empty((PORTION // BLOCK, *self._layers.lead, self._layers.size))

    def take(self) -> Doubles:
        """Return the sum, (..., parameters), in the parameters' order: rounded once; valid until the next call.

        The next sum begins at zero.
        """
        values = self._sum.value()
        if self._layers.order.is_same:
            np.multiply(values, self._unit, self._total)
        else:
            np.multiply(values, self._unit, values)
            self._layers.order.to_parameters(values, self._total)
        np.add(self._total, _ZERO, self._total)  # no zero keeps a sign, which could follow from an order
        self._sum.clear()
        return self._total

    def _by_layer(self, values: Doubles) -> list[Doubles]:
        """Return views of an array of the sum, (..., out, in + 1) of each layer."""
        if id(values) not in self._rooms:
            self._rooms[id(values)] = list(as_layers(values, self._layers.shapes))
        return self._rooms[id(values)]

    def add_rows(self, x: Floats, y: Floats, counts: NDArray[np.int64] | None = None) -> None:
        """Add the clipped gradients of patients with one row each.

        Args:
            x: (..., patients, inputs); y: (..., patients), or (..., patients, targets).
            counts: patients of each model, (...); the rows after them are padding.
        """
        with np.errstate(all="ignore"):
            if x.shape[-2] <= PORTION:
                self._add_portion(x, y, counts)
                return
            models = (slice(None),) * (x.ndim - 2)
            for some in portions(x.shape[-2]):
                rest = None if counts is None else counts - some.start
                self._add_portion(x[..., some, :], y[(*models, some)], rest)

    def _add_portion(self, x: Floats, y: Floats, counts: NDArray[np.int64] | None) -> None:
        work = self._worked(x, y)
        self._scale_backs(work, counts)
        self._add_products(work)

    def _add_products(self, work: Work) -> None:
        if work.blocks:
            parts = self._block_sums[: work.blocks]
            for back, read, room in zip(
                work.back_blocks, work.read_blocks, as_layers(parts, self._layers.shapes), strict=True
            ):
                np.matmul(back, read, out=room)
            self._sum.add_all(parts)
        if work.rest.stop > work.rest.start:
            for back, columns, into in zip(work.backs, work.columns, self._by_layer(self._sum.room()), strict=True):
                np.matmul(back[..., work.rest], columns[..., work.rest, :], out=into)
            self._sum.add()

    def add_patients(self, x: Floats, y: Floats, rows: NDArray[np.int64]) -> None:
        """Add patients with equally many rows: rows (patients, rows of each), row numbers. For one model."""
        at_once = max(1, min(BLOCK, _BUILT // self._layers.size, _ROWS // min(rows.shape[1], PORTION)))
        for start in range(0, len(rows), at_once):
            with np.errstate(all="ignore"):
                self._add_built(self._built(x, y, rows[start : start + at_once]))

    def _worked(self, x: Floats, y: Floats) -> Work:
        work = self._layers.work(x.shape[-2])
        self._layers.backward(work, self._residual(self._layers.forward(work, x), y))
        return work

    def _scale_backs(self, work: Work, counts: Any) -> None:
        """Multiply each row's derivatives, to be steps of the public grid.

        Rows that must not count become zeros.
        """
        self._square(work)
        units = np.multiply(work.ones, work.scales, work.units)
        np.divide(ONE, units, units)  # (layers, ..., rows): of a whole number of the gradient
        lost = added_in_order(work.read_squares * self._layers.widths)  # squared: of what half a step of all is
        products = np.multiply(work.read_squares, work.back_squares, work.read_squares)
        np.multiply(products, units, products)
        np.multiply(products, units, products)
        norms = added_in_order(products)
        if not np.maximum.reduce(norms, None) < np.inf:
            bad = ~(norms < np.inf)
            norms[bad] = np.inf
            lost[bad] = 0.0
            for part in (work.all_reads, work.all_backs):
                np.copyto(part, 0.0, where=bad[..., None, :])
            np.copyto(units, 0.0, where=bad)
        shares = _steps_of(norms, self._clip, np.sqrt(lost))
        if counts is not None:
            shares *= np.arange(shares.shape[-1]) < counts[..., None]
        np.multiply(units, shares, units)
        np.minimum(units, self._most, out=units)  # more only where all is zero
        work.units_by_model.take(self._layers.back_layers, axis=-2, out=work.back_room, mode="clip")
        np.multiply(work.all_backs, work.back_room, work.all_backs)
        np.rint(work.all_backs, work.all_backs)

    def _square(self, work: Work) -> None:
        """Write each row's squared norms of what a layer read and of what came back: whole numbers, exact."""
        if work.rows > _FEW_ROWS:
            for squares, parts in zip(work.squares_by_model, (work.reads, work.backs), strict=True):
                for i, part in enumerate(parts):
                    np.einsum("...ij,...ij->...j", part, part, out=squares[..., i, :])
            return
        np.multiply(work.all_reads, work.all_reads, work.read_room)
        np.add.reduceat(work.read_room, self._layers.read_starts, -2, None, work.squares_by_model[0])
        np.multiply(work.all_backs, work.all_backs, work.back_room)
        np.add.reduceat(work.back_room, self._layers.back_starts, -2, None, work.squares_by_model[1])

    def _built(self, x: Floats, y: Floats, rows: NDArray[np.int64]) -> list[tuple[Doubles, Doubles]]:
        """Return each patient's gradient of each layer, (patients, out, in + 1), with its unit, (patients, 1, 1)."""
        gradients: list[tuple[Doubles, Doubles]] = []
        for start in range(0, rows.shape[1], PORTION):
            part = self._built_portion(x, y, rows[:, start : start + PORTION])
            gradients = [_joined(*pair) for pair in zip(gradients, part, strict=True)] if start else part
        return gradients

    def _built_portion(self, x: Floats, y: Floats, rows: NDArray[np.int64]) -> list[tuple[Doubles, Doubles]]:
        reads, backs, units = self._all_rows(x, y, rows)
        top, gradients = self._layers.top_of(rows.shape[1]), []
        for read, back, unit in zip(reads, backs, units, strict=True):
            sizes = unit * np.abs(back).max(axis=2)  # (patients, rows)
            most = power_below(sizes.max(axis=1))[:, None]  # of each patient's own rows
            most[most == 0.0] = 1.0
            back *= (unit / most * top)[:, :, None]
            np.copyto(back, 0.0, where=(sizes == 0.0)[:, :, None])
            np.rint(back, out=back)
            whole = np.matmul(back.transpose(0, 2, 1), read)  # (patients, out, in + 1): exact
            gradients.append((whole, (most / top)[:, :, None]))
        return gradients

    def _all_rows(
        self, x: Floats, y: Floats, rows: NDArray[np.int64]
    ) -> tuple[list[Doubles], list[Doubles], list[Doubles]]:
        """Return reads, (patients, rows of each, in + 1), and backs and their units: (patients, rows of each)."""
        patients, each = rows.shape
        shapes = self._layers.shapes
        reads = [np.empty((patients * each, into + 1)) for _, into in shapes]
        backs = [np.empty((patients * each, out)) for out, _ in shapes]
        units = np.empty((len(shapes), patients * each))
        flat = rows.reshape(-1)
        for some in portions(len(flat)):
            work = self._worked(x[flat[some]], y[flat[some]])
            units[:, some] = 1.0 / (work.ones * work.scales)
            for i, (read, back) in enumerate(zip(work.reads, work.backs, strict=True)):
                reads[i][some], backs[i][some] = read.T, back.T
        return (
            [read.reshape(patients, each, -1) for read in reads],
            [back.reshape(patients, each, -1) for back in backs],
            [unit.reshape(patients, each) for unit in units],
        )

    def _add_built(self, gradients: list[tuple[Doubles, Doubles]]) -> None:
        norms = np.zeros(len(gradients[0][0]))
        for whole, unit in gradients:
            squares = added((whole * whole).reshape(len(whole), -1))
            unit = unit.reshape(-1)
            norms += np.where(squares == 0.0, 0.0, squares * unit * unit)
        bad = ~(norms < np.inf)
        share = _steps_of(np.where(bad, np.inf, norms), self._clip, math.sqrt(self._layers.size))[:, None, None]
        room = self._sum.room()
        for (whole, unit), into in zip(gradients, self._by_layer(room), strict=True):
            whole *= np.minimum(unit * share, LARGEST)
            np.copyto(whole, 0.0, where=bad[:, None, None])
            np.rint(whole, out=whole)
            np.add.reduce(whole, 0, out=into)
        self._sum.add()


def _steps_of(squares: Doubles, clip_norm: float, lost: Any) -> Doubles:
    """Return Opacus's clip / (norm + 1e-6), at most 1, over the clip norm, in steps of the grid, from squared norms.

    A clipped gradient leaves room for rounding, which moves it by up to half of `lost` steps (L2 norm).
    """
    norms = np.sqrt(squares)
    np.add(norms, _TINY, norms)
    np.divide(np.maximum(_STEPS_TO_ONE - lost * _HALF_A_STEP, _ZERO), norms, norms)
    return np.minimum(norms, _STEPS / clip_norm, out=norms)


def added_in_order(parts: Doubles) -> Doubles:
    """Return the sum over the first axis, one part after the other, whatever the other axes are; in the first part."""
    total: Doubles = parts[0]
    for part in parts[1:]:
        np.add(total, part, total)
    return total


def _joined(first: tuple[Doubles, Doubles], other: tuple[Doubles, Doubles]) -> tuple[Doubles, Doubles]:
    """Add two portions of the same patients' rows, in the larger unit."""
    unit = np.maximum(first[1], other[1])
    whole = first[0] * (first[1] / unit) + other[0] * (other[1] / unit)
    return whole, unit
