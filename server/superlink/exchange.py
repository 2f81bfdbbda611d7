"""Protocol 2: whole messages in one request, which is held until there is a message.

One request takes the place of ten of Flower's. It stands before the SuperLink's application, in its process, and calls
Flower's own handlers on its state, so that both ways see the same messages. A hospital's node asks for the next message
and is held until one is there, at most as long as it asks for; the conductor likewise for replies. No process looks
again by guess.

A message is given again until its node says that it has arrived, because a connection that was cut is not seen here.
A node has two requests held at most; for a third the oldest is answered. A node that hangs up is forgotten.
"""

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from typing import Any

from configs.errors import WireError
from configs.pieces import HOLD_PATH, MAX_HOLD_S, MAX_INLINE, MEDIA_TYPE, REPLY_PATH, fields_of, join, split
from server.bodies import GoneError, LargeBodyError, Receive, whole
from server.superlink.flower_inside import Handlers, answer_to
from server.superlink.holds import Waiting
from strategies.exchange.flower import Head, iterate_object_tree, parse_head

log = logging.getLogger("archipel.exchange")
SEND_PATH, AWAIT_PATH, WAKE_PATH = (f"/v1/runtime/archipel-{name}" for name in ("send", "await", "wake"))
SIGN_OFF_PATH = "/v1/fleet/deactivate-node"
LARGEST_BODY = 64_000_000  # of the conductor's; a hospital's is bounded by the door too
LARGEST_ASK = MAX_INLINE + 1_000_000
PATIENCE_S = 15.0  # beyond its hold a node may take so long to ask again
GRACE_S = 10.0  # promised for a node that hung up while held: it is given up after twice that
_RECEIVE = {"node": int, "hold_s": float, "taken": str}
_REPLY = {"node": int, "taken": str}

Scope = MutableMapping[str, Any]
Send = Callable[[Any], Awaitable[None]]


