"""The node: receive, check, admit, let the worker work, check again, send; and write all of it down.

This process talks to the coordinator and never sees a patient; the worker sees patients and talks to nobody
(but to data bases, where site.yaml lists some). Nothing that arrives is executed, nothing leaves that was not written
to the journal and the outbox first. A message that is not signed by the coordinator, for this hospital, once, is not
answered.
"""

import contextlib
import fcntl
import json
import logging
import os
import signal
import sqlite3
import subprocess
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from client.admission import Admissions
from client.audit import Audit, instruction_of
from client.caps import CAP, Caps, told
from client.egress import OF_ROWS, SENTENCES, code_of
from client.enrol import CERTIFICATE, NODE_KEY, load_node_key, load_signing_key, load_welcome
from client.fence import no_dumps
from client.identities import forgotten
from client.isolation import worker_variables
from client.ledger import EVALUATION, STATISTICS, Ledger
from client.policy import Request, require, require_figures
from client.records import Records
from client.releases import forget_awaited, note_awaited, proposed, spoken
from client.surroundings import Surroundings
from client.timing import quantum_s, wait_until_public
from client.uplink.base import EndedError, Incoming, OccupiedError, RefusedError, UnreachableError, Uplink
from client.uplink.fleet import Fleet
from client.uplink.line import keep
from client.uplink.tls import trust
from client.worker import ALONE, REFUSAL, STATUS, exactly, send
from configs import parts, wire
from configs.bundle import check_bundle
from configs.errors import AdmissionError, ArchipelError, ReleaseError, RunError, SealError, WireError
from configs.frame import Frame, MappedFile
from configs.lock import only_one
from configs.memory import return_large_blocks
from configs.pieces import MAX_INLINE
from configs.records.site_journal import (
    Approved,
    Egress,
    Proposed,
    Received,
    Refused,
    Repeated,
    Started,
    Stopped,
    Worker,
)
from configs.schema import Study
from configs.seal import COORDINATOR, Signed, Statement
from configs.shown import DIGITS
from configs.site import SiteConfig
from strategies.exchange.arrays import reads_as_text
from strategies.exchange.messages import content, from_frame, given_back, opened, seal, shelve, shelved, unseal
from strategies.releases.registry import arrays_of, study_bytes

if TYPE_CHECKING:
    from flwr.app import RecordDict

log = logging.getLogger("archipel.node")
FORMS = wire.ASKS
QUICK_S, SLOW_S = 0.03, 15.0  # shortest and longest time between two looks for a message
PATIENCE, EARLY = 0.1, 0.7  # a look every tenth of the time since the last message; the first after this part of a gap
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 60.0
HELD_S = 1.0  # a look that lasts longer was held by the coordinator
STATE = "node.state"
OVERHEAD_BYTES = 4_000_000  # of a message, beside its arrays
PIPE_BYTES = 1 << 20  # between this process and the worker
TOUCH_S = 60.0  # of contact between two notes of it
FULL_DISK_S = 1.0  # between looks while nothing can be written down


