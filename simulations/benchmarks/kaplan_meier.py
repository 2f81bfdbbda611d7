"""How often do the intervals of the release `kaplan_meier` hold the true risk, and how wide are they?

    python -m simulations.benchmarks.kaplan_meier [--simulations 2000]

One JSON line for each case: hospitals and patients of each, causes, epsilon at delta 1e-5, and over the interval ends
the least, mean and greatest share of simulations in which the interval held the truth, its mean width, and the share of
simulations in which it was defined. Times are made up: a constant rate of each cause, lost from sight at any time.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.schema import Survival
from strategies.privacy.plan import Budget, least_noise
from strategies.releases.kaplan_meier import counts, observed
from strategies.releases.noisy_counts import cell_variance

DELTA = 1e-5
CUTS = (0.0, 150.0, 300.0, 450.0, 600.0, 800.0)


@dataclass(frozen=True)
class Case:
    """Hospitals with so many patients each, of whom each cause takes a share in `mean` days on average."""

    hospitals: int
    patients: int
    epsilon: float
    causes: int = 1
    mean: float = 1200.0


CASES = (
    *(Case(1, 300, 0.5), Case(1, 300, 1.0), Case(1, 1000, 0.5), Case(4, 300, 0.5), Case(4, 300, 1.0)),
    *(Case(4, 300, 1.0, causes=2), Case(4, 300, 0.5, mean=8000.0), Case(1, 100, 0.5)),
)


def main(arguments: list[str] | None = None) -> int:
    """Print one line for each case."""
    parser = argparse.ArgumentParser(prog="python -m simulations.benchmarks.kaplan_meier")
    parser.add_argument("--simulations", type=int, default=2000)
    for row in measured(parser.parse_args(arguments).simulations):
        print(json.dumps(row), flush=True)
    return 0


def measured(simulations: int) -> Iterator[dict[str, Any]]:
    """Yield a line for each case."""
    for case in CASES:
        rng, task = np.random.default_rng(0), _task(case)
        deviation = least_noise(Budget(case.epsilon, DELTA), 1.0, 1)
        truth = (1 - np.exp(-case.causes * np.array(CUTS[1:]) / case.mean)) / case.causes
        held, defined, width = np.zeros((3, len(truth)))
        for _ in range(simulations):
            exact = [counts(_followed(rng, case), task) for _ in range(case.hospitals)]
            noisy = sum(exact, np.rint(rng.normal(0, deviation, (case.hospitals, len(exact[0])))).sum(axis=0))
            points = observed(np.asarray(noisy), task, case.hospitals * cell_variance(deviation))[: len(truth)]
            for k, (point, share) in enumerate(zip(points, truth, strict=True)):
                if point.risk is not None:
                    defined[k] += 1
                    width[k] += point.risk.high - point.risk.low
                    held[k] += point.risk.low <= share <= point.risk.high
        share_held = held[defined > 0] / defined[defined > 0]
        yield {
            **{"hospitals": case.hospitals, "patients": case.patients, "causes": case.causes, "epsilon": case.epsilon},
            "risk": round(float(truth[-1]), 3),
            **({"least": round(float(share_held.min()), 3)} if len(share_held) else {}),
            **({"held": round(float(share_held.mean()), 3)} if len(share_held) else {}),
            **({"most": round(float(share_held.max()), 3)} if len(share_held) else {}),
            "width": round(float(width.sum() / max(defined.sum(), 1)), 3),
            "defined": round(float(defined.mean() / simulations), 3),
        }


def _task(case: Case) -> Survival:
    causes = tuple(str(n + 1) for n in range(case.causes))
    return Survival("survival", "days", causes, event="end", intervals=CUTS, horizon=CUTS[-1])


def _followed(rng: np.random.Generator, case: Case) -> NDArray[np.float32]:
    death, lost = rng.exponential(case.mean / case.causes, case.patients), rng.uniform(100, 1500, case.patients)
    cause = np.where(death <= lost, rng.integers(1, case.causes + 1, case.patients), 0)
    time = np.minimum(death, lost)
    return np.stack([np.minimum(time, CUTS[-1]), np.where(time > CUTS[-1], 0, cause)], axis=1).astype(np.float32)


if __name__ == "__main__":
    sys.exit(main())
