"""The ledger's file: its table, its chain of digests, and the formats of earlier releases.

One file, `ledger.sqlite`: a booking is in it when `commit` returns, and in no file beside it (SQLite's rollback journal
is empty between two bookings). A plain copy of the one file is never less than was booked before the copy began; a copy
that a booking tore is damaged, and said to be.

Each row's digest covers the row before it and every field of its own but `state`, which counts for nothing: a release
that was reserved has spent what a committed one has. Rows of version 2 have no release's name: their digests, which the
journal quotes, do not cover one and stay as they are.

>>> connection = sqlite3.connect(":memory:", isolation_level=None)
>>> prepare(connection)
>>> flaw_of(connection), head_of(connection) == (0, GENESIS)
('', True)
"""

import hashlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from client.reconcile import Release
from configs import database
from configs.errors import RunError
from configs.schema import canonical_json

Kind = tuple[Any, ...]  # kind, noise multiplier, sampling rate, as a row holds them
GENESIS = "0" * 64
VERSION = 3
FIELDS = (  # of a row, in the order in which the digest covers them
    "id",
    "time",
    "dataset",
    "study",
    "round",
    "attempt",
    "kind",
    "noise_multiplier",
    "sampling_rate",
    "steps",
    "plan_steps",
    "plan_evaluation",
    "seeded",
    "name",
    "release",
)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS releases (
    id INTEGER PRIMARY KEY,
    time TEXT NOT NULL,
    dataset TEXT NOT NULL,
    study TEXT NOT NULL,
    round INTEGER NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    kind TEXT NOT NULL DEFAULT 'sampled gaussian',
    noise_multiplier REAL NOT NULL,
    sampling_rate REAL NOT NULL,
    steps INTEGER NOT NULL,
    plan_steps INTEGER,
    plan_evaluation REAL,
    seeded INTEGER NOT NULL,
    name TEXT,
    state TEXT NOT NULL CHECK (state IN ('reserved', 'committed')),
    digest TEXT NOT NULL,
    release TEXT,
    UNIQUE (dataset, study, name, attempt)
)
"""
# Ledgers of earlier releases lack these; what they booked were steps of training, of plans that they did not keep.
_MISSING = {
    "attempt": "0",
    "kind": "'sampled gaussian'",
    "plan_steps": "NULL",
    "plan_evaluation": "NULL",
    "release": "NULL",
}
# Up to version 2 a row had a round's number alone; these stood in its place for what is asked for once.
_FORMER = {"score histogram": 0, "statistics": 1}
MODEL_UPDATE = "model update"
_COLUMNS = ", ".join(FIELDS)
_INSERT = f"INSERT INTO releases ({_COLUMNS}, state, digest) VALUES ({', '.join('?' * (len(FIELDS) + 2))})"  # noqa: S608
_NUMBERS: dict[str, Callable[[Any], object]] = dict.fromkeys(
    ("id", "round", "attempt", "steps", "plan_steps", "seeded"), int
) | dict.fromkeys(("noise_multiplier", "sampling_rate", "plan_evaluation"), float)
_TYPES = [_NUMBERS.get(column) for column in FIELDS]


def prepare(connection: sqlite3.Connection) -> None:
    """Make the table, or bring an earlier release's to this one. One transaction: whole or not at all.

    The earlier release's file is kept beside it first, as `ledger.sqlite.version-2`, or of its own version.

    Raises:
        RunError: a newer release wrote it. sqlite3.Error: it cannot be written.
    """
    if database.version_of(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = database.version_of(connection)
        if version > VERSION:
            raise RunError("the privacy ledger was written by a newer version, which may count more; install that one")
        present = {row[1] for row in connection.execute("PRAGMA table_info(releases)")}
        if version < VERSION and present:
            _keep_former(connection, version)
            if version == 2:  # its chain stays as it is
                connection.execute("ALTER TABLE releases ADD COLUMN release TEXT")
            else:
                _upgrade(connection, present)
        elif version < VERSION:
            connection.execute(_SCHEMA)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def insert(connection: sqlite3.Connection, values: Sequence[object], state: str = "reserved") -> int:
    """Add one row to the chain, within the caller's transaction; its id.

    Args:
        values: the row's FIELDS from `dataset` on.

    Raises:
        sqlite3.Error: it cannot be written.
    """
    last, previous = head_of(connection)
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    row = _typed((last + 1, now, *values))
    _insert(connection, row, state, digest_of(previous, row))
    return last + 1


class Counts:
    """Steps that are booked of each kind, data set and study. Rows are only ever added: each is read once.

    All are read again where another connection has written, which may have done more than add.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._version, self._last = -1, 0
        self._counts: dict[tuple[str, str], dict[Kind, tuple[int, int]]] = {}

    def of(self, dataset: str, study: str) -> list[tuple[Kind, int, int]]:
        """Return each kind of event with the sum of its rows' steps and the least of them. Within a transaction.

        Raises:
            sqlite3.Error: it cannot be read.
        """
        if (version := version_of(self._connection)) != self._version:
            self._version, self._last, self._counts = version, 0, {}
        rows = self._connection.execute(
            "SELECT id, dataset, study, kind, noise_multiplier, sampling_rate, steps FROM releases WHERE id > ?"
            " ORDER BY id",
            (self._last,),
        )
        for last, about, by, *kind, steps in rows.fetchall():
            counts = self._counts.setdefault((about, by), {})
            total, least = counts.get(event := tuple(kind), (0, steps))
            counts[event] = total + steps, min(least, steps)
            self._last = last
        return [(kind, *count) for kind, count in self._counts.get((dataset, study), {}).items()]


