"""The coordinator's Flower `Grid` for real hospitals.

It seals what is sent, opens what comes back, and repeats what was lost. `conduct` sends and receives plain messages of
configs/wire.py, as in a simulation. Here each gets a seal (who to whom, run, round, study, message, hash of the
content), each reply's seal is checked against the hospital's own key, and a hospital that was away is asked again: it
answers the same instruction with the same bytes, so that nothing is trained or spent twice. Nothing here knows what a
model is.
"""

import logging
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from configs import wire
from configs.errors import WireError
from configs.frame import Frame, MappedFile
from configs.pieces import MAX_INLINE
from configs.records.run_journal import Received, Refused, Repeated, Sent
from configs.seal import COORDINATOR, Statement
from server.attendance import Attendance, Connection
from server.codes import BAD_SEAL, BROKEN_REPLY, NOT_REACHED, OWN_CODES, REVOKED
from server.membership import Member
from server.shelf import Shelf
from server.superlink.assignment import Directory, Sender, Watch
from server.superlink.client import Node
from server.superlink.instructions import (
    Instruction,
    addressed,
    content_for,
    facts,
)
from server.superlink.talks import FORMS, RELEASE, Talks
from strategies.exchange.flower import Run
from strategies.exchange.messages import opened, read, seal, shelve, shelved, signed_in, to_frame, unseal
from strategies.releases.registry import arrays_of

log = logging.getLogger("archipel.sealed_grid")
LOOK_S = 1.0  # how often to look which nodes are connected while replies are awaited
PROPOSAL_S = 43_000  # for how long a proposal holds; Flower keeps a message for 43,200 s
OVERHEAD_BYTES = 1_000_000  # of a large reply, beyond what was sent
AWAY = "away/"  # stands for Flower's id of an instruction that did not reach its hospital
RECORDS_FROM = 2  # the protocol from which a hospital is given its own statement back


class Carrier(Protocol):
    """The part of server/superlink/grid.py that a sealed grid uses."""

    @property
    def run(self) -> Run:
        """Return run information."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages and return their ids."""

    def await_messages(self, message_ids: Iterable[str], wait_s: float) -> Iterable[Message]:
        """Return the replies that are there, as soon as something new came in, or after so long."""


