"""Flower's inside, as far as the coordinator relies on it: another release must fail here first, and say so."""

import inspect
import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import object_store_factory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.grid import HttpGrid
from flwr.superlink.main import create_app

from configs.memory import Tidy
from configs.pieces import join
from server.superlink import client
from server.superlink import grid as link
from server.superlink.store import SpooledStore
from strategies.exchange.arrays import to_record

READ_ANEW = "read server/superlink/ anew before raising Flower"


def test_flower_is_the_release_that_the_link_was_written_against() -> None:
    assert metadata.version("flwr") == "1.41.0", READ_ANEW


def test_the_superlinks_settings_are_those_that_are_given() -> None:
    ours = {
        *("control_address", "health_server_address", "host", "port", "insecure", "certificates"),
        *("superexec_auth_secret", "authn_plugin", "event_log_plugin", "fleet_event_log_plugin", "enable_event_log"),
        *("artifact_provider", "enable_supernode_auth", "fleet_api_type", "fleet_api_address", "simulation"),
        *("ssl_ca_certfile", "ssl_certfile", "ssl_keyfile", "database", "isolation", "runtime_dependency_install"),
    }
    assert set(inspect.signature(SuperLinkLifespanConfig).parameters) == ours, READ_ANEW
    assert len(inspect.signature(create_app).parameters) >= 2, READ_ANEW
    assert inspect.isclass(SuperLinkLifespan)


def test_the_grid_that_is_built_upon_is_flowers() -> None:
    assert issubclass(link.SuperLinkGrid, HttpGrid)
    for call in ("AcquireTask", "PullTaskInput", "PushMessages", "PullMessages", "PushObject", "PullObject"):
        assert callable(getattr(link.RuntimeHttpClient, call)), READ_ANEW
    for call in ("ListNodes", "RegisterNode", "StartRun", "StopRun"):
        assert callable(getattr(client.ControlHttpClient, call)), READ_ANEW


def test_the_store_that_is_replaced_is_the_one_that_flower_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store_factory, "InMemoryObjectStore", lambda: SpooledStore(tmp_path / "parts"))
    assert isinstance(object_store_factory.ObjectStoreFactory().store(), SpooledStore), READ_ANEW


class FakeSuperLink:
    """What a grid asks of a SuperLink that holds one reply, whose parts may be anything."""

    def __init__(self, reply: Message, parts: dict[str, bytes | None]) -> None:
        self.reply, self.parts, self.confirmed = reply, parts, list[str]()

    def post(self, path: str, body: bytes) -> bytes:
        asked = json.loads(body)["ids"]
        header = message_to_proto(remove_content_from_message(self.reply))
        reply = [header.SerializeToString(), get_object_tree(self.reply).SerializeToString()]
        return join([b'{"seen": 1}', *([join(reply)] if asked else [])])

    def PullObject(self, request: Any) -> Any:  # noqa: N802 - Flower's names
        content = self.parts.get(request.object_id, b"absent")
        if content == b"absent":
            return PullObjectResponse(object_found=False)
        return PullObjectResponse(
            object_found=True, object_available=content is not None, object_content=content or b""
        )

    def ConfirmMessageReceived(self, request: Any) -> None:  # noqa: N802
        self.confirmed.append(request.message_object_id)


@pytest.fixture
def asked() -> Message:
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
    message = Message(RecordDict(), dst_node_id=7, message_type="train")
    message.metadata.__dict__["_message_id"] = "asked"
    return message


def grid_of(superlink: FakeSuperLink, spool: Path) -> link.SuperLinkGrid:
    grid = object.__new__(link.SuperLinkGrid)
    grid._client, grid._arriving, grid._spool = superlink, {}, spool  # type: ignore[assignment]
    grid._own, grid._seen = superlink, -1  # type: ignore[assignment]
    grid._tidy, grid.held_bytes = Tidy(), 0
    grid.max_reply_bytes, grid.node, grid._run = 30_000_000, Node(node_id=1), Run.create_empty(1)
    return grid


def reply_to(asked: Message) -> tuple[Message, dict[str, bytes | None]]:
    values = np.random.default_rng(0).normal(size=3_000_000).astype(np.float32)
    reply = Message(RecordDict({"arrays": to_record({"w": values})}), reply_to=asked)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    return reply, {name: part.deflate() for name, part in get_all_nested_objects(reply).items()}


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
    assert (found.error.code, found.metadata.reply_to_message_id) == (link.BROKEN_REPLY, "asked")
    assert superlink.confirmed == [reply.object_id]  # it is not kept


def test_a_reply_that_never_goes_on_is_given_up(
    asked: Message, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply, parts = reply_to(asked)
    grid = grid_of(FakeSuperLink(reply, dict.fromkeys(parts)), tmp_path)
    assert grid.pull_messages({"asked"}) == []
    monkeypatch.setattr(link, "STALLED_S", -1.0)
    (found,) = grid.pull_messages({"asked"})
    assert "did not arrive whole" in str(found.error.reason)
