"""Whole messages in one request, held until there is one: what two sides of protocol 2 use in place of ten of Flower's.

It stands before the SuperLink's application, in its process, and calls Flower's own handlers on its state, so that
both ways see the same messages. A hospital's node asks for the next message and is held until one is there, at most as
long as it asks for; the conductor likewise for replies. Nobody looks again by guess.

A message is given again until its node says that it has arrived, because a connection that was cut is not seen here.
A node has two requests held at most; for a third the oldest is answered. Whoever hangs up is forgotten.
"""

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from configs.errors import WireError
from configs.pieces import HOLD_PATH, MAX_HOLD_S, MAX_INLINE, MEDIA_TYPE, REPLY_PATH, fields_of, join, split
from server.bodies import GoneError, LargeBodyError, Receive, whole
from server.superlink.holds import Waiting

log = logging.getLogger("archipel.exchange")
SEND_PATH, AWAIT_PATH, WAKE_PATH = (f"/v1/runtime/archipel-{name}" for name in ("send", "await", "wake"))
SIGN_OFF_PATH = "/v1/fleet/deactivate-node"
LARGEST_BODY = 64_000_000  # of the conductor's; a hospital's is bounded by the door too
LARGEST_ASK = MAX_INLINE + 1_000_000
PATIENCE_S = 15.0  # beyond its hold a node may take so long to ask again
GRACE_S = 10.0  # promised for whoever hung up while held: it is given up after twice that
_RECEIVE = {"node": int, "hold_s": float, "taken": str}
_REPLY = {"node": int, "taken": str}

Scope = MutableMapping[str, Any]
Send = Callable[[Any], Awaitable[None]]


