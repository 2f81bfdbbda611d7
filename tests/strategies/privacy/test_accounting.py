"""Epsilon against two accountants written by others, and against the definition at high precision."""

import math
import os
import subprocess
import sys
from pathlib import Path

import dp_accounting
import mpmath
import numpy as np
import pytest
from dp_accounting import pld
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from configs.errors import PrivacyError
from strategies.privacy import losses
from strategies.privacy.accounting import (
    Event,
    GaussianRelease,
    LaplaceRelease,
    SampledGaussian,
    epsilon,
    gaussian_epsilon,
    merged,
)
from strategies.privacy.filter import divergence
from strategies.privacy.plan import Budget, calibrate
from tests.strategies.privacy.accountants import by_google, by_googles_accountant, by_opacus

FULL = [
    [SampledGaussian(6.5, 1.0, 20)],
    [SampledGaussian(1.0, 1.0, 1)],
    [SampledGaussian(0.7, 1.0, 3)],
    [SampledGaussian(200.0, 1.0, 1000)],
    [SampledGaussian(5.0, 1.0, 4), SampledGaussian(9.0, 1.0, 30), SampledGaussian(40.0, 1.0, 500)],
]
SAMPLED = [
    [SampledGaussian(1.0, 0.1, 100)],
    [SampledGaussian(0.8, 0.02, 1000)],
    [SampledGaussian(3.0, 0.5, 40)],
    [SampledGaussian(12.0, 0.16, 5000)],
]
MIXED = [
    [SampledGaussian(1.0, 0.1, 60), SampledGaussian(2.0, 0.3, 50)],
    [SampledGaussian(2.0, 0.05, 200), SampledGaussian(8.0, 1.0, 10)],
]


@pytest.mark.parametrize("events", FULL)
@pytest.mark.parametrize("delta", [1e-5, 1e-8])
def test_full_batches_cost_what_google_says(events: list[SampledGaussian], delta: float) -> None:
    theirs = by_google(events, delta)
    assert theirs - 2e-3 < epsilon(events, delta) <= theirs + 1e-9  # ours is exact, theirs is rounded up


HARD = [
    [SampledGaussian(400.0, 0.2, 10_000)],  # epsilon 0.16
    [SampledGaussian(600.0, 0.2, 10_000)],  # epsilon 0.1
    [SampledGaussian(50.0, 0.5, 10_000)],  # 4.9
    [SampledGaussian(2.0, 0.05, 10_000)],  # 14
    [SampledGaussian(0.7, 0.3, 30)],  # 34
    [SampledGaussian(1.3, 0.05, 10_000)],  # 27
    [SampledGaussian(0.6, 0.01, 1)],
    [SampledGaussian(3.0, 0.999, 10)],
]


@pytest.mark.parametrize("events", [*SAMPLED, *MIXED, *HARD])
def test_epsilon_is_never_below_googles_and_within_a_thousandth_above(events: list[SampledGaussian]) -> None:
    theirs = by_google(events, 1e-5)
    assert theirs <= epsilon(events, 1e-5) <= theirs + 1e-3


def test_googles_distributions_cost_what_googles_accountant_says() -> None:
    for events in (SAMPLED[0], FULL[1], [*MIXED[0], *MIXED[0]]):
        assert by_google(events, 1e-5) == pytest.approx(by_googles_accountant(events, 1e-5), abs=1e-9)


@pytest.mark.parametrize("delta", [1e-3, 1e-8, 1e-10])
def test_the_same_holds_at_other_deltas(delta: float) -> None:
    theirs = by_google(SAMPLED[0], delta)
    assert theirs <= epsilon(SAMPLED[0], delta) <= theirs + 1e-3


@settings(max_examples=10)
@given(st.floats(0.7, 20.0), st.floats(0.001, 0.99), st.integers(1, 400))
def test_epsilon_is_within_a_thousandth_of_googles_whatever_the_event(sigma: float, rate: float, n: int) -> None:
    theirs = by_google([SampledGaussian(sigma, rate, n)], 1e-5)
    assume(0.05 <= theirs <= 40)
    assert theirs - 1e-9 <= epsilon([SampledGaussian(sigma, rate, n)], 1e-5) <= theirs + 1e-3


