"""The only door that hospitals reach: TLS 1.3, a hospital's own certificate, ten paths, and the SuperLink behind it.

Flower's SuperLink serves three APIs on one port and guards one of them, by a signature over a time of day. So it
listens on a Unix socket that nobody else can open, and whatever a hospital sends comes through here. A request is
forwarded when the certificate of its connection, the node key that it names and a hospital that is admitted now are one
and the same; then it is written anew, with the few headers that Flower needs. Nothing else is: every other path is 404,
however it is spelt.

It reads no message and keeps none: bodies pass in pieces, both ways, and only refusals are logged. What a message may
say, and whether it is what its hospital signed, is decided in configs/wire.py and configs/seal.py.

    python -m server.gateway FOLDER               # the door; FOLDER holds coordinator.yaml
    python -m server.gateway FOLDER --auth-only   # nginx is the door (server/nginx.py): answers its questions

Both end when their standard input is closed, so that they cannot outlive their owner.

>>> PATHS[b"/v1/fleet/pull-messages"], b"/v1/control/start-run" in PATHS
('http://superlink/v1/fleet/pull-messages', False)
"""

import asyncio
import contextlib
import functools
import importlib.util
import logging
import os
import re
import resource
import sqlite3
import ssl
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import h11
import httpx
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID
from uvicorn.protocols.http.h11_impl import H11Protocol

from configs.deployment import CoordinatorConfig, load_coordinator, split_address
from configs.errors import ArchipelError, WireError
from configs.parts import end_with_owner
from configs.pieces import FETCH_PATH, HOLD_PATH, REPLY_PATH, STORE_PATH, WINDOW
from configs.wire import PROTOCOL_HEADER, RELEASE_HEADER
from server.bodies import GoneError, LargeBodyError, pieces
from server.files import private_folder
from server.logs import write_lines
from server.membership import Admitted, Membership
from server.refusals import Refusal
from server.shelf import FOLDER, Storing
from server.shelf import serve as serve_shelf
from server.signatures import HEADER as REQUEST_HEADER
from server.signatures import SignedRequests

if TYPE_CHECKING:
    from asyncio import SelectorEventLoop as _BaseLoop
else:
    try:
        from uvloop import Loop as _BaseLoop  # half the time a request; Flower brings it where it exists
    except ImportError:
        from asyncio import SelectorEventLoop as _BaseLoop

log = logging.getLogger("archipel.gateway")

FLEET_CALLS = (
    "activate-node",
    "deactivate-node",
    "send-node-heartbeat",
    "pull-messages",
    "push-messages",
    "get-run",
    "get-fab",
    "push-object",
    "pull-object",
    "confirm-message-received",
)
HEALTH = b"/health"
HEALTHY = f"ok, archipel {metadata.version('archipel')} with flwr {metadata.version('flwr')}".encode()
PATHS = {
    path.encode(): f"http://superlink{path}"
    for path in (*(f"/v1/fleet/{call}" for call in FLEET_CALLS), HOLD_PATH, REPLY_PATH)
}
SHELF_PATHS = (FETCH_PATH.encode(), STORE_PATH.encode())  # answered here, from files
LARGEST_WINDOW = WINDOW + 10_000
MAX_WINDOWS_EACH = 2
SENT_BYTES = 1 << 18  # of an answer at a time
KEY_HEADER = b"flwr-public-key"  # flwr.supercore.constant.FLEET_HTTP_PUBLIC_KEY_HEADER; a test compares
SIGNATURE_HEADERS = (b"flwr-signature", b"flwr-timestamp", REQUEST_HEADER)
FORWARDED = (b"content-type", b"accept", KEY_HEADER, *SIGNATURE_HEADERS)
RETURNED = (b"content-type", b"content-length", PROTOCOL_HEADER.encode(), RELEASE_HEADER.encode())
PROTOBUF = b"application/protobuf"
AUTH_SOCKET, SUPERLINK_SOCKET = "auth.sock", "superlink.sock"
VERIFIED_HEADER, CERTIFICATE_HEADER = b"x-client-verify", b"x-client-certificate"  # nginx tells, hospitals cannot
PATH_HEADER = b"x-requested-path"  # likewise

