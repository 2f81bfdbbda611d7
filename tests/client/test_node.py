"""A hospital's node under hostile input: a double of the connection, a real worker, real keys and seals."""

import hashlib
import json
import math
import mmap
import sqlite3
import struct
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.cli.build import build_fab_from_files

from client import answering
from client.admission import Admissions
from client.audit import Audit
from client.doctor import _awaited
from client.findings import WARNING
from client.folder import SiteFolder
from client.ledger import Ledger
from client.node import Node
from client.node_state import STATE
from client.releases import RELEASE
from client.uplink.base import Incoming
from client.views import outbox, text
from client.worker import STATUS
from client.worker_process import WorkerPort, WorkerProcess
from configs import journal, wire
from configs.errors import WireError
from configs.frame import Frame, MappedFile
from configs.lock import holder
from configs.schema import Study, canonical_json
from configs.seal import COORDINATOR, Statement
from configs.site import SiteConfig, load_site
from server.bundle import build_bundle, bundle_files
from strategies.exchange.keys import SigningKey
from strategies.exchange.messages import content, opened, seal, shelve, shelved, to_frame, unseal
from strategies.models.registry import study_parameters
from strategies.releases.registry import arrays_of
from tests import builders
from tests.client.ports import FakeUplink, StandIn
from tests.consortium import Consortium

STUDIES = ("asked", "greedy", "open", "trained", "other-rows", "spoilt", "judged", "counted")
COHORT = {"lille": 100}
DOCUMENT: dict[str, Any] = {"cohort": COHORT}


def study_of(name: str, **changes: Any) -> Study:
    return builders.study(name=name, **(DOCUMENT | changes))


@dataclass
class Lille:
    """A running node, and the coordinator that its hospital trusts."""

    config: SiteConfig
    node: Node
    fleet: FakeUplink
    worker: StandIn
    coordinator: SigningKey
    runs: dict[str, int] = field(default_factory=dict)

    def run_of(self, study: Study) -> int:
        number = self.runs.setdefault(study.sha256, len(self.runs) + 1)
        self.fleet.bundles.setdefault(number, (build_bundle(study)[0], False))
        return number

    def send(
        self,
        study: Study,
        form: str,
        fields: Mapping[str, str | int],
        arrays: builders.Arrays | None = None,
        /,
        *,
        key: SigningKey | None = None,
        change: Callable[[RecordDict], None] = lambda records: None,
        **said: Any,
    ) -> None:
        """Send a message as the coordinator does; `said` changes what is signed, `change` what was signed."""
        expected = study_parameters(study)
        records = content(form, fields, arrays, expected)
        frame = to_frame(form, records, expected)
        statement = Statement(
            sender=COORDINATOR,
            to="lille",
            run="run-1",
            round=int(fields.get("round", 0)),
            study=study.sha256,
            message=uuid.uuid4().hex,
            content=frame.sha256,
            answers="",
            expires=int(time.time()) + 60,
            journal="",
            epsilon="",
        )
        records = seal(records, frame, replace(statement, **said), key or self.coordinator)
        change(records)
        types = {form: kind for kind, form in wire.ASKS.items()}
        message: Message = builders.message(records, types[form])
        self.fleet.arriving.put(Incoming(self.run_of(study), types[form], message.content, message))

    def propose(self, study: Study, /, **options: Any) -> None:
        self.send(study, "hello", {"protocol": wire.PROTOCOL, "study": study.canonical}, **options)

    def train(self, study: Study, number: int = 1, arrays: builders.Arrays | None = None, /, **options: Any) -> None:
        fields: dict[str, str | int] = {"study_sha256": study.sha256, "round": number}
        start = builders.random_arrays(study_parameters(study), seed=number) if arrays is None else arrays
        self.send(study, "train", fields, start, **options)

    def evaluate(self, study: Study, arrays: builders.Arrays | None = None, /, **options: Any) -> None:
        model = builders.random_arrays(study_parameters(study)) if arrays is None else arrays
        self.send(study, "evaluate", {"study_sha256": study.sha256}, model, **options)

    def count(self, study: Study, /, **options: Any) -> None:
        self.send(study, "statistics", {"study_sha256": study.sha256}, **options)

    def answer(self, study: Study, form: str = "refusal") -> Frame:
        """The next answer, whose seal must hold."""
        records = self.fleet.answers.get(timeout=60)
        said, packed = unseal(records, self.node.books.key.public)
        frame, _ = opened(form, records, packed, arrays_of(form, study))
        said.require(sender="lille", to=COORDINATOR, study=study.sha256, content=frame.sha256)
        return frame

    def code(self, study: Study) -> int:
        return int(self.answer(study).fields["code"])

    def is_silent(self) -> bool:
        """Whether what was sent is used up, and nothing was answered."""
        marker = WireError(f"the end of a test {uuid.uuid4().hex}")
        self.fleet.arriving.put(marker)
        deadline = time.monotonic() + 60
        while str(marker) not in self.whys()[-1:]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return self.fleet.answers.empty()

    def records(self) -> list[journal.Record]:
        return list(journal.read(self.config.journal)) if self.config.journal.exists() else []

    def whys(self) -> list[str]:
        return [str(record.facts["why"]) for record in self.records() if "why" in record.facts]

    def spent(self, study: Study) -> float:
        ledger = Ledger.open(self.config.ledger)
        try:
            return ledger.spent(study.name, delta=1e-5)
        finally:
            ledger.close()

    def left(self) -> list[Path]:
        return sorted(self.config.outbox.glob("*")) if self.config.outbox.exists() else []


