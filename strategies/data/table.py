"""Patients as the rows of a table, on which most studies train.

`encode` turns a connector's columns into model inputs with the study's public ranges and values only, so nothing about
the patients enters the scaling. Values outside their range are clipped, and counted.

>>> from configs.schema import Feature, Task
>>> from strategies.tasks.registry import objective
>>> table = Table(numbers={"age": np.array([20.0, 90.0, 120.0])}, categories={},
...               targets={"disease": np.array([0.0, 1.0, 1.0])}, patients=np.arange(3), keys=("0", "1", "2"))
>>> disease = objective(Task("binary", "disease"))
>>> encoded = encode(table, (Feature("age", "number", minimum=20.0, maximum=90.0),), disease)
>>> encoded.x.ravel().tolist(), encoded.clipped
([-1.0, 1.0, 1.0], {'age': 1})
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from configs.schema import Feature, Study
from strategies.data.base import DataKind, Numbers, TrainablePatients
from strategies.data.curve import bends
from strategies.data.source import Table
from strategies.tasks.base import Objective
from strategies.tasks.ranges import scaled
from strategies.tasks.registry import objective_of

_SHORT, _BLOCK = 64, 1 << 16  # characters of keys that are ordered as numbers; rows that are ordered together
_STRIP = 8  # columns that are put into a matrix together: each of its lines is fetched so much more rarely
ABOVE = 0.25  # an input of a category that says its value is above it, one that does not is below, centred or not


@dataclass(frozen=True)
class TablePatients(TrainablePatients):
    """Rows of a table as a model reads them, sorted by patient.

    x: (rows, inputs) float32; y: (rows,) float32, as the objective encodes it; patients: (rows,) int64 from 0;
    starts: (patients + 1,) row offsets of each patient.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    patients: NDArray[np.int64]
    starts: NDArray[np.int64]
    clipped: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def digest(self) -> bytes:
        """Return the SHA-256 of the rows, their targets and their patients."""
        digest = sha256()
        for array in (self.x, self.y, self.starts):
            digest.update(np.ascontiguousarray(array).data)
        return digest.digest()

    def take(self, rows: NDArray[np.int64] | None = None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return x (rows, inputs) and y: copies of the given rows, or the arrays themselves."""
        return (self.x, self.y) if rows is None else (self.x.take(rows, axis=0), self.y.take(rows, axis=0))

    def rows_alone(self) -> "TablePatients":
        """Return the rows that a training reads, without what else a kind of data keeps of its patients."""
        return TablePatients(self.x, self.y, self.patients, self.starts, self.clipped)

    def portions(self) -> Iterator[NDArray[np.float32]]:
        """Yield all rows at once: they are in memory."""
        yield self.x

    def subset(self, chosen: NDArray[np.int64]) -> "TablePatients":
        """Return the same for some patients, renumbered from 0 in the order given."""
        rows, patients = self.rows_and_patients(chosen)
        lengths = (self.starts[1:] - self.starts[:-1])[chosen]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return replace(self, x=self.x[rows], y=self.y[rows], patients=patients, starts=starts)

    def part(self, first: int, last: int) -> "TablePatients":
        """Return the patients from `first` to before `last`, on the same memory."""
        start, end = self.starts[first], self.starts[last]
        y, patients, starts = self.y[start:end], self.patients[start:end] - first, self.starts[first : last + 1] - start
        return replace(self, x=self.x[start:end], y=y, patients=patients, starts=starts)

    @classmethod
    def joined(cls, parts: Sequence["TablePatients"]) -> "TablePatients":
        """Return several hospitals' patients as one, numbered in the order of the parts."""
        offsets = np.cumsum([0, *(part.count for part in parts)])
        row_offsets = np.cumsum([0, *(part.rows for part in parts)])
        starts = [part.starts[:-1] + row_offsets[i] for i, part in enumerate(parts)]
        return cls(
            np.concatenate([part.x for part in parts]),
            np.concatenate([part.y for part in parts]),
            np.concatenate([part.patients + offsets[i] for i, part in enumerate(parts)]),
            np.concatenate([*starts, [row_offsets[-1]]]).astype(np.int64),
        )


def encoded(table: Table, study: Study) -> TablePatients:
    """Return the model inputs and the outcome of every row, as a study asks.

    Raises:
        DataError: as `encode`.
    """
    return encode(table, study.predictors, objective_of(study), centred=study.scaling == "centred")


def encode(
    table: Table, features: tuple[Feature, ...], objective: Objective, *, centred: bool = False
) -> TablePatients:
    """Return model inputs and the outcome of every row, from public ranges and values only.

    Args:
        centred: whether a category's inputs are about their mean, each of its values taken as equally frequent, and
            not 0 and 1. A number is about its range's middle in any case.

    Raises:
        DataError: the table names a patient that has no row.
    """
    everybody = np.arange(len(table.keys))
    return _arranged(table, features, objective, everybody, centred=centred)


def _arranged(
    table: Table, features: Sequence[Feature], objective: Objective, chosen: Numbers, *, centred: bool
) -> TablePatients:
    """Return chosen patients' inputs and outcomes in the order given, each one's rows in the table's order.

    One matrix is made, a few columns at a time, as a hospital may have millions of rows. What is clipped is counted of
    all rows.
    """
    by_patient, starts = sorted_by_patient(table)
    lengths = np.diff(starts)[chosen]
    ends = np.cumsum(lengths)
    rows = by_patient[np.arange(lengths.sum()) + np.repeat(starts[:-1][chosen] - ends + lengths, lengths)]
    x, clipped = _matrix(table, features, rows, centred=centred)
    y, beyond = objective.encode(table.targets)
    patients = np.repeat(np.arange(len(chosen)), lengths)
    after = np.concatenate([[0], ends]).astype(np.int64)
    return TablePatients(x, y[rows].astype(np.float32), patients, after, {**clipped, **beyond})


def _matrix(
    table: Table, features: Sequence[Feature], rows: Numbers, *, centred: bool
) -> tuple[NDArray[np.float32], dict[str, int]]:
    """Return x (rows, inputs) of the given rows, and how many values of each column were clipped."""
    x = np.empty((len(rows), sum(len(feature.inputs) for feature in features)), np.float32)
    strip = np.empty((min(_STRIP, x.shape[1]), len(rows)), np.float32)
    clipped: dict[str, int] = {}
    done = filled = 0
    for feature in features:
        columns, count = columns_of(table.numbers, table.categories, (feature,), centred=centred)
        clipped |= count
        for column in columns:
            column.astype(np.float32).take(rows, out=strip[filled])
            filled += 1
            if filled == len(strip) or done + filled == x.shape[1]:
                x[:, done : done + filled] = strip[:filled].T
                done, filled = done + filled, 0
    return x, clipped


def sorted_by_patient(table: Table) -> tuple[Numbers, Numbers]:
    """Return the order of rows by patient, and in it the row offsets of each patient: (rows,) and (patients + 1,).

    Raises:
        DataError: the table names a patient that has no row.
    """
    order = np.argsort(table.patients, kind="stable")
    starts = np.searchsorted(table.patients[order], np.arange(len(table.keys) + 1))
    if (np.diff(starts) < 1).any():  # rows would be taken for patients
        raise DataError("expected at least one row of every patient, found a patient without; mend the connector")
    return order, starts.astype(np.int64)


def columns_of(
    numbers: Mapping[str, NDArray[np.float64]],
    categories: Mapping[str, NDArray[np.int64]],
    features: Iterable[Feature],
    *,
    centred: bool = False,
) -> tuple[list[NDArray[np.float64]], dict[str, int]]:
    """Return each model input of every row, in order, and how many values of each column were clipped.

    Exported models record these very steps (server/export/recording.py).

    Args:
        centred: as for `encode`.
    """
    columns: list[NDArray[np.float64]] = []
    clipped: dict[str, int] = {}
    for feature in features:
        if feature.type == "number":
            values, count = _number(numbers[feature.name], feature)
            clipped |= {feature.name: count} if count else {}
            columns += values
        else:
            columns += _category(categories[feature.name], feature, centres(feature)[0] if centred else 0.0)
    return columns, clipped


def order_of(keys: Sequence[str]) -> Numbers:
    """Return the positions of keys in the order of their text: (keys,), equal ones as they stand.

    >>> order_of(["b", "a", "ab", "a"]).tolist()
    [1, 3, 2, 0]
    """
    width = max(map(len, keys), default=0)
    joined = "".join(keys) if width <= _SHORT else "\0"
    if not joined.isascii() or "\0" in joined or not joined:
        return np.asarray(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
    words = -(-width // 8)  # the text as whole numbers of 8 bytes, whose order is the text's
    parts = np.array(keys, f"S{8 * words}").view(">u8").reshape(len(keys), words).astype(np.uint64)
    return np.lexsort(parts.T[::-1])


def ordered_rows(patients: TablePatients) -> TablePatients:
    """Order each patient's rows by what they hold: the same bits in whatever order rows came.

    A float's sum, a resample and a batch depend on positions.
    """
    if patients.one_row_each:
        return patients
    for start, end in _blocks(patients.starts):
        cells = np.column_stack([patients.x[start:end], patients.y[start:end]])
        rows = start + _within(np.ascontiguousarray(cells.T), patients.patients[start:end])
        patients.x[start:end], patients.y[start:end] = patients.x[rows], patients.y[rows]
    return patients


def _blocks(starts: Numbers) -> Iterator[tuple[int, int]]:
    """Yield row ranges of whole patients."""
    first, rows = 0, int(starts[-1])
    while first < rows:
        last = int(starts[np.searchsorted(starts, min(first + _BLOCK, rows))])
        yield first, last
        first = last


def _within(columns: NDArray[np.float32], patients: Numbers) -> Numbers:
    """Return the order of rows by patient, then by the first column, and so on; only ties are looked at further."""
    rows, groups = np.arange(len(patients)), patients
    for column in columns:
        ties = groups[1:] == groups[:-1]
        if not ties.any():
            break
        tied = np.flatnonzero(np.append(ties, False) | np.append(False, ties))
        here = rows[tied]
        rows[tied] = here[np.lexsort((column[here], groups[tied]))]
        values = column[rows]
        groups = np.append(0, np.cumsum((groups[1:] != groups[:-1]) | (values[1:] != values[:-1])))
    return rows


def standardise(encoded: TablePatients, train: NDArray[np.int64]) -> TablePatients:
    """Return each input minus its mean over the training rows, over its standard deviation (n - 1) plus 1e-9.

    For studies without privacy only (`scaling: site`): statistics of patients would otherwise leave in the model.
    """
    rows = encoded.x[encoded.rows_of(train)].astype(np.float64)  # a constant column must come out as 0
    if not len(rows):
        return encoded
    scaled = (encoded.x - rows.mean(axis=0)) / (rows.std(axis=0, ddof=min(1, len(rows) - 1)) + 1e-9)
    return replace(encoded, x=scaled.astype(np.float32))


def _number(values: NDArray[np.float64], feature: Feature) -> tuple[list[NDArray[np.float64]], int]:
    assert feature.minimum is not None
    assert feature.maximum is not None
    unknown = np.isnan(values)
    inputs, count = scaled(np.where(unknown, feature.minimum, values), feature.minimum, feature.maximum)
    inputs[unknown] = 0.0  # the middle of the range
    columns = [inputs, *(np.where(unknown, 0.0, bend) for bend in bends(inputs, len(feature.knots)))]
    return [*columns, unknown.astype(np.float64)] if feature.missing else columns, count


def centres(feature: Feature) -> list[float]:
    """Return what `scaling: centred` takes off each input of a column: 1 / k of a category's. Slopes stay as they are.

    >>> centres(Feature("pain", "category", values=("none", "some", "much", "most"), missing=("9",)))
    [0.25, 0.25, 0.25, 0.0]
    """
    if feature.type == "number":
        return [0.0] * len(feature.inputs)
    return [1.0 / len(feature.values)] * (len(feature.values) - 1) + [0.0] * bool(feature.missing)


def _category(codes: NDArray[np.int64], feature: Feature, centre: float) -> list[NDArray[np.float64]]:
    inputs = [(codes == i).astype(np.float64) - centre for i in range(1, len(feature.values))]
    return inputs + ([(codes == -1).astype(np.float64)] if feature.missing else [])


class _Rows(DataKind):
    name = "table"

    def read(self, table: Table, study: Study) -> tuple[TablePatients, Numbers]:
        """Return the encoded rows of all patients; see `DataKind`."""
        order = order_of(table.keys)
        return self._read(table, study, order), order

    def sides(
        self, table: Table, study: Study, first: NDArray[np.bool_], second: NDArray[np.bool_]
    ) -> tuple[TablePatients, TablePatients, Mapping[str, int]]:
        """Return the patients of two sides as two parts of one matrix; see `DataKind`."""
        order = order_of(table.keys)
        learned = order[first[order]]
        both = self._read(table, study, np.concatenate([learned, order[second[order]]]))
        both = self.scaled(both, np.arange(len(learned)), study)
        return both.part(0, len(learned)), both.part(len(learned), both.count), both.clipped

    def _read(self, table: Table, study: Study, chosen: Numbers) -> TablePatients:
        centred = study.scaling == "centred"
        return ordered_rows(_arranged(table, study.predictors, objective_of(study), chosen, centred=centred))

    def scaled(self, patients: TablePatients, train: Numbers, study: Study) -> TablePatients:
        """Return the inputs standardised where the study asks for `scaling: site`."""
        return standardise(patients, train) if study.scaling == "site" else patients

    def nobody(self, study: Study) -> TablePatients:
        """Return no rows, as wide as the study's inputs and its outcome."""
        x = np.empty((0, len(study.inputs)), np.float32)
        y, _ = objective_of(study).encode({column.name: np.empty(0) for column in study.task.columns})
        return TablePatients(x, y.astype(np.float32), np.empty(0, np.int64), np.zeros(1, np.int64))


TABLE = _Rows()
