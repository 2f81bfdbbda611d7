"""Whole messages in one held request, through a real door and a real SuperLink: either end may lie or hang up."""

import contextlib
import json
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.supercore.task_identity import TaskIdentity

from client.uplink.base import Incoming, RefusedError
from client.uplink.fleet import Fleet
from client.uplink.line import answered, asked, received
from configs.load import load_study
from configs.pieces import HOLD_PATH, MAX_HOLD_S, REPLY_PATH, join, split
from server.bundle import build_bundle
from server.membership import Member
from server.superlink.grid import SuperLinkGrid
from tests.server.test_gateway import (
    PRESET,
    Federation,
    Hospital,
    OldFleet,
    consortium,
    eventually,
    federation,
    fleet,
    lille,
    lyon,
)

__all__ = ["consortium", "federation", "fleet", "lille", "lyon"]  # fixtures


@pytest.fixture
def grid(federation: Federation) -> Iterator[SuperLinkGrid]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Flower's use of pathspec
        bundle = build_bundle(load_study(PRESET))
    with federation.link.run(*bundle) as made:
        yield made


def send(grid: SuperLinkGrid, node: int, number: int = 1, size: int = 10) -> str:
    TaskIdentity.node_id, TaskIdentity.run_id = 1, grid.run.run_id  # one process is both sides here
    records = RecordDict({"config": ConfigRecord({"round": number, "blob": bytes(size)})})
    [sent] = grid.push_messages([Message(records, node, "train")])
    return sent


def reply(fleet: Fleet, incoming: Incoming, node: int, size: int = 10) -> None:
    TaskIdentity.node_id = node
    fleet.reply(incoming, RecordDict({"config": ConfigRecord({"loss": 0.5, "blob": bytes(size)})}))


class InBackground:
    """A call in a thread: what it returned or raised."""

    def __init__(self, call: Any) -> None:
        self.result: Any = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call: Any) -> None:
        try:
            self.result = call()
        except Exception as error:
            self.result = error

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()

    def get(self, within_s: float = 90.0) -> Any:
        self._thread.join(within_s)
        assert not self._thread.is_alive()
        return self.result


def holding(fleet: Fleet) -> InBackground:
    """A look for a message that is held."""
    looking = InBackground(fleet.receive)
    assert eventually(lambda: fleet.line.is_held)
    return looking


def test_a_message_and_its_reply_come_while_both_sides_wait(
    federation: Federation, fleet: Fleet, grid: SuperLinkGrid
) -> None:
    node = federation.nodes["lille"]
    for number in range(1, 4):
        looking = holding(fleet)
        assert looking.waits
        sent = send(grid, node, number)
        incoming = looking.get()
        assert incoming.records["config"]["round"] == number
        awaiting = InBackground(lambda sent=sent: list(grid.await_messages([sent], MAX_HOLD_S)))
        reply(fleet, incoming, node)
        found = awaiting.get()
        if not found:  # woken by what came in before it was asked for
            found = InBackground(lambda sent=sent: list(grid.await_messages([sent], MAX_HOLD_S))).get()
        assert [message.content["config"]["loss"] for message in found] == [0.5]


@pytest.mark.parametrize("size", [10, 3_000_000], ids=["small", "large"])
@pytest.mark.parametrize("kind", [Fleet, OldFleet], ids=["this release", "the release before"])
def test_nodes_of_both_releases_get_messages_of_any_size(
    federation: Federation, lyon: Hospital, grid: SuperLinkGrid, size: int, kind: type[Fleet]
) -> None:
    node, fleet = federation.nodes["lyon"], federation.fleet(lyon, kind)
    fleet.connect()
    sent = send(grid, node, 7, size)
    incoming = fleet.receive()
    assert incoming is not None
    assert (incoming.records["config"]["round"], len(blob_in(incoming.records))) == (7, size)
    reply(fleet, incoming, node, size)
    found: list[Message] = []
    assert eventually(lambda: bool(found.extend(grid.await_messages([sent], 1.0)) or found), 60)
    assert len(blob_in(found[0].content)) == size
    fleet.close()


def test_a_look_without_a_message_ends_with_its_time(fleet: Fleet) -> None:
    fleet.line.hold_s = 0.3
    began = time.monotonic()
    assert fleet.receive() is None
    assert time.monotonic() - began > 0.25


def blob_in(records: RecordDict) -> bytes:
    blob = records.config_records["config"]["blob"]
    assert isinstance(blob, bytes)
    return blob


