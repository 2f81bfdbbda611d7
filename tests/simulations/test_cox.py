"""The pooled Cox model and the observed risks over time, held against lifelines."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from simulations.cox import baseline, fit
from strategies.tasks.times import incidence

lifelines: Any = pytest.importorskip("lifelines")


def followed(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whole days, so that many are tied."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3)) * [1, 5, 0.1] + [0, 50, 0]
    death, lost = rng.exponential(30 * np.exp(-0.7 * x[:, 0] - 4 * x[:, 2])), rng.uniform(5, 60, count)
    return x, np.ceil(np.minimum(death, lost)), death <= lost


def test_its_hazard_ratios_and_risks_are_those_of_lifelines_with_ties() -> None:
    x, time, event = followed(300)
    table = pd.DataFrame(x).assign(time=time, event=event)
    reference = lifelines.CoxPHFitter().fit(table, "time", "event")
    weights = fit(x, time, event, ridge=0.0)
    np.testing.assert_allclose(weights, reference.params_.to_numpy(), rtol=1e-4)
    np.testing.assert_allclose(fit(x, time, event), weights, rtol=1e-3)
    ends = np.array([10.0, 20, 30])
    risks = 1 - np.exp(-np.exp(x @ weights)[:, None] * baseline(x, time, event, weights, ends))
    expected = 1 - reference.predict_survival_function(table, times=ends).to_numpy().T
    np.testing.assert_allclose(risks, expected, atol=1e-4)


def test_it_stays_finite_where_an_input_says_all_or_nothing() -> None:
    x = np.array([[0.0, 1], [0, 1], [1, 1], [1, 1]])
    assert np.isfinite(fit(x, np.array([4.0, 3, 2, 1]), np.array([True] * 4))).all()


def test_observed_risks_are_kaplan_meiers_and_aalen_johansens_with_their_errors() -> None:
    _, time, event = followed(200, 1)
    y = np.stack([time, event.astype(float), time, time], axis=1)
    fitted = lifelines.KaplanMeierFitter().fit(time, event)
    for end, (risk, error) in zip([5, 20, 40], incidence(y, 1, np.array([5.0, 20, 40])), strict=True):
        free = float(fitted.predict(end))
        assert risk == pytest.approx(1 - free, abs=1e-9)
        variance = np.ravel(fitted._cumulative_sq_.loc[:end])[-1]
        assert error == pytest.approx(free * np.sqrt(variance), abs=1e-9)
    causes = np.where(event, np.random.default_rng(2).integers(1, 3, 200), 0)
    distinct = time + np.arange(200) / 1e3  # so that lifelines does not move them
    y = np.stack([distinct, causes.astype(float), time, time], axis=1)
    both = lifelines.AalenJohansenFitter(calculate_variance=True).fit(distinct, causes, 2)
    ((risk, error),) = incidence(y, 2, np.array([30.0]))
    assert risk == pytest.approx(np.ravel(both.cumulative_density_.loc[:30.0])[-1], abs=1e-9)
    assert error**2 == pytest.approx(np.ravel(both.variance_.loc[:30.0])[-1], rel=1e-6)
