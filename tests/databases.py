"""SQL Server and Oracle as their drivers show them, without a server: what their connections and cursors do.

Values come as the real drivers give them (Decimal, datetime, bytes, bool, a `real` widened to a float), errors are the
real drivers' own classes, with values in their text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import mssql_python
import oracledb
from mssql_python.connection_string_parser import _ConnectionStringParser

from client.connectors import oracle, sql_server


@dataclass
class Base:
    """One data base: what it answers to the query, and what was asked of it."""

    columns: Sequence[tuple[str, Any]] = ()
    rows: Sequence[Sequence[Any]] = ()
    first_refusal: Exception | None = None
    refusal: Exception | None = None
    late_refusal: Exception | None = None
    may_write: int = 0
    asked: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)

    def connect(self, text: str = "", **options: Any) -> "Connection":
        """What the drivers' `connect` does; SQL Server's text is read by the real driver's parser."""
        if text:
            self.settings |= _ConnectionStringParser(validate_keywords=True)._parse(text)
        self.settings |= options
        return Connection(self)

    def pieces(self, rows: Sequence[Any], count: int) -> Iterator[list[Any]]:
        """Rows in pieces, and an error where the rest should be."""
        for start in range(0, len(rows), count):
            yield list(rows[start : start + count])
        if self.late_refusal:
            raise self.late_refusal
        yield []


class Connection:
    """A connection of either driver; a setting is any attribute."""

    base: Base

    def __init__(self, base: Base) -> None:
        object.__setattr__(self, "base", base)

    def __setattr__(self, name: str, value: Any) -> None:
        self.base.settings[name] = value

    def cursor(self) -> "Cursor":
        return Cursor(self.base)

    def rollback(self) -> None:
        self.base.ended.append("rollback")

    def commit(self) -> None:
        self.base.ended.append("commit")

    def close(self) -> None:
        self.base.ended.append("close")


class Cursor:
    """A cursor of either driver."""

    arraysize = 100

    def __init__(self, base: Base) -> None:
        self.base = base
        self.description: Any = None
        self._rows: list[Any] = []
        self._left: Iterator[list[Any]] = iter(())

    def __enter__(self) -> "Cursor":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, statement: str, *parameters: Any, **options: Any) -> "Cursor":
        self.base.asked.append(statement)
        self.description = [(name, kind, None, None, None, None, True) for name, kind in self.base.columns]
        if self.base.first_refusal:
            raise self.base.first_refusal
        if statement == sql_server.RIGHTS:
            self._rows = [(self.base.may_write,)]
        elif statement == sql_server.DESCRIBE:
            assert len(parameters) == 1
            self._refuse()
            described = enumerate(self.base.columns, 1)
            self._rows = [(False, number, name, True, 0, kind) for number, (name, kind) in described]
        elif not statement.startswith(("ALTER SESSION", "SET TRANSACTION")):
            self._refuse()
            handler = self.base.settings.get("outputtypehandler")
            kinds = [handler and handler(self, SimpleNamespace(type_code=kind)) for _, kind in self.base.columns]
            self._rows = [
                tuple(
                    cell if kind is None or cell is None else kind(cell) for kind, cell in zip(kinds, row, strict=True)
                )
                for row in self.base.rows
            ]
        self._left = iter(())
        return self

    def parse(self, statement: str) -> None:
        self.base.asked.append(f"parse {statement}")
        self._refuse()
        self.description = [(name, kind, None, None, None, None, True) for name, kind in self.base.columns]

    def var(self, kind: Any, arraysize: int) -> Any:
        assert arraysize
        return kind

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def fetchmany(self, count: int) -> list[Any]:
        if self._rows:
            self._left, self._rows = self.base.pieces(self._rows, count), []
        return next(self._left, [])

    def _refuse(self) -> None:
        if self.base.refusal:
            raise self.base.refusal


def of_sql_server(kind: type[Exception], meaning: str, text: str) -> Exception:
    """An error as mssql-python raises it: its own words for the SQLSTATE, and the data base's text."""
    return kind(meaning, f"[Microsoft][SQL Server]{text}")


def of_oracle(code: str, text: str) -> Exception:
    """An error as oracledb raises it."""
    detail = SimpleNamespace(full_code=code, code=int(code[4:]), message=f"{code}: {text}", offset=0)
    return oracledb.DatabaseError(detail)


ORACLE = {
    "int": oracledb.DB_TYPE_NUMBER,
    "real": oracledb.DB_TYPE_BINARY_FLOAT,
    "float": oracledb.DB_TYPE_BINARY_DOUBLE,
    "decimal(7,2)": oracledb.DB_TYPE_NUMBER,
    "bit": oracledb.DB_TYPE_BOOLEAN,
    "nvarchar(20)": oracledb.DB_TYPE_NVARCHAR,
    "varbinary(8)": oracledb.DB_TYPE_RAW,
    "datetime2(3)": oracledb.DB_TYPE_TIMESTAMP,
    "date": oracledb.DB_TYPE_DATE,
    "char(9)": oracledb.DB_TYPE_CHAR,
}
DRIVERS = {"sql_server": (sql_server, mssql_python), "oracle": (oracle, oracledb)}
