"""Replies over the SuperLink's socket: late, broken or hostile, none holds up another or ends the run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from configs.memory import Tidy
from configs.pieces import join
from server.codes import BROKEN_REPLY
from server.superlink import grid as module
from server.superlink.flower_inside import Task
from server.superlink.grid import SuperLinkGrid
from strategies.exchange.arrays import to_record
from strategies.exchange.flower import Node, Run, identify, name_message, taken_apart


class FakeSuperLink:
    """What a grid asks of a SuperLink that holds one reply, whose parts may be anything."""

    def __init__(self, reply: Message, parts: dict[str, bytes | None]) -> None:
        self.reply, self.parts, self.confirmed = reply, parts, list[str]()

    def post(self, path: str, body: bytes) -> bytes:
        asked = json.loads(body)["ids"]
        with taken_apart([self.reply]) as ((head,), _):
            reply = [head.header.SerializeToString(), head.tree.SerializeToString()]
        return join([b'{"seen": 1}', *([join(reply)] if asked else [])])

    def pull(self, object_id: str) -> bytes | None:
        return self.parts[object_id]

    def confirm(self, message_id: str) -> None:
        self.confirmed.append(message_id)

    def error(self, message_id: str, code: int, reason: str) -> Message:
        task: Any = object.__new__(Task)
        task.run, task.node = Run.create_empty(1), Node(node_id=1)
        return Task.error(task, message_id, code, reason)


@pytest.fixture
def asked() -> Message:
    identify(node_id=1, run_id=1, task_id=1)
    message = Message(RecordDict(), dst_node_id=7, message_type="train")
    name_message(message, "asked")
    return message


def grid_of(superlink: FakeSuperLink, spool: Path) -> SuperLinkGrid:
    grid = object.__new__(SuperLinkGrid)
    grid._task, grid._arriving, grid._spool = superlink, {}, spool  # type: ignore[assignment]
    grid._own, grid._seen = superlink, -1  # type: ignore[assignment]
    grid._tidy, grid.held_bytes, grid.max_reply_bytes = Tidy(), 0, 30_000_000
    return grid


def reply_to(asked: Message) -> tuple[Message, dict[str, bytes | None]]:
    values = np.random.default_rng(0).normal(size=3_000_000).astype(np.float32)
    reply = Message(RecordDict({"arrays": to_record({"w": values})}), reply_to=asked)
    with taken_apart([reply]) as (_, objects):
        return reply, {name: part.deflate() for name, part in objects.items()}


def test_a_reply_comes_whole_although_its_parts_come_late(asked: Message, tmp_path: Path) -> None:
    reply, parts = reply_to(asked)
    superlink = FakeSuperLink(reply, dict.fromkeys(parts))
    grid = grid_of(superlink, tmp_path)
    for name, content in parts.items():
        assert grid.pull_messages({"asked"}) == []
        superlink.parts[name] = content
    (found,) = grid.pull_messages({"asked"})
    assert bytes(found.content.array_records["arrays"]["w"].data) == reply.content.array_records["arrays"]["w"].data
    assert superlink.confirmed == [reply.object_id]


HOSTILE: dict[str, Callable[[dict[str, bytes | None]], dict[str, bytes | None]]] = {
    "that is none": lambda parts: dict.fromkeys(parts, b"nonsense"),
    "of which a part is missing": lambda parts: dict(list(parts.items())[1:]),
    "that is larger than a reply can be": lambda parts: {name: bytes(20_000_000) for name in parts},
    "whose parts are another message's": lambda parts: {name: next(iter(parts.values())) for name in parts},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_reply_that_is_none_is_an_error_of_its_hospital_and_does_not_end_the_run(
    asked: Message, tmp_path: Path, what: str
) -> None:
    reply, parts = reply_to(asked)
    superlink = FakeSuperLink(reply, HOSTILE[what](parts))
    (found,) = grid_of(superlink, tmp_path).pull_messages({"asked"})
    assert (found.error.code, found.metadata.reply_to_message_id) == (BROKEN_REPLY, "asked")
    assert superlink.confirmed == [reply.object_id]  # it is not kept


def test_a_reply_that_never_goes_on_is_given_up(
    asked: Message, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply, parts = reply_to(asked)
    grid = grid_of(FakeSuperLink(reply, dict.fromkeys(parts)), tmp_path)
    assert grid.pull_messages({"asked"}) == []
    monkeypatch.setattr(module, "STALLED_S", -1.0)
    (found,) = grid.pull_messages({"asked"})
    assert "did not arrive whole" in str(found.error.reason)