@contextmanager
def serving(consortium: Consortium, config: SiteConfig, worker: WorkerPort | None = None) -> Iterator[Lille]:
    """A node that runs until the end of the block."""
    fleet, given = FakeUplink(), StandIn(worker or WorkerProcess(config))
    node = Node(config, given, lambda: fleet)
    thread = threading.Thread(target=node.run)
    thread.start()
    yield Lille(config, node, fleet, given, consortium.pki.load_signing_key())
    node.stop()
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def lille(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lille]:
    folder = tmp_path_factory.mktemp("consortium")
    rows = np.random.default_rng(0).integers(20, 90, 100)
    lines = ["age,sex,disease", *(f"{age},{'female' if age % 2 else 'male'},{int(age > 60)}" for age in rows)]
    data = folder / "patients.csv"
    data.write_text("\n".join(lines) + "\n")
    consortium = Consortium(folder)
    datasets = {name: {"connector": "csv", "path": str(data), "identity": name} for name in STUDIES}
    config = consortium.hospital(
        "lille", datasets=datasets, policy={"require_approval": False, "max_epsilon": 4.0, "metrics": "noisy"}
    )
    with serving(consortium, config) as made:
        yield made


@pytest.fixture(scope="module")
def trained(lille: Lille) -> Study:
    """A study that lille lets in and has trained a round of: what is refused below is refused for its own reason."""
    study = study_of("trained")
    lille.propose(study)
    assert lille.answer(study, "hello reply").fields["site"] == "lille"
    lille.train(study)
    assert lille.answer(study, "train reply").arrays
    return study


@pytest.mark.parametrize("theirs", [1, 2, 3])
def test_a_greeting_says_what_the_coordinator_reads_and_no_more(
    lille: Lille, trained: Study, monkeypatch: pytest.MonkeyPatch, theirs: int
) -> None:
    monkeypatch.setattr(lille.fleet, "protocol", theirs)
    lille.propose(trained)  # answered before, when the coordinator may have had another release
    fields = dict(lille.answer(trained, "hello reply").fields)
    first = {"protocol": wire.PROTOCOL, "site": "lille", "study_sha256": trained.sha256}
    about = {"protocol_max": wire.PROTOCOL_MAX, "release": RELEASE, "arithmetic": wire.ARITHMETIC}
    assert fields == (first if theirs == 1 else first | about)