class WorkerProcess:
    """The other process, started again when it has ended."""

    def __init__(self, config: SiteConfig, command: Sequence[str] = ()) -> None:
        """`command` starts another worker than ours; only tests have one."""
        self._config = config
        self._command = list(command) or parts.command("client.worker", str(config.folder))
        self.caps = Caps(config)
        self._process: subprocess.Popen[bytes] | None = None
        self._surroundings: Surroundings | None = None
        self.alone, self.fence = False, ""  # the fence around it, in words
        self._environment = parts.environment(worker_variables(config))  # `start` lets go of secrets in this process

    def start(self) -> None:
        """Start it, unless it runs.

        Raises:
            RunError: it ended before it was ready.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()  # it may have ended while nothing was asked, and its pipes are still open
        self._surroundings = Surroundings(self._config, self._environment)
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            self._command,
            cwd=self._config.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
            start_new_session=True,  # a Ctrl-C in the terminal is the node's to handle
        )
        for pipe in (self._process.stdin, self._process.stdout):
            _widen(pipe)
        try:
            ready = self._read().fields
            self.alone, self.fence = bool(ready["alone"]), str(ready["fence"])
        except (EOFError, WireError):
            self.stop()
            raise RunError("the worker ended before it was ready; its own lines above say why") from None

    @property
    def pid(self) -> int | None:
        """Its process id."""
        return self._process.pid if self._process else None

    def ask(self, request: Frame, max_bytes: int) -> tuple[Frame, Frame]:
        """What the hospital should know, and the reply.

        Raises:
            RunError: the worker ended while it worked; it is started again for the next request.
        """
        if self._surroundings is not None and (what := self._surroundings.replaced()):
            log.info("the worker is started anew: its fence does not follow what was replaced (%s)", what)
            self.stop()
        self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            capped = Frame(request.form, {**request.fields, CAP: told(self.caps.look().policy)}, request.arrays)
            send(self._process.stdin, capped)  # type: ignore[arg-type]
            capped.let_go()
            request.let_go()
            return self._read(), self._read(max_bytes)
        except (EOFError, BrokenPipeError):
            self.stop()
            raise RunError(
                "the worker ended while it worked (killed, or out of memory); what it had booked counts as spent"
            ) from None
        except WireError:
            self.stop()  # where its next answer would begin is unknown
            raise

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.kill()
            with contextlib.suppress(OSError):
                self._process.communicate()
        self._process = None

    def _read(self, max_bytes: int = 0) -> Frame:
        assert self._process is not None
        assert self._process.stdout is not None
        return Frame.read(exactly(self._process.stdout), max_bytes)  # type: ignore[arg-type]


def _widen(pipe: IO[bytes] | None) -> None:
    """Let a pipe hold as much as the kernel allows: a large model then takes a sixteenth of the turns."""
    if pipe is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


class Pace:
    """When to look for the next message. Each look costs the coordinator some milliseconds, so they are well placed.

    Rounds resemble each other: if the last message was not there yet after some time, the first look comes a little
    before that time; then one every tenth of the time that passed. Only what was seen counts, not when the message was
    found: else a node that looked late once would go on to look late.

    >>> pace = Pace(0.0)
    >>> pace.answered(0.0); round(pace.wait_s(0.9), 2); pace.came(); pace.answered(1.5)
    0.09
    >>> round(pace.wait_s(1.5), 2), round(pace.wait_s(2.5), 2), pace.wait_s(1000.0)
    (0.63, 0.1, 15.0)
    """

    def __init__(self, now: float) -> None:
        self._answered, self._empty, self._gap = now, 0.0, 0.0

    def came(self) -> None:
        """A message is here."""
        self._gap = self._empty

    def answered(self, now: float) -> None:
        """It was answered."""
        self._answered, self._empty = now, 0.0

    def wait_s(self, now: float) -> float:
        """None is here yet: how long to wait before the next look."""
        self._empty = now - self._answered
        due = EARLY * self._gap - self._empty
        return min(max(due, self._empty * PATIENCE, QUICK_S), SLOW_S)


class Node:
    """One hospital's node."""

    def __init__(self, config: SiteConfig, worker: WorkerProcess | None = None) -> None:
        self._config = config
        self._welcome = load_welcome(config)
        self._key = load_signing_key(config)
        self._admissions = Admissions.open(config.admissions)
        self._audit = Audit(config, self._key)
        self._ledger = Ledger.open(config.ledger)
        self._records = Records(config, self._audit, self._ledger, self._admissions, self._key)
        self._worker = worker or WorkerProcess(config)
        self._bundles: dict[int, str] = {}  # run -> digest of the study in its bundle
        self._touched, self._touch_s = time.monotonic(), 0.0
        self._over = threading.Event()
        self._reading = ""  # the keyed digest of the rows that the worker's newest answer is made of
        self._connection: Uplink | None = None
        self._max_bytes = config.policy.max_message_mb * 1_000_000

    def stop(self) -> None:
        """End after what is under way; callable from another thread or a signal handler."""
        self._over.set()
        if self._connection is not None:
            self._connection.interrupt()

    @property
    def stopping(self) -> bool:
        """Whether it was asked to end."""
        return self._over.is_set()

    def run(self) -> None:
        """Serve until `stop`. Whatever happens to the network, it tries again.

        Raises:
            RunError: another node runs in this folder, or the worker cannot be started.
        """
        config = self._config
        with only_one(config.lock, "another node runs in this folder; stop it first", config.sha256):
            self._audit.note(Started(version=self._welcome.version, site=config.site, site_yaml=config.sha256))
            self._records.start()
            self._worker.start()
            if not self._worker.alone:
                log.warning("the kernel does not let the worker leave the network; see: archipel-site check")
            reaches = tuple(self._config.worker_network)
            self._audit.note(Worker(alone=self._worker.alone, reaches=reaches, fence=self._worker.fence))
            try:
                self._serve_for_ever()
            finally:
                self._worker.stop()
                self._audit.note(Stopped())

    def _serve_for_ever(self) -> None:
        pause = FIRST_RETRY_S
        while not self._over.is_set():
            fleet = self._connection = self._fleet()
            connected = time.monotonic()
            try:
                self._connect(fleet)
                pause = FIRST_RETRY_S
                self._serve(fleet)
            except OccupiedError as error:
                log.warning("%s; trying again", error)
                pause = min(pause, 5.0)
            except (UnreachableError, RefusedError) as error:
                log.warning("%s; trying again in %.0f s", error, pause)
            finally:
                if fleet.close():
                    _State(self._config).forget()
            if time.monotonic() - connected > 2 * LAST_RETRY_S:
                pause = FIRST_RETRY_S
            self._over.wait(pause)
            pause = min(2 * pause, LAST_RETRY_S)

    def _fleet(self) -> Fleet:
        config, by_certificate = self._config, not self._welcome.without_certificate
        context = trust(
            self._welcome.ca_certificate,
            certificate=str(config.keys / CERTIFICATE) if by_certificate else None,
            key=str(config.keys / NODE_KEY) if by_certificate else None,
            extra_ca=str(config.extra_ca) if config.extra_ca else None,
        )
        limit = self._max_bytes + OVERHEAD_BYTES
        return Fleet(
            self._welcome.coordinator,
            context,
            load_node_key(config),
            max_message_bytes=limit,
            sign_requests=not by_certificate,
        )

    def _connect(self, fleet: Uplink) -> None:
        state = _State(self._config)
        state.write(fleet.connect(state.previous()))
        log.info("connected to %s as %s", self._welcome.coordinator, self._config.site)

    def _serve(self, fleet: Uplink) -> None:
        """Look for messages: at once after one, more seldom the longer there was none."""
        pace = Pace(time.monotonic())
        while not self._over.is_set():
            try:
                self._look(fleet, pace)
            except (OSError, sqlite3.Error) as error:  # a full disk: what cannot be written down is not answered
                log.error("nothing is answered, because it cannot be written down: %s; %s", error, self._room)
                self._over.wait(FULL_DISK_S)

    def _look(self, fleet: Uplink, pace: Pace) -> None:
        """Look for one message, and answer it or wait."""
        began = time.monotonic()
        try:
            incoming = fleet.receive()
        except EndedError:
            return
        except WireError as error:
            self._audit.note(Refused(message="", why=str(error)))
            log.warning("%s", error)
            return
        self._stay_in_touch()
        if incoming is None:
            if (now := time.monotonic()) - began < HELD_S:  # nobody held the request
                self._over.wait(pace.wait_s(now))
            elif fleet.line.cut_after_s:
                keep(self._config.folder, fleet.line)
            return
        pace.came()
        with contextlib.suppress(EndedError):
            self._answer(fleet, incoming)
        del incoming
        pace.answered(time.monotonic())

    def _stay_in_touch(self) -> None:
        """Count the time in which the coordinator could have proposed studies; who lost contact counts none of it."""
        now = time.monotonic()
        self._touch_s += min(now - self._touched, TOUCH_S)
        self._touched = now
        if self._touch_s >= TOUCH_S:
            self._admissions.passed(self._touch_s)
            self._touch_s = 0.0

    @property
    def _room(self) -> str:
        return f"make room in {self._config.folder}"

    # One message

    def _answer(self, fleet: Uplink, incoming: Incoming) -> None:
        try:
            size = shelved(incoming.records)
            said, packed = self._opened(fleet, incoming, size)
        except WireError as error:  # whoever wrote it is not the coordinator, or it was heard before: no answer
            self._audit.note(Refused(message="", why=str(error)))
            log.warning("%s", error)
            return
        reply, why, instruction = self._judged(fleet, incoming, said, packed)
        reply = spoken(reply, fleet.protocol)
        del packed
        records = self._checked(reply, said, FORMS.get(incoming.type, ""))
        if records is None:
            reply = _refusal(RunError("egress"))
            records = content(REFUSAL, dict(reply.fields))
        incoming.message.content.clear()
        try:
            proposal = incoming.type == wire.HELLO
            message = self._kept(reply, said, instruction, why, proposal=proposal)
        except OSError as error:
            log.error("nothing leaves, because it cannot be kept: %s; %s", error, self._room)
            return
        statement = Statement(
            sender=self._config.site,
            to=COORDINATOR,
            run=said.run,
            round=said.round,
            study=said.study,
            message=message,
            content=reply.sha256,
            answers=said.message,
            expires=0,
            journal=self._audit.journal.head,
            epsilon=self._spent(said.study),
            **self._records.stated(fleet.protocol),
        )
        records = seal(records, reply, statement, self._key)
        if size is not None and reply.size > MAX_INLINE:  # it is in the outbox: from there it goes as a file
            path = self._config.outbox / f"{message}.frame"
            records = shelve(records, fleet.store(said.run, said.message, path))
        del reply
        fleet.reply(incoming, records)
        if self._reading and self._audit.rows_changed(said.study):  # once it has left: no time follows from it
            log.warning(
                "study %s, round %d: other rows were read than for the answer before; if nobody here changed them, "
                "look what the export holds: archipel-site review --data %s",
                *(said.study[:DIGITS], said.round, said.study[:DIGITS]),
            )

    def _kept(self, reply: Frame, said: Statement, instruction: str, why: str, *, proposal: bool) -> str:
        """Keep a reply before it leaves; an equal refusal of the same proposal as before is counted only.

        Raises:
            OSError: the disk is full.
        """
        message, study, refuses = uuid.uuid4().hex, said.study, reply.form == REFUSAL
        if refuses:
            why = why or str(reply.fields["reason"])
            if self._audit.was_refused(reply, study, instruction, why):
                return self._audit.count_refusal(said.message, study, instruction)
            asked = f"round {said.round}" if said.round else "asked whether it takes part"
            log.info("study %s, %s: answered no: %s", study[:DIGITS], asked, why)
            self._audit.note(Refused(message=said.message, code=int(reply.fields["code"]), why=why))
        self._audit.keep(
            reply,
            message,
            study=study,
            round=said.round,
            answers=said.message,
            content=instruction,
            why=why,
            reading=self._reading,
        )
        if refuses and proposal:
            self._audit.remember_refusal(reply, message, study, instruction, why)
        return message

    def _opened(
        self, fleet: Uplink, incoming: Incoming, size: int | None
    ) -> tuple[Statement, bytes | MappedFile | None]:
        """What the coordinator signed, about a message for this hospital that was not used before, and its content.

        Args:
            size: of a content that is sent apart; it is fetched once all else is as it should be.

        Raises:
            SealError: anything else. WireError: its content did not come whole.
        """
        given = given_back(incoming.records)
        said, packed = unseal(incoming.records, self._welcome.coordinator_key)
        said.require(sender=COORDINATOR, to=self._config.site, answers="")
        if self._audit.seen(said.message):
            raise SealError("seal: expected a new message, found one that was used before; it was repeated")
        self._records.hear(given)
        if size is None:
            return said, packed
        return said, fleet.fetch(said.run, said.message, size, self._config.folder)

    def _judged(
        self, fleet: Uplink, incoming: Incoming, said: Statement, packed: bytes | MappedFile | None
    ) -> tuple[Frame, str, str]:
        """The reply, why it is a refusal if it is one, and what names the instruction in the outbox."""
        instruction, frame, self._reading = said.content, None, ""
        try:
            frame, study = self._read(fleet, incoming, said, packed)
            instruction = instruction_of(frame, said.content)
            incoming.records.clear()
            if frame.form != "hello":
                self._note_received(said, frame)
            said.require(sender=COORDINATOR, to=self._config.site, content=frame.sha256, now=time.time())
            self._check_bundle(fleet, incoming.run_id, study)
            self._admit(study, frame)
            if frame.form == "hello":  # one that waits is asked again and again: it is noted once
                self._note_received(said, frame)
            return *self._worked(said, frame, instruction), instruction
        except (UnreachableError, RefusedError, EndedError):
            raise
        except ArchipelError as error:
            reply, why = _refusal(error), str(error)
            again = self._audit.was_refused(spoken(reply, fleet.protocol), said.study, instruction, why)
            if not again and not self._audit.seen(said.message):
                if frame is not None:
                    self._note_received(said, frame)
                else:
                    self._audit.note(Received(message=said.message, run=said.run, study=said.study, round=said.round))
            return reply, why, instruction

    def _note_received(self, said: Statement, frame: Frame) -> None:
        self._audit.note(
            Received(
                message=said.message,
                run=said.run,
                study=said.study,
                round=said.round,
                form=frame.form,
                bytes=frame.size,
                content=frame.sha256,
                their_journal=said.journal,
            )
        )

    def _read(
        self, fleet: Uplink, incoming: Incoming, said: Statement, packed: bytes | MappedFile | None
    ) -> tuple[Frame, Study]:
        """The message as a frame of its form, and the study that it is about.

        Raises:
            WireError: it is of no form that a hospital receives. AdmissionError: its study never arrived here.
        """
        if (form := FORMS.get(incoming.type)) is None:
            raise WireError("message: expected a proposal or a model, found another kind")
        if form == "hello":
            frame, _ = opened(form, incoming.records, packed)
            self._records.hear(Signed.parse(str(frame.fields.get("record", ""))))
            return frame, self._proposed(str(frame.fields["study"]), said.study, fleet.release)
        known = self._admissions.find(said.study)
        if known is None:
            raise AdmissionError("the study was not proposed to this hospital", waiting=True)
        study = known.study
        frame, _ = opened(form, incoming.records, packed, arrays_of(form, study))
        if frame.fields["study_sha256"] != said.study or frame.fields.get("round", 0) != said.round:
            raise SealError("seal: the message is about another study or round than its signature; it was changed")
        return frame, study

    def _proposed(self, text: str, digest: str, theirs: str) -> Study:
        """The study in a proposal; one that only another release knows is kept for `check`.

        Raises:
            WireError, ReleaseError: see client/releases.py.
        """
        try:
            study = proposed(text, digest, theirs)
        except ReleaseError:
            note_awaited(self._config.folder, digest, theirs)
            raise
        forget_awaited(self._config.folder)
        return study

    def _check_bundle(self, fleet: Uplink, run_id: int, study: Study) -> None:
        if self._bundles.get(run_id) == study.sha256:
            return
        bundle, overridden = fleet.bundle(run_id)
        check_bundle(bundle, study)
        if overridden:
            raise WireError("bundle: expected no settings beside the study, found some; nothing of it was executed")
        self._bundles = {run_id: study.sha256}

    def _admit(self, study: Study, frame: Frame) -> None:
        """Let approved studies in; others wait for a person.

        Raises:
            AdmissionError, PolicyError: it may not run, or not yet.
        """
        known = self._admissions.find(study.sha256)
        if known is None:
            known = self._admissions.propose(study.sha256, study.name, study.canonical)
            self._audit.note(Proposed(study=study.sha256, name=study.name))
            log.info("a new study waits: archipel-site review %s", study.sha256[:DIGITS])
        elif frame.form == "hello":
            self._admissions.proposed(study.sha256)
        dataset = self._config.dataset(study.name)
        announced = study.announced_patients(self._config.site)
        request = Request(study.private, dataset is not None, 0.0, 0.0, study_bytes(study), announced)
        require(request, self._config.policy)
        if known.state == "waiting" and not self._config.policy.require_approval:
            self._admissions.decide(study.sha256, "approved", "site.yaml: require_approval: false")
            self._audit.note(Approved(study=study.sha256, by="policy"))
        self._admissions.approved(study.sha256)
        if frame.form != "hello" and study.trains == (frame.form == "statistics"):
            raise WireError(f"{frame.form}: expected what the approved study asks for, found another kind of message")
        if frame.form == "evaluate":
            if study.evaluation.release is None:
                raise WireError("evaluate: expected a study that asks for figures (evaluation.release), found another")
            require_figures(self._config.policy)

    def _worked(self, said: Statement, frame: Frame, instruction: str) -> tuple[Frame, str]:
        """The worker's reply, or the one that the same instruction had before, at whatever attempt."""
        if (kept := self._audit.answer_to(said.study, instruction)) is not None:
            self._audit.note(Repeated(message=said.message))
            return kept, ""
        started = time.monotonic()
        study = self._admissions.approved(said.study)
        private = study.private and frame.form != "hello"
        self._records.require()
        try:
            status, reply = self._asked(frame, study) if private else self._worker.ask(frame, self._limit)
        finally:
            self._records.note_bookings()
        if status.form != STATUS or not {"why"} <= set(status.fields) <= {"why", "reading"}:
            raise RunError("the worker's answer is not of its form; this is a bug")
        if private and reply.form != REFUSAL:
            wait_until_public(started, quantum_s(study, self._config.site))
        why, self._reading = str(status.fields["why"]), str(status.fields.get("reading", ""))[:32]
        if reply.form == REFUSAL and reply.fields["code"] in OF_ROWS:  # may name a line: for the log alone
            log.info("study %s, round %d: %s", said.study[:DIGITS], said.round, why)
            return reply, ""
        if why and reply.form != REFUSAL:
            log.error("study %s, round %d: noise alone leaves: %s", said.study[:DIGITS], said.round, why)
            return reply, "noise alone; the node's log says why"
        return reply, why

    @property
    def _limit(self) -> int:
        """Bytes of the largest answer that the worker may give."""
        return self._max_bytes + OVERHEAD_BYTES

    def _asked(self, frame: Frame, study: Study) -> tuple[Frame, Frame]:
        """Ask for a private release. A worker that ends may do so because of a row, so its end is told to nobody.

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
        dataset = self._config.dataset(study.name)
        number = {"evaluate": EVALUATION, "statistics": STATISTICS}.get(frame.form, frame.fields.get("round"))
        if dataset is None or not isinstance(number, int):
            return False
        return self._ledger.booked(dataset.identity, study.sha256, number, int(frame.fields.get("attempt", 0)))

    def _spent(self, sha256: str) -> str:
        """What the study has spent here. Read from the ledger by this process: no text of the worker's leaves."""
        known = self._admissions.find(sha256)
        if known is None or not (study := known.study).private or (data := self._config.dataset(study.name)) is None:
            return ""
        spent = self._ledger.spent(data.identity, delta=study.privacy.delta, study=sha256)
        return f"{spent:.4f}" if 0 < spent < 1e6 else ""

    def _checked(self, reply: Frame, said: Statement, asked: str) -> "RecordDict | None":
        """The one way out: the reply as it will leave, None if it is not what a reply to `asked` may be."""
        try:
            if reply.form == REFUSAL:
                if SENTENCES.get(int(reply.fields.get("code", 0))) != reply.fields.get("reason"):
                    raise WireError("refusal: expected one of the fixed sentences, found another")
                return from_frame(REFUSAL, reply)
            known = self._admissions.find(said.study)
            if known is None or reply.form != f"{asked} reply":
                raise WireError("reply: expected an answer to an approved study, found something else")
            records = from_frame(reply.form, reply, arrays_of(reply.form, known.study))
            for name, data in reply.arrays.items():
                if reads_as_text(data):
                    raise WireError(f"reply: expected numbers in {name}, found text written as numbers")
            return records
        except (WireError, ValueError) as error:
            log.error("the worker's answer does not leave: %s", error)
            self._audit.note(Egress(message=said.message, why=str(error)[:500]))
            return None


