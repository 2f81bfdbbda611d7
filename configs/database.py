"""SQLite files of which a plain copy of the one file is whole.

SQLite's write-ahead log keeps the newest transactions in a second file (`-wal`) until a checkpoint, so a copy of the
obvious file alone holds less than was committed. Two ways around it: `connect` uses the rollback journal, which is
empty between two transactions; `checkpoint` moves what lies in the log into the file, for a file with many readers that
keeps its log.
"""

import sqlite3
import time
from pathlib import Path

PATIENCE_S = 30.0  # how long to wait for another process that writes


def connect(path: Path, *, durable: bool = True) -> sqlite3.Connection:
    """Open or create a file whose committed transactions are all in the one file, whatever happens to this process.

    Args:
        durable: a committed transaction survives a power cut too.

    Raises:
        sqlite3.Error: it cannot be opened, or a process of an earlier release has it open.
    """
    connection = sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False)
    try:
        _leave_wal(connection)
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
    except BaseException:
        connection.close()
        raise
    return connection


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