BURST_S = 3.0  # a hospital may spend the requests of so many seconds at once
MAX_BUCKETS = 10_000  # of hospitals and of addresses that name one without its signature
MAX_IN_FLIGHT = 32  # of one hospital; Flower's node pushes and pulls at most eight objects at a time
MAX_CONNECTIONS, MAX_CONNECTIONS_EACH, BACKLOG = 1000, 64, 512
HANDSHAKE_TIMEOUT_S, HEAD_TIMEOUT_S, KEEP_ALIVE_S, LINGER_S = 10.0, 10.0, 75, 5.0
MAX_HEAD_BYTES = 16 * 1024
MAX_HEADER_VALUE = 1024
_VALUE = re.compile(rb"[!-~]+")  # no space: a folded header has one
_ODD_LINES = re.compile(rb"\n[ \t]|(?<!\r)\n")  # a header folded over two lines (RFC 9112, 5.2), or a bare line feed
_END_OF_HEAD = re.compile(rb"\n\r?\n")

Lookup = Callable[[bytes], Admitted | None]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Peer:
    """A connection's certificate: its public key as Flower writes it, and the same as Flower's header carries it."""

    name: str
    public_key: bytes
    header: bytes
    expires: float

    @classmethod
    def of(cls, certificate: x509.Certificate) -> "Peer":
        """The peer that holds this certificate."""
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        public_key = certificate.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        name = str(names[0].value) if names else ""
        return cls(name, public_key, b64encode(public_key), certificate.not_valid_after_utc.timestamp())


def authorise(peer: Peer | None, key: bytes | None, lookup: Lookup) -> Admitted:
    """The hospital whose certificate, node key and admission agree.

    Args:
        peer: the connection's verified certificate, None where it has none.
        key: the value of Flower's public key header.

    Raises:
        Refusal: 403, they do not agree.
    """
    who = peer.name if peer else ""
    if key is None:
        raise Refusal(403, "expected Flower's public key header, found none", who)
    if peer is not None and key != peer.header:
        raise Refusal(403, "expected the node key that the certificate was made for, found another", who)
    if peer is not None and peer.expires < time.time():
        raise Refusal(403, "the certificate has expired; ask the consortium for another", who)
    admitted = lookup(peer.public_key if peer else _decoded(key))
    if admitted is None:
        raise Refusal(403, "this key is not admitted, or no longer; ask the consortium", who)
    if peer is None and admitted.certificate_required:
        raise Refusal(403, "expected this hospital's certificate, found none", admitted.site)
    return admitted


def health(peer: Peer | None, lookup: Lookup) -> bytes:
    """What the health path says: to hospitals which release runs, to monitoring without a certificate that it is there.

    Raises:
        Refusal: 403, the certificate is of a hospital that is not admitted, or no longer.
    """
    if peer is None:
        return b"ok"
    authorise(peer, peer.header, lookup)
    return HEALTHY


def make_gateway(
    superlink: Path,
    lookup: Lookup,
    *,
    max_request_bytes: int,
    requests_per_second: float,
    request_timeout_s: float = 60.0,
    shelf: Path | None = None,
    signed: SignedRequests | None = None,
) -> "_Gateway":
    """The door as an ASGI application; it has to run behind `make_server`, which says whose connection it is.

    Args:
        superlink: the SuperLink's socket.
        lookup: who is admitted with a public key (PEM); asked for every request, so that a revocation holds at once.
        max_request_bytes: of one body.
        requests_per_second: of one hospital, on average; `BURST_S` seconds' worth may come at once.
        request_timeout_s: for a body to arrive, for the SuperLink to answer, and for the answer to be taken.
        shelf: the folder of large messages (server/shelf.py).
        signed: what requests without a certificate are held against; None begins anew.
    """
    rates, signed = _Rates(requests_per_second), signed or SignedRequests()
    return _Gateway(superlink, lookup, max_request_bytes, rates, request_timeout_s, signed, shelf)


