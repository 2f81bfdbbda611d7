"""Ledger replay: what was released, by the journal, against what was booked, as it lies on the disk.

Every round that left must be booked with the plan's own event, and with no fewer steps than were taken; no row may have
vanished, no round may be skipped, and the epsilon that the ledger states must be that of what was released. A run that
an audit makes itself also shows when the row was written: before the first gradient, and to stay when training fails.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.ledger import EVALUATION
from configs.errors import ArchipelError, JournalError
from configs.journal import read
from configs.records.run_journal import Evaluated, Round
from configs.schema import Study
from simulations.audit.subject import Booked, Subject, read_ledger
from simulations.audit.verdict import Check, exact
from strategies.privacy.accounting import SampledGaussian, epsilon
from strategies.privacy.plan import PrivacyPlan

_ROUNDING = 1e-6  # of epsilon


@dataclass(frozen=True, slots=True)
class Left:
    """A round in which a hospital's model left, or EVALUATION; `steps` None where nobody counted them."""

    round: int
    steps: int | None


@dataclass(frozen=True)
class Replay:
    """One hospital's replay: its checks, and epsilon as it was released and as it is stated."""

    site: str
    checks: tuple[Check, ...]
    released: float
    stated: float


def rounds_left(journal: Path) -> dict[str, list[Left]]:
    """By hospital: the rounds in which its model left, and EVALUATION if its figures did, as the journal says.

    Raises:
        JournalError: a record was changed, cut out or moved.
    """
    by_site: dict[str, dict[int, Left]] = {}
    for record in read(journal):
        entry = record.of(Round, Evaluated)
        if isinstance(entry, Round):
            departure = Left(entry.round, entry.steps)
        elif isinstance(entry, Evaluated):
            departure = Left(EVALUATION, None)
        else:
            continue
        for site in entry.contributed:
            by_site.setdefault(site, {})[departure.round] = departure
    return {site: [rounds[number] for number in sorted(rounds)] for site, rounds in by_site.items()}


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
        return Replay(site, (exact("ledger", False, f"{site}: no ledger lies on the disk"),), 0.0, 0.0)
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
    rounds = {row.round for row in of_study}
    missing = [one.round for one in left if one.round not in rounds]
    steps = {number: sum(r.event.steps for r in of_study if r.event and r.round == number) for number in rounds}
    short = [one.round for one in left if one.steps is not None and one.steps > steps.get(one.round, 0)]
    odd = [r.round for r in of_study if r.event != (plan.evaluation if r.round == EVALUATION else plan.round_event)]
    ids = [row.id for row in booked]
    numbers = [one.round for one in left if one.round != EVALUATION]
    return [
        exact("rounds booked", not missing, f"{site}: {_some(missing)} left and is not booked"),
        exact("steps booked", not short, f"{site}: {_some(short)} took more steps than are booked"),
        exact("events", not odd, f"{site}: {_some(odd)} is booked with another noise, rate or number of steps"),
        exact("no row vanished", ids == list(range(1, len(ids) + 1)), f"{site}: a row of the ledger is gone"),
        exact("no round skipped", numbers == list(range(1, len(numbers) + 1)), f"{site}: the journal skips a round"),
        exact(
            "epsilon stated",
            stated >= released - _ROUNDING,
            f"{site}: epsilon {released:.3f} was released, the ledger states {stated:.3f}",
        ),
    ]


def crash_and_order(site: str, *, booked_first: bool, kept: bool, refused: bool) -> list[Check]:
    """Return what only a run that is watched can show."""
    return [
        exact("booked first", booked_first, f"{site}: a gradient was computed before its round was on the disk"),
        exact("kept after a crash", kept, f"{site}: a round that failed half-way is no longer booked"),
        exact("refused at the end", refused, f"{site}: a round beyond the budget was trained"),
    ]


def replay_run(subject: Subject, run: Path, study: Study, plans: dict[str, PrivacyPlan]) -> tuple[list[Replay], Check]:
    """Return a simulated run's folder: every hospital's ledger against the coordinator's journal."""
    try:
        departures = rounds_left(run / "journal.jsonl")
    except JournalError as error:
        return [], exact("journal", False, str(error))
    except OSError:
        return [], exact("journal", False, f"{run / 'journal.jsonl'}: it is not there")
    replays = [
        replay(subject, run / "sites" / site, site, site, study, plans[site], rounds)
        for site, rounds in sorted(departures.items())
    ]
    return replays, exact("journal", True)


def facts(replays: Sequence[Replay]) -> list[dict[str, Any]]:
    """For the page: epsilon released and stated, hospital by hospital."""
    return [{"site": r.site, "released": r.released, "stated": r.stated} for r in replays]


def _events(left: Sequence[Left], plan: PrivacyPlan) -> list[SampledGaussian]:
    rounds = [
        SampledGaussian(plan.noise_multiplier, plan.sampling_rate, plan.steps_per_round if x.steps is None else x.steps)
        for x in left
        if x.steps != 0 and x.round != EVALUATION
    ]
    figures = any(x.round == EVALUATION for x in left)
    return [*rounds, plan.evaluation] if figures and plan.evaluation else rounds


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


def _some(numbers: Sequence[int]) -> str:
    """Return round numbers in words; the evaluation has none.

    >>> _some([2, 3]), _some([0]), _some([0, 1, 2, 3, 4])
    ('round 2, 3', 'the evaluation', 'the evaluation and round 1, 2, 3 and 1 more')
    """
    rounds = [number for number in numbers if number != EVALUATION]
    more = f" and {len(rounds) - 3} more" if len(rounds) > 3 else ""
    shown = [f"round {', '.join(map(str, rounds[:3]))}{more}"] if rounds else []
    return " and ".join([*(["the evaluation"] if EVALUATION in numbers else []), *shown])
