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
        return sha256(self.x.tobytes() + self.y.tobytes() + self.starts.tobytes()).digest()

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
    columns, clipped = columns_of(table.numbers, table.categories, features, centred=centred)
    y, beyond = objective.encode(table.targets)
    clipped |= beyond
    order, starts = sorted_by_patient(table)
    x = np.stack(columns, axis=1)[order].astype(np.float32)  # (rows, inputs)
    return TablePatients(x, y[order].astype(np.float32), table.patients[order], starts, clipped)


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


def in_order(encoded: TablePatients, keys: Sequence[str]) -> tuple[TablePatients, NDArray[np.int64]]:
    """Order patients by their keys, and each one's rows by what they hold: the same bits in whatever order rows came.

    A float's sum, a resample and a batch depend on positions. Patients with one key have the same rows, or one row.

    Args:
        keys: (patients,) what tells patients apart.

    Returns:
        The same patients in that order, and for each where it was: (patients,) positions.
    """
    order = np.asarray(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
    moved = encoded.subset(order)
    if moved.one_row_each:
        return moved, order
    cells = np.ascontiguousarray(np.column_stack([moved.x, moved.y]), np.float32)
    rows = np.lexsort((*cells.T[::-1], moved.patients))
    return replace(moved, x=moved.x[rows], y=moved.y[rows]), order


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
        return in_order(encoded(table, study), table.keys)

    def scaled(self, patients: TablePatients, train: Numbers, study: Study) -> TablePatients:
        """Return the inputs standardised where the study asks for `scaling: site`."""
        return standardise(patients, train) if study.scaling == "site" else patients

    def nobody(self, study: Study) -> TablePatients:
        """Return no rows, as wide as the study's inputs and its outcome."""
        x = np.empty((0, len(study.inputs)), np.float32)
        y, _ = objective_of(study).encode({column.name: np.empty(0) for column in study.task.columns})
        return TablePatients(x, y.astype(np.float32), np.empty(0, np.int64), np.zeros(1, np.int64))


TABLE = _Rows()
