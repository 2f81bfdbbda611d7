"""Flower's fleet API, as a hospital's node speaks it: the one file of client/ that talks to the coordinator.

It carries messages and nothing else: what a message means, and whether it may be answered, is decided elsewhere. Every
byte that arrives is bounded before it is kept. Connections are made from here, outwards, through the proxy that the
environment names (HTTPS_PROXY, else ALL_PROXY, but for NO_PROXY); nothing listens.

Flower's own connection ends the process when the coordinator is away; a hospital's node waits and tries again. The
names taken from Flower's inside are used here alone; tests/client/test_fleet.py fails loudly should another release
move them.
"""

import email.utils
import logging
import re
import secrets
import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message, RecordDict
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.error import FlowerError
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, pull_objects
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufClientInterceptor, ProtobufRequestContext
from flwr.supernode.fleet_http_client import FleetHttpClient

from client.apart import Scratch, fetch, store
from client.bulk import Bulk
from client.carriage import REQUESTS, goes_on, heavy, is_whole
from client.line import SLACK_S, Line, answered, asked, inline, received
from configs.deployment import split_address
from configs.errors import ArchipelError, RunError, WireError
from configs.frame import MappedFile
from configs.memory import Tidy
from configs.pieces import HOLD_PATH, MEDIA_TYPE, REPLY_PATH
from configs.requests import NONCE_BYTES, REQUEST_HEADER, Stamp, body_sha256, header_value, signed_text
from configs.wire import PROTOCOL_HEADER, RELEASE_HEADER
from strategies.exchange.flower import (
    Node,
    ObjectTree,
    PushObjectRequest,
    Session,
    identify,
    iterate_object_tree,
    message_from_proto,
    name_message,
    push_objects,
    taken_apart,
)
from strategies.exchange.objects import Parts

