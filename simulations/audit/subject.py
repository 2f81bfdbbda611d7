"""The subject of an audit: the objects that train.

They are watched at the one place where a gradient gets its noise. The watch sees what goes into the engine and what
comes out; it changes neither. This file alone knows how a ledger lies on the disk.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from client.ledger import Ledger
from client.site import Site
from client.trainer import EngineMaker, Trainer
from configs.database import read_only
from strategies.learning import Learning
from strategies.models.flat_model import FlatModel
from strategies.privacy.accounting import SampledGaussian
from strategies.privacy.engines.base import Engine, Gaussian
from strategies.privacy.engines.select import private_engine
from strategies.privacy.plan import PrivacyPlan
from strategies.privacy.randomness import Randomness

Floats = NDArray[np.float64]
TRAINING = "sampled gaussian"  # as a ledger calls it; one of an earlier release has nothing else


def open_ledger(path: Path) -> Ledger:
    """Return a hospital's ledger in a temporary folder: a killed process loses nothing of it."""
    return Ledger.open(path, durable=False)


def chance(seed: int | None, site: str, round_number: int) -> Randomness:
    """Return a round's randomness.

    The operating system's, as at a hospital, or seeded where an audit must be repeatable.
    """
    return Randomness.system() if seed is None else Randomness.seeded(seed, site, round_number)


@dataclass(frozen=True)
class Subject:
    """The product's own objects, unless a test puts others here."""

    engine: EngineMaker = private_engine
    trainer: type[Trainer] = Trainer
    site: type[Site] = Site
    ledger: Callable[[Path], Ledger] = open_ledger
    randomness: Callable[[int | None, str, int], Randomness] = chance


@dataclass
class Watch:
    """Record what happens in each step. Rows are inspected as they go in and not kept: a patient may have very many.

    `steps` counts those that began; `before` is called before each, `weights` with the model's parameters where the
    step begins, (parameters,), then `look` with the first input of every row that went in. `released` holds the mean
    gradients that came out, (parameters,) each, or their coordinates `kept` alone; `after` is called with the whole of
    each; `total` is the sum of them all, of every coordinate.
    """

    before: Callable[[], None] = lambda: None
    weights: Callable[[NDArray[np.float32]], None] | None = None
    look: Callable[[NDArray[np.float32]], None] = lambda _marks: None
    after: Callable[[NDArray[np.float32]], None] = lambda _gradient: None
    kept: NDArray[np.int64] | slice = field(default_factory=lambda: slice(None))
    steps: int = 0
    released: list[NDArray[np.float32]] = field(default_factory=list)
    total: Floats | float = 0.0

    def saw(self, gradient: NDArray[np.float32]) -> None:
        """Record a step's mean gradient."""
        self.total = self.total + gradient.astype(np.float64)
        self.released.append(gradient[self.kept].copy())
        self.after(gradient)


class _WatchedEngine:
    """An engine that is watched."""

    def __init__(self, engine: Engine, model: FlatModel, watch: Watch) -> None:
        self._engine, self._model, self._watch = engine, model, watch

    def clipped_sum(self, x: Tensor, y: Tensor, patients: Tensor, *, patients_in_batch: int) -> Tensor:
        return self._engine.clipped_sum(x, y, patients, patients_in_batch=patients_in_batch)

    def noisy_gradient(self, x: Tensor, y: Tensor, patients: Tensor, *, patients_in_batch: int) -> Tensor:
        self._watch.before()
        self._watch.steps += 1
        if self._watch.weights is not None:
            self._watch.weights(self._model.flat.detach().cpu().numpy().copy())
        self._watch.look(x[:, 0].numpy())
        gradient = self._engine.noisy_gradient(x, y, patients, patients_in_batch=patients_in_batch)
        self._watch.saw(gradient.detach().cpu().numpy().astype(np.float32))
        return gradient

    def close(self) -> None:
        self._engine.close()


def watched_trainer(subject: Subject, task: Learning, watch: Watch) -> Trainer:
    """Return the subject's trainer with a watched engine."""

    def engine(model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian, name: str = "auto") -> Engine:
        return _WatchedEngine(subject.engine(model, plan, gaussian, name), model, watch)

    return subject.trainer(task, engine)


@dataclass(frozen=True)
class Booked:
    """One row of a ledger, as it lies on the disk. `event` None: a release that is no training, such as a histogram."""

    id: int
    dataset: str
    study: str
    round: int
    event: SampledGaussian | None
    release: str | None = None  # of what was booked before releases had names


def read_ledger(path: Path) -> list[Booked]:
    """Return every release on the disk, in the order of booking, read without the ledger's own code.

    Raises:
        sqlite3.Error: the file is no ledger.
    """
    with closing(read_only(path)) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute("SELECT * FROM releases ORDER BY id").fetchall()
    return [
        Booked(row["id"], row["dataset"], row["study"], row["round"], _event(row), _cell(row, "release"))
        for row in rows
    ]


def _cell(row: sqlite3.Row, column: str) -> str | None:
    return row[column] if column in row.keys() else None  # noqa: SIM118 - a row iterates over its values


def _event(row: sqlite3.Row) -> SampledGaussian | None:
    if "kind" in row.keys() and row["kind"] != TRAINING:  # noqa: SIM118 - a row iterates over its values
        return None
    return SampledGaussian(row["noise_multiplier"], row["sampling_rate"], row["steps"])
