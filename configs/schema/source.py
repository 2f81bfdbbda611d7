"""The source of rows in `site.yaml` and in `simulation`: a connector and its keys.

A data base's address holds a password. So a file names the environment variable that holds it, and an address that
stands in a file all the same is refused without being shown.

>>> from configs.sections import Section
>>> entry = Section({"connector": "sql", "url_env": "postgresql://me:secret@db/eds", "path": "a.csv"}, "", [])
>>> _ = SOURCE.read_mapping(entry, {"folder": Path(".")})
>>> print("\\n".join(entry.problems))
path: expected nothing with connector: sql, found a value; remove it, or write connector: csv
url_env: expected the NAME of an environment variable, found something else (not shown: it may hold a password); \
set that variable where the node starts, and write its name here
query: expected one SELECT statement, found nothing; add it
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from configs.keys.declare import key
from configs.keys.one_of import HasSection, Kind, OneOf, Sections
from configs.keys.values import Integer, Place, Text, Truth, Value
from configs.schema.dialect import Dialect, DialectKey
from configs.schema.mapping import SiteMapping

RECORDS_TIMEOUT_S = 4 * 3600
QUERY_TIMEOUT_S, MAX_QUERY_TIMEOUT_S = 300, 86_400
MAX_QUERY_CHARACTERS = 20_000
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


class FilePath(Text):
    """A file's path, relative to the folder of the file that names it."""

    def __init__(self) -> None:
        super().__init__("a file's path", shown=False)  # the one text of a file that is this machine's own

    def read(self, at: Place) -> Any:
        """Return the path; an address is refused unseen."""
        path = super().read(at)
        if "://" in path:
            advice = "give a path, or connector: sql with the address in the variable that url_env names"
            at.note(f"expected a file's path, found an address (not shown: it may hold a password); {advice}")
        return at.around["folder"] / path if path else Path()

    def write(self, value: Any) -> str:
        """Return the path as text."""
        return str(value)


class VariableName(Value):
    """The name of an environment variable, never what it holds."""

    expected = "the NAME of an environment variable"

    def read(self, at: Place) -> str:
        """Return the name; what is none is not shown."""
        if isinstance(at.found, str) and _VARIABLE.fullmatch(at.found):
            return at.found
        shown = "nothing" if at.found is None else "something else (not shown: it may hold a password)"
        advice = "set that variable where the node starts, and write its name here"
        at.note(f"expected {self.expected}, found {shown}; {advice}")
        return ""

    @property
    def schema(self) -> dict[str, Any]:
        """Return a string of letters, digits and underlines."""
        return {"type": "string", "pattern": f"^(?:{_VARIABLE.pattern})$"}


