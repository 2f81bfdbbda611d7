"""The coordinator against honest, hostile, late and silent hospitals, over a fake that speaks Flower's Grid."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from numpy.typing import NDArray

from configs import wire
from configs.journal import Journal
from configs.journal import read as read_journal
from configs.schema import Study
from server import gathering
from server.app import conduct
from server.attendance import Connection
from server.checkpoint import Checkpoints
from server.gathering import Patience
from server.outcome import Outcome, PostponedError, RoundRecord
from server.proposals import GridPost
from server.session import Deployment
from strategies.exchange.arrays import Arrays, to_record
from strategies.exchange.messages import content, read
from strategies.learning import learning_of
from strategies.models.registry import study_parameters
from tests.builders import become_a_server, flat, plain, random_arrays, same_bits
from tests.builders import study as private_study

NODES = {"brest": 31, "lille": 12, "lyon": 23}  # not in the order of the names
SHIFTS = {"brest": 1.0, "lille": 2.0, "lyon": 4.0}  # what each adds to the shared model
# The doubles below move every parameter by far: at this rate an honest hospital might, so that none is refused for it.
FAST: dict[str, Any] = {"epochs": 1, "batch_size": "full", "learning_rate": 1000.0}
MEAN_SHIFT = (60 * 1.0 + 100 * 2.0 + 80 * 4.0) / 240
Replies = list[Message]
Histogram = NDArray[np.float32]
Behaviour = Callable[[Message], Iterable[Message]]


class FakeGrid(Grid):
    """Flower's interface around functions: node id -> what it replies. `arrange` is the order in which replies come."""

    def __init__(self, nodes: dict[int, Behaviour], arrange: Callable[[Replies], Replies] = list) -> None:
        become_a_server()
        self._nodes, self._arrange = nodes, arrange
        self._ids = itertools.count(1)
        self._run = Run.create_empty(1)
        self._waiting: dict[str, Message] = {}
        self.sent: list[Message] = []
        self.timeouts: list[float | None] = []

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        replies = self.send_and_receive(messages)
        self._waiting |= {reply.metadata.reply_to_message_id: reply for reply in replies}
        return list(self._waiting)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._waiting.pop(key) for key in message_ids if key in self._waiting]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Replies:
        self.timeouts.append(timeout)
        replies: Replies = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"message-{next(self._ids)}"
            self.sent.append(message)
            replies += self._nodes[message.metadata.dst_node_id](message)
        return self._arrange(replies)

    def rounds_sent(self) -> list[int]:
        """Nodes that were asked to train, in the order of asking."""
        return [m.metadata.dst_node_id for m in self.sent if m.metadata.message_type == wire.TRAIN]


class Honest:
    """A hospital that follows the protocol and adds its shift to the model."""

    def __init__(self, study: Study, name: str, shift: float) -> None:
        self.study, self.name, self.shift = study, name, shift
        self.parameters = study_parameters(study)

    def __call__(self, message: Message) -> Iterator[Message]:
        if message.metadata.message_type == wire.HELLO:
            assert read("hello", message.content).fields["study"] == self.study.canonical
            yield self.greet(message)
        elif message.metadata.message_type == wire.EVALUATE:
            asked = read("evaluate", message.content, self.parameters)
            assert asked.fields["study_sha256"] == self.study.sha256
            yield from self.evaluate(message, asked.arrays)
        else:
            asked = read("train", message.content, self.parameters)
            assert asked.fields["study_sha256"] == self.study.sha256
            yield from self.train(message, asked.arrays, asked.fields["round"])

    def greet(self, message: Message) -> Message:
        fields: dict[str, str | int] = {"protocol": 1, "site": self.name, "study_sha256": self.study.sha256}
        return Message(content("hello reply", fields), reply_to=message)

    def train(self, message: Message, start: Arrays, number: int) -> Iterator[Message]:
        yield Message(RecordDict({"arrays": to_record(self.model(start))}), reply_to=message)

    def evaluate(self, message: Message, model: Arrays) -> Iterator[Message]:
        yield Message(RecordDict({"arrays": to_record({"histogram": self.histogram()})}), reply_to=message)

    def histogram(self) -> Histogram:
        """Some patients with the outcome scored high, some without it low."""
        found = np.zeros((2, 4), np.float32)
        found[0, :2] = found[1, 2:] = 5 * self.shift
        return found

    def model(self, start: Arrays) -> Arrays:
        return {name: array + np.float32(self.shift) for name, array in start.items()}


