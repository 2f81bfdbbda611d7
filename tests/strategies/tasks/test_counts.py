"""Counts with an exposure: clipped to public ranges, bounded beyond the largest count, judged by deviance."""

import numpy as np
import pytest
import torch
from sklearn.metrics import d2_tweedie_score, mean_poisson_deviance

from configs.schema import Counts
from strategies.tasks.counts import count_error, d2, deviance
from strategies.tasks.registry import objective

VISITS = objective(Counts("counts", "visits", (), 0.0, 10.0, exposure="days", least_exposure=1.0, most_exposure=365.0))


def test_counts_and_exposures_are_clipped_to_their_ranges() -> None:
    y, clipped = VISITS.encode({"visits": np.array([3.0, 40, 0]), "days": np.array([365, 730, 0.1])})
    np.testing.assert_allclose(VISITS.in_unit(y), np.array([[3, 1], [10, 1], [0, 1 / 365]]))
    assert clipped == {"visits": 1, "days": 2}


def test_without_an_exposure_each_row_is_one() -> None:
    y, _ = objective(Counts("counts", "visits", (), 0.0, 10.0)).encode({"visits": np.array([2.0])})
    assert y.tolist() == [[2, 0]]


def test_its_residual_is_the_derivative_of_its_loss_below_and_beyond_the_largest_count() -> None:
    rng = np.random.default_rng(0)
    y = np.stack([rng.integers(0, 11, 99), np.log(rng.uniform(0.01, 1, 99))], axis=1).astype(np.float32)
    outputs = torch.linspace(-30, 30, 99, dtype=torch.float64)[:, None].requires_grad_()
    (gradient,) = torch.autograd.grad(VISITS.loss(outputs, torch.from_numpy(y).double()).sum(), outputs)
    residual = VISITS.residual(outputs.detach().numpy(), y)
    np.testing.assert_allclose(residual, gradient.numpy(), rtol=1e-9)
    assert np.abs(residual).max() <= 10
    assert VISITS.predict(np.array([[1e9], [-1e9]])).ravel().tolist() == pytest.approx([10, 0])


def test_its_figures_are_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    exposure, rate = rng.uniform(0.1, 1, 50), rng.uniform(0.5, 4, 50)
    count = rng.poisson(exposure * rate).astype(float)
    y, everybody = np.stack([count, exposure], axis=1), np.ones((1, 50))
    assert deviance(y, rate[:, None], everybody)[0] == pytest.approx(mean_poisson_deviance(count, exposure * rate))
    same = np.ones((50, 1))
    without = np.stack([count, np.ones(50)], axis=1)
    assert d2(without, rate[:, None], everybody)[0] == pytest.approx(d2_tweedie_score(count, rate, power=1))
    assert d2(y, same * count.sum() / exposure.sum(), everybody)[0] == pytest.approx(0, abs=1e-12)
    assert count_error(y, rate[:, None], everybody)[0] == pytest.approx(np.abs(count - exposure * rate).mean())
