"""Authorisation of requests.

A connection's certificate, the node key that the request names and an admission must agree.

>>> authorise(None, None, lambda key: None)
Traceback (most recent call last):
server.refusals.Refusal: expected Flower's public key header, found none
"""

import functools
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from server.gateway.paths import KEY_HEADER
from server.membership import Admitted
from server.refusals import Refusal
from server.signatures import SignedRequests

HEALTHY = f"ok, archipel {metadata.version('archipel')} with flwr {metadata.version('flwr')}".encode()
NO_CERTIFICATE = "expected this hospital's certificate, found none"

Lookup = Callable[[bytes], Admitted | None]


@dataclass(frozen=True, slots=True)
class Peer:
    """A connection's certificate: its public key in PEM as Flower writes it, and as Flower's header carries it."""

    name: str
    public_key: bytes
    header: bytes
    expires: float

    @classmethod
    def of(cls, certificate: x509.Certificate) -> "Peer":
        """Return the peer that holds a certificate."""
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        public_key = certificate.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        name = str(names[0].value) if names else ""
        return cls(name, public_key, b64encode(public_key), certificate.not_valid_after_utc.timestamp())


@functools.lru_cache(maxsize=256)
def escaped_peer(escaped: bytes) -> Peer:
    """Return the peer of a certificate as nginx passes it on ($ssl_client_escaped_cert).

    Raises:
        Refusal: 403, it is no certificate.
    """
    try:
        return Peer.of(x509.load_pem_x509_certificate(unquote_to_bytes(escaped)))
    except ValueError:
        raise Refusal(403, "expected a certificate, found something else") from None


def authorise(peer: Peer | None, key: bytes | None, lookup: Lookup) -> Admitted:
    """Return the hospital of a request: certificate, node key and admission must agree.

    Args:
        peer: the connection's verified certificate, None where it has none.
        key: the value of Flower's public key header.
        lookup: the admission of a public key (PEM), None where it has none.

    Raises:
        Refusal: 403, they do not agree.
    """
    name = peer.name if peer else ""
    if key is None:
        raise Refusal(403, "expected Flower's public key header, found none", name)
    if peer is not None and key != peer.header:
        raise Refusal(403, "expected the node key that the certificate was made for, found another", name)
    if peer is not None and peer.expires < time.time():
        raise Refusal(403, "the certificate has expired; ask the consortium for another", name)
    admitted = lookup(peer.public_key if peer else _decoded(key))
    if admitted is None:
        raise Refusal(403, "this key is not admitted, or no longer; ask the consortium", name)
    if peer is None and admitted.certificate_required:
        raise Refusal(403, NO_CERTIFICATE, admitted.site)
    return admitted


def health(peer: Peer | None, lookup: Lookup) -> bytes:
    """Return the health path's answer: which release runs for hospitals, `ok` for monitoring without a certificate.

    Raises:
        Refusal: 403, the certificate is of a hospital that is not admitted, or no longer.
    """
    if peer is None:
        return b"ok"
    authorise(peer, peer.header, lookup)
    return HEALTHY


def accept_signature(signed: SignedRequests, admitted: Admitted, headers: Mapping[bytes, bytes], path: bytes) -> bool:
    """Return whether a request without a certificate is signed whole (server/signatures.py).

    Raises:
        Refusal: its node signs its requests whole, and did not sign this one; or it was served before.
    """
    return signed.accept(admitted, headers, headers[KEY_HEADER], "POST", path.decode("ascii"))


def _decoded(key: bytes) -> bytes:
    try:
        return b64decode(key, validate=True)
    except ValueError:
        raise Refusal(403, "expected Flower's public key header, found something else") from None
