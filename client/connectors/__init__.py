"""Connectors: each reads one kind of source at the hospital and returns a checked `Table`.

This is the only folder that touches patients' data. One that reads a data base connects to an address of site.yaml's
`worker_network`; client/forwarder.py says how.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from client.connectors.checks import columns_of, table_of
from client.connectors.columns import Column
from client.connectors.files import Below
from client.connectors.notes import Notes
from client.connectors.registry import CONNECTORS
from configs.schema import DataSource, Study
from strategies.data.source import Table


def try_source(source: DataSource) -> None:
    """See whether a source could be read; no patient's row is.

    Raises:
        DataError: it could not.
    """
    CONNECTORS[source.connector].attempt(source)


def probe(source: DataSource, study: Study) -> None:
    """See whether a source opens and has the study's columns, by its header alone; no patient's row is read.

    Raises:
        SourceError: it does not open. DataError: a column of the study is not there.
    """
    CONNECTORS[source.connector].probe(source, columns_of(study))


def stamp_of(source: DataSource) -> tuple[int, int, int] | None:
    """Return what changes when a file is written, moved, or replaced; None where only reading can tell, or it is gone.

    A link is followed: what counts is the file that would be read.
    """
    try:
        status = source.path.stat() if source.path else None
    except OSError:
        return None
    return None if status is None else (status.st_mtime_ns, status.st_size, status.st_ino)


def read_table(source: DataSource, study: Study, notes: Notes | None = None) -> Table:
    """Return the rows of one data source, records among them as paths; `notes` collects counts of their oddities.

    Raises:
        SourceError: the data cannot be read.
        DataError: the header does not have the study's columns.
    """
    notes = Notes() if notes is None else notes
    columns = read_columns(source, columns_of(study), notes, has_ids=study.patient_id is not None)
    table = table_of(columns, study, notes)
    return replace(table, files=Below(str(source.root))) if source.root else table


def read_columns(
    source: DataSource, wanted: Mapping[str, str], notes: Notes, optional: Collection[str] = (), *, has_ids: bool
) -> Mapping[str, Column]:
    """Return the wanted columns of every row of one data source, and those optional ones that it has.

    Args:
        wanted: the columns, and what each is read as (see `Connector.columns`).
        has_ids: whether a column says whose a row is; else one row counts as one patient.

    Raises:
        SourceError, DataError: as `read_table`.
    """
    notes.rows_are_patients = not has_ids
    return CONNECTORS[source.connector].columns(source, wanted, optional, notes)
