"""The ledger as a state machine: rounds of several studies, and a power cut at any statement that it executes.

At a cut the file is what a fresh process finds: the connection is closed without ending its transaction, which SQLite
undoes. What is checked after every step: nothing was released without a reservation on disk, and the ledger's events
are at least what was released.
"""

import sqlite3
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from client.ledger import Ledger, Release
from configs.errors import BudgetError
from strategies.privacy.accounting import SampledGaussian
from strategies.privacy.filter import Filter
from strategies.privacy.plan import Budget, PrivacyPlan

DELTA = 1e-5
CAP = Budget(3.0, DELTA)
PLANS = {
    "full": PrivacyPlan(1.0, 8.0, 1.0, 1, 6, DELTA, 100.0),
    "sampled": PrivacyPlan(1.0, 2.0, 0.1, 10, 4, DELTA, 100.0),
    "loud": PrivacyPlan(1.0, 3.0, 1.0, 1, 4, DELTA, 100.0),
}


class PowerCutError(BaseException):
    """The machine lost power: nothing after it is executed."""


class Cable(sqlite3.Connection):
    """A connection that loses power before, or just after, its n-th statement from now."""

    left: int | None = None
    after = False

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if self.left is None:
            return super().execute(sql, *arguments)
        self.left -= 1
        if self.left == 0 and not self.after:
            raise PowerCutError
        if self.left < 0:
            raise PowerCutError  # also the roll-back: there is no power
        cursor = super().execute(sql, *arguments)
        if self.left == 0:
            raise PowerCutError
        return cursor


class LedgerMachine(RuleBasedStateMachine):
    """Two hands on one file; `released` is what training let out, whatever the ledger says of it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ledger.sqlite"
        self.released: Counter[tuple[float, float]] = Counter()
        self.rounds: Counter[str] = Counter()

    @initialize()
    def start(self) -> None:
        self.hands = [self.open(), self.open()]

    def open(self) -> Ledger:
        connection = sqlite3.connect(self.path, isolation_level=None, factory=Cable)
        connection.execute("PRAGMA synchronous = OFF")
        return Ledger(connection, CAP)

    @rule(hand=st.integers(0, 1), study=st.sampled_from(sorted(PLANS)), fails=st.booleans())
    def train(self, hand: int, study: str, fails: bool) -> None:
        self.attempt(hand, study, fails)

    @rule(
        hand=st.integers(0, 1), study=st.sampled_from(sorted(PLANS)), statement=st.integers(1, 12), after=st.booleans()
    )
    def train_and_lose_power(self, hand: int, study: str, statement: int, after: bool) -> None:
        cable: Any = self.hands[hand]._connection
        cable.left, cable.after = statement, after
        with suppress(PowerCutError):
            self.attempt(hand, study, False)
        cable.left = None
        cable.close()
        self.hands[hand] = self.open()

    def attempt(self, hand: int, study: str, fails: bool) -> None:
        plan = PLANS[study]
        self.rounds[study] += 1
        try:
            with self.hands[hand].reserve(Release("heart", study, self.rounds[study], plan.round_event), plan):
                assert self.on_disk() > sum(self.released.values()), "trained without a reservation on disk"
                self.released[plan.noise_multiplier, plan.sampling_rate] += plan.steps_per_round
                if fails:
                    raise ZeroDivisionError
        except (BudgetError, ZeroDivisionError):
            pass

    def on_disk(self) -> int:
        """Steps that a fresh process finds booked."""
        connection = sqlite3.connect(self.path)
        steps = connection.execute("SELECT COALESCE(SUM(steps), 0) FROM releases").fetchone()[0]
        connection.close()
        return int(steps)

    @invariant()
    def spent_is_never_below_what_was_released(self) -> None:
        if not self.path.exists():
            return
        for ledger in (self.open(), *self.hands):
            booked = {(e.noise_multiplier, e.sampling_rate): e.steps for e in ledger.events("heart")}  # type: ignore
            assert all(booked.get(key, 0) >= steps for key, steps in self.released.items())
        ledger_of_now = self.open()
        assert ledger_of_now.spent("heart", delta=DELTA) <= CAP.epsilon
        if len(ledger_of_now.studies()) > 1:
            assert Filter(CAP.epsilon, DELTA).allows(ledger_of_now.events("heart"))

    def teardown(self) -> None:
        for hand in getattr(self, "hands", []):
            hand.close()
        self.folder.cleanup()


LedgerMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=15)
TestLedgerMachine = LedgerMachine.TestCase


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("statement", range(1, 20))
def test_power_lost_at_any_statement_of_an_upgrade_leaves_a_ledger_that_counts(
    tmp_path: Path, statement: int, after: bool
) -> None:
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE releases (id INTEGER PRIMARY KEY, time TEXT, dataset TEXT NOT NULL, study TEXT NOT NULL,"
            " round INTEGER NOT NULL, noise_multiplier REAL NOT NULL, sampling_rate REAL NOT NULL,"
            " steps INTEGER NOT NULL, seeded INTEGER NOT NULL, name TEXT, state TEXT NOT NULL)"
        )
        connection.execute("INSERT INTO releases VALUES (1, '', 'heart', 'old', 1, 8.0, 1.0, 2, 0, NULL, 'committed')")
    connection.close()
    cable = sqlite3.connect(path, isolation_level=None, factory=Cable)
    cable.left, cable.after = statement, after
    with suppress(PowerCutError):
        Ledger(cable)
    cable.left = None
    cable.close()
    assert Ledger.open(path).events("heart") == (SampledGaussian(8.0, 1.0, 2),)
