"""Clipped sums of linear stacks, in NumPy: every model that a study can name.

A row's gradient is an outer product at each layer, of what the layer read and what came back to it, so that norms and
sums need no (patients, parameters) tensor (Goodfellow 2015, arXiv 1510.01799). At these sizes calls cost more than the
arithmetic, and NumPy's cost a third of PyTorch's.

**What one patient adds is that patient's alone, to the last bit.** Whoever joins moves others to other places of the
batch. A product that is added up in another order there has other last bits, and a coordinator can send parameters
under which the last bit is the whole gradient: everybody's would turn (Casacuberta et al. 2022, arXiv 2207.10635, show
what such orders do to sensitivities). Therefore:

- rows are worked through in tiles of a fixed size, filled up with rows of nobody, and a product's kernel treats all
  rows of a tile alike: that is tried once for a model's shapes, and where it does not hold, a tile is one row
- several rows of one patient are added up by themselves, before the norm, in float64
- patients are added up in float64, where the order moves 1e-13 of a clip
- a patient whose gradient is not finite, or who drives a layer's input beyond 1e7, adds nothing. An error instead
  would tell, without noise, that such a patient is there


>>> from configs.schema import Model, Task
>>> from strategies.tasks.tabular import tabular_task
>>> model = FlatModel(tabular_task(Task("binary", "disease"), Model("logistic"), inputs=1))
>>> stack = Stack(model, clip_norm=0.5, tile=16)
>>> stack.add_rows(np.array([[30.0], [40.0]], np.float32), np.ones(2, np.float32))  # two patients
>>> round(float(np.linalg.norm(stack.total)), 4)
1.0
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from strategies.privacy.plan import PrivacyPlan
from strategies.tasks.gradients import FlatModel
from strategies.tasks.rows import TILE, one_thread, rows_are_alike

FEW_ROWS = 64  # whose sum loses nothing that counts in single precision
MOST_ROWS = 512  # of a tile: few enough for the cache
_READ = 1e14  # squared norm of what a layer may read, so that no square below is lost or infinite
_BUILT = 1 << 20  # numbers of several patients' gradients that are built together
_TINY = 1e-6  # Opacus's
_ONE = np.float32(1.0)

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def tile_rows(plan: PrivacyPlan) -> int:
    """Rows of a tile, from public numbers: nearly every batch is one tile, and few rows are nobody's."""
    expected = plan.expected_patients
    usual = expected + 2.5 * math.sqrt(expected * (1.0 - plan.sampling_rate))
    return int(min(MOST_ROWS, TILE * max(1, math.ceil(min(usual, MOST_ROWS) / TILE))))


