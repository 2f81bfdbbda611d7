"""Noise of the discrete Gaussian: its distribution, its exact decisions, and that processors cannot differ."""

import math
from collections.abc import Sequence
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare

from strategies.privacy.cipher import CipherStream
from strategies.secure import discrete
from strategies.secure.discrete import discrete_gaussian


class Given:
    """A stream of words that a test wrote, then of a cipher."""

    def __init__(self, words: Sequence[int]) -> None:
        self._words, self._rest = list(words), CipherStream(bytes(32))

    def words(self, count: int) -> NDArray[np.uint64]:
        now, self._words = self._words[:count], self._words[count:]
        return np.concatenate([np.array(now, np.uint64), self._rest.words(count - len(now))])


@pytest.mark.parametrize("scale", [0, 1, 2, 3])
def test_every_number_comes_as_often_as_the_distribution_says(scale: int) -> None:
    drawn = discrete_gaussian(CipherStream(bytes([scale]) * 32), 1_000_000, scale)
    reach = 4 << scale
    numbers = np.arange(-reach, reach + 1)
    weights = np.exp(-(numbers.astype(float) ** 2) / (2 * 4.0**scale))
    inside = drawn[np.abs(drawn) <= reach]
    counts = np.bincount(inside + reach, minlength=len(numbers))
    assert chisquare(counts, weights / weights.sum() * len(inside)).pvalue > 1e-4
    assert len(inside) / len(drawn) > 0.9999


def test_moments_of_the_width_that_is_used() -> None:
    drawn = discrete_gaussian(CipherStream(bytes(32)), 400_000, 32) / 2.0**32
    error = 1 / math.sqrt(len(drawn))
    assert abs(drawn.mean()) < 4 * error
    assert abs((drawn**2).mean() - 1) < 4 * math.sqrt(2) * error
    assert abs((drawn**4).mean() - 3) < 4 * math.sqrt(96) * error
    assert np.count_nonzero(np.unique(drawn.round(12))) > 0.999 * len(drawn)


@given(numerator=st.integers(0, 2**70), denominator=st.integers(1, 2**66), bits=st.sampled_from([64, 128, 300]))
def test_the_bounds_of_a_power_of_e_hold_it(numerator: int, denominator: int, bits: int) -> None:
    numerator %= 64 * denominator
    low, high = discrete._power_of_e(numerator, denominator)(bits)
    with mpmath.workprec(bits + 200):
        exact = mpmath.exp(-mpmath.mpf(numerator) / denominator) * mpmath.mpf(2) ** bits
        assert low <= exact <= high
    assert high - low <= 4


def test_the_tails_are_those_of_the_distribution() -> None:
    with mpmath.workprec(400):
        weights = [mpmath.exp(-mpmath.mpf(v * v) / 2) for v in range(60)]
        for v in range(12):
            exact = mpmath.fsum(weights[v:]) / mpmath.fsum(weights) * mpmath.mpf(2) ** 200
            low, high = discrete._tail(v)(200)
            assert low <= exact <= high
            assert high - low <= 4


@pytest.mark.parametrize("step", [-2, -1, 0, 1, 2])
@pytest.mark.parametrize(("whole", "rest"), [(0, 2**20), (0, 2**32 - 1), (1, 2**31), (3, 2**32 - 1)])
def test_a_word_beside_its_limit_is_compared_exactly(whole: int, rest: int, step: int) -> None:
    scale = 32
    exponent = Fraction(rest * rest + 2 * rest * whole * 2**scale, 2 * 4**scale)
    with mpmath.workprec(300):
        limit = int(mpmath.floor(mpmath.exp(-mpmath.mpf(exponent.numerator) / exponent.denominator) * 2**64))
    words = np.array([[_word_of(whole)], [rest], [limit + step]], np.uint64)
    kept = discrete._kept(Given([0]), words, scale)  # type: ignore[arg-type]
    if step < 0:
        assert kept.tolist() == [whole * 2**scale + rest]
    elif step > 0:
        assert kept.tolist() == []
    else:  # the words that follow decide: zeros are below every limit
        assert kept.tolist() == [whole * 2**scale + rest]
        assert discrete._kept(Given([2**64 - 1]), words, scale).tolist() == []  # type: ignore[arg-type]


@pytest.mark.parametrize("v", range(1, 10))
def test_a_word_that_ties_with_a_tail_is_decided_by_the_words_after_it(v: int) -> None:
    tie = np.array([discrete._first_words()[::-1][v - 1]], np.uint64)
    assert discrete._whole_parts(Given([0]), tie).tolist() == [v]  # type: ignore[arg-type]
    assert discrete._whole_parts(Given([2**64 - 1]), tie).tolist() == [v - 1]  # type: ignore[arg-type]
    assert discrete._whole_parts(Given([]), tie - np.uint64(1)).tolist() == [v]  # type: ignore[arg-type]
    assert discrete._whole_parts(Given([]), tie + np.uint64(1)).tolist() == [v - 1]  # type: ignore[arg-type]


def test_floating_point_decides_only_where_it_is_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor whose exp is wrong by sixteen units of the last place draws the same noise."""
    expected = discrete_gaussian(CipherStream(bytes(32)), 20_000, 32)
    exp = np.exp
    for factor in (1 + 2.0**-49, 1 - 2.0**-49):
        monkeypatch.setattr(np, "exp", lambda x, factor=factor: exp(x) * factor)
        assert (discrete_gaussian(CipherStream(bytes(32)), 20_000, 32) == expected).all()


def test_where_floating_point_is_never_trusted_the_noise_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = discrete_gaussian(CipherStream(bytes(32)), 300, 5)
    monkeypatch.setattr(discrete, "_BAND", 1e30)
    assert (discrete_gaussian(CipherStream(bytes(32)), 300, 5) == expected).all()


@pytest.mark.parametrize("scale", [-1, 41])
def test_another_width_is_refused(scale: int) -> None:
    with pytest.raises(ValueError, match="expected 0 to 40"):
        discrete_gaussian(CipherStream(bytes(32)), 1, scale)


def _word_of(whole: int) -> int:
    """Return a first word whose whole part is this one."""
    tails = [2**64 - 1, *(int(tail) for tail in discrete._first_words()[::-1])]
    return (tails[whole] + tails[whole + 1]) // 2
