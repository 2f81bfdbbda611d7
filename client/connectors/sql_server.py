"""SQL Server: a session that keeps the promises of client/connectors/sql.py, through Microsoft's driver mssql-python.

SQL Server has no session that can only read: a login's rights decide. So the query is one SELECT without a word of
other statements, the login must have no right to change a table (it is asked, and refused otherwise), and whatever was
done is rolled back. The driver resolves names itself, so it connects to where the forwarder listens, and verifies the
certificate by the name that the address has.

TLS is on and the certificate is verified unless the address says otherwise: `?encrypt=strict` (TDS 8, SQL Server 2022),
`certificate=FILE` for the one certificate to take (with strict), `name=NAME` for a certificate of another name,
`trust=yes` to verify none, `encrypt=no` to send rows in the clear.
"""

import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mssql_python

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

FORM = Form("sqlserver", 1433, "DATABASE", ("encrypt", "trust", "name", "certificate"))
LOGIN_TIMEOUT_S = int(CONNECT_TIMEOUT_S) + 5  # the forwarder gives up first
CHUNK_ROWS = 1000
OTHERS = {  # words that T-SQL reserves for other statements: a column of such a name stands in brackets
    *("alter", "backup", "begin", "bulk", "checkpoint", "commit", "create", "dbcc", "deny", "declare", "delete"),
    *("drop", "dump", "exec", "execute", "goto", "grant", "insert", "into", "kill", "load", "merge", "print"),
    *("raiserror", "readtext", "reconfigure", "restore", "return", "revert", "revoke", "rollback", "save", "set"),
    *("shutdown", "throw", "truncate", "update", "updatetext", "use", "waitfor", "while", "writetext"),
}
DESCRIBE = "EXEC sys.sp_describe_first_result_set @tsql = ?"
RIGHTS = """
SELECT COALESCE(IS_SRVROLEMEMBER(N'sysadmin'), 0) + (
  SELECT COUNT(*) FROM sys.fn_my_permissions(NULL, N'DATABASE')
  WHERE permission_name IN (N'INSERT', N'UPDATE', N'DELETE', N'ALTER', N'CONTROL')
) + (
  SELECT COUNT(*) FROM sys.objects AS o
  CROSS APPLY (SELECT QUOTENAME(SCHEMA_NAME(o.schema_id)) + N'.' + QUOTENAME(o.name) AS name) AS q
  WHERE o.type IN ('U', 'V') AND 1 IN (
    HAS_PERMS_BY_NAME(q.name, N'OBJECT', N'INSERT'), HAS_PERMS_BY_NAME(q.name, N'OBJECT', N'UPDATE'),
    HAS_PERMS_BY_NAME(q.name, N'OBJECT', N'DELETE'), HAS_PERMS_BY_NAME(q.name, N'OBJECT', N'ALTER'))
)"""
_KINDS = {"bit": Kind.TRUTH} | dict.fromkeys(("decimal", "numeric", "money", "smallmoney"), Kind.DECIMAL)
_NOT_CONNECTED = (  # words of the driver's text -> what to say; the first that fits
    ("Failed to load the driver", "Microsoft's driver does not load; apt-get install libltdl7 libgssapi-krb5-2"),
    ("0x2749", "{where} refuses the connection; start the data base, correct the port, or let this machine connect"),
    ("0x2AF9", "the name in {where} is not known here; correct the variable or the name server"),
    ("subject name does not match", "the certificate of {where} is for other names; write name=NAME as it does"),
    (
        "certificate verify failed|certificate chain",
        "the certificate of {where} is not signed by an authority that is trusted here; add the authority's to the "
        "system's (update-ca-certificates), or name the one certificate: ?encrypt=strict&certificate=FILE",
    ),
    ("Invalid file path for server certificate", "the file that the address names (certificate) cannot be read"),
    ("Login failed", "the data base does not accept this user and password; correct the variable"),
    ("Cannot open database", "no data base of the name in the address that this user may open; correct the variable"),
    ("[Tt]ime-?out", "{where} does not answer; let this machine connect to it, or start the data base"),
    ("SSL Provider|TLS", "no TLS with {where}; look at encrypt, trust and the certificates of both sides"),
    (
        "TCP Provider|handshakes before login",
        "{where} cannot be reached: its name, a firewall, or the data base that is down; archipel-site check says",
    ),
)
_REFUSED = (  # words of what the data base said -> what to say; the first that fits
    ("permission was denied", "this user may not read a table or column of the query; grant it SELECT"),
    (
        "Invalid column name",
        "a column of the query is not in the data base; correct its name, or write AS for a new one",
    ),
    (
        "Invalid object name",
        "a table or view of the query is not in the data base; correct its name, or name its schema",
    ),
    (
        "Conversion failed|Error converting|[Oo]verflow|[Dd]ivide by zero|out-of-range",
        "a cast or a calculation of the query fails on a row (it is not shown); try it with sqlcmd",
    ),
    ("deadlock", "the data base ended the query, as others held its rows; try again later"),
    (
        "Communication link|TCP Provider|0x68",
        "the connection broke while the query ran; try again, then ask who runs it",
    ),
)


