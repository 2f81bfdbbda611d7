"""A federation that leaves nothing behind: the real path in this process, without the disk.

ServerApp, ClientApp, strategy, trainer, noise and ledgers are those of a simulation; the ledgers end with the process.
The benchmarks and `archipel plan --worth` train many such federations, on patients that they hold already.

>>> Trained({}, epsilon=None)
Trained(model={}, epsilon=None)
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from configs.errors import RunError
from configs.schema import CohortMember, Study
from server.app import make_app
from simulations.engines import run_engine
from simulations.hospitals import Hospitals
from strategies.arrays import Arrays
from strategies.tasks.table import Encoded


@dataclass(frozen=True)
class Trained:
    """A shared model, and what it cost: the largest epsilon per patient that a hospital's ledger composes to."""

    model: Arrays
    epsilon: float | None


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
        raise RunError(f"{study.name}: {conducted.rounds.why}; every hospital is needed here")
    if not study.private:
        return Trained(conducted.model, None)
    spent = [hospitals.site(site).ledger.spent(site, delta=study.privacy.delta) for site in study.sites]
    return Trained(conducted.model, max(spent))


def alone(study: Study, site: str, patients: int) -> Study:
    """The study with one hospital, which announces so many patients."""
    training = replace(study.training, quorum=1)
    return replace(study, cohort=(CohortMember(site, patients),), simulation=(), training=training)
