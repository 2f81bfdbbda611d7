"""Ledger replay: the releases in the journal against the bookings on the disk.

Every round that left must be booked with the plan's own event, and with no fewer steps than were taken; no row may have
vanished, no round may be skipped, and the epsilon that the ledger states must be that of what was released. A run that
an audit makes itself also shows when the row was written: before the first gradient, and to stay when training fails.
"""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from client.ledger import words_of
from configs.errors import ArchipelError, JournalError
from configs.journal import read
from configs.records.run_journal import Evaluated, Round
from configs.schema import Study
from simulations.audit.subject import Booked, Subject, read_ledger
from simulations.audit.verdict import Check, exact
from strategies.privacy.accounting import SampledGaussian, epsilon
from strategies.privacy.plan import PrivacyPlan
from strategies.releases.registry import MODEL_UPDATE, RELEASES, SCORE_HISTOGRAM

Which = tuple[str, int]  # a release's name, and its round or 0
_ROUNDING = 1e-6  # of epsilon


@dataclass(frozen=True, slots=True)
class Left:
    """A release that left a hospital: its name and round, 0 of what is asked for once.

    `steps` is None where they were not counted.
    """

    release: str
    round: int
    steps: int | None = None

    @property
    def which(self) -> Which:
        """Return name and round."""
        return self.release, self.round


@dataclass(frozen=True)
class Replay:
    """One hospital's replay: its checks, and epsilon as it was released and as it is stated."""

    site: str
    checks: tuple[Check, ...]
    released: float
    stated: float


def releases_left(journal: Path) -> dict[str, list[Left]]:
    """Return by hospital what left it, as the journal says: what was asked for once first, then the rounds in order.

    Raises:
        JournalError: a record was changed, cut out or moved.
    """
    by_site: dict[str, dict[Which, Left]] = {}
    for record in read(journal):
        entry = record.of(Round, Evaluated)
        if isinstance(entry, Round):
            departure = Left(MODEL_UPDATE.name, entry.round, entry.steps)
        elif isinstance(entry, Evaluated):
            departure = Left(entry.release or SCORE_HISTOGRAM.name, 0)
        else:
            continue
        for site in entry.contributed:
            by_site.setdefault(site, {})[departure.which] = departure
    return {
        site: sorted(releases.values(), key=lambda row: (row.round, row.release)) for site, releases in by_site.items()
    }


def replay(
    subject: Subject, folder: Path, site: str, dataset: str, study: Study, plan: PrivacyPlan, left: Sequence[Left]
) -> Replay:
    """Compare one hospital's ledger with what left it.

    Args:
        folder: where the hospital's ledger.sqlite lies.
    """
    path = folder / "ledger.sqlite"
    try:
        booked = [row for row in read_ledger(path) if row.dataset == dataset]
    except (OSError, sqlite3.Error):
        booked = None
    if booked is None:
        return Replay(site, (exact("ledger", f"{site}: no ledger lies on the disk", holds=False),), 0.0, 0.0)
    released = epsilon(_events(left, plan), plan.delta)
    statement = stated(subject, path, dataset, plan.delta)
    of_study = [row for row in booked if row.study == study.sha256 and row.event is not None]
    return Replay(site, tuple(_checks(site, booked, of_study, left, plan, released, statement)), released, statement)