def version_of(connection: sqlite3.Connection) -> int:
    """Return a number that changes when another connection writes."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def digest_of(previous: str, row: Sequence[object]) -> str:
    """Return the digest of a row, given that of the row before it. `row` holds FIELDS in their order."""
    named = row if row[-1] is not None else row[:-1]
    exact = [value.hex() if isinstance(value, float) else value for value in named]
    return hashlib.sha256(canonical_json([previous, *exact]).encode("ascii")).hexdigest()


def head_of(connection: sqlite3.Connection) -> tuple[int, str]:
    """Return the id and the digest of the last row."""
    row = connection.execute("SELECT id, digest FROM releases ORDER BY id DESC LIMIT 1").fetchone()
    return (int(row[0]), str(row[1])) if row else (0, GENESIS)


def flaw_of(connection: sqlite3.Connection) -> str:
    """Say what is wrong with the file: damaged, or a row that its digest does not cover; empty if nothing is.

    Raises:
        sqlite3.Error: it cannot be read at all.
    """
    flaw = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if flaw != "ok":
        return "the file is damaged (SQLite's integrity check)"
    previous, expected = GENESIS, 1
    for *row, digest in connection.execute(f"SELECT {_COLUMNS}, digest FROM releases ORDER BY id"):  # noqa: S608
        if row[0] != expected:
            return f"row {expected} is missing"
        if digest != digest_of(previous, row):
            return f"row {expected} is not as it was written: its digest does not fit"
        previous, expected = digest, expected + 1
    return ""


def releases(connection: sqlite3.Connection, after: int = 0) -> list[Release]:
    """Return what was booked after a row, in the order of booking."""
    rows = connection.execute(
        "SELECT dataset, study, round, attempt, kind, noise_multiplier, sampling_rate, steps, plan_steps,"
        " plan_evaluation, release FROM releases WHERE id > ? ORDER BY id",
        (after,),
    )
    return rows.fetchall()


def place(release: str | None, round_number: int) -> tuple[str, int]:
    """Return what the bookings of one release of a study share, under whichever version they were made.

    Of a row without a name the number alone says which release it is: no study has both a round 1 and statistics.

    >>> place("statistics", 0) == place(None, 1), place("model update", 3) == place(None, 3), place("survival", 0)
    (True, True, ('survival', 0))
    """
    if release is None or release == MODEL_UPDATE:
        return "", round_number
    return ("", _FORMER[release]) if release in _FORMER else (release, round_number)


def digest_at(connection: sqlite3.Connection, row: int) -> str:
    """Return the digest of a row by its number, empty where there is none; that before the first is GENESIS."""
    digest = connection.execute("SELECT digest FROM releases WHERE id = ?", (row,)).fetchone() if row else (GENESIS,)
    return str(digest[0]) if digest else ""


def rechain(connection: sqlite3.Connection) -> None:
    """Write the rows anew, numbered from 1 and with new digests, within the caller's transaction."""
    columns = f"{_COLUMNS}, state"
    rows = list(connection.execute(f"SELECT {columns} FROM releases ORDER BY id"))  # noqa: S608 - our own names
    connection.execute("DELETE FROM releases")
    _write(connection, rows)


def _typed(row: Sequence[object]) -> tuple[object, ...]:
    """Give each number the type that the file returns it as: a digest must not depend on 8 or 8.0 or True."""
    return tuple(
        [value if value is None or number is None else number(value) for number, value in zip(_TYPES, row, strict=True)]
    )


def _upgrade(connection: sqlite3.Connection, present: set[str]) -> None:
    """Move the rows of an earlier release's table into this release's, and chain them."""
    columns = ", ".join(
        name if name in present else f"{_MISSING[name]} AS {name}" for name in FIELDS if name in present | set(_MISSING)
    )
    rows = list(connection.execute(f"SELECT {columns}, state FROM releases ORDER BY id"))  # noqa: S608 - our own names
    connection.execute("DROP TABLE releases")
    connection.execute(_SCHEMA)
    _write(connection, rows)


def _write(connection: sqlite3.Connection, rows: Sequence[Sequence[object]]) -> None:
    previous = GENESIS
    for number, (_, *values, state) in enumerate(rows, 1):
        row = _typed((number, *values))
        previous = digest_of(previous, row)
        _insert(connection, row, str(state), previous)


def _insert(connection: sqlite3.Connection, row: Sequence[object], state: str, digest: str) -> None:
    connection.execute(_INSERT, (*row, state, digest))


def _keep_former(connection: sqlite3.Connection, version: int) -> None:
    """Copy an earlier release's file beside it, once, whole or not at all."""
    name = connection.execute("PRAGMA database_list").fetchone()[2]
    if not name:
        return  # in memory
    path = Path(name)
    copy = path.with_name(f"{path.name}.version-{max(version, 1)}")
    if copy.exists():
        return
    part = copy.with_name(f"{copy.name}.part")
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    source, target = database.read_only(path), sqlite3.connect(part)
    try:
        source.backup(target)
    finally:
        source.close()
        target.close()
    part.replace(copy)
