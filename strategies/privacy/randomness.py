"""Where chance comes from: which patients are in a step, and the noise.

A deployed hospital draws from a stream cipher whose key comes from the operating system (strategies/privacy/cipher.py).
A simulation or a test may ask for seeded chance, so that two runs agree bit for bit: the same cipher and the same code,
with a key made from the seed. Whoever knows the seed can subtract the noise, so the ledger records which of the two it
was. Not here: how much noise, and the sum that it is added to.

Every Gaussian is half the sum of four independent ones: what is known of a sum's bits does not lead back to the uniform
numbers that made it, as it does for a single textbook Gaussian (Holohan and Braghin 2021, "Secure random sampling in
differential privacy", arXiv 2107.10138, section 5.1; Opacus's secure mode takes the same four). The four come from four
Box-Muller pairs. Eight uniform numbers make the pairs, and four sums, which share them but are independent: their signs
are orthogonal. Who knows all four of these sums must still guess four of the eight numbers, 2^212 tries at 53 bits
each; the paper's two pairs for one sum, and Opacus, count on 2^159. All of it is float64.

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

_SIGNS = np.array(  # how the cosine halves of four Box-Muller pairs, and their sine halves, enter four sums
    [[1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1], [1, -1, 0, 0, 0, 0, 1, -1], [0, 0, 1, -1, 1, -1, 0, 0]], float
)
_PAIRS = _SUMS = 4
_LEAST, _MOST = 2**8, 2**14  # Gaussians of the first lot and of later ones: worth the calls, and still in the cache
_MOST_HALVES = 2**15  # half words drawn for the samples of several steps
_WORD, _HALF_WORD = 2**64, 2**32


class Randomness:
    """Independent streams for one hospital and one round: who is in a step, the noise, the order without privacy."""

    def __init__(self, who: CipherStream, noise: CipherStream, order: int, *, is_seeded: bool) -> None:
        self._who, self._noise, self.is_seeded = _Samples(who), _Gaussians(noise), is_seeded
        self._order = order

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
    def sampling(self) -> np.random.Generator:
        """What orders batches without privacy, where chance protects nobody."""
        return np.random.Generator(np.random.PCG64(self._order))

    def poisson(self, patients: int, rate: float) -> NDArray[np.int64]:
        """Each patient independently with probability `rate`, to the last bit of the float: sorted positions.

        The positions are (chosen,), possibly none; the time does not depend on who.

        Raises:
            PrivacyError: the rate is not in (0, 1].
        """
        if not 0.0 < rate <= 1.0:
            raise PrivacyError(f"expected 0 < sampling rate <= 1, got {rate}")
        return np.arange(patients) if rate == 1.0 else self._who.take(patients, rate)

    def gaussian(self, size: int, standard_deviation: float) -> torch.Tensor:
        """Independent draws of N(0, standard_deviation^2): (size,) float64.

        Raises:
            PrivacyError: the standard deviation is not positive and finite.
        """
        if not 0.0 < standard_deviation < math.inf:
            raise PrivacyError(f"expected noise of a positive, finite standard deviation, got {standard_deviation}")
        drawn, start = np.empty(size), 0
        while start < size:
            some = self._noise.take(size - start)
            np.multiply(some, standard_deviation, out=drawn[start : start + len(some)])
            start += len(some)
        return torch.from_numpy(drawn)

    def __reduce__(self) -> str:
        raise TypeError("chance is never pickled or copied: whoever has its state can undo the noise")


class _Samples:
    """Poisson samples from a stream's words, each given once. Those of several steps are drawn together."""

    def __init__(self, stream: CipherStream) -> None:
        self._stream = stream
        self._asked: tuple[object, ...] = ()
        self._ready: list[NDArray[np.int64]] = []  # drawn and not yet given, the last first
        self._steps = 0  # drawn together the last time

    def take(self, patients: int, rate: float) -> NDArray[np.int64]:
        """The next sample: never one of another number of patients or rate, nor the same in two processes."""
        asked = (patients, rate, self._stream.key_number)
        if asked != self._asked or not self._ready:
            self._steps = 1 if asked != self._asked else max(1, min(2 * self._steps, _MOST_HALVES // (patients or 1)))
            self._ready, self._asked = self._lot(patients, rate), (patients, rate, self._stream.key_number)
        return self._ready.pop()

    def _lot(self, patients: int, rate: float) -> list[NDArray[np.int64]]:
        count = self._steps * patients
        halves = self._stream.words(-(-count // 2)).view(np.uint32)[:count]
        numerator, denominator = rate.as_integer_ratio()
        whole, rest = divmod(numerator * _HALF_WORD, denominator)
        chosen = halves < np.uint32(whole)
        if rest:  # most rates have bits beyond a half word's: one that ties is decided by words that follow
            for tie in (halves == np.uint32(whole)).nonzero()[0]:
                chosen[tie] = self._is_below(rest, denominator)
        places, firsts = chosen.nonzero()[0], patients * np.arange(self._steps)
        ends = [*places.searchsorted(firsts), len(places)]
        return [places[ends[step] : ends[step + 1]] - firsts[step] for step in reversed(range(self._steps))]

    def _is_below(self, rest: int, denominator: int) -> bool:
        """Whether a uniform number of endlessly many bits is below rest / denominator."""
        while rest:
            whole, rest = divmod(rest * _WORD, denominator)
            word = int(self._stream.words(1)[0])
            if word != whole:
                return word < whole
        return False


class _Gaussians:
    """Standard Gaussians from a stream's words, each given once, in the order of the stream.

    They are made in lots, whose sizes follow from how many lots there were: so the n-th is made of the same words
    however they are asked for, and who asks for few is not made many.
    """

    def __init__(self, stream: CipherStream) -> None:
        self._stream, self._key = stream, stream.key_number
        self._ready = self._sums = np.empty(0)  # made and not yet given; room for a lot

    def take(self, most: int) -> NDArray[np.float64]:
        """Up to `most` of them, at least one, valid until the next call; never the same in two processes."""
        if not len(self._ready) or self._key != self._stream.key_number:
            self._ready, self._key = self._lot(), self._stream.key_number
        taken, self._ready = self._ready[:most], self._ready[most:]
        return taken

    def _reserve(self, size: int) -> None:
        self._words = np.empty((2, _PAIRS, size // _SUMS), np.int64)
        self._radii, self._angles, self._sums = (np.empty(self._words.shape[1:]) for _ in range(3))
        self._pairs = np.empty(self._words.shape)

    def _lot(self) -> NDArray[np.float64]:
        """The next lot, twice as many as the last while that is few. Column k of the words makes column k of the sums.

        Logarithm, cosine and sine are PyTorch's: vectorised in float64, as NumPy's are not on every processor, and the
        same to the last bit for any length, place and number of threads.
        """
        if self._sums.size < _MOST:
            self._reserve(max(_LEAST, 2 * self._sums.size))
        radii, angles, pairs, sums = self._radii, self._angles, self._pairs, self._sums
        self._stream.fill(self._words.reshape(-1).view(np.uint64))
        radii[:], angles[:] = self._words  # signed numbers: their conversion needs no branch
        radii *= 2 / _WORD
        np.abs(radii, out=radii)
        radii += 1 / _WORD  # uniform on (0, 1]: no logarithm of zero, and a radius of up to 9.4 standard deviations
        torch.log(torch.from_numpy(radii), out=torch.from_numpy(radii))
        radii *= -2 / 4
        np.sqrt(radii, out=radii)  # Box-Muller's, halved: half the sum of four
        angles *= math.tau / _WORD  # uniform from -pi to pi
        torch.cos(torch.from_numpy(angles), out=torch.from_numpy(pairs[0]))
        torch.sin(torch.from_numpy(angles), out=torch.from_numpy(pairs[1]))
        pairs *= radii
        return np.dot(_SIGNS, pairs.reshape(2 * _PAIRS, -1), out=sums).reshape(-1)
