"""The uplink over a network: Flower's fleet API and Archipel's own paths.

Every byte that arrives is bounded before it is kept. Connections are made from here, outwards, through the proxy that
the environment names; nothing listens. Flower's own connection ends the process when the coordinator is away; a
hospital's node waits and tries again.
"""

import logging
import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message, RecordDict

from client.uplink import apart
from client.uplink.base import EndedError, Incoming, NoPathError, OccupiedError, RefusedError, UnreachableError
from client.uplink.flower import (
    ACTIVATION_FAILED,
    REQUEST_TIMEOUT_S,
    RUN_ENDED,
    FleetClient,
    MissingPartsError,
    error_code,
    public_key_to_bytes,
    pull_all,
)
from client.uplink.line import SLACK_S, Line, answered, asked, inline, received
from client.uplink.proxy import proxy_to
from client.uplink.signer import Signer
from configs.errors import ArchipelError, WireError
from configs.folder import split_address
from configs.frame import MappedFile
from configs.memory import Tidy
from configs.pieces import HOLD_PATH, REPLY_PATH
from configs.shown import printable
from strategies.exchange.flower import (
    Head,
    Node,
    ObjectTree,
    PushObjectRequest,
    Session,
    identify,
    iterate_object_tree,
    name_message,
    push_objects,
    taken_apart,
)
from strategies.exchange.objects import Parts

log = logging.getLogger("archipel.fleet")
HEARTBEAT_S = 15.0  # how often: one that is lost does no harm
HEARTBEAT_PROMISED_S = 20.0  # how often the SuperLink is told; it gives a node up after twice that
MAX_OBJECTS = 100_000
REPLY_ATTEMPTS = 3
Response = TypeVar("Response")


