"""Local fits of many hospitals as one batch: each step is one product for all of them.

Each hospital has the very bits that it has alone (client/trainer.py). Products and sums are exact, so that neither the
others nor rows of padding can change one, and everything else is elementwise. Each has its own chance.

>>> from configs.schema import Local, Model, Task
>>> from strategies.privacy.randomness import Randomness
>>> from strategies.data.table import TablePatients
>>> from strategies.learning import learning
>>> task = learning(Task("binary", "disease"), Model("logistic"), inputs=1)
>>> x, y = np.array([[-1.0], [1.0]], np.float32), np.array([0, 1], np.float32)
>>> people = TablePatients(x, y, np.arange(2), np.arange(3))
>>> start = {"0.weight": np.zeros((1, 1), np.float32), "0.bias": np.zeros(1, np.float32)}
>>> fits = [Fit(start, people, Local(None, rate), 1, Randomness.seeded(0, "lille", 1)) for rate in (2.0, 2.0, 4.0)]
>>> [fitted["0.weight"].item() if fitted else None for fitted in Together(task).fit(fits)]
[1.0, 1.0, None]
"""

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.trainer import batches
from strategies.data.base import TrainablePatients
from strategies.exact.layers import PORTION, Layers, MeanGradient, in_order, one_thread, write_layer
from strategies.exact.weights import as_layers
from strategies.exchange.arrays import Arrays
from strategies.learning import Learning
from strategies.optimizers import optimizer_of
from strategies.privacy.engines.stack import Stack
from strategies.privacy.grid import on_grid
from strategies.privacy.randomness import Noise, samples
from strategies.releases.base import Fit

LARGEST_MODEL = 1 << 14  # parameters: with more, a product has no more to gain from others
_NUMBERS = 1 << 18
_MOST = 64  # hospitals at once
_ROUNDED = 8  # private batches are filled up to a multiple of so many rows: fewer sizes of arrays
_KEPT = 4  # numbers of hospitals whose arrays are kept
_WASTE, _SMALL = 1.25, 64  # rows worked through over rows of patients, at most, and rows that cost no time

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