@pytest.mark.parametrize("how", ["a key that came later", "a default that went", "another version of the form"])
def test_a_study_of_another_release_waits_and_says_who_must_upgrade(
    lille: Lille, trained: Study, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    document = json.loads(study_of("trained", seed=77).canonical)
    if how == "a key that came later":
        document["training"]["patience"] = 3
    elif how == "a default that went":
        del document["training"]["quorum"]
    else:
        document["version"] = "archipel-study/99"
    text = canonical_json(document)
    digest = hashlib.sha256(text.encode()).hexdigest()
    monkeypatch.setattr(lille.fleet, "release", "9.9.9")
    fields: dict[str, str | int] = {"protocol": wire.PROTOCOL, "study": text}
    lille.send(trained, "hello", fields, study=digest)
    records = lille.fleet.answers.get(timeout=60)
    said, packed = unseal(records, lille.node.books.key.public)
    frame, _ = opened("refusal", records, packed)
    assert (said.study, frame.fields["code"]) == (digest, wire.UPGRADE)
    assert f"a form that archipel {RELEASE} knows, found another; it waits until archipel 9.9.9" in lille.whys()[-1]
    [finding] = _awaited(lille.config)
    assert (finding.verdict, finding.todo) == (WARNING, "install archipel 9.9.9")
    assert digest[:20] in finding.text
    lille.propose(trained)  # what it knows goes on, and the note is gone
    assert lille.answer(trained, "hello reply").fields["site"] == "lille"
    assert list(_awaited(lille.config)) == []


def test_the_epsilon_that_is_told_is_the_ledgers(lille: Lille, trained: Study) -> None:
    lille.train(trained, 2)
    records = lille.fleet.answers.get(timeout=60)
    said, _ = unseal(records, lille.node.books.key.public)
    assert float(said.epsilon) == pytest.approx(lille.spent(trained), abs=1e-4)


def test_the_journal_says_by_a_keyed_digest_of_which_reading_an_answer_was_made(lille: Lille, trained: Study) -> None:
    sent = [record.facts for record in lille.records() if record.kind == "sent"]
    digests = {
        fact.get("reading") for fact in sent if fact["form"] == "train reply" and fact["study"] == trained.sha256
    }
    assert len(digests) == 1  # the same rows, the same digest
    assert all(isinstance(digest, str) and len(digest) == 32 for digest in digests)
    assert {fact.get("reading") for fact in sent if fact["form"] == "refusal"} <= {None}


def test_the_log_says_when_an_answer_is_of_other_rows_than_the_one_before(
    lille: Lille, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of("other-rows")
    lille.propose(study)
    lille.answer(study, "hello reply")
    for number in (1, 2):
        lille.train(study, number)
        lille.answer(study, "train reply")
    lille.propose(study)
    lille.answer(study, "hello reply")  # what was logged after the answer before is there
    assert "other rows were read" not in caplog.text
    readings = lille.node.books.audit._readings
    monkeypatch.setitem(readings, study.sha256, ("ab" * 16, "ab" * 16))
    lille.train(study, 3)
    lille.answer(study, "train reply")
    lille.propose(study)
    lille.answer(study, "hello reply")
    assert caplog.text.count("round 3: other rows were read than for the answer before") == 1


# Messages that the coordinator did not sign so: no answer, a line in the journal


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"to": "lyon"}, "it was sent to another address"),
        ({"sender": "lyon"}, "found another sender"),
        ({"answers": "ab" * 16}, "found another; it was moved or repeated"),
    ],
)
def test_a_message_for_somebody_else_is_not_answered(
    lille: Lille, trained: Study, said: dict[str, Any], why: str
) -> None:
    before = lille.spent(trained)
    lille.train(trained, 3, **said)
    assert lille.is_silent()
    assert why in lille.whys()[-2]
    assert lille.spent(trained) == before


def test_a_message_signed_by_another_key_is_not_answered(lille: Lille, trained: Study) -> None:
    lille.train(trained, 3, key=SigningKey.generate())
    assert lille.is_silent()
    assert "forged or changed" in lille.whys()[-2]


def test_a_message_without_a_seal_is_not_answered(lille: Lille, trained: Study) -> None:
    lille.train(trained, 3, change=lambda records: records.pop(wire.SEAL) and None)
    assert lille.is_silent()
    assert "was not sealed" in lille.whys()[-2]


def test_a_message_that_was_used_is_not_answered_again(lille: Lille, trained: Study) -> None:
    used = uuid.uuid4().hex
    lille.propose(trained, message=used)
    lille.answer(trained, "hello reply")
    lille.propose(trained, message=used)
    assert lille.is_silent()
    assert "it was repeated" in lille.whys()[-2]


def test_an_altered_message_is_refused(lille: Lille, trained: Study) -> None:
    def alter(records: RecordDict) -> None:
        packed = bytearray(builders.packed_in(records))
        packed[-1] ^= 1
        records.config_records[wire.SEAL][wire.PACKED] = bytes(packed)

    before = lille.spent(trained)
    lille.train(trained, 3, change=alter)
    assert lille.code(trained) == 106
    assert "changed on the way" in lille.whys()[-1]
    assert lille.spent(trained) == before


def test_a_message_that_was_held_back_is_refused(lille: Lille, trained: Study) -> None:
    lille.train(trained, 3, expires=int(time.time()) - 3600)
    assert lille.code(trained) == 106
    assert "expired" in lille.whys()[-1]


def test_a_round_other_than_the_signed_one_is_refused(lille: Lille, trained: Study) -> None:
    lille.train(trained, 3, round=2)
    assert lille.code(trained) == 106


def test_a_message_that_announces_ten_gigabytes_takes_none(lille: Lille, trained: Study) -> None:
    header = b'{"arrays":[["0.weight",10000000000]],"fields":{},"form":"train"}'

    def announce(records: RecordDict) -> None:
        records.config_records[wire.SEAL][wire.PACKED] = struct.pack(">I", len(header)) + header

    lille.train(trained, 3, change=announce)
    assert lille.code(trained) == 104
    assert "it was cut short" in lille.whys()[-1]


