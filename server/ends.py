"""The ends of runs that hospitals have yet to be told, in the coordinator's database.

Whoever ends a run owes its end to the hospitals that took part; the herald pays (server/telling.py). An end that is
owed outlives every process. A run that is resumed owes its next end alone.

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     ends = Ends.open(Path(folder) / "coordinator.sqlite")
...     ends.owe("run-1", ["lille", "lyon"], "COMPLETE", 0, 3)
...     ends.told("run-1", "lyon")
...     ends.owed()
...     ends.close()
[Owed(run='run-1', outcome='COMPLETE', code=0, rounds=3, sites=('lille',))]
"""

import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from configs import database, wire
from configs.coordinator import CoordinatorConfig
from server.database import opened
from server.recorded import Recorded

_SCHEMA = """
CREATE TABLE IF NOT EXISTS ends (
    run TEXT NOT NULL,
    site TEXT NOT NULL,
    outcome TEXT NOT NULL,
    code INTEGER NOT NULL,
    rounds INTEGER NOT NULL,
    since REAL NOT NULL,
    PRIMARY KEY (run, site)
);
"""
OWED_S = 30 * 86_400.0  # an end that a hospital has not come for in so long is owed no more


@dataclass(frozen=True, slots=True)
class Owed:
    """The end of one run and the hospitals that have not been told; the fields are the wire's (form `end`)."""

    run: str
    outcome: str
    code: int
    rounds: int
    sites: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str, int, int]:
        """Return what tells one end from another of the same run, which was resumed."""
        return self.run, self.outcome, self.code, self.rounds


class Ends:
    """The table `ends` of `coordinator.sqlite`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        database.prepare(connection, _SCHEMA, version=1, what="the coordinator's database")

    @classmethod
    def open(cls, path: Path) -> "Ends":
        """Open or create it.

        Raises:
            RunError: it cannot be opened.
        """
        return opened(path, cls)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def owe(self, run: str, sites: Iterable[str], outcome: str, code: int, rounds: int) -> None:
        """Owe a run's end to these hospitals, in the place of an earlier one."""
        rows = [(run, site, outcome, code, rounds, time.time()) for site in sites]
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("DELETE FROM ends WHERE run = ?", (run,))
        self._connection.executemany("INSERT INTO ends VALUES (?, ?, ?, ?, ?, ?)", rows)
        self._connection.execute("COMMIT")

    def owed(self) -> list[Owed]:
        """Return the ends that hospitals have yet to be told, by run; those owed for too long are dropped."""
        self._connection.execute("DELETE FROM ends WHERE since < ?", (time.time() - OWED_S,))
        rows = self._connection.execute("SELECT run, outcome, code, rounds, site FROM ends ORDER BY run, site")
        ends: dict[tuple[str, str, int, int], list[str]] = {}
        for *end, site in rows:
            ends.setdefault((end[0], end[1], end[2], end[3]), []).append(site)
        return [Owed(*end, sites=tuple(sites)) for end, sites in ends.items()]

    def told(self, run: str, site: str) -> None:
        """Note that a hospital knows a run's end."""
        self._connection.execute("DELETE FROM ends WHERE run = ? AND site = ?", (run, site))


def owe_end(config: CoordinatorConfig, run: str, outcome: str, code: int = wire.FAILED, rounds: int = 0) -> None:
    """Owe a run's end to every hospital that said that it takes part.

    Raises:
        RunError, JournalError: the database or the run's journal cannot be read.
    """
    if not (config.runs / run / "journal.jsonl").exists():
        return
    sites = {site for hello in Recorded.of(config.runs / run).hello for site in hello}
    with closing(Ends.open(config.database)) as ends:
        ends.owe(run, sorted(sites), outcome, code, rounds)
