"""Rows whose numbers are their own: what a linear stack makes of a row, whoever else is in the batch, to the last bit.

A product of matrices is added up in another order where rows are at its edge, and more or fewer rows move all others to
other places. A release about one patient must not turn on that: under a model that a stranger chose, the last bit may
decide on which side of a limit everybody is. So rows are worked through in tiles of a fixed size, filled up with zeros,
whose products treat all rows alike; that is tried once for a model's shapes, and where it does not hold a tile is one
row.

>>> weight, bias = np.array([[1.0, 2.0]], np.float32), np.zeros(1, np.float32)
>>> outputs_of_rows([weight], [bias], np.array([[1.0, 1.0], [0.0, 1.0]], np.float32)).tolist()
[[3.0], [2.0]]
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

TILE = 16  # rows: a whole number of every kernel's
_PREDICTED = 4 * TILE

Floats = NDArray[np.float32]


def outputs_of_rows(weights: Sequence[Floats], biases: Sequence[Floats], x: Floats) -> Floats:
    """(rows, inputs) -> (rows, outputs) of linear layers (out, in) with a ReLU between two."""
    shapes = tuple((weight.shape[0], weight.shape[1]) for weight in weights)
    tile = _PREDICTED if rows_are_alike(shapes, _PREDICTED) else 1
    found = np.empty((len(x), shapes[-1][0]), np.float32)
    read = np.zeros((tile, shapes[0][1]), np.float32)
    with np.errstate(all="ignore"):  # a score that is no number is for the caller
        for start in range(0, len(x), tile):
            some = x[start : start + tile]
            read[: len(some)] = some
            outputs = read
            for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                outputs = np.dot(np.maximum(outputs, 0.0) if i else outputs, weight.T) + bias
            found[start : start + tile] = outputs[: len(some)]
    return found


@lru_cache(maxsize=1)
def one_thread() -> None:
    """NumPy's products on one thread from now on: how many share a product decides its last bits."""
    threadpool_limits(1, user_api="blas")


@lru_cache(maxsize=256)
def rows_are_alike(shapes: tuple[tuple[int, int], ...], rows: int) -> bool:
    """Whether equal rows of a tile have equal products, bit for bit, wherever they lie: of layers (out, in)."""
    one_thread()
    chance = np.random.default_rng(0)
    for out, into in shapes:
        weight = chance.standard_normal((out, into), np.float32)
        for _ in range(4):
            for width, other in ((into, weight.T), (out, weight)):
                row = chance.standard_normal((1, width), np.float32)
                tile = row.repeat(rows, 0)
                if not all((found == found[0]).all() for found in (np.dot(tile, other), np.vecdot(tile, tile))):
                    return False
    return True
