"""Cox's proportional hazards, fitted to all patients in one place: the anchor that a survival study is compared with.

Newton's method on the partial likelihood with Efron's ties (Efron 1977, JASA 72:557) and a ridge that is only there to
keep weights finite. Its risk sets mix patients, so it is never trained by hospitals: a simulation alone, which owns
every hospital's copy of the data, can fit it.

>>> x = np.array([[0.0], [1.0], [0.0], [1.0]])
>>> round(float(fit(x, np.array([4.0, 1.0, 2.0, 3.0]), np.array([True, True, True, False]))[0]), 3)
0.347
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RIDGE = 1e-6  # of the mean log likelihood, on inputs of unit variance
MOST_STEPS, TOLERANCE = 50, 1e-9


@dataclass
class _Sums:
    """Sums over the patients at risk: of their hazards, times x, times x x^T."""

    zeroth: float
    first: Floats
    second: Floats

    def add(self, x: Floats, hazards: Floats) -> None:
        """Add patients; x: (patients, inputs)."""
        self.zeroth += float(hazards.sum())
        self.first += hazards @ x
        self.second += (x * hazards[:, None]).T @ x


def fit(x: Floats, time: Floats, event: NDArray[np.bool_], ridge: float = RIDGE) -> Floats:
    """Return the log hazard ratios, (inputs,), with the highest penalised partial likelihood.

    Args:
        x: (patients, inputs); time: (patients,); event: (patients,) whether it ended the time.
    """
    spread = np.maximum(x.std(axis=0), 1e-9)
    scaled = (x - x.mean(axis=0)) / spread
    weights: Floats = np.zeros(x.shape[1])
    value, step = -np.inf, np.zeros(x.shape[1])
    order = np.argsort(-time, kind="stable")
    for _ in range(MOST_STEPS):
        likelihood, slope, bend = _likelihood(scaled[order], time[order], event[order], weights)
        likelihood -= len(x) * ridge * float(weights @ weights) / 2
        if likelihood < value:  # too far: half the way back
            step = np.asarray(step / 2, np.float64)
            weights = weights - step
            continue
        if likelihood - value < TOLERANCE * (abs(likelihood) + TOLERANCE):
            break
        value = likelihood
        pulled = bend + len(x) * ridge * np.eye(len(bend))
        step = np.asarray(np.linalg.solve(pulled, slope - len(x) * ridge * weights), np.float64)
        weights = weights + step
    return np.asarray(weights / spread)


def baseline(x: Floats, time: Floats, event: NDArray[np.bool_], weights: Floats, times: Floats) -> Floats:
    """Return Breslow's cumulative hazard of x = 0 by each of some times (Breslow 1972, JRSS B 34:216)."""
    relative, order = np.exp(np.clip(x @ weights, -500, 500)), np.argsort(-time, kind="stable")
    at_risk = np.cumsum(relative[order])[np.searchsorted(-time[order], -time[event], side="right") - 1]
    return np.asarray([(1 / at_risk)[time[event] <= end].sum() for end in times])


def _likelihood(x: Floats, time: Floats, event: NDArray[np.bool_], weights: Floats) -> tuple[float, Floats, Floats]:
    """Return the log partial likelihood, its gradient and minus its second derivative; the latest patients first."""
    hazards = np.exp(np.clip(x @ weights, -500, 500))
    at_risk = _Sums(0.0, np.zeros(x.shape[1]), np.zeros((x.shape[1], x.shape[1])))
    value, slope, bend = 0.0, np.zeros(x.shape[1]), np.zeros((x.shape[1], x.shape[1]))
    starts = np.flatnonzero(np.concatenate([[True], np.diff(time) < 0]))
    for first, last in zip(starts, [*starts[1:], len(time)], strict=True):
        at_risk.add(x[first:last], hazards[first:last])
        ended = first + np.flatnonzero(event[first:last])
        if not len(ended):
            continue
        tied = _Sums(0.0, np.zeros(x.shape[1]), np.zeros((x.shape[1], x.shape[1])))
        tied.add(x[ended], hazards[ended])
        value += float((x[ended] @ weights).sum())
        slope += x[ended].sum(axis=0)
        for gone in np.arange(len(ended)) / len(ended):  # Efron: of those tied, the ones before have partly left
            total = at_risk.zeroth - gone * tied.zeroth
            mean = (at_risk.first - gone * tied.first) / total
            value -= float(np.log(total))
            slope -= mean
            bend += (at_risk.second - gone * tied.second) / total - np.outer(mean, mean)
    return value, slope, bend
