"""The worker: the process that reads patients.

Requests come in through one pipe, answers leave through another. It has no network. Data bases that site.yaml lists are
all that it can reach (client/forwarder.py).

Warm, so that a round costs its training and nothing else. It trusts the process that talks to the coordinator as little
as that one trusts the coordinator: it looks by itself which studies are approved, asks the policy and the ledger
itself, and answers with what the form of configs/wire.py allows.

    python -m client.worker FOLDER    # started by client/worker_process.py, ends when its standard input is closed

Each request is a frame; each answer two: what is for the hospital's own journal, then what may leave.
"""

import contextlib
import hashlib
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from client import after_end
from client.caps import CAP, lowered
from client.fence import fence
from client.forwarder import leave_network_but
from client.id_hashes import id_key, prepare_hashes
from client.isolation import die_with_parent
from client.site_file import load_site
from configs.commands import guard_lines
from configs.errors import ArchipelError, RunError, reason_of
from configs.frame import Buffer, Frame
from configs.memory import LARGE_BLOCK_BYTES, ROOM
from configs.site import SiteConfig

if TYPE_CHECKING:  # PyTorch and Flower start threads, which a process must not have when it leaves the network
    from client.children.of_kits import KitChildren
    from client.ledger import Ledger
    from client.policy import Spending
    from client.reading import Reading
    from client.site import Site
    from client.trainer import Trainer
    from configs.schema import Study
    from strategies.exchange.messages import Received
    from strategies.privacy.plan import Budget
    from strategies.releases.base import Release as Kind

READY, STATUS = "ready", "status"
ALONE = "noise alone"  # a field of the node's: this release is booked, the worker that booked it has ended
log = logging.getLogger("archipel.worker")


class Worker:
    """One hospital's studies, ready to train."""

    def __init__(self, config: SiteConfig, *, seeded: bool = False, children: "KitChildren | None" = None) -> None:
        from client.admission import Admissions
        from client.ledger import Ledger
        from strategies.privacy.plan import Budget

        self._config, self._seeded, self._children = config, seeded, children
        prepare_hashes(config)
        self._admissions = Admissions.open(config.admissions)
        policy = config.policy
        self._ledger = Ledger.open(config.ledger, cap=Budget(policy.max_epsilon, policy.delta))
        self._warm: tuple[str, Site, Reading] | None = None  # the newest study and its patients
        self._readings: dict[str, Reading] = {}  # of each study that was asked for, while a round may use it
        self._request = Frame("", {})
        self._why, self._alone = "", False

    def answer(self, request: Frame) -> tuple[Frame, Frame]:
        """Return what the hospital's own journal should know (why), and the reply or refusal."""
        from client.app import respond

        alone = ALONE in request.fields  # only this hospital's node writes these: no message that arrives can hold them
        self._lower_the_cap(str(request.fields.get(CAP, "")))
        fields = {name: value for name, value in request.fields.items() if name not in (ALONE, CAP)}
        request, incoming = Frame(request.form, fields, request.arrays), request
        if request.form == after_end.FORM:
            self._request, self._why, self._alone = request, "", False
            after_end.make(self._config, self._site())
            return Frame(STATUS, {"why": ""}), Frame(after_end.FORM, {})
        if not alone:
            incoming.let_go()
        self._request, self._why, self._alone = request, "", alone
        reply = respond(request.form, self._site, self._content, self._note)
        request.let_go()
        reading = self._warm[2].digest if self._warm is not None and reply.arrays and not alone else ""
        return Frame(STATUS, {"why": self._why, "reading": reading}), reply

    def _content(self, site: "Site") -> "Received":
        """Read a request, and free its bytes once nothing else refers to them."""
        from strategies.exchange.messages import received

        content = received(self._request.form, self._request, site.forms.get(self._request.form))
        self._request.let_go()
        return content

    def reading(self) -> "Reading | None":
        """Return the data set of the newest study that was proposed here and is approved; none for noise alone.

        Reading may be what ended the process before this one, and noise alone has to be made.
        """
        warm = self._warm
        return None if warm is None or self._alone else warm[2]

    def _lower_the_cap(self, text: str) -> None:
        """Follow a cap that is lower than the one this process started with."""
        from strategies.privacy.plan import Budget

        policy = lowered(self._config.policy, text)
        if policy != self._config.policy:
            self._config = replace(self._config, policy=policy)
            self._ledger.lower(Budget(policy.max_epsilon, policy.delta))

    def _note(self, site: "Site | None", error: Exception) -> None:
        from client.app import log_error

        log_error(site, error)
        self._why = reason_of(error)

    def _site(self) -> "Site":
        """Return the hospital in the approved study that a request is about; nothing is read before it is admitted.

        What is refused here is decided by people, the study, the policy, the ledger and the data's header: no row is
        looked at, so a refusal tells of none.

        Raises:
            AdmissionError, PolicyError, DataError, PrivacyError, BudgetError.
        """
        from client import trust
        from client.kits import standing_of
        from strategies.kits.shelf import SHELF
        from strategies.releases.registry import release_of

        sha256 = _digest(self._request)
        study = self._admissions.approved(sha256)
        trust.admit(
            trust.Admission.at(self._config, study, self._request.form, "approved", standing_of(self._config, study))
        ).require()
        SHELF.hold(study.kit)
        if self._request.form == "hello" or self._warm is None or self._warm[0] != sha256:
            self._warm = None  # a proposal is judged anew: header, policy and ledger may have changed since
            if self._children is not None:
                self._children.serve(study, self._config.site)
            last, anew = self._readings.get(sha256), self._request.form == "hello"
            site, reading = open_site(self._config, self._ledger, study, seeded=self._seeded, reading=last, anew=anew)
            self._warm = sha256, site, reading
            self._readings = {key: entry for key, entry in self._readings.items() if entry.serves} | {sha256: reading}
        _, site, reading = self._warm
        site.alone, kind, fields = self._alone, release_of(self._request.form), self._request.fields
        if kind is not None and not self._alone:
            reading.require()
            require_new(site, kind, int(fields.get("round", 0)), int(fields.get("attempt", 0)))
        return site


