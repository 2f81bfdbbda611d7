"""Flower's internals that both sides use: messages as objects, their ids, uncopied arrays.

Flower promises `flwr.app`, `flwr.clientapp`, `flwr.serverapp` and `flwr.simulation` to applications. Everything else
may change with any release. Private names are imported here, in client/uplink/flower.py (the hospital's side) and in
the coordinator's module alone; tests/strategies/exchange/test_flower.py pins the behaviour used of each.

>>> from flwr.app import ConfigRecord, RecordDict
>>> identify(node_id=1)
>>> message = Message(RecordDict({"config": ConfigRecord({"round": 1})}), dst_node_id=2, message_type="train")
>>> with taken_apart([message]) as (heads, objects):
...     [sorted(type(item).__name__ for item in objects.values()), heads[0].tree.object_id == message.object_id]
[['ConfigRecord', 'Message', 'RecordDict'], True]
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flwr.app import Array, ArrayRecord, Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_head_values_from_object_content,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = [
    "SUPERLINK_NODE_ID",
    "InflatableObject",
    "Node",
    "ObjectTree",
    "ProtoMessage",
    "PullObjectRequest",
    "PushObjectRequest",
    "Run",
    "inflate_object_from_contents",
    "iterate_object_tree",
    "message_from_proto",
]
PUSHERS = 2  # requests at a time


@dataclass(frozen=True, slots=True)
class Head:
    """A message without its content, and the tree of its objects' ids."""

    header: ProtoMessage
    tree: ObjectTree


def parse_head(header: bytes, tree: bytes) -> Head:
    """Return the head in these bytes.

    Raises:
        ValueError: they are none of Flower's.
    """
    try:
        return Head(ProtoMessage.FromString(header), ObjectTree.FromString(tree))
    except Exception:  # protobuf's own DecodeError, which no public module of Flower names
        raise ValueError("expected a message's header and tree in protobuf, found something else") from None


@dataclass(frozen=True, slots=True)
class Session:
    """Which node sends which run's objects, and under which of the SuperLink's sessions."""

    node: Node
    run_id: int
    session_id: str


def identify(*, node_id: int, run_id: int = 0, task_id: int = 0) -> None:
    """Set the sender of this process's messages from now on; Flower keeps it once for the whole process."""
    TaskIdentity.node_id, TaskIdentity.run_id, TaskIdentity.task_id = node_id, run_id, task_id


def name_message(message: Message, message_id: str) -> None:
    """Set a message's id, which Flower's own `Message` leaves to the SuperLink."""
    message.metadata.__dict__["_message_id"] = message_id


@contextmanager
def taken_apart(messages: list[Message]) -> Iterator[tuple[list[Head], dict[str, Any]]]:
    """Yield each message's head and the objects of all messages by id, children first.

    Inside the block an object's id is computed once. Each message's id is set to its hash. No message is kept here,
    so that removing an object from the dictionary frees it.
    """
    with no_object_id_recompute():
        for message in messages:
            name_message(message, message.object_id)
        objects: dict[str, Any] = {}
        for message in messages:
            objects |= get_all_nested_objects(message)
        heads = [
            Head(message_to_proto(remove_content_from_message(message)), get_object_tree(message))
            for message in messages
        ]
        del message, messages
        yield heads, objects


def push_objects(
    push: Callable[[PushObjectRequest], object],
    session: Session,
    objects: dict[str, Any],
    wanted: Collection[str],
    passed: Callable[[int], object],
) -> None:
    """Send the wanted ones of these objects, each of which is removed before it is sent.

    Flower's own would hold the whole message twice.

    Args:
        push: sends one, and raises where it is not stored.
        passed: called with the bytes of each before it is sent.
    """

    def send(object_id: str) -> None:
        content = objects.pop(object_id).deflate()
        passed(len(content))
        push(
            PushObjectRequest(
                node=session.node,
                run_id=session.run_id,
                object_id=object_id,
                object_content=content,
                session_id=session.session_id,
            )
        )

    with ThreadPoolExecutor(PUSHERS) as pool:
        list(pool.map(send, [object_id for object_id in list(objects) if object_id in wanted]))


def children_of(content: bytes) -> list[str]:
    """Return the ids of an object's children.

    Raises:
        Exception: of many kinds, where the bytes are none of Flower's.
    """
    _, children, _ = get_object_head_values_from_object_content(content)
    return children


def bare_array(dtype: str, shape: tuple[int, ...], stype: str, data: Any) -> Array:
    """Return an array of these fields; Flower's constructor takes ten times as long and `bytes` alone."""
    array = Array.__new__(Array)
    array.__dict__.update(dtype=dtype, shape=shape, stype=stype, data=data)
    return array


def record_of(arrays: Mapping[str, Array]) -> ArrayRecord:
    """Return a record of these very arrays; Flower's constructor copies them."""
    record = ArrayRecord()
    record.__dict__["_data"].update(arrays)  # as `record[name] = array`, which looks again at what each of them is
    return record
