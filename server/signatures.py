"""Verification of signed requests at the door.

They stand in for a certificate where a proxy ends TLS. A hospital that is admitted by its signatures alone has no
certificate on its connections, and every request can be read where TLS ends (at the proxy, or in its logs). So its
node signs each one whole (configs/requests.py), and a request is served once, within a minute. A node of an older
release signs a time alone, as Flower does; it is served so until it was seen to sign requests whole, and never again
after that: stripping the header gains nothing.

A public key is no secret: a request is charged to the hospital that it names only when a signature holds.
"""

import binascii
import heapq
import logging
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from configs.pieces import MEDIA_TYPE
from configs.requests import REQUEST_HEADER, body_sha256, parsed, signed_text
from server.bodies import GoneError, LargeBodyError, Receive, whole
from server.membership import Admitted
from server.refusals import Refusal

log = logging.getLogger("archipel.gateway")
HEADER = REQUEST_HEADER.encode()
AGE_S, AHEAD_S = 60.0, 5.0  # how old a request may be, and how far ahead its node's clock
REMEMBERED = 1024  # requests of one hospital, the newest; its node has at most 32 under way
LARGEST_SIGNED_BODY = 64_000_000  # the door's own bound is max_request_mb

Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Any, Receive, Send], Awaitable[None]]


class SignedRequests:
    """The nodes that sign requests whole, and the requests that were served: each passes once.

    The newest `REMEMBERED` requests of each hospital are known one by one; none passes that is not newer than what was
    forgotten. As a door that was just started has forgotten all, it lets none pass that an earlier one may have served.
    """

    def __init__(self, note: Callable[[str], None] = lambda _: None, clock: Callable[[], float] = time.time) -> None:
        """Begin with no request served.

        Args:
            note: called with a hospital's name once its first whole signature holds, to keep it for later processes.
        """
        self._note, self._clock = note, clock
        self._started_ms = round((clock() + AHEAD_S) * 1000)
        self._signs: set[tuple[str, bytes]] = set()
        self._served: dict[bytes, _Served] = {}

    def accept(self, admitted: Admitted, headers: Mapping[bytes, bytes], key: bytes, method: str, path: str) -> bool:
        """Take a request that came without a certificate; whether it is its hospital's own beyond doubt.

        Args:
            key: of Flower's header, which named the hospital.

        Raises:
            Refusal: 403, it is not signed though its hospital's node signs, or not by this hospital, or not for this
                request. 401, its time is another (the answer's date says which it is here). 425, it was served
                before, or is older than what is remembered: signed anew it passes.
        """
        site, who = admitted.site, (admitted.site, key)
        value = headers.get(HEADER)
        if value is None:
            if admitted.signs or who in self._signs:
                raise Refusal(
                    403,
                    "expected the request's own signature, as its node signed before, found none; if an older release "
                    "of the node was put back, admit the hospital again",
                    site,
                )
            return holds(key, headers.get(b"flwr-timestamp", b""), headers.get(b"flwr-signature", b""))
        content = parsed(value)
        if content is None:
            raise Refusal(403, "expected the request's own signature, found something else", site)
        stamp, signature = content
        if not verified(key, signed_text(method, path, stamp), signature):
            raise Refusal(403, "expected this hospital's signature of this very request, found another", site)
        now = self._clock()
        if not now - AGE_S <= stamp.time_ms / 1000 <= now + AHEAD_S:
            raise Refusal(401, "expected a request signed within the last minute, found another; set the clock", site)
        served = self._served.setdefault(key, _Served(self._started_ms))
        if not served.take((stamp.time_ms, stamp.nonce)):
            raise Refusal(425, "expected a request that is newer than those served, found an older one or a copy", site)
        if who not in self._signs:
            self._signs.add(who)
            if not admitted.signs:
                self._note(site)
        return True


class _Served:
    """The newest requests of one node, as (time, nonce)."""

    def __init__(self, floor_ms: int) -> None:
        self._floor_ms = floor_ms
        self._newest: list[tuple[int, str]] = []
        self._known: set[tuple[int, str]] = set()

    def take(self, request: tuple[int, str]) -> bool:
        """Remember a request; whether it is new."""
        if request[0] <= self._floor_ms or request in self._known:
            return False
        self._known.add(request)
        heapq.heappush(self._newest, request)
        if len(self._newest) > REMEMBERED:
            oldest = heapq.heappop(self._newest)
            self._known.discard(oldest)
            self._floor_ms = oldest[0]
        return True


def with_signed_bodies(app: Application) -> Application:
    """Return the SuperLink's application, which never sees a body other than the one that its request's header signs.

    Both doors (server/gateway/ and nginx) check the header and pass it on; the body goes by them in pieces.
    """

    async def serve(scope: Any, receive: Receive, send: Send) -> None:
        value = dict(scope["headers"]).get(HEADER) if scope["type"] == "http" else None
        if value is None:
            return await app(scope, receive, send)
        content = parsed(value)
        try:
            body = await whole(receive, LARGEST_SIGNED_BODY)
        except GoneError:
            return None
        except LargeBodyError:
            return await _refuse(send, 413)
        if content is None or body_sha256(body) != content[0].body:
            log.warning("a request came with another body than its node signed; it is not served")
            return await _refuse(send, 403)
        pending = [{"type": "http.request", "body": body, "more_body": False}]

        async def received() -> Any:
            return pending.pop() if pending else await receive()

        return await app(scope, received, send)

    return serve


async def _refuse(send: Send, status: int) -> None:
    text = b"expected the body that the request's signature is for, found another"
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text, "more_body": False})


def verified(key: bytes, text: bytes, signature: bytes) -> bool:
    """Return whether a node key (base64 of its PEM, as Flower's header carries it) signed a text."""
    try:
        public = serialization.load_pem_public_key(b64decode(key, validate=True))
        if not isinstance(public, ec.EllipticCurvePublicKey):
            return False
        public.verify(signature, text, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError, TypeError, binascii.Error):
        return False
    return True


def holds(key: bytes, timestamp: bytes, signature: bytes) -> bool:
    """Return whether a node key signed the time that a request names, as Flower does.

    Args:
        key, signature: base64, as Flower's headers carry them; the key is PEM inside.
    """
    try:
        return verified(key, timestamp, b64decode(signature, validate=True))
    except (ValueError, binascii.Error):
        return False
