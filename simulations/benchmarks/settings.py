"""How good the settings of `training: auto` are, and those of the heart preset copied, on outcome shares from .1 to .8.

::

    python -m simulations.benchmarks.settings                       # all cells and the real heart data
    python -m simulations.benchmarks.settings --shares 0.3 --hospitals 4 --worlds 1

Made-up patients have the heart preset's columns (simulations/worth/synthetic.py, signal .8); hospitals announce 100 to
520 patients, most of them about 140. A row is one share of outcomes, number of hospitals, epsilon (null without
privacy) and settings, in the mean of several worlds:

- `auroc_loss`: the converged pooled model's AUROC less that of the federated one.
- `calibration`: mean predicted less observed, over all test patients (calibration-in-the-large).
- `balanced_accuracy`: at a probability of one half; `pooled_balanced_accuracy` is the converged pooled model's.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import Study
from configs.strict_yaml import read_yaml
from simulations.benchmarks.heart import PRESETS, train
from simulations.complete import finished
from simulations.converged import converged
from simulations.hospitals import load_all
from simulations.worth.synthetic import Assumed, Floats, draw, expected_auroc
from strategies.data.base import TrainablePatients, concatenate
from strategies.exchange.arrays import Arrays
from strategies.learning import Learning, learning_of

SHARES, HOSPITALS, EPSILONS = (0.1, 0.25, 0.4, 0.65, 0.8), (4, 20, 60), (None, 3.0, 1.0)
WORLDS = {4: 12, 20: 5, 60: 2}  # more patients need fewer
SIGNAL, TEST_FRACTION = 0.8, 0.25
_MEDIAN, _SPREAD, _LEAST, _MOST = 4.95, 0.45, 100, 520  # of the logarithm of a hospital's patients
AUTO = PRESETS / "heart_auto.yaml"


@dataclass(frozen=True)
class Patients:
    """Training patients by hospital, test patients, and (rows, 2) test patients' chances, 0 and 1 of real ones."""

    learning: Learning
    train: dict[str, TrainablePatients]
    test: TrainablePatients
    chances: Floats

    def figures(self, model: Arrays) -> tuple[float, float, float]:
        """Return a model's AUROC, mean prediction less observed share, and balanced accuracy."""
        predicted, (without, ill) = self.learning.predictions(model, self.test), self.chances.T
        called = predicted[:, 1] > 0.5
        balanced = (ill[called].sum() / ill.sum() + without[~called].sum() / without.sum()) / 2
        return expected_auroc(predicted, self.chances), float(predicted[:, 1].mean() - ill.mean()), float(balanced)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a row for each cell."""
    parser = argparse.ArgumentParser(description="Settings of training: auto, and those of the heart preset copied.")
    parser.add_argument("--shares", type=float, nargs="*", default=SHARES, help="outcome shares")
    parser.add_argument("--hospitals", type=int, nargs="*", default=HOSPITALS, help="numbers of hospitals")
    parser.add_argument("--worlds", type=int, help="made-up worlds of a cell, and seeds of the real data")
    parser.add_argument("--heart", action=argparse.BooleanOptionalAction, default=True, help="the real data too")
    options = parser.parse_args(argv)
    for hospitals in options.hospitals:
        for share in options.shares:
            for row in rows(share, hospitals, options.worlds or WORLDS.get(hospitals, 2)):
                print(json.dumps(row), flush=True)
    for row in heart_rows(options.worlds or 5) if options.heart else ():
        print(json.dumps(row), flush=True)
    return 0


def rows(share: float, hospitals: int, worlds: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of made-up patients with one share of outcomes."""
    for epsilon in EPSILONS:
        for settings in ("auto", "preset"):
            studies = [
                _study(settings, epsilon, cohort=_cohort(hospitals, world), share=share) for world in range(worlds)
            ]
            studies = [replace(study, seed=round(1000 * share) + world) for world, study in enumerate(studies)]
            figures = [_judged(study, _made_up(study, share, world)) for world, study in enumerate(studies)]
            yield {"share": share, "hospitals": hospitals, **_row(epsilon, settings, figures)}


def heart_rows(seeds: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of the four hospitals' real patients, over splits."""
    for epsilon in EPSILONS:
        for settings in ("auto", "preset"):
            studies = [replace(_study(settings, epsilon), seed=seed) for seed in range(seeds)]
            figures = [_judged(study, _real(study)) for study in studies]
            share = float(np.mean([observed for *_, observed in figures]))
            row = _row(epsilon, settings, figures)
            yield {"share": round(share, 2), "hospitals": len(studies[0].sites), "data": "heart", **row}


def _row(epsilon: float | None, settings: str, figures: list[tuple[float, ...]]) -> dict[str, Any]:
    loss, calibration, balanced, pooled, _ = np.mean(figures, axis=0)
    return {
        "epsilon": epsilon,
        "settings": settings,
        "auroc_loss": round(loss, 4),
        "auroc_loss_se": round(float(np.std([each[0] for each in figures]) / max(1, len(figures) - 1) ** 0.5), 4),
        "calibration": round(calibration, 3),
        "balanced_accuracy": round(balanced, 3),
        "pooled_balanced_accuracy": round(pooled, 3),
        "worlds": len(figures),
    }


def _judged(study: Study, people: Patients) -> tuple[float, ...]:
    """Return the loss of AUROC, calibration, balanced accuracy, that of the pooled model, and the observed share."""
    auroc, calibration, balanced = people.figures(train(study, people.train).model)
    pooled = converged(people.learning, concatenate(list(people.train.values())))
    best, _, pooled_balanced = people.figures(pooled)
    return best - auroc, calibration, balanced, pooled_balanced, float(people.chances[:, 1].mean())


def _study(
    settings: str, epsilon: float | None, cohort: dict[str, int] | None = None, share: float | None = None
) -> Study:
    document = read_yaml(AUTO)
    if cohort is not None:
        document |= {"cohort": cohort, "evaluation": {"test_fraction": TEST_FRACTION}}
        document["task"] |= {"outcome_share": share}
        del document["simulation"]
    document["privacy"] = {"mode": "none"} if epsilon is None else document["privacy"] | {"epsilon": epsilon}
    if settings == "preset":
        copied = read_yaml(PRESETS / f"heart_disease{'_none' if epsilon is None else ''}.yaml")
        document["training"] = copied["training"] | {"quorum": len(document["cohort"])}
        document["privacy"] |= {"clip_norm": copied["privacy"]["clip_norm"]} if epsilon is not None else {}
    return finished(document, Path(AUTO)).study


def _cohort(hospitals: int, world: int) -> dict[str, int]:
    rng = np.random.default_rng([world, hospitals])
    sizes = np.clip(np.round(np.exp(rng.normal(_MEDIAN, _SPREAD, hospitals)), -1), _LEAST, _MOST)
    return {f"hospital{i:02d}": int(size) for i, size in enumerate(sizes)}


def _made_up(study: Study, share: float, world: int) -> Patients:
    drawn = draw(study, Assumed(signal=SIGNAL, outcomes=share), world)
    return Patients(drawn.task, dict(drawn.train), drawn.test, drawn.chances)


def _real(study: Study) -> Patients:
    parts = load_all(study)
    test = concatenate([part.test for part in parts.values()])
    chances = np.stack([1.0 - test.y, test.y], axis=1).astype(np.float64)
    return Patients(learning_of(study), {site: part.train for site, part in parts.items()}, test, chances)


if __name__ == "__main__":
    sys.exit(main())
