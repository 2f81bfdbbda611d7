"""The connector of PostgreSQL: the rows of one query -> a checked `Table`.

It sends one statement, in a transaction that can only read. The address, with its password, is in the environment
variable that the source names: read here, shown nowhere. Cells come as the text that PostgreSQL itself writes, so that
the checks are those of a CSV file: NULL is an empty cell, a numeric has no closing zeros, a boolean is true or false as
the study writes them, and 1 or 0 where it lists neither; a number that the study lists is written as it stands there.

What the data base or its driver says may hold a value or the address: errors are sentences of our own
(client/connectors/sql_errors.py).

>>> address_of("EDS_URL", {"EDS_URL": "postgresql://reader:secret@db.example.org/eds?sslmode=verify-full"})["host"]
'db.example.org'
>>> address_of("EDS_URL", {"EDS_URL": "mysql://reader:secret@db.example.org/eds"})
Traceback (most recent call last):
    ...
configs.errors.SourceError: EDS_URL: expected an address as postgresql://USER:PASSWORD@HOST:PORT/DATABASE, found \
something else (not shown: it may hold a password); correct the variable, and write %40 for @, %2F for / in a password
"""

import contextlib
import ipaddress
import logging
import os
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import ExecStatus
from psycopg.types.string import TextLoader

from client.connectors.checks import Misfits
from client.connectors.columns import Cells, Coded, Column
from client.connectors.ids import looks_like_ids
from client.connectors.notes import Notes
from client.connectors.sql_errors import why_not_connected, why_refused
from client.forwarder import CONNECT_TIMEOUT_S, reach
from configs.errors import SourceError
from configs.schema import SqlQuery

ANY_TYPE, BOOLEAN, NUMERIC = 0, 16, 1700  # object identifiers in pg_type
CHUNK_ROWS = 1000
GRACE_S = 30  # after its own time-out a data base that is still silent is not there any more
LOGIN_TIMEOUT_S = int(CONNECT_TIMEOUT_S) + 5  # the forwarder gives up first
EXPLAIN = "EXPLAIN (COSTS OFF) "  # plans a statement and runs none of it
Result = TypeVar("Result")
Rows = Iterator[Sequence[str | None]]
_driver_log = logging.getLogger("psycopg")  # what it would say, with values, is said here without
_driver_log.addHandler(logging.NullHandler())
_driver_log.propagate = False


def read_sql(source: SqlQuery, wanted: Collection[str], optional: Collection[str], notes: Notes) -> dict[str, Column]:
    """Return the wanted columns of one query's rows, in the order of the query, and those optional ones it gives once.

    Raises:
        SourceError: no address, no session, or the data base refuses the query.
        DataError: the query's result does not have the wanted columns.
    """
    notes.unit = "row"
    return _ask(source, source.query, lambda rows, header: _columns(rows, header, wanted, optional, source, notes))


def probe_sql(source: SqlQuery, wanted: Collection[str]) -> None:
    """Let the data base plan the query, which checks permissions, and name its columns; it is not run.

    Raises:
        SourceError, DataError: as `read_sql`.
    """
    try_sql(source)
    _check_names(source, _names(source), wanted)


def try_sql(source: SqlQuery) -> None:
    """Open a session and let the data base plan the query, which checks its names and permissions; reads no row.

    Raises:
        SourceError: as `read_sql`.
    """
    _ask(source, f"{EXPLAIN}{source.query}", lambda rows, _header: sum(1 for _ in rows))


# Rows


def _columns(
    rows: Rows,
    header: Callable[[], Sequence[psycopg.Column]],
    wanted: Collection[str],
    optional: Collection[str],
    source: SqlQuery,
    notes: Notes,
) -> dict[str, Column]:
    """Return the wanted columns; others are dropped as they arrive."""
    first = next(rows, None)
    if first is None:
        _check_names(source, _names(source), wanted)  # a result without rows comes without names
        return {name: Cells([]) for name in wanted}
    described = header()
    names = [column.name for column in described]
    _check_names(source, names, wanted)
    every = [*wanted, *(name for name in optional if names.count(name) == 1)]
    readers = [(names.index(name), _writer(described[names.index(name)].type_code), list[str]()) for name in every]
    like_ids = [(names.index(name), notes.like(name)) for name in looks_like_ids(names) if notes.rows_are_patients]
    for number, row in enumerate(chain([first], rows), 1):
        if not any(cell and not cell.isspace() for cell in row):
            notes.empty += 1
            continue
        notes.numbers.append(number)
        for position, write, cells in readers:
            cell = row[position]
            cells.append("" if cell is None else write(cell))
        for position, different in like_ids:
            different.add(row[position] or "")
    return {
        name: _truth(cells) if described[position].type_code == BOOLEAN else Cells(cells)
        for name, (position, _, cells) in zip(every, readers, strict=True)
    }