class SealedGrid(Grid):
    """A Grid for one run."""

    def __init__(
        self,
        carrier: Carrier,
        directory: Directory,
        sender: Sender,
        *,
        watch: Watch | None = None,
        absent_after_s: float = 60.0,
        attendance: Attendance | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        """Take over one run's messages.

        Args:
            shelf: where large messages lie as files; without one they pass the SuperLink.
        """
        self._carrier, self._nodes, self._members = carrier, directory.nodes, directory.members
        self._run_name, self._study, self._key, self._journal = sender.run, sender.study, sender.key, sender.journal
        self._watch = watch or Watch()
        self._talks, self._statements = Talks(directory.talks, self._watch.talk), directory.statements
        self._absent_after_s, self._attendance = absent_after_s, attendance or Attendance()
        self._proposals: dict[str, Instruction] = {}
        self._shelf = shelf
        self._offered: dict[tuple[str, str], str] = {}  # (hospital, message) -> the large content that it may fetch

    # What Flower asks of a Grid

    def set_run(self, run: Run) -> None:
        """Ignore it: the run is the carrier's."""

    @property
    def run(self) -> Run:
        """Return run information."""
        return self._carrier.run

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        """Refuse: Flower deprecates it, nothing here uses it."""
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refuse: unsealed messages do not leave."""
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refuse: unsealed messages do not arrive."""
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes of admitted hospitals that are connected now."""
        return sorted(node.node_id for node, _ in self._present().values() if node.online)

    def site_of(self, node_id: int) -> str | None:
        """Return the hospital that a node belongs to, by the key that it was admitted with."""
        return next((site for site, (node, _) in self._present().items() if node.node_id == node_id), None)

    def stopped(self) -> bool:
        """Return whether a person asked the run to stop."""
        return self._watch.stopped()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send each message sealed, and gather replies until all are there or the time is over.

        A reply that is not what it should be comes back as an error of that hospital, never as content.
        """
        deadline = time.monotonic() + (timeout if timeout is not None else float("inf"))
        expires = 0 if timeout is None else int(time.time() + timeout)
        readable, replies = self._divided(list(messages))
        waiting = self._send(readable, expires)
        looked = time.monotonic()
        while waiting and (remaining_s := deadline - time.monotonic()) > 0 and not self._watch.stopped():
            replies += self._collect(waiting, min(remaining_s, LOOK_S))
            if time.monotonic() - looked > LOOK_S:
                looked = time.monotonic()
                replies += self._without_revoked(waiting)
                self._repeat(waiting)
                if self._only_absent(waiting, replies):
                    break
        self._withdraw()
        return replies

    def _only_absent(self, waiting: Mapping[str, Instruction], replies: list[Message]) -> bool:
        """Return whether only absent hospitals without an instruction are missing, and the quorum is there."""
        quorum = self._study.training.quorum
        if any(sent.pushed for sent in waiting.values()) or sum(r.has_content() for r in replies) < quorum:
            return False
        connections = self.connections()
        offline = [connections[s.member.site] for s in waiting.values() if s.member.site in connections]
        return all(not c.online and c.offline_s >= self._absent_after_s for c in offline)

    # What a gathering asks of a post

    def connections(self) -> dict[str, Connection]:
        """Return the nodes of admitted hospitals, by the hospital's name."""
        return self._attendance.note({site: node for site, (node, _) in self._present().items()})

    def send(self, messages: Iterable[Message]) -> None:
        """Send proposals; `look` finds their replies, whenever they come."""
        now = time.time()
        for flower_id in [flower_id for flower_id, sent in self._proposals.items() if sent.expires < now]:
            del self._proposals[flower_id]
        self._proposals |= self._send(list(messages), int(now) + PROPOSAL_S)

    def look(self) -> list[Message]:
        """Return the replies to proposals that came since; an error stands for each that did not reach its hospital."""
        replies = self._without_revoked(self._proposals) + self._collect(self._proposals)
        lost = [flower_id for flower_id in self._proposals if flower_id.startswith(AWAY)]
        originals = [self._proposals.pop(flower_id).original for flower_id in lost]
        return replies + [Message(Error(code=NOT_REACHED, reason="not reached"), reply_to=o) for o in originals]

    # Sending

    def _divided(self, messages: list[Message]) -> tuple[list[Message], list[Message]]:
        """Return the messages that their hospitals can read, and errors in the place of the others."""
        readable: list[Message] = []
        errors: list[Message] = []
        for message in messages:
            site = self.site_of(message.metadata.dst_node_id)
            if site is not None and (reason := self._talks.obstacle(site, message)):
                errors.append(Message(Error(code=wire.UPGRADE, reason=reason), reply_to=message))
            else:
                readable.append(message)
        return readable, errors

    def _send(self, messages: list[Message], expires: int) -> dict[str, Instruction]:
        """Seal, send, and return what is under way by Flower's message id; absent nodes are sent theirs later."""
        by_node = {node.node_id: (node, member) for node, member in self._present().values()}
        frames: dict[object, Frame] = {}  # of equal contents, hashed once
        statements = self._statements()
        sealed, sent, pending = [], [], {}
        for message in messages:
            node_id = message.metadata.dst_node_id
            if node_id not in by_node:
                log.warning("a hospital was revoked or is gone; nothing is sent to it")
                continue
            node, member = by_node[node_id]
            record = statements.get(member.site) if self._talks.of(member.site).protocol >= RECORDS_FROM else None
            sent_content = content_for(message, record)
            frame = self._frame(message, sent_content, frames)
            statement = self._state(member.site, frame, expires)
            if not node.online:
                pending[AWAY + statement.message] = Instruction(
                    message, member, statement, node.since, expires, pushed=False
                )
                continue
            beside = None if message.metadata.message_type == wire.HELLO else record
            records = self._shelved(seal(sent_content, frame, statement, self._key, beside), frame, member, statement)
            sealed.append(addressed(records, message))
            sent.append(Instruction(message, member, statement, node.since, expires))
            self._journal.write(Sent(**facts(statement, frame.form, frame.size), journal=statement.journal))
        ids = self._carrier.push_messages(sealed) if sealed else []
        return {message_id: s for message_id, s in zip(ids, sent, strict=True) if message_id} | pending

    def _shelved(self, records: RecordDict, frame: Frame, member: Member, statement: Statement) -> RecordDict:
        """Return the message without its content, where that is large and its hospital can fetch it as a file."""
        able = self._talks.of(member.site).protocol >= wire.OPTIONAL_FROM and not member.without_certificate
        if self._shelf is None or not able or frame.size <= MAX_INLINE:
            return records
        parts = list(frame.encode())
        size = sum(map(len, parts))
        self._shelf.offer(statement.content, parts, member.site, statement.message, most=size + OVERHEAD_BYTES)
        self._offered[member.site, statement.message] = statement.content
        return shelve(records, size)

    def _withdraw(self) -> None:
        """End what was offered in an exchange that is over."""
        if self._shelf is not None:
            for (site, message), shared in self._offered.items():
                self._shelf.withdraw(site, message)
                self._shelf.forget(shared)
            self._offered.clear()

    def _frame(self, message: Message, records: RecordDict, frames: dict[object, Frame]) -> Frame:
        form = FORMS[message.metadata.message_type][0]
        arrays, config = records.get(wire.ARRAYS), records.get(wire.CONFIG)
        equal = id(arrays), tuple(sorted(config.items())) if isinstance(config, ConfigRecord) else ()
        hashed = frames.get(equal) if arrays is not None else None
        frame = hashed or to_frame(form, records, arrays_of(form, self._study))
        if arrays is not None:
            frames[equal] = frame
        return frame

    def _state(self, site: str, frame: Frame, expires: int) -> Statement:
        return Statement(
            sender=COORDINATOR,
            to=site,
            run=self._run_name,
            round=int(frame.fields.get("round", 0)),
            study=self._study.sha256,
            message=uuid.uuid4().hex,
            content=frame.sha256,
            answers="",
            expires=expires,
            journal=self._journal.head,
            epsilon="",
        )

    def _without_revoked(self, waiting: dict[str, Instruction]) -> list[Message]:
        """Replace pending instructions to revoked hospitals by errors, so that the round does not wait."""
        members = self._members()
        gone = [flower_id for flower_id, sent in waiting.items() if sent.member.site not in members]
        return [
            Message(Error(code=REVOKED, reason="it was revoked"), reply_to=waiting.pop(flower_id).original)
            for flower_id in gone
        ]

    def _repeat(self, waiting: dict[str, Instruction]) -> None:
        """Repeat a request to hospitals with a node that came back, or was restarted, after it."""
        present = self._present()
        again = {
            flower_id: sent
            for flower_id, sent in waiting.items()
            if sent.member.site in present and present[sent.member.site][0].online and not sent.repeated
            if present[sent.member.site][0].since != sent.since or flower_id.startswith(AWAY)
        }
        for flower_id, sent in again.items():
            sent.repeated = True
            if flower_id.startswith(AWAY):
                del waiting[flower_id]
            if sent.pushed:
                self._journal.write(Repeated(site=sent.member.site, message=sent.statement.message))
            waiting.update(self._send([sent.original], sent.expires))

    # Receiving

    def _collect(self, waiting: dict[str, Instruction], wait_s: float = 0.0) -> list[Message]:
        """Return the replies that are there, awaited so long; what they answer waits no more, in none of its copies."""
        pushed = {flower_id for flower_id in waiting if not flower_id.startswith(AWAY)}
        replies = []
        for reply in self._carrier.await_messages(pushed, wait_s) if pushed or wait_s else ():
            sent = waiting.pop(reply.metadata.reply_to_message_id, None)
            if sent is None:
                continue
            if (opened := self._open(reply, sent)) is not None:
                replies.append(opened)
                for flower_id in [f for f, other in waiting.items() if other.original is sent.original]:
                    del waiting[flower_id]
            elif not sent.repeated:  # not reached: it is asked again when it is back
                waiting[AWAY + sent.statement.message] = sent
        return replies

    def _open(self, reply: Message, sent: Instruction) -> Message | None:
        """Return the reply without its seal; an error that names its reason; None if the hospital was not reached."""
        if reply.has_error() and reply.error.code != BROKEN_REPLY:
            log.info("%s: %s", sent.member.site, reply.error.reason)
            return None
        try:
            if reply.has_error():
                raise WireError(str(reply.error.reason))
            if sent.member.site not in self._members():
                raise WireError("it was revoked while it worked")
            return self._unsealed(reply.content, sent)
        except WireError as error:
            site, message = sent.member.site, sent.statement.message
            self._journal.write(Refused(site=site, answers=message, why=str(error)[:200]))
            log.warning("%s: its reply is refused: %s", sent.member.site, error)
            return Message(Error(code=BAD_SEAL, reason=f"its reply was refused: {error}"[:300]), reply_to=sent.original)

    def _unsealed(self, records: RecordDict, sent: Instruction) -> Message:
        apart = shelved(records)
        signed = signed_in(records)
        packed: bytes | MappedFile | None
        answer, packed = unseal(records, sent.member.signing_key)
        refusal = isinstance(packed, bytes) and Frame.decode(packed).form == "refusal"  # always small
        if apart is not None and self._shelf is not None:
            packed = self._shelf.taken(sent.member.site, sent.statement.message)
        form = "refusal" if refusal else FORMS[sent.original.metadata.message_type][1]
        frame, records = opened(form, records, packed, arrays_of(form, self._study))
        question = sent.statement
        answer.require(
            sender=question.to,
            to=COORDINATOR,
            run=question.run,
            round=question.round,
            study=question.study,
            content=frame.sha256,
            answers=question.message,
        )
        if form == "hello reply":
            self._talks.listen(question.to, frame)
        self._journal.write(Received(**facts(answer, form, frame.size), their_journal=answer.journal))
        if answer.sequence:
            self._watch.statement(question.to, signed)
        if answer.epsilon:
            self._watch.epsilon(question.to, answer.epsilon)
        if refusal:
            fields = dict(read(form, records).fields)
            if fields["code"] in OWN_CODES:
                raise WireError("refusal: expected a code of a hospital's, found one of the coordinator's own")
            if sent.original.metadata.message_type == wire.HELLO and fields["code"] in (wire.MISREAD, wire.UPGRADE):
                self._talks.forget(question.to)  # next time it is asked in the first protocol
                fields["code"] = wire.UPGRADE
                fields["reason"] = f"its release of Archipel does not know this study; upgrade its node to {RELEASE}"
            return Message(Error(code=fields["code"], reason=fields["reason"]), reply_to=sent.original)
        return Message(records, reply_to=sent.original)

    def _present(self) -> dict[str, tuple[Node, Member]]:
        """Return each admitted hospital's node, where it has one, by the hospital's name."""
        by_key = {member.public_key: member for member in self._members().values()}
        return {
            by_key[node.public_key].site: (node, by_key[node.public_key])
            for node in self._nodes().values()
            if node.public_key in by_key
        }
