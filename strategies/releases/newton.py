"""Ratios with intervals from a noisy score and information: one bent Newton step from the final model.

With score g = sum z (p - y) and information H at the final model b, both noisy: G = g + e, M = H + E, of the variances
s_g^2 and (Frobenius) s_h^2. The estimate is b + d with M d = -G, of which

    d - (converged pooled - b) = -M^-1 (e + E d) + second-order terms.

Given M, the first part is Gaussian of a known covariance: the noise of M does not widen the interval but by E d, which
is small where the final model is near. That is the interval of the pooled estimate. Beside it patients are a sample:
the score of the truth has the covariance H, so that M^-1 H M^-1 is added; M^-1 alone would be too small by the noise in
M. E[E A E] = s_h^2 / 2 (tr(A) I + A) of a symmetric Gaussian matrix says by how much, and what to take off d.

Second-order terms: a Newton step is straight, the score is not. The score at b + d follows from the distribution of
(z'b, z'd) over patients, weighted by p (1 - p), whose mean and covariance are in M. As if it were Gaussian, which sums
of several columns nearly are, it says by how much the step must bend (Gauss-Hermite quadrature), and what the
information is where it ends (less the part of d that is noise). That takes most of a straight step's error away, and
needs no second release (python -m simulations.benchmarks.inference).

Where M is drowned, none of this holds: the noise whitened by M has a largest eigenvalue of about
s_h sqrt((tr(M^-1) / l + 1 / l^2) / 2), l being M's smallest one. Above DROWNED nothing is told.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from strategies.tasks.base import Objective
from strategies.tasks.metrics import NORMAL_975

Floats = NDArray[np.float64]
DROWNED = 0.35
FARTHEST = 1.5  # root mean square in the model's output: beyond, the bend is a guess
_STEPS, _NEAR = 200, 1e-7
_POINTS, _MOST = 12, 25.0  # of a quadrature's axis; of an output's size, beyond which nobody is uncertain


@dataclass(frozen=True)
class Inferred:
    """The estimate and its covariances; None where it is undefined.

    moved: (dimension,) from the final model; pooled, whole: covariances of the noise, and of noise and sampling.
    """

    drowned: float
    distance: float | None = None
    moved: Floats | None = None
    pooled: Floats | None = None
    whole: Floats | None = None

    def ends(self, weights: Floats, *, whole: bool) -> tuple[float, float, float]:
        """Return how far a contrast of coefficients moved, and the ends of its 95 % interval."""
        assert self.moved is not None
        covariance = self.whole if whole else self.pooled
        assert covariance is not None
        moved, margin = float(weights @ self.moved), NORMAL_975 * math.sqrt(float(weights @ covariance @ weights))
        return moved, moved - margin, moved + margin


def inferred(
    objective: Objective,
    model: Floats,
    score: Floats,
    information: Floats,
    variances: tuple[float, float],
    *,
    ones: int = 1,
) -> Inferred:
    """Return the estimate from the summed releases.

    Args:
        model: (dimension,) of the final model, in the frame of the score.
        score: (dimension,) the loss's noisy gradient; information: (dimension, dimension), symmetric.
        variances: of the score's entries, and of the information's diagonal (half of it off the diagonal).
        ones: the number of intercepts, the last of the dimensions.
    """
    of_matrix = variances[1]
    eigenvalues, vectors = np.linalg.eigh(information)
    least = float(eigenvalues[0])
    if least <= 0:
        return Inferred(math.inf)
    inverse = (vectors / eigenvalues) @ vectors.T
    trace = float(np.trace(inverse))
    drowned = math.sqrt(of_matrix / 2 * (trace / least + 1 / least**2))
    if drowned > DROWNED:
        return Inferred(drowned)
    unbiased = np.eye(len(score)) - of_matrix / 2 * (trace * inverse + inverse @ inverse)
    straight = -unbiased @ inverse @ score
    rows = _Rows.of(information, model, ones)
    moved = _bent(objective, rows, inverse, straight)
    if moved is None:
        return Inferred(drowned)
    square = float(moved @ information @ moved)
    by_noise = float(np.trace(information @ _of_noise(inverse, moved, variances)))
    surely = moved * math.sqrt(max(0.0, 1.0 - by_noise / square)) if square > 0 else moved
    end = np.asarray(np.linalg.inv(_information(objective, rows, surely)), np.float64)
    sampling = end + of_matrix * (float(np.trace(end)) * end @ end + end @ end @ end)
    pooled = unbiased @ _of_noise(end, moved, variances) @ unbiased
    whole = pooled + unbiased @ sampling @ unbiased
    distance = math.sqrt(square / rows.total)
    return Inferred(drowned, distance, moved, pooled, whole) if distance <= FARTHEST else Inferred(drowned, distance)


def _of_noise(inverse: Floats, moved: Floats, variances: tuple[float, float]) -> Floats:
    """Return the covariance of inverse @ (e + E moved)."""
    of_score, of_matrix = variances
    along = inverse @ moved
    return (of_score + of_matrix / 2 * float(moved @ moved)) * inverse @ inverse + of_matrix / 2 * np.outer(
        along, along
    )


@dataclass(frozen=True)
class _Rows:
    """What the information says of all rows, weighted by curvature.

    model: (dimension,); total: the sum of the weights; mean, covariance: (dimension,) and (dimension, dimension).
    """

    model: Floats
    total: float
    mean: Floats
    covariance: Floats

    @classmethod
    def of(cls, information: Floats, model: Floats, ones: int) -> "_Rows":
        """Return it of an information whose last `ones` dimensions are the rows' intercepts: of each row one is 1."""
        with_ones = information[:, -ones:].sum(axis=1)
        total = float(with_ones[-ones:].sum())
        mean = with_ones / total
        return cls(model, total, mean, information / total - np.outer(mean, mean))