class Exchange:
    """An ASGI application before Flower's (`app`), with five paths of its own."""

    def __init__(self, app: Any) -> None:
        self._app, self._flower = app, Handlers(app)
        self._nodes = Waiting()
        self._replies = Waiting()
        self._given: dict[int, Head] = {}  # node -> the message that it has not confirmed
        self._giving = threading.Lock()  # no reader sees a message between its header and its parts
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
            if not await asyncio.to_thread(self._flower.is_online, node):
                self._nodes.wake(node, release=True)

    # A hospital's node

    async def _receive(self, scope: Scope, body: bytes, receive: Receive) -> bytes:
        """Answer the next message for a node, held until there is one; nothing where there was none in time."""
        request = fields_of(body, _RECEIVE)
        node, hold_s = _int(request["node"]), _hold(request["hold_s"])
        await asyncio.to_thread(self._greeted, scope, node, str(request["taken"]), hold_s)
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
        self._flower.authenticate(scope, node)
        self._confirm(node, taken)
        self._flower.expect(node, (hold_s + PATIENCE_S) / 2 + GRACE_S)

    def _left(self, node: int) -> None:
        """Give a node that hung up so long to come back; a node that signed off stays so."""
        if self._flower.is_online(node):
            self._flower.expect(node, GRACE_S)

    def _next(self, node: int) -> list[bytes] | None:
        """Return the message that the node has not confirmed, or its next one; drop those of ended runs."""
        with self._giving:
            while (head := self._given.pop(node, None) or self._flower.next_message(node)) is not None:
                running = self._flower.is_running(head.header.metadata.run_id)
                if running and (pieces := self._inline(head)) is not None:
                    self._given[node] = head
                    return pieces
                self._flower.forget(head.header.metadata.message_id)
        return None

    def _confirm(self, node: int, taken: str) -> None:
        """Forget a message that has arrived, with its parts."""
        with self._giving:
            head = self._given.get(node)
            if head is not None and head.header.metadata.message_id == taken:
                del self._given[node]
                self._flower.forget(taken)

    async def _reply(self, scope: Scope, body: bytes, _receive: Receive) -> bytes:
        """Take a whole reply."""
        first, *pieces = split(body)
        request = fields_of(first, _REPLY)
        await asyncio.to_thread(self._take, scope, _int(request["node"]), str(request["taken"]), pieces)
        self._events += 1
        self._replies.wake(0)
        return b""

    def _take(self, scope: Scope, node: int, taken: str, pieces: Sequence[bytes]) -> None:
        self._flower.authenticate(scope, node)
        head, parts = _message(pieces)
        if head.header.metadata.src_node_id != node:
            raise WireError("reply: expected the node's own, found another's")
        with self._whole():
            self._flower.take_reply(node, head, parts)
        self._confirm(node, taken)

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """Store a message with its parts; no reader sees a part of it."""
        with self._giving:
            self._own.busy = True
            try:
                yield
            finally:
                self._own.busy = False

    # The conductor

    async def _send(self, scope: Scope, body: bytes, _receive: Receive) -> bytes:
        """Take messages for several nodes with their small parts; what is missing of them comes by Flower's own way."""
        first, *pieces = split(body, 1_000_000)
        count = _int(fields_of(first, {"messages": int})["messages"])
        answer, nodes = await asyncio.to_thread(self._stored, scope, pieces[: 2 * count], pieces[2 * count :])
        for node in nodes:
            self._nodes.wake(node)
        return answer

    def _stored(self, scope: Scope, pairs: Sequence[bytes], parts: Sequence[bytes]) -> tuple[bytes, list[int]]:
        task = self._flower.task(scope)
        heads = [parse_head(*both) for both in zip(pairs[::2], pairs[1::2], strict=True)]
        with self._whole():
            stored = self._flower.store(task, heads)
            missing = dict.fromkeys(stored.missing)
            for name, content in zip(parts[::2], parts[1::2], strict=True):
                object_id = name.decode("ascii")
                if object_id in missing and self._flower.store_object(task, stored.session, object_id, content):
                    del missing[object_id]
        nodes = [head.header.metadata.dst_node_id for head in heads] if not missing else []
        answer = {"ids": list(stored.ids), "missing": list(missing), "session": stored.session}
        return json.dumps(answer).encode(), nodes

    async def _wake(self, scope: Scope, body: bytes, _receive: Receive) -> bytes:
        """Wake nodes: the parts of their large messages are here."""
        await asyncio.to_thread(self._flower.task, scope)
        for node in json.loads(body)["nodes"]:
            self._nodes.wake(_int(node))
        return b""

    async def _await(self, scope: Scope, body: bytes, receive: Receive) -> bytes:
        """Answer replies to these messages, small ones whole; held until something new came in."""
        request = fields_of(body, {"ids": list, "hold_s": float, "seen": int})
        with self._replies.waiting(0, receive, _hold(request["hold_s"])) as hold:
            while True:
                events = self._events
                replies = await asyncio.to_thread(self._there, scope, request["ids"])
                if replies or events != request["seen"] or not await hold.woken():
                    return join([json.dumps({"seen": events}).encode(), *replies])

    def _there(self, scope: Scope, ids: Any) -> list[bytes]:
        task = self._flower.task(scope)
        if not ids:
            return []
        with self._giving:
            heads = self._flower.replies(task, ids)
        replies = []
        for head in heads:
            pieces = self._inline(head)
            if pieces is not None:
                replies.append(join(pieces))
            if pieces is None or len(pieces) > 2:
                self._flower.forget(head.header.metadata.message_id)
        return replies

    def _inline(self, head: Head) -> list[bytes] | None:
        """Return a message with its parts where they are here and small, without them where not; None if it is gone."""
        total, pieces = 0, [head.header.SerializeToString(), head.tree.SerializeToString()]
        for object_id in dict.fromkeys(item.object_id for item in iterate_object_tree(head.tree)):
            content = self._flower.content(head.header.metadata.run_id, object_id)
            if content is None:
                return None
            total += len(content)
            if not content or total > MAX_INLINE or len(pieces) > 500:
                return pieces[:2]
            pieces += [object_id.encode("ascii"), content]
        return pieces


def _message(pieces: Sequence[bytes]) -> tuple[Head, dict[str, bytes]]:
    """Return a message's head and its parts.

    Raises:
        WireError, ValueError: it is no message.
    """
    if len(pieces) < 2 or len(pieces) % 2:
        raise WireError("exchange: expected a message and its parts, found something else")
    names = [piece.decode("ascii") for piece in pieces[2::2]]
    return parse_head(pieces[0], pieces[1]), dict(zip(names, pieces[3::2], strict=True))


def _int(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**64:
        raise WireError("exchange: expected a node's number, found something else")
    return value


def _hold(value: object) -> float:
    if type(value) is not float or not 0.0 <= value <= MAX_HOLD_S:  # also not a number
        raise WireError(f"exchange: expected a hold of at most {MAX_HOLD_S:.0f} s, found something else")
    return value


def _explained(error: Exception, path: str) -> tuple[int, bytes, str]:
    """Return the answer that stands for an error, as Flower's own answers; its text does not leave."""
    status, content = 500, '{"detail": "Internal server error."}'
    if (answer := answer_to(error)) is not None:
        status, content = answer
    elif isinstance(error, WireError | ValueError | LargeBodyError):
        status, content = 400, '{"detail": "This is no request of Archipel\'s."}'
    else:
        log.error("%s: unexpected %s: %s", path, type(error).__name__, error)
    return status, content.encode(), "application/json"
