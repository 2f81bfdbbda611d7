"""Exponential, logarithm, sine and sums with the same bits on every processor.

NumPy and PyTorch compute these with whatever the build and the processor offer, and the last bits differ. Here they are
made of operations that IEEE 754 rounds correctly (+, -, *, /, square root, rounding to whole numbers, powers of two),
one NumPy call each, so that no compiler can fuse two. Errors are below 2 units in the last place.

>>> exponential(np.array([0.0, -np.inf])).tolist(), logarithm(np.array([1.0])).tolist()
([1.0, 0.0], [0.0])
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
_PARTS = 256  # of one power of two in the exponential's table
_LEAST, _MOST = -708.0, 709.0  # of a power of e that float64 holds
_LN2 = float.fromhex("0x1.62e42fefa39efp-1")
_LN2_HIGH, _LN2_LOW = float.fromhex("0x1.62e42fee00000p-1"), float.fromhex("0x1.a39ef35793c76p-33")  # their sum: ln 2
_LONG = 80  # binary digits of the table's entries before they are rounded
EXPONENT = np.int64(0x7FF) << np.int64(52)  # its place among a float64's bits
_FRACTION = ~EXPONENT
_FROM_HALF_OCTAVE = np.int64(0x3FE6A09E) << np.int64(32)  # the bits of the square root of one half
_TO_HALF_OCTAVE = (np.int64(1023) << np.int64(52)) - _FROM_HALF_OCTAVE
_LEAST_NORMAL = 2.0**-1022


def _roots_of_two() -> Doubles:
    """2^(j / 256) for j from 0 to 255, rounded once: products of exact square roots of whole numbers."""
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


_TABLE = _roots_of_two()


def exponential(values: Doubles) -> Doubles:
    """e to each power, in a new array; infinite above e^709, zero below e^-708."""
    with np.errstate(invalid="ignore"):
        x = np.maximum(values, _LEAST)
        np.minimum(x, _MOST, out=x)
        k = x * (_PARTS / _LN2)
        np.rint(k, out=k)
        rest = k * (_LN2_HIGH / _PARTS)  # exact: the constant has 33 digits and k at most 19
        x -= rest
        x -= np.multiply(k, _LN2_LOW / _PARTS, out=rest)
        np.multiply(x, 1 / 24, out=rest)
        for coefficient in (1 / 6, 1 / 2, 1.0):
            rest += coefficient
            rest *= x
        whole = k.astype(np.int64)
        table = _TABLE.take(whole & (_PARTS - 1))
        rest *= table
        rest += table
        whole >>= 8
        whole += 1023
        whole <<= 52  # the bits of a power of two
        rest *= whole.view(np.float64)
        if not (values.min(initial=0.0) >= _LEAST and values.max(initial=0.0) <= _MOST):
            rest[values > _MOST] = np.inf
            rest[values < _LEAST] = 0.0
    return rest


def logarithm(values: Doubles) -> Doubles:
    """The natural logarithm of each number, in a new array; minus infinity of zero, no number of a negative one.

    By the series of log((1 + s) / (1 - s)) with minimax coefficients for |s| < .172 (as in FreeBSD's e_log.c).
    """
    found = logarithm_of_normal(np.maximum(values, _LEAST_NORMAL))
    if not (values.min(initial=1.0) >= _LEAST_NORMAL and values.max(initial=1.0) < np.inf):
        with np.errstate(invalid="ignore"):
            small = values < _LEAST_NORMAL
            found[small] = logarithm_of_normal(np.maximum(values[small] * 2.0**54, _LEAST_NORMAL)) - 54 * _LN2
            found[values == np.inf] = np.inf
            found[values == 0.0] = -np.inf
            found[~(values >= 0.0)] = np.nan
    return found


def logarithm_of_normal(values: Doubles) -> Doubles:
    """`logarithm` of positive, finite numbers from 2^-1022, without a look whether they are."""
    bits = values.view(np.int64) + _TO_HALF_OCTAVE
    k = np.empty(values.shape)
    np.copyto(k, np.right_shift(bits, 52), casting="unsafe")
    k -= 1023.0
    bits &= _FRACTION
    bits += _FROM_HALF_OCTAVE
    f = bits.view(np.float64)  # from sqrt(1/2) to sqrt(2)
    s = f + 1.0
    f -= 1.0
    np.divide(f, s, out=s)
    z = s * s
    series = _horner(z, _LOG)
    half = np.multiply(f, f, out=z)
    half *= 0.5
    series += half
    series *= s
    series += np.multiply(k, _LN2_LOW, out=s)
    series -= half
    series += f
    k *= _LN2_HIGH
    series += k
    return series


_LOG = (
    *(1.479819860511658591e-01, 1.531383769920937332e-01, 1.818357216161805012e-01, 2.222219843214978396e-01),
    *(2.857142874366239149e-01, 3.999999999940941908e-01, 6.666666666666735130e-01, 0.0),
)
_SINE = (
    *(1.58969099521155010221e-10, -2.50507602534068634195e-08, 2.75573137070700676789e-06),
    *(-1.98412698298579493134e-04, 8.33333333332248946124e-03, -1.66666666666666324348e-01),
)


def _horner(z: Doubles, coefficients: tuple[float, ...]) -> Doubles:
    found = z * coefficients[0]
    for coefficient in coefficients[1:-1]:
        found += coefficient
        found *= z
    found += coefficients[-1]
    return found


def sine(quarter: Doubles) -> Doubles:
    """The sine of each angle from -pi/4 to pi/4, in a new array."""
    z = quarter * quarter
    found = _horner(z, _SINE)
    found *= z
    found *= quarter
    found += quarter
    return found


def sigmoid(values: Doubles) -> Doubles:
    """1 / (1 + e^-v) of each value, in a new array."""
    found = exponential(np.negative(values))
    found += 1.0
    return np.divide(1.0, found, out=found)


def softmax(values: Doubles) -> Doubles:
    """Shares of the last axis: (..., classes) -> the same shape, in a new array."""
    with np.errstate(invalid="ignore"):
        shares = exponential(values - values.max(axis=-1, keepdims=True, initial=-np.inf))
        shares /= added(shares)[..., None]
    return shares


def added(values: Doubles) -> Doubles:
    """Sums over the last axis in one fixed order, halves onto halves: (..., n) -> (...)."""
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
    """The largest power of two that is at most each positive, normal number; zero of what is smaller."""
    found = np.empty(np.shape(values)) if out is None else out
    np.bitwise_and(np.asarray(values, np.float64).view(np.int64), EXPONENT, out=found.view(np.int64))
    return found