class SqlServer(Session):
    """A session whose transaction is rolled back, of a login that may only read."""

    errors = (mssql_python.Error,)

    def __init__(self, source: Asked) -> None:
        require_one_select(source, OTHERS)
        address = FORM.read(source.url_env, os.environ)
        self._way, self._seconds = address.way(), source.query_timeout_s
        self._connection = _connect(address, self._way)
        self._connection.timeout = self._seconds
        self._fields: list[Field] = []
        self._types: list[str] = []

    def describe(self, query: str) -> list[Field]:
        """Return the columns of the query's first result, as the data base plans it."""
        described = [row for row in self._connection.cursor().execute(DESCRIBE, query).fetchall() if not row[0]]
        self._types = [str(row[5] or "").partition("(")[0] for row in described]
        names = [row[2] or "" for row in described]
        return [Field(name, _KINDS.get(kind, Kind.TEXT)) for name, kind in zip(names, self._types, strict=True)]

    def plan(self, query: str) -> None:
        """Let the data base plan the query."""
        self.describe(query)

    def rows(self, query: str) -> Rows:
        """Yield the rows in pieces, each cell as text."""
        cursor = self._connection.cursor()
        cursor.execute(query)
        texts = [text_of_real if kind == "real" else text_of for kind in self._types]
        for row in in_time(in_pieces(cursor, CHUNK_ROWS), self._seconds):
            yield [text(cell) for text, cell in zip(texts, row, strict=True)]

    def why_refused(self, error: Any, timeout_s: int) -> str:
        """Return what an error means by the driver's own words for it, and words of the data base's."""
        if "imeout" in str(getattr(error, "driver_error", "")):
            return TOO_LONG.format(timeout=timeout_s)
        otherwise = "the data base does not take the query; try it with sqlcmd"
        return next((reason for words, reason in _REFUSED if re.search(words, str(error))), otherwise)

    def cut(self) -> None:
        """Shut the connection down."""
        cut_connections(self._way)

    def close(self) -> None:
        """Roll back, and close the connection."""
        try:
            self._connection.rollback()
        except mssql_python.Error:
            pass  # it is broken, and what it did is rolled back by the data base
        finally:
            self._connection.close()


def _connect(address: Address, way: tuple[str, int]) -> Any:
    """Return a connection of a login that may only read.

    Raises:
        SourceError: in words of our own.
    """
    mssql_python.pooling(enabled=False)  # a session kept would keep what an earlier one did
    late = threading.Event()
    try:
        with cut_after(LOGIN_TIMEOUT_S + 5, lambda: cut_connections(way), late):
            connection = mssql_python.connect(
                connection_string(address, way), autocommit=False, timeout=LOGIN_TIMEOUT_S
            )
            ((may_write,),) = connection.cursor().execute(RIGHTS).fetchall()
    except (mssql_python.Error, mssql_python.ConnectionStringParseError) as error:
        reasons = (reason for words, reason in _NOT_CONNECTED if re.search(words, str(error)))
        reason = next(reasons, "{where} opens no session; look at the data base's own log")
        raise SourceError(f"{address.variable}: {reason.format(where=address.where)}") from None
    if may_write:
        connection.close()
        raise SourceError(
            f"{address.variable}: this user may change data, and SQL Server has no session that can only read; give a "
            "user with the role db_datareader alone"
        )
    return connection


def connection_string(address: Address, way: tuple[str, int]) -> str:
    """Return what the driver connects with; every value stands in braces, which no value ends.

    Args:
        way: where this process connects to reach the address.

    Raises:
        SourceError: an option says something else than it may.
    """
    encrypt = address.choice("encrypt", ("yes", "strict", "no"), "no" if address.is_this_machine else "yes")
    name = address.options.get("name", address.host)
    keys = {
        "Server": f"tcp:{way[0]},{way[1]}",
        "Database": address.name,
        "UID": address.user,
        "PWD": address.password,
        "Encrypt": encrypt,
        "TrustServerCertificate": address.choice("trust", ("yes", "no"), "no"),
        "ApplicationIntent": "ReadOnly",
        "ConnectRetryCount": "0",
    }
    if name != way[0] and encrypt != "no":
        keys["HostnameInCertificate"] = name
    if certificate := address.options.get("certificate"):
        keys["ServerCertificate"] = certificate
    return "".join(f"{key}={{{value.replace('}', '}}')}}};" for key, value in keys.items())


class _Dialect(Dialect):
    def connect(self, source: Asked) -> Session:
        return SqlServer(source)

    def files(self, variable: str, environment: Mapping[str, str]) -> set[Path]:
        certificate = FORM.read(variable, environment).options.get("certificate")
        own = {Path(environment[name]) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if environment.get(name)}
        return own | ({Path(certificate)} if certificate else set())


DIALECT = _Dialect()