def make_auth(lookup: Lookup, shelf: Path | None = None, signed: SignedRequests | None = None) -> Application:
    """What nginx asks before it forwards (auth_request), as an ASGI application: 204 or 403; and the health path.

    Args:
        shelf: the folder of large messages, whose paths nginx forwards here.
        signed: what requests without a certificate are held against; None begins anew.
    """
    return _Auth(lookup, signed or SignedRequests(), shelf)


async def shelf_answer(
    folder: Path | None, path: bytes, admitted: Admitted, peer: Peer | None, body: AsyncIterator[bytes]
) -> bytes:
    """What a hospital gets for a request about a large message; what it sends is written as it comes.

    Raises:
        Refusal: 403, it has no certificate: nothing else says here who it is. 410, 400: it was offered no such thing.
    """
    if peer is None or folder is None:
        raise Refusal(403, "expected this hospital's certificate, found none", admitted.site)
    try:
        if path == FETCH_PATH.encode():
            whole = b"".join([piece async for piece in body])
            answer = await asyncio.to_thread(serve_shelf, folder, admitted.site, "fetch", whole)
        else:
            storing = Storing(folder, admitted.site)
            async for piece in body:
                if storing.take(piece):
                    await asyncio.to_thread(storing.write)
            answer = await asyncio.to_thread(storing.end)
    except WireError:
        raise Refusal(400, "expected a window of a message, found something else", admitted.site) from None
    if answer is None:
        raise Refusal(410, "expected a message that is under way, found none; the round may be over", admitted.site)
    return answer


class _Gateway:
    def __init__(
        self,
        superlink: Path,
        lookup: Lookup,
        limit: int,
        rates: "_Rates",
        timeout_s: float,
        signed: SignedRequests,
        shelf: Path | None = None,
    ) -> None:
        self._shelf, self._signed = shelf, signed
        self._windows: dict[str, int] = {}  # hospital -> windows of large messages that pass now
        # Kept for less time than uvicorn's five seconds at the other end: no request meets a closing connection.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=2.0)
        self._upstream = httpx.AsyncHTTPTransport(uds=str(superlink), limits=limits)
        self._urls = {path: httpx.URL(url) for path, url in PATHS.items()}
        self._lookup, self._limit, self._rates, self._timeout_s = lookup, limit, rates, timeout_s
        self._refusals = _Refusals()
        self._held: dict[_Exchange, Callable[[], Admitted]] = {}

    def recheck(self) -> None:
        """Answer requests that are held for a hospital that is not admitted any more; to be called every second."""
        for exchange, authorised in list(self._held.items()):
            try:
                authorised()
            except Refusal as refusal:
                exchange.end(refusal)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send, self._upstream.aclose)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        else:
            try:
                await self._answer(scope, receive, send)
            except Refusal as refusal:
                self._refusals.note(refusal, scope)
                await _refuse(refusal, receive, send, self._limit)
            except GoneError:
                pass

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, peer = _expected(scope), scope.get("state", {}).get("peer")
        if scope["raw_path"] == HEALTH:
            return await _plain(send, 200, health(peer, self._lookup))
        admitted = authorise(peer, headers.get(KEY_HEADER), self._lookup)
        if int(headers.get(b"content-length", 0)) > self._limit:
            raise Refusal(413, f"expected at most {self._limit} bytes, found more announced", admitted.site)
        exchange = _Exchange(receive, send, self._limit, self._timeout_s)
        with self._rates.admit(self._charged(admitted, peer, headers, scope)):
            if scope["raw_path"] in SHELF_PATHS:
                exchange = _Exchange(receive, send, min(self._limit, LARGEST_WINDOW), self._timeout_s)
                return await self._serve_shelf(scope["raw_path"], admitted, peer, exchange, send)
            if scope["raw_path"] == HOLD_PATH.encode():
                self._held[exchange] = lambda: authorise(peer, headers.get(KEY_HEADER), self._lookup)
            try:
                await self._forward(scope["raw_path"], headers, exchange)
            finally:
                self._held.pop(exchange, None)

    def _charged(self, admitted: Admitted, peer: Peer | None, headers: dict[bytes, bytes], scope: Scope) -> str:
        """Return whose account a request is charged to: the hospital's once its certificate or its signature holds.

        Raises:
            Refusal: its node signs its requests whole, and did not sign this one; or it was served before.
        """
        if peer is not None or _accept(self._signed, admitted, headers, scope["raw_path"]):
            return admitted.site
        return f"whoever names {admitted.site} from {(scope.get('client') or ('',))[0]}"

    async def _serve_shelf(
        self, path: bytes, admitted: Admitted, peer: Peer | None, exchange: "_Exchange", send: Send
    ) -> None:
        held = self._windows.get(admitted.site, 0)
        if held >= MAX_WINDOWS_EACH:  # each is held in memory
            raise Refusal(429, "expected fewer windows of messages at a time, found more; try again later")
        self._windows[admitted.site] = held + 1
        try:
            async with exchange.bounded():
                answer = await shelf_answer(self._shelf, path, admitted, peer, exchange.body())
            await _plain(send, 200, answer)
        finally:
            self._windows[admitted.site] -= 1

    async def _forward(self, path: bytes, headers: dict[bytes, bytes], exchange: "_Exchange") -> None:
        request = httpx.Request("POST", self._urls[path], headers=list(headers.items()), content=exchange.body())
        async with exchange.bounded():
            response = await self._ask(request)
            try:
                await exchange.reply(response)
            finally:
                await response.aclose()

    async def _ask(self, request: httpx.Request) -> httpx.Response:
        try:
            response = await self._upstream.handle_async_request(request)
        except (httpx.ConnectError, httpx.TimeoutException):
            raise Refusal(503, "the SuperLink is away; try again later") from None
        except httpx.TransportError:
            raise Refusal(502, "the SuperLink's answer broke off; try again later") from None
        if not 200 <= response.status_code < 600:
            await response.aclose()
            raise Refusal(502, "the SuperLink's answer is none of its own; try again later")
        return response


