"""The site's privacy ledger: the releases that happened, and the budget that remains.

Facts only. What a release costs is computed in strategies/privacy/accounting.py. A release is reserved on disk before
the first gradient and committed after the last; one that was reserved and never committed counts as spent, because
it cannot be proved that nothing left. So a crash costs budget and never refunds it.

The cap of a data set is over all its studies, and people choose a study after they have seen the results of others. So:

- while one study is the only one, its plan was fixed before anything was known about the data, and plain composition of
  its rounds is exact;
- once there are several, the filter of strategies/privacy/filter.py decides, over everything that is booked;
- a first study whose whole plan would not pass that filter has the data set to itself, and others are refused from its
  first round on. Otherwise it would depend on results which of the two rules ends up being used, and neither would be
  a proof. The plan is therefore booked with each round.

What `spent` says is plain composition: the cost of these releases, had they all been planned beforehand.

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
>>> with ledger.reserve(Release("heart", "study", 3, plan.round_event), plan):  # doctest: +ELLIPSIS
...     pass
Traceback (most recent call last):
    ...
configs.errors.BudgetError: round 3: needs epsilon 3.78 in all, the study has 3.00 (per patient, ...); refused ...
"""

import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from client import ledger_file, reconcile
from client.ledger_events import event_of, row_of
from client.ledger_file import MODEL_UPDATE
from configs import database
from configs.errors import BegunError, BudgetError, RunError, SpareError, UnsettledError
from configs.paths import too_long
from configs.schema import PER_PATIENT
from strategies.privacy.accounting import (
    Event,
    Merged,
    SampledGaussian,
    epsilon,
    merged,
)
from strategies.privacy.filter import Filter
from strategies.privacy.plan import Budget, PrivacyPlan
from strategies.releases.registry import RELEASES

_ROUNDING = 1e-9  # a plan that composes to exactly its budget must not be refused for the last bit of a float


@dataclass(frozen=True, slots=True)
class Release:
    """One booking about one data set: which release of a study, and what it costs.

    `release` is the name of its kind (strategies/releases/registry.py), `round` 0 of what is asked for once. `attempt`
    counts from 0: a release may be made anew when its reply was lost, as a booking of its own. `name` names the bits of
    a seeded, repeatable release.
    """

    dataset: str
    study: str
    round: int
    event: Event
    name: str | None = None
    attempt: int = 0
    release: str = MODEL_UPDATE

    @property
    def what(self) -> str:
        """Return the release in words, for people."""
        return words_of(self.release, self.round)


