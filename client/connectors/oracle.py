"""Oracle: a session that keeps the promises of client/connectors/sql.py, through Oracle's driver oracledb (thin mode).

Its transaction can only read, and the query begins as a SELECT does: Oracle would run CREATE or DROP even while it
parses. A number of Oracle's comes as a decimal, and a DATE at midnight as the day alone.

TLS is on and the certificate is verified by the address's host unless it says otherwise: `?ca=FILE` for an authority
that this machine does not trust, `dn=DN` for a certificate of
another subject, `tls=no` to send rows in the clear. The
thin mode knows no encryption of Oracle's own (SQLNET.ENCRYPTION).
"""

import os
import re
import ssl
import threading
from collections.abc import Mapping
from datetime import datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import oracledb

from client.connectors.sql import (
    TOO_LONG,
    Asked,
    Dialect,
    Field,
    Kind,
    Rows,
    Session,
    cut_after,
    in_pieces,
    in_time,
    require_one_select,
    text_of,
    text_of_real,
)
from client.connectors.sql_address import Address, Form, cut_connections
from client.forwarder import CONNECT_TIMEOUT_S
from configs.errors import SourceError

FORM = Form("oracle", 1521, "SERVICE", ("tls", "ca", "dn"))
LOGIN_TIMEOUT_S = int(CONNECT_TIMEOUT_S) + 5  # the forwarder gives up first
CHUNK_ROWS = 1000
_NOT_CONNECTED = (  # words of the driver's text -> what to say; the first that fits
    ("ORA-01017|ORA-01005|ORA-1017", "the data base does not accept this user and password; correct the variable"),
    ("ORA-28000|ORA-28001", "the user is locked, or the password has run out; ask who runs the data base"),
    ("ORA-01045", "this user may not open a session; grant it CREATE SESSION"),
    ("ORA-12514|DPY-6001|ORA-12505|DPY-6003", "no service of the name in the address; correct the variable"),
    ("DPY-6000|ORA-12516|ORA-12519|ORA-12520", "no connection is free, or a listener lets none in; try again later"),
    ("DPY-3010|DPY-3001", "{where} is older than the driver's thin mode reads, or encrypts by SQLNET alone; use TLS"),
    ("name or service not known|resolution", "the name in {where} is not known here; correct the variable"),
    ("refused", "{where} refuses the connection; start the data base, correct the port, or let this machine connect"),
    (
        "DPY-6006|server certificate|DN match",
        "the certificate of {where} is for other names; write the host as it does, or dn=DN, its subject",
    ),
    (
        "certificate verify failed",
        "the certificate of {where} is not signed by an authority that is trusted here; name the authority's file in "
        "the address: ?ca=/etc/ssl/hospital.pem",
    ),
    ("ssl|tls", "no TLS with {where}; look at its port for TLS (often 2484), or accept readable rows by ?tls=no"),
    ("tim(ed|e) ?out", "{where} does not answer; let this machine connect to it, or start the data base"),
    ("DPY-|errno", "{where} cannot be reached: its name, a firewall, or the data base that is down"),
)
_REFUSED = {  # Oracle's own number -> what to say
    **dict.fromkeys(
        ("ORA-00942", "ORA-04043"), "a table or view of the query is not there, or this user may not read it"
    ),
    "ORA-00904": "a column of the query is not in the data base; correct its name, or write AS for a new one",
    **dict.fromkeys(("ORA-01031", "ORA-41900"), "this user may not read a table of the query; grant it SELECT"),
    **dict.fromkeys(("ORA-01456", "ORA-14552"), "the query would change data, and it may only read; write one SELECT"),
    **dict.fromkeys(
        ("ORA-01722", "ORA-01476", "ORA-01426", "ORA-01830", "ORA-01843", "ORA-01861", "ORA-06502"),
        "a cast or a calculation of the query fails on a row (it is not shown); try it with sqlplus",
    ),
    **dict.fromkeys(("DPY-4024", "ORA-01013", "ORA-00040"), TOO_LONG),
    "ORA-01555": "others changed the rows for too long while they were read; make the query quicker, or try at night",
    **dict.fromkeys(
        ("DPY-4011", "ORA-03113", "ORA-03114", "DPY-1001", "ORA-00028"),
        "the connection broke while the query ran; try again, then ask who runs the data base",
    ),
}
_KINDS = {oracledb.DB_TYPE_NUMBER: Kind.DECIMAL, oracledb.DB_TYPE_BOOLEAN: Kind.TRUTH}