class _Exchange:
    """One request on its way: its body in, the answer out. Neither is ever held whole, and each has its time."""

    def __init__(self, receive: Receive, send: Send, limit: int, timeout_s: float) -> None:
        self._receive, self._send, self._limit, self._timeout_s = receive, send, limit, timeout_s
        self._loop = asyncio.get_running_loop()
        self._watch: asyncio.Task[None] | None = None
        self._late = Refusal(408, "expected the whole request in time, found less; try again")
        self._gone = self._started = False

    @contextlib.asynccontextmanager
    async def bounded(self) -> AsyncIterator[None]:
        """The time that it may take.

        Raises:
            Refusal: it took too long before an answer began.
            GoneError: nobody is left to answer, or to go on answering.
        """
        try:
            async with asyncio.timeout(self._timeout_s) as self._deadline:
                try:
                    yield
                finally:
                    self._unwatch()
        except TimeoutError:
            if self._gone or self._started:
                raise GoneError from None
            raise self._late from None

    async def body(self) -> AsyncIterator[bytes]:
        """The body's pieces, as they are asked for.

        Raises:
            Refusal: 413, it is larger than allowed; the rest is not forwarded.
        """
        total, more = 0, True
        while more:
            event = await self._receive()
            if event["type"] != "http.request":
                raise GoneError
            piece, more = event.get("body", b""), event.get("more_body", False)
            total += len(piece)
            if total > self._limit:
                raise Refusal(413, f"expected at most {self._limit} bytes, found more")
            if piece:
                yield piece
        self._arrived()

    async def reply(self, response: httpx.Response) -> None:
        """Pass the answer on. One that breaks off is left incomplete: the server then closes the connection."""
        headers = [(name.lower(), value) for name, value in response.headers.raw if name.lower() in RETURNED]
        if self._watch is None:  # answered before all was read: what is left must not look like another request
            headers.append((b"connection", b"close"))
        self._started = True
        self._again()
        await self._send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        assert isinstance(response.stream, httpx.AsyncByteStream)
        try:
            async for piece in response.stream:
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
                self._again()
        except httpx.TransportError:
            log.warning("the SuperLink's answer broke off")
            return
        self._unwatch()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def end(self, refusal: Refusal) -> None:
        """Answer so, unless an answer has begun."""
        self._late = refusal
        if not self._started and not self._deadline.expired():
            self._deadline.reschedule(self._loop.time())

    def _arrived(self) -> None:
        self._late = Refusal(503, "the SuperLink does not answer in time; try again later")
        self._again()
        self._watch = self._loop.create_task(self._until_gone())

    def _again(self) -> None:
        if not self._deadline.expired():
            self._deadline.reschedule(self._loop.time() + self._timeout_s)

    async def _until_gone(self) -> None:
        """Whoever hangs up is not waited for: the request to the SuperLink is given up with them."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        if not self._deadline.expired():
            self._deadline.reschedule(self._loop.time())

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()


class _Auth:
    def __init__(self, lookup: Lookup, signed: SignedRequests, shelf: Path | None = None) -> None:
        self._lookup, self._refusals, self._signed, self._shelf = lookup, _Refusals(), signed, shelf
        self._told = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await _live(receive, send, None)
        try:
            said = self._judge(scope["path"].encode(), dict(scope["headers"]))
            if isinstance(said, tuple):
                body = pieces(receive, LARGEST_WINDOW)
                answer = await shelf_answer(self._shelf, scope["path"].encode(), *said, body)
                return await _plain(send, 200, answer)
        except GoneError:
            return None
        except LargeBodyError:
            return await _plain(send, 413, f"expected at most {LARGEST_WINDOW} bytes, found more".encode())
        except Refusal as refusal:
            self._refusals.note(refusal, scope)
            return await _plain(send, refusal.status, refusal.why.encode())
        if said:
            return await _plain(send, 200, said)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _judge(self, path: bytes, headers: dict[bytes, bytes]) -> bytes | tuple[Admitted, Peer | None]:
        """What the health path says, who asks about a large message; nothing where nginx forwards the request."""
        verified, certificate = headers.get(VERIFIED_HEADER, b""), headers.get(CERTIFICATE_HEADER, b"")
        if verified not in (b"SUCCESS", b"NONE") or (verified == b"SUCCESS") != bool(certificate):
            raise Refusal(403, "expected nginx to have checked the certificate, it has not")
        peer = _escaped_peer(certificate) if certificate else None
        if path == HEALTH:
            return health(peer, self._lookup)
        admitted = authorise(peer, headers.get(KEY_HEADER) or None, self._lookup)
        if peer is None and path not in SHELF_PATHS:
            self._accept(admitted, {name: value for name, value in headers.items() if value})
        return (admitted, peer) if path in SHELF_PATHS else b""

    def _accept(self, admitted: Admitted, headers: dict[bytes, bytes]) -> None:
        """Hold a request that nginx lets through without a certificate against its signature."""
        path = headers.get(PATH_HEADER)
        if path is not None:
            _accept(self._signed, admitted, headers, path)
        elif not self._told:  # it tells no path: what its hospitals sign cannot be compared
            self._told = True
            log.warning(
                "nginx.conf is of an older release: copies of requests without a certificate are not noticed; write "
                "it anew: archipel-coordinator start --print-nginx"
            )


def _accept(signed: SignedRequests, admitted: Admitted, headers: Mapping[bytes, bytes], path: bytes) -> bool:
    return signed.accept(admitted, headers, headers[KEY_HEADER], "POST", path.decode("ascii"))


class _Rates:
    """A token bucket (requests) and a number in flight for every hospital."""

    def __init__(self, per_second: float) -> None:
        self._per_second, self._burst = per_second, max(per_second * BURST_S, 1.0)
        self._buckets: dict[str, tuple[float, float]] = {}  # hospital -> requests left, at which time
        self._in_flight: dict[str, int] = {}

    @contextlib.contextmanager
    def admit(self, site: str) -> Iterator[None]:
        """One request.

        Raises:
            Refusal: 429, it is too much at once.
        """
        flying = self._in_flight.get(site, 0)
        if flying >= MAX_IN_FLIGHT or not self._take(site):
            raise Refusal(429, "expected fewer requests at a time, found more; try again later", site)
        self._in_flight[site] = flying + 1
        try:
            yield
        except Refusal as refusal:
            refusal.who = site
            raise
        finally:
            self._in_flight[site] -= 1

    def _take(self, site: str) -> bool:
        now = time.monotonic()
        if len(self._buckets) > MAX_BUCKETS:  # whoever waited for so long has a full one again
            self._buckets = {who: bucket for who, bucket in self._buckets.items() if now - bucket[1] < BURST_S}
        left, then = self._buckets.get(site, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._per_second)
        self._buckets[site] = (left - 1 if left >= 1 else left, now)
        return left >= 1


class _Refusals:
    """The log of what was refused: one line for each kind and hospital in ten seconds, however many there are."""

    def __init__(self, every_s: float = 10.0, most: int = 1000) -> None:
        self._every_s, self._most = every_s, most
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def note(self, refusal: Refusal, scope: Scope) -> None:
        client = scope.get("client")
        who = _printable(refusal.who) or (str(client[0]) if client else "a stranger")
        key, now = (who, refusal.why), time.monotonic()
        since, untold = self._seen.get(key, (-self._every_s, 0))
        if now - since < self._every_s:
            self._seen[key] = (since, untold + 1)
            return
        if len(self._seen) >= self._most:
            self._seen.clear()
        self._seen[key] = (now, 0)
        log.warning("%s: refused (%d): %s%s", who, refusal.status, refusal.why, f" (+{untold})" if untold else "")


def _expected(scope: Scope) -> dict[bytes, bytes]:
    """The headers that are forwarded, of a request for something that exists.

    Raises:
        Refusal: 404 and 400: it is for something else, or its headers can be read in two ways.
    """
    path, method = scope["raw_path"], scope["method"]
    if scope["query_string"] or not (
        (method == "POST" and (path in PATHS or path in SHELF_PATHS)) or (method == "GET" and path == HEALTH)
    ):
        raise Refusal(404, "there is nothing here", _name(scope))
    wanted = (*FORWARDED, b"content-length")
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name == b"upgrade" or name in headers:
            raise Refusal(400, "expected each header once and no upgrade", _name(scope))
        if name in wanted:
            if len(value) > MAX_HEADER_VALUE or not _VALUE.fullmatch(value):
                raise Refusal(400, "expected short headers without spaces", _name(scope))
            headers[name] = value
    if method == "POST" and headers.get(b"content-type") != PROTOBUF:
        raise Refusal(415, "expected application/protobuf, found something else", _name(scope))
    return headers


def _name(scope: Scope) -> str:
    peer = scope.get("state", {}).get("peer")
    return peer.name if peer else ""


def _decoded(key: bytes) -> bytes:
    try:
        return b64decode(key, validate=True)
    except ValueError:
        raise Refusal(403, "expected Flower's public key header, found something else") from None


@functools.lru_cache(maxsize=256)
def _escaped_peer(escaped: bytes) -> Peer:
    try:
        return Peer.of(x509.load_pem_x509_certificate(unquote_to_bytes(escaped)))
    except ValueError:
        raise Refusal(403, "expected a certificate, found something else") from None


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:64]


async def _plain(send: Send, status: int, text: bytes, *extra: tuple[bytes, bytes], more: bool = False) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode()), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for start in range(0, len(text) - SENT_BYTES, SENT_BYTES):  # else all of it is encrypted before any of it is sent
        await send({"type": "http.response.body", "body": text[start : start + SENT_BYTES], "more_body": True})
    last = text[(len(text) - 1) // SENT_BYTES * SENT_BYTES :] if text else b""
    await send({"type": "http.response.body", "body": last, "more_body": more})


async def _refuse(refusal: Refusal, receive: Receive, send: Send, limit: int) -> None:
    """Answer and close. Before that a body on its way is let run out, within bounds: else the client sees a reset
    connection in place of the reason."""
    extra = [(b"connection", b"close")]
    if refusal.status in (425, 429, 503):
        extra.append((b"retry-after", b"1"))
    await _plain(send, refusal.status, refusal.why.encode(), *extra, more=True)
    left, more = limit, True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while more and left > 0:
                event = await receive()
                more = event.get("more_body", False)
                left -= len(event.get("body", b""))
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _live(receive: Receive, send: Send, close: Callable[[], Awaitable[None]] | None) -> None:
    """ASGI's lifespan: nothing to open, one thing to close."""
    while True:
        event = await receive()
        if event["type"] == "lifespan.shutdown":
            if close is not None:
                await close()
            return await send({"type": "lifespan.shutdown.complete"})
        await send({"type": "lifespan.startup.complete"})


