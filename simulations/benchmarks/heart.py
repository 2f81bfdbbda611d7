"""What the two heart disease benchmarks share: the presets, one way to train, one way to judge.

Training is the real path: ServerApp, ClientApp, strategy, trainer, Opacus's noise, the hospitals' ledgers. Only the
disk is left out. A hospital alone, and all data in one place, are federations of one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from configs.errors import RunError
from configs.load import load_study
from configs.schema import CohortMember, Study
from server.app import make_app
from simulations.engines import run_engine
from simulations.hospitals import Hospitals
from strategies.arrays import Arrays
from strategies.tasks.metrics import estimate
from strategies.tasks.table import Encoded
from strategies.tasks.tabular import task_of

PRESETS = Path(__file__).resolve().parents[2] / "configs" / "presets"


@dataclass(frozen=True)
class Trained:
    """A shared model, and what it cost: the largest epsilon per patient that a hospital's ledger composes to."""

    model: Arrays
    epsilon: float | None


def preset(name: str) -> Study:
    """A study of configs/presets."""
    return load_study(PRESETS / f"{name}.yaml")


def train(study: Study, patients: Mapping[str, Encoded], initial: Arrays | None = None) -> Trained:
    """Run a federation to its end.

    Args:
        patients: training patients of each of the study's hospitals.

    Raises:
        RunError: a round lacked a hospital.
    """
    hospitals = Hospitals(study, patients.__getitem__)
    conducted = run_engine("inprocess", hospitals, lambda done: make_app(study, initial=initial, done=done))
    if conducted.rounds.outcome != "COMPLETE":
        raise RunError(f"{study.name}: {conducted.rounds.why}; a benchmark needs every hospital")
    if not study.private:
        return Trained(conducted.model, None)
    spent = [hospitals.site(site).ledger.spent(site, delta=study.privacy.delta) for site in study.sites]
    return Trained(conducted.model, max(spent))


def alone(study: Study, site: str, patients: int) -> Study:
    """The study with one hospital, which announces so many patients."""
    training = replace(study.training, quorum=1)
    return replace(study, cohort=(CohortMember(site, patients),), simulation=(), training=training)


def score(study: Study, model: Arrays, patients: Encoded, metric: str) -> float:
    """A metric over patients, without an interval.

    Raises:
        RunError: it is undefined for these patients.
    """
    task = task_of(study)
    predicted = task.predict(model, patients.x)
    found = estimate(metric, task.in_unit(patients.y), predicted, patients.patients, resamples=0)
    if found is None:
        raise RunError(f"{metric}: expected test patients with and without the outcome, found one kind")
    return found.value
