"""A hospital's node without processes: real node, ledger, journal, outbox and seals; a worker that only books.

What really left is counted here, whatever the records of the hospital say: each reply carries numbers of its own.
"""

import hashlib
import itertools
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import RecordDict

from client.egress import refusal
from client.ledger import Ledger, Release
from client.node import Node
from client.uplink.base import Incoming
from client.worker import STATUS
from configs import wire
from configs.errors import BegunError, BudgetError, UnsettledError
from configs.frame import Frame
from configs.records.kinds import Kind
from configs.schema import Study
from configs.seal import COORDINATOR, Signed, Statement
from configs.site import SiteConfig, load_site
from server.bundle import build_bundle
from strategies.exchange.keys import SigningKey
from strategies.exchange.messages import content, opened, seal, signed_in, to_frame, unseal
from strategies.models.registry import study_parameters
from strategies.privacy.accounting import SampledGaussian, epsilon
from strategies.privacy.modes.local import plan_for
from strategies.privacy.plan import Budget
from strategies.releases.registry import arrays_of
from tests import builders
from tests.consortium import Consortium

CAP = Budget(4.0, 1e-6)
ROUNDS = 4


def study_of(seed: int, rounds: int = ROUNDS, epsilon_: float = 1.5) -> Study:
    """One of many studies of the same patients."""
    training = {"rounds": rounds, "strategy": {"name": "fedavg"}, "local": {"batch_size": "full", "learning_rate": 0.5}}
    document: dict[str, Any] = {"cohort": {"lille": 100}, "seed": seed, "privacy": {"epsilon": epsilon_}}
    return builders.study(name="heart", **document, training=training)


class PowerCutError(BaseException):
    """The machine lost power: nothing after it is executed."""


class Fuse:
    """Cuts the power before the n-th step from now that is written down or sent; never where n is 0."""

    def __init__(self) -> None:
        self.left = 0

    def step(self) -> None:
        if self.left < 0:
            raise PowerCutError  # nothing is done without power, not even on the way out
        if self.left:
            self.left = self.left - 1 or -1
            if self.left < 0:
                raise PowerCutError


@dataclass
class Coordinator:
    """What conducts: it signs, keeps each hospital's newest statement, and gives it back."""

    key: SigningKey
    hospital: str
    statement: Signed | None = None
    given: Callable[[Signed | None], Signed | None] = lambda signed: signed
    codes: list[int] = field(default_factory=list)
    left: dict[float, SampledGaussian] = field(default_factory=dict)  # each release that arrived, by its own number
    made: dict[float, SampledGaussian] = field(default_factory=dict)
    number: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    @property
    def epsilon(self) -> float:
        """What has really left."""
        return epsilon(list(self.left.values()), CAP.delta)


@dataclass
class BookingWorker:
    """Books each round as the real one does, and answers with a model whose numbers are no other's."""

    config: SiteConfig
    coordinator: Coordinator
    fuse: Fuse
    study: Callable[[str], Study]
    alone: bool = True
    fence: str = ""

    def __post_init__(self) -> None:
        self.ledger = Ledger.open(self.config.ledger, cap=CAP)

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def ask(self, request: Frame, max_bytes: int) -> tuple[Frame, Frame]:
        del max_bytes
        digest = hashlib.sha256(str(request.fields.get("study", "")).encode()).hexdigest()
        study = self.study(str(request.fields.get("study_sha256", digest)))
        try:
            if request.form == "hello":
                fields: dict[str, str | int] = {
                    "protocol": wire.PROTOCOL,
                    "site": "lille",
                    "study_sha256": study.sha256,
                }
                return Frame(STATUS, {"why": ""}), Frame("hello reply", fields)
            return Frame(STATUS, {"why": ""}), self.train(study, int(request.fields["round"]))
        except (BudgetError, UnsettledError) as error:
            return Frame(STATUS, {"why": str(error)}), refusal(error)

    def train(self, study: Study, number: int) -> Frame:
        plan, identity = plan_for(study, "lille"), self.config.datasets[0].identity
        if self.ledger.booked(identity, study.sha256, number):
            raise BegunError("begun")
        self.fuse.step()
        with self.ledger.reserve(Release(identity, study.sha256, number, plan.round_event), plan):
            self.fuse.step()
            mark = float(next(self.coordinator.number))
            assert isinstance(plan.round_event, SampledGaussian)
            self.coordinator.made[mark] = plan.round_event
        self.fuse.step()
        arrays = {name: np.full(shape, mark, dtype) for name, (shape, dtype) in study_parameters(study).items()}
        return to_frame(
            "train reply", content("train reply", {}, arrays, study_parameters(study)), study_parameters(study)
        )

    def close(self) -> None:
        self.ledger.close()