class Spoilt(Honest):
    """A hospital that greets honestly; `spoil` turns its honest answer to a round into what it sends."""

    def __init__(self, study: Study, name: str, shift: float, spoil: Callable[[Message, Message], Replies]) -> None:
        super().__init__(study, name, shift)
        self.spoil = spoil

    def train(self, message: Message, start: Arrays, number: int) -> Iterator[Message]:
        (honest,) = super().train(message, start, number)
        yield from self.spoil(message, honest)


def study_of(quorum: int = 2, **training: Any) -> Study:
    return plain(training={"quorum": quorum, "rounds": 2, "local": FAST} | training)


def hospitals(study: Study, **others: Behaviour) -> dict[int, Behaviour]:
    """The three of the cohort, honest where `others` does not say otherwise."""
    return {NODES[name]: others.get(name, Honest(study, name, SHIFTS[name])) for name in NODES}


def final(conducted: Outcome) -> float:
    """The value that every parameter has, starting from zeros."""
    values = flat(conducted.model)
    assert np.ptp(values) < 1e-5
    return float(values[0])


def test_the_shared_model_is_the_weighted_mean_round_after_round() -> None:
    study = study_of(rounds=5)
    conducted = conduct(FakeGrid(hospitals(study)), study)
    assert (conducted.rounds.outcome, conducted.rounds.done) == ("COMPLETE", 5)
    assert final(conducted) == pytest.approx(5 * MEAN_SHIFT, rel=1e-5)


def test_each_round_records_who_contributed_and_how_many_bytes() -> None:
    study = study_of()
    records = conduct(FakeGrid(hospitals(study)), study).records
    assert [record.round for record in records] == [1, 2]
    for record in records:
        assert set(record.contributed) == set(NODES)
        assert all(size == 2 * 128 + 4 * 3 + len("0.weight0.bias") for size in record.contributed.values())
        assert record.missing == {}


def test_the_grid_is_asked_to_wait_as_long_as_the_study_says() -> None:
    study = study_of(round_timeout_s=12.5)
    grid = FakeGrid(hospitals(study))
    conduct(grid, study)
    assert grid.timeouts == [12.5] * 3  # the greeting and two rounds


def test_the_last_share_of_the_iterates_is_averaged() -> None:
    study = study_of(rounds=4, average_last=0.5)
    conducted = conduct(FakeGrid(hospitals(study)), study)
    assert final(conducted) == pytest.approx(3.5 * MEAN_SHIFT, rel=1e-5)


def test_without_averaging_the_last_iterate_is_the_model() -> None:
    study = study_of(rounds=4)
    assert final(conduct(FakeGrid(hospitals(study)), study)) == pytest.approx(4 * MEAN_SHIFT, rel=1e-5)


# What a hospital may send instead of its answer, and why it then does not count.


def with_arrays(message: Message, arrays: ArrayRecord, **records: Any) -> Replies:
    return [Message(RecordDict({"arrays": arrays, **records}), reply_to=message)]


def changed(honest: Message, name: str, array: np.ndarray | Array) -> ArrayRecord:
    record = dict(honest.content.array_records["arrays"].items())
    return ArrayRecord(record | {name: array if isinstance(array, Array) else Array(array)})


def lying_header(honest: Message) -> ArrayRecord:
    array = honest.content.array_records["arrays"]["0.bias"]
    return changed(honest, "0.bias", Array(array.dtype, array.shape, array.stype, array.data[:-2]))


