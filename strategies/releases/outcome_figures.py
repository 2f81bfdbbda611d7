"""Thresholds, decision curve, ROC and calibration in the large from noisy score histograms.

Those of patients at hand are in strategies/tasks/outcome_figures.py. Each share is a mean over noisy cells, with the
interval of figures.py, which holds the noise. A threshold has figures only where it is an edge of the histogram's bins,
and a share only where the noisy counts surely hold two patients to take it of. The slope of calibration and the AUPRC
are not linear in the counts: they are undefined here.

>>> exact = np.array([[40.0, 10.0], [10.0, 40.0]])
>>> figures = outcome_figures(exact, {}, cell_variance=1.0, thresholds=(0.5, 0.3))
>>> [entry.sensitivity and entry.sensitivity.value for entry in figures.thresholds]
[0.8, None]
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.records.estimate import Estimate
from configs.records.outcome import AtThreshold, Calibrated, NetBenefit, OutcomeFigures, RocPoint
from strategies.releases.figures import mean_of_cells, surely_holds
from strategies.tasks.metrics import Floats
from strategies.tasks.outcome_figures import USUAL


def outcome_figures(
    together: NDArray[Any],
    sites: Mapping[str, NDArray[Any]],
    *,
    cell_variance: float,
    thresholds: Sequence[float] = (),
    site_variance: float | None = None,
) -> OutcomeFigures:
    """Return the figures of a sum of histograms (2, bins), row 1 with the outcome, and each hospital's calibration.

    Args:
        cell_variance: of the noise in each cell of the sum; `site_variance` that of one hospital's.
    """
    counts = np.asarray(together, np.float64)
    of_site = cell_variance if site_variance is None else site_variance
    drawn = all(surely_holds(row, cell_variance) for row in counts)
    return OutcomeFigures(
        calibrated=_calibrated(counts, cell_variance),
        calibrated_by_site={
            site: _calibrated(np.asarray(cells, np.float64), of_site) for site, cells in sorted(sites.items())
        },
        thresholds=tuple(_at_threshold(counts, cell_variance, threshold) for threshold in thresholds or USUAL),
        decision=tuple(_decision(counts)) if drawn else (),
        roc=tuple(_roc(counts)) if drawn else (),
    )


def _calibrated(counts: Floats, variance: float) -> Calibrated:
    bins = counts.shape[1]
    middles = (np.arange(bins) + 0.5) / bins
    outcome = np.array([[0.0], [1.0]]) * np.ones(bins)  # (2, bins)
    return Calibrated(
        observed=_mean(counts, outcome, variance),
        in_the_large=_mean(counts, middles - outcome, variance),
        slope=None,
    )


def _mean(counts: Floats, values: Floats, variance: float) -> Estimate | None:
    """Return the mean of values over patients in cells; None where the noise may hide that there are any."""
    if not surely_holds(counts, variance):
        return None
    return mean_of_cells(counts.ravel(), values.ravel(), variance)


def _at_threshold(counts: Floats, variance: float, threshold: float) -> AtThreshold:
    bins = counts.shape[1]
    edge = round(threshold * bins)
    if not math.isclose(edge, threshold * bins, abs_tol=1e-9):
        return AtThreshold(threshold=threshold, **dict.fromkeys(_NAMES))
    called = (np.arange(bins) >= edge).astype(np.float64)
    outcome, odds = np.array([[0.0], [1.0]]) * np.ones(bins), threshold / (1 - threshold)
    benefit = np.stack([-odds * called, called])
    both = np.stack([called, called])
    return AtThreshold(
        threshold=threshold,
        sensitivity=_mean(counts[1], called, variance),
        specificity=_mean(counts[0], 1 - called, variance),
        ppv=_mean(counts[:, edge:], outcome[:, edge:], variance),
        npv=_mean(counts[:, :edge], 1 - outcome[:, :edge], variance),
        flagged=_mean(counts, both, variance),
        net_benefit=_mean(counts, benefit, variance),
    )


_NAMES = ("sensitivity", "specificity", "ppv", "npv", "flagged", "net_benefit")


def _decision(counts: Floats) -> list[NetBenefit]:
    """Return the curve at the bins' edges."""
    bins, total, share = counts.shape[1], counts.sum(), counts[1].sum() / counts.sum()
    points = []
    for edge in range(1, bins):
        odds = edge / (bins - edge)
        model = (counts[1, edge:].sum() - odds * counts[0, edge:].sum()) / total
        points.append(NetBenefit(edge / bins, float(model), float(share - odds * (1 - share))))
    return points


def _roc(counts: Floats) -> list[RocPoint]:
    """Return the curve at the bins' edges, from the highest threshold."""
    bins = counts.shape[1]
    above = counts[:, ::-1].cumsum(axis=1) / counts.sum(axis=1, keepdims=True)  # (2, bins): from the last bin on
    false, true = np.clip(above, 0.0, 1.0)
    return [RocPoint((bins - 1 - n) / bins, float(true[n]), 1 - float(false[n])) for n in range(bins)]