class Query(Value):
    """One SELECT statement."""

    expected = "one SELECT statement"

    def read(self, at: Place) -> str:
        """Return the statement without white space around it."""
        if isinstance(at.found, str) and 0 < len(at.found.strip()) <= MAX_QUERY_CHARACTERS and "\0" not in at.found:
            return at.found.strip()
        shown = "nothing" if at.found is None else "something else"
        too_long = isinstance(at.found, str) and at.found.strip()
        limit = f" of at most {MAX_QUERY_CHARACTERS} characters" if too_long else ""
        at.note(f"expected {self.expected}{limit}, found {shown}; {'correct' if at.found else 'add'} it")
        return ""

    @property
    def schema(self) -> dict[str, Any]:
        """Return a string that is not too long."""
        return {"type": "string", "minLength": 1, "maxLength": MAX_QUERY_CHARACTERS}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource(SiteMapping):
    """The place where a connector finds one site's rows. A connector's own source is a frozen dataclass with its keys.

    Every source has the keys of `SiteMapping` beside its own: how this hospital writes what a study names.
    `store` is the kind of thing that it reads, in a word or two; `networked` whether it is reached over a network, so
    that only the worker may ask it; `unread` says what is never read of it.
    """

    connector: ClassVar[str]
    store: ClassVar[str] = "file"
    networked: ClassVar[bool] = False
    unread: ClassVar[str] = "any other column of the file"
    in_parts: ClassVar[bool] = False  # whether its path may be a folder of several files
    root: Path | None = key(
        FilePath(),
        "the folder of images and series: the paths in the rows begin there, and none leaves it",
        default=None,
        written=lambda source: source.root is not None,
    )

    @property
    def path(self) -> Path | None:
        """Return the file that is read, absolute; None where it is another kind of store."""
        return None

    @property
    def query(self) -> str:
        """Return what a data base is asked; nothing where none is."""
        return ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return the names of the environment variables that say where the store is, and hold a password."""
        return ()

    @property
    def form(self) -> str:
        """Return how the file is written, in words; nothing where that is as usual."""
        return ""

    @property
    def located(self) -> bool:
        """Return whether a file or a variable is named; where not, that is a mistake of its own."""
        return self.path != Path()

    @property
    def reading_time_s(self) -> int:
        """Return how long reading may take, records left aside."""
        return QUERY_TIMEOUT_S

    @property
    def records_time_s(self) -> int:
        """Return how long looking into all images or series may take beside that."""
        return 0 if self.root is None else RECORDS_TIMEOUT_S

    def shares_store(self, other: "DataSource") -> bool:
        """Return whether both read one file, by whatever name, or one data base."""
        if self.path is None or other.path is None:
            same = self.secrets == other.secrets if self.secrets else self == other
            return self.path is other.path and same
        return os.path.realpath(self.path) == os.path.realpath(other.path)

    def shares_rows(self, other: "DataSource") -> bool:
        """Return whether both read the same rows of one store."""
        return self.shares_store(other)

    def to_dict(self) -> dict[str, Any]:
        """Return the source as YAML has it; it holds no secret.

        >>> SqlQuery("EDS_URL", "select 1").to_dict()
        {'connector': 'sql', 'url_env': 'EDS_URL', 'query': 'select 1', 'query_timeout_s': 300}
        """
        return SOURCE.write(self)

    def __str__(self) -> str:
        return f"{self.connector} {self.path}"


@dataclass(frozen=True, slots=True)
class CsvFile(DataSource):
    """A CSV file. With `multiline`, whatever stands between two quotation marks is one cell."""

    connector = "csv"
    path: Path = key(FilePath(), "the file, relative to the folder of the one that names it")
    multiline: bool = key(
        Truth("true where quoted text has lines that look like rows, else false"),
        "whether all that stands between two quotation marks is one cell, of however many lines",
        default=False,
        written=lambda source: source.multiline,
    )
    dialect: Dialect = key(
        DialectKey(),
        "how the file is written, where it is no comma-separated UTF-8 with one header line",
        default=Dialect(),
        unsaid="standard",
        written=lambda source: source.dialect != Dialect(),
    )

    @property
    def form(self) -> str:
        """Return how the file is written, in words; nothing where that is as usual."""
        return str(self.dialect)

    @property
    def decimal_sign(self) -> str:
        """Return the sign before decimals: what is said of it, or the dialect's."""
        return self.decimal or self.dialect.decimal

    @property
    def thousands_sign(self) -> str:
        """Return the sign between thousands, empty where there is none."""
        return self.dialect.thousands if self.thousands is None else self.thousands


@dataclass(frozen=True, slots=True)
class ParquetFiles(DataSource):
    """A Parquet file, or a folder of parts with one schema: its files whose names end with .parquet."""

    connector = "parquet"
    in_parts = True
    path: Path = key(FilePath(), "the file, or the folder of parts, relative to the folder of the one that names it")


class AskedSource(DataSource):
    """A data base that is asked one query. A class of this kind has the keys `url_env` and `query_timeout_s`."""

    __slots__ = ()
    store = "data base"
    networked = True
    url_env: str
    query_timeout_s: int

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return the variable's name."""
        return (self.url_env,) if self.url_env else ()

    @property
    def located(self) -> bool:
        """Return whether a variable is named."""
        return bool(self.url_env)

    @property
    def reading_time_s(self) -> int:
        """Return how long the query may take."""
        return self.query_timeout_s

    def shares_rows(self, other: DataSource) -> bool:
        """Return whether both ask one data base the same."""
        return type(other) is type(self) and self.shares_store(other) and self.query == other.query

    def __str__(self) -> str:
        return f"{self.connector}, the data base whose address the variable {self.url_env} holds: {self.query}"


@dataclass(frozen=True, slots=True)
class SqlQuery(AskedSource):
    """One query, and the NAME of a variable that holds the data base's address."""

    connector = "sql"
    unread = "any other column: one that the query gives is dropped as it arrives"
    url_env: str = key(VariableName(), "the NAME of an environment variable that holds the data base's address")
    query: str = key(Query(), "one SELECT, its columns by the study's names")
    query_timeout_s: int = key(Integer(1, MAX_QUERY_TIMEOUT_S), "how long the query may take", default=QUERY_TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class SqlServerQuery(SqlQuery):
    """One query of a SQL Server."""

    connector = "sql_server"


@dataclass(frozen=True, slots=True)
class OracleQuery(SqlQuery):
    """One query of an Oracle."""

    connector = "oracle"


_SECTIONS: tuple[type[DataSource], ...] = (CsvFile, SqlQuery, ParquetFiles, SqlServerQuery, OracleQuery)
SOURCES: Sections[HasSection] = Sections("connector", [Kind(section.connector, section) for section in _SECTIONS])
SOURCE = OneOf(SOURCES, "connector", "a mapping with connector and path", strays=True)