@settings(max_examples=12, deadline=None)
@given(st.floats(0.1, 40.0), st.floats(0.001, 0.99), st.integers(1, 10_000), st.sampled_from([1e-5, 1e-6, 1e-8]))
def test_a_plan_of_any_promised_size_costs_what_google_says(target: float, rate: float, n: int, delta: float) -> None:
    """Epsilon 0.1 to 40, up to 10,000 steps. At 1e-8 Google's own rounding begins to show: it errs upwards by 1e-7."""
    plan = calibrate(
        Budget(target, delta), clip_norm=1.0, sampling_rate=rate, steps_per_round=n, rounds=1, patients=100
    )
    events = [plan.round_event]
    theirs = by_google(events, delta)
    below = 1e-6 if delta < 1e-6 else 0.0
    assert theirs - below <= epsilon(events, delta) <= theirs + 1e-3


def test_eight_distinct_rounds_cost_what_google_says() -> None:
    rounds = [SampledGaussian(1.5 + i / 100, 0.05 + i / 1000, 12) for i in range(8)]
    theirs = by_google(rounds, 1e-5)
    assert theirs <= epsilon(rounds, 1e-5) <= theirs + 1e-3


def test_many_distinct_rounds_of_every_kind_cost_what_google_says() -> None:
    """Wide and narrow, rare and usual, so that most of them are composed at few frequencies."""
    rounds = [SampledGaussian(0.9 + i / 8, 0.3 / (1 + i), 3 + 5 * i) for i in range(16)]
    theirs = by_google(rounds, 1e-5)
    assert theirs <= epsilon(rounds, 1e-5) <= theirs + 1e-3


@given(
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=200),
    st.integers(2, 300),
    st.integers(1, 150),
    st.integers(0, 199),
)
def test_a_transform_summed_at_few_frequencies_is_the_fft(
    weights: list[float], size: int, kept: int, peak: int
) -> None:
    mass, kept, peak = np.array(weights), min(kept, size // 2 + 1), min(peak, len(weights) - 1)
    folded = np.zeros(size)
    for position, weight in enumerate(mass):
        folded[(position - peak) % size] += weight
    expected = np.fft.rfft(folded)[:kept]
    np.testing.assert_allclose(losses._transform(mass, peak, size, kept), expected, atol=1e-12 * (1 + mass.sum()))


def test_releases_whose_spectrum_comes_back_cost_what_the_definition_says() -> None:
    """Two points apart have one that does not die away: nothing may be cut off below the last frequency that counts."""
    found = epsilon([LaplaceRelease(2.0, 10), LaplaceRelease(4.0, 6)], 1e-2)
    delta = 0.0
    for a in range(11):
        for b in range(7):
            chance, loss = 1.0, 0.0
            for epsilon_, count, up in ((0.5, 10, a), (0.25, 6, b)):
                likely = 1 / (1 + math.exp(-epsilon_))
                chance *= math.comb(count, up) * likely**up * (1 - likely) ** (count - up)
                loss += epsilon_ * (2 * up - count)
            delta += chance * max(0.0, 1 - math.exp(found - loss))
    assert delta == pytest.approx(1e-2, rel=0.02)
    assert delta <= 1e-2


def test_gaussian_and_laplace_releases_cost_what_google_says() -> None:
    events: list[Event] = [SampledGaussian(2.0, 0.1, 50), GaussianRelease(4.0, 2), LaplaceRelease(5.0, 3)]
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.GaussianDpEvent(2.0)), 50)
    accountant.compose(dp_accounting.GaussianDpEvent(4.0), 2)
    accountant.compose(dp_accounting.LaplaceDpEvent(5.0), 3)
    theirs = accountant.get_epsilon(1e-5)
    # Ours is for any release of pure epsilon 0.2, of which Laplace is not quite the worst.
    assert theirs <= epsilon(events, 1e-5) <= theirs + 0.05


BESIDE_NEXT_TO_NOTHING = [  # a Laplace release whose largest loss has more than delta, beside next to no loss
    ([LaplaceRelease(2.188, 3), SampledGaussian(32.8868, 7.46e-06, 1)], 1.38e-6),
    ([LaplaceRelease(14.2712, 2), SampledGaussian(11.413, 2.16e-07, 1)], 3.13e-6),
    ([LaplaceRelease(12.7273, 1), SampledGaussian(16.014, 2.21e-05, 1)], 6.84e-6),
    ([LaplaceRelease(13.1977, 2), SampledGaussian(23.324, 1.45e-05, 3)], 8.62e-8),
    ([LaplaceRelease(1.5588, 1), SampledGaussian(26.722, 0.000289, 5)], 8.26e-7),
    ([LaplaceRelease(16.0304, 5), SampledGaussian(33.392, 2.32e-06, 1)], 1.88e-7),
]


