"""The messages of a run over the SuperLink's socket, awaited without sleeping.

Flower's own `HttpGrid` waits three seconds between two looks for replies, and one more for a reply that is not whole
yet; a reply that is never completed holds up all others, one that is no message ends the run, and one of any size is
kept. Here a request is held until something comes in, no reply waits for another one, and what is taken is bounded.
"""

import json
import time
from collections.abc import Iterable
from pathlib import Path

import httpx
from flwr.app import Message

from configs.errors import RunError, WireError
from configs.memory import Tidy
from configs.pieces import MEDIA_TYPE, join, split
from server.codes import BROKEN_REPLY
from server.superlink.arriving import Arriving, BrokenError
from server.superlink.exchange import AWAIT_PATH, SEND_PATH, WAKE_PATH
from server.superlink.flower_inside import BASE_URL, LARGEST_PART, TASK_TOKEN_HEADER, Task, is_chunk
from server.superlink.spool import SpooledParts
from strategies.exchange.flower import (
    PUSHERS,
    ObjectTree,
    Run,
    Session,
    iterate_object_tree,
    message_from_proto,
    name_message,
    parse_head,
    push_objects,
    taken_apart,
)
from strategies.exchange.objects import Parts

SENT_AT_ONCE = 32  # messages in one request
MAX_REPLIES = 1_000_000
OWN_TIMEOUT_S = 120.0
MAX_REPLY_BYTES = 8_000_000_000  # of one reply, where no smaller bound is given
STALLED_S = 120.0  # a reply of which nothing more arrives for so long is given up
HELD_BYTES = 500_000_000  # of replies on their way, at most; beyond, they lie in files


