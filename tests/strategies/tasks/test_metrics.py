"""Metrics against slow, plain ones; intervals against what a bootstrap promises."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from configs.schema.task import TASKS
from strategies.tasks import metrics
from strategies.tasks.classification import calibration
from strategies.tasks.metrics import estimate, estimate_mean, estimates
from strategies.tasks.registry import OBJECTIVES
from strategies.tasks.regression import MAE

OF_TWO_COLUMNS = ("survival", "counts")  # test_times.py, test_counts.py
HERE = [kind for kind in OBJECTIVES if kind.name not in OF_TWO_COLUMNS and not kind.has_score]
METRICS = {m.name: m for kind in HERE for m in kind.metrics}
Floats = NDArray[np.float64]


def pairwise_auroc(positive: NDArray[np.bool_], score: Floats) -> float:
    """Every pair of one with the outcome and one without, one by one."""
    pairs = [(a > b) + (a == b) / 2 for a in score[positive] for b in score[~positive]]
    return float(sum(pairs) / len(pairs))


def auroc(y: Floats, p: Floats) -> float:
    if p.shape[1] == 2:
        return pairwise_auroc(y == 1, p[:, 1])
    return float(sum(pairwise_auroc(y == c, p[:, c]) for c in range(p.shape[1])) / p.shape[1])


def accuracy(y: Floats, p: Floats) -> float:
    right = sum(max(range(p.shape[1]), key=lambda c: row[c]) == truth for row, truth in zip(p, y, strict=True))
    return float(right / len(y))


def balanced_accuracy(y: Floats, p: Floats) -> float:
    shares = [accuracy(y[y == c], p[y == c]) for c in sorted(set(y.tolist()))]
    return sum(shares) / len(shares)


def brier(y: Floats, p: Floats) -> float:
    if p.shape[1] == 2:
        return float(sum((row[1] - truth) ** 2 for row, truth in zip(p, y, strict=True)) / len(y))
    whole = [sum((row[c] - (truth == c)) ** 2 for c in range(len(row))) for row, truth in zip(p, y, strict=True)]
    return float(sum(whole) / len(y))


def log_loss(y: Floats, p: Floats) -> float:
    return -sum(math.log(max(row[int(truth)], 1e-15)) for row, truth in zip(p, y, strict=True)) / len(y)


def mae(y: Floats, p: Floats) -> float:
    return float(sum(abs(row[0] - truth) for row, truth in zip(p, y, strict=True)) / len(y))


def r2(y: Floats, p: Floats) -> float:
    mean = sum(y) / len(y)
    unexplained = sum((row[0] - truth) ** 2 for row, truth in zip(p, y, strict=True))
    return float(1 - unexplained / sum((truth - mean) ** 2 for truth in y))


PLAIN: dict[str, Callable[[Floats, Floats], float]] = {
    "auroc": auroc,
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "brier": brier,
    "log_loss": log_loss,
    "auprc": lambda y, p: float(average_precision_score(y == 1, p[:, 1])),
    "mae": mae,
    "r2": r2,
}


def cases(metric: str, seed: int, rows: int) -> tuple[Floats, Floats]:
    """A target and predictions with ties, every class at least twice."""
    rng = np.random.default_rng(seed)
    if metric in ("mae", "r2"):
        return rng.normal(size=rows).round(1), rng.normal(size=(rows, 1)).round(1)
    classes = int(rng.integers(2, 5))
    y = np.concatenate([np.repeat(np.arange(classes), 2), rng.integers(0, classes, rows)]).astype(float)
    raw = rng.integers(1, 5, (len(y), classes)).astype(float)  # small integers: ties
    return y, raw / raw.sum(axis=1, keepdims=True)


def test_every_metric_that_a_study_may_ask_for_exists() -> None:
    declared = {kind.name: kind.metrics for kind in TASKS if kind.metrics}
    assert {kind.name: tuple(metric.name for metric in kind.metrics) for kind in OBJECTIVES} == declared
    assert set(METRICS) == set(PLAIN)
    assert all((kind.outcome is not None) == TASKS[kind.name].has_outcome for kind in OBJECTIVES)


@given(st.sampled_from(sorted(METRICS)), st.integers(0, 10**6), st.integers(2, 25))
def test_a_metric_is_what_the_plain_one_says(metric: str, seed: int, rows: int) -> None:
    y, p = cases(metric, seed, rows)
    if metric == "r2" and len(set(y)) < 2:
        return
    found = METRICS[metric].compute(y, p, np.ones((1, len(y))))
    assert float(found[0]) == pytest.approx(PLAIN[metric](y, p), abs=1e-9)


@given(st.sampled_from(sorted(METRICS)), st.integers(0, 10**6), st.integers(4, 20))
def test_a_weighted_metric_is_that_of_rows_repeated(metric: str, seed: int, rows: int) -> None:
    y, p = cases(metric, seed, rows)
    weights = np.random.default_rng(seed).integers(0, 4, (3, len(y)))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = METRICS[metric].compute(y, p, weights.astype(float))
    for value, counts in zip(found, weights, strict=True):
        again_y, again_p = y.repeat(counts), p.repeat(counts, axis=0)
        if (p.shape[1] > 1 and set(again_y) != set(y)) or (p.shape[1] == 1 and len(set(again_y)) < 2):
            continue  # a class was not drawn: undefined, and left out of the interval
        assert float(value) == pytest.approx(PLAIN[metric](again_y, again_p), abs=1e-9)


def test_the_log_loss_of_a_truth_held_impossible_is_large_and_finite() -> None:
    found = METRICS["log_loss"].compute(np.array([1.0]), np.array([[1.0, 0.0]]), np.ones((1, 1)))
    assert float(found[0]) == pytest.approx(-math.log(1e-15))


@pytest.mark.parametrize(
    ("scores", "expected"), [([0.5] * 4, 0.5), ([0.1, 0.2, 0.8, 0.9], 1.0), ([0.9, 0.8, 0.2, 0.1], 0.0)]
)
def test_auroc_of_ties_of_perfection_and_of_its_opposite(scores: list[float], expected: float) -> None:
    p = np.array(scores)
    found = estimate(METRICS["auroc"], np.array([0.0, 0, 1, 1]), np.stack([1 - p, p], 1), np.arange(4), resamples=0)
    assert found is not None
    assert found.value == expected


def two_classes(y: list[float]) -> tuple[Floats, Floats, NDArray[np.int64]]:
    p = np.linspace(0.1, 0.9, len(y))
    return np.array(y), np.stack([1 - p, p], 1), np.arange(len(y))


@pytest.mark.parametrize("y", [[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 1], [1, 0, 0, 0]])
def test_auroc_with_fewer_than_two_patients_of_a_class_is_no_number(y: list[float]) -> None:
    assert estimate(METRICS["auroc"], *two_classes(y)) is None


def test_auroc_with_two_rows_of_one_patient_in_a_class_is_no_number() -> None:
    y, p, _ = two_classes([0, 0, 1, 1])
    assert estimate(METRICS["auroc"], y, p, np.array([0, 0, 1, 2])) is None


def test_auroc_with_two_patients_of_each_class_is_a_number() -> None:
    assert estimate(METRICS["auroc"], *two_classes([0, 0, 1, 1])) is not None


def test_auroc_of_several_classes_needs_two_patients_of_each() -> None:
    p = np.full((5, 3), 1 / 3)
    assert estimate(METRICS["auroc"], np.array([0.0, 0, 1, 1, 2]), p, np.arange(5)) is None


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_no_metric_of_nobody_is_a_number(metric: str) -> None:
    assert estimate(METRICS[metric], np.empty(0), np.empty((0, 2)), np.empty(0, np.int64)) is None


def test_r2_of_a_target_that_never_varies_is_no_number() -> None:
    assert estimate(METRICS["r2"], np.ones(5), np.zeros((5, 1)), np.arange(5)) is None


def test_accuracy_with_one_class_is_still_a_number() -> None:
    assert estimate(METRICS["accuracy"], *two_classes([1, 1, 1])) is not None


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_an_interval_holds_its_value_and_is_the_same_again(metric: str) -> None:
    y, p = cases(metric, 5, 40)
    found = estimate(METRICS[metric], y, p, np.arange(len(y)), seed=3)
    assert found is not None
    assert found.low <= found.value <= found.high
    assert found.low < found.high
    assert estimate(METRICS[metric], y, p, np.arange(len(y)), seed=3) == found


def test_another_seed_draws_another_interval_around_the_same_value() -> None:
    y, p = cases("brier", 5, 40)
    a, b = (estimate(METRICS["brier"], y, p, np.arange(len(y)), seed=seed) for seed in (0, 1))
    assert a is not None
    assert b is not None
    assert a.value == b.value
    assert (a.low, a.high) != (b.low, b.high)


def test_without_resamples_the_interval_is_the_value() -> None:
    y, p = cases("brier", 5, 40)
    found = estimate(METRICS["brier"], y, p, np.arange(len(y)), resamples=0)
    assert found is not None
    assert found.low == found.value == found.high


def test_an_interval_covers_the_truth_about_nineteen_times_in_twenty() -> None:
    rng, covered, times = np.random.default_rng(0), 0, 300
    for _ in range(times):
        right = rng.random(80) < 0.7  # an accuracy of 0.7
        p = np.where(right[:, None], [[0.2, 0.8]], [[0.8, 0.2]])
        found = estimate(METRICS["accuracy"], np.ones(80), p, np.arange(80), resamples=200)
        assert found is not None
        covered += found.low <= 0.7 <= found.high
    assert 0.90 < covered / times < 0.98


def test_an_interval_is_as_wide_as_the_standard_error_makes_it() -> None:
    y = np.zeros(400)
    p = np.where(np.arange(400)[:, None] < 300, [[0.9, 0.1]], [[0.1, 0.9]])  # 300 of 400 right
    found = estimate(METRICS["accuracy"], y, p, np.arange(400))
    assert found is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * (0.75 * 0.25 / 400) ** 0.5, rel=0.1)


def test_rows_of_one_patient_are_drawn_together() -> None:
    y, p = cases("accuracy", 7, 30)
    once = estimate(METRICS["accuracy"], y, p, np.arange(len(y)))
    often = estimate(METRICS["accuracy"], y.repeat(9), p.repeat(9, axis=0), np.arange(len(y)).repeat(9))
    assert once is not None
    assert often is not None
    assert (often.value, often.low, often.high) == pytest.approx((once.value, once.low, once.high))


def test_the_mean_over_models_is_the_mean_of_their_values() -> None:
    y, p = cases("brier", 11, 30)
    q = p[:, ::-1].copy()
    values = [estimate(METRICS["brier"], y, x, np.arange(len(y))) for x in (p, q)]
    both = estimate_mean(METRICS["brier"], y, [p, q], np.arange(len(y)))
    assert both is not None
    assert both.value == pytest.approx(sum(v.value for v in values if v) / 2)


def test_calibration_counts_every_row_once_and_in_its_tenth() -> None:
    p = np.array([0.0, 0.05, 0.1, 0.95, 1.0, 1.0])
    y = np.array([0.0, 1, 0, 1, 1, 0])
    bins = calibration(y, p)
    assert [(b.low, b.count) for b in bins] == [(0.0, 2), (0.1, 1), (0.9, 3)]
    assert bins[2].observed == pytest.approx(2 / 3)
    assert bins[2].predicted == pytest.approx(2.95 / 3)


# In pieces


@pytest.mark.parametrize("metric", sorted(METRICS))
@pytest.mark.parametrize("rows_each", [1, 3])
def test_an_interval_is_the_same_bits_in_whatever_pieces_it_is_drawn(
    metric: str, rows_each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    y, p = cases(metric, 13, 57)
    y, p, patients = y.repeat(rows_each), p.repeat(rows_each, axis=0), np.arange(len(y)).repeat(rows_each)
    found = set()
    for piece in (1, 1_000, 7_777, 10**9):
        monkeypatch.setattr(metrics, "PIECE", piece)
        found.add(estimate(METRICS[metric], y, p, patients, seed=3))
    assert len(found) == 1
    assert None not in found


@pytest.mark.parametrize(("patients", "rows_each"), [(50, 1), (999, 1), (300, 4), (5_000, 1)])
def test_no_metric_is_ever_given_more_weights_than_a_piece_holds(
    patients: int, rows_each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This bounds the memory of the figures of a million patients: at least one resample, at most a piece."""
    sizes = []

    def recorded(y: Floats, p: Floats, weights: Floats) -> Floats:
        sizes.append(weights.shape)
        return np.asarray(weights.mean(axis=1))

    monkeypatch.setattr(metrics, "PIECE", 2_000)
    rows = patients * rows_each
    y, p = np.zeros(rows), np.zeros((rows, 1))
    assert (
        estimate(replace(MAE, compute=recorded), y, p, np.arange(patients).repeat(rows_each), resamples=100) is not None
    )
    assert sum(count for count, _ in sizes) == 101
    assert all(count * width <= max(2_000, rows) for count, width in sizes)


def test_several_metrics_of_one_drawing_are_those_of_each_by_itself() -> None:
    y, p = cases("brier", 5, 40)
    names = ["brier", "auroc", "accuracy", "log_loss", "balanced_accuracy"]
    together = estimates([METRICS[name] for name in names], y, [p], np.arange(len(y)), seed=4)
    assert together == {name: estimate(METRICS[name], y, p, np.arange(len(y)), seed=4) for name in names}


@pytest.mark.parametrize("metric", ["mae", "r2"])
def test_figures_of_a_model_that_diverged_warn_nobody(metric: str) -> None:
    """Warnings are errors in these tests; the figure is none, or what it is."""
    y, p = np.arange(20.0), np.full((20, 1), 1e300)
    estimate(METRICS[metric], y, p, np.arange(20))