class Fleet:
    """A connection under one node key."""

    def __init__(
        self,
        address: str,
        trust: ssl.SSLContext,
        key: ec.EllipticCurvePrivateKey,
        *,
        max_message_bytes: int,
        sign_requests: bool = False,
    ) -> None:
        """Send nothing yet.

        Args:
            sign_requests: whether each request is signed whole (configs/requests.py): where no certificate says whose
                it is. A coordinator of an older release does not look at it.

        Raises:
            RunError: the environment names a proxy that is none.
        """
        self._signer = Signer(key, whole=sign_requests)
        self._public = public_key_to_bytes(key.public_key())
        self._max_message_bytes = max_message_bytes
        self._client = FleetClient(address, self._signer, trust, proxy_to(*split_address(address)))
        self._tidy, self._scratch = Tidy(), apart.Scratch()
        self._node: int | None = None
        self._line, self._door_is_new = Line(), True
        self._beat: threading.Thread | None = None
        self._over = threading.Event()

    @property
    def protocol(self) -> int:
        """Return the newest protocol that the coordinator has said it talks on this connection; 1 where none.

        Also 1 where the door does not let the newer paths through: an nginx with a configuration of another release.
        """
        return self._client.protocol if self._door_is_new else 1

    @property
    def release(self) -> str:
        """Return the coordinator's release of Archipel, empty where it named none."""
        return self._client.release

    @property
    def line(self) -> Line:
        """Return how long the way to the coordinator lets a request wait."""
        return self._line

    def connect(self, previous: int | None = None) -> int:
        """Activate the node, keep it alive until `close`, and return its id.

        Args:
            previous: the id of a process of this very machine that is known to be dead: it is signed off first, so that
                the coordinator need not wait for its heartbeat to lapse.

        Raises:
            UnreachableError, RefusedError, OccupiedError.
        """
        if previous is not None:
            try:
                self._call(lambda: self._client.deactivate(previous))
            except (RefusedError, OccupiedError) as error:
                log.debug("the former process was signed off already: %s", error)
        self._node = node = self._call(lambda: self._client.activate(self._public, HEARTBEAT_PROMISED_S))
        identify(node_id=node)
        self._over.clear()
        self._beat = threading.Thread(target=self._keep_alive, args=(node,), daemon=True)
        self._beat.start()
        return node

    def interrupt(self) -> None:
        """End a request that is held; callable from another thread or a signal handler."""
        self._line.interrupt()

    def close(self) -> bool:
        """Sign off, close the connection, and return whether the coordinator answered."""
        self._over.set()
        self._scratch.close()
        self._line.interrupt()
        if self._beat is not None:
            self._beat.join(timeout=1)
        heard = self._node is not None
        try:
            if self._node is not None:
                self._client.deactivate(self._node)
        except (httpx.HTTPError, WireError, ValueError):
            heard = False
        self._line.ended(within_s=1.0)
        self._node = None
        self._client.close()
        return heard

    # Receiving

    def receive(self) -> Incoming | None:
        """Return the next message if there is one: as soon as it is there, within a minute, where both talk protocol 2.

        Raises:
            UnreachableError, RefusedError, EndedError.
            WireError: the message is larger than this hospital allows, is no message, or never arrived whole.
        """
        if self.protocol >= 2:
            return self._receive_held()
        node = self._connected()
        head = self._call(lambda: self._client.pull(node))
        if head is None:
            return None
        sent = head.header.metadata
        try:
            parts = self._pull(sent.run_id, head.tree)
        finally:
            self._call(lambda: self._client.confirm(node, sent.run_id, sent.message_id))
        return _incoming(head, parts)

    def _receive_held(self) -> Incoming | None:
        """Return the next message, asked for in one request that is held; a large one's parts come apart."""
        hold_s = self._line.hold_s
        body = asked(self._connected(), hold_s, self._line.taken)
        timeout = httpx.Timeout(REQUEST_TIMEOUT_S, read=hold_s + SLACK_S)

        def exchange() -> bytes:
            return self._client.exchange(HOLD_PATH, body, timeout)

        try:
            answer = self._line.held(lambda: self._call(exchange), UnreachableError)
        except NoPathError:
            log.warning("the coordinator's door is of another release than the coordinator; its nginx.conf is old")
            self._door_is_new = False
            return self.receive()
        if not answer:
            return None
        head, contents = received(answer)
        self._line.taken = head.tree.object_id
        if not contents:
            return _incoming(head, self._pull(head.header.metadata.run_id, head.tree))
        parts = Parts(self._max_message_bytes)
        for object_id, content in contents:
            parts.add(object_id, content)
        return _incoming(head, parts)

    def _pull(self, run_id: int, tree: ObjectTree) -> Parts:
        """Return a message's parts, bounded in number and in bytes, whatever was announced."""
        node, ids = self._connected(), []
        for item in iterate_object_tree(tree):
            ids.append(item.object_id)
            if len(ids) > MAX_OBJECTS:
                raise WireError(f"message: expected at most {MAX_OBJECTS} parts, found more; it is not read")
        lock, parts, full = threading.Lock(), Parts(self._max_message_bytes), False

        def bounded(object_id: str) -> bytes:
            nonlocal full
            if not full:
                data = self._call(lambda: self._client.part(node, run_id, object_id))
                self._tidy.passed(len(data))
                with lock:
                    try:
                        parts.add(object_id, data)
                        return b""
                    except WireError:
                        full = True
            raise WireError("message: expected fewer bytes than policy.max_message_mb, found more; it is not read")

        try:
            pull_all(list(dict.fromkeys(ids)), bounded)
        except MissingPartsError:
            raise WireError("message: expected all of its parts, found some missing; it did not arrive whole") from None
        return parts

    def bundle(self, run_id: int) -> tuple[bytes, bool]:
        """Return the run's bundle, and whether its settings are overridden beside it."""
        node = self._connected()
        return self._call(lambda: self._client.bundle(node, run_id))

    def fetch(self, run: str, message: str, size: int, folder: Path) -> MappedFile:
        """Return a large message of which only the seal has come, in a file without a name in this folder.

        Raises:
            UnreachableError, RefusedError, EndedError.
            WireError: it is larger than this hospital allows, or not as long as it says.
        """
        if size > self._max_message_bytes:
            raise WireError("message: expected fewer bytes than policy.max_message_mb, found more; it is not read")
        return apart.fetch(self._ask, UnreachableError, run, message, size, folder, self._scratch)

    # Sending

    def reply(self, incoming: Incoming, records: RecordDict) -> None:
        """Send the answer to a message.

        Raises:
            EndedError. UnreachableError, RefusedError: it may not have arrived whole; the coordinator will ask again.
        """
        node = self._connected()
        with taken_apart([Message(records, reply_to=incoming.message)]) as ((head,), objects):
            if self.protocol >= 2 and (whole := inline(head, objects)) is not None:
                return self._reply_whole(whole)
            session, missing = self._call(lambda: self._client.announce(node, head))
            to = Session(Node(node_id=node), incoming.run_id, session)
            push_objects(self._push, to, objects, missing, self._tidy.passed)

    def _push(self, request: PushObjectRequest) -> None:
        if not self._call(lambda: self._client.push(request)):
            raise UnreachableError("the coordinator did not keep a part of the reply")

    def _reply_whole(self, pieces: list[bytes]) -> None:
        """Send a reply in one request; again where the way is cut, which does no harm."""
        body = answered(self._connected(), self._line.taken, pieces)
        for attempt in range(REPLY_ATTEMPTS):
            try:
                self._call(lambda: self._client.exchange(REPLY_PATH, body, httpx.Timeout(REQUEST_TIMEOUT_S)))
                return
            except UnreachableError:
                if attempt + 1 == REPLY_ATTEMPTS or self._over.wait(attempt):
                    raise

    def store(self, run: str, message: str, path: Path) -> int:
        """Send a large reply's content before its seal, and return its size.

        Raises:
            UnreachableError, RefusedError, EndedError, WireError.
        """
        return apart.store(self._ask, UnreachableError, run, message, path)

    # Requests

    def _ask(self, path: str, body: Sequence[bytes], into: Callable[[bytes], object] | None = None) -> bytes:
        return self._call(lambda: self._client.exchange(path, body, httpx.Timeout(REQUEST_TIMEOUT_S), into))

    def _connected(self) -> int:
        """Return the node's id between `connect` and `close`."""
        assert self._node is not None
        return self._node

    def _keep_alive(self, node: int) -> None:
        while not self._over.wait(HEARTBEAT_S):
            if self._line.is_held:
                continue  # a request that is held says that this node lives
            try:
                self._call(lambda: self._client.beat(node, HEARTBEAT_PROMISED_S))
            except ArchipelError as error:
                log.debug("heartbeat: %s", error)

    def _call(self, request: Callable[[], Response]) -> Response:
        """Make one request, again where only the clock was off; what goes wrong becomes one of the uplink's errors."""
        try:
            try:
                return request()
            except httpx.HTTPStatusError as error:
                if error.response.status_code != httpx.codes.UNAUTHORIZED or not self._signer.correct(error.response):
                    raise
                return request()
        except httpx.HTTPStatusError as error:
            raise _explained(error.response) from None
        except httpx.TransportError as error:
            raise UnreachableError(
                f"the coordinator cannot be reached ({_plain(error)}); see: archipel-site check"
            ) from None
        except ValueError:
            raise UnreachableError("the coordinator's answer is not Flower's; a proxy may stand between") from None