def _bent(objective: Objective, rows: _Rows, inverse: Floats, straight: Floats) -> Floats | None:
    """Return the step that the score's bend leads to, by fixed points; None where they do not settle."""
    moved = straight
    for _ in range(_STEPS):
        following = straight - inverse @ _bend(objective, rows, moved)
        if not np.isfinite(following).all() or np.abs(following).max() > 100:
            return None
        if np.abs(following - moved).max() < _NEAR * (1 + np.abs(moved).max()):
            return following
        moved = following
    return None


@dataclass(frozen=True)
class _Cloud:
    """Points for the expectation over rows, as if (z'model, z'moved) were Gaussian over rows weighted by curvature.

    rows: (points, dimension), a row's mean at each point; rest: (dimension, dimension), what is left of its covariance.
    outputs, move: (points,), z'model and z'moved; shares: (points,), the weights of a quadrature.
    """

    rows: Floats
    rest: Floats
    outputs: Floats
    move: Floats
    shares: Floats


def _cloud(of: _Rows, moved: Floats) -> _Cloud:
    mean, covariance = of.mean, of.covariance
    pair = np.stack([of.model, moved], axis=1)
    with_pair = covariance @ pair  # (dimension, 2)
    eigenvalues, vectors = np.linalg.eigh(pair.T @ with_pair)
    nodes, shares = _quadrature()
    about = (vectors * np.sqrt(np.maximum(eigenvalues, 0.0))) @ nodes  # (2, points)
    regression = with_pair @ np.linalg.pinv(pair.T @ with_pair, rcond=1e-9, hermitian=True)
    outputs, move = about + (pair.T @ mean)[:, None]
    rest = covariance - regression @ with_pair.T
    return _Cloud(mean + (regression @ about).T, rest, np.clip(outputs, -_MOST, _MOST), move, shares)


def _bend(objective: Objective, rows: _Rows, moved: Floats) -> Floats:
    """Return what the score at model + moved has beyond information @ moved."""
    cloud = _cloud(rows, moved)
    beyond = _slope(objective, cloud.outputs, cloud.move) - cloud.move
    return np.asarray(rows.total * ((cloud.shares * beyond) @ cloud.rows))


def _information(objective: Objective, rows: _Rows, moved: Floats) -> Floats:
    """Return the information at model + moved."""
    cloud = _cloud(rows, moved)
    ends = cloud.outputs, np.clip(cloud.outputs + cloud.move, -_MOST, _MOST)
    before, after = (objective.curvature(at[:, None]) for at in ends)
    assert before is not None
    assert after is not None
    grown = cloud.shares * after / before
    return np.asarray(rows.total * ((cloud.rows.T * grown) @ cloud.rows + grown.sum() * cloud.rest))


def _slope(objective: Objective, outputs: Floats, move: Floats) -> Floats:
    """Return by how much the residual changes on the way from outputs to outputs + move, over the curvature."""
    nothing = np.zeros(len(outputs), np.float32)
    after, before = (objective.residual(at[:, None], nothing)[:, 0] for at in (outputs + move, outputs))
    curvature = objective.curvature(outputs[:, None])
    assert curvature is not None
    return np.asarray((after - before) / curvature)


@cache
def _quadrature() -> tuple[Floats, Floats]:
    """Return (2, points) and weights for the expectation over two independent standard Gaussians."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_POINTS)
    grid = np.stack([axis.ravel() for axis in np.meshgrid(nodes, nodes)])
    product = np.outer(weights, weights).ravel()
    return grid, product / product.sum()