class _Strict(h11.Connection):
    """h11, without what RFC 9112 lets a server forgive: nothing that two readers could read in two ways."""

    target = b""

    def next_event(self) -> Any:
        """The next event.

        Raises:
            h11.RemoteProtocolError: the request is not plain HTTP/1.1.
        """
        head = self.trailing_data[0] if self.their_state is h11.IDLE else b""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.target = event.target
            names = [name for name, _ in event.headers]
            both = b"content-length" in names and b"transfer-encoding" in names
            lines = _END_OF_HEAD.split(head, 1)[0]
            if len(lines) > MAX_HEAD_BYTES:  # h11 bounds those alone that come in several pieces
                raise h11.RemoteProtocolError("large head")
            if both or event.http_version != b"1.1" or _ODD_LINES.search(lines):
                raise h11.RemoteProtocolError("ambiguous request")
        return event


class Protocol(H11Protocol):
    """uvicorn's HTTP/1.1, knowing whose certificate a connection has, and impatient with heads that do not end."""

    peer: Peer | None = None
    _head_timer: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _Strict(h11.SERVER, MAX_HEAD_BYTES)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note who it is; refuse the hospital that has too many connections already."""
        super().connection_made(transport)
        try:
            self.peer = _peer(transport)
        except ValueError:
            return transport.abort()  # never: OpenSSL has read it. A certificate is not to pass for none
        if self.scheme == "https":
            self.counted = self.peer or (self.client or ("",))[0]  # without a certificate, everybody by their address
            counted = [getattr(connection, "counted", None) for connection in self.connections]
            if counted.count(self.counted) > MAX_CONNECTIONS_EACH:
                return transport.abort()
        self.app_state = {**self.app_state, "peer": self.peer}
        self._mind_head()

    def data_received(self, data: bytes) -> None:
        """Read; a peer that breaks the protocol in the midst of an answer gets no other."""
        try:
            super().data_received(data)
        except h11.LocalProtocolError:
            self.transport.abort()
        self._mind_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._unmind_head()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """As uvicorn's, with a date."""
        body = msg.encode("ascii")
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"text/plain"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _should_upgrade(self) -> bool:
        """Never. It is asked when a request's scope is made: there the target is put in as it came, `?` and all."""
        self.scope["raw_path"] = self.conn.target  # type: ignore[attr-defined]
        return False

    def _mind_head(self) -> None:
        """uvicorn waits for ever for the end of a request's headers."""
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._unmind_head()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.abort)

    def _unmind_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def _peer(transport: asyncio.BaseTransport) -> Peer | None:
    tls = transport.get_extra_info("ssl_object")
    certificate = tls.getpeercert(binary_form=True) if tls else None
    return Peer.of(x509.load_der_x509_certificate(certificate)) if certificate else None


