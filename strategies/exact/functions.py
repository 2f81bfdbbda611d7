"""Exponential, logarithm, sine and sums with the same bits on every processor.

NumPy and PyTorch compute these with whatever the build and the processor offer, and the last bits differ. Here they are
made of operations that IEEE 754 rounds correctly (+, -, *, /, square root, rounding to whole numbers, powers of two),
one NumPy call each, so that no compiler can fuse two. Errors are below 2 units in the last place.

>>> exponential(np.array([0.0, -np.inf])).tolist(), logarithm(np.array([1.0])).tolist()
([1.0, 0.0], [0.0])
"""

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Function = TypeVar("Function", bound=Callable[..., Any])
_PARTS = 256  # of one power of two in the exponential's table
_LN2 = float.fromhex("0x1.62e42fefa39efp-1")
_LN2_HIGH, _LN2_LOW = float.fromhex("0x1.62e42fee00000p-1"), float.fromhex("0x1.a39ef35793c76p-33")  # their sum: ln 2
_LONG = 80  # binary digits of the table's entries before they are rounded
EXPONENT = np.array(0x7FF << 52)  # its place among a float64's bits
_FRACTION = np.array((1 << 52) - 1)
_FROM_HALF_OCTAVE = np.array(0x3FE6A09E << 32)  # the bits of the square root of one half
_TO_HALF_OCTAVE = np.array((1023 << 52) - (0x3FE6A09E << 32))
_FLOAT_BIAS = np.array(1023.0)
_LEAST_NORMAL = 2.0**-1022


def _roots_of_two() -> Doubles:
    """Return 2^(j / 256) for j from 0 to 255, rounded once: products of exact square roots of whole numbers."""
    roots = [2 << _LONG]
    for _ in range(8):  # 2^(1/2), 2^(1/4), ..., 2^(1/256)
        roots.append(math.isqrt(roots[-1] << _LONG))
    entries = []
    for j in range(_PARTS):
        entry = 1 << _LONG
        for bit, root in enumerate(reversed(roots[1:])):
            entry = entry * root >> _LONG if j >> bit & 1 else entry
        entries.append(entry / (1 << _LONG))
    return np.array(entries)


# Numbers as arrays without axes: at a few dozen values, NumPy's calls take half as long with them.
_TABLE = _roots_of_two()
_LEAST, _MOST = np.array(-708.0), np.array(709.0)  # of a power of e that float64 holds
_PARTS_OF_E, _PART_HIGH, _PART_LOW = np.array(_PARTS / _LN2), np.array(_LN2_HIGH / _PARTS), np.array(_LN2_LOW / _PARTS)
_PART_BITS, _PART_SHIFT, _BIAS, _FRACTION_SHIFT = (np.array(n) for n in (_PARTS - 1, 8, 1023, 52))
_TAYLOR = tuple(np.array(1 / n) for n in (24, 6, 2, 1))
ONE, _TWO, _HALF = np.array(1.0), np.array(2.0), np.array(0.5)


def _replaceable(function: Function) -> Function:
    """Let values that are no numbers yet, such as those that record a graph, bring a function of their own."""

    @wraps(function)
    def chosen(values: Any) -> Any:
        own = getattr(values, "__exact__", None)
        return function(values) if own is None else own(function.__name__)

    return cast(Function, chosen)


@_replaceable
def exponential(values: Doubles) -> Doubles:
    """Return e to each power, in a new array; infinite above e^709, zero below e^-708."""
    with np.errstate(invalid="ignore"):
        powers = _bounded_exponential(np.array(values))
        if not (values.min(initial=0.0) >= _LEAST and values.max(initial=0.0) <= _MOST):
            powers[values > _MOST] = np.inf
            powers[values < _LEAST] = 0.0
    return powers


def _bounded_exponential(x: Doubles) -> Doubles:
    """Return e to each power, of the nearest power from -708 to 709; overwrites the powers."""
    np.maximum(x, _LEAST, out=x)
    np.minimum(x, _MOST, out=x)
    k = np.multiply(x, _PARTS_OF_E)
    np.rint(k, k)
    result: Doubles = np.multiply(k, _PART_HIGH)  # exact: the constant has 33 digits and k at most 19
    np.subtract(x, result, x)
    np.multiply(k, _PART_LOW, result)
    np.subtract(x, result, x)
    np.multiply(x, _TAYLOR[0], result)
    for coefficient in _TAYLOR[1:]:
        np.add(result, coefficient, result)
        np.multiply(result, x, result)
    whole = k.astype(np.int64)
    table = _TABLE.take(np.bitwise_and(whole, _PART_BITS))
    np.multiply(result, table, result)
    np.add(result, table, result)
    np.right_shift(whole, _PART_SHIFT, whole)
    np.add(whole, _BIAS, whole)
    np.left_shift(whole, _FRACTION_SHIFT, whole)  # the bits of a power of two
    np.multiply(result, whole.view(np.float64), result)
    return result