class Stack:
    """The clipped sums of one model, which is read as it is at each call. `total` is the sum, (parameters,).

    Args:
        tile: rows that are worked through together, a multiple of 16.
        kept: rows of patients with several whose factors are kept at a time.
    """

    def __init__(self, model: FlatModel, clip_norm: float, tile: int, kept: int = 8192) -> None:
        one_thread()
        self._task, self._clip, self._kept = model.task, clip_norm, kept
        parameters = [view.numpy() for view in model.views]
        self._weights, self._biases = parameters[0::2], parameters[1::2]
        self._shapes = shapes = tuple((weight.shape[0], weight.shape[1]) for weight in self._weights)
        self._tile = tile = tile if rows_are_alike(shapes, tile) else 1
        self._transposed = [weight.T for weight in self._weights]
        self.total = np.zeros(len(model.flat))
        self._totals = [(self.total[weight].reshape(shape), self.total[bias]) for weight, bias, shape in _spans(shapes)]
        # Everything of a tile has its place: at these sizes making room costs as much as the arithmetic.
        self._y = np.zeros(tile, np.float32)
        self._reads = [np.zeros((tile, into), np.float32) for _, into in shapes]
        self._backs = [np.zeros((tile, out), np.float32) for out, _ in shapes]
        self._signs = [np.zeros((tile, into), np.float32) for _, into in shapes]
        self._read_squares, self._back_squares = (np.zeros((len(shapes), tile), np.float32) for _ in range(2))
        self._products, self._factor = np.zeros((len(shapes), tile)), np.zeros(tile)
        self._column, self._row = self._factor[:, None], np.zeros(tile, np.float32)
        self._short = self._row[:, None]
        self._wide = [np.ones((tile, into + 1)) for _, into in shapes]  # the bias reads a one
        self._tall = [np.zeros((tile, out)) for out, _ in shapes]
        self._sums = [np.zeros((out, into + 1)) for out, into in shapes]
        self._few = tile if tile <= FEW_ROWS else 0
        self._direct = list(
            zip(
                self._backs,
                self._reads,
                *((view.numpy() for view in model.gradient_views[first::2]) for first in (0, 1)),
                strict=True,
            )
        )
        self._last = [
            (back, tall, tall.T, read, wide, wide[:, :-1], sums, sums[:, :-1], sums[:, -1], *total)
            for back, tall, read, wide, sums, total in zip(
                self._backs, self._tall, self._reads, self._wide, self._sums, self._totals, strict=True
            )
        ]

    def write_few(self, x: Floats, y: Floats) -> bool:
        """Write the clipped sum of a usual small batch, one row a patient, into the model's `gradient`; if it is one.

        So few are added up in single precision: their order moves the sum by some 1e-6 of a clip.
        """
        if not 0 < len(x) <= self._few:
            return False
        with np.errstate(all="ignore"):
            self._set_factors(self._work(x, y))
        np.copyto(self._row, self._factor)
        for back, read, weight, bias in self._direct:
            np.dot(self._row, back, out=bias)
            back *= self._short
            np.dot(back.T, read, out=weight)
        return True

    def add_rows(self, x: Floats, y: Floats) -> None:
        """Add the clipped gradients of patients with one row each to `total`. x: (patients, inputs)."""
        for start in range(0, len(x), self._tile):
            with np.errstate(all="ignore"):  # what is not finite is left out
                self._set_factors(self._work(x[start : start + self._tile], y[start : start + self._tile]))
            for back, tall, across, read, wide, inputs, sums, by_weight, by_bias, weight, bias in self._last:
                np.multiply(back, self._column, out=tall)
                np.copyto(inputs, read)
                np.dot(across, wide, out=sums)
                weight += by_weight
                bias += by_bias

    def add_patients(self, x: Floats, y: Floats, rows: NDArray[np.int64]) -> None:
        """The same of patients with equally many rows: rows (patients, rows of each), row numbers."""
        at_once = max(1, min(_BUILT // len(self.total), self._kept // rows.shape[1]))
        with np.errstate(all="ignore"):
            for start in range(0, len(rows), at_once):
                self._add_built(self._built(x, y, rows[start : start + at_once]))

    def _work(self, x: Floats, y: Floats) -> int:
        """Fill `_reads` and `_backs` from a tile's rows; how many of them are somebody's."""
        count, last = len(x), len(self._shapes) - 1
        self._reads[0][:count] = x
        self._y[:count] = y
        for i in range(last):
            read = np.dot(self._reads[i], self._transposed[i], out=self._reads[i + 1])
            read += self._biases[i]
            np.maximum(read, 0.0, out=read)
        outputs = np.dot(self._reads[last], self._transposed[last], out=self._backs[last])
        outputs += self._biases[last]
        self._task.residual_in_numpy(outputs, self._y)
        for i in range(last, 0, -1):
            back = np.dot(self._backs[i], self._weights[i], out=self._backs[i - 1])
            back *= np.sign(self._reads[i], out=self._signs[i])  # of the ReLU: quicker than by booleans
        return count

    def _set_factors(self, count: int) -> None:
        """Each row's clip / (norm + 1e-6), at most 1, and 0 of nobody's; rows that must not count are made zeros."""
        for i, (read, back) in enumerate(zip(self._reads, self._backs, strict=True)):
            np.vecdot(read, read, out=self._read_squares[i])
            np.vecdot(back, back, out=self._back_squares[i])
        self._read_squares += _ONE
        np.multiply(self._read_squares, self._back_squares, out=self._products, dtype=np.float64)
        squares = np.add.reduce(self._products, 0, out=self._factor)
        if not (np.maximum.reduce(self._read_squares, None) <= _READ and np.maximum.reduce(squares) < np.inf):
            bad = ~((self._read_squares <= _READ).all(0) & (squares < np.inf))
            squares[bad] = 0.0
            for part in self._reads + self._backs:
                part[bad] = 0.0
        _clip(squares, self._clip)
        squares[count:] = 0.0

    def _built(self, x: Floats, y: Floats, rows: NDArray[np.int64]) -> list[tuple[Doubles, Doubles]]:
        """Gradients of each layer's weight, (patients, out, in), and bias, (patients, out), before any clip."""
        patients, each = rows.shape
        found = [(np.zeros((patients, out, into)), np.zeros((patients, out))) for out, into in self._shapes]
        piece = max(1, self._kept // patients)
        for first in range(0, each, piece):
            some = rows[:, first : first + piece]
            reads, backs = self._all_rows(x, y, some.reshape(-1))
            for (weight, bias), read, back in zip(found, reads, backs, strict=True):
                shaped = back.reshape(patients, some.shape[1], -1)
                weight += np.matmul(shaped.transpose(0, 2, 1), read.reshape(patients, some.shape[1], -1))
                bias += shaped.sum(1)
        return found

    def _all_rows(self, x: Floats, y: Floats, rows: NDArray[np.int64]) -> tuple[list[Doubles], list[Doubles]]:
        reads = [np.empty((len(rows), into)) for _, into in self._shapes]
        backs = [np.empty((len(rows), out)) for out, _ in self._shapes]
        for start in range(0, len(rows), self._tile):
            some = rows[start : start + self._tile]
            count = self._work(x[some], y[some])
            for kept, found in zip(reads + backs, self._reads + self._backs, strict=True):
                kept[start : start + count] = found[:count]
        return reads, backs

    def _add_built(self, gradients: list[tuple[Doubles, Doubles]]) -> None:
        parts = [part.reshape(len(part), -1) for layer in gradients for part in layer]
        squares = np.add.reduce([np.vecdot(part, part) for part in parts], 0)
        bad = ~(squares < np.inf)
        if bad.any():
            squares[bad] = 0.0
            for part in parts:
                part[bad] = 0.0
        _clip(squares, self._clip)
        for (weight, bias), own, shift in zip(self._totals, parts[0::2], parts[1::2], strict=True):
            weight += np.dot(squares, own).reshape(weight.shape)
            bias += np.dot(squares, shift)


def _clip(squares: Doubles, clip_norm: float) -> None:
    """Squared norms become factors: clip / (norm + 1e-6), at most 1."""
    np.sqrt(squares, out=squares)
    squares += _TINY
    np.divide(clip_norm, squares, out=squares)
    np.minimum(squares, 1.0, out=squares)


def _spans(shapes: tuple[tuple[int, int], ...]) -> Iterator[tuple[slice, slice, tuple[int, int]]]:
    """Where each layer's weight and bias lie in the flat vector."""
    start = 0
    for out, into in shapes:
        middle, end = start + out * into, start + out * (into + 1)
        yield slice(start, middle), slice(middle, end), (out, into)
        start = end