HOSTILE: dict[str, tuple[Callable[[Message, Message], Replies], str]] = {
    "another shape": (
        lambda m, h: with_arrays(m, changed(h, "0.bias", np.zeros(2, np.float32))),
        "expected array '0.bias'",
    ),
    "another type": (lambda m, h: with_arrays(m, changed(h, "0.bias", np.zeros(1))), "expected array '0.bias'"),
    "objects": (
        lambda m, h: with_arrays(m, changed(h, "0.bias", Array("object", (1,), "numpy.ndarray", b"cos\nsystem\n"))),
        "expected array '0.bias'",
    ),
    "not a number": (
        lambda m, h: with_arrays(m, changed(h, "0.bias", np.full(1, np.nan, np.float32))),
        "expected finite values",
    ),
    "infinite": (
        lambda m, h: with_arrays(m, changed(h, "0.bias", np.full(1, -np.inf, np.float32))),
        "expected finite values",
    ),
    "torn bytes": (lambda m, h: with_arrays(m, lying_header(h)), "its bytes are not those"),
    "an array more": (lambda m, h: with_arrays(m, changed(h, "counts", np.ones(9, np.float32))), "no array 'counts'"),
    "a name with control characters": (
        lambda m, h: with_arrays(m, changed(h, "\x1b[2J\n", np.ones(9, np.float32))),
        "no array",
    ),
    "no arrays": (lambda m, h: with_arrays(m, ArrayRecord()), "expected array"),
    "nothing": (lambda m, h: [Message(RecordDict(), reply_to=m)], "expected array"),
    "a weight of its own": (
        lambda m, h: with_arrays(m, h.content.array_records["arrays"], metrics=MetricRecord({"weight": 1e9})),
        "no field 'metrics'",
    ),
    "a weight as its config": (
        lambda m, h: with_arrays(m, h.content.array_records["arrays"], config=MetricRecord({"weight": 1e9})),
        "no field 'config'",
    ),
    "a second model": (
        lambda m, h: with_arrays(m, h.content.array_records["arrays"], config=h.content.array_records["arrays"]),
        "no field 'config'",
    ),
    "fields for arrays": (
        lambda m, h: [Message(RecordDict({"arrays": ConfigRecord({"a": 1})}), reply_to=m)],
        "no field 'arrays'",
    ),
    "a count": (
        lambda m, h: with_arrays(m, h.content.array_records["arrays"], config=ConfigRecord({"num-examples": 46})),
        "no field 'num-examples'",
    ),
    "no reply": (lambda m, h: [], "no reply in time"),
    "an error": (lambda m, h: [Message(Error(101, "the budget is spent"), reply_to=m)], "the budget is spent"),
    "an error with control characters": (
        lambda m, h: [Message(Error(199, "\x1b[31mred\n\x07\u202eoff"), reply_to=m)],
        "[31mredoff",
    ),
    "a very long error": (lambda m, h: [Message(Error(199, "x" * 10**6), reply_to=m)], "x" * 200),
    "an error without a reason": (lambda m, h: [Message(Error(5), reply_to=m)], "no reason given"),
}
hostile = pytest.mark.parametrize(("spoil", "why"), HOSTILE.values(), ids=HOSTILE)


@hostile
def test_a_hostile_reply_is_left_out_and_the_reason_is_on_record(
    spoil: Callable[[Message, Message], Replies], why: str, tmp_path: Path
) -> None:
    study = study_of(quorum=2)
    grid = FakeGrid(hospitals(study, brest=Spoilt(study, "brest", 1.0, spoil)))
    journal = Journal(tmp_path / "journal.jsonl", durable=False)
    conducted = conduct(grid, study, journal=journal)
    assert conducted.rounds.outcome == "COMPLETE"
    assert final(conducted) == pytest.approx(2 * (100 * 2.0 + 80 * 4.0) / 180, rel=1e-5)  # of the two others
    written = [record.facts for record in read_journal(journal.path) if record.kind == "round"]
    for record, facts in zip(conducted.records, written, strict=True):
        assert set(record.contributed) == {"lille", "lyon"}
        assert set(record.missing) == {"brest"}
        assert why in record.missing["brest"]
        assert record.missing["brest"].isprintable()
        assert len(record.missing["brest"]) <= 200
        assert (facts["contributed"], facts["missing"]) == (record.contributed, record.missing)


@hostile
def test_below_quorum_a_study_is_incomplete_and_no_subset_becomes_the_model(
    spoil: Callable[[Message, Message], Replies], why: str
) -> None:
    study = study_of(quorum=3)
    conducted = conduct(FakeGrid(hospitals(study, brest=Spoilt(study, "brest", 1.0, spoil))), study)
    assert (conducted.rounds.outcome, conducted.rounds.done) == ("INCOMPLETE", 0)
    assert conducted.rounds.why == "round 1: 2 hospitals contributed, the study asks for 3"
    assert final(conducted) == 0.0
    assert why in conducted.records[0].missing["brest"]


class OnlyIn(Honest):
    """Answers in some rounds only."""

    def __init__(self, study: Study, name: str, shift: float, rounds: set[int]) -> None:
        super().__init__(study, name, shift)
        self.rounds = rounds

    def train(self, message: Message, start: Arrays, number: int) -> Iterator[Message]:
        return super().train(message, start, number) if number in self.rounds else iter(())


