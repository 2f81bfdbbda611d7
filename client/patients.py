"""A hospital's patients: read, encoded and split into training and test.

Commands that only look at data load no PyTorch for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from client.connectors import read_table
from client.connectors.notes import Notes
from configs.schema import DataSource, Study
from strategies.data.registry import data_of
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
    data, oddities, aside = data_of(study), tuple(notes.oddities()), table.in_test
    if not data.keeps_aside:
        aside = np.zeros(len(table.keys), bool)
    elif aside is None:
        aside = in_test(table.keys, site=site, seed=study.seed, fraction=study.evaluation.test_fraction)
    everybody, order = data.read(table, study)
    train, test = np.flatnonzero(~aside[order]), np.flatnonzero(aside[order])
    everybody = data.scaled(everybody, train, study)
    return Split(everybody.subset(train), everybody.subset(test), everybody.clipped, oddities)


def nobody(study: Study) -> Split:
    """Return no patient at all, in the shapes of the study: what a release of noise alone is made of."""
    none = data_of(study).nobody(study)
    return Split(none, none, {})