# Messages that are signed, by a coordinator who asks for too much


def test_a_round_of_a_study_that_was_never_proposed_is_refused(lille: Lille) -> None:
    unknown = study_of("asked", seed=5)
    lille.train(unknown)
    assert lille.code(unknown) == wire.WAITING_FOR_APPROVAL


def test_a_changed_study_is_another_one(lille: Lille, trained: Study) -> None:
    changed = study_of("trained", privacy={"epsilon": 3.5})
    lille.train(trained, 3, study=changed.sha256)
    lille.fleet.answers.get(timeout=60)
    assert "not proposed" in lille.whys()[-1]
    lille.propose(changed, study=trained.sha256)
    frame = lille.fleet.answers.get(timeout=60)
    assert unseal(frame, lille.node.books.key.public)[0].study == trained.sha256
    assert "found another" in lille.whys()[-1]


@pytest.mark.parametrize(
    ("study", "code"),
    [
        (study_of("greedy", privacy={"epsilon": 30.0}), 114),
        (study_of("greedy", evaluation={"test_fraction": 0.3, "release": {"epsilon": 6.0}}), 114),
        (study_of("open", privacy={"mode": "none"}), 113),
        (study_of("nowhere"), 112),
        (study_of("asked", model={"name": "mlp", "hidden": [8000, 8000]}), 115),
        (study_of("asked", cohort={"lyon": 100}), 116),
    ],
    ids=[
        *("above the cap", "above the cap with its evaluation", "without privacy", "no data set", "too large"),
        "of other hospitals",
    ],
)
def test_a_study_against_the_policy_is_refused_and_its_data_stay_closed(lille: Lille, study: Study, code: int) -> None:
    opened_before = [r for r in lille.records() if r.kind == "sent" and r.facts["form"] != "refusal"]
    lille.propose(study)
    assert lille.code(study) == code
    assert [r for r in lille.records() if r.kind == "sent" and r.facts["form"] != "refusal"] == opened_before
    assert lille.spent(study) == 0.0


def test_a_private_study_that_announces_no_sizes_is_refused_as_it_arrives(lille: Lille) -> None:
    whole = study_of("asked")
    document = json.loads(whole.canonical) | {"cohort": {}}
    document["training"]["weights"] = "uniform"
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    lille.send(whole, "hello", {"protocol": wire.PROTOCOL, "study": canonical}, study=digest)
    frame = lille.fleet.answers.get(timeout=60)
    assert unseal(frame, lille.node.books.key.public)[0].study == digest
    assert "hello: expected a study in its canonical form" in lille.whys()[-1]


CODE = b"import pathlib; pathlib.Path('/tmp/archipel-was-executed').touch()\n"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda files: files | {"client/flower.py": CODE},
        lambda files: files | {"study.py": CODE},
        lambda files: files | {"pyproject.toml": files["pyproject.toml"].replace(b"client.flower", b"study")},
        lambda files: files | {"study.json": files["study.json"].replace(b'"epsilon":3', b'"epsilon":4')},
    ],
    ids=["a module of ours", "a module", "another entry point", "another study"],
)
def test_a_bundle_with_anything_but_the_study_is_refused(
    lille: Lille, spoil: Callable[[dict[str, bytes]], dict[str, bytes]]
) -> None:
    study = study_of("spoilt", seed=1)
    files = spoil(bundle_files(study))
    if any(name.endswith(".py") for name in files):
        files["pyproject.toml"] = files["pyproject.toml"].replace(b'"LICENSE",\n', b'"LICENSE",\n    "**/*.py",\n')
    lille.fleet.bundles[lille.run_of(study)] = build_fab_from_files(files)[0], False
    modules = set(sys.modules)
    lille.propose(study)
    assert lille.code(study) == 104
    assert "nothing of it was executed" in lille.whys()[-1]
    assert "study" not in set(sys.modules) - modules
    assert not Path("/tmp/archipel-was-executed").exists()


@pytest.mark.parametrize("bundle", [b"", b"PK\x03\x04" + bytes(100), bytes(3_000_000)], ids=["none", "broken", "large"])
def test_a_bundle_that_is_none_is_refused(lille: Lille, bundle: bytes) -> None:
    study = study_of("spoilt", seed=2)
    lille.fleet.bundles[lille.run_of(study)] = bundle, False
    lille.propose(study)
    assert lille.code(study) == 104