def _incoming(head: Head, parts: Parts) -> Incoming:
    """Return the message that these parts make.

    Raises:
        WireError: they make none.
    """
    message = parts.message(head.tree.object_id)
    name_message(message, head.tree.object_id)
    if not message.has_content():
        raise WireError("message: expected content, found none")
    return Incoming(head.header.metadata.run_id, message.metadata.message_type, message.content, message)


def _explained(response: httpx.Response) -> ArchipelError:
    """Return what an answer other than 200 means, as one of the uplink's errors."""
    status, code = response.status_code, error_code(response.text[:10_000])
    if code == ACTIVATION_FAILED:
        return OccupiedError("another node is connected as this hospital, or one that stopped is not given up yet")
    if code == RUN_ENDED:
        return EndedError("the run has ended")
    if status == httpx.codes.GONE:
        return EndedError("the round has ended")
    if status == httpx.codes.NOT_FOUND:
        return NoPathError("the coordinator's door does not know this request (HTTP 404); compare the releases")
    if status in (401, 403):
        return RefusedError("the coordinator does not accept this hospital's certificate or key; ask the consortium")
    if status in (408, 425, 429) or status >= 500:
        return UnreachableError(f"the coordinator cannot answer now (HTTP {status})")
    return RefusedError(f"the coordinator refused a request (HTTP {status}); compare the releases: archipel-site check")


def _plain(error: httpx.TransportError) -> str:
    """Return an error's own words on one line; some have none."""
    text = str(error) or type(error).__name__
    return printable(text, 200)
