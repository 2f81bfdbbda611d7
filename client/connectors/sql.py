"""What every connector of a data base promises, whatever its dialect.

- One SELECT is sent, in a session that can only read. Cells are text as PostgreSQL writes it, so that the same patients
  are the same bits from every store: NULL is an empty cell, a decimal has no closing zeros.
- Columns that the study does not name are dropped as they arrive. For `probe` the data base plans the query and names
  its columns; it is not run.
- A query ends at `query_timeout_s`; a data base that says nothing any more is left.
- The address, with its password, is in the environment variable that the source names: read here, shown nowhere. What
  a data base or its driver says may hold a value or the address: errors are sentences of our own.

A dialect is one file with a `DIALECT`: how a session opens, describes a query and gives its rows, and what errors mean.

>>> print(text_of(Decimal("120.50")), text_of(0.1), text_of(1e16), text_of(b"\\x01"), text_of(date(2024, 1, 31)))
120.50 0.1 1e+16 \\x01 2024-01-31
>>> print(text_of(datetime(2024, 1, 31, 8, 5, 0, 120000)), text_of(datetime(2024, 1, 31, tzinfo=UTC)), text_of(3.0))
2024-01-31 08:05:00.12 2024-01-31 00:00:00+00 3
"""

import contextlib
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from importlib import import_module
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from client.connectors.base import Connector
from client.connectors.checks import Misfits
from client.connectors.columns import Column
from client.connectors.gather import Gatherer, Given, Truths, gatherer, has_any, short
from client.connectors.ids import looks_like_ids
from client.connectors.notes import Notes
from client.findings import DATABASE
from configs.errors import DataError, SourceError
from configs.schema import SqlQuery

TOO_LONG = "the query takes longer than query_timeout_s ({timeout} s); make it quicker, or raise query_timeout_s"
PIECE_ROWS = 4096  # that are looked at together
GRACE_S = 30  # after its own time-out a data base that is still silent is not there any more
Result = TypeVar("Result")
Rows = Iterator[Given]


class Asked(Protocol):
    """A source that is one query of a data base."""

    @property
    def url_env(self) -> str:
        """Return the NAME of the variable that holds the address."""

    @property
    def query(self) -> str:
        """Return the query."""

    @property
    def query_timeout_s(self) -> int:
        """Return how long it may take."""


class Kind(Enum):
    """What the cells of a column are."""

    TEXT, NUMBER, DECIMAL, TRUTH = range(4)


TYPED = (Kind.NUMBER, Kind.DECIMAL)


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a query's result, as the data base describes it."""

    name: str
    kind: Kind = Kind.TEXT


class Session(ABC):
    """An open session that can only read. What the data base refuses is one of `errors`."""

    errors: ClassVar[tuple[type[Exception], ...]]

    @abstractmethod
    def describe(self, query: str) -> list[Field]:
        """Return the columns that a query would give; it is not run."""

    @abstractmethod
    def plan(self, query: str) -> None:
        """Let the data base look at the query's names and permissions; no row is read."""

    def prefer_numbers(self, wanted: Mapping[str, str]) -> None:
        """Let cells of typed numbers come as floats, where that is quicker and their text is the same.

        Args:
            wanted: columns of the query that was described last, and what each is read as.
        """
        del wanted

    @abstractmethod
    def rows(self, query: str) -> Rows:
        """Yield a query's rows as they arrive, each cell as text, None where it is NULL; a truth value is t or f."""

    @abstractmethod
    def why_refused(self, error: Any, timeout_s: int) -> str:
        """Return what an error means, in words of our own."""

    @abstractmethod
    def cut(self) -> None:
        """End the connection from another thread."""

    @abstractmethod
    def close(self) -> None:
        """Undo whatever was done, and end the session."""


class Dialect(ABC):
    """One kind of data base."""

    @abstractmethod
    def connect(self, source: Asked) -> Session:
        """Open a session that can only read, with the address in the source's variable.

        Raises:
            SourceError: no address, or no session.
        """

    def files(self, variable: str, environment: Mapping[str, str]) -> set[Path]:
        """Return the files that a session reads: of certificates, of passwords."""
        del variable, environment
        return set()

    def has_socket(self, variable: str, environment: Mapping[str, str]) -> bool:
        """Return whether the address leads to a Unix socket."""
        del variable, environment
        return False


