"""The hospitals of a simulation.

Every site of the study is in this process, each with a ledger of its own. Picklable, so that worker processes and Ray's
actors build the same hospitals from the same description.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from flwr.app import Context
from flwr.clientapp import ClientApp

from client.app import make_app
from client.connectors.ids import hashed
from client.connectors.notes import Notes
from client.ledger import Ledger
from client.patients import Split, load_patients
from client.personal import Personal
from client.site import Site
from client.trainer import EngineMaker, Trainer
from configs.errors import DataError
from configs.schema import Study
from configs.site import Policy
from simulations.grid import PARTITION
from simulations.rounds import Rounds
from simulations.together import Together
from strategies.data.base import TrainablePatients
from strategies.kits.shelf import SHELF
from strategies.learning import Learning, learning_of
from strategies.releases.registry import MODEL_UPDATE

PERSONAL = "personal"  # in a hospital's folder, what it keeps to itself
PatientsOf = Callable[[str], TrainablePatients]  # a hospital's name -> its training or test patients


@dataclass
class Hospitals:
    """All hospitals of one study. Without a folder for ledgers, they end with the process.

    With test patients they answer a study that asks how good its model is, as if their policy allowed it.
    `engine` is the trainer's seam.
    """

    study: Study
    train_of: PatientsOf
    ledgers: Path | None = None
    test_of: PatientsOf | None = None
    engine: EngineMaker | None = None
    _sites: dict[str, Site] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_sites": {}, "shelf": SHELF}

    def __setstate__(self, state: dict[str, Any]) -> None:
        SHELF.follow(state.pop("shelf"))
        self.__dict__.update(state)

    def site(self, name: str) -> Site:
        """Return one hospital, made at first use."""
        if name not in self._sites:
            self._sites[name] = Site(
                name,
                self.study,
                Split(self.train_of(name), self.test_of(name), {}) if self.test_of else self.train_of(name),
                self._ledger(name),
                seeded=True,
                trainer=self._trainer() if MODEL_UPDATE.is_asked(self.study) else None,
                policy=Policy(metrics="noisy"),
            )
            self._sites[name].personal = self._personal(name)
        return self._sites[name]

    def site_of(self, context: Context) -> Site:
        """Return the hospital that a node stands for."""
        return self.site(self.study.sites[int(context.node_config[PARTITION])])

    def close(self) -> None:
        """Let go of the ledgers' files; the hospitals are made again at next use."""
        while self._sites:
            self._sites.popitem()[1].ledger.close()

    def make_app(self) -> ClientApp:
        """Return the ClientApp around these hospitals."""
        return make_app(self.site_of)

    def make_rounds(self) -> Rounds | None:
        """Return what trains these hospitals together.

        None where each is better off alone, or has an engine of its own.
        """
        if self.engine is not None or not MODEL_UPDATE.is_asked(self.study):
            return None
        together = Together(learning_of(self.study))
        return Rounds(self.site_of, together) if together.pays else None

    def _trainer(self) -> Trainer:
        task = learning_of(self.study)
        return Trainer(task, self.engine) if self.engine else _trainer_of(task)

    def _personal(self, name: str) -> Personal:
        return Personal(self.study, name, self.ledgers and self.ledgers / name / PERSONAL, durable=False)

    def _ledger(self, name: str) -> Ledger:
        if self.ledgers is None:
            return Ledger.in_memory()
        folder = self.ledgers / name
        folder.mkdir(parents=True, exist_ok=True)
        return Ledger.open(folder / "ledger.sqlite", durable=False)  # a killed process loses nothing; a laptop suffices


@dataclass(frozen=True)
class FromSources:
    """Training or test patients read from the study's simulation sources."""

    study: Study
    part: Literal["train", "test"] = "train"

    def __call__(self, name: str) -> TrainablePatients:
        """Return these patients of one hospital."""
        split = load_all(self.study)[name]
        patients: TrainablePatients = split.train if self.part == "train" else split.test
        return patients


@lru_cache(maxsize=4)
def load_all(study: Study) -> dict[str, Split]:
    """Return every hospital's patients, read once.

    Raises:
        DataError: with the problems of every hospital at once.
    """
    if not study.simulation:
        raise DataError("simulation.sites: expected each hospital's data for a simulation, found none; add them")
    loaded, problems, ids = {}, [], {}
    for site, source in study.simulation:
        notes = Notes()
        try:
            loaded[site] = load_patients(source, study, site, notes)
            ids[site] = hashed(notes.ids, b"")
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    return {site: replace(people, oddities=people.oddities + _elsewhere(site, ids)) for site, people in loaded.items()}


def _elsewhere(site: str, ids: dict[str, set[bytes]]) -> tuple[str, ...]:
    """Say how many of a hospital's patients are at another one too, by ids that are written alike."""
    shared = ((other, len(ids[site] & ids[other])) for other in ids if other > site)
    return tuple(
        f"{count} patient ids are at {other} too: if they are the same patients, they spend their epsilon at both"
        for other, count in shared
        if count
    )


@lru_cache(maxsize=4)
def _trainer_of(task: Learning) -> Trainer:
    return Trainer(task)
