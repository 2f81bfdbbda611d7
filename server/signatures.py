"""Flower's signature of a request, checked at the door: whose account a request without a certificate is charged to.

A hospital that is admitted by its signatures alone has no certificate on its connections. Its public key is no secret,
so a request that names it is charged to the address it came from until the signature holds. The SuperLink checks it
again; here nothing is admitted by it.
"""

import binascii
from base64 import b64decode

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def holds(key: bytes, timestamp: bytes, signature: bytes) -> bool:
    """Return whether a node key signed the time that a request names.

    Args:
        key, signature: base64, as Flower's headers carry them; the key is PEM inside.
    """
    try:
        public = serialization.load_pem_public_key(b64decode(key, validate=True))
        if not isinstance(public, ec.EllipticCurvePublicKey):
            return False
        public.verify(b64decode(signature, validate=True), timestamp, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError, TypeError, binascii.Error):
        return False
    return True
