"""Forwarding of requests to the SuperLink and of its answers back.

Neither is ever held whole in memory.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx

from configs.pieces import HOLD_PATH
from server.bodies import GoneError
from server.gateway.answers import Receive, Send, live, plain, refuse, shelf_answer
from server.gateway.authorise import Lookup, Peer, accept_signature, authorise, health
from server.gateway.limits import Rates, Refusals
from server.gateway.paths import (
    HEALTH,
    KEY_HEADER,
    LARGEST_WINDOW,
    PATHS,
    RETURNED,
    SHELF_PATHS,
    Scope,
    forwarded_headers,
)
from server.membership import Admitted
from server.refusals import Refusal
from server.signatures import SignedRequests

MAX_WINDOWS_EACH = 2  # of large messages that pass at a time, of one hospital

log = logging.getLogger("archipel.gateway")


def make_gateway(
    superlink: Path,
    lookup: Lookup,
    *,
    max_request_bytes: int,
    requests_per_second: float,
    request_timeout_s: float = 60.0,
    shelf: Path | None = None,
    signed: SignedRequests | None = None,
) -> "Gateway":
    """Return the door as an ASGI application; it runs behind `make_server`, which names the connection's hospital.

    Args:
        superlink: the SuperLink's socket.
        lookup: the admission of a public key (PEM); called for every request, so that a revocation holds at once.
        max_request_bytes: of one body.
        requests_per_second: of one hospital, on average; `BURST_S` seconds' worth may come at once.
        request_timeout_s: for a body to arrive, for the SuperLink to answer, and for the answer to be taken.
        shelf: the folder of large messages (server/shelf.py).
        signed: what requests without a certificate are compared with; None begins anew.
    """
    rates, signed = Rates(requests_per_second), signed or SignedRequests()
    return Gateway(superlink, lookup, max_request_bytes, rates, request_timeout_s, signed, shelf)


class Gateway:
    """The door as an ASGI application."""

    def __init__(
        self,
        superlink: Path,
        lookup: Lookup,
        limit: int,
        rates: Rates,
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
        self._refusals = Refusals()
        self._held: dict[_Exchange, Callable[[], Admitted]] = {}

    def recheck(self) -> None:
        """Refuse held requests of hospitals that are no longer admitted; to be called every second."""
        for exchange, authorised in list(self._held.items()):
            try:
                authorised()
            except Refusal as refusal:
                exchange.end(refusal)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await live(receive, send, self._upstream.aclose)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        else:
            try:
                await self._answer(scope, receive, send)
            except Refusal as refusal:
                self._refusals.note(refusal, scope)
                await refuse(refusal, receive, send, self._limit)
            except GoneError:
                pass

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, peer = forwarded_headers(scope), scope.get("state", {}).get("peer")
        if scope["raw_path"] == HEALTH:
            return await plain(send, 200, health(peer, self._lookup))
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
        """Return the bucket that a request is charged to: the hospital's once its certificate or its signature holds.

        Raises:
            Refusal: its node signs its requests whole, and did not sign this one; or it was served before.
        """
        if peer is not None or accept_signature(self._signed, admitted, headers, scope["raw_path"]):
            return admitted.site
        return f"whoever names {admitted.site} from {(scope.get('client') or ('',))[0]}"

    async def _serve_shelf(
        self, path: bytes, admitted: Admitted, peer: Peer | None, exchange: "_Exchange", send: Send
    ) -> None:
        windows = self._windows.get(admitted.site, 0)
        if windows >= MAX_WINDOWS_EACH:  # each is held in memory
            raise Refusal(429, "expected fewer windows of messages at a time, found more; try again later")
        self._windows[admitted.site] = windows + 1
        try:
            async with exchange.bounded():
                answer = await shelf_answer(self._shelf, path, admitted, peer, exchange.body())
            await plain(send, 200, answer)
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
    """One request on its way: its body in, the answer out, each within its time."""

    def __init__(self, receive: Receive, send: Send, limit: int, timeout_s: float) -> None:
        self._receive, self._send, self._limit, self._timeout_s = receive, send, limit, timeout_s
        self._loop = asyncio.get_running_loop()
        self._watch: asyncio.Task[None] | None = None
        self._late = Refusal(408, "expected the whole request in time, found less; try again")
        self._gone = self._started = False

    @contextlib.asynccontextmanager
    async def bounded(self) -> AsyncIterator[None]:
        """Bound the time that the request may take.

        Raises:
            Refusal: it took too long before an answer began.
            GoneError: the client hung up, or an answer that had begun stopped.
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
        """Yield the body's pieces, as they are asked for.

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
        """Answer with a refusal, unless an answer has begun."""
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
        """Give the request to the SuperLink up when the client hangs up."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        if not self._deadline.expired():
            self._deadline.reschedule(self._loop.time())

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