@dataclass
class Wire:
    """The node's fleet: what is answered arrives at the coordinator, unless the power is cut first."""

    coordinator: Coordinator
    fuse: Fuse
    public: str
    study: Study
    bundles: dict[int, tuple[bytes, bool]] = field(default_factory=dict)
    protocol: int = wire.PROTOCOL_MAX
    release: str = ""

    def bundle(self, run_id: int) -> tuple[bytes, bool]:
        return build_bundle(self.study)[0], False

    def reply(self, incoming: Incoming, records: RecordDict) -> None:
        self.fuse.step()
        signed = signed_in(records)
        said, packed = unseal(records, self.public)
        assert packed is not None
        form = Frame.decode(packed).form
        frame, records = opened(form, records, packed, arrays_of(form, self.study))
        if said.sequence:
            self.coordinator.statement = signed
        self.coordinator.codes.append(int(frame.fields.get("code", 0)))
        if form == "train reply":
            mark = float(np.frombuffer(bytes(next(iter(frame.arrays.values())))[-4:], np.float32)[0])
            self.coordinator.left[mark] = self.coordinator.made[mark]


class Ward:
    """A folder with a node in it, started and stopped by hand."""

    def __init__(self, folder: Path, coordinator: Coordinator, studies: dict[str, Study]) -> None:
        self.folder, self.coordinator, self.studies = folder, coordinator, studies
        self.fuse = Fuse()
        self.node: Node | None = None
        self.worker: BookingWorker | None = None

    @property
    def config(self) -> SiteConfig:
        return load_site(self.folder)

    def start(self) -> "Ward":
        self.stop()
        self.worker = BookingWorker(self.config, self.coordinator, self.fuse, lambda sha256: self.studies[sha256])
        self.node = Node(self.config, self.worker)
        note = self.node.books.audit.note

        def noted(record: Kind) -> None:
            self.fuse.step()
            note(record)
            self.fuse.step()

        self.node.books.audit.note = noted  # type: ignore[method-assign]
        self.node.books.records.start()
        return self

    def stop(self) -> None:
        """End without a word, as a killed process does."""
        if self.node is not None:
            self.node.books.close()
        if self.worker is not None:
            self.worker.close()
        self.node = self.worker = None

    def propose(self, study: Study) -> int:
        self.studies[study.sha256] = study
        return self.ask(study, "hello", {"protocol": wire.PROTOCOL, "study": study.canonical}, None)

    def train(self, study: Study, number: int, nudge: int = 0) -> int:
        """Ask for a round; the same nudge is the same instruction. The code of the refusal, 0 for a model."""
        start = builders.random_arrays(study_parameters(study), seed=1000 * number + nudge)
        return self.ask(study, "train", {"study_sha256": study.sha256, "round": number}, start)

    def ask(self, study: Study, form: str, fields: dict[str, str | int], arrays: builders.Arrays | None) -> int:
        if self.node is None:
            self.start()
        assert self.node is not None
        record = self.coordinator.given(self.coordinator.statement)
        if form == "hello" and record is not None:
            fields = fields | {"record": record.text}
        expected = study_parameters(study)
        records = content(form, fields, arrays, expected)
        frame = to_frame(form, records, expected)
        statement = Statement(
            COORDINATOR,
            "lille",
            "run",
            int(fields.get("round", 0)),
            study.sha256,
            uuid.uuid4().hex,
            frame.sha256,
            "",
            int(time.time()) + 60,
            "",
            "",
        )
        records = seal(records, frame, statement, self.coordinator.key, None if form == "hello" else record)
        types = {form: kind for kind, form in wire.ASKS.items()}
        message = builders.message(records, types[form])
        fleet = Wire(self.coordinator, self.fuse, self.node.books.key.public, study)
        before = len(self.coordinator.codes)
        self.node.answering.answer(fleet, Incoming(1, types[form], message.content, message))  # type: ignore[arg-type]
        assert len(self.coordinator.codes) == before + 1
        return self.coordinator.codes[-1]


def ward(folder: Path) -> Ward:
    """A hospital that lets every study in, and its coordinator."""
    consortium = Consortium(folder)
    data = folder / "patients.csv"
    data.write_text("age,sex,disease\n")
    config = consortium.hospital(
        "lille",
        datasets={"heart": {"connector": "csv", "path": str(data), "identity": "heart"}},
        policy={"require_approval": False, "max_epsilon": CAP.epsilon, "delta": CAP.delta},
    )
    return Ward(config.folder, Coordinator(consortium.pki.load_signing_key(), "lille"), {})


def trained_ward(folder: Path, study: Study, rounds: int) -> Ward:
    """A hospital that has trained so many rounds of a study, its node still running."""
    hospital = ward(folder)
    assert hospital.start().propose(study) == 0
    for number in range(1, rounds + 1):
        assert hospital.train(study, number) == 0
    return hospital


def spent(hospital: Ward) -> float:
    """What the ledger on the disk says."""
    with closing(Ledger.open(hospital.folder / "ledger.sqlite")) as ledger:
        return ledger.spent("heart", delta=CAP.delta)


def copied(folder: Path, to: Path) -> Path:
    """A whole folder as a backup or a clone has it."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to)
    return to
