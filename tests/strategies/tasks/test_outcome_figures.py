"""Exact figures at thresholds, decision curve, ROC and calibration, held against scikit-learn and plain formulas."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from configs.records.outcome import AtThreshold
from strategies.tasks.classification import AUPRC
from strategies.tasks.metrics import Floats, estimate
from strategies.tasks.outcome_figures import (
    at_threshold,
    calibrated,
    calibration_slope,
    decision_curve,
    outcome_figures,
    roc,
)

RNG = np.random.default_rng(5)
TRUTH = RNG.normal(size=300)
Y = (RNG.random(300) < 1 / (1 + np.exp(-TRUTH))).astype(float)
P = np.round(1 / (1 + np.exp(-(0.5 + 1.7 * TRUTH))), 2)  # too sure, too high, with ties
EACH = np.arange(300)


def values(entry: AtThreshold) -> dict[str, float]:
    return {name: getattr(entry, name).value for name in ("sensitivity", "specificity", "ppv", "npv", "flagged")}


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.73])
def test_figures_at_a_threshold_are_those_of_the_confusion_matrix(threshold: float) -> None:
    (right_without, false), (missed, right) = confusion_matrix(Y, threshold <= P)
    entry = at_threshold((Y, P, EACH), threshold)
    assert values(entry) == pytest.approx(
        {
            "sensitivity": right / (right + missed),
            "specificity": right_without / (right_without + false),
            "ppv": right / (right + false),
            "npv": right_without / (right_without + missed),
            "flagged": (right + false) / 300,
        }
    )
    assert entry.net_benefit is not None
    assert entry.net_benefit.value == pytest.approx(right / 300 - false / 300 * threshold / (1 - threshold))
    assert entry.sensitivity is not None
    assert 0 < entry.sensitivity.high - entry.sensitivity.low < 0.25


def test_a_figure_without_patients_is_no_number() -> None:
    nobody = at_threshold((Y, 0.2 * P, EACH), 0.9)
    assert nobody.ppv is None
    assert nobody.npv is not None
    one = at_threshold((np.array([0.0, 0, 0, 1]), np.array([0.1, 0.2, 0.8, 0.9]), np.arange(4)), 0.5)
    assert one.sensitivity is None
    assert one.specificity is not None


def test_the_decision_curve_begins_at_the_share_and_treating_nobody_is_zero() -> None:
    points = decision_curve(Y, P, (0.0001, 0.3, 0.99))
    assert points[0].model == pytest.approx(Y.mean(), abs=1e-3)
    assert points[0].everybody == pytest.approx(Y.mean(), abs=1e-3)
    assert points[1].model > max(0.0, points[1].everybody)  # the model orders patients, so it is of use
    (entry,) = [at_threshold((Y, P, EACH), 0.3).net_benefit]
    assert entry is not None
    assert points[1].model == pytest.approx(entry.value)


def test_the_area_under_the_drawn_curve_is_the_auroc() -> None:
    points = roc(Y, P, most=1000)
    x = np.array([0.0, *(1 - point.specificity for point in points)])
    y = np.array([0.0, *(point.sensitivity for point in points)])
    assert np.trapezoid(y, x) == pytest.approx(roc_auc_score(Y, P))
    assert len(roc(Y, P, most=10)) == 10
    assert roc(np.ones(3), P[:3]) == ()


def test_the_average_precision_is_scikit_learns() -> None:
    found = estimate(AUPRC, Y, np.stack([1 - P, P], axis=1), EACH, resamples=0)
    assert found is not None
    assert found.value == pytest.approx(average_precision_score(Y, P))


def log_odds(p: Floats) -> Floats:
    return np.log(p / (1 - p))


def test_calibration_is_the_mean_difference_and_the_slope_of_a_logistic_regression() -> None:
    p = np.clip(P, 0.005, 0.995)
    found = calibrated((Y, p, EACH))
    assert found.in_the_large is not None
    assert found.slope is not None
    assert found.in_the_large.value == pytest.approx(p.mean() - Y.mean())
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(log_odds(p)[:, None], Y)
    assert found.slope.value == pytest.approx(reference.coef_[0, 0], abs=1e-5)
    assert found.slope.high < 1  # too sure


def test_the_slopes_interval_covers_and_does_not_count_a_patients_rows_as_patients() -> None:
    inside, rng = 0, np.random.default_rng(1)
    for _ in range(300):
        x = rng.normal(size=120)
        y = (rng.random(120) < 1 / (1 + np.exp(-0.8 * x))).astype(float)
        found = calibration_slope(y, 1 / (1 + np.exp(-x)), np.arange(120))
        assert found is not None
        inside += found.low <= 0.8 <= found.high
    assert 0.9 <= inside / 300 <= 0.99
    once = calibration_slope(Y, P.clip(0.01, 0.99), EACH)
    thrice = calibration_slope(Y.repeat(3), P.clip(0.01, 0.99).repeat(3), EACH.repeat(3))
    assert once is not None
    assert thrice is not None
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, rel=1e-6)


@pytest.mark.parametrize(
    ("y", "p"),
    [
        ([0, 0, 0, 1], [0.1, 0.2, 0.3, 0.9]),  # one patient with the outcome
        ([0, 0, 1, 1], [0.4, 0.4, 0.4, 0.4]),  # one prediction for everybody
        ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]),  # perfectly ordered: no finite slope
        ([0, 0, 1, 1], [0.0, 0.0, 1.0, 1.0]),
    ],
)
def test_a_slope_that_does_not_exist_is_no_number(y: list[float], p: list[float]) -> None:
    assert calibration_slope(np.array(y, float), np.array(p), np.arange(4)) is None


def test_everybody_and_each_hospital_stand_in_one_record() -> None:
    half = slice(0, 150)
    found = outcome_figures((Y, P, EACH), {"lille": (Y[half], P[half], EACH[half])}, ())
    assert [entry.threshold for entry in found.thresholds] == [0.5]
    lille = found.calibrated_by_site["lille"].observed
    assert lille is not None
    assert lille.value == pytest.approx(Y[half].mean())
    assert len(found.decision) == 49
