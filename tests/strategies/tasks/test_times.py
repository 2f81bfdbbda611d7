"""Figures of censored times, held against lifelines and against their definitions."""

from typing import Any

import numpy as np
import pytest

from strategies.tasks.metrics import estimates
from strategies.tasks.times import (
    C_INDEX,
    HORIZON_AUROC,
    HORIZON_BRIER,
    concordance,
    horizon_area,
    horizon_bins,
    horizon_brier,
    state,
    weighed,
)

lifelines: Any = pytest.importorskip("lifelines")
HORIZON = 12.0


def followed(count: int, seed: int, causes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Times with ties, some censored at the horizon itself, and risks with ties."""
    rng = np.random.default_rng(seed)
    time, cause = rng.integers(1, 25, count).astype(float), rng.integers(0, causes + 1, count).astype(float)
    y = np.stack([time, cause, np.full(count, HORIZON), np.ones(count)], axis=1)
    return y, np.stack([np.zeros(count), np.round(rng.uniform(size=count), 1)], axis=1)


@pytest.mark.parametrize("seed", range(5))
def test_concordance_is_that_of_lifelines_ties_included(seed: int) -> None:
    y, predicted = followed(80, seed)
    expected = lifelines.utils.concordance_index(y[:, 0], -predicted[:, 1], y[:, 1])
    assert concordance(y, predicted, np.ones((1, 80)))[0] == pytest.approx(expected, abs=1e-12)


def test_who_died_of_another_cause_never_has_the_event() -> None:
    y, predicted = followed(60, 7, causes=2)
    other = y[:, 1] == 2
    alive = y.copy()
    alive[other, :2] = [1e9, 0]
    everybody = np.ones((1, 60))
    assert concordance(y, predicted, everybody) == concordance(alive, predicted, everybody)
    assert (state(y)[other & (y[:, 0] < HORIZON)] == 0).all()


def test_a_patient_drawn_twice_counts_as_two() -> None:
    y, predicted = followed(50, 3)
    drawn = np.random.default_rng(0).multinomial(50, np.full(50, 1 / 50), size=3).astype(float)
    for figure in (concordance, horizon_area, horizon_brier):
        together = figure(y, predicted, drawn)
        for counts, value in zip(drawn, together, strict=True):
            rows = np.repeat(np.arange(50), counts.astype(int))
            assert figure(y[rows], predicted[rows], np.ones((1, 50)))[0] == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_those_lost_before_the_horizon_are_stood_for_as_kaplan_meier_has_it(seed: int) -> None:
    y, _ = followed(200, seed)
    stands = weighed(y, np.ones((1, 200)))[0]
    fitted = lifelines.KaplanMeierFitter().fit(y[:, 0], y[:, 1])
    assert (stands * (state(y) == 1)).sum() / 200 == pytest.approx(1 - float(fitted.predict(HORIZON)), abs=1e-9)
    assert stands.sum() == pytest.approx(200)
    assert (stands[state(y) < 0] == 0).all()


def test_without_censoring_figures_are_those_of_a_binary_outcome() -> None:
    y, predicted = followed(100, 1)
    y[:, 1] = 1
    died, risk = y[:, 0] <= HORIZON, predicted[:, 1]
    everybody = np.ones((1, 100))
    pairs = (risk[died][:, None] > risk[~died]) + (risk[died][:, None] == risk[~died]) / 2
    assert horizon_area(y, predicted, everybody)[0] == pytest.approx(pairs.mean())
    assert horizon_brier(y, predicted, everybody)[0] == pytest.approx(((risk - died) ** 2).mean())
    bins = horizon_bins(y, predicted)
    assert sum(each.count for each in bins) == 100
    assert bins[-1].observed == pytest.approx(died[risk >= 0.9].mean())


def test_figures_are_undefined_where_nothing_is_known() -> None:
    y, predicted = followed(30, 2)
    y[:, 1] = 0
    owners = np.arange(30)
    defined = estimates([C_INDEX, HORIZON_AUROC, HORIZON_BRIER], y, [predicted], owners, resamples=10)
    assert (defined["c_index"], defined["horizon_auroc"]) == (None, None)