class Exchange:
    """An ASGI application before Flower's (`app`), with five paths of its own."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._nodes = Waiting()
        self._replies = Waiting()
        self._given: dict[int, Any] = {}  # node -> Flower's answer with the message that it has not confirmed
        self._giving = threading.Lock()  # nobody sees a message between its header and its parts
        self._own = threading.local()
        self._events = 0  # parts and replies that came in so far
        self._loop: asyncio.AbstractEventLoop | None = None
        self._paths = {
            HOLD_PATH: self._receive,
            REPLY_PATH: self._reply,
            SEND_PATH: self._send,
            AWAIT_PATH: self._await,
            WAKE_PATH: self._wake,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        handler = self._paths.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if handler is None:
            await self._app(scope, receive, send)
            if scope["type"] == "http" and scope["path"] == SIGN_OFF_PATH:
                await self._release_signed_off()
            return
        self._loop = asyncio.get_running_loop()
        largest = LARGEST_ASK if scope["path"] in (HOLD_PATH, REPLY_PATH) else LARGEST_BODY
        try:
            body = await whole(receive, largest)
            status, content, media = 200, await handler(scope, body, receive), MEDIA_TYPE
        except GoneError:
            return
        except Exception as error:
            status, content, media = _explained(error, scope["path"])
        headers = [(b"content-type", media.encode()), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content, "more_body": False})

    def noted(self) -> None:
        """Wake the conductor: a part of a reply is here. Called from any thread."""
        if getattr(self._own, "busy", False):
            return  # a whole reply wakes it once
        self._events += 1
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._replies.wake, 0)

    async def _release_signed_off(self) -> None:
        """Answer what is held for nodes that are not there any more."""
        for node in self._nodes.held():
            info = await asyncio.to_thread(self._state.get_node_info, node_ids=[node])
            if not any(item.status == "online" for item in info):
                self._nodes.wake(node, release=True)

    # A hospital's node

    async def _receive(self, scope: Scope, body: bytes, receive: Receive) -> bytes:
        """The next message for a node, held until there is one; nothing where there was none in time."""
        asked = fields_of(body, _RECEIVE)
        node, hold_s = _int(asked["node"]), _hold(asked["hold_s"])
        await asyncio.to_thread(self._greeted, scope, node, str(asked["taken"]), hold_s)
        with self._nodes.waiting(node, receive, hold_s) as hold:
            try:
                while (pieces := await asyncio.to_thread(self._next, node)) is None:
                    if not await hold.woken():
                        return b""
                return join(pieces)
            except GoneError:
                await asyncio.to_thread(self._left, node)
                raise

    def _greeted(self, scope: Scope, node: int, taken: str, hold_s: float) -> None:
        self._authenticate(scope, node)
        self._confirm(node, taken)
        self._state.acknowledge_node_heartbeat(node, (hold_s + PATIENCE_S) / 2 + GRACE_S)

    def _left(self, node: int) -> None:
        """Whoever hung up has so long to come back; a node that signed off stays so."""
        if any(info.status == "online" for info in self._state.get_node_info(node_ids=[node])):
            self._state.acknowledge_node_heartbeat(node, GRACE_S)

    def _next(self, node: int) -> list[bytes] | None:
        """The message that the node has not confirmed, or its next one; those of ended runs are dropped."""
        from flwr.proto.fleet_pb2 import PullMessagesRequest
        from flwr.proto.node_pb2 import Node
        from flwr.superlink.servicer.fleet import fleet_handlers

        state, request = self._state, PullMessagesRequest(node=Node(node_id=node))
        with self._giving:
            while True:
                given = self._given.pop(node, None) or fleet_handlers.pull_messages(request, state, state.object_store)
                if not given.messages_list:
                    return None
                header, tree = given.messages_list[0], given.message_object_trees[0]
                if self._runs(header.metadata.run_id) and (pieces := self._inline(header, tree)) is not None:
                    self._given[node] = given
                    return pieces
                state.object_store.delete(header.metadata.message_id)

    def _runs(self, run_id: int) -> bool:
        from flwr.common.constant import Status
        from flwr.server.superlink.utils import check_abort

        return not check_abort(run_id, [Status.PENDING, Status.STARTING, Status.FINISHED], self._state)

    def _confirm(self, node: int, taken: str) -> None:
        """Forget what has arrived: its parts go."""
        with self._giving:
            given = self._given.get(node)
            if given is not None and given.messages_list[0].metadata.message_id == taken:
                del self._given[node]
                self._state.object_store.delete(taken)

    async def _reply(self, scope: Scope, body: bytes, receive: Receive) -> bytes:
        """A whole reply."""
        first, *pieces = split(body)
        asked = fields_of(first, _REPLY)
        await asyncio.to_thread(self._take, scope, _int(asked["node"]), str(asked["taken"]), pieces)
        self._events += 1
        self._replies.wake(0)
        return b""

    def _take(self, scope: Scope, node: int, taken: str, pieces: Sequence[bytes]) -> None:
        from flwr.proto.fleet_pb2 import PushMessagesRequest
        from flwr.proto.message_pb2 import PushObjectRequest
        from flwr.proto.node_pb2 import Node
        from flwr.superlink.servicer.fleet import fleet_handlers

        self._authenticate(scope, node)
        header, tree, parts = _message(pieces)
        if header.metadata.src_node_id != node:
            raise WireError("reply: expected the node's own, found another's")
        who, state = Node(node_id=node), self._state
        request = PushMessagesRequest(
            node=who, messages_list=[header], message_object_trees=[tree], clientapp_runtime_list=[0.0]
        )
        with self._whole():
            pushed = fleet_handlers.push_messages(request, state)
            for object_id in pushed.objects_to_push:
                if object_id not in parts:
                    raise WireError("reply: expected all of its parts, found some missing")
                part = PushObjectRequest(
                    node=who,
                    run_id=header.metadata.run_id,
                    object_id=object_id,
                    object_content=parts[object_id],
                    session_id=pushed.session_id,
                )
                if not fleet_handlers.push_object(part, state).stored:
                    raise WireError("reply: expected the parts that were announced, found others")
        self._confirm(node, taken)

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """Store a message with its parts while nobody looks."""
        with self._giving:
            self._own.busy = True
            try:
                yield
            finally:
                self._own.busy = False

    def _authenticate(self, scope: Scope, node: int) -> None:
        """Check the node's signature, as Flower does.

        Raises:
            HTTPException: 401.
        """
        from flwr.proto.fleet_pb2 import PullMessagesRequest
        from flwr.proto.node_pb2 import Node
        from flwr.superlink.routers.fleet.node_auth import Request, authenticate_node  # type: ignore[attr-defined]

        request = Request({**scope, "app": self._app, "state": {}})
        request.state.protobuf_request = PullMessagesRequest(node=Node(node_id=node))
        authenticate_node(request)

    # The conductor

    async def _send(self, scope: Scope, body: bytes, receive: Receive) -> bytes:
        """Messages for several nodes with their small parts; what is missing of them comes by Flower's own way."""
        first, *pieces = split(body, 1_000_000)
        count = _int(fields_of(first, {"messages": int})["messages"])
        answer, whole = await asyncio.to_thread(self._stored, scope, pieces[: 2 * count], pieces[2 * count :])
        for node in whole:
            self._nodes.wake(node)
        return answer

    def _stored(self, scope: Scope, pairs: Sequence[bytes], parts: Sequence[bytes]) -> tuple[bytes, list[int]]:
        from flwr.proto.message_pb2 import Message, ObjectTree
        from flwr.proto.runtime_pb2 import PushAppMessagesRequest
        from flwr.superlink.servicer.runtime import runtime_handlers

        state, task = self._state, self._task(scope)
        messages = [Message.FromString(piece) for piece in pairs[::2]]
        trees = [ObjectTree.FromString(piece) for piece in pairs[1::2]]
        with self._whole():
            pushed = runtime_handlers.push_messages(
                PushAppMessagesRequest(messages_list=messages, message_object_trees=trees), state, task
            )
            missing = dict.fromkeys(pushed.objects_to_push)
            for name, content in zip(parts[::2], parts[1::2], strict=True):
                object_id = name.decode("ascii")
                if object_id in missing and state.store_object(task.run_id, pushed.session_id, object_id, content):
                    del missing[object_id]
        whole = [m.metadata.dst_node_id for m in messages] if not missing else []
        answer = {"ids": list(pushed.message_ids), "missing": list(missing), "session": pushed.session_id}
        return json.dumps(answer).encode(), whole

    async def _wake(self, scope: Scope, body: bytes, receive: Receive) -> bytes:
        """The parts of large messages are here."""
        await asyncio.to_thread(self._task, scope)
        for node in json.loads(body)["nodes"]:
            self._nodes.wake(_int(node))
        return b""

    async def _await(self, scope: Scope, body: bytes, receive: Receive) -> bytes:
        """Replies to these messages, small ones whole; held until something came in that was not seen before."""
        asked = fields_of(body, {"ids": list, "hold_s": float, "seen": int})
        with self._replies.waiting(0, receive, _hold(asked["hold_s"])) as hold:
            while True:
                events = self._events
                replies = await asyncio.to_thread(self._there, scope, asked["ids"])
                if replies or events != asked["seen"] or not await hold.woken():
                    return join([json.dumps({"seen": events}).encode(), *replies])

    def _there(self, scope: Scope, ids: Any) -> list[bytes]:
        from flwr.proto.runtime_pb2 import PullAppMessagesRequest
        from flwr.superlink.servicer.runtime import runtime_handlers

        state, task = self._state, self._task(scope)
        if not ids:
            return []
        with self._giving:
            pulled = runtime_handlers.pull_messages(PullAppMessagesRequest(message_ids=ids), state, task)
        replies = []
        for header, tree in zip(pulled.messages_list, pulled.message_object_trees, strict=True):
            pieces = self._inline(header, tree)
            if pieces is not None:
                replies.append(join(pieces))
            if pieces is None or len(pieces) > 2:
                state.object_store.delete(header.metadata.message_id)
        return replies

    def _task(self, scope: Scope) -> Any:
        """The run whose token the conductor holds.

        Raises:
            FlowerError: it holds none.
        """
        from flwr.supercore.constant import TASK_TOKEN_HEADER
        from flwr.supercore.dependencies.task import authenticate_task
        from flwr.superlink.routers.fleet.node_auth import Request  # type: ignore[attr-defined]

        request = Request(scope)
        return authenticate_task(request, request.headers.get(TASK_TOKEN_HEADER), self._state)

    # What Flower keeps

    @property
    def _state(self) -> Any:
        return self._app.state.linkstate_factory.state()

    def _inline(self, header: Any, tree: Any) -> list[bytes] | None:
        """A message with its parts where they are here and small, without them where not; None where it is gone."""
        from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

        total, pieces = 0, [header.SerializeToString(), tree.SerializeToString()]
        for object_id in dict.fromkeys(item.object_id for item in iterate_object_tree(tree)):
            content = self._state.get_object(header.metadata.run_id, object_id)
            if content is None:
                return None
            total += len(content)
            if not content or total > MAX_INLINE or len(pieces) > 500:
                return pieces[:2]
            pieces += [object_id.encode("ascii"), content]
        return pieces


