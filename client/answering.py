"""How a hospital's node answers one message.

A message is heard, read, admitted, worked on and checked; its reply is kept, sealed and sent. Nothing that arrives is
executed, nothing leaves that was not written to the journal and the outbox first. A message that is not signed by the
coordinator, for this hospital, once, is not answered.
"""

import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace

from client import ending, trust
from client.audit import instruction_of
from client.books import Books
from client.egress import OF_ROWS, REFUSAL, SENTENCES, refusal
from client.kits import standing_of
from client.over import Over
from client.releases import forget_awaited, note_awaited, proposed, spoken
from client.timing import quantum_s, wait_until_public
from client.uplink.base import EndedError, Incoming, RefusedError, UnreachableError, Uplink
from client.uplink.hospital import max_message_bytes
from client.worker import ALONE, STATUS
from client.worker_process import WorkerPort
from configs import wire
from configs.errors import ArchipelError, ReleaseError, RunError, WireError
from configs.frame import Frame, MappedFile
from configs.pieces import MAX_INLINE
from configs.records.site_journal import Approved, Egress, Proposed, Received, Refused, Repeated
from configs.schema import Study
from configs.seal import COORDINATOR, Signed, Statement
from configs.shown import DIGITS
from configs.site import SiteConfig
from configs.wire import ArraySpec
from strategies.exchange.arrays import reads_as_text
from strategies.exchange.messages import given_back, opened, received, records_of, seal, shelve, shelved, unseal
from strategies.releases.registry import arrays_of, release_of

log = logging.getLogger("archipel.node")
FORMS = wire.ASKS


@dataclass(frozen=True)
class Outcome:
    """A reply before it is checked.

    Attributes:
        why: why it is a refusal, if it is one; for the hospital's own journal.
        instruction: what names the instruction in the outbox.
        reading: the keyed digest of the rows that the answer is made of.
    """

    reply: Frame
    why: str = ""
    instruction: str = ""
    reading: str = ""