@pytest.mark.parametrize(("events", "delta"), BESIDE_NEXT_TO_NOTHING)
def test_a_laplace_release_beside_next_to_nothing_is_never_below_googles(
    events: list[LaplaceRelease | SampledGaussian], delta: float
) -> None:
    """Its losses are few points: the tilt must leave each of them that counts above the rounding errors of the FFT."""
    laplace, gaussian = events
    assert isinstance(laplace, LaplaceRelease)
    assert isinstance(gaussian, SampledGaussian)
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(dp_accounting.LaplaceDpEvent(laplace.noise_multiplier), laplace.count)
    sampled = dp_accounting.GaussianDpEvent(gaussian.noise_multiplier)
    accountant.compose(dp_accounting.PoissonSampledDpEvent(gaussian.sampling_rate, sampled), gaussian.steps)
    theirs = accountant.get_epsilon(delta)
    assert theirs <= epsilon(events, delta) <= theirs + 1e-3


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.5, 100.0),
    st.integers(1, 5),
    st.floats(-7, -1).map(lambda x: 10.0**x),
    st.floats(0.7, 50.0),
    st.integers(1, 100),
    st.floats(-8, -5).map(lambda x: 10.0**x),
)
@example(2.188, 3, 7.46e-6, 32.8868, 1, 1.38e-6)
def test_a_mix_never_costs_less_than_its_laplace_part(
    scale: float, count: int, rate: float, sigma: float, n: int, delta: float
) -> None:
    """All losses of `count` releases are at once the largest with a chance of 2^-count: so epsilon cannot be below."""
    mix: list[Event] = [LaplaceRelease(scale, count), SampledGaussian(sigma, rate, n)]
    assert epsilon(mix, delta) >= count / scale + math.log1p(-delta * 2**count) - 1e-12


def test_pure_releases_cost_what_the_definition_says() -> None:
    """Ten answers of randomised response of epsilon 1/2: delta as a binomial sum, straight from the definition."""
    likely = 1 / (1 + math.exp(-0.5))
    found = epsilon([LaplaceRelease(2.0, 10)], 1e-2)
    delta = sum(
        max(
            0.0,
            math.comb(10, k)
            * (likely**k * (1 - likely) ** (10 - k) - math.exp(found) * likely ** (10 - k) * (1 - likely) ** k),
        )
        for k in range(11)
    )
    assert delta == pytest.approx(1e-2, rel=0.02)
    assert delta <= 1e-2


def test_a_gaussian_release_is_a_step_at_which_everybody_is_present() -> None:
    assert merged([GaussianRelease(3.0, 2), SampledGaussian(3.0, 1.0, 5)]) == (SampledGaussian(3.0, 1.0, 7),)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_a_delta_that_cannot_be_is_refused(delta: float) -> None:
    with pytest.raises(PrivacyError, match="0 < delta < 1"):
        epsilon(SAMPLED[0], delta)


def test_a_delta_of_ten_to_the_minus_fifteen_is_answered_within_the_reach_of_a_second_method() -> None:
    found = epsilon(SAMPLED[0], 1e-15)
    by_renyi = min(
        100 * divergence(SampledGaussian(1.0, 0.1, 1), n) + math.log1p(-1 / n) - math.log(1e-15 * n) / (n - 1)
        for n in range(2, 60)
    )
    assert 0.8 * by_renyi < found < by_renyi


@pytest.mark.parametrize(("n", "delta"), [(60_000, 1e-9), (198_000, 1e-12), (1_980_000, 1e-12)])
def test_many_steps_of_losses_as_small_as_the_grid_cost_no_more_than_a_second_method_says(n: int, delta: float) -> None:
    """The grid spreads such losses, and the sum with them: it must not be looked for where the exact one would lie."""
    event = SampledGaussian(120.0, 1 / 198, n)
    found = epsilon([event], delta)
    orders = range(20, 1500, 10)
    by_renyi = min(divergence(event, a) + math.log1p(-1 / a) - math.log(delta * a) / (a - 1) for a in orders)
    assert (
        0.8 * by_renyi < found < 1.4 * by_renyi
    )  # the grid's part; the bound that ignores sampling is 30 to 300 times