class Together:
    """Fits several hospitals at once; it remembers nothing from one call to the next."""

    def __init__(self, task: Learning) -> None:
        one_thread()
        self._task = task
        specs = list(task.parameters.items())
        ends = itertools.accumulate(math.prod(shape) for _, (shape, _) in specs)
        self._names = [
            (name, slice(end - math.prod(shape), end), shape)
            for end, (name, (shape, _)) in zip(ends, specs, strict=True)
        ]
        self._shapes = task.linear_layers or ()
        self._size = sum(out * (into + 1) for out, into in self._shapes)
        self._widths = sum(out + 2 * into for out, into in self._shapes)
        self._kept: dict[int, Layers] = {}
        self._noise = Noise()

    @property
    def pays(self) -> bool:
        """Return whether hospitals of this model are quicker together: of a linear stack, not too large."""
        return 0 < self._size <= LARGEST_MODEL

    def fit(self, fits: Sequence[Fit]) -> list[Arrays | None]:
        """Return every hospital's model; None for a hospital that must be fitted alone."""
        models: list[Arrays | None] = [None] * len(fits)
        alike: dict[object, list[int]] = {}
        for i, fit in enumerate(fits):
            if self.pays and _fits_in(fit):
                alike.setdefault(_kind(fit), []).append(i)
        for places in alike.values():
            for group in self._groups(fits, places):
                for i, fitted in zip(group, self._fit([fits[i] for i in group]), strict=True):
                    models[i] = fitted
        return models

    def _groups(self, fits: Sequence[Fit], places: Sequence[int]) -> Iterator[list[int]]:
        """Yield groups of hospitals with batches of about the same size, two or more, few enough for the cache."""
        rows = {i: _usual_rows(fits[i]) for i in places}
        group: list[int] = []
        for i in sorted(places, key=rows.__getitem__):
            each = 2 * self._size + min(rows[i], PORTION) * self._widths
            full = len(group) >= max(2, min(_MOST, int(_NUMBERS // each)))
            if group and (full or rows[i] > _WASTE * rows[group[0]] + _SMALL):
                if len(group) > 1:
                    yield group
                group = []
            group.append(i)
        if len(group) > 1:
            yield group

    def _fit(self, fits: Sequence[Fit]) -> list[Arrays]:
        first, flat = fits[0], self._starts(fits)
        anchor = flat.copy() if first.rule else None
        optimizer, layers = optimizer_of(first.local), self._layers(len(fits))
        gradients = self._plain(fits, layers, flat) if first.plan is None else self._private(fits, layers, flat)
        for gradient in gradients:
            if anchor is not None:
                gradient += first.rule.added(flat, anchor)
            optimizer.step(flat.reshape(-1), gradient.reshape(-1))
        for fit in fits:
            fit.loaded()
        return self._named(flat)

    def _starts(self, fits: Sequence[Fit]) -> Floats:
        """Return every hospital's first model, (hospitals, parameters): most often the very same arrays."""
        flat, before = np.empty((len(fits), self._size), np.float32), None
        for i, fit in enumerate(fits):
            arrays = [fit.start[name] for name, _, _ in self._names]
            if before is not None and all(map(operator.is_, arrays, before)):
                flat[i] = flat[i - 1]
            else:
                np.concatenate([array.reshape(-1) for array in arrays], out=flat[i])
            before = arrays
        return flat

    def _named(self, flat: Floats) -> list[Arrays]:
        names = [name for name, _, _ in self._names]
        columns = [flat[:, span].reshape(-1, *shape) for _, span, shape in self._names]
        return [dict(zip(names, arrays, strict=True)) for arrays in zip(*columns, strict=True)]

    def _layers(self, hospitals: int) -> Layers:
        if hospitals not in self._kept:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[hospitals] = Layers(self._shapes, (hospitals,))
        return self._kept[hospitals]

    def _plain(self, fits: Sequence[Fit], layers: Layers, flat: Floats) -> Iterator[Floats]:
        people, mean, gradient = _Joined([fit.patients for fit in fits]), MeanGradient(layers), np.empty_like(flat)
        places = list(in_order(gradient, layers))
        drawn = [batches(fit.patients, fit.local.batch_size, fit.steps, fit.randomness) for fit in fits]
        for rows in zip(*drawn, strict=True):
            x, y, counts = people.batch(rows)
            layers.load(flat)
            shares = [fit.patients.averaged(some) for fit, some in zip(fits, rows, strict=True)]
            result = mean.of(x, self._residual(y), np.array(shares, np.float64)[:, None, None], counts)
            for layer, (weight, bias) in zip(as_layers(result, self._shapes), places, strict=True):
                write_layer(layer, weight, bias)
            yield gradient

    def _residual(self, y: Floats) -> Any:
        return lambda some: lambda outputs: self._task.residual(outputs, y[:, some])

    def _private(self, fits: Sequence[Fit], layers: Layers, flat: Floats) -> Iterator[Floats]:
        plan = fits[0].plan
        assert plan is not None
        plans = [fit.plan for fit in fits if fit.plan is not None]
        deviations = [each.noise_multiplier * each.clip_norm for each in plans]
        people, chances = _Joined([fit.patients for fit in fits]), [fit.randomness for fit in fits]
        sizes, rates = [fit.patients.count for fit in fits], [each.sampling_rate for each in plans]
        stack = Stack(layers, self._task.residual, plan.clip_norm)
        gradient, noise = np.empty_like(flat), np.empty(flat.shape)
        for step in range(plan.steps_per_round):
            x, y, counts = people.batch(samples(chances, sizes, rates), _ROUNDED)
            layers.load(flat)
            stack.add_rows(x, y, counts)
            sums = stack.take()
            self._noise.draw(chances, noise, last=step == plan.steps_per_round - 1)
            for i, deviation in enumerate(deviations):
                noise[i] *= deviation
                sums[i] += noise[i]
                gradient[i] = on_grid(sums[i], deviation, plans[i].expected_patients)
            yield gradient


class _Joined:
    """All hospitals' rows in one array, and one row of padding."""

    def __init__(self, people: Sequence[TrainablePatients]) -> None:
        xs, ys = zip(*(each.take() for each in people), strict=True)
        self._x = np.concatenate([*xs, np.zeros((1, *xs[0].shape[1:]), np.float32)])
        self._y = np.concatenate([*ys, np.zeros((1, *ys[0].shape[1:]), np.float32)])
        lengths = [each.rows for each in people]
        self._ends = np.cumsum(lengths)
        self._starts = [int(end) - length for end, length in zip(self._ends, lengths, strict=True)]
        self._everybody = [np.arange(length) for length in lengths]
        self._whole: tuple[Floats, Floats, Rows] | None = None

    def batch(self, rows: Sequence[Rows | None], multiple: int = 1) -> tuple[Floats, Floats, Rows]:
        """Return x (hospitals, rows, inputs), y (hospitals, rows), and how many rows each has; None stands for all."""
        if any(some is not None for some in rows):
            named = zip(rows, self._everybody, strict=True)
            return self._taken([everybody if some is None else some for some, everybody in named], multiple)
        if self._whole is None:
            self._whole = self._taken(self._everybody, multiple)
        return self._whole

    def _taken(self, rows: Sequence[Rows], multiple: int) -> tuple[Floats, Floats, Rows]:
        counts = np.array([len(some) for some in rows])
        most = max(1, -(-int(counts.max()) // multiple) * multiple)
        places = np.full((len(rows), most), len(self._x) - 1)
        for i, (some, start) in enumerate(zip(rows, self._starts, strict=True)):
            np.add(some, start, out=places[i, : len(some)])
        return self._x.take(places, axis=0), self._y.take(places, axis=0), counts


def _fits_in(fit: Fit) -> bool:
    """Return whether a fit is one of a linear stack's usual ones."""
    if fit.local.engine != "auto" or not fit.steps or fit.rule.drift is not None:
        return False
    return fit.patients.one_row_each if fit.plan else fit.patients.count > 0


def _kind(fit: Fit) -> object:
    """Return what hospitals that are fitted together have in common."""
    return fit.local, fit.steps, fit.rule.pull, fit.plan and (fit.plan.steps_per_round, fit.plan.clip_norm)


def _usual_rows(fit: Fit) -> float:
    """Return the approximate number of rows of a batch."""
    if fit.plan is not None:
        return fit.patients.count * fit.plan.sampling_rate
    whole = fit.patients.count if fit.local.batch_size is None else min(fit.local.batch_size, fit.patients.count)
    return whole * fit.patients.rows / fit.patients.count