def _refusal(error: Exception) -> Frame:
    code, reason = code_of(error)
    return Frame(REFUSAL, {"code": code, "reason": reason})


class _State:
    """Which node this folder's last process was, so that the next one can sign it off.

    It holds for this folder on this machine since it was started; a copy of the folder is another identity's business.
    """

    def __init__(self, config: SiteConfig) -> None:
        self._path, self._lock = config.folder / STATE, config.lock

    def previous(self) -> int | None:
        """The node id, if the process is known to be dead."""
        try:
            state = json.loads(self._path.read_bytes())
            return int(state["node_id"]) if state["where"] == self._where() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, node_id: int) -> None:
        """Remember this process."""
        self._path.write_text(json.dumps({"node_id": node_id, "where": self._where()}))

    def forget(self) -> None:
        """This process is signed off: the next one has nobody to sign off; the coordinator would log an error."""
        self._path.unlink(missing_ok=True)

    def _where(self) -> str:
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            boot = ""
        found = self._lock.stat()
        return f"{boot}/{found.st_dev}/{found.st_ino}"


def start(config: SiteConfig, worker: WorkerProcess | None = None) -> None:
    """Serve until a signal (SIGTERM, SIGINT) ends it; what is under way is finished first.

    Raises:
        RunError: this hospital has not joined, or a node runs already.
    """
    return_large_blocks()
    for lost in forgotten(config):
        log.warning("%s; %s", lost, lost.todo)
    node = Node(config, worker)
    no_dumps()
    for name in config.secrets:  # what is read by name in this process, or handed on, holds no data base's password
        os.environ.pop(name, None)

    def end(*_: object) -> None:
        if node.stopping:
            os._exit(1)  # asked twice: the worker ends with this process, what it had booked counts as spent
        node.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    node.run()
