"""Lost releases: the hospital that lost one is asked anew, nobody else; without spare the run ends with a sentence.

The last tests run real sites with real ledgers under random losses: of a worker before or after its booking, of a
reply, of what was kept, of the coordinator itself.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import Error, Message, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from client.app import make_app
from client.audit import instruction_of
from client.egress import code_of
from client.ledger import Ledger
from client.patients import Split
from client.site import Site
from client.worker import require_new
from configs import wire
from configs.errors import RunError
from configs.journal import Journal
from configs.journal import read as read_journal
from configs.schema import Study
from configs.site import Policy
from server.app import conduct
from server.attempts import LOST
from server.checkpoint import Checkpoints
from server.codes import BAD_SEAL
from server.outcome import Outcome
from strategies.exchange.arrays import Arrays
from strategies.exchange.messages import read, to_frame
from strategies.models.registry import study_parameters
from strategies.privacy.modes.local import plan_for
from strategies.releases.registry import release_of
from tests.builders import context, counting, patients, same_bits
from tests.builders import study as private_study
from tests.server.test_conduct import FAST, NODES, SHIFTS, Behaviour, FakeGrid, Honest, hospitals

DELTA = 1e-5
Replies = list[Message]


def study_of(spare: int, quorum: int = 3, rounds: int = 3, **changes: Any) -> Study:
    training = {"quorum": quorum, "rounds": rounds, "local": FAST}
    return private_study(privacy={"spare": spare}, training=training, **changes)


class Losing(Honest):
    """Loses its release in some rounds, a number of times each."""

    def __init__(self, study: Study, name: str, losses: dict[int, int], code: int = wire.BEGUN) -> None:
        super().__init__(study, name, SHIFTS[name])
        self.losses, self.code = dict(losses), code
        self.asked: list[tuple[int, int]] = []  # round, attempt

    def train(self, message: Message, start: Arrays, number: int) -> Iterator[Message]:
        fields = read("train", message.content, self.parameters).fields
        self.asked.append((number, fields.get("attempt", 0)))
        if self.losses.get(number, 0) > 0:
            self.losses[number] -= 1
            yield Message(Error(self.code, "it was lost"), reply_to=message)
        else:
            yield from super().train(message, start, number)


def journaled(path: Path, kind: str) -> list[dict[str, Any]]:
    return [record.facts for record in read_journal(path) if record.kind == kind]


def test_a_release_whose_reply_arrived_broken_is_lost() -> None:
    assert BAD_SEAL in LOST


@pytest.mark.parametrize("code", sorted(LOST))
def test_a_lost_release_is_asked_for_anew_of_its_hospital_alone(code: int, tmp_path: Path) -> None:
    study = study_of(spare=2)
    lyon = Losing(study, "lyon", {2: 1, 3: 2}, code)
    grid, journal = FakeGrid(hospitals(study, lyon=lyon)), Journal(tmp_path / "journal.jsonl", durable=False)
    conducted = conduct(grid, study, journal=journal)
    assert (conducted.rounds.outcome, conducted.rounds.why) == ("COMPLETE", "")
    assert lyon.asked == [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]
    assert Counter(grid.rounds_sent()) == {NODES["brest"]: 3, NODES["lille"]: 3, NODES["lyon"]: 6}
    assert [dict(record.attempts) for record in conducted.records] == [{}, {"lyon": 1}, {"lyon": 2}]
    assert [set(record.contributed) for record in conducted.records] == [set(NODES)] * 3
    again = journaled(journal.path, "again")
    assert [(one["site"], one["round"], one["attempt"]) for one in again] == [
        ("lyon", 2, 1),
        ("lyon", 3, 1),
        ("lyon", 3, 2),
    ]
    assert all(one["why"] == "it was lost" for one in again)
    assert [facts.get("attempts") for facts in journaled(journal.path, "round")] == [None, {"lyon": 1}, {"lyon": 2}]


def test_an_attempt_has_the_model_and_the_bits_of_the_first_instruction() -> None:
    study = study_of(spare=1)
    grid = FakeGrid(hospitals(study, lyon=Losing(study, "lyon", {2: 1})))
    conduct(grid, study)
    first, second = (
        read("train", message.content, study_parameters(study))
        for message in grid.sent
        if message.metadata.message_type == wire.TRAIN
        and message.metadata.dst_node_id == NODES["lyon"]
        and message.content.config_records["config"]["round"] == 2
    )
    assert same_bits(first.arrays, second.arrays)
    assert dict(second.fields) == {**first.fields, "attempt": 1}
    assert "attempt" not in first.fields


def test_where_nothing_is_lost_the_messages_are_those_of_a_study_without_spare() -> None:
    def sent(spare: int) -> list[dict[str, Any]]:
        study = study_of(spare)
        grid = FakeGrid(hospitals(study))
        conduct(grid, study)
        configs = [dict(message.content.config_records["config"]) for message in grid.sent]
        return [{key: value for key, value in config.items() if key == "round"} for config in configs]

    assert sent(0) == sent(2)


def test_two_hospitals_that_lose_the_same_round_are_asked_anew_together() -> None:
    study = study_of(spare=2)
    lyon, brest = Losing(study, "lyon", {1: 2}), Losing(study, "brest", {1: 1})
    grid = FakeGrid(hospitals(study, lyon=lyon, brest=brest))
    conducted = conduct(grid, study)
    assert conducted.rounds.outcome == "COMPLETE"
    assert len(grid.timeouts) == 1 + 3 + 2  # the greeting, three rounds, and two more of the first
    assert dict(conducted.records[0].attempts) == {"lyon": 2, "brest": 1}


@pytest.mark.parametrize("spare", [0, 1])
@pytest.mark.parametrize("code", [wire.BEGUN, wire.NO_SPARE])
def test_when_none_is_spare_the_run_says_that_nothing_more_can_be_done(spare: int, code: int, tmp_path: Path) -> None:
    study = study_of(spare)
    lyon = Losing(study, "lyon", {2: 99}, code)
    conducted = conduct(FakeGrid(hospitals(study, lyon=lyon)), study)
    assert (conducted.rounds.outcome, conducted.rounds.done) == ("INCOMPLETE", 1)
    assert conducted.rounds.why.startswith(
        "round 2: 2 hospitals contributed, the study asks for 3; the release of lyon"
    )
    assert "nothing more can be done in this run, resumed or not; submit a new study" in conducted.rounds.why
    assert len(lyon.asked) == (2 + spare if code == wire.BEGUN else 2)


@pytest.mark.parametrize("code", [101, 103, 111, wire.UPGRADE])
def test_a_refusal_that_lost_nothing_is_final_for_its_round(code: int) -> None:
    study = study_of(spare=2)
    lyon = Losing(study, "lyon", {2: 9}, code)
    conducted = conduct(FakeGrid(hospitals(study, lyon=lyon)), study)
    assert conducted.rounds.why == "round 2: 2 hospitals contributed, the study asks for 3"
    assert lyon.asked == [(1, 0), (2, 0)]


class SlowGrid(FakeGrid):
    """Each exchange takes so many seconds on a clock of its own, at most its time-out; then nothing more comes."""

    def __init__(
        self, study: Study, lyon: Behaviour, seconds: Iterator[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        super().__init__(hospitals(study, lyon=lyon))
        self.now, self._seconds = 0.0, seconds
        monkeypatch.setattr("server.session.time", SimpleNamespace(monotonic=lambda: self.now, sleep=None))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Replies:
        replies = super().send_and_receive(messages, timeout=timeout)
        assert timeout is not None
        assert timeout <= 600
        if replies and replies[0].has_content() and wire.CONFIG in replies[0].content:
            return replies  # the greeting
        took = next(self._seconds, 0.1)
        self.now += min(took, timeout)
        return replies if took < timeout else []


@pytest.mark.parametrize("part", [0.01, 0.3, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("spare", [1, 2, 5, 100])
def test_a_round_lasts_two_time_outs_at_most_however_late_a_hospital_says_that_its_release_was_lost(
    spare: int, part: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(spare, rounds=1)
    lyon = Losing(study, "lyon", {1: 999})
    grid = SlowGrid(study, lyon, itertools.repeat(part * 600), monkeypatch)
    conducted = conduct(grid, study)
    assert grid.now <= 2 * 600
    assert conducted.rounds.outcome == "INCOMPLETE"
    all_asked = len(lyon.asked) == 1 + spare
    assert all_asked or grid.now > 1.5 * 600 - 600 * part
    assert ("nothing more can be done" in conducted.rounds.why) == all_asked  # else a resume may have it
    assert dict(conducted.records[0].attempts) == {"lyon": len(lyon.asked) - 1}


@pytest.mark.parametrize("first_s", [0.1, 300.0, 599.0])
def test_a_release_that_was_lost_late_is_still_made_anew(first_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(spare=2, rounds=1)
    lyon = Losing(study, "lyon", {1: 2})
    grid = SlowGrid(study, lyon, iter([first_s, 1.0, 500.0]), monkeypatch)
    assert conduct(grid, study).rounds.outcome == "COMPLETE"
    assert lyon.asked == [(1, 0), (1, 1), (1, 2)]


def test_with_a_quorum_below_all_the_round_goes_on_when_none_is_spare() -> None:
    study = study_of(spare=1, quorum=2)
    conducted = conduct(FakeGrid(hospitals(study, lyon=Losing(study, "lyon", {2: 99}))), study)
    assert conducted.rounds.outcome == "COMPLETE"
    assert [set(record.missing) for record in conducted.records] == [set(), {"lyon"}, set()]


def test_a_resume_ends_by_itself_with_the_same_sentence_and_asks_for_nothing_else(tmp_path: Path) -> None:
    study = study_of(spare=1)
    lyon = Losing(study, "lyon", {2: 99})
    checkpoints = Checkpoints(tmp_path, study.sha256, durable=False)
    first = conduct(FakeGrid(hospitals(study, lyon=lyon)), study, checkpoints=checkpoints)
    for _ in range(3):
        grid = FakeGrid(hospitals(study, lyon=lyon))
        again = conduct(grid, study, checkpoints=checkpoints)
        assert (again.rounds, again.records[0].round) == (first.rounds, 2)
        assert len(grid.rounds_sent()) == 3 + 1


def test_a_lost_evaluation_is_asked_for_anew(tmp_path: Path) -> None:
    asks = {"test_fraction": 0.3, "release": {"epsilon": 2.0, "bins": 4}}
    study = study_of(spare=1, evaluation=asks)

    class Once(Honest):
        lost = 0

        def evaluate(self, message: Message, model: Arrays) -> Iterator[Message]:
            if read("evaluate", message.content, self.parameters).fields.get("attempt", 0) < 1:
                yield Message(Error(wire.BEGUN, "lost"), reply_to=message)
            else:
                yield from super().evaluate(message, model)

    grid = FakeGrid(hospitals(study, lyon=Once(study, "lyon", 4.0)))
    journal = Journal(tmp_path / "journal.jsonl", durable=False)
    conducted = conduct(grid, study, journal=journal)
    assert set(conducted.released["score histogram"].arrays) == set(NODES)
    assert [(a["site"], a["round"], a["attempt"]) for a in journaled(journal.path, "again")] == [("lyon", 0, 1)]
    assert journaled(journal.path, "evaluated")[0]["attempts"] == {"lyon": 1}


# Real sites and ledgers under random losses

FATES = ("fine", "killed before", "killed after", "outbox lost", "reply lost", "coordinator dies")


class CoordinatorDiedError(Exception):
    """The coordinator's process ended here."""