@pytest.mark.parametrize(
    ("event", "low", "high"),
    [
        (SampledGaussian(1e-3, 0.1, 60), 5e6, 3.1e7),  # next to no noise: large, and at once
        (SampledGaussian(1e-6, 0.1, 60), 5e12, 3.1e13),
        (SampledGaussian(0.25, 0.1, 1000), 400.0, 3000.0),
        (SampledGaussian(1e9, 0.1, 10_000), 0.0, 1e-9),
        (SampledGaussian(1.0, 1e-9, 1), 0.0, 1e-5),
    ],
)
def test_extreme_events_have_an_answer(event: SampledGaussian, low: float, high: float) -> None:
    assert low <= epsilon([event], 1e-5) <= high


@pytest.mark.parametrize(
    "events",
    [
        [SampledGaussian(12.0, 3e-6, 54), SampledGaussian(0.93, 1.0, 4173), SampledGaussian(0.66, 0.16, 353)],
        [SampledGaussian(1.0, 1.0, 7870), SampledGaussian(0.68, 0.06, 43), SampledGaussian(1.58, 0.56, 261)],
        [SampledGaussian(16.6, 0.006, 7), SampledGaussian(0.8, 1.0, 3594), LaplaceRelease(1.0, 2)],
    ],
)
def test_thousands_of_steps_with_little_noise_beside_others_have_a_large_answer(
    events: list[SampledGaussian | LaplaceRelease],
) -> None:
    """Losses of thousands: of a mass that one distribution has, the other has less than a float can hold."""
    alone = epsilon([event for event in events if event.noise_multiplier <= 1.0][:1], 1e-7)
    assert alone < epsilon(events, 1e-7) < 2 * alone


def test_accounting_of_full_batches_needs_neither_scipy_nor_dp_accounting() -> None:
    code = (
        "import sys; from strategies.privacy.accounting import *; epsilon([GaussianRelease(3.0)], 1e-5);"
        "from strategies.privacy.filter import Filter; Filter(3.0, 1e-5).allows([SampledGaussian(1.0, 0.1, 3)]);"
        "assert not {'scipy', 'dp_accounting', 'torch'} & set(sys.modules)"
    )
    root = Path(__file__).resolve().parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(root)})


@pytest.mark.parametrize("events", [*FULL[:3], *SAMPLED, *MIXED])
def test_a_second_accountant_agrees_within_two_hundredths(events: list[SampledGaussian]) -> None:
    assert epsilon(events, 1e-5) == pytest.approx(by_opacus(events, 1e-5), abs=0.02)


def test_equal_events_one_by_one_cost_what_google_says_of_them_one_by_one() -> None:
    rounds = [SampledGaussian(1.0, 0.1, 10)] * 3
    assert epsilon(rounds, 1e-5) == pytest.approx(by_google(rounds, 1e-5), abs=1e-3)


def test_equal_events_are_merged_and_cost_the_same_bits() -> None:
    rounds = [SampledGaussian(1.0, 0.1, 10)] * 3
    assert merged(rounds) == (SampledGaussian(1.0, 0.1, 30),)
    assert epsilon(rounds, 1e-5) == epsilon([SampledGaussian(1.0, 0.1, 30)], 1e-5)


def test_what_was_asked_before_is_answered_from_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = [SampledGaussian(1.7, 0.1, 10), SampledGaussian(1.9, 0.2, 5)]
    found = epsilon(rounds, 1e-5)
    monkeypatch.setattr(losses, "pld_epsilon", lambda *_: pytest.fail("it was computed again"))
    assert epsilon([rounds[1], *[SampledGaussian(1.7, 0.1, 1)] * 10], 1e-5) == found


def test_events_of_another_rate_are_not_merged() -> None:
    events: list[Event] = [SampledGaussian(1.0, 0.1, 10), SampledGaussian(1.0, 0.2, 10)]
    assert merged(events) == tuple(events)


@pytest.mark.parametrize("events", [FULL[4], *MIXED])
def test_the_order_of_events_does_not_matter(events: list[SampledGaussian]) -> None:
    assert epsilon(events, 1e-5) == epsilon(events[::-1], 1e-5)