class _Loop(_BaseLoop):
    """uvicorn offers no parameter for how long a handshake may take."""

    async def create_server(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("ssl") is not None:
            kwargs |= {"ssl_handshake_timeout": HANDSHAKE_TIMEOUT_S, "ssl_shutdown_timeout": LINGER_S}
        return await super().create_server(*args, **kwargs)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, every_second: Callable[[], None]) -> None:
        super().__init__(config)
        self._every_second = every_second

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            self._every_second()
        return await super().on_tick(counter)


def tls_context(pki: Path, *, certificate_required: bool = True) -> ssl.SSLContext:
    """TLS 1.3, the door's certificate, and clients of the consortium's authority alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # each connection proves anew that its certificate holds
    context.load_cert_chain(pki / "server.crt", pki / "server.key")
    context.load_verify_locations(cafile=pki / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED if certificate_required else ssl.CERT_OPTIONAL
    return context


def make_server(
    application: Application,
    listen: tuple[str, int] | Path,
    context: ssl.SSLContext | None = None,
    every_second: Callable[[], None] = lambda: None,
) -> uvicorn.Server:
    """A server for one of the applications, at a host and port, or on a Unix socket. `run()` it, or await `serve()`."""
    where: dict[str, Any] = {"uds": str(listen)} if isinstance(listen, Path) else {"host": listen[0], "port": listen[1]}
    config = uvicorn.Config(
        application,
        **where,
        http=Protocol,
        ws="none",
        lifespan="on",
        loop="server.gateway:_Loop",
        interface="asgi3",
        ssl_context_factory=(lambda *_: context) if context is not None else None,
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=3,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
    )
    return _Server(config, every_second)


def serve(config: CoordinatorConfig, *, auth_only: bool = False) -> None:
    """Serve the door, or nginx's questions alone; blocks.

    Raises:
        RunError: the members cannot be read.
        OSError: the keys or the socket cannot.
    """
    members = Membership.open(config.database)
    try:
        private_folder(config.sockets)
        signed = SignedRequests(note=lambda site: _note_signs(members, site))
        if auth_only:
            auth = make_auth(members.lookup, config.folder / FOLDER, signed)
            return make_server(auth, config.sockets / AUTH_SOCKET).run()
        context = tls_context(config.pki, certificate_required=not members.any_without_certificate())
        gateway = make_gateway(
            config.sockets / SUPERLINK_SOCKET,
            members.lookup,
            max_request_bytes=config.max_request_mb * 1_000_000,
            requests_per_second=config.requests_per_second,
            shelf=config.folder / FOLDER,
            signed=signed,
        )

        def every_second() -> None:
            _follow(members, context)
            gateway.recheck()

        make_server(gateway, split_address(config.listen), context, every_second).run()
    finally:
        members.close()


def _note_signs(members: Membership, site: str) -> None:
    """Keep that a hospital's node signs its requests; this process knows it by itself."""
    try:
        members.set_signs(site)
    except sqlite3.Error as error:
        log.error("that %s signs its requests cannot be written down: %s", site, error)


