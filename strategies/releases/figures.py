"""AUROC, Brier score and calibration from noisy score histograms, with 95 % intervals.

The histograms are of scores by outcome. The intervals include the noise. Every figure is the root of an equation that
is unbiased in the noisy counts: with P and N the counts with and without the outcome, c the bins' middles and K[i, j] =
1 where j < i, 1/2 where j = i,

    AUROC a:          P' (K - a) N                                     = 0    (the two rows' noise is independent)
    Brier b:          sum P ((1 - c)^2 - b) + sum N (c^2 - b)          = 0
    observed share o: P (1 - o) - N o                                  = 0    (of one bin)

A third row L holds patients whose outcome nobody knows: at a horizon, those lost from sight before. No weight of a
patient leaves a hospital, so they are handled in the cells, linearly:

    AUROC:            of P and N alone. Early events are seen more often than late ones, and of high scores: .005 too
                      high where 30 % are lost, .013 where 60 % are (simulations/benchmarks/horizon.py).
    Brier, share:     N + L / 2 in the place of N: on average they were followed half the time, and count half among
                      those at risk, as in a life table of one interval (Cutler and Ederer 1958). Leaving them out
                      would overstate every risk. Where risks are high and many are lost, half is too many: the shares
                      come out too low.

The interval holds every value at which the left side is within 1.96 of its standard deviations from zero (Fieller 1954,
"Some problems in interval estimation"). Its variance is the noise's, which is known exactly, plus that of patients as a
sample of those to come (for the AUROC that of DeLong, DeLong and Clarke-Pearson 1988). Nothing is drawn and no count is
set to zero first: taking negative counts for zero would draw every AUROC towards 1/2. Of bins nobody can order patients
within one: ties count half.

A figure is undefined, never a number, unless the noisy totals say with 97.5 % that there are two patients of each
outcome or more.

>>> exact = np.array([[40.0, 10.0], [10.0, 40.0]])
>>> found = figures(exact, cell_variance=4.0)
>>> found.auroc.value, found.auroc.low < 0.75, figures(exact, cell_variance=900.0).auroc
(0.8, True, None)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.records.estimate import Estimate
from configs.records.result import Bin
from strategies.tasks.metrics import MIN_PER_CLASS, NORMAL_975, Floats

_VALUES = np.linspace(0.0, 1.0, 2001)[:, None]  # where the equations are looked at: (values, 1)
_STANDS_FOR = np.array([1.0, 1.0, 0.5])  # without the outcome, with it, unknown
_DRAWN_BINS = 10  # of a calibration plot; finer ones are put together


@dataclass(frozen=True, slots=True)
class Figures:
    """A model's figures from a histogram; None where undefined. `calibration`: bins that hold patients for sure."""

    auroc: Estimate | None
    brier: Estimate | None
    calibration: tuple[Bin, ...] = ()


def figures(histogram: NDArray[Any], *, cell_variance: float) -> Figures:
    """Return the figures of a noisy histogram: of one hospital, or the sum of several.

    Args:
        histogram: (2, bins), row 1 with the outcome; or (3, bins), row 2 of patients whose outcome nobody knows.
        cell_variance: of the noise in each cell; of a sum of histograms the sum of theirs.
    """
    without, having, *unknown = np.asarray(histogram, np.float64)  # (bins,) each
    if not all(surely_holds(row, cell_variance) for row in (without, having)):
        return Figures(None, None)
    return Figures(
        _auroc(having, without, cell_variance),
        _brier([without, having, *unknown], cell_variance),
        _calibration([without, having, *unknown], cell_variance),
    )


