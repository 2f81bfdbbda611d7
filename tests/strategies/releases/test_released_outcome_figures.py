"""Figures at thresholds, decision curve and calibration in the large from noisy histograms: right, and they cover."""

import numpy as np
import pytest

from strategies.releases.outcome_figures import outcome_figures
from strategies.releases.score_histogram import counts
from strategies.tasks.metrics import Floats
from strategies.tasks.outcome_figures import at_threshold, calibrated

BINS = 10


def people(rng: np.random.Generator, number: int) -> tuple[Floats, Floats]:
    """Outcomes and scores that lie in the middle of their bins, so that bins lose nothing."""
    score = (rng.integers(0, BINS, number) + 0.5) / BINS
    return (rng.random(number) < 0.15 + 0.6 * score).astype(float), score


def histogram(y: Floats, score: Floats) -> Floats:
    return counts(score, y, starts=np.arange(len(y) + 1), bins=BINS)


def test_without_noise_they_are_the_exact_ones() -> None:
    y, score = people(np.random.default_rng(0), 500)
    released = outcome_figures(histogram(y, score), {}, cell_variance=1e-9, thresholds=(0.2, 0.5))
    rows = y, score, np.arange(500)
    for entry, threshold in zip(released.thresholds, (0.2, 0.5), strict=True):
        exact = at_threshold(rows, threshold)
        for name in ("sensitivity", "specificity", "ppv", "npv", "flagged", "net_benefit"):
            assert getattr(entry, name).value == pytest.approx(getattr(exact, name).value)
            assert getattr(entry, name).low == pytest.approx(getattr(exact, name).low, abs=0.03)
            assert getattr(entry, name).high == pytest.approx(getattr(exact, name).high, abs=0.03)
    exact_calibration = calibrated(rows).in_the_large
    assert exact_calibration is not None
    assert released.calibrated.in_the_large is not None
    assert released.calibrated.in_the_large.value == pytest.approx(exact_calibration.value)
    assert released.calibrated.slope is None
    assert [point.threshold for point in released.decision] == pytest.approx([k / 10 for k in range(1, 10)])
    assert (released.roc[-1].sensitivity, released.roc[-1].specificity) == (1.0, 0.0)


def test_intervals_cover_the_truth_with_the_noise() -> None:
    rng, noise, trials = np.random.default_rng(7), 4.0, 400
    score = (np.arange(BINS) + 0.5) / BINS
    risk = 0.15 + 0.6 * score
    high = score > 0.5
    truth = {
        "sensitivity": risk[high].sum() / risk.sum(),
        "ppv": risk[high].mean(),
        "net_benefit": (risk[high] - (1 - risk[high])).sum() / BINS,
        "in_the_large": (score - risk).mean(),
    }
    inside = dict.fromkeys(truth, 0)
    for _ in range(trials):
        y, scores = people(rng, 600)
        noisy = histogram(y, scores) + rng.normal(0, noise, (2, BINS))
        released = outcome_figures(noisy, {}, cell_variance=noise**2)
        found = {name: getattr(released.thresholds[0], name, None) for name in truth}
        found["in_the_large"] = released.calibrated.in_the_large
        for name, estimate in found.items():
            assert estimate is not None
            inside[name] += estimate.low <= truth[name] <= estimate.high
    assert {name: 0.92 <= count / trials <= 0.98 for name, count in inside.items()} == dict.fromkeys(truth, True)


def test_what_noise_or_bins_hide_is_no_number() -> None:
    y, score = people(np.random.default_rng(0), 60)
    released = outcome_figures(histogram(y, score), {"brest": histogram(y, score)}, cell_variance=400.0)
    assert released.thresholds[0].sensitivity is None
    assert released.calibrated_by_site["brest"].in_the_large is None
    assert (released.decision, released.roc) == ((), ())
    between = outcome_figures(histogram(y, score), {}, cell_variance=1.0, thresholds=(0.25,))
    assert between.thresholds[0].flagged is None
