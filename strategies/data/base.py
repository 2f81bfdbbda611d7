"""The interface of patients' data as releases read it, one class for each kind of data.

The patients are those of one hospital, or of several together. A training asks for the rows of chosen patients and
never looks into a kind's own arrays: rows may be a table in memory, or files that are read when they are asked for.
`strategies/data/registry.py` holds how each kind comes from a table.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from configs.schema import Study
from strategies.data.source import Table

Numbers = NDArray[np.int64]
_AT_ONCE = 1 << 16  # rows that are predicted together


class Patients(ABC):
    """Patients that can be counted and chosen. `clipped`: each column's number of values beyond its public range."""

    clipped: Mapping[str, int] = MappingProxyType({})

    @property
    @abstractmethod
    def count(self) -> int:
        """Return the number of patients."""

    @property
    @abstractmethod
    def digest(self) -> bytes:
        """Return a SHA-256 of everything that is read of them."""

    @abstractmethod
    def subset(self, chosen: Numbers) -> Any:
        """Return the same kind of some patients, in the order given."""


class TrainablePatients(Patients):
    """Patients with rows that a model reads: one each, or several, those of one patient together.

    starts: (patients + 1,) row offsets of each patient; patients: (rows,) the patient of each row, from 0;
    y: (rows,) or (rows, targets) float32, as the study's outcome encodes it.
    """

    starts: Numbers
    patients: Numbers
    y: NDArray[np.float32]

    @property
    def count(self) -> int:
        """Return the number of patients."""
        return len(self.starts) - 1

    @property
    def rows(self) -> int:
        """Return the number of rows of all patients."""
        return len(self.y)

    @cached_property
    def one_row_each(self) -> bool:
        """Return whether every patient has exactly one row, so that patients and rows coincide."""
        return self.count == self.rows

    @property
    def at_once(self) -> int:
        """Return how many rows a training should ask for together: all of those that are in memory anyway."""
        return max(1, self.rows)

    @property
    def outcomes(self) -> NDArray[np.float32]:
        """Return the outcomes that predictions are judged by: each row's, unless the kind of data says otherwise."""
        return self.y

    @property
    def owners(self) -> Numbers:
        """Return the patient of each of the `outcomes`, from 0."""
        return self.patients

    def averaged(self, rows: Numbers | None) -> int:
        """Return what the summed loss of these rows (None: of all) is divided by in plain training: their number."""
        return self.rows if rows is None else len(rows)

    def rows_of(self, chosen: Numbers) -> Numbers:
        """Return row numbers of the chosen patients, patient by patient."""
        if self.one_row_each:
            return chosen
        first, lengths = self.starts[chosen], self.starts[chosen + 1] - self.starts[chosen]
        ends = np.cumsum(lengths)
        rows: Numbers = np.arange(lengths.sum()) + np.repeat(first - ends + lengths, lengths)
        return rows

    def rows_and_patients(self, chosen: Numbers) -> tuple[Numbers, Numbers]:
        """Return row numbers of the chosen patients, and each row's patient: positions from 0 in the order given."""
        owners = np.arange(len(chosen))
        if not self.one_row_each:
            owners = np.repeat(owners, (self.starts[1:] - self.starts[:-1])[chosen])
        return self.rows_of(chosen), owners

    @abstractmethod
    def take(self, rows: Numbers | None = None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return rows as a model reads them: x (rows, ...) and y (rows, ...); all of them unless given."""

    def portions(self) -> Iterator[NDArray[np.float32]]:
        """Yield x of all rows in order, as many at once as fit into memory; one empty portion where there are none."""
        for start in range(0, max(1, self.rows), _AT_ONCE):
            yield self.take(np.arange(start, min(start + _AT_ONCE, self.rows)))[0]

    def judged(self) -> Iterator[NDArray[np.float32]]:
        """Yield x of what is predicted for the `outcomes`, in portions: of all rows, unless the kind says otherwise."""
        return self.portions()

    @classmethod
    @abstractmethod
    def joined(cls, parts: Sequence[Any]) -> Any:
        """Return several hospitals' patients of this kind as one."""


Kind = TypeVar("Kind", bound=TrainablePatients)


def concatenate(parts: Sequence[Kind]) -> Kind:
    """Return several hospitals' patients as one: to train on pooled data, and to evaluate on all test patients."""
    together: Kind = parts[0].joined(parts)
    return together


class DataKind(ABC):
    """The construction of one kind of patients from what a connector read."""

    name: ClassVar[str]
    keeps_aside: ClassVar[bool] = True  # whether some patients are kept aside for the test

    @abstractmethod
    def read(self, table: Table, study: Study) -> tuple[Any, Numbers]:
        """Return all patients in the order of their keys, and for each where it was: (patients,) positions.

        Raises:
            DataError: the table names a patient that has no row.
        """

    def sides(
        self, table: Table, study: Study, first: NDArray[np.bool_], second: NDArray[np.bool_]
    ) -> tuple[Any, Any, Mapping[str, int]]:
        """Return the patients of a table on two sides, scaled by the first, and what was clipped of all.

        Args:
            first, second: (patients,) who is on each side; nobody is on both.

        Raises:
            DataError: as `read`.
        """
        everybody, order = self.read(table, study)
        learned, judges = np.flatnonzero(first[order]), np.flatnonzero(second[order])
        everybody = self.scaled(everybody, learned, study)
        return everybody.subset(learned), everybody.subset(judges), everybody.clipped

    def scaled(self, patients: Any, train: Numbers, study: Study) -> Any:
        """Return the patients, scaled by what the chosen ones are like; only a study without privacy may ask for it."""
        del train, study
        return patients

    @abstractmethod
    def nobody(self, study: Study) -> Any:
        """Return no patient at all, in the shapes of the study: what a release of noise alone is made of."""