class Hospital:
    """A site with its ledger, its outbox and a worker that is lost where `fate` says so."""

    def __init__(self, name: str, study: Study, path: Path, fate: Callable[[], str], *, seeded: bool) -> None:
        self.name, self.study, self.path, self.fate, self.seeded = name, study, path, fate, seeded
        self.outbox: dict[str, Message] = {}
        self.made: Counter[str] = Counter()

    def site(self) -> Site:
        inputs = len(self.study.inputs) if self.study.procedure == "training" else len(self.study.counted)
        test = patients(20, inputs=len(self.study.inputs), seed=1)
        people = Split(patients(40, inputs=inputs), test, {})
        ledger = Ledger.open(self.path, durable=False)
        policy = Policy(metrics="noisy")
        return Site(self.name, self.study, people, ledger, seeded=self.seeded, policy=policy)

    def __call__(self, message: Message) -> Iterator[Message]:
        form = wire.ASKS[message.metadata.message_type]
        if form == "hello":
            yield make_app(lambda _: self.site())(message, context())
            return
        expected = study_parameters(self.study) if form != "statistics" else None
        frame = to_frame(form, message.content, expected)
        key, fate = instruction_of(frame, frame.sha256), self.fate()
        if fate == "coordinator dies":
            raise CoordinatorDiedError
        if key not in self.outbox:
            reply = self.worked(message, form, fate)
            if reply.has_error():
                yield reply
                return
            self.made[form] += 1
            self.outbox[key] = reply
        kept = self.outbox[key]
        if fate == "outbox lost":
            del self.outbox[key]
        if fate in ("outbox lost", "reply lost"):
            return
        yield Message(RecordDict(dict(kept.content)), reply_to=message)

    def worked(self, message: Message, form: str, fate: str) -> Message:
        """The worker's answer to a new instruction, killed before or after it booked."""
        site = self.site()
        try:
            fields: dict[str, Any] = dict(message.content.config_records["config"])
            kind = release_of(form)
            assert kind is not None
            try:
                require_new(site, kind, int(fields.get("round", 0)), int(fields.get("attempt", 0)))
            except Exception as error:
                code, reason = code_of(error)
                return Message(Error(code, reason), reply_to=message)
            killed = Message(Error(*code_of(RunError("killed"))), reply_to=message)
            if fate == "killed before":
                return killed
            reply: Message = make_app(lambda _: site)(message, context())
            return killed if fate == "killed after" else reply
        finally:
            site.ledger.close()