def open_site(
    config: SiteConfig,
    ledger: "Ledger",
    study: "Study",
    *,
    seeded: bool,
    reading: "Reading | None" = None,
    anew: bool = True,
) -> "tuple[Site, Reading]":
    """Return an admitted study's hospital, once its budget allows it, and how its patients are read: not yet.

    Args:
        reading: the one of the same study before; its patients may be kept.
        anew: look at the header whatever was read before, as for a proposal; a round may use the last reading.

    Raises:
        PolicyError, PrivacyError: it may not train here, or cannot. DataError: the data's header does not fit.
        RunError: site.yaml asks for a GPU, and none is there.
    """
    from client import trust
    from client.personal import Personal
    from client.reading import Reading, source_in
    from client.site import Site
    from strategies.privacy.modes.registry import mode_of
    from strategies.privacy.plan import Budget

    dataset = config.dataset(study.name)
    assert dataset is not None
    mode_of(study).require_plannable(study, config.site)
    trainer = _trainer(config, study)
    reading = reading or Reading(
        source_in(config, study.name), study, config.site, config.reread_s, asked=config.reread, key=id_key(config)
    )
    if anew:
        reading.probe()
    else:
        reading.require()
    site = Site(
        *(config.site, study, reading.patients, ledger),
        seeded=seeded,
        trainer=trainer,
        dataset=dataset.identity,
        policy=config.policy,
    )
    site.personal = Personal(study, config.site, config.personal)
    spending = _spending(site, Budget(config.policy.max_epsilon, config.policy.delta))
    trust.spend(spending, config.policy).require()
    return site, reading


def _trainer(config: SiteConfig, study: "Study") -> "Trainer | None":
    """Return what trains a study's model on the device that site.yaml names; None where nothing is trained.

    Raises:
        RunError: the device is not there. PrivacyError: the engine is not the hospital's.
    """
    from client.device import device_for, require_device
    from client.trainer import Trainer
    from strategies.learning import learning_of
    from strategies.models.registry import study_parameters
    from strategies.privacy.engines.select import load_engine

    if not study_parameters(study):
        return None
    task, asked = learning_of(study), study.training.local.engine
    device = device_for(config.device, task.engine, asked)
    require_device(device)
    load_engine(task.engine, asked)  # a second, better now than in the first round
    return Trainer(task, device=device)


