"""The filter: never above what composition allows, its divergences those of other accountants."""

import pytest
from dp_accounting import GaussianDpEvent, LaplaceDpEvent, PoissonSampledDpEvent, rdp
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import PrivacyError
from strategies.privacy.accounting import Event, GaussianRelease, LaplaceRelease, SampledGaussian, epsilon
from strategies.privacy.filter import Filter, divergence

DELTA = 1e-5


def by_google(event: object, count: int, order: int) -> float:
    accountant = rdp.RdpAccountant(orders=[order])
    accountant.compose(event, count)
    return float(accountant._rdp[0])


@pytest.mark.parametrize("order", [2, 5, 64])
@pytest.mark.parametrize(("sigma", "rate"), [(1.0, 0.1), (0.6, 0.01), (8.0, 0.9), (3.0, 1e-6)])
def test_divergences_of_sampled_gaussians_are_googles(sigma: float, rate: float, order: int) -> None:
    theirs = by_google(PoissonSampledDpEvent(rate, GaussianDpEvent(sigma)), 7, order)
    assert divergence(SampledGaussian(sigma, rate, 7), order) == pytest.approx(theirs, rel=1e-6, abs=1e-13)


def test_divergences_of_full_batches_are_googles() -> None:
    assert divergence(SampledGaussian(2.0, 1.0, 7), 5) == pytest.approx(by_google(GaussianDpEvent(2.0), 7, 5))


@pytest.mark.parametrize("order", [2, 16])
def test_a_pure_release_diverges_a_little_more_than_laplaces(order: int) -> None:
    theirs = by_google(LaplaceDpEvent(2.0), 3, order)
    assert theirs <= divergence(LaplaceRelease(2.0, 3), order) <= min(3 * 0.5, 1.5 * theirs)


@settings(max_examples=30)
@given(st.floats(0.5, 20.0), st.floats(0.7, 9.0), st.floats(0.01, 1.0), st.integers(1, 2000))
def test_what_the_filter_allows_is_within_the_cap_by_composition_too(
    cap: float, sigma: float, rate: float, steps: int
) -> None:
    events: list[Event] = [SampledGaussian(sigma, rate, steps), GaussianRelease(3 * sigma), LaplaceRelease(20.0)]
    if Filter(cap, DELTA).allows(events):
        assert epsilon(events, DELTA) <= cap


@pytest.mark.parametrize("cap", [0.5, 1.0, 3.0, 8.0, 20.0])
@pytest.mark.parametrize(("sigma", "rate"), [(6.0, 1.0), (2.0, 0.05), (4.0, 0.2)])
def test_the_filter_allows_most_of_what_composition_would(cap: float, sigma: float, rate: float) -> None:
    share = 0.94 if rate == 1.0 else 0.75 if cap < 3 else 0.84
    low, high = 0, 2**20
    while high - low > 1:
        middle = (low + high) // 2
        fits = Filter(cap, DELTA).allows([SampledGaussian(sigma, rate, middle)])
        low, high = (middle, high) if fits else (low, middle)
    if low >= 20:
        assert share * cap < epsilon([SampledGaussian(sigma, rate, low)], DELTA) <= cap


def test_full_batches_are_counted_as_one_gaussian_at_half_of_delta() -> None:
    events: list[Event] = [SampledGaussian(8.0, 1.0, 20), GaussianRelease(6.0, 5)]
    assert Filter(3.0, DELTA).needs(events) == pytest.approx(epsilon(events, DELTA / 2), rel=1e-6)


@settings(max_examples=30)
@given(st.floats(0.5, 20.0), st.floats(0.7, 9.0), st.sampled_from([0.01, 0.2, 1.0]), st.integers(1, 500))
def test_what_was_refused_is_refused_with_anything_more(cap: float, sigma: float, rate: float, steps: int) -> None:
    """Sums only grow: what the proof that either of two filters may allow stands on."""
    rule, events = Filter(cap, DELTA), [SampledGaussian(sigma, rate, steps)]
    for more in (SampledGaussian(2.0, 1.0, 1), SampledGaussian(1.0, 0.1, 3), LaplaceRelease(9.0)):
        assert rule.allows(events) or not rule.allows([*events, more])


def test_the_order_follows_from_the_cap_alone() -> None:
    caps = [Filter(cap, DELTA) for cap in (0.1, 1.0, 3.0, 8.0)]
    assert [f.order for f in caps] == sorted((f.order for f in caps), reverse=True)


def test_nothing_released_is_always_allowed_and_too_small_a_cap_allows_nothing_else() -> None:
    assert Filter(3.0, DELTA).allows([])
    assert not Filter(0.001, 1e-12).allows([SampledGaussian(1e3, 1.0, 1)])


@pytest.mark.parametrize(("cap", "delta"), [(0.0, 1e-5), (-1.0, 1e-5), (3.0, 0.0), (3.0, 1.0), (float("nan"), 1e-5)])
def test_a_cap_that_cannot_be_is_refused(cap: float, delta: float) -> None:
    with pytest.raises(PrivacyError, match="expected 0 < epsilon"):
        Filter(cap, delta)