def _message(pieces: Sequence[bytes]) -> tuple[Any, Any, dict[str, bytes]]:
    """A message's header, its tree and its parts.

    Raises:
        WireError, ValueError, DecodeError: it is none.
    """
    from flwr.proto.message_pb2 import Message, ObjectTree

    if len(pieces) < 2 or len(pieces) % 2:
        raise WireError("exchange: expected a message and its parts, found something else")
    names = [piece.decode("ascii") for piece in pieces[2::2]]
    return Message.FromString(pieces[0]), ObjectTree.FromString(pieces[1]), dict(zip(names, pieces[3::2], strict=True))


def _int(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**64:
        raise WireError("exchange: expected a node's number, found something else")
    return value


def _hold(value: object) -> float:
    if type(value) is not float or not 0.0 <= value <= MAX_HOLD_S:  # also not a number
        raise WireError(f"exchange: expected a hold of at most {MAX_HOLD_S:.0f} s, found something else")
    return value


def _explained(error: Exception, path: str) -> tuple[int, bytes, str]:
    """The answer that stands for an error, as Flower's own answers; its text does not leave."""
    from flwr.supercore.error import FlowerError
    from flwr.supercore.error.catalog import API_ERROR_MAP
    from flwr.supercore.protobuf.client import DecodeError  # type: ignore[attr-defined]
    from flwr.superlink.routers.fleet.node_auth import HTTPException  # type: ignore[attr-defined]

    status = 500
    content: Mapping[str, int | str] = {"detail": "Internal server error."}
    if isinstance(error, FlowerError) and error.code in API_ERROR_MAP:
        spec = API_ERROR_MAP[error.code]
        status, content = spec.http_status_code, error.to_json(spec.public_message)
    elif isinstance(error, HTTPException):
        status, content = error.status_code, {"detail": str(error.detail)}
    elif isinstance(error, WireError | DecodeError | ValueError | LargeBodyError):
        status, content = 400, {"detail": "This is no request of Archipel's."}
    else:
        log.error("%s: unexpected %s: %s", path, type(error).__name__, error)
    return status, json.dumps(content).encode(), "application/json"
