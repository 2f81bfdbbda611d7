"""Patients as counts read them: each patient's cell in each column's histogram.

A patient with several rows is in one cell of each too: by the mean of the known values of a number, by the most
frequent known value of a category.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from configs.schema import Study
from strategies.data.base import DataKind, Numbers, Patients
from strategies.data.columns import Histogram, layout_of
from strategies.data.source import Table

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cells(Patients):
    """Patients as they are counted. cells: (patients, histograms) float32, cell numbers from 0."""

    cells: NDArray[np.float32]

    @property
    def count(self) -> int:
        """Return the number of patients."""
        return len(self.cells)

    @cached_property
    def digest(self) -> bytes:
        """Return the SHA-256 of the cells, in the form of a table's rows: journals hold such digests."""
        outcomes, starts = np.zeros(self.count, np.float32), np.arange(self.count + 1, dtype=np.int64)
        return sha256(self.cells.tobytes() + outcomes.tobytes() + starts.tobytes()).digest()

    def subset(self, chosen: Numbers) -> "Cells":
        """Return some patients, in the order given."""
        return replace(self, cells=self.cells[chosen])


class _Counted(DataKind):
    name = "cells"
    keeps_aside = False

    def read(self, table: Table, study: Study) -> tuple[Cells, Numbers]:
        """Return every patient's cells; see `DataKind`."""
        order = np.asarray(sorted(range(len(table.keys)), key=table.keys.__getitem__), np.int64)
        return places(table, study).subset(order), order

    def nobody(self, study: Study) -> Cells:
        """Return no patient, with as many histograms as the study has columns."""
        return Cells(np.empty((0, len(study.counted)), np.float32))


CELLS = _Counted()


def places(table: Table, study: Study) -> Cells:
    """Find in which cell of each histogram every patient is."""
    people = len(table.keys)
    columns = []
    values = {**table.numbers, **table.categories, **table.targets}
    for histogram in layout_of(study):
        column = histogram.column
        cells = values[column.name].astype(np.float64)
        has_cell = cells >= 0 if column.values else ~np.isnan(cells)
        of = _most_frequent if column.values else _binned_mean
        columns.append(of(cells[has_cell], table.patients[has_cell], people, histogram))
    return Cells(np.stack(columns, axis=1).astype(np.float32))


def _most_frequent(codes: Floats, patients: NDArray[np.int64], people: int, histogram: Histogram) -> NDArray[np.int64]:
    """Return (patients,) the value that most of a patient's known rows have, of equals the first; for none the last."""
    values = histogram.cells - 1
    votes = np.bincount(patients * values + codes.astype(np.int64), minlength=people * values).reshape(people, values)
    return np.where(votes.any(axis=1), votes.argmax(axis=1), values)


def _binned_mean(values: Floats, patients: NDArray[np.int64], people: int, histogram: Histogram) -> NDArray[np.int64]:
    """Return (patients,) the bin of the mean of a patient's known values; the last cell for none."""
    low, high = histogram.column.minimum, histogram.column.maximum
    assert low is not None
    assert high is not None
    rows = np.bincount(patients, minlength=people)
    parts = (np.clip(values, low, high) - low) / (high - low)
    order = np.lexsort((parts, patients))  # a sum of floats depends on the order, which must say nothing
    sums = np.bincount(patients[order], parts[order], minlength=people)
    bins = np.floor(sums / np.maximum(rows, 1) * histogram.bins).astype(np.int64)
    return np.where(rows > 0, np.clip(bins, 0, histogram.bins - 1), histogram.bins)
