"""A run's session with its hospitals.

It gathers them, asks for a release, judges the replies, writes the journal, and stops. What is asked for, and what
becomes of it, is the procedure's part (server/procedures/).
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from flwr.app import Message
from flwr.serverapp import Grid

from configs import wire
from configs.errors import WireError
from configs.journal import Journal
from configs.records.kinds import Kind
from configs.records.run_journal import Again, End, Gathered, Joined, Round
from configs.schema import Study
from server.attempts import Attempts
from server.checkpoint import Checkpoints
from server.gathering import Gathering, Patience
from server.outcome import Observer, Outcome, PostponedError, Released, RoundRecord
from server.proposals import Post, Roster, gather_once, plain, shortage
from server.rounds import Rounds
from strategies.exchange.arrays import Arrays
from strategies.exchange.messages import content, read
from strategies.releases.base import Release
from strategies.releases.registry import is_asked_of

log = logging.getLogger("archipel.server")
LONGEST_REST_S = 1.0  # between two looks whether somebody asked to stop
LATE = "no reply in time"
ROUND_TIMEOUTS, LEAST_PART = 2, 0.5  # a round's attempts last so many time-outs; one is begun with half of one left
Accepted = TypeVar("Accepted")
Accept = Callable[[Message, str], Accepted]  # a reply and its hospital; raises WireError where it does not count


@dataclass(frozen=True)
class Deployment:
    """The settings of a run with real hospitals: time to connect and to approve, presence, and a way to stop.

    `post` carries proposals, `presence` is told what each hospital does, `stopped` is asked between rounds. `ready` are
    the hospitals that are known to take part (server/herald.py); where their quorum does not come, a run is postponed.
    """

    post: Post
    patience: Patience
    presence: Callable[[str, str], None] = lambda *_: None
    stopped: Callable[[], bool] = lambda: False
    ready: Sequence[str] = ()


@dataclass(frozen=True)
class Answers(Generic[Accepted]):
    """The replies to one instruction: what was accepted of each hospital, and why the others do not count."""

    accepted: Mapping[str, Accepted]
    missing: Mapping[str, str]
    attempts: Attempts

    @property
    def made_anew(self) -> Mapping[str, int]:
        """Return the hospitals that were asked anew for a lost release, with the last attempt."""
        return self.attempts.made


class Session:
    """One run of a study over a grid. `rounds` says how far it is, `roster` which hospitals are asked."""

    def __init__(
        self,
        grid: Grid,
        study: Study,
        *,
        checkpoints: Checkpoints | None = None,
        journal: Journal | None = None,
        observer: Observer = lambda *_: None,
        initial: Arrays | None = None,
        deployment: Deployment | None = None,
    ) -> None:
        self.grid, self.study, self.observer, self.deployment = grid, study, observer, deployment
        self.checkpoints, self.initial = checkpoints, initial
        self.rounds = Rounds(study.training.rounds, study.training.quorum)
        self.roster = Roster({}, {}, {})
        self.hello_bytes: Mapping[str, int] = {}
        self._journal = journal
        self._gathering: Gathering | None = None

    # Hospitals

    def open(self, *, resumed: bool) -> bool:
        """Gather the hospitals; return whether the run can go on, as `rounds` says otherwise.

        Args:
            resumed: whether it goes on from a checkpoint.

        Raises:
            PostponedError: hospitals that were ready are not there.
        """
        self._gather()
        trainers, quorum = self.trainers, self.study.training.quorum
        nodes = {**trainers.asked, **trainers.away}
        if self.stopped and not resumed:
            self.rounds = self.rounds.abandon("stopped by the consortium before it began", wire.STOPPED)
        elif len(nodes) < quorum and self.stopped:
            self.rounds = self.rounds.abandon("stopped by the consortium before it went on", wire.STOPPED)
        elif len(nodes) < quorum:
            gathering = self._gathering
            if gathering is not None and self.deployment and self.deployment.ready and not gathering.hopeless:
                raise PostponedError("hospitals that take part are not connected any more")
            self.rounds = self.rounds.abandon(shortage(nodes, quorum, trainers.missing), wire.FEW_TAKE_PART)
        return self.rounds.outcome != "INCOMPLETE"

    @property
    def trainers(self) -> Roster:
        """Return the roster of the hospitals that train; others are asked for figures of test patients alone."""
        return self.roster.only(self.study.trains_at)

    def _gather(self) -> None:
        """Propose the study to its hospitals; return those that take part, and the bytes that each sent."""
        if self.deployment is None:
            timeout_s = self.study.training.round_timeout_s
            self.roster, self.hello_bytes = gather_once(self.grid, self.study, timeout_s, self.write)
        else:
            deployment = self.deployment
            gathering = self._gathering = Gathering(
                self.study,
                deployment.post,
                deployment.patience,
                presence=deployment.presence,
                write=self.write,
                expected=deployment.ready,
            )
            gathering.step()
            while not gathering.over and not self.stopped:
                self._rest(gathering.rest_s)
                gathering.step()
            self.roster, self.hello_bytes = gathering.roster(), dict(gathering.bytes)
            for site, why in self.roster.missing.items():
                deployment.presence(site, why)
        sites, missing = tuple(sorted({*self.roster.asked, *self.roster.away})), dict(self.roster.missing)
        sent = dict(self.hello_bytes)
        self.write(Gathered(study_sha256=self.study.sha256, sites=sites, bytes=sent, missing=missing))

    def look_again(self) -> None:
        """Bring `roster` up to now; hospitals that came since the last time take part from here on."""
        if self._gathering is None:
            return
        last, self.roster = self.roster, self._gathering.roster()
        new = sorted({*self.roster.asked, *self.roster.away} - {*last.asked, *last.away})
        if new:
            sent = {site: self._gathering.bytes[site] for site in new}
            self.write(Joined(sites=tuple(new), bytes=sent, before_round=self.rounds.current))

    # Releases

    def ask_once(self, kind: Release, shared: Arrays | None = None) -> Answers[Arrays]:
        """Ask each hospital for a release that is made once. `shared`: the model, sent where it is about one."""
        fields: dict[str, str | int] = {"study_sha256": self.study.sha256}
        instructed, replied = kind.instructed(self.study), kind.arrays(self.study)
        instruction = content(kind.form, fields, shared if instructed else None, instructed)
        roster = self.roster.only(lambda site: is_asked_of(kind, self.study, site))
        judge = kind.judge(self.study, shared or {}, lambda _: {})

        def accept(reply: Message, site: str) -> Arrays:
            arrays = read(kind.reply, reply.content, replied).arrays
            judge.require(site, arrays)
            return arrays

        messages = [
            Message(instruction, dst_node_id=node, message_type=kind.message_type) for node in roster.asked.values()
        ]
        return self.ask(messages, kind.number_of(0), accept, roster)

    def ask(self, messages: list[Message], number: int, accept: Accept[Accepted], roster: Roster) -> Answers[Accepted]:
        """Send one release's instructions, and take what `accept` makes of each hospital's reply.

        Lost releases are asked for anew, as long as there is spare. All attempts together last at most
        two time-outs, however late each hospital says that it lost its release.

        Args:
            number: the round's, or the kind's own (strategies/releases/base.py), for the journal.
            roster: of the hospitals that the release concerns.
        """
        attempts, timeout_s = Attempts(self.study, messages, roster.asked), self.study.training.round_timeout_s
        until = time.monotonic() + ROUND_TIMEOUTS * timeout_s
        replies = newest = self._exchange(messages, timeout_s)
        while not self.stopped:
            left_s = until - time.monotonic()
            attempts.note(newest)
            if left_s < LEAST_PART * timeout_s or not (again := list(attempts.again())):
                break
            for retry in again:
                why = plain(retry.why)
                self.write(Again(site=retry.site, round=number, attempt=retry.attempt, why=why))
                log.warning(
                    "%s: its release was lost (%s); it is asked anew, attempt %d", retry.site, why, retry.attempt
                )
                if self.deployment:
                    self.deployment.presence(retry.site, f"its release was lost; it makes it anew ({retry.attempt})")
            newest = self._exchange([retry.message for retry in again], min(timeout_s, left_s))
            replies = replies + newest
        return Answers(*self._judge(replies, accept, roster), attempts)

    def _exchange(self, messages: list[Message], timeout_s: float) -> list[Message]:
        return list(self.grid.send_and_receive(messages, timeout=timeout_s)) if messages else []

    def _judge(
        self, replies: Sequence[Message], accept: Accept[Accepted], roster: Roster
    ) -> tuple[dict[str, Accepted], dict[str, str]]:
        """Accept each hospital's first reply, and say why the others do not count (WireErrors in words)."""
        site_of = {node: site for site, node in roster.asked.items()}
        accepted: dict[str, Accepted] = {}
        missing = {**roster.missing, **dict.fromkeys(roster.asked, LATE)}
        for reply in replies:
            site = site_of.get(reply.metadata.src_node_id)
            if site is None or site in accepted or not (reply.has_error() or reply.has_content()):
                continue  # a stranger, a second answer, or none at all
            if reply.has_error():
                missing[site] = plain(reply.error.reason)
                continue
            try:
                accepted[site] = accept(reply, site)
            except WireError as error:
                missing[site] = str(error)[:200]
                continue
            del missing[site]
        return accepted, self._explained(missing)

    def _explained(self, missing: dict[str, str]) -> dict[str, str]:
        """Say of hospitals that did not reply in time, where it is so, that they are not connected."""
        if self._gathering is None or LATE not in missing.values():
            return missing
        self._gathering.step()
        reasons = {site: self._gathering.absence(site) for site, why in missing.items() if why == LATE}
        return missing | {site: f"{LATE}; {absence}" for site, absence in reasons.items() if absence}

    # Rounds

    def close(self, contributed: Mapping[str, int], answers: Answers[Accepted], refused: str = "") -> None:
        """Judge the open round by its contributors; say which releases no resume can have.

        Args:
            refused: what else a reader should know of hospitals that did not contribute.
        """
        self.rounds = self.rounds.close(set(contributed))
        if self.rounds.outcome == "INCOMPLETE":
            why = answers.attempts.explained(self.rounds.why) + refused
            self.rounds = self.rounds.abandon(why, self.rounds.code)

    def end(self, outcome: Outcome) -> Outcome:
        """Write the end of the run."""
        outcome.rounds = self.rounds
        self.write(End(outcome=self.rounds.outcome, why=self.rounds.why))
        return outcome

    def outcome(self, model: Arrays) -> Outcome:
        """Return the outcome of a run that has not begun."""
        return Outcome(self.rounds, model, hello_bytes=self.hello_bytes)

    @property
    def stopped(self) -> bool:
        """Return whether the consortium asked to stop."""
        return self.deployment is not None and self.deployment.stopped()

    def _rest(self, seconds: float) -> None:
        """Wait, but not longer than a second once the consortium asked to stop."""
        over = time.monotonic() + seconds
        while (remaining_s := over - time.monotonic()) > 0 and not self.stopped:
            time.sleep(min(remaining_s, LONGEST_REST_S))

    # The journal

    def note_round(self, record: RoundRecord) -> None:
        """Write what happened in a round."""
        self.write(
            Round(
                attempts=record.attempts,
                contributed=record.contributed,
                missing=record.missing,
                round=record.round,
                seconds=round(record.seconds, 4),
            )
        )

    def write(self, record: Kind) -> None:
        """Write a record, where there is a journal."""
        if self._journal:
            self._journal.write(record)


def released(answers: Answers[Arrays]) -> Released:
    """Return what was accepted of a release that was asked for once."""
    return Released(answers.accepted, answers.missing)


def sent_bytes(arrays: Mapping[str, Arrays]) -> dict[str, int]:
    """Return the bytes of each hospital's arrays, their names included."""
    return {site: sum(len(name) + array.nbytes for name, array in named.items()) for site, named in arrays.items()}
