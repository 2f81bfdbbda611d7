"""Request bodies of bounded size, read whole or as they arrive."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

Receive = Callable[[], Awaitable[Any]]


class GoneError(Exception):
    """The client hung up."""


class LargeBodyError(Exception):
    """A body is larger than allowed."""


async def pieces(receive: Receive, largest: int) -> AsyncIterator[bytes]:
    """Return a body of at most so many bytes as it comes.

    Raises:
        GoneError: the client hung up before the body's end.
        LargeBodyError: it is larger; the rest is not read.
    """
    total, more = 0, True
    while more:
        event = await receive()
        if event["type"] != "http.request":
            raise GoneError
        piece, more = event.get("body", b""), event.get("more_body", False)
        total += len(piece)
        if total > largest:
            raise LargeBodyError
        yield piece


async def whole(receive: Receive, largest: int) -> bytes:
    """Return a body of at most so many bytes.

    Raises:
        GoneError, LargeBodyError: as for `pieces`.
    """
    body = bytearray()
    async for piece in pieces(receive, largest):
        body += piece
    return bytes(body)