def test_a_study_that_loses_its_quorum_keeps_the_rounds_that_had_it() -> None:
    study = study_of(quorum=3, rounds=4)
    grid = FakeGrid(hospitals(study, lyon=OnlyIn(study, "lyon", 4.0, {1, 2})))
    conducted = conduct(grid, study)
    assert (conducted.rounds.outcome, conducted.rounds.done) == ("INCOMPLETE", 2)
    assert conducted.rounds.why.startswith("round 3: ")
    assert final(conducted) == pytest.approx(2 * MEAN_SHIFT, rel=1e-5)
    assert [set(record.missing) for record in conducted.records] == [set(), set(), {"lyon"}]
    assert len(grid.rounds_sent()) == 9  # nobody was asked for a fourth


def test_a_hospital_that_was_late_once_is_asked_and_counted_again() -> None:
    study = study_of(quorum=2, rounds=3)
    conducted = conduct(FakeGrid(hospitals(study, lyon=OnlyIn(study, "lyon", 4.0, {1, 3}))), study)
    assert [dict(record.missing) for record in conducted.records] == [{}, {"lyon": "no reply in time"}, {}]
    assert final(conducted) == pytest.approx(2 * MEAN_SHIFT + (100 * 2.0 + 60 * 1.0) / 160, rel=1e-5)


def from_node(reply: Message, node: int) -> Message:
    reply.metadata.__dict__["_src_node_id"] = node
    return reply


def test_a_reply_of_a_stranger_does_not_count() -> None:
    study = study_of(quorum=3)

    def with_a_stranger(message: Message, honest: Message) -> Replies:
        wild = to_record(
            {name: np.full(shape, 1e6, np.float32) for name, (shape, _) in learning_of(study).parameters.items()}
        )
        return [from_node(Message(RecordDict({"arrays": wild}), reply_to=message), 666), honest]

    conducted = conduct(FakeGrid(hospitals(study, brest=Spoilt(study, "brest", 1.0, with_a_stranger))), study)
    assert conducted.rounds.outcome == "COMPLETE"
    assert final(conducted) == pytest.approx(2 * MEAN_SHIFT, rel=1e-5)
    assert all(set(record.contributed) == set(NODES) for record in conducted.records)


def test_flowers_own_error_for_a_lost_node_does_not_stop_the_others() -> None:
    """It comes from the SuperLink (node 1), not from the hospital."""
    study = study_of(quorum=2)

    def lost(message: Message, honest: Message) -> Replies:
        return [from_node(Message(Error(5, "Node Unavailable"), reply_to=message), 1)]

    conducted = conduct(FakeGrid(hospitals(study, brest=Spoilt(study, "brest", 1.0, lost))), study)
    assert conducted.rounds.outcome == "COMPLETE"
    assert all(set(record.missing) == {"brest"} for record in conducted.records)


def test_the_first_of_two_answers_counts_and_the_second_changes_nothing() -> None:
    study = study_of(quorum=3)

    def twice(message: Message, honest: Message) -> Replies:
        wild = {name: np.full(shape, 1e6, np.float32) for name, (shape, _) in learning_of(study).parameters.items()}
        return [honest, Message(RecordDict({"arrays": to_record(wild)}), reply_to=message)]

    conducted = conduct(FakeGrid(hospitals(study, brest=Spoilt(study, "brest", 1.0, twice))), study)
    assert final(conducted) == pytest.approx(2 * MEAN_SHIFT, rel=1e-5)


# The greeting: who takes part.


def test_a_second_node_under_the_same_name_is_refused_and_never_sees_the_model(tmp_path: Path) -> None:
    study = study_of(quorum=3)
    grid = FakeGrid(hospitals(study) | {99: Honest(study, "lille", 1e6)})
    journal = Journal(tmp_path / "journal.jsonl", durable=False)
    conducted = conduct(grid, study, journal=journal)
    assert final(conducted) == pytest.approx(2 * MEAN_SHIFT, rel=1e-5)
    assert 99 not in grid.rounds_sent()
    refused = [record.facts for record in read_journal(journal.path) if record.kind == "refused"]
    assert ["once" in facts["reason"] for facts in refused] == [True]


def test_a_hospital_outside_the_cohort_is_refused_and_never_sees_the_model() -> None:
    study = study_of(quorum=3)
    grid = FakeGrid(hospitals(study) | {99: Honest(study, "paris", 1e6)})
    conducted = conduct(grid, study)
    assert final(conducted) == pytest.approx(2 * MEAN_SHIFT, rel=1e-5)
    assert 99 not in grid.rounds_sent()


def test_a_node_that_did_not_greet_is_not_asked_to_train() -> None:
    study = study_of(quorum=2)
    grid = FakeGrid(hospitals(study, brest=lambda _: []))
    assert conduct(grid, study).rounds.outcome == "COMPLETE"
    assert NODES["brest"] not in grid.rounds_sent()


