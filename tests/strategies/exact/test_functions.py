"""Exponential, logarithm and sine against arbitrary precision, and the same bits alone and among others."""

import hashlib
import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

from strategies.exact import functions

mpmath.mp.prec = 120
CHANCE = np.random.default_rng(0)
CASES: dict[str, tuple[Callable[..., np.ndarray], Callable[..., Any], np.ndarray]] = {
    "exponential": (
        functions.exponential,
        mpmath.exp,
        np.concatenate([CHANCE.uniform(-708, 709, 2000), CHANCE.normal(size=2000), [0.0, -0.0, 1e-300, -1e-17]]),
    ),
    "logarithm": (
        functions.logarithm,
        mpmath.log,
        np.concatenate(
            [np.ldexp(CHANCE.uniform(0.5, 1, 2000), CHANCE.integers(-1070, 1024, 2000)), CHANCE.random(2000)]
        ),
    ),
    "near one": (functions.logarithm, mpmath.log, 1.0 + CHANCE.uniform(-1e-3, 1e-3, 1000)),
    "sine": (functions.sine, mpmath.sin, CHANCE.uniform(-math.pi / 4, math.pi / 4, 4000)),
    "sigmoid": (
        functions.sigmoid,
        lambda v: 1 / (1 + mpmath.exp(-v)),
        np.concatenate([CHANCE.uniform(-700, 700, 1000), CHANCE.normal(size=2000)]),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_function_is_right_to_two_units_in_the_last_place(name: str) -> None:
    ours, exact, values = CASES[name]
    expected = np.array([float(exact(mpmath.mpf(float(v)))) for v in values])
    assert np.max(np.abs(ours(values) - expected) / np.spacing(np.abs(expected))) <= 2.0


@pytest.mark.parametrize("name", CASES)
def test_a_value_has_the_same_bits_alone_and_among_others(name: str) -> None:
    ours, _, values = CASES[name]
    together = ours(values)
    for i in range(0, len(values), 97):
        assert ours(values[i : i + 1]).tobytes() == together[i : i + 1].tobytes()
    strided = np.stack([values, values], axis=1)
    assert ours(strided[:, 0]).tobytes() == together.tobytes()
    assert ours(strided)[:, 1].tobytes() == together.tobytes()


def test_the_bits_are_those_of_every_processor() -> None:
    """Whoever sees another digest here has a machine on which simulations would not repeat a deployment."""
    digest = hashlib.sha256()
    for ours, _, values in CASES.values():
        digest.update(ours(values).tobytes())
    assert digest.hexdigest() == BITS


BITS = "0361af175cf6d4d000311b3d39a5cad26c0716f9e09987871192823c6dcd4925"


def test_the_ends_of_the_exponential() -> None:
    values = np.array([710.0, np.inf, -709.0, -np.inf, np.nan])
    assert functions.exponential(values).tolist()[:4] == [np.inf, np.inf, 0.0, 0.0]
    assert np.isnan(functions.exponential(values)[4])
    assert functions.exponential(np.empty((0, 3))).shape == (0, 3)


def test_the_ends_of_the_logarithm() -> None:
    assert functions.logarithm(np.array([0.0, np.inf, 1.0])).tolist() == [-np.inf, np.inf, 0.0]
    assert np.isnan(functions.logarithm(np.array([-1.0, np.nan]))).all()
    assert functions.logarithm(np.array([5e-324]))[0] == pytest.approx(math.log(5e-324), rel=1e-15)


@pytest.mark.parametrize("classes", [1, 2, 3, 17])
def test_shares_are_positive_and_add_up_to_one(classes: int) -> None:
    values = np.random.default_rng(classes).normal(size=(50, classes)) * 20
    shares = functions.softmax(values)
    assert (shares >= 0).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(np.log(shares[:, 0] / shares[:, -1]), values[:, 0] - values[:, -1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 64, 1001])
def test_a_sum_in_a_fixed_order_is_the_sum(size: int) -> None:
    values = np.random.default_rng(size).normal(size=(3, size))
    before = values.copy()
    np.testing.assert_allclose(functions.added(values), [math.fsum(row) for row in values], rtol=1e-12, atol=1e-14)
    assert (values == before).all()


def test_the_power_below_a_number() -> None:
    values = np.array([1.0, 1.5, 2.0, 3.99, 1e-300, 1e300, 0.0])
    found = functions.power_below(values)
    assert found.tolist() == [*(2.0 ** math.floor(math.log2(v)) for v in values[:-1]), 0.0]
