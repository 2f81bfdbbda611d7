"""What `curve` gains where effects bend, and costs where they are straight.

    python -m simulations.benchmarks.curves [--patients 300 1000 5000] [--draws 6]    one JSON line a row

Four hospitals of made-up patients, ten numbers, a yes or no. Of the curved truth five numbers have an effect that bends
(a U, a wave, a V, a hill) and three a straight one; of the straight truth six have a straight one; the rest say
nothing. `straight` and `curve` are the same private logistic regression by the product's own path, without and with
`curve: 6` at every number; `best` is a model that knows the truth. Every figure is the AUROC that is expected over the
outcomes of 8,000 further patients. Settings follow one rule for all (clip norm by the epsilon, rounds by the epsilon
and the size): nothing is chosen by looking at the figures of a cell. `gam` is the figure of a published-style trial of
the same sizes with hats alone, each cell with the best of a grid of settings, where there is one.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.load import study_from
from configs.schema import Study
from simulations.memory import train
from simulations.worth.synthetic import expected_auroc
from strategies.data.base import concatenate
from strategies.data.source import Table
from strategies.data.table import TablePatients, encode
from strategies.learning import learning_of
from strategies.tasks.registry import objective_of

Floats = NDArray[np.float64]
SIZES, EPSILONS = (300, 1000, 5000), (None, 3.0, 1.0)
SITES, NUMBERS, KNOTS, TEST_PATIENTS = 4, 10, 6, 8000
GAM = {  # (patients a hospital, epsilon) -> AUROC on the curved truth of the trial
    **{(300, None): 0.844, (300, 3.0): 0.817, (300, 1.0): 0.780},
    **{(1000, None): 0.853, (1000, 3.0): 0.850, (1000, 1.0): 0.837},
    **{(5000, None): 0.858, (5000, 3.0): 0.859, (5000, 1.0): 0.858},
}


def _curved(x: Floats) -> Floats:
    bent = 2.6 * x[:, 0] ** 2 + 1.5 * np.sin(3 * x[:, 1]) + 2.2 * np.abs(x[:, 2]) + 1.2 * np.cos(4 * x[:, 3])
    return np.asarray(1.1 * (bent - 2.0 * x[:, 4] ** 2 - 1.35) + 0.85 * (x[:, 5] - 0.8 * x[:, 6] + 0.7 * x[:, 7]))


def _straight(x: Floats) -> Floats:
    return np.asarray(1.17 * x[:, :6] @ np.array([1.4, -1.2, 1.0, 0.9, -0.7, 0.6]))


TRUTHS: dict[str, Callable[[Floats], Floats]] = {"curved": _curved, "straight": _straight}


def study_of(patients: int, epsilon: float | None, *, curve: bool) -> Study:
    """Return the study: its settings follow from size and epsilon alone."""
    column = {"type": "number", "range": [-1, 1], **({"curve": KNOTS} if curve else {})}
    local: dict[str, Any] = {"batch_size": "full", "epochs": 1}
    privacy: dict[str, Any] = {"mode": "none"}
    if epsilon is None:
        rounds = 150
        local |= {"learning_rate": 2.0, "momentum": 0.9}
    else:
        rounds, clip_norm = (30, 1.2) if epsilon >= 3 else (14, 1.2 if patients >= 5000 else 0.8)
        privacy = {"mode": "local", "epsilon": epsilon, "delta": 1e-5, "clip_norm": clip_norm}
        local |= {"learning_rate": 4.0}
    rounds *= next(factor for least, factor in ((5000, 8), (1000, 3), (0, 1)) if patients >= least)
    return study_from(
        {
            "name": "curves",
            "purpose": "Measure what curves gain",
            "task": {"type": "binary", "target": "ill"},
            "patient_id": None,
            "features": {f"x{i}": column for i in range(NUMBERS)},
            "cohort": {f"hospital-{i}": patients for i in range(SITES)},
            "model": {"name": "logistic"},
            "training": {"strategy": {"name": "fedavg"}, "rounds": rounds, "local": local, "average_last": 0.5},
            "privacy": privacy,
            "evaluation": {"test_fraction": 0.0},
        },
        source="benchmark",
    )


def auroc(study: Study, truth: Callable[[Floats], Floats], seed: int) -> tuple[float, float]:
    """Return the expected AUROC of the study's model and of the truth itself, on one draw of patients."""
    rng = np.random.default_rng(seed)

    def some(count: int, shift: float) -> tuple[TablePatients, Floats]:
        x = np.clip(rng.normal(shift, 0.5, (count, NUMBERS)), -1, 1)
        chances = 1 / (1 + np.exp(-truth(x)))
        columns, rows = {f"x{i}": x[:, i] for i in range(NUMBERS)}, np.arange(count)
        outcomes = (rng.random(count) < chances).astype(np.float64)
        table = Table(columns, {}, {"ill": outcomes}, rows, tuple(map(str, rows)))
        return encode(table, study.features, objective_of(study)), chances

    shifts = 0.15 * rng.normal(size=SITES)
    announced = study.announced_patients(study.sites[0]) or 1
    patients = {site: some(announced, shift)[0] for site, shift in zip(study.sites, shifts, strict=True)}
    tests = [some(TEST_PATIENTS // SITES, shift) for shift in shifts]
    test, chances = concatenate([part for part, _ in tests]), np.concatenate([part for _, part in tests])
    true = np.stack([1 - chances, chances], axis=1)
    predicted = learning_of(study).predictions(train(study, patients).model, test)
    return expected_auroc(predicted, true), expected_auroc(true, true)


def rows(sizes: Sequence[int] = SIZES, draws: int = 6) -> Iterator[dict[str, Any]]:
    """Yield one row a truth, size and epsilon."""
    for name, truth in TRUTHS.items():
        for patients in sizes:
            for epsilon in EPSILONS:
                figures = {}
                for side, curve in (("straight", False), ("curve", True)):
                    study = study_of(patients, epsilon, curve=curve)
                    scores = np.array([auroc(study, truth, seed) for seed in range(draws)])
                    figures[side], figures["best"] = scores.mean(axis=0).round(4).tolist()
                gain = round(figures["curve"] - figures["straight"], 4)
                more = {"gam": GAM.get((patients, epsilon))} if name == "curved" else {}
                yield {"truth": name, "patients": patients, "epsilon": epsilon, **figures, "gain": gain, **more}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print one JSON line a row."""
    parser = argparse.ArgumentParser(prog="python -m simulations.benchmarks.curves")
    parser.add_argument("--patients", type=int, nargs="+", default=SIZES, help="patients of each hospital")
    parser.add_argument("--draws", type=int, default=6, help="draws of patients, of which a row is the mean")
    options = parser.parse_args(arguments)
    for row in rows(options.patients, options.draws):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