BAD_GREETINGS: dict[str, Callable[[Message], Message]] = {
    "another study": lambda m: Message(
        content("hello reply", {"protocol": 1, "site": "brest", "study_sha256": "f" * 64}), reply_to=m
    ),
    "a field more": lambda m: Message(RecordDict({"config": ConfigRecord({"patients": 46})}), reply_to=m),
    "nothing": lambda m: Message(RecordDict(), reply_to=m),
    "an error": lambda m: Message(Error(104, "\x1b[31mno\n"), reply_to=m),
    "an array": lambda m: Message(RecordDict({"arrays": to_record({"w": np.ones(1, np.float32)})}), reply_to=m),
}


@pytest.mark.parametrize("greet", BAD_GREETINGS.values(), ids=BAD_GREETINGS)
def test_with_a_bad_greeting_and_no_quorum_nobody_is_asked_to_train(
    greet: Callable[[Message], Message], tmp_path: Path
) -> None:
    study = study_of(quorum=3)
    grid = FakeGrid(hospitals(study, brest=lambda message: [greet(message)]))
    journal = Journal(tmp_path / "journal.jsonl", durable=False)
    conducted = conduct(grid, study, journal=journal)
    assert conducted.rounds.outcome == "INCOMPLETE"
    assert conducted.rounds.why.startswith("2 hospitals take part (lille, lyon), the study asks for 3; brest: ")
    assert grid.rounds_sent() == []
    records = list(read_journal(journal.path))
    assert [record.kind for record in records] == ["refused", "gathered", "end"]
    assert records[0].facts["reason"].isprintable()
    assert records[-1].facts == {"outcome": "INCOMPLETE", "why": conducted.rounds.why}


def test_with_nobody_there_the_study_is_incomplete() -> None:
    study = study_of(quorum=1, round_timeout_s=0.01)
    conducted = conduct(FakeGrid({}), study)
    assert conducted.rounds.outcome == "INCOMPLETE"
    assert "0 hospitals take part (none)" in conducted.rounds.why


@pytest.mark.parametrize("there", [[], list(NODES)], ids=["nobody came", "everybody did"])
def test_a_study_that_is_stopped_while_it_waits_says_so_and_at_once(there: list[str], tmp_path: Path) -> None:
    """Not that too few hospitals take part; and whoever has come is not asked for anything."""
    study = study_of(quorum=3)
    grid = FakeGrid({node: behave for node, behave in hospitals(study).items() if there})
    journal = Journal(tmp_path / "journal.jsonl", durable=False)
    asked = [False, False, True] if not there else [True]
    began = time.monotonic()
    deployment = Deployment(
        GridPost(grid), Patience(3600.0), stopped=lambda: asked.pop(0) if len(asked) > 1 else asked[0]
    )
    conducted = conduct(grid, study, journal=journal, deployment=deployment)
    assert (conducted.rounds.outcome, conducted.rounds.why) == (
        "INCOMPLETE",
        "stopped by the consortium before it began",
    )
    assert grid.rounds_sent() == []
    assert list(read_journal(journal.path))[-1].facts["why"] == conducted.rounds.why
    assert time.monotonic() - began < 5


def test_a_long_wait_for_hospitals_ends_within_a_second_of_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "QUICK_LOOK_S", 60.0)
    monkeypatch.setattr(gathering, "SLOW_LOOK_S", 60.0)
    began, grid = time.monotonic(), FakeGrid({})
    deployment = Deployment(GridPost(grid), Patience(3600.0), stopped=lambda: time.monotonic() - began > 0.5)
    conducted = conduct(grid, study_of(quorum=1), deployment=deployment)
    assert "stopped by the consortium" in conducted.rounds.why
    assert time.monotonic() - began < 10


class Named(GridPost):
    """A grid whose nodes are known by their hospital's name, some of them without a connection."""

    def __init__(self, grid: Grid) -> None:
        super().__init__(grid)
        self.offline: set[str] = set()

    def connections(self) -> dict[str, Connection]:
        lost = "2026-01-01 10:02 UTC"
        return {
            site: Connection(node, False, "first", 600.0, lost) if site in self.offline else Connection(node)
            for site, node in NODES.items()
        }