class SqlConnector(Connector):
    """Reads one query of a data base. The dialect, with its driver, is loaded when a data base is asked.

    `dialect` is a module that has a `DIALECT`, `extra` the extra of this package that brings its driver, `binds_first`
    what `binds` returns.
    """

    section: ClassVar[type[SqlQuery]] = SqlQuery
    dialect: ClassVar[str]
    extra: ClassVar[str] = ""
    binds_first: ClassVar[bool] = False
    keeper = f"{DATABASE}, or whoever wrote site.yaml"
    remedy = "see the text; or tell the consortium"

    def columns(
        self, source: Asked, wanted: Mapping[str, str], optional: Collection[str], notes: Notes
    ) -> dict[str, Column]:
        """Return the wanted columns of one query's rows, in the order of the query."""
        notes.unit = "row"

        def use(session: Session) -> dict[str, Column]:
            fields = session.describe(source.query)
            try:
                _check_names(source, fields, wanted)
            except DataError:
                session.plan(source.query)  # what the data base itself has against the query comes first
                raise
            session.prefer_numbers(wanted)
            return _columns(session.rows(source.query), fields, wanted, optional, notes)

        return self._ask(source, use)

    def probe(self, source: Asked, wanted: Mapping[str, str]) -> None:
        """Let the data base plan the query, which checks permissions, and name its columns; it is not run."""

        def use(session: Session) -> None:
            session.plan(source.query)
            _check_names(source, session.describe(source.query), wanted)

        self._ask(source, use)

    def attempt(self, source: Asked) -> None:
        """Open a session and let the data base plan the query, which checks its names and permissions."""
        self._ask(source, lambda session: session.plan(source.query))

    def files(self, source: Asked, environment: Mapping[str, str]) -> set[Path]:
        """Return the files that the driver reads; none where it is not installed."""
        with contextlib.suppress(SourceError):
            return self._dialect().files(source.url_env, environment)
        return set()

    def has_socket(self, source: Asked, environment: Mapping[str, str]) -> bool:
        """Return whether the data base is reached through a Unix socket of this machine."""
        with contextlib.suppress(SourceError):
            return self._dialect().has_socket(source.url_env, environment)
        return False

    def binds(self, source: Asked) -> bool:
        """Return whether the driver binds its own end of a connection first."""
        del source
        return self.binds_first

    def _dialect(self) -> Dialect:
        try:
            dialect = import_module(self.dialect).DIALECT
        except ImportError:
            raise SourceError(
                f"connector: {self.name}: the driver is not installed here; pip install 'archipel[{self.extra}]'"
            ) from None
        assert isinstance(dialect, Dialect)
        return dialect

    def _ask(self, source: Asked, use: Callable[[Session], Result]) -> Result:
        """Return what `use` makes of a session.

        Raises:
            SourceError: in words of our own; the driver's error is not chained, as it may hold a value.
        """
        late, silence_s = threading.Event(), source.query_timeout_s + GRACE_S
        session = self._dialect().connect(source)
        try:
            with closing(session), cut_after(silence_s, session.cut, late):
                return use(session)
        except TimeoutError:
            reason = TOO_LONG.format(timeout=source.query_timeout_s)
        except session.errors as error:
            reason = session.why_refused(error, source.query_timeout_s)
        if late.is_set():
            reason = f"the data base said nothing for {silence_s} s; look whether it and the network are up"
        raise SourceError(f"{source.url_env}: {reason}")


@contextlib.contextmanager
def cut_after(seconds: float, cut: Callable[[], None], late: threading.Event) -> Iterator[None]:
    """Cut a connection that is still there, and say so in `late`: a server that vanished keeps no time-out."""

    def end() -> None:
        late.set()
        cut()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def in_pieces(cursor: Any, rows: int) -> Iterator[Any]:
    """Yield the rows of a driver's cursor, fetched so many at a time."""
    while piece := cursor.fetchmany(rows):
        yield from piece


