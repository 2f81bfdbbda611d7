"""A Flower `Grid` over the SuperLink's socket that does not sleep.

Flower's own `HttpGrid` waits three seconds between two looks for replies, and one more for a reply that is not whole
yet; a reply that is never completed holds up all others, one that is no message ends the run, and one of any size is
kept. This one looks quickly while replies come and more slowly while they do not, waits for nobody, and bounds what it
takes.
"""

import json
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message, remove_content_from_message
from flwr.app.message.arraychunk import ArrayChunk
from flwr.common.serde import message_from_proto, message_to_proto, run_from_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PullObjectRequest, PushObjectRequest
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.runtime_pb2 import (
    PullTaskInputRequest,
    PushTaskOutputRequest,
)
from flwr.supercore.constant import TASK_TOKEN_HEADER
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from configs.errors import RunError, WireError
from configs.memory import Tidy
from configs.pieces import MEDIA_TYPE, join, split
from server.superlink.arriving import BROKEN_REPLY, Arriving, BrokenError
from server.superlink.exchange import AWAIT_PATH, SEND_PATH, WAKE_PATH
from server.superlink.spool import SpooledParts
from strategies.exchange.objects import Parts

BASE_URL = "http://superlink"
SENT_AT_ONCE = 32  # messages in one request
MAX_REPLIES = 1_000_000
OWN_TIMEOUT_S = 120.0
LARGE = ArrayChunk  # what does not travel with its message
MAX_REPLY_BYTES = 8_000_000_000  # of one reply, where nobody says less
STALLED_S = 120.0  # a reply of which nothing more arrives for so long is given up
LARGEST_PART = 5_242_880  # Flower's
HELD_BYTES = 500_000_000  # of replies on their way, at most; beyond, they lie in files
BROKEN = "query.broken"  # the type of a message that stands for a reply that cannot be read
PUSHERS = 2  # requests at a time


def over_socket(client: Any, socket: Path, *, timeout_s: float = 30.0) -> Any:
    """Let one of Flower's HTTP clients speak over a Unix socket; it offers no parameter for that."""
    client._client.close()
    client._client = httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=timeout_s)
    return client


