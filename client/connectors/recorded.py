"""Records of a table: counted for the hospital, made numbers by an encoder, left out where no mask can be read.

Nothing is refused because of a record. What is refused before any row is looked at: a study with records and no folder
`root` for them, a reader whose library is not installed, an encoder
that is not there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from client.connectors.notes import Notes
from configs.errors import DataError, SourceError
from configs.schema import DataSource, Feature, Record, Study
from configs.schema.records import READER_KEYS
from strategies.data.decode import Unread, decoded
from strategies.data.encoders.registry import ENCODERS
from strategies.data.readers.registry import READERS
from strategies.data.source import Files, Table, UnreadError


def require_records(source: DataSource, study: Study) -> None:
    """Check that a study's records could be read, whatever they hold: their folder is there, and so are the readers.

    Raises:
        SourceError: the folder is not there. DataError: none is named, or a library is not installed.
    """
    for column in cast("tuple[Record, ...]", study.records):
        if source.root is None:
            raise DataError(
                f"column {column.name!r}: expected the folder that its paths begin in, found none; "
                "write root: FOLDER beside connector"
            )
        READERS[column.reader].require()
        if column.encoder is not None and column.encoder not in ENCODERS:  # such a name is free for study kits
            known = ", ".join(ENCODERS.names)
            raise DataError(
                f"column {column.name!r}: expected an encoder that is here ({known}), found {column.encoder!r}; name "
                "another in the study"
            )
    if study.records and source.root is not None and not source.root.is_dir():
        raise SourceError(f"{source.root}: expected the folder of images or series, found none; check root")


def with_records(table: Table, columns: Iterable[Feature], notes: Notes) -> Table:
    """Return a table with the numbers that encoders make, and without rows whose mask cannot be read.

    Args:
        columns: those of the table's records.
        notes: gets the counts of records that cannot be read. Of records that a model reads itself only those are
            looked into that `notes.thorough` asks for; else it is seen whether they are there. So it is of masks that
            a kit reads: they are decoded in their patient's turn, zeros where they cannot be.
    """
    for column in cast("Iterable[Record]", columns):
        texts, unread = table.records[column.name], Unread()
        is_needed = column.labels and column.reader in READER_KEYS
        if column.encoder is not None:
            table = replace(table, numbers={**table.numbers, **_encoded(table.files, texts, column, unread)})
        elif is_needed or notes.thorough:
            is_read = np.array([decoded(table.files, text, column, unread) is not None for text in texts], bool)
            table = _chosen(table, is_read, notes) if is_needed and not is_read.all() else table
        else:
            _find_all(table.files, texts, unread)
        notes.column(column.name, "mask" if column.labels else "record").note_records(unread.words, unread.resized)
    return table


def _encoded(
    files: Files | None, texts: Sequence[str], column: Record, unread: Unread
) -> dict[str, NDArray[np.float64]]:
    """Return the columns of an encoder's numbers: (rows,) each, NaN for a record that cannot be read."""
    assert column.encoder is not None
    encoder, numbers = ENCODERS[column.encoder], np.full((len(texts), column.encoded), np.nan)
    for row, text in enumerate(texts):
        record = decoded(files, text, column, unread)
        if record is not None:
            numbers[row] = encoder.encode(record, column)
    return {feature.name: numbers[:, i] for i, feature in enumerate(column.predictors)}


def _find_all(files: Files | None, texts: Sequence[str], unread: Unread) -> None:
    """Count the records that are not there."""
    for text in texts:
        try:
            if files is not None:
                files.find(text)
        except UnreadError as error:
            unread.why[error.why] += 1


def _chosen(table: Table, rows: NDArray[np.bool_], notes: Notes) -> Table:
    """Return some rows of a table, and the patients that have one of them."""
    places = np.flatnonzero(rows)
    people, patients = np.unique(table.patients[places], return_inverse=True)
    notes.left_out += len(rows) - len(places)
    notes.counted, notes.patients = len(places), len(people)
    return Table(
        {name: values[places] for name, values in table.numbers.items()},
        {name: values[places] for name, values in table.categories.items()},
        {name: values[places] for name, values in table.targets.items()},
        patients.astype(np.int64),
        tuple(table.keys[person] for person in people.tolist()),
        None if table.in_test is None else table.in_test[people],
        {name: tuple(texts[place] for place in places.tolist()) for name, texts in table.records.items()},
        table.files,
    )
