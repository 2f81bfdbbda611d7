"""Curves: a number of the table as a straight column and bends at public knots, so that a linear model draws its shape.

A broken line over k equally spaced knots is a straight line and a bend at each of the k - 2 inner knots; it is what k
hats (linear B-splines) span, and a linear model of such inputs is a generalised additive model (Hastie and Tibshirani
1986). The bend at t is |v - t| less its best straight line over the range, so that bends and straight column do not
speak of the same thing. In these coordinates a pull towards zero, which few steps from zero and a clipped gradient are
too, is the pull towards few and gentle bends of a penalised spline (Eilers and Marx 1996, section 2): noise is spent on
shapes, not on single hats. Everything follows from the public range; sums and products alone, so that all processors
agree to the bit.

>>> at_ends, middle = bends(np.array([-1.0, 0.0, 1.0]), knots=3)[0][[0, 2]].tolist(), bends(np.zeros(1), 3)[0].item()
>>> [round(value, 3) for value in (*at_ends, middle)]
[0.707, 0.707, -0.707]
"""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from configs.schema import Feature

_LARGEST = 0.5  # sum of the bends' squares: more would be noise where effects are straight, less would hide curves


def bends(values: NDArray[np.float64], knots: int) -> list[NDArray[np.float64]]:
    """Return (rows,) for each inner knot, in their order; nothing for no knots.

    Args:
        values: (rows,) in [-1, 1]: a number scaled by its range.
    """
    return [scale * np.abs(values - at) + slope * values + level for at, scale, slope, level in terms(knots)]


@cache
def terms(knots: int) -> tuple[tuple[float, float, float, float], ...]:
    """Return for each inner knot (at, scale, slope, level): its bend is scale * |v - at| + slope * v + level."""
    if not knots:
        return ()
    places = [2 * i / (knots - 1) - 1 for i in range(knots)]
    # The best line of |v - t| over [-1, 1] (least squares): level (1 + t^2) / 2, slope (t^3 - 3 t) / 2.
    raw = [(at, 1.0, (3 * at - at**3) / 2, -(1 + at**2) / 2) for at in places[1:-1]]
    # A sum of squares of broken lines is largest at a knot.
    largest = max(sum((abs(v - at) + slope * v + level) ** 2 for at, _, slope, level in raw) for v in places)
    scale = math.sqrt(_LARGEST / largest)
    return tuple((at, scale, scale * slope, scale * level) for at, _, slope, level in raw)


def largest_square(feature: Feature) -> float:
    """Return the largest sum of squares that the inputs of a column can have, its values in the public range."""
    return 1.0 + _LARGEST if feature.curve else 1.0


def shape(weights: NDArray[np.float64], feature: Feature) -> tuple[tuple[float, float], ...]:
    """Return a fitted curve: at each knot, in the column's unit, what it adds to the model's output.

    Args:
        weights: (knots - 1,) of the straight column and the bends.
    """
    knots = feature.knots
    values = np.linspace(-1.0, 1.0, len(knots))
    inputs = np.stack([values, *bends(values, len(knots))], axis=1)
    return tuple(zip(knots, (inputs @ weights).tolist(), strict=True))
