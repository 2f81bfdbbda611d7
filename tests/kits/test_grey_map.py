"""A reader of records is one file and its registration."""

from pathlib import Path

import pytest

from client.patients import load_patients
from configs.errors import KindError
from configs.schema import CsvFile
from configs.schema.records import READER_KEYS, ReaderKeys
from strategies.data.readers.registry import READERS, register
from tests import builders
from tests.kits import grey_map

SCAN = {"type": "image", "reader": "grey map", "size": [6, 6], "window": [0, 9]}


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (READERS, READER_KEYS):
        monkeypatch.setattr(registry, "_kinds", dict(registry._kinds))
    grey_map.install()


def test_a_study_reads_records_of_the_new_format_and_a_broken_one_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_text("P2 6 6 9\n" + "0 9 " * 18)
    (tmp_path / "b.pgm").write_text("P2 6 6 9\n1 2 3")
    (tmp_path / "index.csv").write_text("scan,disease\na.pgm,1\nb.pgm,0\n")
    source = CsvFile(tmp_path / "index.csv", root=tmp_path)
    encoded = builders.study(features={"scan": SCAN | {"encoder": "texture"}})
    read = load_patients(source, encoded, "lille")
    assert {bool(row.any()) for row in read.train.x} == {True, False}
    assert "scan: 1 of 2 rows is no record that can be read; it is unknown" in read.oddities
    whole = builders.study(features={"scan": SCAN}, model={"name": "resnet", "width": 4})
    x, _ = load_patients(source, whole, "lille").train.take()
    assert x[:, 0, 0, :2].tolist() == [[-1, 1], [0, 0]]


def test_a_reader_whose_keys_have_another_name_is_refused() -> None:
    with pytest.raises(KindError, match="expected keys of that name, found 'pgm'"):
        register(grey_map.GreyMapReader(), ReaderKeys("pgm", axes=(2,)))
