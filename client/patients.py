"""A hospital's patients: read, encoded and split. Whoever only looks at data loads no PyTorch for it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from client.connectors import read_table
from client.connectors.notes import Notes
from configs.schema import DataSource, Study
from strategies.releases.statistics import places
from strategies.tasks.registry import objective_of
from strategies.tasks.split import in_test
from strategies.tasks.table import Encoded, encode, in_order, standardise


@dataclass(frozen=True)
class Patients:
    """One hospital's patients, encoded, on the two sides of the split. Those of the test never train.

    `oddities` are for people in the hospital, and for a simulation's screen (client/connectors/notes.py).
    """

    train: Encoded
    test: Encoded
    clipped: Mapping[str, int]
    oddities: tuple[str, ...] = ()


def load_patients(source: DataSource, study: Study, site: str, notes: Notes | None = None) -> Patients:
    """Read, encode and split a hospital's data; `notes` gets what was come upon. There may be nobody.

    Raises:
        SourceError: they cannot be read. DataError: the header does not have the study's columns.
    """
    notes = Notes() if notes is None else notes
    table = read_table(source, study, notes)
    oddities = tuple(notes.oddities())
    if not study.trains:
        everybody, _ = in_order(places(table, study), table.keys)
        return Patients(everybody, everybody.subset(np.empty(0, np.int64)), {}, oddities)
    aside = table.in_test
    if aside is None:
        aside = in_test(table.keys, site=site, seed=study.seed, fraction=study.evaluation.test_fraction)
    everybody, order = in_order(encode(table, study.features, objective_of(study)), table.keys)
    train, test = np.flatnonzero(~aside[order]), np.flatnonzero(aside[order])
    if study.scaling == "site":
        everybody = standardise(everybody, train)
    return Patients(everybody.subset(train), everybody.subset(test), everybody.clipped, oddities)


def nobody(study: Study) -> Patients:
    """Return no patient at all, in the shapes of the study: what a release of noise alone is made of."""
    columns = len(study.inputs) if study.trains else len(study.counted)
    empty = np.empty(0, np.float32)
    none = Encoded(empty.reshape(0, columns), empty, np.empty(0, np.int64), np.zeros(1, np.int64))
    return Patients(none, none, {})
