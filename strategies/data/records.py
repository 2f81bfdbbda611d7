"""Patients as records that a model reads itself: images or series, decoded when they are asked for.

Only paths are held. A record that cannot be read is zeros; so is a mask, but rows without a mask that could be read do
not come this far (client/connectors/recorded.py). What is asked for together is in memory together, so a training that
asks for one patient at a time holds one patient.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import cast

import numpy as np
from numpy.typing import NDArray

from configs.schema import Record, Study
from strategies.data.base import DataKind, Numbers, TrainablePatients
from strategies.data.decode import decoded
from strategies.data.source import Files, Table
from strategies.data.table import order_of, sorted_by_patient
from strategies.tasks.base import Objective
from strategies.tasks.registry import objective_of

AT_ONCE = 1 << 24  # numbers of records that are in memory together: 64 MB


@dataclass(frozen=True)
class Column:
    """One column of records: a path for each row, how each is decoded, and where they lie, by place."""

    texts: tuple[str, ...]
    section: Record
    files: tuple[Files | None, ...]
    places: NDArray[np.int64]  # (rows,) of `files`: records of several hospitals may be together

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (channels, sides...) of each record."""
        return self.section.full_shape

    def take(self, rows: Numbers) -> NDArray[np.float32]:
        """Return (rows, channels, sides...), zeros of what cannot be read."""
        records = np.zeros((len(rows), *self.shape), np.float32)
        for i, row in enumerate(rows.tolist()):
            record = decoded(self.files[self.places[row]], self.texts[row], self.section)
            if record is not None:
                records[i] = record
        return records

    def digests(self) -> Iterator[bytes]:
        """Yield of each row the SHA-256 of what its files hold."""
        for text, place in zip(self.texts, self.places.tolist(), strict=True):
            files = self.files[place]
            yield sha256().digest() if files is None else files.digest(text)

    def chosen(self, rows: Numbers) -> "Column":
        """Return these rows alone."""
        return replace(self, texts=tuple(self.texts[row] for row in rows.tolist()), places=self.places[rows])

    @classmethod
    def joined(cls, parts: Sequence["Column"]) -> "Column":
        """Return the rows of several hospitals."""
        offsets = np.cumsum([0, *(len(part.files) for part in parts)])
        return cls(
            tuple(text for part in parts for text in part.texts),
            parts[0].section,
            tuple(files for part in parts for files in part.files),
            np.concatenate([part.places + offsets[i] for i, part in enumerate(parts)]),
        )


