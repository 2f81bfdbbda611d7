"""The telling of ends: to whom, when, again; over doubles of the SuperLink's grid and of its nodes."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message

from configs import wire
from configs.journal import Journal
from configs.records.run_journal import Gathered
from server.checkpoint import write_tensors
from server.codes import NOT_REACHED
from server.ends import OWED_S, Ends, owe_end
from server.membership import Member, Membership, Talk
from server.superlink.client import Node
from server.telling import Tellings
from strategies.exchange.messages import content, read
from strategies.models.registry import study_parameters
from tests import builders

SITES = ("brest", "lille", "lyon")
STUDY = builders.plain()
MODEL = builders.random_arrays(study_parameters(STUDY))
Answer = Callable[[str], Error | None]


@dataclass
class Middle:
    """A coordinator's folder and the SuperLink's double: whoever is sent an end answers as `answer` says."""

    folder: Path
    nodes: dict[int, Node] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    answer: Answer = lambda _site: None
    _waiting: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.runs, self.database = self.folder / "runs", self.folder / "coordinator.sqlite"
        self.members = Membership.open(self.database)
        for number, site in enumerate(SITES, 1):
            self.members.admit(Member(site, site.encode(), f"{number}" * 64, "2030-01-01T00:00:00+00:00"))
            self.members.set_talk(site, Talk(wire.PROTOCOL_MAX))
            self.nodes[number] = Node(number, site.encode(), online=True, since="first")
        run = self.runs / "run-1"
        run.mkdir(parents=True)
        (run / "study.yaml").write_text(STUDY.canonical)
        write_tensors(run / "model.safetensors", MODEL)
        sites = dict.fromkeys(SITES, 70)
        Journal(run / "journal.jsonl").write(Gathered(study_sha256=STUDY.sha256, sites=SITES, bytes=sites, missing={}))
        self.members.submit("run-1")
        self.tellings = Tellings(self, self.members, lambda: self.nodes, self._open)  # type: ignore[arg-type]

    def end(self, outcome: str = "COMPLETE", code: int = 0, rounds: int = 2) -> None:
        owe_end(self, "run-1", outcome, code, rounds)  # type: ignore[arg-type]
        self.members.set_state("run-1", outcome)

    def look(self) -> None:
        self.tellings._due = 0.0  # time has passed
        self.tellings.step()

    def connect(self, number: int, since: str) -> None:
        self.nodes[number] = Node(number, self.nodes[number].public_key, online=bool(since), since=since)

    @property
    def owed(self) -> list[str]:
        return [site for end in Ends.open(self.database).owed() for site in end.sites]

    def _open(self, _run: str, _closing: ExitStack, _shelf: Any) -> Any:
        return SimpleNamespace(identify=builders.become_a_server), SimpleNamespace(send=self.send, look=self.replies)

    def send(self, messages: list[Message]) -> None:
        self.messages += messages
        self._waiting += messages

    def replies(self) -> list[Message]:
        waiting, self._waiting, replies = self._waiting, [], []
        for message in waiting:
            site = SITES[message.metadata.dst_node_id - 1]
            self.told.append(site)
            error = self.answer(site)
            known = content("end reply", {"study_sha256": STUDY.sha256})
            replies.append(Message(error, reply_to=message) if error else Message(known, reply_to=message))
        return replies


@pytest.fixture
def middle(tmp_path: Path) -> Middle:
    return Middle(tmp_path)


def test_every_hospital_that_took_part_is_told_once_with_the_final_model(middle: Middle) -> None:
    middle.look()
    assert middle.told == []  # nothing is owed
    middle.end()
    middle.look()
    middle.look()
    assert sorted(middle.told) == list(SITES)
    assert middle.owed == []
    told = read("end", middle.messages[0].content, study_parameters(STUDY))
    assert told.fields == {"study_sha256": STUDY.sha256, "outcome": "COMPLETE", "code": 0, "rounds": 2}
    assert all(np.array_equal(told.arrays[name], array) for name, array in MODEL.items())


def test_a_hospital_that_was_away_is_told_when_it_is_back_and_an_old_node_never(middle: Middle) -> None:
    middle.members.set_talk("brest", Talk(wire.FORMS["end"].since - 1))
    middle.connect(2, since="")
    middle.end("INCOMPLETE", wire.STOPPED, rounds=0)
    middle.look()
    middle.look()
    assert middle.told == ["lyon"]
    assert middle.owed == ["brest", "lille"]
    middle.connect(2, since="second")
    middle.look()
    middle.look()
    assert middle.told == ["lyon", "lille"]
    assert middle.owed == ["brest"]
    assert read("end", middle.messages[0].content, study_parameters(STUDY)).arrays == {}


def test_a_hospital_that_was_not_reached_or_waits_for_a_person_is_told_again_and_others_are_not(middle: Middle) -> None:
    codes = {"brest": NOT_REACHED, "lille": wire.WAITING_FOR_APPROVAL, "lyon": 111}
    middle.answer = lambda site: Error(code=codes[site], reason="no")
    middle.end()
    for _ in range(3):
        middle.look()
    assert sorted(middle.told) == list(SITES)  # and not in a tight loop
    assert middle.owed == ["brest", "lille"]
    middle.connect(1, since="second")
    middle.look()
    assert sorted(middle.told) == sorted([*SITES, "brest"])


def test_a_run_that_goes_on_is_not_over_and_owes_its_next_end_alone(middle: Middle) -> None:
    middle.connect(1, since="")
    middle.end("INCOMPLETE", wire.STOPPED, rounds=1)
    middle.members.submit("run-1")
    middle.look()
    assert middle.told == []
    middle.end()
    middle.look()
    middle.look()
    assert sorted(middle.told) == ["lille", "lyon"]
    (owed,) = Ends.open(middle.database).owed()
    assert (owed.outcome, owed.sites) == ("COMPLETE", ("brest",))


def test_a_run_with_a_folder_that_is_gone_stops_no_other(middle: Middle) -> None:
    (middle.runs / "run-1" / "study.yaml").unlink()
    middle.end()
    middle.look()
    middle.look()
    assert middle.told == []


def test_an_end_is_owed_for_a_month(middle: Middle, monkeypatch: pytest.MonkeyPatch) -> None:
    middle.connect(1, since="")
    middle.end()
    now = time.time()
    monkeypatch.setattr("server.ends.time.time", lambda: now + OWED_S + 60)
    assert middle.owed == []
