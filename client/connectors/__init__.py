"""Connectors: each reads one kind of source at the hospital and returns a checked `Table`.

This is the only folder that touches patients' data. One that reads a data base connects to an address of site.yaml's
`worker_network`; client/forwarder.py says how.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from client.connectors.checks import columns_of, table_of
from client.connectors.columns import Column
from client.connectors.files import below
from client.connectors.mapping import as_the_study_writes, check_mapping, local_columns, local_names
from client.connectors.notes import Notes
from client.connectors.recorded import require_records, with_records
from client.connectors.registry import CONNECTORS
from configs.schema import DataSource, Feature, Study
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
        SourceError: it does not open. DataError: a column of the study is not there, or the source's mapping does not
            fit the study.
    """
    check_mapping(source, study)
    require_records(source, study)
    CONNECTORS[source.connector].probe(source, local_columns(source, columns_of(study)))


def stamp_of(source: DataSource) -> tuple[int, int, int] | None:
    """Return what changes when a file is written, moved, or replaced; None where only reading can tell, or it is gone.

    A link is followed: what counts is the file that would be read. Of a folder of parts, all its files count.
    """
    if source.path is None:
        return None
    try:
        parts = source.path.iterdir() if source.in_parts and source.path.is_dir() else ()
        states = [path.stat() for path in (source.path, *parts)]
    except OSError:
        return None
    return (sum(s.st_mtime_ns for s in states), sum(s.st_size for s in states), sum(s.st_ino for s in states))


def read_table(source: DataSource, study: Study, notes: Notes | None = None) -> Table:
    """Return the rows of one data source, records among them as paths; `notes` collects counts of their oddities.

    Raises:
        SourceError: the data cannot be read.
        DataError: the header does not have the study's columns, or the source's mapping does not fit the study.
    """
    notes = Notes() if notes is None else notes
    require_records(source, study)
    table = table_of(read_columns(source, study, columns_of(study), notes), study, notes)
    return with_files(table, source, study.records, notes)


def with_files(table: Table, source: DataSource, records: Sequence[Feature], notes: Notes) -> Table:
    """Return a table whose records are found below the source's folder; see client/connectors/recorded.py."""
    return with_records(replace(table, files=below(str(source.root))), records, notes) if records else table


def read_columns(
    source: DataSource, study: Study, wanted: Mapping[str, str], notes: Notes, optional: Collection[str] = ()
) -> Mapping[str, Column]:
    """Return wanted columns of every row of one data source as the study writes them, and the optional ones it has.

    Args:
        wanted: columns of the study, and what each is read as (see `Connector.columns`).

    Raises:
        SourceError, DataError: as `read_table`.
    """
    check_mapping(source, study)
    notes.rows_are_patients = study.patient_id not in wanted
    local = local_columns(source, wanted)
    columns = CONNECTORS[source.connector].columns(source, local, local_names(source, optional), notes)
    return as_the_study_writes(columns, source, study, [*wanted, *optional], notes)