def raw(federation: Federation, hospital: Hospital, path: str, body: bytes, timeout_s: float = 60.0) -> httpx.Response:
    with federation.client(hospital) as client:
        return client.post(path, content=body, headers=hospital.headers(), timeout=timeout_s)


def test_a_message_is_not_lost_to_looks_that_hung_up(
    federation: Federation, fleet: Fleet, lille: Hospital, grid: SuperLinkGrid
) -> None:
    node = federation.nodes["lille"]
    for _ in range(3):
        with pytest.raises(httpx.ReadTimeout):
            raw(federation, lille, HOLD_PATH, asked(node, 40.0, ""), timeout_s=0.3)
    assert federation.link.nodes()[node].online  # it has some seconds to come back
    looking = holding(fleet)
    send(grid, node, 6)
    assert looking.get().records["config"]["round"] == 6


def test_a_message_is_given_again_until_its_node_says_that_it_is_there(
    federation: Federation, fleet: Fleet, lille: Hospital, grid: SuperLinkGrid
) -> None:
    node = federation.nodes["lille"]
    send(grid, node, 5)
    first = raw(federation, lille, HOLD_PATH, asked(node, 1.0, "")).content
    again = raw(federation, lille, HOLD_PATH, asked(node, 1.0, "another")).content
    assert first == again != b""
    taken = received(first)[0].tree.object_id
    assert raw(federation, lille, HOLD_PATH, asked(node, 0.1, taken)).content == b""
    assert raw(federation, lille, HOLD_PATH, asked(node, 0.1, "")).content == b""


def test_a_message_of_a_run_that_has_ended_is_not_given(federation: Federation, fleet: Fleet, lille: Hospital) -> None:
    node = federation.nodes["lille"]
    bundle = build_bundle(load_study(PRESET))
    with contextlib.suppress(RuntimeError), federation.link.run(*bundle) as grid:
        send(grid, node)
        assert raw(federation, lille, HOLD_PATH, asked(node, 1.0, "")).content
        raise RuntimeError
    with federation.link.run(*bundle) as grid:
        send(grid, node, 9)
        fleet.line.hold_s = 5.0
        found = [incoming.records["config"]["round"] for _ in range(2) if (incoming := fleet.receive())]
    assert found[-1] == 9


def test_a_third_held_look_of_one_node_ends_the_oldest(federation: Federation, fleet: Fleet, lille: Hospital) -> None:
    node = federation.nodes["lille"]
    first, second = [
        InBackground(lambda: raw(federation, lille, HOLD_PATH, asked(node, 15.0, "")).content) for _ in range(2)
    ]
    time.sleep(1.5)  # both are held; which is the older does not matter
    assert first.waits
    assert second.waits
    third = raw(federation, lille, HOLD_PATH, asked(node, 0.2, ""))
    assert third.status_code == 200
    assert eventually(lambda: first.waits != second.waits)
    fleet.interrupt()


HOSTILE_LOOKS = {
    "nothing": b"",
    "not JSON": b"{",
    "a list": b"[]",
    "no number": b'{"node": "7", "hold_s": 1.0, "taken": ""}',
    "a negative number": b'{"node": -1, "hold_s": 1.0, "taken": ""}',
    "a large number": b'{"node": 18446744073709551616, "hold_s": 1.0, "taken": ""}',
    "another field": b'{"node": 1, "hold_s": 1.0, "taken": "", "x": 1}',
    "too long": b'{"node": 1, "hold_s": 51.0, "taken": ""}',
    "for ever": b'{"node": 1, "hold_s": Infinity, "taken": ""}',
    "not a number": b'{"node": 1, "hold_s": NaN, "taken": ""}',
    "deep": b"[" * 100_000,
    "large": b"x" * 3_500_000,
}


@pytest.mark.parametrize("what", HOSTILE_LOOKS)
def test_a_look_that_is_none_is_refused_at_once(federation: Federation, lille: Hospital, what: str) -> None:
    answer = raw(federation, lille, HOLD_PATH, HOSTILE_LOOKS[what])
    assert (answer.status_code, answer.json()) == (400, {"detail": "This is no request of Archipel's."})


