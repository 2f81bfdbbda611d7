"""Local optimizers with the same bits on every processor.

PyTorch's own fuse operations where a processor can. As PyTorch defines them (SGD with momentum and weight decay; Adam,
Kingma and Ba 2015, arXiv 1412.6980), each operation one NumPy call in float32, corrections in Python's float64. A step
that is not SGD's plain one holds a scratch vector.

>>> flat, gradient = np.zeros(2, np.float32), np.array([1.0, -2.0], np.float32)
>>> optimizer = optimizer_of(Local(None, 0.5))
>>> optimizer.step(flat, gradient)
>>> flat.tolist()
[-0.5, 1.0]
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from configs.schema import Local

Floats = NDArray[np.float32]
_AT_ONCE = 1 << 20  # parameters: a step of a large model needs no second one
_FIRST, _SECOND, _EPSILON = 0.9, 0.999, 1e-8  # Adam's


class Optimizer(Protocol):
    """Changes the parameters, (parameters,), along a gradient. It may overwrite the gradient."""

    def step(self, flat: Floats, gradient: Floats) -> None:
        """Make one step."""


def optimizer_of(local: Local) -> Optimizer:
    """Return the optimizer of one fit; what it remembers ends with it."""
    if local.optimizer == "adam":
        return Adam(local.learning_rate, local.weight_decay)
    if local.momentum or local.weight_decay:
        return Momentum(local.learning_rate, local.momentum, local.weight_decay)
    return Descent(local.learning_rate)


class Descent:
    """Plain gradient descent."""

    def __init__(self, rate: float) -> None:
        self._rate, self._room = np.float32(rate), np.empty(0, np.float32)

    def step(self, flat: Floats, gradient: Floats) -> None:
        """Make one step, as `Optimizer` says."""
        if len(self._room) < min(len(flat), _AT_ONCE):
            self._room = np.empty(min(len(flat), _AT_ONCE), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # a fit that diverges is reported by its caller
            for start in range(0, len(flat), _AT_ONCE):
                values = flat[start : start + _AT_ONCE]
                step = np.multiply(gradient[start : start + _AT_ONCE], self._rate, out=self._room[: len(values)])
                np.subtract(values, step, out=values)


class Momentum:
    """SGD with momentum, weight decay, or both."""

    def __init__(self, rate: float, momentum: float, decay: float) -> None:
        self._descent, self._momentum, self._decay = Descent(rate), np.float32(momentum), np.float32(decay)
        self._velocity: Floats | None = None

    def step(self, flat: Floats, gradient: Floats) -> None:
        """Make one step, as `Optimizer` says."""
        with np.errstate(over="ignore", invalid="ignore"):
            if self._decay:
                gradient += flat * self._decay
            if self._momentum and self._velocity is not None:
                self._velocity *= self._momentum
                self._velocity += gradient
            elif self._momentum:
                self._velocity = gradient.copy()
        self._descent.step(flat, gradient if self._velocity is None else self._velocity)


class Adam:
    """Adam with PyTorch's defaults; weight decay is added to the gradient."""

    def __init__(self, rate: float, decay: float) -> None:
        self._rate, self._decay = rate, np.float32(decay)
        self._means = self._squares = np.empty(0, np.float32)
        self._first = self._second = 1.0  # powers of the two rates so far, by repeated multiplication

    def step(self, flat: Floats, gradient: Floats) -> None:
        """Make one step, as `Optimizer` says."""
        if len(self._means) != len(flat):
            self._means, self._squares = np.zeros_like(flat), np.zeros_like(flat)
        self._first *= _FIRST
        self._second *= _SECOND
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            if self._decay:
                gradient += flat * self._decay
            room = gradient * np.float32(1 - _FIRST)
            self._means *= np.float32(_FIRST)
            self._means += room
            np.multiply(gradient, gradient, out=room)
            room *= np.float32(1 - _SECOND)
            self._squares *= np.float32(_SECOND)
            self._squares += room
            np.sqrt(self._squares, out=room)
            room *= np.float32(1 / np.sqrt(1 - self._second))
            room += np.float32(_EPSILON)
            np.divide(self._means, room, out=room)
            room *= np.float32(self._rate / (1 - self._first))
            np.subtract(flat, room, out=flat)
