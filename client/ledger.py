"""The site's privacy ledger: which releases happened, and what is left to spend.

Facts only. What a release costs is computed in strategies/privacy/accounting.py. A release is reserved on disk before
the first gradient and committed after the last; one that was reserved and never committed counts as spent, because
nobody can prove that nothing left. So a crash costs budget and never refunds it.

A seeded simulation may name a release by everything that decides its bits. The same name again is the same output, not
a second release, and is booked once; unseeded releases have no name and are booked every time.

>>> from strategies.privacy.plan import calibrate
>>> plan = calibrate(Budget(3.0, 1e-5), clip_norm=1.0, sampling_rate=1.0, steps_per_round=1, rounds=2, patients=200)
>>> ledger = Ledger.in_memory()
>>> for number in (1, 2):
...     with ledger.reserve(Release("heart", "study", number, plan.round_event), plan):
...         pass  # train here
>>> round(ledger.spent("heart", delta=1e-5), 3)
3.0
>>> with ledger.reserve(Release("heart", "study", 3, plan.round_event), plan):
...     pass
Traceback (most recent call last):
    ...
configs.errors.BudgetError: round 3: needs epsilon 3.78 in all, the study has 3.00; refused before any training
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from configs.errors import BudgetError, RunError
from strategies.privacy.accounting import SampledGaussian, epsilon, merged
from strategies.privacy.plan import Budget, PrivacyPlan

_SCHEMA = """
CREATE TABLE IF NOT EXISTS releases (
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
    UNIQUE (dataset, study, name)
)
"""
_PATIENCE_S = 30.0  # how long to wait for another process that writes
_ROUNDING = 1e-9  # a plan that composes to exactly its budget must not be refused for the last bit of a float


@dataclass(frozen=True, slots=True)
class Release:
    """One round's release about one data set. `name` is given for seeded, repeatable releases only."""

    dataset: str
    study: str
    round: int
    event: SampledGaussian
    name: str | None = None


