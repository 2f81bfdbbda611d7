"""Uniform random bits from AES-256 in counter mode (NIST SP 800-38A).

The cipher is the one of the `cryptography` package. Processors have instructions for it, which make it twice as fast as
ChaCha20; without them OpenSSL takes a code whose time does not depend on the key.

A key from the operating system makes a cryptographically secure generator: whoever sees any part of its output can
predict no other part. A key derived from a seed makes the same stream on every machine, for simulations and tests; both
run the same code. The key lives inside OpenSSL alone: it is no attribute, and a stream refuses to be pickled or copied,
so that no checkpoint and no log can hold it. A process that is forked has the memory of its parent, and would draw the
parent's bits: a stream keyed by the system notices and takes a new key. (A virtual machine that is copied while it runs
is not noticed; nothing here can see that.)

>>> a, b = CipherStream(bytes(32)), CipherStream(bytes(32))
>>> a.words(3).tolist() == b.words(3).tolist()
True
>>> CipherStream.system()
<CipherStream of the system>
"""

import secrets
import threading

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

_KEY_BYTES = 32
_REKEY_BYTES = 2**36  # no block comes twice under a key: after 2^32 of them that tells chance with advantage 2^-65
_ZEROS = np.zeros(2**13, np.uint64)  # what is encrypted, read only: the cipher's output is then its key stream
_ZEROS.flags.writeable = False
_FROM_ZERO = CTR(bytes(16))


class CipherStream:
    """The key stream of AES-256 in counter mode, as 64-bit words (little-endian), its counter starting at zero."""

    def __init__(self, key: bytes) -> None:
        """Start the stream of a key of 32 bytes: a key must be used for one stream alone."""
        self._is_system, self._keys = False, 0
        self._start(key)

    @property
    def key_number(self) -> tuple[int, int]:
        """Return a number that changes when the next words are of another key, as in a forked process."""
        return self._keys, threading.get_native_id() if self._is_system else 0

    @classmethod
    def system(cls) -> "CipherStream":
        """Return an unrepeatable stream: its key comes from the operating system and is kept nowhere else."""
        stream = cls(secrets.token_bytes(_KEY_BYTES))
        stream._is_system = True
        return stream

    def words(self, count: int) -> NDArray[np.uint64]:
        """Return the next `count` words: (count,), each of the 2^64 values equally likely."""
        words = np.empty(count, np.uint64)
        self.fill(words)
        return words

    def fill(self, words: NDArray[np.uint64]) -> None:
        """Overwrite (count,) words, contiguous, with the next ones."""
        self._renew(words.nbytes)
        for start in range(0, len(words), len(_ZEROS)):
            part = words[start : start + len(_ZEROS)]
            self._cipher.update_into(_ZEROS[: len(part)].data.cast("B"), part.data.cast("B"))
        if not np.little_endian:
            words.byteswap(inplace=True)

    def _start(self, key: bytes) -> None:
        self._cipher: CipherContext = Cipher(AES(key), _FROM_ZERO).encryptor()
        self._given, self._thread, self._keys = 0, threading.get_native_id(), self._keys + 1

    def _renew(self, size: int) -> None:
        """Take a new key before `size` bytes are drawn, in a forked process and once a key has given its bytes.

        The kernel numbers threads across processes, so a forked process is another thread here. So is a second thread
        of this process, which takes a new key too: that costs microseconds and harms nothing.
        """
        if self._is_system and self._thread != threading.get_native_id():
            self._start(secrets.token_bytes(_KEY_BYTES))
        elif self._given + size > _REKEY_BYTES and self._given:
            following = bytearray(_KEY_BYTES)
            self._cipher.update_into(bytes(_KEY_BYTES), following)
            self._start(secrets.token_bytes(_KEY_BYTES) if self._is_system else bytes(following))
        self._given += size

    def __reduce__(self) -> str:
        raise TypeError("a stream of random bits is never pickled or copied: whoever has its state can undo the noise")

    def __repr__(self) -> str:
        return f"<CipherStream {'of the system' if self._is_system else 'of a given key'}>"