class Ledger:
    """One SQLite file for all data sets and studies of a site."""

    def __init__(self, connection: sqlite3.Connection, cap: Budget | None = None, *, watched: bool = False) -> None:
        """Take over a connection. `watched`: every row is checked, now and whenever another process has written."""
        self._connection, self._cap, self._watched = connection, cap, watched
        self._filter = None if cap is None else Filter(cap.epsilon, cap.delta)
        ledger_file.prepare(connection)
        self._seen, self._counts = ledger_file.version_of(connection), ledger_file.Counts(connection)
        self._flaw = ledger_file.flaw_of(connection) if watched else ""
        self._inode = self._file()

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
            return cls(database.connect(path, durable=durable), cap, watched=durable)
        except sqlite3.Error as error:
            raise RunError(
                f"{path}: the privacy ledger cannot be opened: {error}{too_long(path)}; nothing was trained"
            ) from None

    @classmethod
    def in_memory(cls, cap: Budget | None = None) -> "Ledger":
        """Return a ledger that ends with the process: for tests and benchmarks."""
        return cls(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False), cap)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def lower(self, cap: Budget) -> None:
        """Let no data set spend more than this from now on."""
        self._cap, self._filter = cap, Filter(cap.epsilon, cap.delta)

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

    def events(self, dataset: str, study: str | None = None) -> tuple[Merged, ...]:
        """Return every release about a data set, merged; reserved ones count."""
        about = "dataset = :dataset AND (:study IS NULL OR study = :study)"
        return self._merged(about, {"dataset": dataset, "study": study})

    def others(self, dataset: str, study: str) -> tuple[Merged, ...]:
        """Return every release about a data set but those of one study, merged."""
        return self._merged("dataset = :dataset AND study != :study", {"dataset": dataset, "study": study})

    def _merged(self, which: str, about: dict[str, str | None]) -> tuple[Merged, ...]:
        rows = self._connection.execute(
            f"SELECT kind, noise_multiplier, sampling_rate, steps FROM releases WHERE {which}",  # noqa: S608 - ours
            about,
        )
        return merged(event_of(*row) for row in rows)

    def foreseen(self, dataset: str, study: str, planned: Iterable[Event], cap: Budget) -> float:
        """Return the epsilon that will count against a cap once a study is over, its plan's or the filter's.

        Infinite where the data set's first study leaves no room for any other.
        """
        others = self.others(dataset, study)
        if not others:
            return epsilon(planned, cap.delta)
        rule = Filter(cap.epsilon, cap.delta)
        if not rule.allows(self._first_plan(dataset)):
            return math.inf
        return max(rule.needs([*others, *planned]), epsilon([*others, *planned], cap.delta))

    def booked(
        self, dataset: str, study: str, round_number: int, attempt: int = 0, release: str = MODEL_UPDATE
    ) -> bool:
        """Return whether an attempt at a release of a study is booked, whatever became of it."""
        query = "SELECT release, round FROM releases WHERE dataset = ? AND study = ? AND attempt = ?"
        place = ledger_file.place(release, round_number)
        return any(
            ledger_file.place(*row) == place for row in self._connection.execute(query, (dataset, study, attempt))
        )

    def require_spare(self, release: Release, spare: int) -> None:
        """Let an attempt be booked once, and no more bookings beyond the first of each release than a study has spare.

        Raises:
            BegunError: this attempt is booked. SpareError: it would be one release too many that is made anew.
        """
        if self.booked(release.dataset, release.study, release.round, release.attempt, release.release):
            raise BegunError(f"{release.what}: it was begun before and counts as spent; it is not done twice")
        rows = self._connection.execute(
            "SELECT release, round FROM releases WHERE dataset = ? AND study = ?", (release.dataset, release.study)
        )
        booked = [*(ledger_file.place(*row) for row in rows), ledger_file.place(release.release, release.round)]
        if len(booked) - len(set(booked)) > spare:
            raise SpareError(
                f"{release.what}: lost releases that the study lets be made anew (privacy.spare): {spare}, of "
                "which none is left; refused before a patient is looked at"
            )

    @property
    def flaw(self) -> str:
        """Return what is wrong with the file as it was opened, for people; empty if nothing is."""
        return self._flaw

    @property
    def head(self) -> tuple[int, str]:
        """Number and digest of the last row."""
        return ledger_file.head_of(self._connection)

    @property
    def replaced(self) -> bool:
        """Return whether another file has taken the place of the one that was opened, or none."""
        return self._file() != self._inode

    def digest_at(self, row: int) -> str:
        """Return the digest of a row, empty where there is none."""
        return ledger_file.digest_at(self._connection, row)

    def releases(self, after: int = 0) -> list[reconcile.Release]:
        """Return what was booked after a row, in the order of booking."""
        return ledger_file.releases(self._connection, after)

    def places(self) -> frozenset[tuple[str, str, int]]:
        """Return which releases of which studies are booked, as (study, *place)."""
        rows = self._connection.execute("SELECT DISTINCT study, release, round FROM releases")
        return frozenset((study, *ledger_file.place(release, number)) for study, release, number in rows)

    def studies(self) -> list[tuple[str, str, int, int]]:
        """Return data set, study, rounds booked and releases that never ended; in the order of their first booking."""
        return list(
            self._connection.execute(
                "SELECT dataset, study, COUNT(DISTINCT NULLIF(round, 0)), SUM(state = 'reserved') FROM releases"
                " GROUP BY dataset, study ORDER BY MIN(id)"
            )
        )

    def asked_once(self, dataset: str, study: str) -> list[str]:
        """Return the names of a study's booked releases that are asked for once, in the order of their booking.

        Statistics that were booked without a name count as a round.
        """
        rows = self._connection.execute(
            "SELECT release FROM releases WHERE dataset = ? AND study = ? AND round = 0 ORDER BY id", (dataset, study)
        )
        return list(dict.fromkeys("score histogram" if release is None else release for (release,) in rows))

    def seeded(self, dataset: str, study: str) -> int:
        """Return how many of a study's releases have noise of a seeded generator, not of the operating system's."""
        query = "SELECT COALESCE(SUM(seeded), 0) FROM releases WHERE dataset = ? AND study = ?"
        return int(self._connection.execute(query, (dataset, study)).fetchone()[0])

    def spent(self, dataset: str, *, delta: float, study: str | None = None) -> float:
        """Return epsilon per patient of everything released about a data set, or by one study about it."""
        return epsilon(self.events(dataset, study), delta)

    def _book(self, release: Release, plan: PrivacyPlan, budget: Budget | None) -> int:
        try:
            self._connection.execute("BEGIN IMMEDIATE")  # two studies at once queue here, they never both fit
        except sqlite3.Error as error:
            raise RunError(f"the privacy ledger cannot be written: {error}; nothing was trained") from None
        try:
            self._require_whole()
            row = self._find(release)
            if row is None:
                self._require(release, plan, budget)
                row = self._insert(release, plan)
            self._connection.execute("COMMIT")
            return row
        except BaseException as error:
            if self._connection.in_transaction:  # a full disk has ended it already
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise RunError(f"the privacy ledger cannot be written: {error}; nothing was trained") from None
            raise

    def _require_whole(self) -> None:
        """Let nothing be booked on rows that were changed; looked at whole only where another process has written."""
        if self._watched and (version := ledger_file.version_of(self._connection)) != self._seen:
            self._seen, self._flaw = version, ledger_file.flaw_of(self._connection)
        if self._flaw:
            raise UnsettledError(f"ledger.sqlite: {self._flaw}; a person must run: archipel-site settle")

    def _file(self) -> tuple[int, int]:
        name = self._connection.execute("PRAGMA database_list").fetchone()[2]
        try:
            status = Path(name).stat() if name else None
        except OSError:
            return 0, 0
        return (status.st_dev, status.st_ino) if status else (0, 0)

    def _find(self, release: Release) -> int | None:
        row = self._connection.execute(
            "SELECT id FROM releases WHERE dataset = ? AND study = ? AND name = ? AND attempt = ?",
            (release.dataset, release.study, release.name, release.attempt),
        ).fetchone()
        return row[0] if row else None

    def _insert(self, release: Release, plan: PrivacyPlan) -> int:
        planned = _planned_of(plan).training if release.event == plan.round_event else None
        # 1 + spare evaluations of noise s cost what one of noise s / sqrt(1 + spare) costs: everybody is in each.
        evaluation = _together(plan.once) / math.sqrt(1 + plan.spare) if planned and plan.once else None
        values = (release.dataset, release.study, release.round, release.attempt, *row_of(release.event))
        seeded = release.name is not None
        names = (release.name, release.release)
        return ledger_file.insert(self._connection, (*values, planned, evaluation, seeded, *names))

    def _require(self, release: Release, plan: PrivacyPlan, budget: Budget | None) -> None:
        if plan.spare or release.attempt:
            self.require_spare(release, plan.spare)
        counts = self._counts.of(release.dataset, release.study)
        for kind, _, least in counts:
            event_of(*kind, least)  # an error where a row counts as less than nothing
        after = merged([*(event_of(*kind, steps) for kind, steps, _ in counts), release.event])
        # Only the plan's own steps, and no more of them than planned: within the plan's epsilon without computing it.
        of_plan = release.event in (plan.round_event, *plan.once) and _are_among(after, plan)
        if budget is not None or not of_plan:
            self._require_within(release, after, budget or Budget(plan.whole_epsilon(), plan.delta), "the study has")
        if self._cap is not None and self._filter is not None:
            others = self.others(release.dataset, release.study)
            if of_plan and not others:
                self._require_within(release, after, self._cap, "the data set has")
            else:
                self._require_filter(release, merged([*others, *after]), self._cap, self._filter)

    def _require_filter(self, release: Release, events: tuple[Merged, ...], cap: Budget, rule: Filter) -> None:
        """Check the adaptive-composition filter, for a data set with several studies."""
        # Before the filter: an epsilon over the cap even if all had been planned says most to the reader.
        self._require_within(release, events, cap, "the data set has")
        if (first := self._first_plan(release.dataset)) and not rule.allows(first):
            raise BudgetError(
                f"{release.what}: the data set's first study needs so much of its epsilon {cap.epsilon:g} "
                f"({PER_PATIENT}) that no study chosen later can be added (strategies/privacy/filter.py); refused "
                "before a patient is looked at"
            )
        if not rule.allows(events):
            raise BudgetError(
                f"{release.what}: needs epsilon {rule.needs(events):.2f} in all, counted as studies that were "
                f"chosen one after the other, the data set has {cap.epsilon:.2f} ({PER_PATIENT}); refused before a "
                "patient is looked at"
            )

    def _first_plan(self, dataset: str) -> list[SampledGaussian]:
        """Return the whole plan of a data set's first study; empty where it was not kept, or there is none."""
        row = self._connection.execute(
            "SELECT noise_multiplier, sampling_rate, plan_steps, plan_evaluation FROM releases WHERE dataset = ?"
            " ORDER BY id LIMIT 1",
            (dataset,),
        ).fetchone()
        if row is None or row[2] is None:
            return []
        evaluation = [] if row[3] is None else [SampledGaussian(row[3], 1.0, 1)]
        return [SampledGaussian(*row[:3]), *evaluation]

    @staticmethod
    def _require_within(release: Release, events: tuple[Merged, ...], budget: Budget, whose: str) -> None:
        need = epsilon(events, budget.delta)
        if need > budget.epsilon + _ROUNDING:
            raise BudgetError(
                f"{release.what}: needs epsilon {need:.2f} in all, {whose} {budget.epsilon:.2f} "
                f"({PER_PATIENT}); refused before a patient is looked at"
            )