def conducted_to_its_end(
    study: Study, folder: Path, fates: Iterable[str], *, seeded: bool = False
) -> tuple[Outcome, Any]:
    """Run a study with losses, resumed as long as the coordinator dies or a resume may help."""
    left = iter(fates)
    people = {n: Hospital(n, study, folder / f"{n}.sqlite", lambda: next(left, "fine"), seeded=seeded) for n in NODES}
    checkpoints = Checkpoints(folder / "checkpoints", study.sha256, durable=False)
    for _ in range(40):
        grid = FakeGrid({NODES[name]: hospital for name, hospital in people.items()})
        try:
            conducted = conduct(grid, study, checkpoints=checkpoints if study.procedure == "training" else None)
        except CoordinatorDiedError:
            continue
        assert len(grid.sent) <= 3 + (study.training.rounds + 1) * 3 * (1 + study.privacy.spare)
        if conducted.rounds.outcome == "COMPLETE" or "nothing more can be done" in conducted.rounds.why:
            return conducted, people
    raise AssertionError(f"resumed for ever: {conducted.rounds.why}")


def booked(hospital: Hospital) -> tuple[Counter[int], float]:
    """How often each release is booked, and epsilon."""
    ledger = Ledger.open(hospital.path, durable=False)
    rows = ledger._connection.execute("SELECT round FROM releases").fetchall()
    spent = ledger.spent(hospital.name, delta=DELTA)
    ledger.close()
    return Counter(row[0] for row in rows), spent


