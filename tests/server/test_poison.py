"""A hospital that sends what no honest one can is refused and named; the run goes on, or ends and says so."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from client.app import make_app
from client.ledger import Ledger
from client.site import Site
from configs import wire
from configs.journal import Journal
from configs.journal import read as read_journal
from configs.schema import Study
from server.app import conduct
from strategies.exchange.arrays import Arrays, to_record
from strategies.exchange.messages import read
from tests.builders import context, flat, patients
from tests.builders import study as private_study
from tests.server.test_conduct import NODES, FakeGrid

POISON: dict[str, Callable[[Arrays, Arrays], Arrays]] = {
    "1e30": lambda start, honest: {n: np.full_like(a, 1e30) for n, a in start.items()},
    "3e38": lambda start, honest: {n: np.full_like(a, 3e38) for n, a in start.items()},
    "minus 3e38": lambda start, honest: {n: np.full_like(a, -3e38) for n, a in start.items()},
    "minus twenty steps": lambda start, honest: {n: a - 20 * (honest[n] - a) for n, a in start.items()},
}


class Hospital:
    """A real site; `poison` turns the model that it trained into what is sent."""

    def __init__(self, name: str, study: Study, poison: Callable[[Arrays, Arrays], Arrays] | None = None) -> None:
        people = patients(60, inputs=len(study.inputs))
        people = replace(
            people, y=(people.x[:, 0] > 0).astype(np.float32)
        )  # something to learn, so that steps are large
        self.site = Site(name, study, people, Ledger.in_memory(), seeded=True)
        self.poison, self.study = poison, study

    def __call__(self, message: Message) -> Iterator[Message]:
        training = message.metadata.message_type == wire.TRAIN
        start = read("train", message.content, self.site.parameters).arrays if training else {}
        start = {name: array.copy() for name, array in start.items()}
        reply: Message = make_app(lambda _: self.site)(message, context())
        if training and self.poison:
            honest = read("train reply", reply.content, self.site.parameters).arrays
            reply = Message(RecordDict({"arrays": to_record(self.poison(start, honest))}), reply_to=message)
        yield reply


def study_of(strategy: str, quorum: int, *, private: bool, batch: int | str = "full") -> Study:
    local = {"epochs": 1, "batch_size": batch, "learning_rate": 0.5}
    return private_study(
        cohort={"brest": 60, "lille": 60, "lyon": 60},
        privacy={"clip_norm": 0.3} if private else {"mode": "none"},
        training={"strategy": {"name": strategy}, "quorum": quorum, "rounds": 3, "local": local},
    )


def conducted(study: Study, how: str | None, journal: Journal | None = None) -> Any:
    people = {n: Hospital(n, study, POISON[how] if how and n == "lyon" else None) for n in NODES}
    return conduct(FakeGrid({NODES[name]: hospital for name, hospital in people.items()}), study, journal=journal)


@pytest.mark.parametrize("how", sorted(POISON))
@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "fedavgm", "fedprox"])
def test_a_poisoned_update_is_refused_its_hospital_named_and_the_others_go_on(
    how: str, private: bool, strategy: str, tmp_path: Path
) -> None:
    study, journal = study_of(strategy, 2, private=private), Journal(tmp_path / "journal.jsonl", durable=False)
    result = conducted(study, how, journal)
    assert result.rounds.outcome == "COMPLETE"
    assert [set(record.contributed) for record in result.records] == [{"brest", "lille"}] * 3
    assert all("update refused: expected a move of at most" in record.missing["lyon"] for record in result.records)
    assert np.isfinite(flat(result.model)).all()
    assert np.abs(flat(result.model)).max() < 10
    refused = [record.facts for record in read_journal(journal.path) if record.kind == "refused"]
    assert [(facts["site"], facts["round"]) for facts in refused] == [("lyon", 1), ("lyon", 2), ("lyon", 3)]
    rounds = [record.facts for record in read_journal(journal.path) if record.kind == "round"]
    assert all("update refused" in facts["missing"]["lyon"] for facts in rounds)


@pytest.mark.parametrize("private", [True, False])
def test_where_all_hospitals_are_needed_the_run_ends_and_says_whose_update_was_refused(private: bool) -> None:
    study = study_of("fedavg", 3, private=private)
    result = conducted(study, "1e30")
    assert result.rounds.outcome == "INCOMPLETE"
    why = "round 1: 2 hospitals contributed, the study asks for 3; lyon: update refused: expected a move of at most"
    assert result.rounds.why.startswith(why)
    assert not flat(result.model).any()


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("batch", ["full", 8])
@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "fedavgm", "fedprox", "median", "krum"])
def test_honest_hospitals_are_never_refused(private: bool, batch: int | str, strategy: str) -> None:
    result = conducted(study_of(strategy, 3, private=private, batch=batch), None)
    assert result.rounds.outcome == "COMPLETE"
    assert [dict(record.missing) for record in result.records] == [{}] * 3
