"""How often do the intervals of figures at a horizon hold the truth, where hospitals release noisy histograms of risks?

    python -m simulations.benchmarks.horizon [--simulations 2000]

One JSON line for each case: hospitals and patients of each, epsilon at delta 1e-5, the share of patients lost before
the horizon, and for the AUROC, the Brier score and the tenth of patients drawn most often the share of simulations in
which the interval held the truth, the error on average, the mean width, and the share in which it was defined. The
truth is what the same bins say of very many patients of whom nobody is lost; `binning` is how far that AUROC is from
the one of ungrouped risks. Times are made up: each patient has a constant rate, of which the model knows a part, and
is lost from sight at a time that is spread evenly.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.records.estimate import Estimate
from strategies.privacy.plan import Budget, least_noise
from strategies.releases.figures import Figures, figures
from strategies.releases.noisy_counts import cell_variance
from strategies.releases.score_histogram import counts
from strategies.tasks.classification import area
from strategies.tasks.metrics import Floats

DELTA = 1e-5
BINS = 10
MANY = 1_000_000  # patients of the truth
NAMES = ("auroc", "brier", "bin")


@dataclass(frozen=True)
class Case:
    """Hospitals with so many patients each, of whom `lost` is the share that would be lost before the horizon."""

    hospitals: int
    patients: int
    epsilon: float
    lost: float = 0.3


CASES = (
    *(Case(1, 300, 1.0), Case(1, 300, 2.0), Case(1, 1000, 0.5), Case(1, 1000, 1.0), Case(4, 300, 1.0)),
    *(Case(4, 300, 1.0, lost=0.05), Case(4, 300, 1.0, lost=0.6), Case(4, 1000, 3.0), Case(1, 100, 1.0)),
)


def main(arguments: list[str] | None = None) -> int:
    """Print one line for each case."""
    parser = argparse.ArgumentParser(prog="python -m simulations.benchmarks.horizon")
    parser.add_argument("--simulations", type=int, default=2000)
    for row in measured(parser.parse_args(arguments).simulations):
        print(json.dumps(row), flush=True)
    return 0


def measured(simulations: int) -> Iterator[dict[str, Any]]:
    """Yield a line for each case."""
    risk, state = followed(np.random.default_rng(1), MANY, lost=0.0)
    whole = histogram(risk, state)
    truth = _pick(figures(whole, cell_variance=0.0))
    ungrouped = float(area(risk, (state == 1)[None] * 1.0, (state == 0)[None] * 1.0)[0])
    for case in CASES:
        rng = np.random.default_rng(0)
        seen = [simulated(rng, case) for _ in range(simulations)]
        row: dict[str, Any] = {"hospitals": case.hospitals, "patients": case.patients, "epsilon": case.epsilon}
        row |= {"lost": case.lost, "binning": round(truth["auroc"].value - ungrouped, 4)}
        for name in NAMES:
            row |= _line(name, [each[name] for each in seen if name in each], truth[name].value, simulations)
        yield row


def simulated(rng: np.random.Generator, case: Case) -> dict[str, Estimate]:
    """Return the figures of fresh hospitals' releases, those that are defined."""
    cells, variance = released(rng, case)
    return _pick(figures(cells, cell_variance=variance))


def _pick(found: Figures) -> dict[str, Estimate]:
    """Return the figures that are defined, and the observed share of risks from .2 to .3."""
    picked = {name: figure for name in NAMES[:2] if (figure := getattr(found, name)) is not None}
    for entry in found.calibration:
        if entry.low == 0.2 and entry.observed_low is not None and entry.observed_high is not None:
            picked["bin"] = Estimate(entry.observed, entry.observed_low, entry.observed_high)
    return picked


def _line(name: str, seen: list[Estimate], truth: float, simulations: int) -> dict[str, float]:
    if not seen:
        return {f"{name}_defined": 0.0}
    held = np.mean([figure.low <= truth <= figure.high for figure in seen])
    error = np.mean([figure.value for figure in seen]) - truth
    width = np.mean([figure.high - figure.low for figure in seen])
    line: dict[str, Any] = {"held": held, "error": error, "width": width, "defined": len(seen) / simulations}
    return {f"{name}_{what}": round(float(value), 4) for what, value in line.items()}


def released(rng: np.random.Generator, case: Case) -> tuple[Floats, float]:
    """Return the sum of fresh hospitals' noisy histograms, and the variance of the noise in each cell."""
    deviation = least_noise(Budget(case.epsilon, DELTA), 1.0, 1)
    exact = histogram(*followed(rng, case.hospitals * case.patients, case.lost))
    noise = np.rint(rng.normal(0, deviation, (case.hospitals, *exact.shape))).sum(axis=0)
    return exact + noise, case.hospitals * cell_variance(deviation)


def histogram(risk: Floats, state: NDArray[np.int64]) -> Floats:
    """Return the exact histogram, (3, bins)."""
    return counts(risk, state, starts=np.arange(len(risk) + 1), bins=BINS, rows=3)


def followed(rng: np.random.Generator, patients: int, lost: float) -> tuple[Floats, NDArray[np.int64]]:
    """Return risks by time 1 as a model says them, and 1 with the event by then, 0 free of it, 2 lost before."""
    part = rng.normal(-1.0, 1.0, patients)
    event = rng.exponential(np.exp(-part - 0.5 * rng.normal(size=patients)))
    loss = rng.uniform(0.0, 1.0, patients) / lost if lost else np.full(patients, np.inf)
    state = np.where(event <= np.minimum(loss, 1.0), 1, np.where(loss < 1.0, 2, 0))
    return 1 - np.exp(-np.exp(part)), state.astype(np.int64)


if __name__ == "__main__":
    sys.exit(main())