def test_nobody_looks_or_answers_for_another_node(
    federation: Federation, fleet: Fleet, lille: Hospital, lyon: Hospital, grid: SuperLinkGrid
) -> None:
    node = federation.nodes["lille"]
    send(grid, node, 3)
    assert raw(federation, lyon, HOLD_PATH, asked(node, 1.0, "")).status_code == 401
    incoming = fleet.receive()
    assert incoming is not None
    pieces: list[list[bytes]] = []
    fleet._reply_whole = pieces.append  # type: ignore[assignment,method-assign]
    reply(fleet, incoming, node)
    stolen = answered(federation.nodes["lyon"], "", pieces[0])
    assert raw(federation, lyon, REPLY_PATH, stolen).status_code == 400  # lille's, sent by lyon
    assert raw(federation, lyon, REPLY_PATH, answered(node, "", pieces[0])).status_code == 401
    assert raw(federation, lille, REPLY_PATH, answered(node, "", pieces[0])).status_code == 200
    assert raw(federation, lille, REPLY_PATH, answered(node, "", pieces[0])).status_code == 200  # once more: no harm


def spoilt_replies(pieces: list[bytes]) -> dict[str, list[bytes]]:
    header = ProtoMessage.FromString(pieces[0])
    header.metadata.reply_to_message_id = "ab" * 32
    return {
        "without its parts": pieces[:2],
        "without a part": pieces[:-2],
        "with one piece": pieces[:1],
        "with half a part": pieces[:-1],
        "with another's part": [*pieces[:-1], b"nonsense"],
        "that is no message": [b"\xff\xff", *pieces[1:]],
        "without pieces": [],
        "to nobody": [header.SerializeToString(), *pieces[1:]],
    }


def test_a_reply_that_is_none_is_refused_and_its_node_can_still_answer(
    federation: Federation, fleet: Fleet, lille: Hospital, grid: SuperLinkGrid
) -> None:
    node = federation.nodes["lille"]
    sent = send(grid, node, 4)
    incoming = fleet.receive()
    assert incoming is not None
    pieces: list[list[bytes]] = []
    fleet._reply_whole = pieces.append  # type: ignore[assignment,method-assign]
    reply(fleet, incoming, node)
    for how, spoilt in spoilt_replies(pieces[0]).items():
        answer = raw(federation, lille, REPLY_PATH, answered(node, "", spoilt))
        assert (how, answer.status_code) in [(how, 400), ("to nobody", 200)]
        assert "Traceback" not in answer.text
    for cut in range(0, 60, 7):
        body = answered(node, "", pieces[0])[: -1 - cut]
        assert raw(federation, lille, REPLY_PATH, body).status_code == 400
    assert raw(federation, lille, REPLY_PATH, answered(node, "", pieces[0])).status_code == 200
    found: list[Message] = []
    assert eventually(lambda: bool(found.extend(grid.await_messages([sent], 1.0)) or found), 60)
    assert found[0].content["config"]["loss"] == 0.5


def test_a_revocation_ends_a_held_look(federation: Federation, lyon: Hospital) -> None:
    fleet = federation.fleet(lyon)
    fleet.connect()
    looking = holding(fleet)
    federation.members.revoke("lyon")
    try:
        assert isinstance(looking.get(10.0), RefusedError)
    finally:
        federation.members.admit(Member("lyon", lyon.public_key, "lyonlyon", "2099-01-01T00:00:00+00:00"))
    fleet.close()


def test_a_node_that_stops_does_not_wait_for_its_held_look(fleet: Fleet) -> None:
    looking = holding(fleet)
    fleet.interrupt()
    assert looking.get(5.0) is None


def test_hospitals_do_not_reach_the_conductors_paths(federation: Federation, lille: Hospital) -> None:
    for name in ("send", "await", "wake"):
        assert raw(federation, lille, f"/v1/runtime/archipel-{name}", b"{}").status_code == 404


def test_without_the_runs_token_the_conductors_paths_are_closed(federation: Federation) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(federation.folder / "sockets" / "superlink.sock"))) as own:
        bodies = {
            "send": join([json.dumps({"messages": 0}).encode()]),
            "await": json.dumps({"ids": [], "hold_s": 0.0, "seen": -1}).encode(),
            "wake": b'{"nodes": []}',
        }
        for name, body in bodies.items():
            answer = own.post(f"http://superlink/v1/runtime/archipel-{name}", content=body)
            assert answer.status_code == 401, name


def test_pieces_come_back_as_they_were() -> None:
    for pieces in ([], [b""], [b"", b""], [b"a" * 300, b"", b"b"]):
        assert split(join(pieces)) == pieces