def in_time(rows: Iterator[Result], seconds: float) -> Iterator[Result]:
    """Yield rows until a time is over; for drivers whose time-out is that of one step alone.

    Raises:
        TimeoutError: it is over.
    """
    end = monotonic() + seconds
    for row in rows:
        if monotonic() > end:
            raise TimeoutError
        yield row


def require_one_select(source: Asked, forbidden: Collection[str] = ()) -> None:
    """See that a query begins as one SELECT does, and neither ends earlier nor has a word of other statements.

    For data bases that would run more than one statement, or change data in a session that was to read. What stands
    between quotation marks and in comments is no word; where the data base reads those otherwise, more is refused here.

    Raises:
        SourceError: it does not.
    """
    words = [word.lower() for word in _TOKENS.findall(source.query) if word]
    while words and words[-1] == ";":
        words.pop()
    odd = next((word for word in words if word == ";" or word in forbidden), "")
    if not words or words[0] not in ("select", "with") or odd:
        shown = f" ({odd.upper()} is no part of one)" if odd and odd != ";" else ""
        raise SourceError(f"{source.url_env}: the query is not one SELECT statement{shown}, and it may only read")


_TOKENS = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\[(?:[^\]]|\]\])*\]|--[^\n]*|/\*.*?\*/|([^\W\d]\w*|;)|[\w@#$]+|.""", re.DOTALL
)


# Rows


def _columns(
    rows: Rows, fields: Sequence[Field], wanted: Mapping[str, str], optional: Collection[str], notes: Notes
) -> dict[str, Column]:
    """Return the wanted columns, and those optional ones that stand there once; others are dropped as they arrive."""
    names = [field.name for field in fields]
    every = dict(wanted) | {name: "text" for name in optional if names.count(name) == 1}
    gathered = {name: _gatherer(fields[names.index(name)].kind, read_as) for name, read_as in every.items()}
    like_ids = [(names.index(name), notes.like(name)) for name in looks_like_ids(names) if notes.rows_are_patients]
    first = 1
    while piece := list(islice(rows, PIECE_ROWS)):
        filled = [row for row in piece if has_any(row)]
        if len(filled) < len(piece):
            notes.empty += len(piece) - len(filled)
            notes.numbers.extend(number for number, row in enumerate(piece, first) if has_any(row))
        else:
            notes.numbers.extend(range(first, first + len(piece)))
        first += len(piece)
        columns = list(zip(*filled, strict=True)) or [()] * len(names)
        for name, column in gathered.items():
            column.add(columns[names.index(name)])
        for position, different in like_ids:
            different.update(map(str, columns[position]))
    return {name: column.column() for name, column in gathered.items()}


def _gatherer(kind: Kind, read_as: str) -> Gatherer:
    if kind is Kind.TRUTH:
        return Truths()
    return gatherer(read_as, short if kind is Kind.DECIMAL else str.strip, is_typed=kind in TYPED)


def _check_names(source: Asked, fields: Sequence[Field], wanted: Collection[str]) -> None:
    misfits, names = Misfits(source.url_env), [field.name for field in fields]
    add = 'add them to the query; a name with capitals needs double quotes: AS "NAME"'
    misfits.check_header(names, wanted, "the query's result", "name one of them otherwise", add)
    misfits.raise_if_any()


def text_of(value: Any) -> str | None:
    """Return the text of a driver's Python value as PostgreSQL writes it, in UTC where it has a time zone."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, bytes | bytearray | memoryview):
        return f"\\x{bytes(value).hex()}"
    if isinstance(value, datetime):
        return _moment(value)
    if isinstance(value, date):
        return value.isoformat()
    return _fraction(value.isoformat()) if isinstance(value, time) else str(value)


def text_of_real(value: Any) -> str | None:
    """Return a number of four bytes in the fewest digits that read back as the same four bytes.

    >>> text_of_real(0.10000000149011612)
    '0.1'
    """
    return None if value is None else str(np.float32(value)).removesuffix(".0")


def _moment(value: datetime) -> str:
    zone = "" if value.tzinfo is None else "+00"
    value = value if value.tzinfo is None else value.astimezone(UTC)
    return _fraction(value.replace(tzinfo=None).isoformat(" ")) + zone


def _fraction(written: str) -> str:
    return written.rstrip("0").rstrip(".") if "." in written else written
