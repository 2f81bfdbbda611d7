"""Noise of the discrete Gaussian distribution, drawn exactly.

A number y comes with probability proportional to exp(-y^2 / (2 sigma^2)), to the last bit and not only up to rounding,
for a sigma that is a power of two. The method is rejection, after Canonne, Kamath and Steinke 2020 ("The discrete
Gaussian for differential privacy", arXiv 2004.00010) and Karney 2016 (arXiv 1303.6257): with y = sigma v + u, where
0 <= u < sigma, the whole part v has probability proportional to exp(-v^2 / 2), u is uniform, and the pair is kept with
probability exp(-(u^2 + 2 u v sigma) / (2 sigma^2)); then a fair sign, and a second zero is dropped.

Each decision compares a uniform number of endlessly many bits with a probability. Its first 64 bits decide, as floating
point has the probability to 44 bits at least, except about once in 2^43 numbers: then both are worked out in whole
numbers, as far as it takes. So the same words give the same noise on every processor.

>>> stream = CipherStream(bytes(32))
>>> discrete_gaussian(stream, 4, scale=4).tolist()
[-7, -1, 5, 11]
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from strategies.privacy.cipher import CipherStream

MOST_BITS = 40  # of sigma: noise of ten deviations, summed over thousands of hospitals, stays far below 2^63
_AT_ONCE = 2**13  # candidates that are drawn together: their arrays stay in the cache
_KEPT = 0.71  # about the part of the candidates that is kept
_BAND = 2.0**-44  # relative: within this of its probability in floating point, a number is compared exactly
_WORD = 2.0**64
_PRECISE = 128  # bits in which the tails' first words are worked out


def discrete_gaussian(stream: CipherStream, size: int, scale: int) -> NDArray[np.int64]:
    """Return independent draws of the discrete Gaussian of sigma = 2^scale: (size,).

    How many words of the stream are used depends on the stream alone.

    Raises:
        ValueError: the scale is not from 0 to MOST_BITS.
    """
    if not 0 <= scale <= MOST_BITS:
        raise ValueError(f"scale: expected 0 to {MOST_BITS}, got {scale}")
    drawn, count = np.empty(size, np.int64), 0
    while count < size:
        candidates = min(_AT_ONCE, int((size - count) / _KEPT) + 16)
        some = _kept(stream, stream.words(3 * candidates).reshape(3, candidates), scale)[: size - count]
        drawn[count : count + len(some)] = some
        count += len(some)
    return drawn


def _kept(stream: CipherStream, words: NDArray[np.uint64], scale: int) -> NDArray[np.int64]:
    """Return those of the candidates that three words each make, (3, candidates), which are kept, in their order."""
    of_whole, of_rest, of_chance = words
    whole = _whole_parts(stream, of_whole)
    rest = (of_rest & np.uint64((1 << scale) - 1)).astype(np.int64)
    negative = (of_rest >> np.uint64(63)).astype(bool)
    part = rest * 2.0**-scale
    limits = np.exp(-part * (0.5 * part + whole)) * _WORD
    chance = of_chance.astype(np.float64)
    kept = chance < limits
    for i in np.flatnonzero(np.abs(chance - limits) <= _BAND * limits):
        u, v = int(rest[i]), int(whole[i])
        kept[i] = _is_below(int(of_chance[i]), _power_of_e(u * u + (2 * u * v << scale), 2 << 2 * scale), stream)
    values = (whole << scale) + rest
    kept &= ~(negative & (values == 0))
    signed: NDArray[np.int64] = np.where(negative, -values, values)
    drawn: NDArray[np.int64] = signed[kept]
    return drawn


def _whole_parts(stream: CipherStream, words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return a v >= 0 of probability proportional to exp(-v^2 / 2) for each word: how many tails it is below."""
    tails = _first_words()
    whole = len(tails) - np.searchsorted(tails, words, side="right")
    for i in np.flatnonzero(np.isin(words, tails)):
        v, word = 0, _Endless(int(words[i]), stream)
        while word.is_below(_tail(v + 1)):
            v += 1
        whole[i] = v
    return whole.astype(np.int64)


@lru_cache(maxsize=1)
def _first_words() -> NDArray[np.uint64]:
    """Return the first 64 bits of each tail probability P(V >= v), from the last v where they are not 0; increasing."""
    found: list[int] = []
    v = 1
    while not found or found[-1]:
        low, high = _tail(v)(_PRECISE)
        assert low >> (_PRECISE - 64) == high >> (_PRECISE - 64)
        found.append(low >> (_PRECISE - 64))
        v += 1
    return np.array(found[::-1], np.uint64)


Bounds = Callable[[int], tuple[int, int]]  # bits -> whole numbers below and above the probability times 2^bits


def _tail(v: int) -> Bounds:
    """Return bounds of P(V >= v), where V has probability proportional to exp(-V^2 / 2)."""

    def bounds(bits: int) -> tuple[int, int]:
        more = bits + 32
        last = math.isqrt(2 * more) + 2  # exp(-last^2 / 2) < 2^-more: all terms from there on are below two of it
        terms = [_power_of_e(i * i, 2)(more) for i in range(last)]
        low = sum(below for below, _ in terms[v:])
        high = sum(above for _, above in terms[v:]) + 2
        whole_low, whole_high = sum(below for below, _ in terms), sum(above for _, above in terms) + 2
        return (low << bits) // whole_high, -(-(high << bits) // whole_low)

    return bounds


def _power_of_e(numerator: int, denominator: int) -> Bounds:
    """Return bounds of exp(-numerator / denominator), for a fraction of at least 0, by its series in whole numbers.

    The argument is halved until it is below one, and the series' square taken as often.
    """

    def bounds(bits: int) -> tuple[int, int]:
        halvings = max(0, numerator.bit_length() - denominator.bit_length() + 1)
        more = bits + 2 * halvings + 16
        below, above = _short_series(numerator, denominator << halvings, more)
        for _ in range(halvings):
            below, above = below * below >> more, -(-above * above >> more)
        return below >> (more - bits), -(-above >> (more - bits))

    return bounds


def _short_series(numerator: int, denominator: int, bits: int) -> tuple[int, int]:
    """Return bounds of exp(-x) times 2^bits, 0 <= x < 1: sums of the alternating series lie on either side of it."""
    # Each term is held from both sides; their widths add up, and the last term bounds what is left out.
    low_term = high_term = 1 << bits
    low, high, n = low_term, high_term, 0
    while high_term > 0:
        n += 1
        low_term = low_term * numerator // (denominator * n)
        high_term = -(-high_term * numerator // (denominator * n))
        if n % 2:
            low, high = low - high_term, high - low_term
        else:
            low, high = low + low_term, high + high_term
        if high_term <= 1 and n > 2:
            break
    return low - 1, high + 1


class _Endless:
    """A uniform number in [0, 1) of endlessly many bits: its first word is given, more are drawn when needed."""

    def __init__(self, word: int, stream: CipherStream) -> None:
        self._value, self._bits, self._stream = word, 64, stream

    def is_below(self, bounds: Bounds) -> bool:
        """Return whether it is below a probability, which is irrational or 1: no number of bits is equal to it."""
        bits = 64
        while True:
            while self._bits < bits:
                self._value = self._value << 64 | int(self._stream.words(1)[0])
                self._bits += 64
            value = self._value >> (self._bits - bits)
            low, high = bounds(bits)
            if value < low:  # value + 1 <= low: all that may follow is below too
                return True
            if value >= high:
                return False
            bits += 64


def _is_below(word: int, bounds: Bounds, stream: CipherStream) -> bool:
    return _Endless(word, stream).is_below(bounds)
