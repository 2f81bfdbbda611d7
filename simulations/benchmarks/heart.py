"""The common part of the two heart disease benchmarks: presets, training, evaluation.

Training is the real path, in memory (simulations/memory.py). A hospital alone, and all data in one place, are
federations of one.
"""

from pathlib import Path

from configs.errors import RunError
from configs.load import load_study
from configs.schema import Study
from simulations.memory import Trained, alone, train
from strategies.data.base import TrainablePatients
from strategies.exchange.arrays import Arrays
from strategies.learning import learning_of
from strategies.tasks.metrics import estimate

__all__ = ["PRESETS", "Trained", "alone", "preset", "score", "train"]

PRESETS = Path(__file__).resolve().parents[2] / "configs" / "presets"


def preset(name: str) -> Study:
    """Return a study of configs/presets."""
    return load_study(PRESETS / f"{name}.yaml")


def score(study: Study, model: Arrays, patients: TrainablePatients, metric: str) -> float:
    """Return a metric over patients, without an interval.

    Raises:
        RunError: it is undefined for these patients.
    """
    task = learning_of(study)
    predicted = task.predictions(model, patients)
    y, (measure,) = task.objective.in_unit(patients.y), task.objective.metrics_of([metric])
    result = estimate(measure, y, predicted, patients.patients, resamples=0)
    if result is None:
        raise RunError(f"{metric}: expected test patients with and without the outcome, found one kind")
    return result.value