def test_an_absent_hospital_is_not_asked_in_its_rounds_and_takes_part_again_when_it_is_back(tmp_path: Path) -> None:
    study = study_of(quorum=2, rounds=4)
    grid = FakeGrid(hospitals(study))
    post, journal = Named(grid), Journal(tmp_path / "journal.jsonl", durable=False)

    def observe(record: RoundRecord, model: Arrays) -> None:
        post.offline = {"lyon"} if record.round in (1, 2) else set()

    deployment = Deployment(post, Patience(3600.0, 0.0, 60.0))
    conducted = conduct(grid, study, journal=journal, deployment=deployment, observer=observe)
    assert conducted.rounds.outcome == "COMPLETE"
    reason = {"lyon": "not connected since 2026-01-01 10:02 UTC"}
    assert [dict(record.missing) for record in conducted.records] == [{}, reason, reason, {}]
    assert grid.rounds_sent().count(NODES["lyon"]) == 2
    written = [record.facts["missing"] for record in read_journal(journal.path) if record.kind == "round"]
    assert written == [{}, reason, reason, {}]


def test_a_hospital_that_says_yes_after_the_start_takes_part_from_then_on(tmp_path: Path) -> None:
    study = study_of(quorum=2, rounds=4)
    willing = Honest(study, "lyon", SHIFTS["lyon"])
    approved = False

    def lyon(message: Message) -> Iterable[Message]:
        if message.metadata.message_type == wire.HELLO and not approved:
            return [Message(Error(110, "the hospital has not approved this study yet"), reply_to=message)]
        return willing(message)

    def observe(record: RoundRecord, model: Arrays) -> None:
        nonlocal approved
        approved = True
        time.sleep(1.0)  # longer than until it is asked again

    grid = FakeGrid(hospitals(study, lyon=lyon))
    journal = Journal(tmp_path / "journal.jsonl", durable=False)
    deployment = Deployment(Named(grid), Patience(3600.0, 0.0, 60.0))
    conducted = conduct(grid, study, journal=journal, deployment=deployment, observer=observe)
    assert conducted.records[0].missing == {"lyon": "the hospital has not approved this study yet"}
    assert set(conducted.records[-1].contributed) == set(NODES)
    (joined,) = [record.facts for record in read_journal(journal.path) if record.kind == "joined"]
    assert joined["sites"] == ["lyon"]
    assert conducted.records[joined["before_round"] - 1].contributed.keys() == NODES.keys()


def test_a_run_whose_hospitals_are_not_there_any_more_is_for_another_time_and_one_they_refused_has_ended() -> None:
    study = study_of(quorum=3)
    grid = FakeGrid(hospitals(study))
    post = Named(grid)
    post.offline = {"lyon"}
    deployment = Deployment(post, Patience(0.2, 0.0, 60.0), ready=sorted(NODES))
    with pytest.raises(PostponedError):
        conduct(grid, study, deployment=deployment)
    refused = FakeGrid(hospitals(study, lyon=lambda m: [Message(Error(111, "refused"), reply_to=m)]))
    conducted = conduct(refused, study, deployment=Deployment(Named(refused), Patience(9.0), ready=sorted(NODES)))
    assert conducted.rounds.why == "2 hospitals take part (brest, lille), the study asks for 3; lyon: refused"


class Trained(Honest):
    """A model of its own each round, so that the order of sums shows in the last bits."""

    def model(self, start: Arrays) -> Arrays:
        own = random_arrays(self.parameters, seed=int(self.shift * 1000))
        return {name: (array * np.float32(0.7) + own[name]).astype(np.float32) for name, array in start.items()}


def trained_by(study: Study) -> dict[int, Behaviour]:
    return {NODES[name]: Trained(study, name, SHIFTS[name]) for name in NODES}


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "trimmed_mean", "krum"])
def test_the_order_in_which_replies_come_changes_no_bit(strategy: str) -> None:
    study = study_of(quorum=3, rounds=5, average_last=0.6, strategy={"name": strategy})
    ways: list[Callable[[Replies], Replies]] = [list, lambda r: r[::-1], lambda r: r[1:] + r[:1]]
    models = [conduct(FakeGrid(trained_by(study), way), study).model for way in ways]
    assert same_bits(models[0], models[1])
    assert same_bits(models[0], models[2])


def test_the_order_in_which_nodes_are_listed_changes_no_bit() -> None:
    study = study_of(quorum=3, rounds=5)
    nodes = trained_by(study)
    models = [conduct(FakeGrid(dict(order)), study).model for order in itertools.permutations(nodes.items())]
    assert all(same_bits(model, models[0]) for model in models)


class KilledError(Exception):
    """The end of the coordinator's process."""


