"""Recalibration of a model's probabilities on the hospital's own training patients.

Up to ISOTONIC_FROM events the log odds get an intercept and a slope (Cox 1958, Biometrika 45:562; Steyerberg 2004,
Stat Med 23:2567), which two numbers of 50 events can carry; from there on probabilities go through an isotonic
regression (pool adjacent violators; Niculescu-Mizil and Caruana 2005 show what fewer patients do to it). What comes of
it is made of patients without noise: it is kept at the hospital, and never leaves.

>>> predicted, ill = np.repeat([0.2, 0.8], 100), np.repeat([0.0, 1.0, 0.0, 1.0], [90, 10, 40, 60])
>>> half = fit(predicted, ill, events=70, others=130)
>>> half.method, apply(half, np.array([0.2, 0.8])).round(2).tolist()
('logistic', [0.1, 0.6])
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from configs.records.local_use import Recalibration
from strategies.exact.functions import logarithm, sigmoid

LEAST_EVENTS, ISOTONIC_FROM = 50, 300
FEW_EVENTS = 130  # the refusal's code
_EDGE = 1e-9  # probabilities nearer to 0 or 1 have no log odds worth a slope
_STEPS = 100
_MOST = 30.0  # of a slope or an intercept: beyond, the outcomes are told apart and there is no finite best one
Floats = NDArray[np.float64]


def fit(probability: Floats, y: Floats, events: int, others: int) -> Recalibration:
    """Return the recalibration that these patients' outcomes ask for; of no model yet.

    Args:
        probability: (rows,) of the outcome. y: (rows,) 0 or 1.
        events, others: patients with the outcome, and without.

    Raises:
        DataError: fewer than LEAST_EVENTS of either.
    """
    if min(events, others) < LEAST_EVENTS:
        raise DataError(
            f"recalibrate: code {FEW_EVENTS}: expected at least {LEAST_EVENTS} training patients with the outcome and "
            f"{LEAST_EVENTS} without, found {events} and {others}; use the model as it is, or wait for more patients"
        )
    if min(events, others) >= ISOTONIC_FROM:
        scores, shares = (tuple(values.tolist()) for values in _isotonic(probability, y))
        blank = Recalibration(study="", model_sha256="", method="isotonic", events=events, others=others)
        return replace(blank, scores=scores, shares=shares)
    intercept, slope = _logistic(_log_odds(probability), y)
    blank = Recalibration(study="", model_sha256="", method="logistic", events=events, others=others)
    return replace(blank, intercept=intercept, slope=slope)


def apply(recalibration: Recalibration, probability: Floats) -> Floats:
    """Return recalibrated probabilities: (rows,) -> (rows,)."""
    if recalibration.scores:
        return np.interp(probability, recalibration.scores, recalibration.shares)
    return sigmoid(recalibration.intercept + recalibration.slope * _log_odds(probability))


def _log_odds(probability: Floats) -> Floats:
    inside = np.clip(probability, _EDGE, 1.0 - _EDGE)
    return logarithm(inside / (1.0 - inside))


def _logistic(x: Floats, y: Floats) -> tuple[float, float]:
    """Return the intercept and slope of largest likelihood, by Newton's method."""
    design = np.stack([np.ones_like(x), x], axis=1)
    beta = np.array([0.0, 1.0])
    for _ in range(_STEPS):
        fitted = sigmoid(design @ beta)
        weights = np.maximum(fitted * (1 - fitted), 1e-12)
        information = design.T @ (weights[:, None] * design) + 1e-9 * np.eye(2)
        step = np.linalg.solve(information, design.T @ (y - fitted))
        step *= min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-300))
        beta = np.clip(beta + step, -_MOST, _MOST)
        if float(np.abs(step).max()) < 1e-10:
            break
    return float(beta[0]), float(beta[1])


def _isotonic(probability: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return ascending scores and the ascending shares that fit best (least squares), at the ends of each block."""
    order = np.argsort(probability, kind="stable")
    blocks: list[list[float]] = []  # sum of outcomes, rows, first score, last score
    for score, outcome in zip(probability[order].tolist(), y[order].tolist(), strict=True):
        if blocks and score == blocks[-1][3]:
            blocks[-1][0] += outcome
            blocks[-1][1] += 1
        else:
            blocks.append([outcome, 1.0, score, score])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            total, rows, _, last = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += rows
            blocks[-1][3] = last
    scores = np.array([edge for block in blocks for edge in block[2:]])
    shares = np.repeat([block[0] / block[1] for block in blocks], 2)
    kept = np.concatenate([[True], np.diff(scores) > 0])
    return scores[kept], shares[kept]
