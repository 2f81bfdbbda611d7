"""A federation in memory: the real path in this process, without the disk.

ServerApp, ClientApp, strategy, trainer, noise and ledgers are those of a simulation; the ledgers end with the process.
The benchmarks and `archipel plan --worth` train many such federations, on patients that they hold already.

>>> Trained({}, epsilon=None)
Trained(model={}, epsilon=None)
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from configs.errors import RunError
from configs.schema import CohortMember, Study
from server.app import make_app
from simulations.engines import run_engine
from simulations.hospitals import Hospitals
from strategies.data.base import TrainablePatients
from strategies.exchange.arrays import Arrays
from strategies.models.flat_model import FlatModel
from strategies.privacy.engines.base import Engine, Gaussian
from strategies.privacy.engines.select import private_engine
from strategies.privacy.plan import PrivacyPlan


@dataclass(frozen=True)
class Trained:
    """A shared model, and what it cost: the largest epsilon per patient that a hospital's ledger composes to."""

    model: Arrays
    epsilon: float | None


def train(
    study: Study, patients: Mapping[str, TrainablePatients], initial: Arrays | None = None, *, noise: bool = True
) -> Trained:
    """Run a federation to its end.

    Args:
        patients: training patients of each of the study's hospitals.
        noise: False leaves out the noise alone: sampled and clipped as the plan says, so that what these cost is seen
            apart. Nothing is protected then, whatever the ledger books: for patients that are made up.

    Raises:
        RunError: a round lacked a hospital.
    """
    hospitals = Hospitals(study, patients.__getitem__, engine=None if noise else _noiseless)
    outcome = run_engine("inprocess", hospitals, lambda done: make_app(study, initial=initial, done=done))
    if outcome.rounds.outcome != "COMPLETE":
        raise RunError(f"{study.name}: {outcome.rounds.why}; every hospital is needed here")
    if not study.privacy.keys.budgeted or not noise:
        return Trained(outcome.model, None)
    spent = [hospitals.site(site).ledger.spent(site, delta=study.privacy.delta) for site in study.sites]
    return Trained(outcome.model, max(spent))


def _noiseless(model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian, name: str) -> Engine:
    del gaussian  # no noise is drawn
    return private_engine(model, plan, lambda size, _: torch.zeros(size), name)


def alone(study: Study, site: str, patients: int) -> Study:
    """Return the study with one hospital, which announces so many patients."""
    training = replace(study.training, quorum=1)
    return replace(study, cohort=(CohortMember(site, patients),), simulation=(), training=training)