class Ledger:
    """One SQLite file for all data sets and studies of a site."""

    def __init__(self, connection: sqlite3.Connection, cap: Budget | None = None) -> None:
        self._connection, self._cap = connection, cap
        self._connection.execute(_SCHEMA)

    @classmethod
    def open(cls, path: Path, cap: Budget | None = None, *, durable: bool = True) -> "Ledger":
        """Open or create the ledger.

        Args:
            cap: what each data set may spend over its life, all studies together; None for no cap.
            durable: survive a power cut too. Without it a killed process still loses nothing.

        Raises:
            RunError: the file is not a ledger, or cannot be written.
        """
        try:
            connection = sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False)
            _use_wal(connection)
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
            return cls(connection, cap)
        except sqlite3.Error as error:
            raise RunError(f"{path}: the privacy ledger cannot be opened: {error}; nothing was trained") from None

    @classmethod
    def in_memory(cls, cap: Budget | None = None) -> "Ledger":
        """A ledger that ends with the process: for tests and benchmarks."""
        return cls(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False), cap)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @contextmanager
    def reserve(self, release: Release, plan: PrivacyPlan, budget: Budget | None = None) -> Iterator[None]:
        """Book the release before its first gradient, and commit it when the block ends without an error.

        Raises:
            BudgetError: the study's plan or the data set's cap would be passed; nothing was booked.
            RunError: the ledger cannot be written. After the block: it stays reserved, which counts as spent.
        """
        row = self._book(release, plan, budget)
        yield
        try:
            self._connection.execute("UPDATE releases SET state = 'committed' WHERE id = ?", (row,))
        except sqlite3.Error as error:
            raise RunError(f"the privacy ledger cannot be written: {error}; the round counts as spent") from None

    def events(self, dataset: str, study: str | None = None) -> tuple[SampledGaussian, ...]:
        """Every release about a data set, merged; reserved ones count."""
        rows = self._connection.execute(
            "SELECT noise_multiplier, sampling_rate, steps FROM releases"
            " WHERE dataset = :dataset AND (:study IS NULL OR study = :study)",
            {"dataset": dataset, "study": study},
        )
        return merged(SampledGaussian(*row) for row in rows)

    def others(self, dataset: str, study: str) -> tuple[SampledGaussian, ...]:
        """Every release about a data set but those of one study, merged."""
        rows = self._connection.execute(
            "SELECT noise_multiplier, sampling_rate, steps FROM releases WHERE dataset = ? AND study != ?",
            (dataset, study),
        )
        return merged(SampledGaussian(*row) for row in rows)

    def booked(self, dataset: str, study: str, round_number: int) -> bool:
        """Whether a round of a study is booked, whatever became of it."""
        query = "SELECT 1 FROM releases WHERE dataset = ? AND study = ? AND round = ? LIMIT 1"
        return self._connection.execute(query, (dataset, study, round_number)).fetchone() is not None

    def studies(self) -> list[tuple[str, str, int, int]]:
        """Data set, study, rounds booked and rounds of them that never ended; in the order of their first round."""
        return list(
            self._connection.execute(
                "SELECT dataset, study, COUNT(DISTINCT round), SUM(state = 'reserved') FROM releases"
                " GROUP BY dataset, study ORDER BY MIN(id)"
            )
        )

    def spent(self, dataset: str, *, delta: float, study: str | None = None) -> float:
        """Epsilon per patient of everything released about a data set, or by one study about it."""
        return epsilon(self.events(dataset, study), delta)

    def _book(self, release: Release, plan: PrivacyPlan, budget: Budget | None) -> int:
        try:
            self._connection.execute("BEGIN IMMEDIATE")  # two studies at once queue here, they never both fit
        except sqlite3.Error as error:
            raise RunError(f"the privacy ledger cannot be written: {error}; nothing was trained") from None
        try:
            row = self._find(release)
            if row is None:
                self._require(release, plan, budget)
                row = self._insert(release)
            self._connection.execute("COMMIT")
            return row
        except BaseException as error:
            if self._connection.in_transaction:  # a full disk has ended it already
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise RunError(f"the privacy ledger cannot be written: {error}; nothing was trained") from None
            raise

    def _find(self, release: Release) -> int | None:
        found = self._connection.execute(
            "SELECT id FROM releases WHERE dataset = ? AND study = ? AND name = ?",
            (release.dataset, release.study, release.name),
        ).fetchone()
        return found[0] if found else None

    def _insert(self, release: Release) -> int:
        event = release.event
        cursor = self._connection.execute(
            "INSERT INTO releases (dataset, study, round, noise_multiplier, sampling_rate, steps, seeded, name, state)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'reserved')",
            (
                release.dataset,
                release.study,
                release.round,
                event.noise_multiplier,
                event.sampling_rate,
                event.steps,
                release.name is not None,
                release.name,
            ),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _require(self, release: Release, plan: PrivacyPlan, budget: Budget | None) -> None:
        booked = self.events(release.dataset, release.study)
        after = merged([*booked, release.event])
        # Only the plan's own steps, and no more of them than planned: within the plan's epsilon without computing it.
        of_plan = len(after) == 1 and after[0].steps <= plan.steps and release.event == plan.round_event
        if budget is not None or not of_plan:
            self._require_within(release, after, budget or Budget(plan.epsilon(), plan.delta), "the study has")
        if self._cap is not None:
            all_studies = merged([*self.events(release.dataset), release.event])
            self._require_within(release, all_studies, self._cap, "the data set has")

    @staticmethod
    def _require_within(release: Release, events: tuple[SampledGaussian, ...], budget: Budget, whose: str) -> None:
        need = epsilon(events, budget.delta)
        if need > budget.epsilon + _ROUNDING:
            raise BudgetError(
                f"round {release.round}: needs epsilon {need:.2f} in all, {whose} {budget.epsilon:.2f}; "
                "refused before any training"
            )


def _use_wal(connection: sqlite3.Connection) -> None:
    """Write-ahead logging. SQLite's own time-out does not wait for others who switch a new file to it too."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
