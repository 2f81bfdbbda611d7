"""A hospital's patients: read, encoded and split into training and test.

Commands that only look at data load no PyTorch for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.connectors import read_table
from client.connectors.notes import Notes
from configs.schema import DataSource, Study
from strategies.data.registry import data_of
from strategies.data.source import Table
from strategies.data.split import in_test


@dataclass(frozen=True)
class Split:
    """One hospital's patients, of the study's kind of data, on the two sides of the split.

    `oddities` are for people in the hospital, and for a simulation's screen (client/connectors/notes.py).
    """

    train: Any
    test: Any
    clipped: Mapping[str, int]
    oddities: tuple[str, ...] = ()


def load_patients(source: DataSource, study: Study, site: str, notes: Notes | None = None) -> Split:
    """Read, encode and split a hospital's data; `notes` collects oddities. The data may have no patient.

    Raises:
        SourceError: they cannot be read. DataError: the header does not have the study's columns.
    """
    notes = Notes() if notes is None else notes
    table = read_table(source, study, notes)
    aside = _aside(table, study, site)
    train, test, clipped = data_of(study).sides(table, study, ~aside, aside)
    return Split(train, test, clipped, tuple(notes.oddities()))


def load_validation(source: DataSource, study: Study, site: str, *, share: float, seed: int) -> Split:
    """Read a hospital's training patients in two parts, the second for validation; test patients are in neither.

    Args:
        share: of the training patients, for validation. seed: of the keyed hash that chooses them, patient by patient.

    Raises:
        SourceError: they cannot be read. DataError: the header does not have the study's columns.
    """
    table = read_table(source, study, Notes())
    train = ~_aside(table, study, site)
    judges = in_test(table.keys, site=f"{site}/validation", seed=seed, fraction=share)
    return Split(*data_of(study).sides(table, study, train & ~judges, train & judges))


def _aside(table: Table, study: Study, site: str) -> NDArray[np.bool_]:
    """Return which of a table's patients are kept aside for the test."""
    if not study.trains_at(site):
        return np.ones(len(table.keys), bool)
    if not data_of(study).keeps_aside:
        return np.zeros(len(table.keys), bool)
    if table.in_test is not None:
        return table.in_test
    return in_test(table.keys, site=site, seed=study.seed, fraction=study.evaluation.test_fraction)


def nobody(study: Study) -> Split:
    """Return no patient at all, in the shapes of the study: what a release of noise alone is made of."""
    none = data_of(study).nobody(study)
    return Split(none, none, {})