def test_settings_beside_the_bundle_are_refused(lille: Lille) -> None:
    study = study_of("spoilt", seed=3)
    lille.fleet.bundles[lille.run_of(study)] = build_bundle(study)[0], True
    lille.propose(study)
    assert lille.code(study) == 104
    assert "no settings beside the study" in lille.whys()[-1]


def test_a_model_of_other_shapes_is_refused_and_costs_nothing(lille: Lille, trained: Study) -> None:
    other = study_of("trained", model={"name": "mlp", "hidden": [4]})
    start = builders.random_arrays(study_parameters(other))
    before = lille.spent(trained)
    fields: dict[str, str | int] = {"study_sha256": trained.sha256, "round": 3}
    lille.send(other, "train", fields, start, study=trained.sha256)
    records = lille.fleet.answers.get(timeout=60)
    assert unseal(records, lille.node.books.key.public)[0].study == trained.sha256
    assert "expected" in lille.whys()[-1]
    assert lille.spent(trained) == before


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_model_that_is_not_finite_is_refused_and_costs_nothing(lille: Lille, trained: Study, value: float) -> None:
    def poison(records: RecordDict) -> None:
        packed = bytearray(builders.packed_in(records))
        packed[-4:] = struct.pack("<f", value)
        frame = Frame.decode(bytes(packed))
        said = Statement.parse(str(records.config_records[wire.SEAL]["statement"]))
        signed = replace(said, content=frame.sha256)
        records[wire.SEAL] = seal(RecordDict(), frame, signed, lille.coordinator)[wire.SEAL]

    before = lille.spent(trained)
    lille.train(trained, 3, change=poison)
    assert lille.code(trained) == 104
    assert "finite" in lille.whys()[-1]
    assert lille.spent(trained) == before


# How good a model is: one noisy histogram, where the study asks and the policy allows


@pytest.fixture(scope="module")
def judged(lille: Lille) -> Study:
    """A study that asks, and that lille has trained a round of."""
    study = study_of("judged", evaluation={"test_fraction": 0.3, "release": {"epsilon": 0.5, "bins": 8}})
    lille.propose(study)
    lille.answer(study, "hello reply")
    lille.train(study)
    lille.answer(study, "train reply")
    return study