class SuperLinkGrid:
    """The messages of one run at the SuperLink.

    Args:
        token: of the run's task.
        spool: a folder for large replies on their way; without one they are held in memory.
    """

    def __init__(self, socket: Path, token: str, spool: Path | None = None) -> None:
        self._own, self._seen = OwnPaths(socket, token), -1
        self._task = Task(socket, token)
        self.max_reply_bytes, self.held_bytes, self._spool = MAX_REPLY_BYTES, HELD_BYTES, spool
        self._tidy = Tidy()
        self._arriving: dict[str, Arriving] = {}  # by the id of the message that is answered

    @property
    def run(self) -> Run:
        """Return the run that messages belong to."""
        return self._task.run

    def identify(self) -> None:
        """Let messages made from now on be this run's; Flower keeps that once for the whole process."""
        self._task.identify()

    def finish(self, sub_status: str) -> None:
        """Tell the SuperLink how the run ended."""
        self._task.finish(sub_status)
        self._own.close()

    def close(self) -> None:
        """Close the connection."""
        self._task.close()

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages and return their ids. Equal contents travel once, and none is copied as a whole."""
        outgoing = list(messages)
        ids: list[str] = []
        for start in range(0, len(outgoing), SENT_AT_ONCE):
            ids += self._push(outgoing[start : start + SENT_AT_ONCE])
        return ids

    def _push(self, outgoing: list[Message]) -> list[str]:
        with taken_apart(outgoing) as (heads, objects):
            pieces = [json.dumps({"messages": len(outgoing)}).encode()]
            for head in heads:
                pieces += [head.header.SerializeToString(), head.tree.SerializeToString()]
            for object_id in list(objects):
                if not is_chunk(objects[object_id]):
                    pieces += [object_id.encode("ascii"), objects.pop(object_id).deflate()]
            pushed = json.loads(self._own.post(SEND_PATH, join(pieces)))
            session = Session(self._task.node, self.run.run_id, str(pushed["session"]))
            push_objects(self._task.push, session, objects, set(pushed["missing"]), self._tidy.passed)
        if pushed["missing"]:
            nodes = [message.metadata.dst_node_id for message in outgoing]
            self._own.post(WAKE_PATH, json.dumps({"nodes": nodes}).encode())
        return [str(message_id) for message_id in pushed["ids"]]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies that are there whole, and an error for each that never will be."""
        return self.await_messages(message_ids, 0.0)

    def await_messages(self, message_ids: Iterable[str], wait_s: float) -> list[Message]:
        """Return as `pull_messages` does, held until something has come in since the last call, or so long."""
        awaited = set(message_ids)
        new = sorted(awaited - set(self._arriving))
        request = {"ids": new, "hold_s": float(wait_s), "seen": self._seen}
        first, *replies = split(self._own.post(AWAIT_PATH, json.dumps(request).encode()), MAX_REPLIES)
        self._seen = int(json.loads(first)["seen"])
        for incoming in replies:
            pieces = split(incoming)
            head = parse_head(pieces[0], pieces[1])
            arriving = Arriving(head, self._parts(head.tree))
            self._arriving[head.header.metadata.reply_to_message_id] = arriving
            for name, content in zip(pieces[2::2], pieces[3::2], strict=True):
                arriving.early[name.decode("ascii")] = content
        whole = []
        for message_id in awaited & set(self._arriving):
            arriving = self._arriving[message_id]
            try:
                reply = self._take(arriving)
            except BrokenError as error:
                arriving.parts.forget()
                reply = self._task.error(message_id, BROKEN_REPLY, f"its reply was refused: {error}")
            if reply is not None:
                del self._arriving[message_id]
                self._task.confirm(arriving.head.header.metadata.message_id)
                whole.append(reply)
        return whole

    def _take(self, arriving: Arriving) -> Message | None:
        """Take what has arrived of a reply; return the reply once that is all of it.

        Raises:
            BrokenError: it is too large, stalled, or no message.
        """
        self._take_parts(arriving)
        if arriving.missing:
            if time.monotonic() - arriving.moved > STALLED_S:
                raise BrokenError("it did not arrive whole")
            return None
        message_id = arriving.head.header.metadata.message_id
        try:
            message = arriving.parts.message(message_id)
        except WireError:
            raise BrokenError("it is none of Flower's objects") from None
        sent = message_from_proto(arriving.head.header).metadata
        if message.metadata.reply_to_message_id != sent.reply_to_message_id:
            raise BrokenError("it is no reply, or one to another message")
        name_message(message, message_id)
        return message

    def _take_parts(self, arriving: Arriving) -> None:
        absent = 0
        for object_id in list(arriving.missing):
            if object_id in arriving.early:
                arriving.add(object_id, arriving.early.pop(object_id))
                continue
            try:
                content = self._task.pull(object_id)
            except KeyError:
                raise BrokenError("a part of it is not there") from None
            if content is None:
                absent += 1
                if absent > PUSHERS or arriving.parts.in_order:
                    break  # they come about in it: the rest is not there either
                continue
            arriving.add(object_id, content)
            self._tidy.passed(len(content))

    def _parts(self, tree: ObjectTree) -> Parts:
        """Return room for a reply: in a file where what is on its way may be too much for memory, which is quicker."""
        count = sum(1 for _ in iterate_object_tree(tree)) + sum(a.count for a in self._arriving.values())
        if self._spool is not None and count * LARGEST_PART > self.held_bytes:
            return SpooledParts(self.max_reply_bytes, self._spool)
        return Parts(self.max_reply_bytes)


class OwnPaths:
    """The paths of server/superlink/exchange.py over the SuperLink's socket."""

    def __init__(self, socket: Path, token: str) -> None:
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)),
            timeout=OWN_TIMEOUT_S,
            headers={TASK_TOKEN_HEADER: token, "content-type": MEDIA_TYPE},
        )

    def post(self, path: str, body: bytes) -> bytes:
        """Send a request and return the answer's body.

        Raises:
            RunError: the SuperLink refuses, or is away.
        """
        try:
            response = self._client.post(BASE_URL + path, content=body)
        except httpx.TransportError:
            raise RunError("expected the SuperLink to answer, it is away; the coordinator's log says why") from None
        if response.status_code != httpx.codes.OK:
            raise RunError(f"expected the SuperLink to take a message, it answered {response.status_code}")
        return response.content

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
