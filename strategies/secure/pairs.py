"""The keys of pairs of hospitals, and the masks that follow from them.

Each worker makes one X25519 key for a run; it lives in that process's memory and nowhere else. The secret of a pair
follows from both keys and the roster that both verified. The key of one mask follows from that secret and the SHA-256
of the very instruction that is answered: so masks cancel only among hospitals that received the same bytes, and a
coordinator that shows two of them two models, or two lists of participants, learns nothing. One of the two hospitals
adds the mask, the other subtracts it: the one whose name sorts first adds.

Method: X25519 (RFC 7748), HKDF with SHA-256 (RFC 5869), AES-256 in counter mode for the mask itself. A key of low order
is refused by the library.

>>> lille, lyon = MaskKey("lille"), MaskKey("lyon")
>>> keys = {"lille": lille.public, "lyon": lyon.public}
>>> a, b = Pairs(lille, keys, bytes(32)), Pairs(lyon, keys, bytes(32))
>>> a.checks == {"lyon": b.checks["lille"]}
True
>>> (first, added), (second, subtracted) = *a.streams(b"T" * 32, ["lyon"]), *b.streams(b"T" * 32, ["lille"])
>>> first.words(2).tolist() == second.words(2).tolist(), added, subtracted
(True, True, False)
"""

from collections.abc import Iterator, Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from configs.errors import WireError
from strategies.privacy.cipher import CipherStream

VERSION = b"archipel-masks/1"
CHECK_BYTES = 8
_KEY_BYTES = 32


class MaskKey:
    """A hospital's key for one run, in this process's memory alone."""

    def __init__(self, site: str) -> None:
        self.site = site
        self._key = X25519PrivateKey.generate()
        self.public = self._key.public_key().public_bytes_raw()

    def exchange(self, public: bytes) -> bytes:
        """Return what both hospitals of a pair know and nobody else does.

        Raises:
            ValueError: the other one's key is none, or of low order.
        """
        return self._key.exchange(X25519PublicKey.from_public_bytes(public))

    def __reduce__(self) -> str:
        raise TypeError("a mask key is never pickled or copied: whoever has it can take the masks off")

    def __repr__(self) -> str:
        return f"<MaskKey of {self.site}>"


class Pairs:
    """One hospital's secrets with every other one of a roster."""

    def __init__(self, own: MaskKey, keys: Mapping[str, bytes], roster_sha256: bytes) -> None:
        """Agree with each of the others.

        Args:
            keys: site -> X25519 key of 32 bytes, the hospital's own among them, as verified.

        Raises:
            WireError: a key is none or of low order, two hospitals have one, or the own one is another.
        """
        self._site = own.site
        if keys.get(own.site) != own.public:
            raise WireError(f"roster: expected {own.site}'s own key of this run, found another; ask for the keys again")
        if len(set(keys.values())) < len(keys):
            raise WireError("roster: expected a key of its own for each hospital, found one twice")
        self._secrets = {
            site: self._agree(own, site, key, roster_sha256) for site, key in keys.items() if site != own.site
        }

    @property
    def checks(self) -> Mapping[str, str]:
        """Return for each other hospital what both of the pair must say alike, in hexadecimal digits."""
        return {
            site: self._derived(secret, b"check", self._names(site), CHECK_BYTES).hex()
            for site, secret in self._secrets.items()
        }

    def streams(self, instruction_sha256: bytes, others: Sequence[str]) -> Iterator[tuple[CipherStream, bool]]:
        """Yield the mask of each pair with the other participants, and whether this hospital adds it.

        Raises:
            WireError: one of them is not on the roster.
        """
        for site in others:
            if site not in self._secrets:
                raise WireError(f"participants: expected hospitals of the roster, found {site!r}")
            purpose = b"mask" + instruction_sha256
            key = self._derived(self._secrets[site], purpose, self._names(site), _KEY_BYTES)
            yield CipherStream(key), self._site < site

    def _names(self, site: str) -> bytes:
        return "/".join(sorted((self._site, site))).encode()  # no name of a hospital has a slash

    def _agree(self, own: MaskKey, site: str, key: bytes, roster_sha256: bytes) -> bytes:
        try:
            shared = own.exchange(key)
        except ValueError:
            raise WireError(f"roster: expected an X25519 key of {site}, found none; ask for the keys again") from None
        return HKDF(SHA256(), _KEY_BYTES, salt=roster_sha256, info=VERSION).derive(shared)

    @staticmethod
    def _derived(secret: bytes, purpose: bytes, names: bytes, length: int) -> bytes:
        return HKDFExpand(SHA256(), length, info=VERSION + b"/" + purpose + b"/" + names).derive(secret)

    def __reduce__(self) -> str:
        raise TypeError("pairs' secrets are never pickled or copied: whoever has them can take the masks off")