def test_a_hospital_whose_policy_says_none_refuses_in_its_own_words(
    lille: Lille, judged: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = replace(lille.config, policy=replace(lille.config.policy, metrics="none"))
    monkeypatch.setattr(lille.node.answering, "config", closed)
    monkeypatch.setattr(lille.worker, "instead", lambda *_: pytest.fail("the worker was asked"))
    before = lille.spent(judged)
    lille.evaluate(judged)
    refused = lille.answer(judged)
    said = "the hospital's policy does not let figures of its test patients leave"
    assert refused.fields == {"code": 117, "reason": said}
    assert "metrics: none" in lille.whys()[-1]
    assert lille.spent(judged) == before


def test_a_study_that_does_not_ask_is_not_evaluated(lille: Lille, trained: Study) -> None:
    before = lille.spent(trained)
    lille.evaluate(trained)
    assert lille.code(trained) == 104
    assert lille.spent(trained) == before


def test_text_in_a_histogram_or_another_form_does_not_leave(
    lille: Lille, judged: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = arrays_of("evaluate reply", judged)
    text = np.frombuffer(b"Mme Dupont, 73 ans, 59000 Lille, diabete de type 2 et asthme.   ", "<f4").reshape(2, 8)
    frames = [
        to_frame("evaluate reply", content("evaluate reply", {}, {"histogram": text}, expected), expected),
        a_reply(judged),
    ]
    for frame in frames:
        with monkeypatch.context() as patch:
            patch.setattr(lille.worker, "instead", lambda *_, f=frame: (Frame(STATUS, {"why": ""}), f))
            lille.evaluate(judged)
            assert lille.code(judged) == 105
    assert not [path for path in lille.left() if b"Dupont" in path.read_bytes()]


def test_the_histogram_leaves_once_and_the_same_question_has_the_same_answer(lille: Lille, judged: Study) -> None:
    before = lille.spent(judged)
    lille.evaluate(judged)
    first = lille.answer(judged, "evaluate reply")
    after = lille.spent(judged)
    assert after > before
    lille.evaluate(judged)
    assert lille.answer(judged, "evaluate reply") == first
    lille.evaluate(judged, builders.random_arrays(study_parameters(judged), seed=5))
    assert lille.code(judged) == wire.BEGUN
    assert "the evaluation: it was begun before" in lille.whys()[-1]
    assert lille.spent(judged) == after
    assert any(Frame.decode(path.read_bytes()) == first for path in lille.left())


# What the patients of a study are like: one noisy release, and nothing is trained


@pytest.fixture(scope="module")
def counted(lille: Lille) -> Study:
    """A study of statistics that lille lets in."""
    study = builders.counting(name="counted", cohort=COHORT, training={"quorum": 1})
    lille.propose(study)
    assert lille.answer(study, "hello reply").fields["site"] == "lille"
    return study


def test_a_study_of_statistics_neither_trains_nor_evaluates_and_one_that_trains_is_not_counted(
    lille: Lille, counted: Study, trained: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lille.worker, "instead", lambda *_: pytest.fail("the worker was asked"))
    cases = ((lille.train, counted, "trains"), (lille.evaluate, counted, "asks for figures"))
    for ask, study, expected in (*cases, (lille.count, trained, "of statistics")):
        ask(study)
        assert lille.code(study) == 104
        assert expected in lille.whys()[-1]


def test_text_among_the_counts_does_not_leave(lille: Lille, counted: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = arrays_of("statistics reply", counted)
    text = np.frombuffer(b"Mme Dupont, 73 ans, 59000 Lille, diabete de type", "<f4")
    frame = to_frame("statistics reply", content("statistics reply", {}, {"counts": text}, expected), expected)
    with monkeypatch.context() as patch:
        patch.setattr(lille.worker, "instead", lambda *_: (Frame(STATUS, {"why": ""}), frame))
        lille.count(counted)
        assert lille.code(counted) == 105
    assert not [path for path in lille.left() if b"Dupont" in path.read_bytes()]


def test_statistics_leave_once_and_the_same_question_has_the_same_answer(lille: Lille, counted: Study) -> None:
    lille.count(counted)
    first = lille.answer(counted, "statistics reply")
    after = lille.spent(counted)
    assert after == pytest.approx(0.5, abs=1e-3)
    lille.count(counted)
    assert lille.answer(counted, "statistics reply") == first
    (sent,) = [o for o in lille.node.books.audit.outgoing() if o.form == "statistics reply"][:1]
    shown = text.opened(outbox.opened(SiteFolder(lille.config, lille.config.folder), sent.message)).splitlines()
    assert [line.split(":")[0].strip() for line in shown[-3:]] == ["age", "sex", "disease"]
    assert all(label in shown[-1] for label in ("0 ", "1 ", "unknown "))
    aside = [(path, path.read_bytes()) for path in lille.left() if Frame.decode(path.read_bytes()) == first]
    for path, _ in aside:  # an outbox that somebody cleared is no way to a second draw
        path.unlink()
    lille.count(counted)
    assert lille.code(counted) == wire.BEGUN
    for path, kept in aside:
        path.write_bytes(kept)
    assert "the release of statistics: it was begun before" in lille.whys()[-1]
    assert lille.spent(counted) == after


# A trainer that lets out what it should not: nothing of it leaves, and the journal says why


def text_as_numbers(study: Study, patient: bytes = b"Mme Dupont, 73 ans, 59000 Lille, diabete de type 2. ") -> Frame:
    """A reply of a large model in whose weights somebody wrote a sentence."""
    arrays = builders.random_arrays(study_parameters(study))
    array = max(arrays.values(), key=np.size)
    array.ravel()[: len(patient) // 4] = np.frombuffer(patient, "<f4")
    return to_frame("train reply", content("train reply", {}, arrays, study_parameters(study)), study_parameters(study))


def a_reply(study: Study) -> Frame:
    expected = study_parameters(study)
    return to_frame("train reply", content("train reply", {}, builders.random_arrays(expected), expected), expected)


def spoilt(study: Study, how: str) -> Frame:
    good = a_reply(study)
    name = next(iter(good.arrays))
    frames = {
        "an array more": replace(good, arrays={**good.arrays, "ages": good.arrays[name]}),
        "an array less": replace(good, arrays={n: d for n, d in good.arrays.items() if n != name}),
        "a metric": replace(good, fields={"loss": 1}),
        "a row count": replace(good, fields={"num-examples": 100}),
        "a longer name": replace(good, arrays={f"{n}-Dupont": d for n, d in good.arrays.items()}),
        "more bytes": replace(good, arrays={n: bytes(d) + b"Dupont" for n, d in good.arrays.items()}),
        "another header": replace(
            good, arrays={n: bytes(d).replace(b"'<f4'", b"'>f4'") for n, d in good.arrays.items()}
        ),
        "not finite": replace(good, arrays={n: bytes(d)[:-4] + b"\xff\xff\xff\x7f" for n, d in good.arrays.items()}),
        "a sentence of its own": Frame("refusal", {"code": 105, "reason": "patient Dupont is 73"}),
        "a code of its own": Frame("refusal", {"code": 73, "reason": "the hospital refused this study"}),
        "no code": Frame("refusal", {"reason": "patient Dupont is 73"}),
        "a code that is text": Frame("refusal", {"code": "Dupont", "reason": "the hospital refused this study"}),
        "a form that is none": Frame("Dupont reply", {}),
        "another form": Frame("train", {"study_sha256": study.sha256, "round": 73}),
        "a site's name that is text": Frame(
            "hello reply", {"protocol": 1, "site": "Dupont" * 20, "study_sha256": study.sha256}
        ),
    }
    return frames[how]


SPOILT = ("an array more", "an array less", "a metric", "a row count", "a longer name", "more bytes", "another header")
SPOILT_ALSO = ("not finite", "a sentence of its own", "a code of its own", "another form", "a site's name that is text")
SPOILT_REFUSALS = ("no code", "a code that is text", "a form that is none")


@pytest.mark.parametrize("how", [*SPOILT, *SPOILT_ALSO, *SPOILT_REFUSALS])
def test_what_a_trainer_adds_does_not_leave(
    lille: Lille, trained: Study, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    frame = spoilt(trained, how)
    monkeypatch.setattr(lille.worker, "instead", lambda request, limit: (Frame(STATUS, {"why": ""}), frame))
    before = set(lille.left())
    lille.train(trained, 3)
    answered = lille.answer(trained)
    assert answered.fields == {"code": 105, "reason": "the hospital could not train; its own log says why"}
    kept = set(lille.left()) - before
    assert [Frame.decode(path.read_bytes()) for path in kept] == [answered]
    assert [r.kind for r in lille.records() if r.kind == "egress"]
    assert not [path for path in lille.left() if b"Dupont" in path.read_bytes()]


def test_text_written_as_numbers_does_not_leave(lille: Lille, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of("trained", model={"name": "mlp", "hidden": [30]}, privacy={"epsilon": 0.5})
    frame = text_as_numbers(study)
    lille.propose(study)
    lille.answer(study, "hello reply")
    monkeypatch.setattr(lille.worker, "instead", lambda request, limit: (Frame(STATUS, {"why": ""}), frame))
    lille.train(study)
    assert lille.code(study) == 105
    (said,) = [r.facts["why"] for r in lille.records() if r.kind == "egress"][-1:]
    assert "found text written as numbers" in said


def test_no_text_of_the_worker_leaves_beside_its_reply(
    lille: Lille, trained: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's own explanation stays; a status with more in it stops the answer."""
    frame = a_reply(trained)
    status = Frame(STATUS, {"why": "patient Dupont", "epsilon": "Dupont"})
    monkeypatch.setattr(lille.worker, "instead", lambda request, limit: (status, frame))
    lille.train(trained, 3)
    assert lille.code(trained) == 105
    assert not [path for path in lille.left() if b"Dupont" in path.read_bytes()]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), sqlite3.OperationalError("database or disk is full")]
)
def test_what_cannot_be_written_down_is_not_answered_and_the_node_goes_on(
    lille: Lille, trained: Study, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def full(*_: object, **__: object) -> str:
        raise error

    with monkeypatch.context() as patch, caplog.at_level("ERROR", "archipel.node"):
        patch.setattr(lille.node.books.audit.journal, "append", full)
        lille.propose(trained)
        deadline = time.monotonic() + 60
        while f"make room in {lille.config.folder}" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert lille.fleet.answers.empty()
    lille.propose(trained)
    assert lille.answer(trained, "hello reply").fields["site"] == "lille"


@pytest.mark.parametrize("how", ["whole", "changed on the way", "cut short"])
def test_a_large_model_comes_and_goes_as_a_file(
    lille: Lille, trained: Study, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    monkeypatch.setattr(answering, "MAX_INLINE", 0)
    path, stored = tmp_path / "content", lille.fleet.stored
    stored.clear()

    def apart(records: RecordDict) -> None:
        data = builders.packed_in(records)
        spoilt = {"changed on the way": data[:-1] + bytes([data[-1] ^ 1]), "cut short": data[:-1]}
        path.write_bytes(spoilt.get(how, data))
        records[wire.SEAL] = shelve(records, len(data))[wire.SEAL]

    def fetch(run: str, message: str, size: int, folder: Path) -> MappedFile:
        with path.open("rb") as file:
            return MappedFile(file.fileno(), 0, prot=mmap.PROT_READ)

    monkeypatch.setattr(lille.fleet, "fetch", fetch)
    lille.train(trained, change=apart)  # as in the first round: nothing is trained again
    if how != "whole":
        assert lille.code(trained) in (104, 106)
        assert stored == []
        return
    records = lille.fleet.answers.get(timeout=60)
    assert shelved(records) == len(stored[0])
    said, packed = unseal(records, lille.node.books.key.public)
    assert packed is None
    assert Frame.decode(stored[0]).sha256 == said.content


def test_the_journal_of_all_this_holds(lille: Lille) -> None:
    assert lille.node.books.audit.verify() > 50


# The end


@pytest.mark.parametrize("heard", [True, False])
def test_the_next_process_signs_off_only_one_that_could_not_do_it_itself(tmp_path: Path, heard: bool) -> None:
    connected = threading.Event()
    fleet = FakeUplink(heard=heard, receiving=connected.set)
    node = Node(Consortium(tmp_path).hospital("lille"), uplink=lambda: fleet)
    thread = threading.Thread(target=node.run)
    thread.start()
    assert connected.wait(60)
    (started,) = [r for r in journal.read(node.config.journal) if r.kind == "started"]
    assert started.facts["site_yaml"] == holder(node.config.lock) == load_site(node.config.folder).sha256
    node.stop()
    thread.join(30)
    assert (node.config.folder / STATE).exists() is not heard


# Waiting


@pytest.fixture
def careful(lille: Lille, monkeypatch: pytest.MonkeyPatch) -> Lille:
    """The same hospital, where a person approves each study."""
    config = replace(lille.config, policy=replace(lille.config.policy, require_approval=True))
    monkeypatch.setattr(lille.node.answering, "config", config)
    return lille


def cheap(seed: int) -> Study:
    return study_of("trained", seed=seed, privacy={"epsilon": 0.2})


def test_a_study_that_is_not_proposed_any_more_does_not_wait_and_waits_again_when_it_is(
    careful: Lille, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of("asked", seed=77)

    def waits() -> bool:
        (found,) = [a for a in Admissions.open(careful.config.admissions).all() if a.sha256 == study.sha256]
        return found.waits

    monkeypatch.setattr("client.node.TOUCH_S", 0.1)  # of contact, in which nothing comes
    careful.propose(study)
    assert careful.code(study) == wire.WAITING_FOR_APPROVAL
    assert waits()
    monkeypatch.setattr("client.admission.QUIET_S", 0.4)
    deadline = time.monotonic() + 60
    while waits():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    monkeypatch.setattr("client.node.TOUCH_S", 60.0)
    careful.propose(study)
    assert careful.code(study) == wire.WAITING_FOR_APPROVAL
    assert waits()


def test_a_proposal_that_waits_costs_no_file_and_no_record_each_time_it_is_asked(careful: Lille) -> None:
    """A week of waiting is one file and a record for each time that the count doubles."""
    waiting = cheap(77)
    careful.propose(waiting)
    first = careful.answer(waiting)
    assert first.fields["code"] == wire.WAITING_FOR_APPROVAL
    files, records = careful.left(), len(careful.records())
    for _ in range(40):
        careful.propose(waiting)
        assert careful.answer(waiting) == first
    assert careful.left() == files
    again = [r.facts["times"] for r in careful.records()[records:] if r.kind == "refused again"]
    assert again == [2, 4, 8, 16, 32]
    assert len(careful.records()) - records == len(again)
    left = {r.facts["message"] for r in careful.records() if r.kind == "sent" and r.facts["study"] == waiting.sha256}
    assert len(left) == 1
    assert Audit(careful.config, careful.node.books.key).verify() == len(careful.records())


def test_a_repeated_proposal_is_used_up_too(careful: Lille) -> None:
    waiting = cheap(78)
    careful.propose(waiting)
    careful.answer(waiting)
    for _ in range(2):
        careful.propose(waiting, message="f" * 32)
    careful.answer(waiting)
    assert careful.is_silent()


def test_a_refusal_for_another_reason_is_kept_and_so_is_the_yes_that_follows(careful: Lille) -> None:
    study = cheap(79)
    admissions = Admissions.open(careful.config.admissions)
    codes, files = [], []
    for state in ("waiting", "waiting", "refused", "refused", "approved", "waiting", "waiting"):
        if admissions.find(study.sha256):
            admissions.decide(study.sha256, state)
        before = set(careful.left())
        careful.propose(study)
        frame = careful.answer(study, "hello reply" if state == "approved" else "refusal")
        codes.append(frame.fields.get("code", 0))
        files.append(len(set(careful.left()) - before))
    assert codes == [110, 110, 111, 111, 0, 110, 110]
    assert files == [1, 0, 1, 0, 1, 1, 0]
