"""The connectors, by the name that a file's `connector` uses.

>>> CONNECTORS.names
('csv', 'sql', 'parquet', 'sql_server', 'oracle', 'omop')
"""

from collections.abc import Collection, Mapping
from importlib.util import find_spec

from client.connectors.base import Connector
from client.connectors.columns import Column
from client.connectors.csv_file import probe_csv, read_csv
from client.connectors.notes import Notes
from client.connectors.omop import Omop
from client.connectors.sql import SqlConnector
from configs.errors import SourceError
from configs.kinds import Registry
from configs.schema import CsvFile
from configs.schema.source import SOURCES, OracleQuery, ParquetFiles, SqlServerQuery


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


class Parquet(Connector):
    """A Parquet file, or a folder of parts. pyarrow is imported here, so that only hospitals with Parquet load it."""

    name, section = "parquet", ParquetFiles

    def columns(
        self, source: ParquetFiles, wanted: Mapping[str, str], optional: Collection[str], notes: Notes
    ) -> Mapping[str, Column]:
        """Return the wanted columns of the files."""
        self._require()
        from client.connectors.parquet import read_parquet

        return read_parquet(source.path, wanted, optional, notes)

    def probe(self, source: ParquetFiles, wanted: Mapping[str, str]) -> None:
        """See whether the files open and their footers have the wanted columns."""
        self._require()
        from client.connectors.parquet import probe_parquet

        probe_parquet(source.path, wanted)

    def _require(self) -> None:
        """Raise a SourceError where pyarrow is not installed."""
        if find_spec("pyarrow") is None:
            raise SourceError("expected pyarrow to read Parquet, found none here: pip install 'archipel[parquet]'")


class SqlServer(SqlConnector):
    """A SQL Server."""

    name, section, dialect, extra = "sql_server", SqlServerQuery, "client.connectors.sql_server", "mssql"
    binds_first = True


class Oracle(SqlConnector):
    """An Oracle."""

    name, section, dialect, extra = "oracle", OracleQuery, "client.connectors.oracle", "oracle"


_POSTGRESQL, _SQL_SERVER, _ORACLE = Sql(), SqlServer(), Oracle()
_OMOP = Omop({"postgresql": _POSTGRESQL, "sql_server": _SQL_SERVER, "oracle": _ORACLE})
CONNECTORS: Registry[Connector] = Registry(
    "connector",
    ("section", "columns", "probe", "attempt", "files", "has_socket", "binds", "keeper", "remedy"),
    [Csv(), _POSTGRESQL, Parquet(), _SQL_SERVER, _ORACLE, _OMOP],
)


def register(connector: Connector) -> None:
    """Add a connector, so that files may name it.

    Raises:
        KindError: another one has its name, or it lacks a part.
    """
    CONNECTORS.register(connector)
    SOURCES.register(connector)
