"""Masks as outcomes: a row whose mask cannot be read is nobody's, a patient without any other row is left out."""

from pathlib import Path

import numpy as np
import pytest

from client.connectors import probe
from client.connectors.features import rows_of_features
from client.connectors.notes import Notes
from client.patients import load_patients
from configs.errors import DataError
from configs.schema import CsvFile, Study
from tests import builders

ROWS = "patient,scan,mask\na,x.npy,1.npy\na,x.npy,gone.npy\nb,x.npy,gone.npy\nc,gone.npy,2.npy\n"


def asked() -> Study:
    return builders.study(
        patient_id="patient",
        task={"type": "segmentation", "target": "mask", "reader": "npy", "size": [4, 4]},
        features={"scan": {"type": "image", "reader": "npy", "size": [4, 4], "window": [0, 1]}},
        model={"name": "unet", "width": 4, "depth": 1},
    )


@pytest.fixture
def source(tmp_path: Path) -> CsvFile:
    np.save(tmp_path / "x.npy", np.full((4, 4), 0.75))
    np.save(tmp_path / "1.npy", np.array([[0, 1], [1, 0]], np.uint8))
    np.save(tmp_path / "2.npy", np.ones((4, 4), np.uint8))
    (tmp_path / "index.csv").write_text(ROWS)
    return CsvFile(tmp_path / "index.csv", root=tmp_path)


def test_rows_without_a_mask_are_left_out_and_counted_and_images_that_cannot_be_read_are_zeros(source: CsvFile) -> None:
    notes = Notes()
    people = load_patients(source, asked(), "lille", notes).train
    assert people.starts.tolist() == [0, 1, 2]
    assert (notes.left_out, notes.patients, notes.counted) == (2, 2, 2)
    assert "mask: 2 of 4 rows are without a mask that can be read; left out" in list(notes.oddities())
    x, y = people.take()
    assert x[:, 0, 0, 0].tolist() == [0.5, 0.0]
    assert y.shape == (2, 1, 4, 4)
    assert y[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]  # labels, never in between
    assert y[1].min() == 1.0


def test_new_rows_are_scored_without_outcomes_and_images_that_cannot_be_read_are_counted(source: CsvFile) -> None:
    source.path.write_text("patient,scan\na,x.npy\nb,gone.npy\n")
    image = {"type": "image", "reader": "npy", "size": [4, 4], "window": [0, 1]}
    whole = builders.study(patient_id="patient", features={"scan": image}, model={"name": "resnet", "width": 4})
    rows = rows_of_features(source, whole)
    assert (rows.labels["patient"], rows.unknown) == (["a", "b"], [0, 1])
    assert rows.patients(whole).take()[0][:, 0, 0, 0].tolist() == [0.5, 0.0]
    encoded = builders.study(patient_id="patient", features={"scan": image | {"encoder": "texture"}})
    rows = rows_of_features(source, encoded)
    assert rows.unknown == [0, 1]
    assert [bool(x.any()) for x in rows.patients(encoded).take()[0]] == [True, False]
    with pytest.raises(DataError, match="expected a task that predicts numbers of a row, found masks"):
        rows_of_features(source, asked())


def test_where_no_mask_can_be_read_there_is_no_patient(source: CsvFile) -> None:
    source.path.write_text("patient,scan,mask\na,x.npy,gone.npy\n")
    people = load_patients(source, asked(), "lille").train
    assert (people.count, people.rows) == (0, 0)
    assert people.take()[1].shape == (0, 1, 4, 4)


def test_an_encoder_that_is_not_there_is_told_before_any_row_is_looked_at(source: CsvFile) -> None:
    image = {"type": "image", "reader": "npy", "size": [4, 4], "encoder": "retina/net", "numbers": 8}
    with pytest.raises(DataError, match=r"column 'scan': expected an encoder that is here \(texture\), found 'retina/"):
        probe(source, builders.study(features={"scan": image}))