def _auroc(having: Floats, without: Floats, variance: float) -> Estimate:
    bins = len(having)
    order = np.tri(bins, k=-1) + np.eye(bins) / 2  # (bins, bins): row i above column j
    beaten, beating = order @ without, having @ order  # (bins,) each
    pairs = having.sum() * without.sum()

    def equation(a: Floats) -> tuple[Floats, Floats]:
        of_having, of_without = beaten - a * without.sum(), beating - a * having.sum()  # (values, bins)
        size = (order**2).sum() - 2 * a[:, 0] * order.sum() + a[:, 0] ** 2 * bins**2  # of K - a, squared: (values,)
        slopes = (of_having**2).sum(1) + (of_without**2).sum(1)
        # The slopes hold noise of their own, which is taken off; below what remains without a slope there is nothing.
        noise = np.maximum(variance * slopes - variance**2 * size, variance**2 * size)
        patients = (_positive(having) * of_having**2).sum(1) + (_positive(without) * of_without**2).sum(1)
        return having @ beaten - a[:, 0] * pairs, noise + patients

    return _interval(float(having @ beaten / pairs), equation)


def _brier(rows: list[Floats], variance: float) -> Estimate:
    bins = len(rows[0])
    middles = (np.arange(bins) + 0.5) / bins
    losses = np.stack([middles**2, (1 - middles) ** 2, middles**2])[: len(rows)]
    weights = np.repeat(_STANDS_FOR[: len(rows)], bins)
    return mean_of_cells(np.stack(rows).ravel(), losses.ravel(), variance, weights)


def _calibration(rows: list[Floats], variance: float) -> tuple[Bin, ...]:
    bins = len(rows[0])
    together = -(-bins // _DRAWN_BINS)
    groups: list[Bin] = []
    for low in range(0, bins, together):
        high = min(low + together, bins)
        counts, noise = np.array([row[low:high].sum() for row in rows]), (high - low) * variance
        if not surely_holds(counts[:2], noise):
            continue
        observed = mean_of_cells(counts, np.array([0.0, 1.0, 0.0])[: len(rows)], noise, _STANDS_FOR[: len(rows)])
        middle = (low + high) / 2 / bins
        groups.append(
            Bin(
                low=low / bins,
                high=high / bins,
                predicted=middle,
                observed=observed.value,
                observed_low=observed.low,
                observed_high=observed.high,
                count=max(1, round(float(counts.sum()))),
            )
        )
    return tuple(groups)


def mean_of_cells(counts: Floats, values: Floats, variance: float, weights: Floats | float = 1.0) -> Estimate:
    """Return the mean of values over patients, of whom each cell holds a noisy count.

    Args:
        counts: (cells,), as many as `values`; variance: of the noise in each cell; weights: for how many a patient of
            each cell counts.
    """
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return Estimate(low, low, low)
    parts = (values - low) / (high - low)  # the equation is looked at from 0 to 1

    def equation(mean: Floats) -> tuple[Floats, Floats]:
        gaps = weights * (parts - mean)  # (values, cells)
        noise, patients = variance * (gaps**2).sum(1), (_positive(counts) * gaps**2).sum(1)
        return gaps @ counts, noise + patients

    share = _interval(float((weights * parts) @ counts / (weights * counts).sum()), equation)
    return Estimate(*(low + (high - low) * end for end in (share.value, share.low, share.high)))


def surely_holds(counts: Floats, variance: float) -> bool:
    """Return whether noisy cells hold two patients or more, with 97.5 %."""
    return bool(counts.sum() >= MIN_PER_CLASS + NORMAL_975 * math.sqrt(counts.size * variance))


def _interval(root: float, equation: Callable[[Floats], tuple[Floats, Floats]]) -> Estimate:
    difference, variance = equation(_VALUES)
    inside = _VALUES[difference**2 <= NORMAL_975**2 * variance, 0]
    value = min(max(root, 0.0), 1.0)
    low, high = (inside[0], inside[-1]) if len(inside) else (value, value)
    return Estimate(value, min(float(low), value), max(float(high), value))


def _positive(counts: Floats) -> Floats:
    """Return counts as a variance needs them: none below zero, of the same total."""
    positive = np.maximum(counts, 0.0)
    total = positive.sum()
    return positive * (max(float(counts.sum()), 0.0) / total) if total > 0 else positive
