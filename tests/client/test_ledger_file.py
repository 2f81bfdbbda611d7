"""The ledger's one file: chained rows, whole in a plain copy at any moment, and what the former release wrote."""

import contextlib
import dataclasses
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from client import ledger_file
from client.ledger import Ledger, Release
from client.ledger_file import FIELDS, flaw_of, head_of
from configs import database
from strategies.privacy.accounting import SampledGaussian
from strategies.privacy.plan import PrivacyPlan

DELTA = 1e-5
PLAN = PrivacyPlan(1.0, 8.0, 1.0, 1, 5_000, DELTA, 100.0)
SPARE = dataclasses.replace(PLAN, spare=1)
ROOT = Path(__file__).resolve().parents[2]
FORMER = """
CREATE TABLE releases (
    id INTEGER PRIMARY KEY,
    time TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    dataset TEXT NOT NULL,
    study TEXT NOT NULL,
    round INTEGER NOT NULL,
    noise_multiplier REAL NOT NULL,
    sampling_rate REAL NOT NULL,
    steps INTEGER NOT NULL,
    seeded INTEGER NOT NULL,
    name TEXT,
    state TEXT NOT NULL CHECK (state IN ('reserved', 'committed')),
    kind TEXT NOT NULL DEFAULT 'sampled gaussian',
    plan_steps INTEGER,
    plan_evaluation REAL,
    UNIQUE (dataset, study, name)
);
PRAGMA user_version = 1;
"""
FORMER_ROW = (
    "INSERT INTO releases (dataset, study, round, kind, noise_multiplier, sampling_rate, steps, plan_steps,"
    " plan_evaluation, seeded, name, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def release(number: int, *, attempt: int = 0, name: str | None = None, dataset: str = "heart") -> Release:
    return Release(dataset, "a", number, PLAN.round_event, name, attempt)


def book(ledger: Ledger, *releases: Release, plan: PrivacyPlan = PLAN) -> None:
    for one in releases:
        with ledger.reserve(one, plan):
            pass


def booked(path: Path, rounds: int = 5) -> None:
    ledger = Ledger.open(path)
    book(ledger, *(release(number) for number in range(1, rounds + 1)))
    ledger.close()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def flaw(path: Path) -> str:
    with opened(path) as connection:
        return flaw_of(connection)


# Attempts


def test_an_attempt_is_booked_beside_the_one_before_it(path: Path) -> None:
    ledger = Ledger.open(path)
    book(ledger, release(1))
    assert (ledger.booked("heart", "a", 1), ledger.booked("heart", "a", 1, 1)) == (True, False)
    book(ledger, release(1, attempt=1), plan=SPARE)
    assert ledger.booked("heart", "a", 1, 1)
    assert ledger.events("heart") == (SampledGaussian(8.0, 1.0, 2),)


def test_a_seeded_release_of_the_same_name_is_another_one_at_another_attempt() -> None:
    ledger = Ledger.in_memory()
    for attempt in (0, 1, 1, 0):
        book(ledger, release(1, attempt=attempt, name="the same bits"), plan=SPARE)
    assert ledger.events("heart") == (SampledGaussian(8.0, 1.0, 2),)


# The chain


def test_what_was_booked_is_a_chain_that_holds(path: Path) -> None:
    booked(path)
    assert flaw(path) == ""
    with opened(path) as connection:
        assert head_of(connection)[0] == 5


CHANGES = {
    "id": 99,
    "time": "'2020-01-01T00:00:00.000Z'",
    "dataset": "'lung'",
    "study": "'b'",
    "round": 7,
    "attempt": 3,
    "kind": "'laplace'",
    "noise_multiplier": 8000.0,
    "sampling_rate": 0.01,
    "steps": 0,
    "plan_steps": 1,
    "plan_evaluation": 4.0,
    "seeded": 1,
    "name": "'x'",
    "release": "NULL",
    "digest": f"'{'0' * 64}'",
}


@pytest.mark.parametrize("row", [1, 3, 5])
@pytest.mark.parametrize("column", CHANGES)
def test_a_field_that_was_changed_in_any_row_is_seen(path: Path, row: int, column: str) -> None:
    assert set(CHANGES) == {*FIELDS, "digest"}
    booked(path)
    with opened(path) as connection:
        connection.execute(f"UPDATE releases SET {column} = {CHANGES[column]} WHERE id = {row}")
    assert f"row {row} is" in flaw(path)


@pytest.mark.parametrize("row", [1, 3])
def test_a_row_that_was_cut_out_is_seen(path: Path, row: int) -> None:
    booked(path)
    with opened(path) as connection:
        connection.execute(f"DELETE FROM releases WHERE id = {row}")
    assert flaw(path) == f"row {row} is missing"


def test_rows_that_changed_places_are_seen(path: Path) -> None:
    booked(path)
    with opened(path) as connection:
        for former, now in ((2, 99), (3, 2), (99, 3)):
            connection.execute(f"UPDATE releases SET id = {now} WHERE id = {former}")
    assert flaw(path) == "row 2 is not as it was written: its digest does not fit"


@pytest.mark.parametrize("numbers", [(8, 1, 1), (8.0, 1.0, True)])
def test_the_chain_holds_whatever_types_the_numbers_had(path: Path, numbers: tuple[float, float, int]) -> None:
    connection = database.connect(path, durable=True)
    ledger_file.prepare(connection)
    ledger_file.insert(
        connection, ("heart", "a", 1, 0, "sampled gaussian", *numbers, None, None, False, None, "model update")
    )
    connection.close()
    assert flaw(path) == ""


# The one file


def test_a_plain_copy_of_the_one_file_holds_all_that_was_booked_while_a_process_books_and_after_it_is_killed(
    path: Path, tmp_path: Path
) -> None:
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from client.ledger import Ledger, Release
        from strategies.privacy.plan import PrivacyPlan

        plan = PrivacyPlan(1.0, 8.0, 1.0, 1, 5_000, 1e-5, 100.0)
        ledger = Ledger.open(Path(sys.argv[1]))
        for number in range(1, 5_001):
            with ledger.reserve(Release("heart", "a", number, plan.round_event), plan):
                print(number, flush=True)
    """)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for number in range(20):
            for _ in range(5):
                spent = int(process.stdout.readline())
            copy = tmp_path / f"copy-{number}.sqlite"
            shutil.copyfile(path, copy)
            assert holds(copy, spent)
        process.send_signal(signal.SIGKILL)
        spent = max([spent, *map(int, process.stdout.read().split())])
    copy = tmp_path / "after.sqlite"
    shutil.copyfile(path, copy)
    assert holds(copy, spent)
    assert holds(path, spent)


def holds(path: Path, spent: int) -> bool:
    """Whether a ledger counts so many releases, or is known to be damaged: never less."""
    try:
        with opened(path) as connection:
            return bool(flaw_of(connection)) or head_of(connection)[0] >= spent
    except sqlite3.DatabaseError:
        return True  # torn by a booking: it cannot be opened, and counts for nothing


# What the former release wrote


def former_ledger(path: Path, *, left_in_wal: bool) -> sqlite3.Connection:
    """A ledger as the former release left it; with `left_in_wal` its newest rows lie in the file beside it."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(FORMER)
    rows: list[tuple[object, ...]] = [
        ("heart", "a", number, "sampled gaussian", 8.0, 1.0, 1, 5_000, None, 0, None, "committed")
        for number in range(1, 4)
    ]
    rows.append(("heart", "a", 4, "sampled gaussian", 8.0, 1.0, 1, 5_000, 2.5, 0, None, "reserved"))
    rows.append(("heart", "b", 1, "laplace", 4.0, 1.0, 1, None, None, 1, "seeded", "committed"))
    for row in rows:
        connection.execute(FORMER_ROW, row)
    if not left_in_wal:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return connection


@pytest.mark.parametrize("left_in_wal", [False, True])
def test_a_ledger_of_the_former_release_is_brought_over_whole_with_a_copy_beside_it(
    path: Path, tmp_path: Path, left_in_wal: bool
) -> None:
    folder = tmp_path / "former"
    folder.mkdir()
    connection = former_ledger(folder / "ledger.sqlite", left_in_wal=left_in_wal)
    for name in os.listdir(folder):  # as a killed process leaves it
        shutil.copyfile(folder / name, tmp_path / name)
    before = connection.execute("SELECT id, time, dataset, round, kind, state, name, plan_evaluation FROM releases")
    rows = before.fetchall()
    connection.close()
    ledger = Ledger.open(path)
    assert ledger.booked("heart", "a", 4)
    assert not ledger.booked("heart", "a", 4, attempt=1)
    book(ledger, release(5))
    ledger.close()
    assert flaw(path) == ""
    with opened(path) as now:
        assert now.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
        query = "SELECT id, time, dataset, round, kind, state, name, plan_evaluation FROM releases WHERE id < 6"
        assert now.execute(query).fetchall() == rows
    kept = path.with_name("ledger.sqlite.version-1")
    assert kept.stat().st_mode & 0o077 == 0
    with opened(kept) as former:
        assert former.execute("SELECT COUNT(*) FROM releases").fetchone()[0] == 5
        assert former.execute("PRAGMA user_version").fetchone()[0] == 1
    Ledger.open(path).close()
    assert not [name for name in os.listdir(tmp_path) if name.endswith(("-wal", "-shm", ".part"))]


def test_a_ledger_that_a_process_of_the_former_release_has_open_is_not_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "PATIENCE_S", 0.2)
    connection = former_ledger(path, left_in_wal=True)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        database.connect(path, durable=True)
    connection.close()
    assert Ledger.open(path).booked("heart", "a", 4)
