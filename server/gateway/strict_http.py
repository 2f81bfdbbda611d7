"""Strict HTTP/1.1 at the door, with bounded connections.

uvicorn and h11 without what RFC 9112 lets a server forgive. uvicorn offers no parameter for a handshake's time, a
head's time or a connection's certificate; so this file builds on private parts of uvicorn's h11 protocol.
tests/server/test_gateway.py shows what they must do.
"""

import asyncio
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from cryptography import x509
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.gateway.answers import LINGER_S, Application
from server.gateway.authorise import Peer

if TYPE_CHECKING:
    from asyncio import SelectorEventLoop as _BaseLoop
else:
    try:
        from uvloop import Loop as _BaseLoop  # half the time a request; Flower brings it where it exists
    except ImportError:
        from asyncio import SelectorEventLoop as _BaseLoop

MAX_CONNECTIONS, MAX_CONNECTIONS_EACH, BACKLOG = 1000, 64, 512
HANDSHAKE_TIMEOUT_S, HEAD_TIMEOUT_S, KEEP_ALIVE_S = 10.0, 10.0, 75
MAX_HEAD_BYTES = 16 * 1024
_ODD_LINES = re.compile(rb"\n[ \t]|(?<!\r)\n")  # a header folded over two lines (RFC 9112, 5.2), or a bare line feed
_END_OF_HEAD = re.compile(rb"\n\r?\n")


class _Strict(h11.Connection):
    """h11, refusing every request that two readers could read in two ways."""

    target = b""

    def next_event(self) -> Any:
        """Return the next event.

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
    """uvicorn's HTTP/1.1 with the connection's certificate in its state, and a time within which a head must end."""

    peer: Peer | None = None
    _head_timer: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _Strict(h11.SERVER, MAX_HEAD_BYTES)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note the certificate; close a connection of a hospital that has too many already."""
        super().connection_made(transport)
        try:
            self.peer = _peer(transport)
        except ValueError:
            return transport.abort()  # never: OpenSSL has read it. A certificate must not pass for none
        if self.scheme == "https":
            self.counted = self.peer or (self.client or ("",))[0]  # without a certificate, by the address
            counted = [getattr(connection, "counted", None) for connection in self.connections]
            if counted.count(self.counted) > MAX_CONNECTIONS_EACH:
                return transport.abort()
        self.app_state = {**self.app_state, "peer": self.peer}
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Read; a peer that breaks the protocol in the midst of an answer gets no other."""
        try:
            super().data_received(data)
        except h11.LocalProtocolError:
            self.transport.abort()
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the watch over the head."""
        self._unwatch_head()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer as uvicorn does, with a date."""
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
        """Return False. It is called when a scope is made: here the target is put in as it came, `?` and all."""
        self.scope["raw_path"] = self.conn.target  # type: ignore[attr-defined]
        return False

    def _watch_head(self) -> None:
        """Bound the time that uvicorn waits for the end of a request's headers."""
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._unwatch_head()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.abort)

    def _unwatch_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def _peer(transport: asyncio.BaseTransport) -> Peer | None:
    tls = transport.get_extra_info("ssl_object")
    certificate = tls.getpeercert(binary_form=True) if tls else None
    return Peer.of(x509.load_der_x509_certificate(certificate)) if certificate else None


class Loop(_BaseLoop):
    """An event loop that bounds the time of a TLS handshake; uvicorn offers no parameter for it."""

    async def create_server(self, *args: Any, **kwargs: Any) -> Any:
        """Create a server as asyncio does."""
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
    """Return a context of TLS 1.3 with the door's certificate, for clients of the consortium's authority alone."""
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
    """Return a server for an application, at a host and port or on a Unix socket. `run()` it, or await `serve()`."""
    place: dict[str, Any] = {"uds": str(listen)} if isinstance(listen, Path) else {"host": listen[0], "port": listen[1]}
    config = uvicorn.Config(
        application,
        **place,
        http=Protocol,
        ws="none",
        lifespan="on",
        loop=f"{__name__}:{Loop.__name__}",
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