def require_new(site: "Site", kind: "Kind", round_number: int = 0, attempt: int = 0) -> None:
    """Allow each attempt at a release once: a release that was begun is spent, however it ended.

    Of lost releases as many are made anew, over the whole study, as it has spare.

    Raises:
        BegunError: it was begun before. SpareError: the study has no spare release left here.
    """
    from client.ledger import Release

    if not site.seeded and site.plan is not None:
        event = site.plan.round_event
        release = Release(site.dataset, site.study.sha256, round_number, event, None, attempt, kind.name)
        site.ledger.require_spare(release, site.study.privacy.spare)


def _spending(site: "Site", cap: "Budget") -> "Spending":
    """Return what counts against the data set's cap: spent on other studies, and once this one is over too."""
    from client.policy import Spending
    from strategies.privacy.accounting import epsilon

    if site.plan is None:
        return Spending(0.0, 0.0)
    dataset, study = site.dataset, site.study.sha256
    spent, events = epsilon(site.ledger.others(dataset, study), cap.delta), site.plan.events
    return Spending(spent, site.ledger.foreseen(dataset, study, events, cap) if events else spent)


def _digest(request: Frame) -> str:
    """Return the digest of the study that a request is about."""
    if request.form == "hello":
        return hashlib.sha256(str(request.fields.get("study", "")).encode("utf-8", "replace")).hexdigest()
    return str(request.fields.get("study_sha256", ""))


def exactly(stream: BinaryIO) -> Callable[[int], Buffer]:
    """Return a reader of as many bytes as asked for, into memory that is used again where they are many.

    Raises (when called):
        EOFError: the other process has ended.
    """

    def take(count: int) -> Buffer:
        data = ROOM.of(count) if count >= LARGE_BLOCK_BYTES else bytearray(count)
        view, done = memoryview(data), 0
        while done < count:
            read = stream.readinto(view[done:])  # type: ignore[attr-defined]
            if not read:
                raise EOFError
            done += read
        return data

    return take


def send(stream: BinaryIO, frame: Frame) -> None:
    """Write a frame, part by part."""
    for part in frame.encode():
        stream.write(part)
    stream.flush()


def _answered(worker: Worker, request: Frame) -> tuple[Frame, Frame]:
    """Return the answer; this process outlives whatever happens while it is made."""
    from client.egress import refusal

    try:
        return worker.answer(request)
    except Exception as error:
        expected = isinstance(error, ArchipelError)
        why = str(error) if expected else f"unexpected {type(error).__name__}"  # its text may name a patient
        log.error("%s%s", why, "" if expected else "\n" + "".join(traceback.format_tb(error.__traceback__)))
        return Frame(STATUS, {"why": why}), refusal(error)


def main(arguments: list[str], *, seeded: bool = False) -> int:
    """Answer requests until standard input is closed.

    Args:
        seeded: draw noise from a seed, which protects no patient; no command of the installation sets it.
    """
    die_with_parent()
    config = load_site(Path(arguments[0]))
    try:
        alone = leave_network_but(config.worker_network)
    except RunError as error:
        print(error, file=sys.stderr)
        return 1
    prepare_hashes(config)
    for folder in (config.models, config.personal, config.kits):  # none can be made later
        folder.mkdir(mode=0o700, exist_ok=True)
    fences = fence(config, books=True)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not print into the answers
    guard_lines()
    from client import reading
    from client.children.of_kits import KitChildren
    from client.kits import Kits
    from strategies.kits.shelf import SHELF

    SHELF.finder, SHELF.run = Kits(config).files, config.kit_run
    children = KitChildren() if config.policy.kits != "none" and config.kit_run == "forked" else None
    worker, wake = Worker(config, seeded=seeded, children=children), threading.Event()
    take = exactly(os.fdopen(0, "rb", buffering=0))
    send(answers, Frame(READY, {"alone": int(alone), "fence": str(fences)}))
    reading.watch(worker.reading, wake=wake)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            request = Frame.read(take)
            status, reply = _answered(worker, request)
            proposal = request.form == "hello"
            del request
            send(answers, status)
            send(answers, reply)
            del status, reply
            if proposal:
                wake.set()  # no round has to wait for the first reading, nor the answer to the proposal
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