def _checks(
    site: str,
    booked: Sequence[Booked],
    of_study: Sequence[Booked],
    left: Sequence[Left],
    plan: PrivacyPlan,
    released: float,
    stated: float,
) -> list[Check]:
    steps: Counter[Which] = Counter()
    for row in of_study:
        steps[_which(row)] += row.event.steps if row.event else 0
    missing = [release.which for release in left if release.which not in steps]
    short = [release.which for release in left if release.steps is not None and release.steps > steps[release.which]]
    odd = [_which(row) for row in of_study if row.event != _planned(_which(row)[0], plan)]
    ids = [row.id for row in booked]
    numbers = [release.round for release in left if release.release == MODEL_UPDATE.name]
    return [
        exact("rounds booked", f"{site}: {_some(missing)} left and is not booked", holds=not missing),
        exact("steps booked", f"{site}: {_some(short)} took more steps than are booked", holds=not short),
        exact("events", f"{site}: {_some(odd)} is booked with another noise, rate or number of steps", holds=not odd),
        exact("no row vanished", f"{site}: a row of the ledger is gone", holds=ids == list(range(1, len(ids) + 1))),
        exact(
            "no round skipped", f"{site}: the journal skips a round", holds=numbers == list(range(1, len(numbers) + 1))
        ),
        exact(
            "epsilon stated",
            f"{site}: epsilon {released:.3f} was released, the ledger states {stated:.3f}",
            holds=stated >= released - _ROUNDING,
        ),
    ]


def crash_and_order(site: str, *, booked_first: bool, kept: bool, refused: bool) -> list[Check]:
    """Return what only a run that is watched can show."""
    return [
        exact("booked first", f"{site}: a gradient was computed before its round was on the disk", holds=booked_first),
        exact("kept after a crash", f"{site}: a round that failed half-way is no longer booked", holds=kept),
        exact("refused at the end", f"{site}: a round beyond the budget was trained", holds=refused),
    ]


def replay_run(subject: Subject, run: Path, study: Study, plans: dict[str, PrivacyPlan]) -> tuple[list[Replay], Check]:
    """Return a simulated run's folder: every hospital's ledger against the coordinator's journal."""
    try:
        departures = releases_left(run / "journal.jsonl")
    except JournalError as error:
        return [], exact("journal", str(error), holds=False)
    except OSError:
        return [], exact("journal", f"{run / 'journal.jsonl'}: it is not there", holds=False)
    replays = [
        replay(subject, run / "sites" / site, site, site, study, plans[site], rounds)
        for site, rounds in sorted(departures.items())
    ]
    return replays, exact("journal", holds=True)


def facts(replays: Sequence[Replay]) -> list[dict[str, Any]]:
    """Return the page's facts: epsilon released and stated, hospital by hospital."""
    return [{"site": r.site, "released": r.released, "stated": r.stated} for r in replays]


def _events(left: Sequence[Left], plan: PrivacyPlan) -> list[SampledGaussian]:
    planned = [(row, _planned(row.release, plan)) for row in left if row.steps != 0]
    return [event if row.steps is None else replace(event, steps=row.steps) for row, event in planned if event]


def _planned(release: str, plan: PrivacyPlan) -> SampledGaussian | None:
    """Return what one such release costs by the plan."""
    return RELEASES[release].event(plan) if release in RELEASES else None


def _which(row: Booked) -> Which:
    """Return which release of a training a row books; of rows without a name the number says it."""
    if row.release is not None:
        return row.release, row.round
    return (MODEL_UPDATE.name, row.round) if row.round else (SCORE_HISTOGRAM.name, 0)


def stated(subject: Subject, path: Path, dataset: str, delta: float) -> float:
    """Return what the ledger itself says was spent; less than anything if it cannot say."""
    try:
        ledger = subject.ledger(path)
        try:
            return ledger.spent(dataset, delta=delta)
        finally:
            ledger.close()
    except ArchipelError:
        return -1.0


def _some(releases: Sequence[Which]) -> str:
    """Return releases in words.

    >>> _some([("model update", 2), ("model update", 3)]), _some([("score histogram", 0)])
    ('round 2, 3', 'the evaluation')
    >>> _some([("score histogram", 0), *(("model update", number) for number in (1, 2, 3, 4))])
    'the evaluation and round 1, 2, 3 and 1 more'
    """
    rounds = [number for name, number in releases if name == MODEL_UPDATE.name]
    more = f" and {len(rounds) - 3} more" if len(rounds) > 3 else ""
    shown = [f"round {', '.join(map(str, rounds[:3]))}{more}"] if rounds else []
    return " and ".join([*(words_of(*which) for which in releases if which[0] != MODEL_UPDATE.name), *shown])
