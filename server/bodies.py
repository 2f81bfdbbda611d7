"""A request's body, whole and of bounded size."""

from collections.abc import Awaitable, Callable
from typing import Any

Receive = Callable[[], Awaitable[Any]]


class GoneError(Exception):
    """Whoever asked hung up."""


class LargeBodyError(Exception):
    """A body is larger than allowed."""


async def whole(receive: Receive, largest: int) -> bytes:
    """Return a body of at most so many bytes.

    Raises:
        GoneError: whoever sent it hung up before its end.
        LargeBodyError: it is larger; the rest is not read.
    """
    body, more = bytearray(), True
    while more:
        event = await receive()
        if event["type"] != "http.request":
            raise GoneError
        body += event.get("body", b"")
        more = event.get("more_body", False)
        if len(body) > largest:
            raise LargeBodyError
    return bytes(body)