class Oracle(Session):
    """A session in one transaction that can only read."""

    errors = (oracledb.Error, OSError)

    def __init__(self, source: Asked) -> None:
        require_one_select(source)
        address = FORM.read(source.url_env, os.environ)
        self._way, self._seconds = address.way(), source.query_timeout_s
        self._connection = _connect(address, self._way)
        self._connection.call_timeout = 1000 * self._seconds
        self._connection.outputtypehandler = _decimals

    def describe(self, query: str) -> list[Field]:
        """Return the query's columns: it is parsed and not run."""
        with self._connection.cursor() as cursor:
            cursor.parse(_plain(query))
            return [Field(column[0], _KINDS.get(column[1], Kind.TEXT)) for column in cursor.description or ()]

    def plan(self, query: str) -> None:
        """Let the data base parse the query, which checks its names and permissions."""
        self.describe(query)

    def rows(self, query: str) -> Rows:
        """Yield the rows in pieces, each cell as text."""
        with self._connection.cursor() as cursor:
            cursor.arraysize = CHUNK_ROWS
            cursor.execute(_plain(query), fetch_lobs=False)
            texts = [_TEXTS.get(column[1], text_of) for column in cursor.description or ()]
            for row in in_time(in_pieces(cursor, CHUNK_ROWS), self._seconds):
                yield [text(cell) for text, cell in zip(texts, row, strict=True)]

    def why_refused(self, error: Any, timeout_s: int) -> str:
        """Return what an error's number means."""
        code = getattr(error.args[0] if error.args else None, "full_code", "")
        reason = _REFUSED.get(code, "the data base does not take the query; try it with sqlplus")
        known = re.fullmatch(r"(ORA|DPY)-\d{4,5}", code)
        return reason.format(timeout=timeout_s) + (f" [{code}]" if known else "")

    def cut(self) -> None:
        """Shut the connection down."""
        cut_connections(self._way)

    def close(self) -> None:
        """Roll back, and close the connection."""
        try:
            self._connection.rollback()
            self._connection.close()
        except self.errors:
            pass  # it is broken, and so closed


def _connect(address: Address, way: tuple[str, int]) -> Any:
    """Return a connection in a transaction that can only read.

    Raises:
        SourceError: in words of our own.
    """
    keys, late = parameters(address), threading.Event()
    try:
        with cut_after(LOGIN_TIMEOUT_S, lambda: cut_connections(way), late):
            connection = oracledb.connect(**keys)
            with connection.cursor() as cursor:
                cursor.execute("ALTER SESSION SET TIME_ZONE = 'UTC'")
                cursor.execute("SET TRANSACTION READ ONLY")
            return connection
    except (oracledb.Error, OSError) as error:
        text = str(error)
        reasons = (reason for words, reason in _NOT_CONNECTED if re.search(words, text, re.IGNORECASE))
        reason = next(reasons, "{where} opens no session; look at the data base's own log")
    if late.is_set():
        reason = "{where} does not answer; let this machine connect to it, or start the data base"
    raise SourceError(f"{address.variable}: {reason.format(where=address.where)}")


def parameters(address: Address) -> dict[str, Any]:
    """Return what the driver connects with. It finds the way by Python's own resolver, which the forwarder changed.

    Raises:
        SourceError: an option says something else than it may, or the authority's file cannot be read.
    """
    keys: dict[str, Any] = {"user": address.user, "password": address.password, "host": address.host}
    keys |= {"port": address.port, "service_name": address.name, "tcp_connect_timeout": LOGIN_TIMEOUT_S}
    keys |= {"retry_count": 0, "protocol": "tcp"}
    if address.choice("tls", ("yes", "no"), "no" if address.is_this_machine else "yes") == "no":
        return keys
    try:
        context = ssl.create_default_context(cafile=address.options.get("ca"))
    except OSError:
        raise SourceError(f"{address.variable}: the file that the address names (ca) cannot be read") from None
    keys |= {"protocol": "tcps", "ssl_context": context, "ssl_server_dn_match": True}
    return keys | {"ssl_server_cert_dn": address.options.get("dn")}


def _decimals(cursor: Any, metadata: Any) -> Any:
    """Return how a column is fetched: a NUMBER with every digit."""
    if metadata.type_code is oracledb.DB_TYPE_NUMBER:
        return cursor.var(Decimal, arraysize=cursor.arraysize)
    return None


def _plain(query: str) -> str:
    """Return a statement as Oracle takes it: without a semicolon behind it."""
    return query.rstrip().rstrip(";").rstrip()


def _text_of_day(value: datetime | None) -> str | None:
    """Return a DATE, which in Oracle always has a time: at midnight the day alone.

    >>> _text_of_day(datetime(2024, 1, 31)), _text_of_day(datetime(2024, 1, 31, 8, 30))
    ('2024-01-31', '2024-01-31 08:30:00')
    """
    return text_of(value.date() if value is not None and value.time() == time() else value)


_TEXTS = {oracledb.DB_TYPE_DATE: _text_of_day, oracledb.DB_TYPE_BINARY_FLOAT: text_of_real}


class _Dialect(Dialect):
    def connect(self, source: Asked) -> Session:
        return Oracle(source)

    def files(self, variable: str, environment: Mapping[str, str]) -> set[Path]:
        authority = FORM.read(variable, environment).options.get("ca")
        own = {Path(environment[name]) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if environment.get(name)}
        return own | ({Path(authority)} if authority else set())


DIALECT = _Dialect()
