"""Where chance comes from: which patients are in a step, and the noise.

A deployed hospital draws from a stream cipher whose key comes from the operating system (strategies/privacy/cipher.py).
A simulation or a test may ask for seeded chance, so that two runs agree bit for bit: the same cipher and the same code,
with a key made from the seed. Whoever knows the seed can subtract the noise, so the ledger records which of the two it
was. Not here: how much noise, and the sum that it is added to.

Every Gaussian is half the sum of four independent ones: what is known of a sum's bits does not lead back to the uniform
numbers that made it, as it does for a single textbook Gaussian (Holohan and Braghin 2021, "Secure random sampling in
differential privacy", arXiv 2107.10138, section 5.1; Opacus's secure mode takes the same four). The four come from four
Box-Muller pairs, in float64, and are rounded to float32 at the end.

>>> a, b = Randomness.seeded(0, "lille", 3), Randomness.seeded(0, "lille", 3)
>>> bool((a.poisson(1000, 0.1) == b.poisson(1000, 0.1)).all())
True
>>> a.gaussian(3, standard_deviation=2.0).shape
torch.Size([3])
>>> Randomness.system().is_seeded
False
"""

import hashlib
import math
import secrets
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from configs.errors import PrivacyError
from strategies.privacy.cipher import CipherStream

_SUMMANDS = 4  # of each Gaussian: 2n with n = 2; breaking them takes 2^53(2n - 1) = 2^159 tries (Opacus, optimizer.py)
_LEAST, _MOST = 2**8, 2**14  # Gaussians made at a time: enough to be worth the calls, few enough for the cache
_WORD = 2**64


class Randomness:
    """Independent streams for one hospital and one round: who is in a step, the noise, the order without privacy.

    `sampling` orders batches without privacy, where chance protects nobody.
    """

    def __init__(self, who: CipherStream, noise: CipherStream, order: int, *, is_seeded: bool) -> None:
        self._who, self._noise, self.is_seeded = who, noise, is_seeded
        self._ready, self._ready_key = np.empty(0), noise.key_number  # made and not yet given: sums of four Gaussians
        self.sampling = np.random.Generator(np.random.PCG64(order))

    @classmethod
    def seeded(cls, seed: int, site: str, round_number: int) -> "Randomness":
        """The same streams for the same study seed, site and round, on every engine."""
        name = f"{seed}/{site}/{round_number}".encode()
        who, noise = (CipherStream(hashlib.sha256(use + name).digest()) for use in (b"patients/", b"noise/"))
        order = int.from_bytes(hashlib.sha256(name).digest()[:16], "little")
        return cls(who, noise, order, is_seeded=True)

    @classmethod
    def system(cls) -> "Randomness":
        """Streams that nobody can repeat: their whole state comes from the operating system."""
        return cls(CipherStream.system(), CipherStream.system(), secrets.randbits(128), is_seeded=False)

    @cached_property
    def noise(self) -> torch.Generator:
        """PyTorch's generator, all 624 words of its state from the noise's stream: for Opacus's own engine."""
        generator = torch.Generator()
        state = generator.get_state()  # 24 bytes of counters, then each word as eight bytes
        words = self._noise.words(624) & np.uint64(2**32 - 1)
        state[24 : 24 + 8 * 624] = torch.from_numpy(words.view(np.uint8))
        return generator.set_state(state)

    def poisson(self, patients: int, rate: float) -> NDArray[np.int64]:
        """Each patient independently with probability `rate`, to the last bit of the float: sorted positions.

        The positions are (chosen,), possibly none; the time depends on `patients` alone.

        Raises:
            PrivacyError: the rate is not in (0, 1].
        """
        if not 0.0 < rate <= 1.0:
            raise PrivacyError(f"expected 0 < sampling rate <= 1, got {rate}")
        if rate == 1.0:
            return np.arange(patients)
        words = self._who.words(patients)
        numerator, denominator = rate.as_integer_ratio()
        whole, rest = divmod(numerator * _WORD, denominator)
        chosen = words < np.uint64(whole)
        if rest:  # a rate under 2^-11 has bits beyond the word's: a word that ties is decided by those that follow
            for tie in np.flatnonzero(words == np.uint64(whole)):
                chosen[tie] = self._is_below(rest, denominator)
        return np.flatnonzero(chosen)

    def gaussian(self, size: int, standard_deviation: float) -> torch.Tensor:
        """Independent draws of N(0, standard_deviation^2): (size,) float32.

        Raises:
            PrivacyError: the standard deviation is not positive and finite.
        """
        if not 0.0 < standard_deviation < math.inf:
            raise PrivacyError(f"expected noise of a positive, finite standard deviation, got {standard_deviation}")
        drawn, scale, start = np.empty(size, np.float32), standard_deviation / math.sqrt(_SUMMANDS), 0
        while start < size:
            sums = self._take(size - start)
            np.multiply(sums, scale, out=drawn[start : start + len(sums)], casting="same_kind")
            start += len(sums)
        return torch.from_numpy(drawn)

    def __reduce__(self) -> str:
        raise TypeError("chance is never pickled or copied: whoever has its state can undo the noise")

    def _take(self, most: int) -> NDArray[np.float64]:
        """Up to `most` sums, each given once: in the order they were made, and never in two processes."""
        if not len(self._ready) or self._ready_key != self._noise.key_number:
            self._ready = self._sums(min(max(most, _LEAST), _MOST))
            self._ready_key = self._noise.key_number
        sums, self._ready = self._ready[:most], self._ready[most:]
        return sums

    def _sums(self, count: int) -> NDArray[np.float64]:
        """(count,) sums of four standard Gaussians; the two of a Box-Muller pair go to different sums."""
        half = (count + 1) // 2
        words = self._noise.words(2 * _SUMMANDS * half).reshape(2, _SUMMANDS, half)
        radius = np.log(_open_unit(words[0]))
        radius *= -2.0
        np.sqrt(radius, out=radius)
        angle = words[1] * (math.tau / _WORD)
        pairs = np.empty((2, half))
        for turned, out in ((np.cos(angle), pairs[0]), (np.sin(angle), pairs[1])):
            turned *= radius
            turned.sum(axis=0, out=out)
        return pairs.reshape(-1)[:count]

    def _is_below(self, rest: int, denominator: int) -> bool:
        """Whether a uniform number of endlessly many bits is below rest / denominator."""
        while rest:
            whole, rest = divmod(rest * _WORD, denominator)
            word = int(self._who.words(1)[0])
            if word != whole:
                return word < whole
        return False


def _open_unit(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Uniform on (0, 1]: no logarithm of zero, and a radius of up to 9.4 standard deviations."""
    return (words.astype(np.float64) + 0.5) * (1.0 / _WORD)
