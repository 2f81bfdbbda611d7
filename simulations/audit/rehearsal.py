"""A rehearsal: a whole study at one hospital, run by the audit through the real path.

That is Site.fit, with a real ledger on the disk. The journal that it keeps is a coordinator's, with the number of steps
that were seen beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from client.patients import Split
from client.site import Site
from configs.errors import BudgetError, WireError
from configs.journal import Journal
from configs.records.run_journal import Evaluated, Round
from configs.schema import Local, Study
from configs.site import Policy
from simulations.audit import ledger_replay
from simulations.audit.recording import STILL, Recording, Roll, coordinates, recorded
from simulations.audit.subject import Subject, Watch, read_ledger, watched_trainer
from simulations.audit.verdict import exact
from strategies.data.table import TablePatients
from strategies.exchange.arrays import Arrays
from strategies.learning import learning_of
from strategies.privacy.plan import PrivacyPlan
from strategies.releases.base import Request
from strategies.releases.registry import SCORE_HISTOGRAM


class _Crash(BaseException):
    """Raised by the audit in the middle of a round."""


@dataclass(frozen=True)
class AuditedSite:
    """One hospital of an audited study: its patients, and the model that its rounds start from."""

    subject: Subject
    study: Study
    site: str
    patients: TablePatients
    start: Arrays
    seeded: bool

    def watched(self, path: Path, watch: Watch) -> Site:
        """Return the hospital with a ledger on the disk at `path`; its training is watched."""
        # The patients stand for those of the test too: what is looked at is the booking.
        return self.subject.site(
            self.site,
            self.study,
            Split(self.patients, self.patients, {}),
            self.subject.ledger(path),
            seeded=self.seeded,
            trainer=watched_trainer(self.subject, learning_of(self.study), watch),
            policy=Policy(metrics="noisy"),
        )


@dataclass(frozen=True)
class Rehearsal:
    """What the run showed. `claimed` is the epsilon that the ledger states after the last round, of training alone."""

    recording: Recording
    replay: ledger_replay.Replay
    claimed: float


def rehearse(audited: AuditedSite, folder: Path, *, rounds: int, values: int) -> Rehearsal:
    """Run some rounds of a study, all from the same start and at learning rate 0, and replay its ledger.

    Args:
        values: how many noise values are kept: of a large model with many steps some of its coordinates.
    """
    subject, study, site, patients = audited.subject, audited.study, audited.site, audited.patients
    study = replace(study, training=replace(study.training, local=_still(study.training.local)))
    audited, start = replace(audited, study=study), audited.start
    folder.mkdir(parents=True)
    path = folder / "ledger.sqlite"
    journal = Journal(folder / "journal.jsonl", durable=False)
    task, roll, booked_first = learning_of(study), Roll(patients), []
    watch = Watch(look=roll.call)
    hospital = audited.watched(path, watch)
    plan = plan_of(hospital)
    watch.kept = coordinates(task, max(patients.count, rounds * plan.steps_per_round), values)
    for number in range(1, rounds + 1):
        steps = watch.steps
        watch.before = lambda number=number, steps=steps: (  # type: ignore[misc]
            booked_first.append(_is_booked(path, number)) if watch.steps == steps else None
        )
        # The same model every round would be the same seeded release, which is booked once: move it by one bit.
        hospital.fit(number, _nudged(start, number))
        journal.write(Round(round=number, contributed={site: 0}, missing={}, steps=watch.steps - steps))
    claimed = ledger_replay.stated(subject, path, site, plan.delta)
    judged = plan.evaluation is None or _is_judged(hospital, start)
    if plan.evaluation is not None and judged:
        journal.write(Evaluated(contributed={site: 0}, missing={}))
    hospital.ledger.close()
    recording = recorded(watch, roll, site, task, plan, patients, start, rounds * plan.steps_per_round)
    departures = ledger_replay.releases_left(folder / "journal.jsonl").get(site, [])
    replayed = ledger_replay.replay(subject, folder, site, site, study, plan, departures)
    crash = ledger_replay.crash_and_order(
        site,
        booked_first=all(booked_first),
        kept=_is_kept(audited, folder / "crash.sqlite"),
        refused=_is_refused(audited, path) if rounds == plan.rounds else True,
    )
    allowed = exact("evaluation", f"{site}: the figures that the study asks for were refused", holds=judged)
    return Rehearsal(recording, replace(replayed, checks=(*replayed.checks, *crash, allowed)), claimed)


def _is_judged(hospital: Site, model: Arrays) -> bool:
    try:
        hospital.release(SCORE_HISTOGRAM.name, Request(model))
    except (BudgetError, WireError):
        return False
    return True


def plan_of(hospital: Site) -> PrivacyPlan:
    """Return the plan by which a hospital of a private study trains."""
    assert hospital.plan is not None
    return hospital.plan


def _is_booked(path: Path, number: int) -> bool:
    return any(row.round == number for row in read_ledger(path))


def _is_kept(audited: AuditedSite, path: Path) -> bool:
    """Return whether a round stays spent in a reopened ledger when its training fails at the first step."""

    def crash() -> None:
        raise _Crash

    hospital = audited.watched(path, Watch(before=crash))
    _ends(_Crash, lambda: hospital.fit(1, audited.start))
    hospital.ledger.close()
    plan = plan_of(hospital)
    again = audited.subject.ledger(path)
    spent = again.spent(audited.site, delta=plan.delta)
    again.close()
    return spent >= plan.epsilon(rounds=1) - 1e-9


def _is_refused(audited: AuditedSite, path: Path) -> bool:
    """Return whether one more round than planned is refused before its first step."""
    watch = Watch()
    hospital = audited.watched(path, watch)
    refused = _ends(BudgetError, lambda: hospital.fit(1, _nudged(audited.start, 0)))
    hospital.ledger.close()
    return refused and not watch.steps


def _ends(kind: type[BaseException], call: Callable[[], object]) -> bool:
    try:
        call()
    except kind:
        return True
    return False


def _nudged(start: Arrays, number: int) -> Arrays:
    """Return the start with one weight moved by less than any test sees."""
    name = next(iter(start))
    array = start[name].copy()
    array.flat[-1] += np.float32(1e-6 * (number + 1))
    return {**start, name: array}


def _still(local: Local) -> Local:
    """Return the same steps at learning rate 0."""
    return replace(local, learning_rate=STILL.learning_rate, optimizer="sgd", momentum=0.0, weight_decay=0.0)
