"""The gateway's own answers as ASGI events, and its answers about large messages."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from configs.errors import WireError
from configs.pieces import FETCH_PATH
from server.gateway.authorise import NO_CERTIFICATE, Peer
from server.gateway.paths import Scope
from server.membership import Admitted
from server.refusals import Refusal
from server.shelf import Storing
from server.shelf import serve as serve_shelf

SENT_BYTES = 1 << 18  # of an answer at a time
LINGER_S = 5.0

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


async def plain(send: Send, status: int, text: bytes, *extra: tuple[bytes, bytes], more: bool = False) -> None:
    """Answer a text.

    Args:
        extra: further headers.
        more: whether the answer stays open; an event that ends it is sent by the caller.
    """
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode()), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for start in range(0, len(text) - SENT_BYTES, SENT_BYTES):  # else all of it is encrypted before any of it is sent
        await send({"type": "http.response.body", "body": text[start : start + SENT_BYTES], "more_body": True})
    last = text[(len(text) - 1) // SENT_BYTES * SENT_BYTES :] if text else b""
    await send({"type": "http.response.body", "body": last, "more_body": more})


async def refuse(refusal: Refusal, receive: Receive, send: Send, limit: int) -> None:
    """Answer a refusal and close the connection.

    Before it is closed, a body on its way may run out, within bounds: else the client sees a reset connection in place
    of the reason.
    """
    extra = [(b"connection", b"close")]
    if refusal.status in (425, 429, 503):
        extra.append((b"retry-after", b"1"))
    await plain(send, refusal.status, refusal.why.encode(), *extra, more=True)
    remaining_bytes, more = limit, True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while more and remaining_bytes > 0:
                event = await receive()
                more = event.get("more_body", False)
                remaining_bytes -= len(event.get("body", b""))
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def live(receive: Receive, send: Send, close: Callable[[], Awaitable[None]] | None) -> None:
    """Follow ASGI's lifespan: nothing to open, one thing to close."""
    while True:
        event = await receive()
        if event["type"] == "lifespan.shutdown":
            if close is not None:
                await close()
            return await send({"type": "lifespan.shutdown.complete"})
        await send({"type": "lifespan.startup.complete"})


async def shelf_answer(
    folder: Path | None, path: bytes, admitted: Admitted, peer: Peer | None, body: AsyncIterator[bytes]
) -> bytes:
    """Return the answer to a request about a large message; what the hospital sends is written as it comes.

    Raises:
        Refusal: 403, no certificate, the only proof of identity here. 410, 400: no such message was offered.
    """
    if peer is None or folder is None:
        raise Refusal(403, NO_CERTIFICATE, admitted.site)
    try:
        if path == FETCH_PATH.encode():
            request = b"".join([piece async for piece in body])
            answer = await asyncio.to_thread(serve_shelf, folder, admitted.site, "fetch", request)
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
