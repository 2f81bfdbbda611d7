"""Connectors read a hospital's own store and hand over a checked `Table`. The only folder that touches patients' data.

One that reads a data base connects to an address of site.yaml's `worker_network`; client/forwarder.py says how.

>>> sorted(CONNECTORS)
['csv', 'sql']
"""

from collections.abc import Callable, Mapping

from client.connectors.csv_file import read_csv
from configs.schema import DataSource, Study
from strategies.tasks.table import Table


def _read_sql(source: DataSource, study: Study) -> Table:
    from client.connectors.postgresql import read_sql  # the driver is loaded by those who have a data base

    return read_sql(source, study)


CONNECTORS: Mapping[str, Callable[[DataSource, Study], Table]] = {"csv": read_csv, "sql": _read_sql}


def try_source(source: DataSource) -> None:
    """See whether a source could be read; no patient's row is.

    Raises:
        DataError: it could not.
    """
    if source.connector == "sql":
        from client.connectors.postgresql import try_sql

        try_sql(source)


def read_table(source: DataSource, study: Study) -> Table:
    """Rows of one data source, checked against the study.

    Raises:
        SourceError: the data cannot be read.
        DataError: they do not fit the study; the text names columns and rows, never values.
    """
    return CONNECTORS[source.connector](source, study)
