"""Exact counts of a simulation's patients by every column: Table 1 of its report. No hospital releases such counts.

Counted as a model reads them: a patient of several rows by the first, numbers in ten equal parts of the public range.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from client.patients import Split
from configs.records.described import CountedColumn, DescribedPatients
from configs.schema import Feature, Study
from strategies.data.base import TrainablePatients
from strategies.data.columns import Histogram
from strategies.data.records import RECORDS
from strategies.data.table import ABOVE
from strategies.tasks.registry import objective_of
from strategies.telltale import telltale

BINS = 10
Rows = NDArray[np.float32]  # (patients, inputs): the first row of each
Numbers = NDArray[np.int64]


def described(study: Study, patients: Mapping[str, Split]) -> DescribedPatients | None:
    """Return each hospital's counts, None where patients are no rows of a table."""
    layout = [_histogram(feature) for feature in study.features if not feature.is_record]
    target = study.task.columns[0] if len(study.task.columns) == 1 else None
    counts = {}
    for site, people in sorted(patients.items()):
        total = np.zeros(_size(layout, target), np.int64)
        for part in (people.train, people.test):
            if part.count:
                cells = _cells(study, layout, target, part)
                if cells is None:
                    return None
                total += cells
        counts[site] = tuple(total.tolist())
    columns = [*layout, *([_histogram(target)] if target else [])]
    outcome = target.values[1] if target and len(target.values) == 2 else None
    parts = [part for people in patients.values() for part in (people.train, people.test)]
    return DescribedPatients(tuple(map(_column, columns)), counts, outcome, telltale(study, parts))


def _histogram(column: Feature) -> Histogram:
    return Histogram(column, 0 if column.values else BINS)


def _size(layout: Sequence[Histogram], target: Feature | None) -> int:
    return sum(histogram.cells for histogram in [*layout, *([_histogram(target)] if target else [])])


def _column(histogram: Histogram) -> CountedColumn:
    column = histogram.column
    return CountedColumn(column.name, column.type, column.unit, tuple(histogram.labels), tuple(histogram.edges))


def _cells(
    study: Study, layout: Sequence[Histogram], target: Feature | None, people: TrainablePatients
) -> NDArray[np.int64] | None:
    """Return how many patients are in each cell of all columns, one after the other."""
    first = people.starts[:-1]
    if study.data == RECORDS.name:
        return None
    x, y = people.take(first)
    if x.ndim != 2 or x.shape[1] < len(study.inputs):
        return None
    place = {name: number for number, name in enumerate(study.inputs)}
    cells = [np.bincount(_of_feature(h, place, x), minlength=h.cells) for h in layout]
    if target is not None:
        histogram = _histogram(target)
        values = objective_of(study).in_unit(y)
        cells.append(np.bincount(_of_values(histogram, values), minlength=histogram.cells))
    return np.concatenate(cells)


def _of_feature(histogram: Histogram, place: Mapping[str, int], x: Rows) -> Numbers:
    """Return the cell of each patient in one column's counts."""
    column = histogram.column
    if column.values:
        chosen = x[:, [place[f"{column.name} = {value}"] for value in column.values[1:]]] > ABOVE
        cells = np.where(chosen.any(axis=1), chosen.argmax(axis=1) + 1, 0)
    else:
        cells = _binned((x[:, place[column.name]].astype(np.float64) + 1) / 2)
    unknown = place.get(f"{column.name} unknown")
    return cells if unknown is None else np.where(x[:, unknown] > 0.5, histogram.cells - 1, cells)


def _of_values(histogram: Histogram, values: NDArray[np.float64]) -> Numbers:
    column = histogram.column
    if column.values or column.minimum is None or column.maximum is None:
        return values.astype(np.int64)
    return _binned((values - column.minimum) / (column.maximum - column.minimum))


def _binned(parts: NDArray[np.float64]) -> Numbers:
    return np.clip(np.floor(parts * BINS), 0, BINS - 1).astype(np.int64)