@settings(max_examples=40, deadline=None)
@given(
    spare=st.integers(0, 2),
    fates=st.lists(st.sampled_from(FATES), max_size=25),
    kind=st.sampled_from(["train", "count"]),
)
def test_whatever_is_lost_in_whatever_order_bookings_and_epsilon_stay_within_the_plan(
    tmp_path_factory: pytest.TempPathFactory, spare: int, fates: list[str], kind: str
) -> None:
    if kind == "train":
        asks = {"test_fraction": 0.3, "release": {"epsilon": 0.5, "bins": 4}}
        study = study_of(spare, rounds=2, evaluation=asks)
    else:
        privacy = {"mode": "local", "epsilon": 0.5, "delta": DELTA, "spare": spare}
        study = counting(privacy=privacy, training={"quorum": 3})
    conducted, people = conducted_to_its_end(study, tmp_path_factory.mktemp("run"), fates)
    for hospital in people.values():
        rounds, spent = booked(hospital)
        plan = plan_for(study, hospital.name)
        assert sum(rounds.values()) - len(rounds) <= spare
        assert spent <= plan.whole_epsilon() + 1e-9
        assert sum(hospital.made.values()) <= sum(rounds.values())  # nothing left that is not booked
    if conducted.rounds.outcome == "COMPLETE" and study.procedure == "training":
        assert all(booked(hospital)[0].keys() >= {1, 2} for hospital in people.values())
    if not set(fates) & {"killed after", "outbox lost"}:
        assert conducted.rounds.outcome == "COMPLETE"  # what was not lost after its booking needs no spare


@pytest.mark.parametrize("fate", ["killed after", "outbox lost"])
@pytest.mark.parametrize("spare", [0, 1])
def test_one_loss_in_a_study_of_all_hospitals_ends_it_only_where_none_is_spare(
    tmp_path: Path, fate: str, spare: int
) -> None:
    study = study_of(spare, rounds=2)
    conducted, people = conducted_to_its_end(study, tmp_path, ["fine", fate])
    assert (conducted.rounds.outcome == "COMPLETE") is (spare > 0)
    assert [max(booked(hospital)[0].values()) for hospital in people.values()].count(2) == spare


@settings(max_examples=15, deadline=None)
@given(fates=st.lists(st.sampled_from(["fine", "reply lost", "coordinator dies"]), max_size=20))
def test_where_every_reply_can_be_had_again_the_model_has_the_bits_of_an_undisturbed_run(
    tmp_path_factory: pytest.TempPathFactory, fates: list[str]
) -> None:
    study = study_of(2)
    undisturbed, _ = conducted_to_its_end(study, tmp_path_factory.mktemp("calm"), [], seeded=True)
    disturbed, people = conducted_to_its_end(study, tmp_path_factory.mktemp("storm"), fates, seeded=True)
    assert same_bits(undisturbed.model, disturbed.model)
    assert all(set(booked(hospital)[0].values()) == {1} for hospital in people.values())