log = logging.getLogger("archipel.fleet")
HEARTBEAT_S = 15.0  # how often: one that is lost does no harm
HEARTBEAT_PROMISED_S = 20.0  # how often the SuperLink is told; it gives a node up after twice that
MAX_RESPONSE_BYTES = 16_000_000  # one object travels in pieces of 5 MB
MAX_OBJECTS = 100_000
REQUEST_TIMEOUT_S, RESPONSE_TIMEOUT_S = 30.0, 120.0
KEPT_S = 50.0  # an idle connection; the gateway keeps it for 75
MAX_CLOCK_CORRECTION_S = 3600.0
PULL_TIMEOUT_S = 600.0  # of a whole message
REPLY_ATTEMPTS = 3
_RELEASE = re.compile(
    rb"\r\n\r\nok, archipel ([0-9a-z.+]{1,20}) with flwr ([0-9a-z.+]{1,20})$"
)  # the health path says it
# What httpx and urllib read in one way: neither a / nor a # in the account, nothing after the port.
_PROXY = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?(?:(?P<account>[^/?#\s]*)@)?"
    r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?/?"
)
_PROTOCOL, _RELEASE_TOLD = re.compile(r"[1-9][0-9]{0,2}"), re.compile(r"[0-9A-Za-z.+-]{1,40}")
NOT_ADMITTED = "this key is not admitted, or no longer"  # what the gateway says to whoever was revoked
RUN_ENDED = 2007  # Flower's code
ACTIVATION_FAILED = 2004  # Flower's code: another process holds this identity, or has not been given up yet
Response = TypeVar("Response")


class UnreachableError(ArchipelError):
    """The coordinator cannot be reached now; trying again later may help."""


class RefusedError(ArchipelError):
    """The coordinator does not accept this hospital; a person must do something."""


class NoPathError(RefusedError):
    """The door does not know a path that the coordinator serves."""


class EndedError(ArchipelError):
    """The run that a message belongs to has ended; there is nothing to answer."""


class OccupiedError(ArchipelError):
    """Another process is connected under this hospital's identity, or one that stopped has not been given up yet."""


@dataclass(frozen=True)
class Incoming:
    """A message without its content's meaning. `message` is Flower's, which a reply must quote."""

    run_id: int
    type: str
    records: RecordDict
    message: Message


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
        """Nothing is sent yet.

        Args:
            sign_requests: whether each request is signed whole (configs/requests.py): where no certificate says whose
                it is. A coordinator of an older release does not look at it.

        Raises:
            RunError: the environment names a proxy that is none.
        """
        self._signer = _Signer(key, whole=sign_requests)
        self._public = public_key_to_bytes(key.public_key())
        self._max_message_bytes = max_message_bytes
        release = RuntimeVersionHttpInterceptor(component_name="SuperNode")
        self._client = _BoundedClient(address, (release, self._signer), trust, proxy_to(*split_address(address)))
        self._tidy, self._scratch = Tidy(), Scratch()
        self._node: Node | None = None
        self._line, self._door_is_new = Line(), True
        self._beat: threading.Thread | None = None
        self._over = threading.Event()

    @property
    def protocol(self) -> int:
        """The newest protocol that the coordinator has said it talks on this connection; 1 where it has said none.

        Also 1 where the door does not let the newer paths through: an nginx with a configuration of another release.
        """
        return self._client.protocol if self._door_is_new else 1

    @property
    def release(self) -> str:
        """The coordinator's release of Archipel as it has told it, empty where it has told none."""
        return self._client.release

    def connect(self, previous: int | None = None) -> int:
        """Activate the node and keep it alive until `close`; its id.

        Args:
            previous: the id of a process of this very machine that is known to be dead: it is signed off first, so that
                nobody waits for its heartbeat to lapse.

        Raises:
            UnreachableError, RefusedError, OccupiedError.
        """
        if previous is not None:
            try:
                self._call(self._client.DeactivateNode, DeactivateNodeRequest(node_id=previous))
            except (RefusedError, OccupiedError) as error:
                log.debug("the former process was signed off already: %s", error)
        request = ActivateNodeRequest(public_key=self._public, heartbeat_interval=HEARTBEAT_PROMISED_S)
        self._node = Node(node_id=self._call(self._client.ActivateNode, request).node_id)
        identify(node_id=self._node.node_id)
        self._over.clear()
        self._beat = threading.Thread(target=self._keep_alive, daemon=True)
        self._beat.start()
        return int(self._node.node_id)

    def interrupt(self) -> None:
        """End a request that is held; callable from another thread or a signal handler."""
        self._line.interrupt()

    @property
    def line(self) -> Line:
        """How long the way to the coordinator lets a request wait."""
        return self._line

    def receive(self) -> Incoming | None:
        """The next message, if there is one: from a coordinator of protocol 2 as soon as it is there, within a minute.

        Raises:
            UnreachableError, RefusedError, EndedError.
            WireError: the message is larger than this hospital allows, is no message, or never arrived whole.
        """
        if self.protocol >= 2:
            return self._receive_held()
        pulled = self._call(self._client.PullMessages, PullMessagesRequest(node=self._node))
        if not pulled.messages_list:
            return None
        if len(pulled.message_object_trees) != len(pulled.messages_list):
            raise UnreachableError("the coordinator's answer is not Flower's: a message without its list of parts")
        header, tree = message_from_proto(pulled.messages_list[0]), pulled.message_object_trees[0]
        run_id = header.metadata.run_id
        assert self._node is not None
        try:
            parts = self._pull(run_id, tree)
        finally:
            confirm = make_confirm_message_received_fn_protobuf(
                lambda request: self._call(self._client.ConfirmMessageReceived, request), self._node, run_id
            )
            confirm(header.metadata.message_id)
        return _incoming(run_id, tree, parts)

    def _receive_held(self) -> Incoming | None:
        """The next message, in one request that is held until there is one; a large one's parts come apart."""
        assert self._node is not None
        hold_s = self._line.hold_s
        body = asked(self._node.node_id, hold_s, self._line.taken)
        timeout = httpx.Timeout(REQUEST_TIMEOUT_S, read=hold_s + SLACK_S)

        def exchange(body: bytes) -> bytes:
            return self._client.exchange(HOLD_PATH, body, timeout)

        try:
            answer = self._line.held(lambda: self._call(exchange, body), UnreachableError)
        except NoPathError:
            log.warning("the coordinator's door is of another release than the coordinator; its nginx.conf is old")
            self._door_is_new = False
            return self.receive()
        if not answer:
            return None
        head, contents = received(answer)
        run_id = head.header.metadata.run_id
        self._line.taken = head.tree.object_id
        if not contents:
            return _incoming(run_id, head.tree, self._pull(run_id, head.tree))
        parts = Parts(self._max_message_bytes)
        for object_id, content in contents:
            parts.add(object_id, content)
        return _incoming(run_id, head.tree, parts)

    def bundle(self, run_id: int) -> tuple[bytes, bool]:
        """The run's bundle, and whether its settings are overridden beside it."""
        run = self._call(self._client.GetRun, GetRunRequest(node=self._node, run_id=run_id)).run
        request = GetFabRequest(node=self._node, hash_str=run.fab_hash, run_id=run_id)
        return bytes(self._call(self._client.GetFab, request).fab.content), bool(run.override_config)

    def reply(self, incoming: Incoming, records: RecordDict) -> None:
        """Send the answer to a message.

        Raises:
            EndedError. UnreachableError, RefusedError: it may not have arrived whole; the coordinator will ask again.
        """
        assert self._node is not None
        with taken_apart([Message(records, reply_to=incoming.message)]) as ((head,), objects):
            if self.protocol >= 2 and (whole := inline(head, objects)) is not None:
                return self._reply_whole(whole)
            pushed = self._call(
                self._client.PushMessages,
                PushMessagesRequest(
                    node=self._node,
                    messages_list=[head.header],
                    message_object_trees=[head.tree],
                    clientapp_runtime_list=[0.0],
                ),
            )
            session = Session(self._node, incoming.run_id, pushed.session_id)
            push_objects(self._push, session, objects, set(pushed.objects_to_push), self._tidy.passed)

    def _push(self, request: PushObjectRequest) -> None:
        if not self._call(self._client.PushObject, request).stored:
            raise UnreachableError("the coordinator did not keep a part of the reply")

    def _reply_whole(self, pieces: list[bytes]) -> None:
        """Send a reply in one request; again where the way is cut, which does no harm."""
        assert self._node is not None
        body = answered(self._node.node_id, self._line.taken, pieces)

        def exchange(body: bytes) -> bytes:
            return self._client.exchange(REPLY_PATH, body, httpx.Timeout(REQUEST_TIMEOUT_S))

        for attempt in range(REPLY_ATTEMPTS):
            try:
                self._call(exchange, body)
                return
            except UnreachableError:
                if attempt + 1 == REPLY_ATTEMPTS or self._over.wait(attempt):
                    raise

    def fetch(self, run: str, message: str, size: int, folder: Path) -> MappedFile:
        """A large message of which only the seal has come, in a file without a name in this folder.

        Raises:
            UnreachableError, RefusedError, EndedError.
            WireError: it is larger than this hospital allows, or not as long as it says.
        """
        if size > self._max_message_bytes:
            raise WireError("message: expected fewer bytes than policy.max_message_mb, found more; it is not read")
        return fetch(self._ask, UnreachableError, run, message, size, folder, self._scratch)

    def store(self, run: str, message: str, path: Path) -> int:
        """Send a large reply's content, before its seal; its size.

        Raises:
            UnreachableError, RefusedError, EndedError, WireError.
        """
        return store(self._ask, UnreachableError, run, message, path)

    def _ask(self, path: str, body: Sequence[bytes], into: Callable[[bytes], object] | None = None) -> bytes:
        def exchange(body: Sequence[bytes]) -> bytes:
            return self._client.exchange(path, body, httpx.Timeout(REQUEST_TIMEOUT_S), into)

        return self._call(exchange, body)

    def close(self) -> bool:
        """Sign off and let go; whether the coordinator heard it."""
        self._over.set()
        self._scratch.close()
        self._line.interrupt()
        if self._beat is not None:
            self._beat.join(timeout=1)
        heard = self._node is not None
        try:
            if self._node is not None:
                self._client.DeactivateNode(DeactivateNodeRequest(node_id=self._node.node_id))
        except (httpx.HTTPError, WireError, ValueError):
            heard = False
        self._line.ended(within_s=1.0)
        self._node = None
        self._client.close()
        return heard

    def _pull(self, run_id: int, tree: ObjectTree) -> Parts:
        """A message's parts, bounded in number and in bytes, whatever was announced."""
        assert self._node is not None
        ids: list[str] = []
        for node in iterate_object_tree(tree):
            ids.append(node.object_id)
            if len(ids) > MAX_OBJECTS:
                raise WireError(f"message: expected at most {MAX_OBJECTS} parts, found more; it is not read")
        pull = make_pull_object_fn_protobuf(
            lambda request: self._call(self._client.PullObject, request), self._node, run_id
        )
        lock, parts, full = threading.Lock(), Parts(self._max_message_bytes), False

        def bounded(object_id: str) -> bytes:
            nonlocal full
            if not full:
                data = pull(object_id)
                self._tidy.passed(len(data))
                with lock:
                    try:
                        parts.add(object_id, data)
                        return b""
                    except WireError:
                        full = True
            raise WireError("message: expected fewer bytes than policy.max_message_mb, found more; it is not read")

        try:
            pull_objects(
                list(dict.fromkeys(ids)),
                bounded,
                max_time=PULL_TIMEOUT_S,
                max_tries_per_object=None,
                initial_backoff=0.02,
                backoff_cap=1.0,
            )
        except ObjectPullError:
            raise WireError("message: expected all of its parts, found some missing; it did not arrive whole") from None
        return parts

    def _keep_alive(self) -> None:
        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT_PROMISED_S)
        while not self._over.wait(HEARTBEAT_S):
            if self._line.is_held:
                continue  # a request that is held says that this node lives
            try:
                self._call(self._client.SendNodeHeartbeat, request)
            except ArchipelError as error:
                log.debug("heartbeat: %s", error)

    def _call(self, method: Callable[..., Response], request: object) -> Response:
        """One request; what goes wrong becomes one of three errors."""
        try:
            try:
                return method(request)
            except httpx.HTTPStatusError as error:
                if error.response.status_code != httpx.codes.UNAUTHORIZED or not self._signer.correct(error.response):
                    raise
                return method(request)
        except httpx.HTTPStatusError as error:
            raise _explained(error.response) from None
        except httpx.TransportError as error:
            raise UnreachableError(
                f"the coordinator cannot be reached ({_plain(error)}); see: archipel-site check"
            ) from None
        except ValueError:
            raise UnreachableError("the coordinator's answer is not Flower's; a proxy may stand between") from None


def trust(ca_certificate: str, *, certificate: str | None, key: str | None, extra_ca: str | None) -> ssl.SSLContext:
    """Whom to believe, and who we are: TLS 1.3, the consortium's authority alone.

    Args:
        certificate, key: paths; None where the hospital is admitted by message signatures alone.
        extra_ca: path of the hospital proxy's authority, where it opens TLS.

    Raises:
        RunError: naming the file that cannot be used, and what to do.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cadata=ca_certificate)
    except (OSError, ValueError, TypeError):
        raise RunError(
            "welcome.json: ca_certificate: expected the authority's certificate in PEM, found something else; "
            "archipel-site join WELCOME again"
        ) from None
    if extra_ca is not None:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(cafile=extra_ca)
        except OSError as error:
            raise RunError(
                f"{extra_ca}: expected the authority of the hospital's proxy in PEM (extra_ca in site.yaml), found "
                f"{_found(error)}; correct the path, or ask the network team for the file"
            ) from None
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key)
        except OSError as error:
            raise RunError(
                f"{certificate}: expected this hospital's certificate in PEM, made for the key {key}, found "
                f"{_found(error)}; archipel-site join WELCOME writes it again"
            ) from None
    return context


def _found(error: OSError) -> str:
    """What is in the place of a PEM file; OpenSSL's own words say nothing to people."""
    return "something else" if isinstance(error, ssl.SSLError) else str(error.strerror or "none").lower()


@dataclass(frozen=True, slots=True)
class Proxy:
    """The hospital's proxy. The account is never shown."""

    scheme: str  # http or https: how the proxy itself is spoken to
    host: str
    port: int
    account: tuple[str, str] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def proxy_to(host: str, port: int) -> Proxy | None:
    """The proxy that the environment names for this address; None where the way is direct.

    Raises:
        RunError: it names something else than an HTTP proxy; the value is not shown.
    """
    named = urllib.request.getproxies()
    variable = "HTTPS_PROXY" if named.get("https") else "ALL_PROXY"
    value = named.get("https") or named.get("all") or ""
    if not value or urllib.request.proxy_bypass(f"{host}:{port}"):
        return None
    found = _PROXY.fullmatch(value.strip())
    scheme = (found["scheme"] or "http").lower() if found else ""
    if scheme.startswith("socks"):
        raise RunError(
            f"{variable}: expected an HTTP proxy, http://[NAME:PASSWORD@]HOST:PORT, found one of SOCKS; name the "
            "hospital's HTTP proxy, or exempt the coordinator (NO_PROXY)"
        )
    number = int(found["port"] or (443 if scheme == "https" else 80)) if found else 0
    if not found or scheme not in ("http", "https") or not 0 < number < 65_536:
        raise RunError(
            f"{variable}: expected http://[NAME:PASSWORD@]HOST:PORT, found something else (not shown: it may hold a "
            "password); write %23 %2F %40 for # / @ in a password"
        )
    name, _, password = (found["account"] or "").partition(":")
    account = (urllib.parse.unquote(name), urllib.parse.unquote(password)) if found["account"] else None
    return Proxy(scheme, found["host"].strip("[]"), number, account)


class _Signer:
    """Flower's node authentication: the public key and a signed time, in headers; and the request as a `whole`.

    The SuperLink takes no time that is ahead by more than five seconds. Where this machine's clock is off, the
    coordinator's own Date header says by how much; the time that is signed is corrected by that, and the log says so.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, *, whole: bool = False) -> None:
        self._key, self._whole, self._offset_s = key, whole, 0.0
        self._public = b64encode(public_key_to_bytes(key.public_key())).decode("ascii")

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Sign one request."""
        now = time.time() + self._offset_s
        stamp = datetime.fromtimestamp(now, UTC).isoformat()
        context.request.headers[FLEET_HTTP_PUBLIC_KEY_HEADER] = self._public
        context.request.headers[TIMESTAMP_HEADER] = stamp
        signature = sign_message(self._key, stamp.encode("ascii"))
        context.request.headers[FLEET_HTTP_SIGNATURE_HEADER] = b64encode(signature).decode("ascii")
        if self._whole:
            context.request.headers[REQUEST_HEADER] = self._signed(context.request, now)
        return call_next(context)

    def _signed(self, request: httpx.Request, now: float) -> str:
        stamp = Stamp(int(now * 1000), secrets.token_hex(NONCE_BYTES), body_sha256(request.read()))
        return header_value(stamp, sign_message(self._key, signed_text(request.method, request.url.path, stamp)))

    def correct(self, response: httpx.Response) -> bool:
        """Take over the coordinator's time if it is another; whether trying again makes sense."""
        try:
            theirs = email.utils.parsedate_to_datetime(response.headers["date"]).timestamp()
        except (KeyError, ValueError, TypeError):
            return False
        offset = theirs - time.time()
        if abs(offset - self._offset_s) < 2 or abs(offset) > MAX_CLOCK_CORRECTION_S:
            return False
        self._offset_s = offset - 1  # never ahead
        log.warning("this machine's clock is %.0f s off the coordinator's; set it (NTP): archipel-site check", -offset)
        return True


class _BoundedClient(FleetHttpClient):
    """Flower's client, reading no more of an answer than an answer can have, and on the way that `proxy_to` found.

    Flower's own connection reads the environment by itself, ends with what it finds there in its error, and lets a
    connection go after 5 s: each look for a message would be a TLS handshake. So it is not made at all. httpx offers no
    parameter for how its connections read.
    """

    def __init__(
        self,
        address: str,
        interceptors: Sequence[ProtobufClientInterceptor],
        trust: ssl.SSLContext,
        proxy: Proxy | None,
    ) -> None:
        self.protocol, self.release = 1, ""
        self._base_url = f"https://{address}"
        self._interceptors = tuple(interceptors)
        self._retry_invoker = None
        way = None
        if proxy is not None:
            host = f"[{proxy.host}]" if ":" in proxy.host else proxy.host
            way = httpx.Proxy(f"{proxy.scheme}://{host}:{proxy.port}", auth=proxy.account)
        self._client = httpx.Client(
            verify=trust,
            proxy=way,
            trust_env=False,
            timeout=REQUEST_TIMEOUT_S,
            follow_redirects=False,  # whoever answers elsewhere was not enrolled with
            limits=httpx.Limits(keepalive_expiry=KEPT_S),
        )
        for transport in (self._client._transport, *filter(None, self._client._mounts.values())):
            pool = transport._pool  # type: ignore[attr-defined]
            pool._network_backend = Bulk(pool._network_backend)

    def exchange(
        self,
        path: str,
        body: bytes | Sequence[bytes],
        timeout: httpx.Timeout,
        into: Callable[[bytes], object] | None = None,
    ) -> bytes:
        """Ask one of the paths that are Archipel's own; the answer's body, unless `into` takes its pieces.

        Raises:
            httpx.HTTPStatusError: it is not 200. httpx.TransportError: there is none.
        """
        pieces = [body] if isinstance(body, bytes) else body
        headers = {"content-type": MEDIA_TYPE, "accept": MEDIA_TYPE, "content-length": str(sum(map(len, pieces)))}
        url = self._base_url + path
        request = self._client.build_request("POST", url, content=pieces, headers=headers, timeout=timeout)
        response = self._send(ProtobufRequestContext(path, PullMessagesRequest(), request), into=into)
        response.raise_for_status()
        return response.content

    def _send(
        self,
        context: ProtobufRequestContext,
        *,
        stream: bool = False,
        into: Callable[[bytes], object] | None = None,
    ) -> httpx.Response:
        def send(current: ProtobufRequestContext) -> httpx.Response:
            deadline = time.monotonic() + RESPONSE_TIMEOUT_S
            response = self._client.send(current.request, stream=True)
            try:
                body, total = bytearray(), 0
                take = body.extend if into is None or response.status_code != httpx.codes.OK else into
                for chunk in response.iter_raw():
                    take(chunk)
                    total += len(chunk)
                    if total > MAX_RESPONSE_BYTES or time.monotonic() > deadline:
                        raise httpx.RemoteProtocolError("the answer does not end")
            finally:
                response.close()
            self._listen(response)
            headers = [
                (k, v) for k, v in response.headers.multi_items() if k not in ("content-encoding", "content-length")
            ]
            return httpx.Response(response.status_code, headers=headers, content=bytes(body), request=response.request)

        call: ProtobufCall = send
        for interceptor in reversed(self._interceptors):
            call = _around(interceptor.intercept, call)
        return call(context)

    def _listen(self, response: httpx.Response) -> None:
        """Note which protocol and release the coordinator says it has; what else answers says nothing of it."""
        if response.status_code == httpx.codes.OK:
            protocol, release = response.headers.get(PROTOCOL_HEADER, "1"), response.headers.get(RELEASE_HEADER, "")
            self.protocol = int(protocol) if _PROTOCOL.fullmatch(protocol) else 1
            self.release = release if _RELEASE_TOLD.fullmatch(release) else ""


def _around(
    intercept: Callable[[ProtobufRequestContext, ProtobufCall], httpx.Response], call_next: ProtobufCall
) -> ProtobufCall:
    return lambda context: intercept(context, call_next)


def _incoming(run_id: int, tree: ObjectTree, parts: Parts) -> Incoming:
    """The message that these parts make.

    Raises:
        WireError: they make none.
    """
    message = parts.message(tree.object_id)
    name_message(message, tree.object_id)
    if not message.has_content():
        raise WireError("message: expected content, found none")
    return Incoming(run_id, message.metadata.message_type, message.content, message)


def _explained(response: httpx.Response) -> ArchipelError:
    status = response.status_code
    error = FlowerError.from_json(response.text[:10_000])
    if error is not None and error.code == ACTIVATION_FAILED:
        return OccupiedError("another node is connected as this hospital, or one that stopped is not given up yet")
    if error is not None and error.code == RUN_ENDED:
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
    text = str(error) or type(error).__name__
    return "".join(c for c in text if c.isprintable())[:200]


# What `archipel-site check` asks: the same way out, step by step, as plain facts


@dataclass(frozen=True)
class Reach:
    """How far a connection to the coordinator came.

    `step` is where it stopped: resolve, refused, silent, proxy (its answer is in `code`), tls, certificate, client,
    health; or arrived. `issuer` is who signed the certificate that was shown, `clock_s` how far this machine's clock is
    ahead of the coordinator's, `release` which Archipel and Flower run there.
    """

    step: str
    where: str
    proxy: str = ""
    code: int = 0
    detail: str = ""
    issuer: str = ""
    clock_s: float | None = None
    release: tuple[str, str] | None = None


def reach(address: str, context: ssl.SSLContext, timeout_s: float = 5.0) -> Reach:
    """Connect as the node does, through the proxy that the environment names, and ask for the health path.

    Raises:
        RunError: the environment names a proxy that is none.
    """
    host, port = split_address(address)
    proxy = proxy_to(host, port)
    through = str(proxy) if proxy else ""
    first = (proxy.host, proxy.port) if proxy else (host, port)
    where = f"{first[0]}:{first[1]}"
    try:
        socket.getaddrinfo(*first, type=socket.SOCK_STREAM)
    except OSError:
        return Reach("resolve", first[0], through)
    try:
        with socket.create_connection(first, timeout=timeout_s) as plain:
            if proxy and (code := _tunnel(plain, f"{host}:{port}", proxy)) != 200:
                return Reach("proxy", where, through, code)
            return _greet(plain, (host, port), proxy, context, timeout_s)
    except TimeoutError:
        return Reach("silent", where, through)
    except ConnectionRefusedError:
        return Reach("refused", where, through)
    except OSError as error:
        return Reach("silent", where, through, detail=str(error.strerror or type(error).__name__))


def cut_after(address: str, context: ssl.SSLContext, timeout_s: float = 5.0) -> tuple[int, str] | None:
    """Ask for the health path again and again over one connection, as the node goes through the hospital's proxy.

    Returns:
        After how many bytes, both ways together, it was "cut" or fell "silent"; None where it did neither.

    Raises:
        RunError: the environment names a proxy that is none. OSError: there is no connection to begin with.
    """
    host, port = split_address(address)
    proxy, request, passed = proxy_to(host, port), heavy(host), 0
    with socket.create_connection((proxy.host, proxy.port) if proxy else (host, port), timeout=timeout_s) as plain:
        if proxy and _tunnel(plain, f"{host}:{port}", proxy) != 200:
            return None  # what keeps it from there is told elsewhere
        try:
            with context.wrap_socket(plain, server_hostname=host) as tls:
                for _ in range(REQUESTS):
                    tls.sendall(request)
                    answer = b""
                    while not is_whole(answer) and len(answer) < 8192 and (piece := tls.recv(4096)):
                        answer += piece
                    passed += len(request) + len(answer)
                    if not is_whole(answer):  # Python's TLS tells an end and a reset alike
                        return passed, "cut"
                    if not goes_on(answer):
                        return None
        except TimeoutError:
            return passed, "silent"
        except OSError:
            return passed, "cut"
    return None


def _tunnel(plain: socket.socket, target: str, proxy: Proxy) -> int:
    """Ask a proxy for a way through (RFC 9110, 9.3.6); its status code, 0 for none."""
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.account is not None:
        secret = b64encode(":".join(proxy.account).encode()).decode("ascii")
        lines.append(f"Proxy-Authorization: Basic {secret}")
    plain.sendall("\r\n".join([*lines, "", ""]).encode())
    head = b""
    while b"\r\n\r\n" not in head and len(head) < 8192:
        piece = plain.recv(1)  # not a byte of what follows
        if not piece:
            break
        head += piece
    parts = head.split(b"\r\n", 1)[0].split()
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0


def _greet(
    plain: socket.socket,
    coordinator: tuple[str, int],
    proxy: Proxy | None,
    context: ssl.SSLContext,
    timeout_s: float,
) -> Reach:
    host, where, through = coordinator[0], f"{coordinator[0]}:{coordinator[1]}", str(proxy) if proxy else ""
    trusted = False  # from then on it is the coordinator: whoever ends the connection does not accept our certificate
    try:
        with context.wrap_socket(plain, server_hostname=host) as tls:
            trusted = True
            tls.sendall(f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while len(answer) < 8192 and (piece := tls.recv(4096)):
                answer += piece
    except ssl.SSLCertVerificationError as error:
        shown = _issuer(coordinator, proxy, timeout_s)
        return Reach("certificate", where, through, error.verify_code, str(error.verify_message), shown)
    except ssl.SSLError as error:
        step = "client" if trusted or "ALERT" in str(error.reason or "") else "tls"
        return Reach(step, where, through, detail=str(error.reason or "no TLS"))
    except (ConnectionResetError, BrokenPipeError):
        return Reach("client" if trusted else "tls", where, through, detail="the connection was cut")
    if not answer:
        return Reach("client", where, through, detail="the connection was closed without an answer")
    head = answer.split(b"\r\n\r\n", 1)[0].decode("latin-1").splitlines()
    status = head[0].split() if head else []
    code = int(status[1]) if len(status) > 1 and status[1].isdigit() else 0
    dates = [line.partition(":")[2].strip() for line in head if line.lower().startswith("date:")]
    clock = None
    if dates:
        try:
            clock = time.time() - email.utils.parsedate_to_datetime(dates[0]).timestamp()
        except ValueError:
            clock = None
    if code == 403 and NOT_ADMITTED.encode() in answer:
        return Reach("client", where, through, code, NOT_ADMITTED, clock_s=clock)
    told = _RELEASE.search(answer)
    release = (told[1].decode("ascii"), told[2].decode("ascii")) if told else None
    return Reach("arrived" if code == 200 else "health", where, through, code, clock_s=clock, release=release)


def _issuer(coordinator: tuple[str, int], proxy: Proxy | None, timeout_s: float) -> str:
    """Who signed the certificate that is shown; nothing is sent to whoever shows it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    first = (proxy.host, proxy.port) if proxy else coordinator
    try:
        with socket.create_connection(first, timeout=timeout_s) as plain:
            if proxy:
                _tunnel(plain, f"{coordinator[0]}:{coordinator[1]}", proxy)
            with context.wrap_socket(plain, server_hostname=coordinator[0]) as tls:
                shown = tls.getpeercert(binary_form=True)
    except OSError:
        return ""
    if not shown:
        return ""
    try:
        name = x509.load_der_x509_certificate(shown).issuer.rfc4514_string()
    except ValueError:
        return ""
    return "".join(c for c in name if c.isprintable())[:120]