def words_of(release: str, round_number: int) -> str:
    """Return a release in words: by its kind, or by its name where nothing of the name is registered here."""
    return RELEASES[release].words(round_number) if release in RELEASES else f"the {release}"


def _together(events: tuple[SampledGaussian, ...]) -> float:
    """Return the noise multiplier of one release that costs what these cost together: everybody is in each."""
    if len(events) == 1:
        return events[0].noise_multiplier
    return 1 / math.sqrt(sum(event.noise_multiplier**-2 for event in events))


def _are_among(events: tuple[Merged, ...], plan: PrivacyPlan) -> bool:
    """Return whether merged events are planned ones, and of no kind more than planned."""
    steps = _planned_of(plan).steps
    return all(
        isinstance(e, SampledGaussian) and e.steps <= steps.get((e.noise_multiplier, e.sampling_rate), 0)
        for e in events
    )


@dataclass(frozen=True, slots=True)
class _Planned:
    """Steps of a plan's training, and of everything by noise multiplier and sampling rate."""

    training: int
    steps: Mapping[tuple[float, float], int]


@lru_cache(maxsize=256)
def _planned_of(plan: PrivacyPlan) -> _Planned:
    """Return the same for all hospitals of a size, in every round."""
    planned = [e for e in merged(plan.events) if isinstance(e, SampledGaussian)]
    return _Planned(plan.training_steps, {(e.noise_multiplier, e.sampling_rate): e.steps for e in planned})