def _truth(cells: Sequence[str]) -> Coded:
    words = {"": 0, "f": 1, "t": 2}
    return Coded(np.fromiter(map(words.__getitem__, cells), np.int8, len(cells)), ["", "0", "1"], is_truth=True)


def _check_names(source: SqlQuery, names: Sequence[str], wanted: Collection[str]) -> None:
    misfits = Misfits(source.url_env)
    add = 'add them to the query; a name with capitals needs double quotes: AS "NAME"'
    misfits.check_header(names, wanted, "the query's result", "name one of them otherwise", add)
    misfits.raise_if_any()


def _writer(type_code: int) -> Callable[[str], str]:
    """Return how a cell of this type is written in a file."""
    return _short if type_code == NUMERIC else str.strip


def _short(cell: str) -> str:
    """Return a numeric without closing zeros, every digit kept.

    >>> _short("120.50"), _short("100"), _short("3.00"), _short("12345678901234567890.10")
    ('120.5', '100', '3', '12345678901234567890.1')
    """
    return cell.rstrip("0").rstrip(".") if "." in cell else cell


# The session


def _ask(
    source: SqlQuery, statement: str, take: Callable[[Rows, Callable[[], Sequence[psycopg.Column]]], Result]
) -> Result:
    """Return what `take` makes of a statement's rows, which arrive in pieces.

    The extended protocol takes one statement alone.

    Raises:
        SourceError: as `_in_session`.
    """

    def use(connection: psycopg.Connection[Any]) -> Result:
        cursor = connection.cursor()
        return take(cursor.stream(statement, size=CHUNK_ROWS), lambda: cursor.description or ())

    return _in_session(source, use, len(EXPLAIN) if statement.startswith(EXPLAIN) else 0)


def _names(source: SqlQuery) -> list[str]:
    """Return the names of the columns that the query would give; it is prepared and not run.

    Raises:
        SourceError: as `_in_session`.
    """

    def use(connection: psycopg.Connection[Any]) -> list[str]:
        session = connection.pgconn
        for step in ("prepare", "describe"):
            query = source.query.encode()
            result = session.prepare(b"", query) if step == "prepare" else session.describe_prepared(b"")
            if result.status == ExecStatus.FATAL_ERROR:
                raise psycopg.errors.error_from_result(result)
        if not result.nfields:
            raise psycopg.ProgrammingError  # it gives no rows
        return [(result.fname(i) or b"").decode() for i in range(result.nfields)]

    return _in_session(source, use)


def _in_session(source: SqlQuery, use: Callable[[psycopg.Connection[Any]], Result], before: int = 0) -> Result:
    """Return what `use` makes of a session that can only read; `before`: characters of its statement before the query.

    Raises:
        SourceError: in words of our own; the driver's error is not chained, as it may hold a value.
    """
    late = threading.Event()
    connection = _connect(source.url_env)
    try:
        with closing(connection), _cut_after(source.query_timeout_s + GRACE_S, connection, late):
            connection.read_only = True  # so begins the transaction
            connection.execute(
                f"SET LOCAL statement_timeout = {1000 * source.query_timeout_s}; SET LOCAL DateStyle = 'ISO, YMD'; "
                "SET LOCAL TimeZone = 'UTC'; SET LOCAL extra_float_digits = 3"
            )
            return use(connection)
    except psycopg.Error as error:
        silence_s = source.query_timeout_s + GRACE_S
        reason = (
            f"the data base said nothing for {silence_s} s; look whether it and the network are up"
            if late.is_set()
            else why_refused(error, source.query_timeout_s, before)
        )
    raise SourceError(f"{source.url_env}: {reason}")


