"""Patients as records: those are decoded that are asked for, when they are asked for; zeros where none is read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.connectors.files import Below
from configs.schema import Image, Study
from strategies.data import records
from strategies.data.base import concatenate
from strategies.data.records import RECORDS, RecordPatients
from strategies.data.source import Located, Table
from tests import builders

SCAN = Image("scan", "image", reader="npy", size=(4, 4), low=0.0, high=2.0)


class Watched(Below):
    """Notes what is looked for."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.asked: list[str] = []

    def find(self, text: str) -> Located:
        self.asked.append(text)
        return super().find(text)


def study() -> Study:
    return replace(builders.study(patient_id="patient"), features=(SCAN,))


def table(root: Path, rows: list[tuple[str, str, int]]) -> Table:
    """A table of (patient, path, outcome)."""
    keys = tuple(dict.fromkeys(patient for patient, _, _ in rows))
    return Table(
        {},
        {},
        {"disease": np.array([outcome for *_, outcome in rows], float)},
        np.array([keys.index(patient) for patient, *_ in rows], np.int64),
        keys,
        records={"scan": tuple(path for _, path, _ in rows)},
        files=Watched(root),
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(4):
        np.save(tmp_path / f"{number}.npy", np.full((4, 4), number / 2))
    return tmp_path


ROWS = [("b", "0.npy", 1), ("a", "1.npy", 0), ("b", "2.npy", 1), ("c", "gone.npy", 0), ("a", "3.npy", 0)]


def read(root: Path, rows: list[tuple[str, str, int]]) -> RecordPatients:
    return RECORDS.read(table(root, rows), study())[0]


def test_one_patients_records_are_decoded_when_they_are_asked_for_and_nobody_elses(root: Path) -> None:
    patients = read(root, ROWS)
    (files,) = patients.column.files
    assert isinstance(files, Watched)
    assert files.asked == []
    x, y = patients.take(patients.rows_of(np.array([1])))  # b
    assert files.asked == ["0.npy", "2.npy"]
    assert x.shape == (2, 1, 4, 4)
    assert (x[:, 0, 0, 0].tolist(), y.tolist()) == ([-1.0, 0.0], [1.0, 1.0])


def test_a_record_that_cannot_be_read_is_zeros(root: Path) -> None:
    x, _ = read(root, ROWS).take(np.array([4]))
    assert not x.any()


def test_in_whatever_order_rows_come_the_bits_are_the_same(root: Path) -> None:
    one, two = read(root, ROWS), read(root, ROWS[::-1])
    assert np.array_equal(one.take()[0], two.take()[0])
    assert one.digest == two.digest


def test_the_digest_is_of_what_the_files_hold(root: Path) -> None:
    before = read(root, ROWS).digest
    np.save(root / "2.npy", np.full((4, 4), 0.5))
    assert read(root, ROWS).digest != before
    np.save(root / "2.npy", np.full((4, 4), 1.0))
    assert read(root, ROWS).digest == before


def test_some_patients_and_several_hospitals_have_the_same_records(root: Path) -> None:
    patients = read(root, ROWS)
    some = patients.subset(np.array([2, 0]))
    assert some.starts.tolist() == [0, 1, 3]
    both = concatenate([some, patients.subset(np.array([1]))])
    assert both.patients.tolist() == [0, 1, 1, 2, 2]
    expected = np.concatenate([patients.take(np.array(rows))[0] for rows in ([4], [0, 1], [2, 3])])
    assert np.array_equal(both.take()[0], expected)
    assert both.take()[1].tolist() == [0, 0, 0, 1, 1]


def test_a_few_are_in_memory_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "AT_ONCE", 40)
    assert [len(x) for x in read(root, ROWS).portions()] == [2, 2, 1]
    assert read(root, ROWS).at_once == 2
    nobody = RECORDS.nobody(study())
    assert [x.shape for x in nobody.portions()] == [(0, 1, 4, 4)]
    assert (nobody.count, nobody.rows, nobody.take()[1].shape) == (0, 0, (0,))
