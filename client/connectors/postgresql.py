"""PostgreSQL: a session that keeps the promises of client/connectors/sql.py by what PostgreSQL itself has.

It sends one statement, in a transaction that can only read, with a time-out of its own. Cells come as the text that
PostgreSQL writes. What an error means is in client/connectors/sql_errors.py.

>>> address_of("EDS_URL", {"EDS_URL": "postgresql://reader:secret@db.example.org/eds?sslmode=verify-full"})["host"]
'db.example.org'
>>> address_of("EDS_URL", {"EDS_URL": "mysql://reader:secret@db.example.org/eds"})
Traceback (most recent call last):
    ...
configs.errors.SourceError: EDS_URL: expected an address as postgresql://USER:PASSWORD@HOST:PORT/DATABASE, found \
something else (not shown: it may hold a password); correct the variable, and write %40 for @, %2F for / in a password
"""

import contextlib
import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import ExecStatus
from psycopg.types.numeric import FloatLoader
from psycopg.types.string import TextLoader

from client.connectors.sql import TYPED, Asked, Dialect, Field, Kind, Rows, Session
from client.connectors.sql_address import is_number, is_this_machine
from client.connectors.sql_errors import why_not_connected, why_refused
from client.forwarder import CONNECT_TIMEOUT_S, reach
from configs.errors import SourceError

ANY_TYPE = 0  # object identifiers in pg_type
SHORT_INTEGERS, OTHER_NUMBERS = {21, 23}, {20, 700, 701}  # smallint, integer; bigint, real, double precision
KINDS = {16: Kind.TRUTH, 1700: Kind.DECIMAL} | dict.fromkeys(SHORT_INTEGERS | OTHER_NUMBERS, Kind.NUMBER)
CHUNK_ROWS = 1000
LOGIN_TIMEOUT_S = int(CONNECT_TIMEOUT_S) + 5  # the forwarder gives up first
EXPLAIN = "EXPLAIN (COSTS OFF) "  # plans a statement and runs none of it
PG_FILES = ("PGPASSFILE", "PGSERVICEFILE", "PGSYSCONFDIR", "PGSSLCERT", "PGSSLKEY", "PGSSLROOTCERT", "KRB5_CONFIG")
_driver_log = logging.getLogger("psycopg")  # what it would say, with values, is said here without
_driver_log.addHandler(logging.NullHandler())
_driver_log.propagate = False


class PostgreSql(Session):
    """A session in one transaction that can only read; the extended protocol takes one statement alone."""

    errors = (psycopg.Error,)

    def __init__(self, source: Asked) -> None:
        self._types, self._floats = dict[str, int](), set[int]()
        self._before = 0  # characters of a statement that stand before the query
        self._connection = _connect(source.url_env)
        self._connection.read_only = True  # so begins the transaction
        self._settings = (
            f"SET LOCAL statement_timeout = {1000 * source.query_timeout_s}; SET LOCAL DateStyle = 'ISO, YMD'; "
            "SET LOCAL TimeZone = 'UTC'; SET LOCAL extra_float_digits = 3"
        )

    def describe(self, query: str) -> list[Field]:
        """Return the query's columns: it is prepared and not run."""
        self._set()
        session = self._connection.pgconn
        for step in ("prepare", "describe"):
            result = session.prepare(b"", query.encode()) if step == "prepare" else session.describe_prepared(b"")
            if result.status == ExecStatus.FATAL_ERROR:
                raise psycopg.errors.error_from_result(result)
        if not result.nfields:
            raise psycopg.ProgrammingError  # it gives no rows
        names = [(result.fname(i) or b"").decode() for i in range(result.nfields)]
        self._types = {name: result.ftype(i) for i, name in enumerate(names)}
        return [Field(name, KINDS.get(result.ftype(i), Kind.TEXT)) for i, name in enumerate(names)]

    def prefer_numbers(self, wanted: Mapping[str, str]) -> None:
        """Let the driver make floats of types that are read as numbers alone, or whose text a float has too."""
        numbers = {self._types[name] for name, read_as in wanted.items() if read_as == "number"}
        others = {self._types[name] for name, read_as in wanted.items() if read_as != "number"}
        self._floats = {each for each in numbers - (others - SHORT_INTEGERS) if KINDS.get(each) in TYPED}

    def plan(self, query: str) -> None:
        """Let EXPLAIN plan the query, which checks permissions too."""
        self._set()
        self._before = len(EXPLAIN)
        self._connection.execute(f"{EXPLAIN}{query}".encode())
        self._before = 0

    def rows(self, query: str) -> Rows:
        """Yield the rows in pieces."""
        self._set()
        cursor = self._connection.cursor()
        for each in self._floats:
            cursor.adapters.register_loader(each, FloatLoader)
        yield from cursor.stream(query.encode(), size=CHUNK_ROWS)

    def why_refused(self, error: psycopg.Error, timeout_s: int) -> str:
        """Return what an error's SQLSTATE means."""
        return why_refused(error, timeout_s, self._before)

    def cut(self) -> None:
        """Shut the socket down."""
        with (
            contextlib.suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(self._connection.fileno())) as end,
        ):
            end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection, which ends the transaction."""
        self._connection.close()

    def _set(self) -> None:
        """Set what holds in the transaction, once."""
        if self._settings:
            self._connection.execute(self._settings.encode())
            self._settings = ""


class _Dialect(Dialect):
    def connect(self, source: Asked) -> Session:
        return PostgreSql(source)

    def files(self, variable: str, environment: Mapping[str, str]) -> set[Path]:
        home = Path(environment.get("HOME") or "/nonexistent")
        own = {home / name for name in (".pgpass", ".postgresql", ".pg_service.conf")}
        own |= {Path(environment[name]) for name in PG_FILES if environment.get(name)}
        return own | set(map(Path, files_named(environment.get(variable, ""))))

    def has_socket(self, variable: str, environment: Mapping[str, str]) -> bool:
        return has_socket(environment.get(variable, ""))


DIALECT = _Dialect()


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
    if all(is_number(host) for host, _ in ways):  # libpq resolves names itself, but not where there is no network
        info["hostaddr"] = ",".join(host for host, _ in ways)
    if not info.get("sslmode") and "PGSSLMODE" not in os.environ and not all(map(is_this_machine, hosts)):
        info["sslmode"] = "require"  # libpq's own default would go on without
    return ", ".join(addresses)