class Answering:
    """Answers messages, one after the other."""

    def __init__(self, config: SiteConfig, coordinator_key: str, books: Books, worker: WorkerPort) -> None:
        self.config, self._coordinator_key = config, coordinator_key
        self._books, self._audit, self._admissions = books, books.audit, books.admissions
        self._worker, self._limit = worker, max_message_bytes(config)
        self._bundles: dict[int, str] = {}  # run -> digest of the study in its bundle
        self.over = Over(config, books, worker)

    def answer(self, uplink: Uplink, incoming: Incoming) -> None:
        """Answer one message, unless it is not the coordinator's.

        Raises:
            UnreachableError, RefusedError, EndedError: as the uplink does. OSError, sqlite3.Error: the disk is full.
        """
        try:
            size = shelved(incoming.records)
            statement, packed = self._opened(uplink, incoming, size)
        except WireError as error:  # not written by the coordinator, or received before: no answer
            self._audit.note(Refused(message="", why=str(error)))
            log.warning("%s", error)
            return
        outcome = self._judged(uplink, incoming, statement, packed)
        reply, reading = spoken(outcome.reply, uplink.protocol), outcome.reading
        del packed
        specs = self._permitted(reply, statement, FORMS.get(incoming.type, ""))
        if specs is None:
            reply, specs = refusal(RunError("egress")), {}
        incoming.message.content.clear()
        try:
            outcome = replace(outcome, reply=reply)
            message = self._kept(outcome, statement, proposal=incoming.type == wire.HELLO)
        except OSError as error:
            log.error("nothing leaves, because it cannot be kept: %s; make room in %s", error, self.config.folder)
            return
        del outcome
        reply_statement = self._statement(reply, statement, message, uplink.protocol)
        records = seal(records_of(reply, specs), reply, reply_statement, self._books.key)
        if size is not None and reply.size > MAX_INLINE:  # it is in the outbox: from there it goes as a file
            path = self.config.outbox / f"{message}.frame"
            records = shelve(records, uplink.store(statement.run, statement.message, path))
        del reply
        uplink.reply(incoming, records)
        self.over.go_on()
        if reading and self._audit.rows_changed(statement.study):  # once it has left: no time follows from it
            log.warning(
                "study %s, round %d: other rows were read than for the answer before; if nobody here changed them, "
                "look what the export holds: archipel-site review --data %s",
                *(statement.study[:DIGITS], statement.round, statement.study[:DIGITS]),
            )

    def _statement(self, reply: Frame, statement: Statement, message: str, protocol: int) -> Statement:
        """Return what is signed of a reply."""
        return Statement(
            sender=self.config.site,
            to=COORDINATOR,
            run=statement.run,
            round=statement.round,
            study=statement.study,
            message=message,
            content=reply.sha256,
            answers=statement.message,
            expires=0,
            journal=self._audit.journal.head,
            epsilon=self._spent(statement.study),
            **self._books.records.stated(protocol),
        )

    def _kept(self, outcome: Outcome, statement: Statement, *, proposal: bool) -> str:
        """Keep a reply before it leaves, and return its id; an equal refusal of the same proposal is counted only.

        Raises:
            OSError: the disk is full.
        """
        message, study, reply, why = uuid.uuid4().hex, statement.study, outcome.reply, outcome.why
        if refuses := reply.form == REFUSAL:
            why = why or str(reply.fields["reason"])
            if self._audit.was_refused(reply, study, outcome.instruction, why):
                return self._audit.count_refusal(statement.message, study, outcome.instruction)
            question = f"round {statement.round}" if statement.round else "asked whether it takes part"
            log.info("study %s, %s: answered no: %s", study[:DIGITS], question, why)
            self._audit.note(Refused(message=statement.message, code=int(reply.fields["code"]), why=why))
        self._audit.keep(
            reply,
            message,
            study=study,
            round=statement.round,
            answers=statement.message,
            content=outcome.instruction,
            why=why,
            reading=outcome.reading,
        )
        if refuses and proposal:
            self._audit.remember_refusal(reply, message, study, outcome.instruction, why)
        return message

    def _opened(
        self, uplink: Uplink, incoming: Incoming, size: int | None
    ) -> tuple[Statement, bytes | MappedFile | None]:
        """Return what the coordinator signed of a new message for this hospital, and its content.

        Args:
            size: of a content that is sent apart; it is fetched once all else is as it should be.

        Raises:
            SealError: anything else. WireError: its content did not come whole.
        """
        records = given_back(incoming.records)
        statement, packed = unseal(incoming.records, self._coordinator_key)
        trust.hear(trust.Arrival(statement, self.config.site, used=self._audit.seen(statement.message))).require()
        self._books.records.hear(records)
        if size is None:
            return statement, packed
        return statement, uplink.fetch(statement.run, statement.message, size, self.config.folder)

    def _judged(
        self, uplink: Uplink, incoming: Incoming, statement: Statement, packed: bytes | MappedFile | None
    ) -> Outcome:
        """Return the reply to a message that the coordinator sent: the worker's, or a refusal."""
        instruction, frame = statement.content, None
        try:
            frame, study = self._read(uplink, incoming, statement, packed)
            instruction = instruction_of(frame, statement.content)
            incoming.records.clear()
            if frame.form != "hello":
                self._note_received(statement, frame)
            about = study.sha256 if frame.form == "hello" else str(frame.fields["study_sha256"])
            number = int(frame.fields.get("round", 0))
            trust.match(trust.Content(statement, about, number, frame.sha256, now=time.time())).require()
            self._check_bundle(uplink, incoming.run_id, study)
            self._admit(study, frame)
            if frame.form == "hello":  # one that waits is asked again and again: it is noted once
                self._note_received(statement, frame)
            return replace(self._worked(statement, frame, instruction), instruction=instruction)
        except (UnreachableError, RefusedError, EndedError):
            raise
        except ArchipelError as error:
            reply, why = refusal(error), str(error)
            again = self._audit.was_refused(spoken(reply, uplink.protocol), statement.study, instruction, why)
            if not again and not self._audit.seen(statement.message):
                self._note_received(statement, frame)
            return Outcome(reply, why, instruction)

    def _note_received(self, statement: Statement, frame: Frame | None) -> None:
        """Note a message; of one that could not be read, only what its signature says."""
        received = Received(message=statement.message, run=statement.run, study=statement.study, round=statement.round)
        if frame is not None:
            received = replace(
                received,
                form=frame.form,
                bytes=frame.size,
                content=frame.sha256,
                their_journal=statement.journal,
            )
        self._audit.note(received)

    def _read(
        self, uplink: Uplink, incoming: Incoming, statement: Statement, packed: bytes | MappedFile | None
    ) -> tuple[Frame, Study]:
        """Return the message as a frame of its form, and the study that it is about.

        Raises:
            WireError: it is of no form that a hospital receives. AdmissionError: its study never arrived here.
        """
        form, admission = FORMS.get(incoming.type), self._admissions.find(statement.study)
        trust.know(trust.Subject(form, proposed=admission is not None)).require()
        assert form is not None
        if form == "hello" or admission is None:
            frame, _ = opened(form, incoming.records, packed)
            self._books.records.hear(Signed.parse(str(frame.fields.get("record", ""))))
            return frame, self._proposed(str(frame.fields["study"]), statement.study, uplink.release)
        study = admission.study
        frame, _ = opened(form, incoming.records, packed, arrays_of(form, study))
        return frame, study

    def _proposed(self, text: str, digest: str, theirs: str) -> Study:
        """Return the study in a proposal; one that only another release knows is kept for `check`.

        Raises:
            WireError, ReleaseError: see client/releases.py.
        """
        try:
            study = proposed(text, digest, theirs)
        except ReleaseError:
            note_awaited(self.config.folder, digest, theirs)
            raise
        forget_awaited(self.config.folder)
        return study

    def _check_bundle(self, uplink: Uplink, run_id: int, study: Study) -> None:
        if self._bundles.get(run_id) == study.sha256:
            return
        trust.enclose(trust.Bundle(study, *uplink.bundle(run_id))).require()
        self._bundles = {run_id: study.sha256}

    def _admit(self, study: Study, frame: Frame) -> None:
        """Let admitted studies in; others wait for a person.

        Raises:
            AdmissionError, PolicyError, WireError: it may not run, or not yet, or does not ask for this.
        """
        admission = self._admissions.find(study.sha256)
        if admission is None:
            admission = self._admissions.propose(study.sha256, study.name, study.canonical)
            self._audit.note(Proposed(study=study.sha256, name=study.name))
            log.info("a new study waits: archipel-site review %s", study.sha256[:DIGITS])
        elif frame.form == "hello":
            self._admissions.proposed(study.sha256)
        trust.admit(
            trust.Admission.at(self.config, study, frame.form, admission.state, standing_of(self.config, study))
        ).require()
        if admission.state == "waiting":
            self._admissions.decide(study.sha256, "approved", "site.yaml: require_approval: false")
            self._audit.note(Approved(study=study.sha256, by="policy"))

    def _worked(self, statement: Statement, frame: Frame, instruction: str) -> Outcome:
        """Return the worker's reply, or the one that the same instruction had before, at whatever attempt."""
        if (reply_before := self._audit.answer_to(statement.study, instruction)) is not None:
            self._audit.note(Repeated(message=statement.message))
            return Outcome(reply_before)
        study = self._admissions.approved(statement.study)
        if frame.form == ending.FORM:
            return Outcome(self.over.hear(study, statement, frame))
        started = time.monotonic()
        private = study.privacy.keys.budgeted and frame.form != "hello"
        self._books.records.require()
        try:
            status, reply = self._asked(frame, study) if private else self._worker.ask(frame, self._limit)
        finally:
            self._books.records.note_bookings()
        if status.form != STATUS or not {"why"} <= set(status.fields) <= {"why", "reading"}:
            raise RunError("the worker's answer is not of its form; this is a bug")
        if private and reply.form != REFUSAL:
            wait_until_public(started, quantum_s(study, self.config.site, self.config.kit_run))
        why, reading = str(status.fields["why"]), str(status.fields.get("reading", ""))[:32]
        if reply.form == REFUSAL and reply.fields.get("code") in OF_ROWS:  # may name a line: for the log alone
            log.info("study %s, round %d: %s", statement.study[:DIGITS], statement.round, why)
            why = ""
        elif why and reply.form != REFUSAL:
            log.error("study %s, round %d: noise alone leaves: %s", statement.study[:DIGITS], statement.round, why)
            why = "noise alone; the node's log says why"
        return Outcome(reply, why, reading=reading)

    def _asked(self, frame: Frame, study: Study) -> tuple[Frame, Frame]:
        """Ask for a private release. A worker may end because of a row, so its end is not reported.

        One that had booked is asked for noise alone, which makes no second release: no patient is read. One that had
        not, or that was to say only that the release was begun before, is asked once more.

        Raises:
            RunError: the worker ends of noise alone too, or twice before it has booked.
        """
        before = self._is_booked(frame, study)
        for tries_left in (1, 0):
            try:
                return self._worker.ask(Frame(frame.form, frame.fields, frame.arrays), self._limit)
            except (RunError, WireError) as error:
                log.error("%s; it is started again", error)
                if not before and self._is_booked(frame, study):
                    break
                if not tries_left:
                    raise
        alone = Frame(frame.form, {**frame.fields, ALONE: 1}, frame.arrays)
        _, reply = self._worker.ask(alone, self._limit)
        return Frame(STATUS, {"why": "the worker ended after it had booked"}), reply

    def _is_booked(self, frame: Frame, study: Study) -> bool:
        dataset = self.config.dataset(study.name)
        kind, fields = release_of(frame.form), frame.fields
        if dataset is None or kind is None:
            return False
        number, attempt = int(fields.get("round", 0)), int(fields.get("attempt", 0))
        return self._books.ledger.booked(dataset.identity, study.sha256, number, attempt, kind.name)

    def _spent(self, sha256: str) -> str:
        """Return what the study has spent by the ledger, as this process reads it: no text of the worker's leaves."""
        admission = self._admissions.find(sha256)
        if admission is None or not (study := admission.study).privacy.keys.budgeted:
            return ""
        if (data := self.config.dataset(study.name)) is None:
            return ""
        spent = self._books.ledger.spent(data.identity, delta=study.privacy.delta, study=sha256)
        return f"{spent:.4f}" if 0 < spent < 1e6 else ""

    def _permitted(self, reply: Frame, statement: Statement, form: str) -> Mapping[str, ArraySpec] | None:
        """Return the arrays of a reply that may leave, None if it is not what a reply to this form may be."""
        try:
            if reply.form == REFUSAL:
                if SENTENCES.get(int(reply.fields.get("code", 0))) != reply.fields.get("reason"):
                    raise WireError("refusal: expected one of the fixed sentences, found another")
                received(REFUSAL, reply)
                return {}
            admission = self._admissions.find(statement.study)
            if admission is None or reply.form != f"{form} reply":
                raise WireError("reply: expected an answer to an approved study, found something else")
            specs = arrays_of(reply.form, admission.study)
            received(reply.form, reply, specs)
            for name, data in reply.arrays.items():
                if reads_as_text(data):
                    raise WireError(f"reply: expected numbers in {name}, found text written as numbers")
            return specs
        except (WireError, ValueError) as error:
            log.error("the worker's answer does not leave: %s", error)
            self._audit.note(Egress(message=statement.message, why=str(error)[:500]))
            return None