class SuperLinkGrid(HttpGrid):
    """A Flower Grid over the SuperLink's socket, with an interval that adapts."""

    def __init__(self, socket: Path, token: str, spool: Path | None = None) -> None:
        super().__init__("superlink", insecure=True, token=token)
        self._client = over_socket(
            RuntimeHttpClient(
                BASE_URL,
                interceptors=[
                    RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
                    RuntimeTokenHttpInterceptor(token=token),
                ],
                retry_invoker=self._retry_invoker,
            ),
            socket,
        )
        self._own, self._seen = OwnPaths(socket, token), -1
        given = self._client.PullTaskInput(PullTaskInputRequest())
        self._identity = given.task_id, given.run.run_id, given.context.node_id
        self.identify()
        self.set_run(run_from_proto(given.run))
        self.max_reply_bytes, self.held_bytes, self._spool = MAX_REPLY_BYTES, HELD_BYTES, spool
        self._tidy = Tidy()
        self._arriving: dict[str, Arriving] = {}  # by the id of the message that is answered
        self._heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(self._client))
        self._heartbeat.start()

    def identify(self) -> None:
        """Let messages made from now on be this run's; Flower keeps that once for the whole process."""
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = self._identity

    def finish(self, sub_status: str) -> None:
        """Tell the SuperLink how the run ended."""
        self._heartbeat.stop()
        assert self._client is not None
        self._client.PushTaskOutput(PushTaskOutputRequest(sub_status=sub_status, details=""))
        self._own.close()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send; the messages' ids. Contents that are equal travel once, and none is copied as a whole."""
        outgoing = list(messages)
        ids: list[str] = []
        for start in range(0, len(outgoing), SENT_AT_ONCE):
            ids += self._push(outgoing[start : start + SENT_AT_ONCE])
        return ids

    def _push(self, outgoing: list[Message]) -> list[str]:
        with no_object_id_recompute():
            for message in outgoing:
                message.metadata.__dict__["_message_id"] = message.object_id
            objects: dict[str, Any] = {}
            for message in outgoing:
                objects |= get_all_nested_objects(message)
            assert self._client is not None
            pieces = [json.dumps({"messages": len(outgoing)}).encode()]
            for message in outgoing:
                header = message_to_proto(remove_content_from_message(message))
                pieces += [header.SerializeToString(), get_object_tree(message).SerializeToString()]
            for object_id in list(objects):
                if not isinstance(objects[object_id], LARGE):
                    pieces += [object_id.encode("ascii"), objects.pop(object_id).deflate()]
            pushed = json.loads(self._own.post(SEND_PATH, join(pieces)))
            wanted, session = set(pushed["missing"]), str(pushed["session"])

            def push(object_id: str) -> None:
                content = objects.pop(object_id).deflate()
                self._tidy.passed(len(content))
                request = PushObjectRequest(
                    node=self.node,
                    run_id=self.run.run_id,
                    object_id=object_id,
                    object_content=content,
                    session_id=session,
                )
                assert self._client is not None
                if not self._client.PushObject(request).stored:
                    raise RunError("expected the SuperLink to keep a message, it did not")

            with ThreadPoolExecutor(PUSHERS) as pool:
                list(pool.map(push, [object_id for object_id in list(objects) if object_id in wanted]))
        if wanted:
            nodes = [message.metadata.dst_node_id for message in outgoing]
            self._own.post(WAKE_PATH, json.dumps({"nodes": nodes}).encode())
        return [str(message_id) for message_id in pushed["ids"]]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that are there whole, and an error for each that never will be; others are for another time."""
        return self.await_messages(message_ids, 0.0)

    def await_messages(self, message_ids: Iterable[str], wait_s: float) -> Iterable[Message]:
        """As `pull_messages`, held until something has come in since the last time, or so long."""
        assert self._client is not None
        asked = set(message_ids)
        new = sorted(asked - set(self._arriving))
        request = {"ids": new, "hold_s": float(wait_s), "seen": self._seen}
        first, *replies = split(self._own.post(AWAIT_PATH, json.dumps(request).encode()), MAX_REPLIES)
        self._seen = int(json.loads(first)["seen"])
        for incoming in replies:
            pieces = split(incoming)
            header, tree = ProtoMessage.FromString(pieces[0]), ObjectTree.FromString(pieces[1])
            arriving = Arriving(header, tree, self._parts(tree))
            self._arriving[header.metadata.reply_to_message_id] = arriving
            for name, content in zip(pieces[2::2], pieces[3::2], strict=True):
                arriving.early[name.decode("ascii")] = content
        whole = []
        for message_id in asked & set(self._arriving):
            arriving = self._arriving[message_id]
            try:
                reply = self._take(arriving)
            except BrokenError as error:
                arriving.parts.forget()
                reply = self._error(message_id, str(error))
            if reply is not None:
                del self._arriving[message_id]
                self._confirm(arriving)
                whole.append(reply)
        return whole

    def _take(self, arriving: Arriving) -> Message | None:
        """Take what has arrived of a reply; the reply once that is all of it.

        Raises:
            BrokenError: it is too large, stalled, or no message.
        """
        assert self._client is not None
        absent = 0
        for object_id in list(arriving.missing):
            if object_id in arriving.early:
                arriving.add(object_id, arriving.early.pop(object_id))
                continue
            request = PullObjectRequest(node=self.node, run_id=self.run.run_id, object_id=object_id)
            response = self._client.PullObject(request)
            if not response.object_found:
                raise BrokenError("a part of it is not there")
            if not response.object_available:
                absent += 1
                if absent > PUSHERS or arriving.parts.in_order:
                    break  # they come about in it: the rest is not there either
                continue
            arriving.add(object_id, response.object_content)
            self._tidy.passed(len(response.object_content))
        if arriving.missing:
            if time.monotonic() - arriving.moved > STALLED_S:
                raise BrokenError("it did not arrive whole")
            return None
        message_id = arriving.header.metadata.message_id
        try:
            message = arriving.parts.message(message_id)
        except WireError:
            raise BrokenError("it is none of Flower's objects") from None
        sent = message_from_proto(arriving.header).metadata
        if message.metadata.reply_to_message_id != sent.reply_to_message_id:
            raise BrokenError("it is no reply, or one to another message")
        message.metadata.__dict__["_message_id"] = message_id
        return message

    def _parts(self, tree: ObjectTree) -> Parts:
        """Room for a reply: in a file where what is on its way may be too much for memory, which is quicker."""
        count = sum(1 for _ in iterate_object_tree(tree)) + sum(a.count for a in self._arriving.values())
        if self._spool is not None and count * LARGEST_PART > self.held_bytes:
            return SpooledParts(self.max_reply_bytes, self._spool)
        return Parts(self.max_reply_bytes)

    def _confirm(self, arriving: Arriving) -> None:
        """Let the SuperLink forget a reply."""
        assert self._client is not None
        request = ConfirmMessageReceivedRequest(
            node=self.node, run_id=self.run.run_id, message_object_id=arriving.header.metadata.message_id
        )
        self._client.ConfirmMessageReceived(request)

    def _error(self, message_id: str, why: str) -> Message:
        metadata = Metadata(
            run_id=self.run.run_id,
            message_id="",
            src_node_id=self.node.node_id,
            dst_node_id=self.node.node_id,
            message_type=BROKEN,
            group_id="",
            ttl=0,
            reply_to_message_id=message_id,
            created_at=time.time(),
        )
        return make_message(metadata=metadata, error=Error(code=BROKEN_REPLY, reason=f"its reply was refused: {why}"))


class OwnPaths:
    """The paths of server/superlink/exchange.py over the SuperLink's socket."""

    def __init__(self, socket: Path, token: str) -> None:
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)),
            timeout=OWN_TIMEOUT_S,
            headers={TASK_TOKEN_HEADER: token, "content-type": MEDIA_TYPE},
        )

    def post(self, path: str, body: bytes) -> bytes:
        """Ask; the answer's body.

        Raises:
            RunError: the SuperLink refuses, or is away.
        """
        try:
            response = self._client.post(BASE_URL + path, content=body)
        except httpx.TransportError:
            raise RunError("expected the SuperLink to answer, it is away; its lines above say why") from None
        if response.status_code != httpx.codes.OK:
            raise RunError(f"expected the SuperLink to take a message, it answered {response.status_code}")
        return response.content

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()
