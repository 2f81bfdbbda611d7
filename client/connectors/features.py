"""Rows with features alone, to be scored: their outcomes need not be known, and no row is left out.

What a cell means is what it means in training (checks.py). Each row is scored by itself, a patient's several rows too.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.connectors import read_columns, read_table
from client.connectors.checks import features_of
from client.connectors.notes import Notes
from configs.errors import DataError
from configs.schema import CsvFile, DataSource, Feature, Study
from strategies.data.base import TrainablePatients
from strategies.data.registry import data_of
from strategies.data.source import Table

LINE = "line"


@dataclass(frozen=True)
class FeatureRows:
    """Typed columns of rows, what names each row, and how many of its columns are unknown."""

    table: Table
    labels: dict[str, list[str]]
    unknown: list[int]
    oddities: tuple[str, ...]

    def patients(self, study: Study) -> TrainablePatients:
        """Return the rows as patients of one row each, in their order, which is that of their keys."""
        read, _ = data_of(study).read(self.table, study)
        assert isinstance(read, TrainablePatients)
        return read


def rows_of_features(source: DataSource, study: Study) -> FeatureRows:
    """Return a source's rows: all of a CSV file, or of a data set those that count in the study.

    Raises:
        SourceError, DataError: they cannot be read, or nothing would say whose a score is.
    """
    if isinstance(source, CsvFile):
        return _of_file(source, study)
    if study.patient_id is None:
        raise DataError("expected --data FILE.csv, as the study names no column that says whose a row is")
    notes = Notes()
    table = read_table(source, study, notes)
    ids = [table.keys[patient] for patient in table.patients.tolist()]
    return _rows(table.numbers, table.categories, {study.patient_id: ids}, study, notes)


def _of_file(source: CsvFile, study: Study) -> FeatureRows:
    notes, optional = Notes(), [study.patient_id] if study.patient_id else []
    wanted = {feature.name: feature.type for feature in study.features}
    columns = read_columns(source, study, wanted, notes, optional)
    count = len(columns[study.features[0].name])
    labels = {LINE: [str(number) for number in notes.numbers_of(count).tolist()]}
    labels |= {name: columns[name].texts() for name in optional if name in columns}
    notes.rows = notes.counted = notes.patients = count
    return _rows(*features_of(columns, study, notes), labels, study, notes)


def _rows(
    numbers: Mapping[str, NDArray[np.float64]],
    categories: Mapping[str, NDArray[np.int64]],
    labels: dict[str, list[str]],
    study: Study,
    notes: Notes,
) -> FeatureRows:
    count = len(next(iter(labels.values())))
    unknown = np.zeros(count, np.int64)
    for values in numbers.values():
        unknown += np.isnan(values)
    for codes in categories.values():
        unknown += codes < 0
    width = len(str(count))
    keys = tuple(f"{row:0{width}d}" for row in range(count))
    targets = {column.name: np.full(count, _any_value(column)) for column in study.task.columns}
    table = Table(numbers, categories, targets, np.arange(count), keys)
    return FeatureRows(table, labels, unknown.tolist(), tuple(notes.oddities()))


def _any_value(column: Feature) -> float:
    """Return a value that an outcome may have, in the place of one that is not known: no prediction reads it."""
    return 0.0 if column.minimum is None else column.minimum