@dataclass(frozen=True)
class RecordPatients(TrainablePatients):
    """Rows of one record each, sorted by patient. `masks` are given where the outcome is a record too.

    y: as for every kind; with masks (rows, 0), as masks are decoded with the records: `take` returns them.
    """

    column: Column
    y: NDArray[np.float32]
    patients: NDArray[np.int64]
    starts: NDArray[np.int64]
    masks: Column | None = None
    clipped: dict[str, int] = field(default_factory=dict)

    @cached_property
    def digest(self) -> bytes:
        """Return the SHA-256 of what the records' files hold, the outcomes and the patients.

        Files are gone through one by one; those that have not changed since are not read again.
        """
        whole = sha256(self.y.tobytes() + self.starts.tobytes())
        for column in (self.column, self.masks):
            for digest in column.digests() if column is not None else ():
                whole.update(digest)
        return whole.digest()

    def take(self, rows: Numbers | None = None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return x (rows, channels, sides...) and y: (rows, ...), or masks (rows, channels, sides...)."""
        rows = np.arange(self.rows) if rows is None else rows
        return self.column.take(rows), self.y[rows] if self.masks is None else self.masks.take(rows)

    @property
    def at_once(self) -> int:
        """Return how many records fit into `AT_ONCE` numbers, at least one."""
        return max(1, AT_ONCE // math.prod(self.column.shape))

    def portions(self) -> Iterator[NDArray[np.float32]]:
        """Yield x of all rows in order, a few at once; one empty portion where there are none."""
        for start in range(0, max(1, self.rows), self.at_once):
            yield self.column.take(np.arange(start, min(start + self.at_once, self.rows)))

    def subset(self, chosen: Numbers) -> "RecordPatients":
        """Return the same for some patients, renumbered from 0 in the order given."""
        rows, patients = self.rows_and_patients(chosen)
        lengths = (self.starts[1:] - self.starts[:-1])[chosen]
        return replace(
            self,
            column=self.column.chosen(rows),
            y=self.y[rows],
            patients=patients,
            starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            masks=None if self.masks is None else self.masks.chosen(rows),
        )

    @classmethod
    def joined(cls, parts: Sequence["RecordPatients"]) -> "RecordPatients":
        """Return several hospitals' patients as one, numbered in the order of the parts."""
        people, rows = (np.cumsum([0, *counts]) for counts in zip(*((p.count, p.rows) for p in parts), strict=True))
        starts = [part.starts[:-1] + rows[i] for i, part in enumerate(parts)]
        masks = [part.masks for part in parts if part.masks is not None]
        return cls(
            Column.joined([part.column for part in parts]),
            np.concatenate([part.y for part in parts]),
            np.concatenate([part.patients + people[i] for i, part in enumerate(parts)]),
            np.concatenate([*starts, rows[-1:]]).astype(np.int64),
            Column.joined(masks) if masks else None,
        )


class _Records(DataKind):
    name = "records"

    def read(self, table: Table, study: Study) -> tuple[RecordPatients, Numbers]:
        """Return the records of all patients; see `DataKind`."""
        order, starts = sorted_by_patient(table)
        section, mask = _columns(study)
        y, clipped = _outcomes(table, objective_of(study), has_masks=mask is not None)
        patients = RecordPatients(
            _column(table, section).chosen(order),
            y[order],
            table.patients[order],
            starts,
            None if mask is None else _column(table, mask).chosen(order),
            clipped,
        )
        by_key = order_of(table.keys)
        return _rows_in_order(patients.subset(by_key)), by_key

    def nobody(self, study: Study) -> RecordPatients:
        """Return no record, of the study's shape and outcome."""
        section, mask = _columns(study)
        empty = Table({}, {}, {c.name: np.empty(0) for c in study.task.columns}, np.empty(0, np.int64), ())
        none = np.empty(0, np.int64)
        y, _ = _outcomes(empty, objective_of(study), has_masks=mask is not None)
        columns = [None if each is None else Column((), each, (None,), none) for each in (section, mask)]
        assert columns[0] is not None
        return RecordPatients(columns[0], y, none, np.zeros(1, np.int64), columns[1])


def _columns(study: Study) -> tuple[Record, Record | None]:
    """Return the column that a model reads, and that of the masks it predicts, if any."""
    read = next(feature for feature in study.features if feature.shape is not None)
    mask = next((column for column in study.task.columns if column.is_record), None)
    return cast(Record, read), cast("Record | None", mask)


def _column(table: Table, section: Record) -> Column:
    texts = table.records[section.name]
    return Column(texts, section, (table.files,), np.zeros(len(texts), np.int64))


def _outcomes(table: Table, objective: Objective, *, has_masks: bool) -> tuple[NDArray[np.float32], dict[str, int]]:
    if has_masks:
        return np.empty((len(table.patients), 0), np.float32), {}
    y, beyond = objective.encode(table.targets)
    return y.astype(np.float32), dict(beyond)


def _rows_in_order(patients: RecordPatients) -> RecordPatients:
    """Order each patient's rows by their paths and outcomes: the same bits in whatever order rows came."""
    if patients.one_row_each:
        return patients
    masks = patients.masks.texts if patients.masks is not None else ("",) * patients.rows
    keys = list(zip(patients.patients.tolist(), patients.column.texts, masks, patients.y.tolist(), strict=True))
    rows = np.asarray(sorted(range(patients.rows), key=keys.__getitem__), np.int64)
    return replace(
        patients,
        column=patients.column.chosen(rows),
        y=patients.y[rows],
        masks=None if patients.masks is None else patients.masks.chosen(rows),
    )


RECORDS = _Records()
