"""SQLite files: how each is opened, its format, and when a plain copy is whole.

A copy is of the one file. SQLite's write-ahead log keeps the newest transactions in a second file (`-wal`) until a
checkpoint, so a copy of the obvious file alone holds less than was committed. Two ways around it: `connect` uses the
rollback journal, which is empty between two transactions; `checkpoint` moves what lies in the log into the file, for a
file with many readers that keeps its log.

>>> connection = sqlite3.connect(":memory:")
>>> prepare(connection, "CREATE TABLE IF NOT EXISTS sites (name TEXT)", version=2, what="the list of sites")
>>> version_of(connection)
2
>>> prepare(connection, "", version=1, what="the list of sites")
Traceback (most recent call last):
    ...
configs.errors.RunError: the list of sites was written by a newer release (form 2, this one knows 1); install that one
"""

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from configs.errors import RunError

PATIENCE_S = 30.0  # how long to wait for another process that writes


def connect(path: Path, *, durable: bool = True, keep_log: bool = False) -> sqlite3.Connection:
    """Open or create a database with all committed transactions in its one file, whatever happens to this process.

    Args:
        durable: a committed transaction survives a power cut too.
        keep_log: for many readers and writers at a time: the newest transactions lie in a log until a `checkpoint`.

    Raises:
        sqlite3.Error: it cannot be opened, or a process of an earlier release has it open.
    """
    connection = sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False)
    with closed_on_error(connection):
        if keep_log:
            connection.execute("PRAGMA journal_mode = WAL")
            return connection
        _leave_wal(connection)
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
    return connection


@contextlib.contextmanager
def closed_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    """Close a connection where the block ends with an error."""
    try:
        yield
    except BaseException:
        connection.close()
        raise


def read_only(path: Path) -> sqlite3.Connection:
    """Open an existing file, to read only.

    Raises:
        sqlite3.Error: there is none, or it is no database.
    """
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)


def version_of(connection: sqlite3.Connection) -> int:
    """Return the number of a file's form, 0 where it has none yet."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def prepare(
    connection: sqlite3.Connection,
    schema: str,
    *,
    version: int,
    what: str,
    added: Iterable[tuple[str, str, str]] = (),
) -> None:
    """Give a file the tables of this release.

    Args:
        schema: statements that make what is absent.
        version: the form's number.
        what: the file in words, for the error.
        added: tables, columns and their declarations that earlier releases did not have.

    Raises:
        RunError: a newer release has written it; nothing is changed.
    """
    if (present := version_of(connection)) > version:
        raise RunError(
            f"{what} was written by a newer release (form {present}, this one knows {version}); install that one"
        )
    connection.executescript(schema)
    for table, column, declaration in added:
        if column not in {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}:
            with contextlib.suppress(sqlite3.OperationalError):  # another process has added it meanwhile
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {declaration}")
    if present < version:
        with contextlib.suppress(sqlite3.OperationalError):  # this process may only read
            connection.execute(f"PRAGMA user_version = {version}")


def checkpoint(connection: sqlite3.Connection) -> None:
    """Move every committed transaction from the write-ahead log into the file; readers are waited for."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _leave_wal(connection: sqlite3.Connection) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:  # SQLite's own time-out does not wait for others who change the mode of the file too
        try:
            connection.execute("PRAGMA journal_mode = TRUNCATE")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