def _follow(members: Membership, context: ssl.SSLContext) -> None:
    """New connections without a certificate are let in only while some hospital is admitted so."""
    try:
        optional = members.any_without_certificate()
    except sqlite3.Error as error:
        return log.error("the members cannot be read: %s", error)
    wanted = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
    if context.verify_mode != wanted:
        context.verify_mode = wanted


def main(arguments: list[str]) -> int:
    """Serve until standard input is closed."""
    os.umask(0o077)
    write_lines()
    _raise_file_limit()
    _settle_imports()
    auth_only = "--auth-only" in arguments
    folders = [argument for argument in arguments if argument != "--auth-only"]
    if len(folders) != 1:
        print("usage: python -m server.gateway FOLDER [--auth-only]", file=sys.stderr)
        return 2
    try:
        config = load_coordinator(Path(folders[0]))
        end_with_owner()
        serve(config, auth_only=auth_only)
    except (ArchipelError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _raise_file_limit() -> None:
    """Each connection takes a descriptor, and one more to the SuperLink."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * MAX_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _settle_imports() -> None:
    """httpcore looks for this package four times a request, and searching the disk in vain is half of its time."""
    if importlib.util.find_spec("sniffio") is None:
        sys.modules["sniffio"] = None  # type: ignore[assignment]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
