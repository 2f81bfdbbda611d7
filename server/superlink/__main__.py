"""The SuperLink's process, on a socket that only its owner can open.

The SuperLink's control and runtime APIs have no guard of their own, and a TCP port on loopback is open to every local
user. So the stock application is served on a Unix socket in a folder of mode 0700.
State is kept in memory, large parts of messages in files: what must outlive a crash (membership, checkpoints, journal)
is Archipel's own.

    python -m server.superlink SOCKET FOLDER    # ends when its standard input is closed, as its owner ends

What it takes of Flower's inside is imported in flower_inside.py, once the environment is set.
"""

import os
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from configs.memory import return_large_blocks
from configs.parts import end_with_owner
from configs.wire import PROTOCOL_HEADER, PROTOCOL_MAX, RELEASE_HEADER
from server.sockets import private_socket

if TYPE_CHECKING:
    from starlette.middleware import Middleware
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}


def main(arguments: list[str]) -> None:
    """Serve until standard input is closed."""
    os.environ.update(QUIET)
    os.umask(0o077)
    end_with_owner()
    return_large_blocks()
    serve(Path(arguments[0]), Path(arguments[1]))


def serve(socket: Path, parts: Path) -> None:
    """Serve the SuperLink's application; blocks.

    Args:
        parts: a folder for large parts of messages; what lies in it is deleted.
    """
    import logging

    import uvicorn

    from server.signatures import with_signed_bodies
    from server.superlink.exchange import Exchange
    from server.superlink.flower_inside import superlink_app
    from server.superlink.store import SpooledStore

    exchanges: list[Exchange] = []

    def noted() -> None:
        for exchange in exchanges:
            exchange.noted()

    store = SpooledStore(parts, noted=noted)
    logging.getLogger("flwr").setLevel(logging.WARNING)  # else a line for each request
    app = superlink_app(lambda: store)
    app.user_middleware = [sparing(middleware) for middleware in app.user_middleware]
    exchanges.append(Exchange(app))
    with private_socket(socket) as listener:
        uvicorn.Server(
            uvicorn.Config(telling(with_signed_bodies(exchanges[0])), log_level="warning", access_log=False)
        ).run(sockets=[listener])


def telling(app: "ASGIApp") -> "ASGIApp":
    """Return the application. Its answers to hospitals also say which protocol and release the coordinator has."""
    headers = [(PROTOCOL_HEADER.encode(), str(PROTOCOL_MAX).encode())]
    headers.append((RELEASE_HEADER.encode(), metadata.version("archipel").encode()))

    async def serve(scope: "Scope", receive: "Receive", send: "Send") -> None:
        async def told(event: "Message") -> None:
            if event["type"] == "http.response.start":
                event = {**event, "headers": [*event.get("headers", ()), *headers]}
            await send(event)

        await app(scope, receive, told if scope["type"] == "http" else send)

    return serve


CONCERNS = {  # which paths a middleware of Flower's is about; for all others it only hands on, at half a millisecond
    "ControlSensitiveResponseMiddleware": "/v1/control/",
    "ControlAuthenticationMiddleware": "/v1/control/",
    "ControlLicenseMiddleware": "/v1/control/",
    "ControlEventLogMiddleware": "/v1/control/",
    "RuntimeTracingMiddleware": "/v1/runtime/acquire-task",  # tracing is off; what it may answer to is this
    "NodeAuthMiddleware": "/v1/fleet/",
    "FleetEventLogMiddleware": None,  # off: there is no plugin
}


def sparing(middleware: "Middleware") -> "Middleware":
    """Return the same middleware, passed by on paths that it does not concern; a round has a hundred requests."""
    from starlette.middleware import Middleware

    name = getattr(middleware.cls, "__name__", "")
    if name not in CONCERNS:
        return middleware
    return Middleware(PassedBy, middleware=middleware, prefix=CONCERNS[name])


class PassedBy:
    """An ASGI middleware around another one (`middleware`) that is asked for paths with a prefix alone."""

    def __init__(self, app: "ASGIApp", middleware: "Middleware", prefix: str | None) -> None:
        self._app, self._prefix = app, prefix
        self._middleware: ASGIApp = middleware.cls(app, *middleware.args, **middleware.kwargs)

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve one request."""
        concerned = scope["type"] != "http" or (self._prefix is not None and scope["path"].startswith(self._prefix))
        await (self._middleware if concerned else self._app)(scope, receive, send)


if __name__ == "__main__":
    main(sys.argv[1:])
