"""Ed25519 signatures (RFC 8032) over the statements of configs/seal.py and over journal records.

Keys are bytes here; their storage is the owner's decision.

>>> key = SigningKey.generate()
>>> verify(key.public, b"round 3", key.sign(b"round 3")), verify(key.public, b"round 4", key.sign(b"round 3"))
(True, False)
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from configs.errors import ConfigError


class SigningKey:
    """A private key that signs; it prints nothing of itself."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @classmethod
    def generate(cls) -> "SigningKey":
        """Return a new key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes, source: str, passphrase: bytes | None = None) -> "SigningKey":
        """Return the key in a PEM file's bytes.

        Raises:
            ConfigError: it holds no Ed25519 key, or the passphrase is wrong. The text says nothing of the key.
        """
        try:
            private = serialization.load_pem_private_key(pem, passphrase)
        except (ValueError, TypeError):
            raise ConfigError(source, ["expected an Ed25519 private key, found none that can be read"]) from None
        if not isinstance(private, Ed25519PrivateKey):
            raise ConfigError(source, ["expected an Ed25519 private key, found one of another kind"])
        return cls(private)

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        """Return the key for a file that only its owner can read."""
        encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        return self._private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)

    @property
    def public(self) -> str:
        """Return the public key, in hexadecimal."""
        return self._private.public_key().public_bytes_raw().hex()

    def sign(self, data: bytes) -> str:
        """Return the signature, in hexadecimal."""
        return self._private.sign(data).hex()


def verify(public: str, data: bytes, signature: str) -> bool:
    """Return whether the signature over these bytes is by the key of this public key."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(bytes.fromhex(signature), data)
    except (InvalidSignature, ValueError):
        return False
    return True