@pytest.mark.parametrize("average_last", [0.0, 0.7])
@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad"])
def test_a_study_killed_after_a_round_and_resumed_ends_with_the_same_bits(
    strategy: str, average_last: float, tmp_path: Path
) -> None:
    study = study_of(quorum=3, rounds=6, average_last=average_last, strategy={"name": strategy})
    undisturbed = conduct(FakeGrid(trained_by(study)), study)

    def kill(record: RoundRecord, model: Arrays) -> None:
        if record.round == 3:
            raise KilledError

    with pytest.raises(KilledError):
        conduct(FakeGrid(trained_by(study)), study, checkpoints=Checkpoints(tmp_path, study.sha256), observer=kill)
    resumed = conduct(FakeGrid(trained_by(study)), study, checkpoints=Checkpoints(tmp_path, study.sha256))
    assert [record.round for record in resumed.records] == [4, 5, 6]
    assert resumed.rounds == undisturbed.rounds
    assert same_bits(resumed.model, undisturbed.model)


def test_a_finished_study_resumed_asks_nobody_to_train(tmp_path: Path) -> None:
    study = study_of(quorum=3)
    first = conduct(FakeGrid(trained_by(study)), study, checkpoints=Checkpoints(tmp_path, study.sha256))
    grid = FakeGrid(trained_by(study))
    again = conduct(grid, study, checkpoints=Checkpoints(tmp_path, study.sha256))
    assert grid.rounds_sent() == []
    assert (again.rounds.outcome, same_bits(again.model, first.model)) == ("COMPLETE", True)


def test_a_round_below_quorum_leaves_no_checkpoint(tmp_path: Path) -> None:
    study = study_of(quorum=3, rounds=3)
    checkpoints = Checkpoints(tmp_path, study.sha256)
    conduct(FakeGrid(hospitals(study, lyon=OnlyIn(study, "lyon", 4.0, {1}))), study, checkpoints=checkpoints)
    kept = checkpoints.load()
    assert kept is not None
    assert kept.round == 1


def test_a_study_that_stopped_below_quorum_goes_on_when_the_hospital_is_back(tmp_path: Path) -> None:
    study = study_of(quorum=3, rounds=3)
    checkpoints = Checkpoints(tmp_path, study.sha256)
    conduct(FakeGrid(hospitals(study, lyon=OnlyIn(study, "lyon", 4.0, {1}))), study, checkpoints=checkpoints)
    conducted = conduct(FakeGrid(hospitals(study)), study, checkpoints=checkpoints)
    assert conducted.rounds.outcome == "COMPLETE"
    assert final(conducted) == pytest.approx(3 * MEAN_SHIFT, rel=1e-5)


def test_the_observer_sees_every_round_with_its_model() -> None:
    study, seen = study_of(), []
    conduct(
        FakeGrid(hospitals(study)), study, observer=lambda record, model: seen.append((record.round, flat(model)[0]))
    )
    assert [(number, pytest.approx(number * MEAN_SHIFT, rel=1e-5)) for number in (1, 2)] == seen


# How good the final model is, where a study asks


class Judged(Honest):
    """A hospital that trains honestly; `say` is what it says about its test patients."""

    def __init__(self, study: Study, name: str, shift: float, say: Callable[[Message, Histogram], Replies]) -> None:
        super().__init__(study, name, shift)
        self.say = say

    def evaluate(self, message: Message, model: Arrays) -> Iterator[Message]:
        yield from self.say(message, self.histogram())


def asking(**training: Any) -> Study:
    release = {"test_fraction": 0.3, "release": {"epsilon": 2.0, "bins": 4}}
    return private_study(evaluation=release, training={"quorum": 2, "rounds": 2, "local": FAST} | training)


def asked_to_evaluate(grid: FakeGrid) -> list[Message]:
    return [m for m in grid.sent if m.metadata.message_type == wire.EVALUATE]


def test_each_hospital_is_asked_once_about_the_final_model_after_the_last_round() -> None:
    study = asking(rounds=4, average_last=0.5)
    grid = FakeGrid(hospitals(study))
    conducted = conduct(grid, study)
    last = grid.sent[-3:]
    assert asked_to_evaluate(grid) == last
    assert {m.metadata.dst_node_id for m in last} == set(NODES.values())
    for message in last:
        assert same_bits(read("evaluate", message.content, learning_of(study).parameters).arrays, conducted.model)
    assert set(conducted.released["score histogram"].arrays) == set(NODES)


def test_a_study_that_does_not_ask_asks_nothing() -> None:
    study = private_study(training={"quorum": 2, "rounds": 2, "local": FAST})
    grid = FakeGrid(hospitals(study))
    assert conduct(grid, study).released == {}
    assert not asked_to_evaluate(grid)


