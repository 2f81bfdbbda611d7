"""The connectors, by the name that a file's `connector` uses.

>>> CONNECTORS.names
('csv', 'sql')
"""

from collections.abc import Collection, Mapping

from client.connectors.base import Connector
from client.connectors.columns import Column
from client.connectors.csv_file import probe_csv, read_csv
from client.connectors.notes import Notes
from client.findings import DATABASE
from configs.kinds import Registry
from configs.schema import CsvFile, SqlQuery
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


class Sql(Connector):
    """A PostgreSQL. Its driver is imported here, so that only hospitals with a data base load it."""

    name, section = "sql", SqlQuery
    keeper = f"{DATABASE}, or whoever wrote site.yaml"
    remedy = "see the text; or tell the consortium"

    def columns(
        self, source: SqlQuery, wanted: Mapping[str, str], optional: Collection[str], notes: Notes
    ) -> Mapping[str, Column]:
        """Return the wanted columns of the query's rows."""
        from client.connectors.postgresql import read_sql

        return read_sql(source, wanted, optional, notes)

    def probe(self, source: SqlQuery, wanted: Mapping[str, str]) -> None:
        """Let the data base plan the query and name its columns; it is not run."""
        from client.connectors.postgresql import probe_sql

        probe_sql(source, wanted)

    def attempt(self, source: SqlQuery) -> None:
        """Open a session and let the data base plan the query; no row is read."""
        from client.connectors.postgresql import try_sql

        try_sql(source)


CONNECTORS: Registry[Connector] = Registry(
    "connector", ("section", "columns", "probe", "attempt", "keeper", "remedy"), [Csv(), Sql()]
)


def register(connector: Connector) -> None:
    """Add a connector, so that files may name it.

    Raises:
        KindError: another one has its name, or it lacks a part.
    """
    CONNECTORS.register(connector)
    SOURCES.register(connector)
