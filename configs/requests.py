"""The signed form of requests from nodes without a certificate, and its header.

Flower's own signature covers a time alone: a reader of a request on its way could send it again, or send another one
under it. This one covers the method, the path, the body, the time and a nonce. Client and server share this form;
neither a key nor a clock is used here.

>>> stamp = Stamp(1_700_000_000_000, "ab" * 16, body_sha256(b"body"))
>>> signed_text("POST", "/v1/fleet/pull-messages", stamp).decode().split()[:5]
['archipel', 'request', '1', 'POST', '/v1/fleet/pull-messages']
>>> parsed(header_value(stamp, b"signature").encode()) == (stamp, b"signature")
True
>>> parsed(b"something else") is None
True
"""

import binascii
import hashlib
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass

REQUEST_HEADER = "archipel-request"
SIGNED_FROM = 3  # the protocol from which a node without a certificate signs each request
NONCE_BYTES = 16
_VALUE = re.compile(rb"([1-9][0-9]{0,15});([0-9a-f]{32});([0-9a-f]{64});([A-Za-z0-9+/]{1,400}={0,2})")


@dataclass(frozen=True, slots=True)
class Stamp:
    """A request's time (`time_ms` since 1970), its `nonce`, and its body's SHA-256."""

    time_ms: int
    nonce: str
    body: str


def body_sha256(body: bytes) -> str:
    """Return the hash of a request's body, hexadecimal."""
    return hashlib.sha256(body).hexdigest()


def signed_text(method: str, path: str, stamp: Stamp) -> bytes:
    """Return what is signed of a request."""
    return f"archipel request 1\n{method}\n{path}\n{stamp.time_ms}\n{stamp.nonce}\n{stamp.body}\n".encode()


def header_value(stamp: Stamp, signature: bytes) -> str:
    """Return the header's value."""
    return f"{stamp.time_ms};{stamp.nonce};{stamp.body};{b64encode(signature).decode('ascii')}"


def parsed(value: bytes) -> tuple[Stamp, bytes] | None:
    """Return what the header says and its signature, None where it is not of this form."""
    match = _VALUE.fullmatch(value)
    if match is None:
        return None
    try:
        signature = b64decode(match[4], validate=True)
    except binascii.Error:
        return None
    return Stamp(int(match[1]), match[2].decode("ascii"), match[3].decode("ascii")), signature