def _connect(variable: str) -> psycopg.Connection[Any]:
    info = address_of(variable, os.environ)
    where = _listed(info, variable)
    as_text = AdaptersMap()
    as_text.register_loader(ANY_TYPE, TextLoader)
    try:
        return psycopg.connect(**info, context=as_text, prepare_threshold=None)
    except psycopg.Error as error:
        used_password = bool(error.pgconn and error.pgconn.used_password)
        reason = why_not_connected(str(error), used_password=used_password).format(where=where)
    raise SourceError(f"{variable}: {reason}")


def files_named(url: str) -> set[str]:
    """Return every path in a data base's address: of certificates, of passwords, of a Unix socket's folder.

    >>> sorted(files_named("postgresql://me@db/eds?sslrootcert=/etc/eds/ca.pem&passfile=/etc/eds/pass"))
    ['/etc/eds/ca.pem', '/etc/eds/pass']
    """
    return {part for value in _parts(url).values() for part in str(value).split(",") if part.startswith("/")}


def has_socket(url: str) -> bool:
    """Return whether a data base's address leads to a Unix socket.

    >>> has_socket("host=/run/postgresql dbname=eds"), has_socket("postgresql://me@db/eds")
    (True, False)
    """
    return str(_parts(url).get("host") or "").startswith("/")


def _parts(url: str) -> dict[str, Any]:
    try:
        return dict(conninfo_to_dict(url))
    except psycopg.Error:
        return {}


def address_of(variable: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the parts of the address in a variable, as libpq names them.

    Raises:
        SourceError: there is none, or it is not one; nothing of it is shown.
    """
    url = environment.get(variable, "").strip()
    if not url:
        raise SourceError(
            f"{variable}: expected a data base's address in this environment variable, found nothing; set it where "
            f"this command and the node start (systemd: EnvironmentFile), as postgresql://USER:PASSWORD@HOST/DATABASE"
        )
    try:
        info = conninfo_to_dict(url)
    except psycopg.Error:
        info = {}
    info["host"] = info.get("host") or info.get("hostaddr") or ""
    parts = (str(info["host"]), str(info.get("dbname") or ""))
    if not all(parts) or any("@" in part for part in parts):  # an @ or / of a password, which then ends elsewhere
        raise SourceError(
            f"{variable}: expected an address as postgresql://USER:PASSWORD@HOST:PORT/DATABASE, found something else "
            "(not shown: it may hold a password); correct the variable, and write %40 for @, %2F for / in a password"
        )
    return info


def _listed(info: dict[str, Any], variable: str) -> str:
    """Let the address lead through the worker's forwarder, and ask for TLS unless it says otherwise; the hosts.

    Raises:
        SourceError: a host is not in site.yaml's worker_network.
    """
    info["client_encoding"] = "UTF8"
    info.pop("hostaddr", None)  # where to connect is what reach returns
    info.setdefault("application_name", "archipel")
    info.setdefault("connect_timeout", LOGIN_TIMEOUT_S)
    hosts = str(info["host"]).split(",")
    ports = str(info.get("port") or 5432).split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    if len(ports) != len(hosts) or not all(port.isdigit() for port in ports):
        raise SourceError(
            f"{variable}: expected a port for each host, found other numbers of them; correct the variable"
        )
    if all(host.startswith("/") for host in hosts):  # a Unix socket's folder: no network
        return ", ".join(hosts)
    addresses = [
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in zip(hosts, ports, strict=True)
    ]
    ways = [reach(address) for address in addresses]
    info["port"] = ",".join(str(port) for _, port in ways)
    if all(_is_number(host) for host, _ in ways):  # libpq resolves names itself, but not where there is no network
        info["hostaddr"] = ",".join(host for host, _ in ways)
    if not info.get("sslmode") and "PGSSLMODE" not in os.environ and not all(map(_is_this_machine, hosts)):
        info["sslmode"] = "require"  # libpq's own default would go on without
    return ", ".join(addresses)


def _is_number(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return False


def _is_this_machine(host: str) -> bool:
    return host == "localhost" or (_is_number(host) and ipaddress.ip_address(host).is_loopback)


@contextlib.contextmanager
def _cut_after(seconds: float, connection: psycopg.Connection[Any], late: threading.Event) -> Iterator[None]:
    """End a connection that is still there: a server that vanished keeps no time-out."""

    def cut() -> None:
        late.set()
        with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
