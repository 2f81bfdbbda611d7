"""Answers to nginx's `auth_request` and the health path: 204, or a refusal."""

import logging
from pathlib import Path

from server.bodies import GoneError, LargeBodyError, pieces
from server.gateway.answers import Application, Receive, Send, live, plain, shelf_answer
from server.gateway.authorise import Lookup, Peer, accept_signature, authorise, escaped_peer, health
from server.gateway.limits import Refusals
from server.gateway.paths import HEALTH, KEY_HEADER, LARGEST_WINDOW, SHELF_PATHS, Scope
from server.membership import Admitted
from server.refusals import Refusal
from server.signatures import SignedRequests

VERIFIED_HEADER, CERTIFICATE_HEADER = b"x-client-verify", b"x-client-certificate"  # nginx sets them, hospitals cannot
PATH_HEADER = b"x-requested-path"  # likewise

log = logging.getLogger("archipel.gateway")


def make_auth(lookup: Lookup, shelf: Path | None = None, signed: SignedRequests | None = None) -> Application:
    """Return an ASGI application that answers nginx's questions: 204 or 403; and the health path.

    Args:
        lookup: the admission of a public key (PEM).
        shelf: the folder of large messages; nginx forwards their paths here.
        signed: what requests without a certificate are compared with; None begins anew.
    """
    return _Auth(lookup, signed or SignedRequests(), shelf)


class _Auth:
    def __init__(self, lookup: Lookup, signed: SignedRequests, shelf: Path | None = None) -> None:
        self._lookup, self._refusals, self._signed, self._shelf = lookup, Refusals(), signed, shelf
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await live(receive, send, None)
        try:
            verdict = self._judge(scope["path"].encode(), dict(scope["headers"]))
            if isinstance(verdict, tuple):
                body = pieces(receive, LARGEST_WINDOW)
                answer = await shelf_answer(self._shelf, scope["path"].encode(), *verdict, body)
                return await plain(send, 200, answer)
        except GoneError:
            return None
        except LargeBodyError:
            return await plain(send, 413, f"expected at most {LARGEST_WINDOW} bytes, found more".encode())
        except Refusal as refusal:
            self._refusals.note(refusal, scope)
            return await plain(send, refusal.status, refusal.why.encode())
        if verdict:
            return await plain(send, 200, verdict)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _judge(self, path: bytes, headers: dict[bytes, bytes]) -> bytes | tuple[Admitted, Peer | None]:
        """Return the health path's answer, or the hospital of a large message; empty where nginx may forward."""
        verified, certificate = headers.get(VERIFIED_HEADER, b""), headers.get(CERTIFICATE_HEADER, b"")
        if verified not in (b"SUCCESS", b"NONE") or (verified == b"SUCCESS") != bool(certificate):
            raise Refusal(403, "expected nginx to have checked the certificate, it has not")
        peer = escaped_peer(certificate) if certificate else None
        if path == HEALTH:
            return health(peer, self._lookup)
        admitted = authorise(peer, headers.get(KEY_HEADER) or None, self._lookup)
        if peer is None and path not in SHELF_PATHS:
            self._accept(admitted, {name: value for name, value in headers.items() if value})
        return (admitted, peer) if path in SHELF_PATHS else b""

    def _accept(self, admitted: Admitted, headers: dict[bytes, bytes]) -> None:
        """Compare a request that nginx forwards without a certificate with its signature."""
        path = headers.get(PATH_HEADER)
        if path is not None:
            accept_signature(self._signed, admitted, headers, path)
        elif not self._warned:  # nginx passes no path: what its hospitals sign cannot be compared
            self._warned = True
            log.warning(
                "nginx.conf is of an older release: copies of requests without a certificate are not noticed; write "
                "it anew: archipel-coordinator start --print-nginx"
            )
