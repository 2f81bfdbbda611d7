"""The connectors, by the name that a file's `connector` uses.

>>> CONNECTORS.names
('csv', 'sql')
"""

from collections.abc import Collection, Mapping

from client.connectors.base import Connector
from client.connectors.columns import Column
from client.connectors.csv_file import probe_csv, read_csv
from client.connectors.notes import Notes
from client.connectors.sql import SqlConnector
from configs.kinds import Registry
from configs.schema import CsvFile
from configs.schema.source import SOURCES


class Csv(Connector):
    """A CSV file."""

    name, section = "csv", CsvFile

    def columns(
        self, source: CsvFile, wanted: Mapping[str, str], optional: Collection[str], notes: Notes
    ) -> Mapping[str, Column]:
        """Return the wanted columns of the file."""
        return read_csv(source, wanted, optional, notes)

    def probe(self, source: CsvFile, wanted: Mapping[str, str]) -> None:
        """See whether the file opens and its header has the wanted columns."""
        probe_csv(source, wanted)


class Sql(SqlConnector):
    """A PostgreSQL."""

    name, dialect = "sql", "client.connectors.postgresql"


CONNECTORS: Registry[Connector] = Registry(
    "connector", ("section", "columns", "probe", "attempt", "files", "has_socket", "keeper", "remedy"), [Csv(), Sql()]
)


def register(connector: Connector) -> None:
    """Add a connector, so that files may name it.

    Raises:
        KindError: another one has its name, or it lacks a part.
    """
    CONNECTORS.register(connector)
    SOURCES.register(connector)
