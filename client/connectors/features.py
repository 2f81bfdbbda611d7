"""Rows with features alone, to be scored: their outcomes need not be known, and no row is left out.

What a cell means is what it means in training (checks.py). Each row is scored by itself, a patient's several rows too.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from client.connectors import read_columns, read_table, with_files
from client.connectors.checks import columns_read, features_of
from client.connectors.notes import Notes
from client.connectors.recorded import require_records
from configs.errors import DataError
from configs.schema import CsvFile, DataSource, Feature, Record, Study
from strategies.data.base import TrainablePatients
from strategies.data.decode import decoded
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
    if masks := [column.name for column in study.task.columns if column.is_record]:
        raise DataError(f"expected a task that predicts numbers of a row, found masks ({masks[0]!r}); none are written")
    if isinstance(source, CsvFile):
        return _of_file(source, study)
    if study.patient_id is None:
        raise DataError("expected --data FILE.csv, as the study names no column that says whose a row is")
    notes = Notes()
    table = read_table(source, study, notes)
    ids = [table.keys[patient] for patient in table.patients.tolist()]
    return _rows(table, {study.patient_id: ids}, study, notes)


def _of_file(source: CsvFile, study: Study) -> FeatureRows:
    notes, optional = Notes(), [study.patient_id] if study.patient_id else []
    require_records(source, study)
    columns = read_columns(source, study, columns_read(study.features), notes, optional)
    count = len(columns[study.features[0].name])
    labels = {LINE: [str(number) for number in notes.numbers_of(count).tolist()]}
    labels |= {name: columns[name].texts() for name in optional if name in columns}
    notes.rows = notes.counted = notes.patients = count
    numbers, categories = features_of(columns, study, notes)
    records = [feature for feature in study.features if feature.is_record]
    paths = {record.name: tuple(columns[record.name].texts()) for record in records}
    table = Table(numbers, categories, {}, np.arange(count), (), records=paths)
    return _rows(with_files(table, source, records, notes), labels, study, notes)


def _rows(table: Table, labels: dict[str, list[str]], study: Study, notes: Notes) -> FeatureRows:
    """Return rows of a table, each a patient of its own."""
    count = len(next(iter(labels.values())))
    unknown = np.zeros(count, np.int64)
    for feature in study.features:
        unknown += _unknown(table, feature)
    width = len(str(count))
    keys = tuple(f"{row:0{width}d}" for row in range(count))
    targets = {column.name: np.full(count, _any_value(column)) for column in study.task.columns}
    alone = replace(table, targets=targets, patients=np.arange(count), keys=keys, in_test=None)
    return FeatureRows(alone, labels, unknown.tolist(), tuple(notes.oddities()))


def _unknown(table: Table, feature: Feature) -> NDArray[np.bool_]:
    """Return (rows,) whether a column is unknown."""
    if isinstance(feature, Record) and not feature.predictors:
        texts = table.records[feature.name]
        return np.array([decoded(table.files, text, feature) is None for text in texts], bool)
    column = feature.predictors[0]
    if column.name in table.numbers:
        return np.isnan(table.numbers[column.name])
    return table.categories[column.name] < 0


def _any_value(column: Feature) -> float:
    """Return a value that an outcome may have, in the place of one that is not known: no prediction reads it."""
    return 0.0 if column.minimum is None else column.minimum