@_replaceable
def logarithm(values: Doubles) -> Doubles:
    """Return the natural logarithm of each number, in a new array; minus infinity of zero, no number of a negative one.

    By the series of log((1 + s) / (1 - s)) with minimax coefficients for |s| < .172 (as in FreeBSD's e_log.c).
    """
    logarithms = logarithm_of_normal(np.maximum(values, _LEAST_NORMAL))
    if not (values.min(initial=1.0) >= _LEAST_NORMAL and values.max(initial=1.0) < np.inf):
        with np.errstate(invalid="ignore"):
            small = values < _LEAST_NORMAL
            logarithms[small] = logarithm_of_normal(np.maximum(values[small] * 2.0**54, _LEAST_NORMAL)) - 54 * _LN2
            logarithms[values == np.inf] = np.inf
            logarithms[values == 0.0] = -np.inf
            logarithms[~(values >= 0.0)] = np.nan
    return logarithms


def logarithm_of_normal(values: Doubles, room: Doubles | None = None) -> Doubles:
    """Return `logarithm` of positive, finite numbers from 2^-1022 on, without checking that they are.

    Args:
        room: (4, *shape), overwritten; the logarithms are the first of the four.
    """
    series: Doubles
    series, k, f, s = np.empty((4, *values.shape)) if room is None else room
    bits = f.view(np.int64)
    np.add(values.view(np.int64), _TO_HALF_OCTAVE, bits)
    np.copyto(k, np.right_shift(bits, _FRACTION_SHIFT, s.view(np.int64)), casting="unsafe")
    np.subtract(k, _FLOAT_BIAS, k)
    np.bitwise_and(bits, _FRACTION, bits)
    np.add(bits, _FROM_HALF_OCTAVE, bits)  # f is from sqrt(1/2) to sqrt(2) now
    np.add(f, ONE, s)
    np.subtract(f, ONE, f)
    np.divide(f, s, s)
    z = np.multiply(s, s, values if room is not None else None)
    _horner(z, _LOG, series)
    half = np.multiply(f, f, z)
    np.multiply(half, _HALF, half)
    np.add(series, half, series)
    np.multiply(series, s, series)
    np.add(series, np.multiply(k, _LN2_LOW, s), series)
    np.subtract(series, half, series)
    np.add(series, f, series)
    np.multiply(k, _LN2_HIGH, k)
    np.add(series, k, series)
    return series


_LOG = tuple(
    np.array(c)
    for c in (
        *(1.479819860511658591e-01, 1.531383769920937332e-01, 1.818357216161805012e-01, 2.222219843214978396e-01),
        *(2.857142874366239149e-01, 3.999999999940941908e-01, 6.666666666666735130e-01),
    )
)
_SINE = tuple(
    np.array(c)
    for c in (
        *(1.58969099521155010221e-10, -2.50507602534068634195e-08, 2.75573137070700676789e-06),
        *(-1.98412698298579493134e-04, 8.33333333332248946124e-03, -1.66666666666666324348e-01),
    )
)


def _horner(z: Doubles, coefficients: Sequence[NDArray[np.float64]], out: Doubles | None = None) -> Doubles:
    """Return a polynomial in z, the highest power first, times z."""
    sums = np.multiply(z, coefficients[0], out)
    for coefficient in coefficients[1:]:
        np.add(sums, coefficient, sums)
        np.multiply(sums, z, sums)
    return sums


def sine(quarter: Doubles, room: Doubles | None = None) -> Doubles:
    """Return the sine of each angle from -pi/4 to pi/4.

    Args:
        room: (2, *shape), overwritten; the sines are the first of the two.
    """
    sines: Doubles
    sines, z = np.empty((2, *quarter.shape)) if room is None else room
    np.multiply(quarter, quarter, z)
    _horner(z, _SINE, sines)
    np.multiply(sines, quarter, sines)
    np.add(sines, quarter, sines)
    return sines


@_replaceable
def sigmoid(values: Doubles) -> Doubles:
    """Return 1 / (1 + e^-v) of each value, in a new array; of values below -709 as of that."""
    chances = np.negative(values)
    with np.errstate(invalid="ignore"):
        chances = _bounded_exponential(chances)
    np.add(chances, ONE, chances)
    np.divide(ONE, chances, chances)
    return chances


@_replaceable
def softmax(values: Doubles) -> Doubles:
    """Return the shares of the last axis: (..., classes) -> the same shape, in a new array."""
    with np.errstate(invalid="ignore"):
        shares = exponential(values - values.max(axis=-1, keepdims=True, initial=-np.inf))
        shares /= added(shares)[..., None]
    return shares


def added(values: Doubles) -> Doubles:
    """Return sums over the last axis in one fixed order, halves onto halves: (..., n) -> (...)."""
    size = values.shape[-1]
    if size == 0:
        return np.zeros(values.shape[:-1])
    while size > 1:
        half = size // 2
        sums = values[..., :half] + values[..., half : 2 * half]
        if size % 2:
            sums[..., 0] += values[..., -1]
        values, size = sums, half
    return values[..., 0]


def power_below(values: Any, out: Doubles | None = None) -> Doubles:
    """Return the largest power of two that is at most each positive, normal number; zero of what is smaller."""
    powers = np.empty(np.shape(values)) if out is None else out
    np.bitwise_and(np.asarray(values, np.float64).view(np.int64), EXPONENT, powers.view(np.int64))
    return powers