def test_an_incomplete_study_asks_nothing() -> None:
    study = asking(quorum=3)
    grid = FakeGrid(hospitals(study, brest=Spoilt(study, "brest", 1.0, lambda m, h: [])))
    conducted = conduct(grid, study)
    assert (conducted.rounds.outcome, conducted.released) == ("INCOMPLETE", {})
    assert not asked_to_evaluate(grid)


def says(array: np.ndarray, name: str = "histogram", **records: Any) -> Callable[[Message, Histogram], Replies]:
    return lambda m, h: with_arrays(m, ArrayRecord({name: Array(array)}), **records)


def cell(value: float) -> Callable[[Message, Histogram], Replies]:
    def say(message: Message, histogram: Histogram) -> Replies:
        histogram[1, 2] = value
        return with_arrays(message, ArrayRecord({"histogram": Array(histogram)}))

    return say


LIES: dict[str, tuple[Callable[[Message, Histogram], Replies], str]] = {
    "another shape": (says(np.zeros((2, 5), np.float32)), "expected array 'histogram'"),
    "another type": (says(np.zeros((2, 4))), "expected array 'histogram'"),
    "another name": (says(np.zeros((2, 4), np.float32), "patients"), "no array 'patients'"),
    "a field more": (
        says(np.zeros((2, 4), np.float32), config=ConfigRecord({"num-examples": 46})),
        "no field 'num-examples'",
    ),
    "not a number": (cell(np.nan), "expected finite values"),
    "infinite": (cell(np.inf), "expected finite values"),
    "huge": (cell(1e9), "no more patients than the hospital announced"),
    "far below zero": (cell(-1000.0), "far below zero"),
    "no whole number": (cell(10.5), "whole numbers"),
    "a model": (
        lambda m, h: with_arrays(m, to_record(random_arrays(learning_of(asking()).parameters))),
        "no array '0.bias'",
    ),
    "nothing": (lambda m, h: [Message(RecordDict(), reply_to=m)], "expected array 'histogram'"),
    "no reply": (lambda m, h: [], "no reply in time"),
    "an error": (lambda m, h: [Message(Error(117, "the policy\x1b says none"), reply_to=m)], "the policy says none"),
}


@pytest.mark.parametrize(("say", "why"), LIES.values(), ids=LIES)
def test_a_hostile_histogram_is_left_out_and_the_reason_is_on_record(
    say: Callable[[Message, Histogram], Replies], why: str, tmp_path: Path
) -> None:
    study = asking()
    journal = Journal(tmp_path / "journal.jsonl", durable=False)
    grid = FakeGrid(hospitals(study, brest=Judged(study, "brest", 1.0, say)))
    conducted = conduct(grid, study, journal=journal)
    assert conducted.rounds.outcome == "COMPLETE"
    assert set(conducted.released["score histogram"].arrays) == {"lille", "lyon"}
    assert why in conducted.released["score histogram"].missing["brest"]
    (facts,) = [record.facts for record in read_journal(journal.path) if record.kind == "evaluated"]
    assert facts["missing"] == conducted.released["score histogram"].missing
    assert set(facts["contributed"]) == {"lille", "lyon"}


def test_a_second_histogram_and_a_strangers_count_for_nothing() -> None:
    def twice(message: Message, histogram: Histogram) -> Replies:
        record = ArrayRecord({"histogram": Array(histogram)})
        other = ArrayRecord({"histogram": Array(histogram + 1)})
        stranger = with_arrays(message, other)[0]
        stranger.metadata.__dict__["_src_node_id"] = 99
        return [stranger, *with_arrays(message, record), *with_arrays(message, other)]

    study = asking()
    brest = Judged(study, "brest", 1.0, twice)
    released = conduct(FakeGrid(hospitals(study, brest=brest)), study).released
    assert released["score histogram"].arrays["brest"]["histogram"].tolist() == brest.histogram().tolist()


def test_a_study_that_ended_is_asked_again_when_it_is_resumed(tmp_path: Path) -> None:
    """The run may have ended between the last round and its figures; hospitals answer with what they said before."""
    study = asking()
    conduct(FakeGrid(hospitals(study)), study, checkpoints=Checkpoints(tmp_path, study.sha256))
    grid = FakeGrid(hospitals(study))
    resumed = conduct(grid, study, checkpoints=Checkpoints(tmp_path, study.sha256))
    assert not grid.rounds_sent()
    assert len(resumed.released["score histogram"].arrays) == 3
