"""Patients as person-periods: a row for each interval of time in which a patient was at risk.

A patient's rows hold the same features, and 1 at the input of their interval (Singer and Willett 1993; Craig 2021,
arXiv 2107.13480, "survival stacking"). Their gradients are added before the clip, so the privacy engine needs to know
nothing of time. In plain training a mean is one over patients.

A patient has one outcome. Where a file has several rows of a patient, that with the longest follow-up counts, the first
visit's where follow-up is counted from each; of equal ones, one whose event is known, and then by what the rows hold.
Who was at risk in no whole interval has one row with an outcome that says nothing (-1).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from configs.schema import Study
from strategies.data.base import DataKind, Numbers
from strategies.data.source import Table
from strategies.data.table import TABLE, TablePatients, standardise
from strategies.tasks.base import Objective
from strategies.tasks.registry import objective_of

_AT_ONCE = 1 << 16  # rows that are predicted together


@dataclass(frozen=True)
class PersonPeriods(TablePatients):
    """Rows of intervals. x: (rows, inputs + intervals); y: (rows,), what happened, -1 where it is not known.

    `followed` is each patient's outcome as the objective encodes it: (patients, 2), time and what ended it.
    """

    followed: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 2), np.float32))
    intervals: int = 1

    @cached_property
    def digest(self) -> bytes:
        """Return the SHA-256 of the rows, their targets, their patients and the outcomes."""
        return sha256(self.x.tobytes() + self.y.tobytes() + self.starts.tobytes() + self.followed.tobytes()).digest()

    @property
    def outcomes(self) -> NDArray[np.float32]:
        """Return one outcome a patient."""
        return self.followed

    @property
    def owners(self) -> Numbers:
        """Return the patients' numbers."""
        return np.arange(self.count)

    def averaged(self, rows: Numbers | None) -> int:
        """Return the number of patients that these rows are of."""
        return self.count if rows is None else max(1, len(np.unique(self.patients[rows])))

    @property
    def features(self) -> TablePatients:
        """Return one row a patient: the features' inputs, and the outcome as it was encoded."""
        x = self.x[self.starts[:-1], : -self.intervals]
        return TablePatients(x, self.followed, self.owners, np.arange(self.count + 1), self.clipped)

    def judged(self) -> Iterator[NDArray[np.float32]]:
        """Yield every interval of every patient, patient by patient: (patients * intervals, inputs + intervals)."""
        features, most = self.features.x, max(1, _AT_ONCE // self.intervals)
        for start in range(0, max(1, self.count), most):
            some = features[start : start + most]
            patients, interval = np.divmod(np.arange(len(some) * self.intervals), self.intervals)
            yield _rows(some, patients, interval, self.intervals)

    def subset(self, chosen: Numbers) -> "PersonPeriods":
        """Return the same for some patients, renumbered from 0 in the order given."""
        return replace(cast(PersonPeriods, super().subset(chosen)), followed=self.followed[chosen])

    @classmethod
    def joined(cls, parts: Sequence["PersonPeriods"]) -> "PersonPeriods":  # type: ignore[override]
        """Return several hospitals' patients as one, numbered in the order of the parts."""
        followed = np.concatenate([part.followed for part in parts])
        joined = cast(PersonPeriods, super().joined(parts))
        return replace(joined, followed=followed, intervals=parts[0].intervals)


@runtime_checkable
class HasPeriods(Protocol):
    """An objective that says of each interval what happened in it."""

    def periods(self, y: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return (patients, intervals) what happened, -1 where a patient was not at risk; y: as it is encoded."""


def person_periods(people: TablePatients, outcome: HasPeriods) -> PersonPeriods:
    """Return rows of intervals of patients with one row each, of which y is the encoded outcome."""
    labels = outcome.periods(people.y)
    intervals, has_row = labels.shape[1], labels >= 0
    has_row[:, 0] |= ~has_row.any(axis=1)
    patients, interval = np.nonzero(has_row)
    x = _rows(people.x, patients, interval, intervals)
    starts = np.concatenate([[0], np.cumsum(has_row.sum(axis=1))]).astype(np.int64)
    y = labels[patients, interval].astype(np.float32)
    return PersonPeriods(x, y, patients, starts, people.clipped, people.y, intervals)


def _rows(features: NDArray[np.float32], patients: Numbers, interval: Numbers, intervals: int) -> NDArray[np.float32]:
    """Return rows of these patients, each with 1 at the input of its interval."""
    width = features.shape[1]
    x = np.zeros((len(patients), width + intervals), np.float32)
    x[:, :width] = features[patients]
    x[np.arange(len(patients)), width + interval] = 1.0
    return x


def one_row_each(people: TablePatients) -> TablePatients:
    """Return of each patient the row with the longest follow-up; of equal ones the first with an event, or the first.

    Args:
        people: with rows in an order that their contents decide; y: (rows, 2), time and what ended it.
    """
    if people.one_row_each:
        return people
    time, end = people.y.T
    order = np.lexsort((end == 0, -time, people.patients))
    rows = order[people.starts[:-1]]  # sorted by patient, so that each one's best row is the first
    return replace(
        people, x=people.x[rows], y=people.y[rows], patients=np.arange(people.count), starts=np.arange(people.count + 1)
    )


class _PersonPeriods(DataKind):
    name = "person_periods"

    def read(self, table: Table, study: Study) -> tuple[PersonPeriods, Numbers]:
        """Return all patients' rows; see `DataKind`."""
        outcome = objective_of(study)
        people, order = TABLE.read(table, study)
        return person_periods(one_row_each(people), _timed(outcome)), order

    def scaled(self, patients: PersonPeriods, train: Numbers, study: Study) -> PersonPeriods:
        """Return the features standardised where the study asks for `scaling: site`, each patient counting once."""
        if study.scaling != "site":
            return patients
        return person_periods(standardise(patients.features, train), _timed(objective_of(study)))

    def nobody(self, study: Study) -> PersonPeriods:
        """Return no rows, as wide as the study's inputs and its intervals."""
        return person_periods(TABLE.nobody(study), _timed(objective_of(study)))


def _timed(outcome: Objective) -> HasPeriods:
    assert hasattr(outcome, "periods"), f"task type {outcome.name} cannot be read as person-periods"
    return cast(HasPeriods, outcome)


PERSON_PERIODS = _PersonPeriods()
