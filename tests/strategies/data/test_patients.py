"""A training reads patients through their seam alone; counted patients are a kind of their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from client.trainer import Trainer
from configs.errors import DataError
from configs.schema import Local
from strategies.data.base import Numbers, TrainablePatients, concatenate
from strategies.data.registry import data_of
from strategies.data.source import Table
from strategies.data.table import TablePatients
from strategies.learning import learning_of
from strategies.privacy.plan import PrivacyPlan
from strategies.privacy.randomness import Randomness
from strategies.releases.base import Fit
from tests.builders import counting, patients, plain, random_arrays, same_bits

PLAN = PrivacyPlan(1.0, 1.0, 0.3, steps_per_round=4, rounds=1, delta=1e-5, expected_patients=20)


@dataclass(frozen=True)
class Stored(TrainablePatients):
    """Rows that lie elsewhere, such as images in files, and are read when they are asked for."""

    starts: Numbers
    patients: Numbers
    y: NDArray[np.float32]
    read: Any

    @property
    def digest(self) -> bytes:
        return b""

    def take(self, rows: Numbers | None = None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        chosen = np.arange(self.rows) if rows is None else rows
        return np.stack([self.read(row) for row in chosen.tolist()]), self.y[chosen]

    def subset(self, chosen: Numbers) -> "Stored":
        raise NotImplementedError

    @classmethod
    def joined(cls, parts: Sequence["Stored"]) -> "Stored":
        raise NotImplementedError


def stored(table: TablePatients, opened: list[int]) -> Stored:
    return Stored(table.starts, table.patients, table.y, lambda row: (opened.append(row), table.x[row])[1])


@pytest.mark.parametrize("rows_each", [1, 3])
@pytest.mark.parametrize("plan", [None, PLAN], ids=["plain", "private"])
@pytest.mark.parametrize("batch_size", [None, 8])
def test_a_training_on_rows_that_lie_elsewhere_has_the_bits_of_the_same_rows_in_memory(
    rows_each: int, plan: PrivacyPlan | None, batch_size: int | None
) -> None:
    task, table, opened = learning_of(plain()), patients(40, rows_each=rows_each), list[int]()
    start = random_arrays(task.parameters)
    models = [
        Trainer(task).fit(Fit(start, people, Local(batch_size, 0.1), 4, Randomness.seeded(0, "lille", 1), plan))
        for people in (table, stored(table, opened))
    ]
    assert same_bits(*models)
    assert set(opened) <= set(range(40 * rows_each))
    if plan is not None or batch_size is not None:
        assert len(opened) < 4 * 40 * rows_each  # only rows of who was drawn
    predictions = [task.predictions(start, people) for people in (table, stored(table, opened))]
    assert predictions[0].tobytes() == predictions[1].tobytes()


def test_hospitals_are_joined_patient_by_patient() -> None:
    parts = [patients(3, rows_each=2, seed=0), patients(2, rows_each=2, seed=1)]
    whole = concatenate(parts)
    assert whole.starts.tolist() == [0, 2, 4, 6, 8, 10]
    assert whole.patients.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert (whole.subset(np.array([3, 4])).x == parts[1].x).all()


def counted_table() -> Table:
    return Table(
        {"age": np.array([30.0, 80.0, 50.0])},
        {"sex": np.array([0, 1, 1])},
        {"disease": np.array([0.0, 1.0, 1.0])},
        np.array([1, 0, 2]),
        ("b", "a", "c"),
    )


def test_counted_patients_are_in_the_order_of_their_keys_and_nobody_is_kept_aside() -> None:
    kind = data_of(counting())
    cells, order = kind.read(counted_table(), counting())
    assert (kind.name, kind.keeps_aside) == ("cells", False)
    assert order.tolist() == [1, 0, 2]
    assert cells.cells[:, 1].tolist() == [0.0, 1.0, 1.0]  # the sex of a, b and c
    assert cells.subset(np.array([2, 0])).cells.tolist() == cells.cells[[2, 0]].tolist()
    nobody = kind.nobody(counting())
    assert (nobody.count, nobody.cells.shape[1]) == (0, cells.cells.shape[1])


def test_a_digest_of_counted_patients_is_the_one_that_journals_hold() -> None:
    cells, _ = data_of(counting()).read(counted_table(), counting())
    as_rows = cells.cells.tobytes() + np.zeros(3, np.float32).tobytes() + np.arange(4).tobytes()
    assert cells.digest == sha256(as_rows).digest()


def test_a_training_keeps_patients_aside_and_needs_a_row_of_each() -> None:
    kind = data_of(plain())
    assert (kind.name, kind.keeps_aside, kind.nobody(plain()).x.shape) == ("table", True, (0, 2))
    table = counted_table()
    with pytest.raises(DataError, match="a patient without"):
        kind.read(Table(table.numbers, table.categories, table.targets, table.patients, (*table.keys, "d")), plain())
