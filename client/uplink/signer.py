"""Signatures of the node's requests.

There are two: Flower's node authentication, and Archipel's own over the whole request.
"""

import email.utils
import logging
import secrets
import time
from base64 import b64encode
from datetime import UTC, datetime

import httpx
from cryptography.hazmat.primitives.asymmetric import ec

from client.uplink.flower import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    ProtobufCall,
    ProtobufRequestContext,
    public_key_to_bytes,
    sign_message,
)
from configs.requests import NONCE_BYTES, REQUEST_HEADER, Stamp, body_sha256, header_value, signed_text

log = logging.getLogger("archipel.fleet")
MAX_CLOCK_CORRECTION_S = 3600.0


class Signer:
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