def test_nothing_released_costs_nothing() -> None:
    assert epsilon([], 1e-5) == 0.0


noise = st.floats(0.5, 100.0)
steps = st.integers(1, 2000)


@given(noise, steps, st.integers(1, 500))
def test_more_full_batch_steps_never_cost_less(sigma: float, n: int, more: int) -> None:
    before, after = SampledGaussian(sigma, 1.0, n), SampledGaussian(sigma, 1.0, n + more)
    assert epsilon([before], 1e-5) <= epsilon([after], 1e-5)


@given(noise, steps, st.floats(1.0, 3.0))
def test_more_noise_never_costs_more(sigma: float, n: int, factor: float) -> None:
    before, after = SampledGaussian(sigma, 1.0, n), SampledGaussian(sigma * factor, 1.0, n)
    assert epsilon([after], 1e-5) <= epsilon([before], 1e-5)


@settings(max_examples=8)
@given(st.floats(1.0, 4.0), st.floats(0.02, 0.5), st.integers(10, 300), st.sampled_from(["rate", "steps", "noise"]))
def test_sampled_batches_cost_more_with_rate_and_steps_and_less_with_noise(
    sigma: float, rate: float, n: int, what: str
) -> None:
    cheap = SampledGaussian(sigma, rate, n)
    dear = {
        "rate": SampledGaussian(sigma, min(1.0, rate * 1.3), n),
        "steps": SampledGaussian(sigma, rate, n + 1 + n // 4),
        "noise": SampledGaussian(sigma / 1.2, rate, n),
    }[what]
    assert epsilon([cheap], 1e-5) < epsilon([dear], 1e-5) + 1e-4  # the grid's rounding


@settings(max_examples=5)
@given(st.floats(1.0, 4.0), st.floats(0.02, 0.9), st.integers(10, 200))
def test_sampling_never_costs_more_than_taking_everybody(sigma: float, rate: float, n: int) -> None:
    assert epsilon([SampledGaussian(sigma, rate, n)], 1e-5) <= epsilon([SampledGaussian(sigma, 1.0, n)], 1e-5) + 1e-4


def exact_delta(mu: float, eps: float) -> mpmath.mpf:
    """The Gaussian mechanism's delta with 60 digits, straight from the definition."""
    with mpmath.workdps(60):
        m, e = mpmath.mpf(mu), mpmath.mpf(eps)
        return mpmath.ncdf(m / 2 - e / m) - mpmath.exp(e) * mpmath.ncdf(-m / 2 - e / m)


def check_against_the_definition(mu: float, delta: float) -> None:
    found = gaussian_epsilon(mu, delta)
    assert math.isfinite(found)
    assert found >= 0.0
    assert exact_delta(mu, found) <= delta * (1 + 1e-6)  # it is enough
    if found > 1e-9:
        assert exact_delta(mu, found * (1 - 1e-6) - 1e-9) > delta  # and no smaller one is


@given(st.floats(-4, 2).map(lambda x: 10.0**x), st.floats(-12, -1).map(lambda x: 10.0**x))
@example(1e-6, 1e-12)
@example(1e-6, 0.5)
@example(1e-3, 1e-10)
@example(1.0, 1e-300)
@example(60.0, 1e-5)
@example(1e3, 1e-5)
@example(1e4, 1e-12)
def test_gaussian_epsilon_is_the_smallest_that_the_definition_allows(mu: float, delta: float) -> None:
    check_against_the_definition(mu, delta)


def test_next_to_no_noise_costs_a_large_number_and_does_not_overflow() -> None:
    assert 0.9e12 < epsilon([SampledGaussian(1e-4, 1.0, 10_000)], 1e-5) / 0.5 < 1.1e12


def test_next_to_infinite_noise_costs_nothing() -> None:
    assert epsilon([SampledGaussian(1e9, 1.0, 1)], 1e-5) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("sigma", "rate", "n"),
    [
        (0.0, 1.0, 1),
        (-1.0, 1.0, 1),
        (math.nan, 1.0, 1),
        (1.0, 0.0, 1),
        (1.0, 1.1, 1),
        (1.0, math.nan, 1),
        (1.0, 1.0, 0),
    ],
)
def test_an_event_that_cannot_be_is_refused(sigma: float, rate: float, n: int) -> None:
    with pytest.raises(PrivacyError, match="expected sigma > 0"):
        SampledGaussian(sigma, rate, n)
