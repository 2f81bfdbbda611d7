"""The sources of randomness: each step's sample of patients, and the noise.

A deployed hospital draws from a stream cipher whose key comes from the operating system (strategies/privacy/cipher.py).
A simulation or a test may ask for seeded chance, so that two runs agree bit for bit: the same cipher and the same code,
with a key made from the seed. With the seed the noise can be subtracted, so the ledger records which of the two it
was. Not here: how much noise, and the sum that it is added to.

Every number is a sum of several Gaussians, scaled: what is known of a sum's bits does not lead back to the uniform
numbers that made it, as it does for a single textbook Gaussian (Holohan and Braghin 2021, "Secure random sampling in
differential privacy", arXiv 2107.10138, section 5.1). Opacus's secure mode adds four for each sum, so that an attacker
must guess three uniform numbers of 53 bits, 2^159 tries. Here sixteen uniform numbers make eight Box-Muller pairs, and
these thirteen sums of all sixteen Gaussians over four. The sums share them, and are independent: their signs are
orthogonal (rows of a Hadamard matrix). Who knows all thirteen must still guess three of the sixteen numbers: the same
2^159 tries, at a third of the logarithms and cosines. All of it is float64, with the same bits on every processor.

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
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from configs.errors import PrivacyError
from strategies.exact.functions import logarithm_of_normal, sine
from strategies.privacy.cipher import CipherStream

_PAIRS = 8  # Box-Muller pairs whose Gaussians the sums share
_GUESSED = 3  # uniform numbers that all of these sums leave open: as many as Opacus's secure mode
_LEAST, _MOST = 2**6, 2**10  # columns of the first lot and of later ones: worth the calls, and still in the cache
_AT_ONCE, _KEPT = 2**11, 16  # columns of several streams' lots that are made together; numbers of them in memory
_MOST_HALVES = 2**15  # half words drawn for the samples of several steps
_WORD, _HALF_WORD = 2**64, 2**32


class Randomness:
    """Independent streams for one hospital and one round: the samples, the noise, the order without privacy."""

    def __init__(self, who: CipherStream, noise: CipherStream, order: int, *, is_seeded: bool) -> None:
        self._who, self._noise, self.is_seeded = _Samples(who), _Gaussians(noise), is_seeded
        self._order = order

    @classmethod
    def ordering(cls, seed: int, site: str, round_number: int) -> "Randomness":
        """Return `seeded` streams for a fit without privacy, which needs an order alone: no cipher is started."""
        randomness = cls.__new__(cls)
        randomness.is_seeded, randomness._order = True, _order_of(_name(seed, site, round_number, 0))
        return randomness

    @classmethod
    def seeded(cls, seed: int, site: str, round_number: int, attempt: int = 0) -> "Randomness":
        """Return the same streams for the same study seed, site, round and attempt, on every engine."""
        name = _name(seed, site, round_number, attempt)
        who, noise = (CipherStream(hashlib.sha256(use + name).digest()) for use in (b"patients/", b"noise/"))
        return cls(who, noise, _order_of(name), is_seeded=True)

    @classmethod
    def system(cls) -> "Randomness":
        """Return unrepeatable streams: their whole state comes from the operating system."""
        return cls(CipherStream.system(), CipherStream.system(), secrets.randbits(128), is_seeded=False)

    @cached_property
    def sampling(self) -> np.random.Generator:
        """Return the generator that orders batches without privacy, where randomness protects no patient."""
        return np.random.Generator(np.random.PCG64(self._order))

    def poisson(self, patients: int, rate: float) -> NDArray[np.int64]:
        """Return a sample's sorted positions, each with probability `rate` independently, to the float's last bit.

        The positions are (chosen,), possibly none; the time does not depend on which.

        Raises:
            PrivacyError: the rate is not in (0, 1].
        """
        return samples([self], [patients], [rate])[0]

    def gaussian(self, size: int, standard_deviation: float) -> torch.Tensor:
        """Return independent draws of N(0, standard_deviation^2): (size,) float64.

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


def _name(seed: int, site: str, round_number: int, attempt: int) -> bytes:
    return f"{seed}/{site}/{round_number}{f'/{attempt}' if attempt else ''}".encode()


def _order_of(name: bytes) -> int:
    return int.from_bytes(hashlib.sha256(name).digest()[:16], "little")


class _Samples:
    """Poisson samples from a stream's words, each given once. Those of several steps are drawn together."""

    def __init__(self, stream: CipherStream) -> None:
        self.stream = stream
        self._asked: tuple[object, ...] = ()
        self._ready: list[NDArray[np.int64]] = []  # drawn and not yet given, the last first
        self.steps = 0  # drawn together the last time

    def lacks(self, patients: int, rate: float) -> bool:
        """Return whether the next sample must be drawn: it serves one number of patients, one rate, one process.

        Then so many steps' samples are to be drawn together as `steps` says from now on.
        """
        request = (patients, rate, self.stream.key_number)
        if request == self._asked and self._ready:
            return False
        self.steps = 1 if request != self._asked else max(1, min(2 * self.steps, _MOST_HALVES // (patients or 1)))
        return True

    def give(self, lot: list[NDArray[np.int64]], patients: int, rate: float) -> None:
        """Take several steps' samples, the last first."""
        self._ready, self._asked = lot, (patients, rate, self.stream.key_number)

    def take(self) -> NDArray[np.int64]:
        """Return the next sample."""
        return self._ready.pop()

    def is_below(self, rest: int, denominator: int) -> bool:
        """Return whether a uniform number of endlessly many bits is below rest / denominator."""
        while rest:
            whole, rest = divmod(rest * _WORD, denominator)
            word = int(self.stream.words(1)[0])
            if word != whole:
                return word < whole
        return False


def samples(many: Sequence[Randomness], patients: Sequence[int], rates: Sequence[float]) -> list[NDArray[np.int64]]:
    """Return `Randomness.poisson` of many hospitals at once: each has the very bits that it has alone."""
    lacking: dict[tuple[int, int, float], list[_Samples]] = {}
    for randomness, count, rate in zip(many, patients, rates, strict=True):
        if not 0.0 < rate <= 1.0:
            raise PrivacyError(f"expected 0 < sampling rate <= 1, got {rate}")
        if rate < 1.0 and randomness._who.lacks(count, rate):
            lacking.setdefault((randomness._who.steps, count, rate), []).append(randomness._who)
    for (steps, count, rate), alike in lacking.items():
        for stream, lot in zip(alike, _drawn(alike, steps, count, rate), strict=True):
            stream.give(lot, count, rate)
    return [
        np.arange(count) if rate == 1.0 else randomness._who.take()
        for randomness, count, rate in zip(many, patients, rates, strict=True)
    ]


def _drawn(alike: Sequence[_Samples], steps: int, patients: int, rate: float) -> list[list[NDArray[np.int64]]]:
    """Return the samples of so many steps of each, the last step first."""
    count = steps * patients
    words = np.empty((len(alike), -(-count // 2)), np.uint64)
    for source, drawn in zip(alike, words, strict=True):
        source.stream.fill(drawn)
    halves = words.view(np.uint32)[:, :count]
    numerator, denominator = rate.as_integer_ratio()
    whole, rest = divmod(numerator * _HALF_WORD, denominator)
    chosen = halves < np.uint32(whole)
    if rest:  # most rates have bits beyond a half word's: one that ties is decided by words that follow
        for i, tie in zip(*(halves == np.uint32(whole)).nonzero(), strict=True):
            chosen[i, tie] = alike[i].is_below(rest, denominator)
    rows, places = chosen.reshape(len(alike) * steps, patients).nonzero()
    ends = [0, *rows.searchsorted(np.arange(1, len(alike) * steps + 1)).tolist()]
    return [
        [places[ends[step] : ends[step + 1]] for step in reversed(range(i * steps, (i + 1) * steps))]
        for i in range(len(alike))
    ]


class _Gaussians:
    """Standard Gaussians from a stream's words, each given once, in the order of the stream.

    They are made in lots, whose sizes follow from how many lots there were: so the n-th is made of the same words
    however they are asked for, and a small request makes few.
    """

    def __init__(self, stream: CipherStream) -> None:
        self.stream, self._key = stream, stream.key_number
        self._ready, self._columns = np.empty(0), 0  # made and not yet given; of the last lot
        self._room: _Room | None = None

    @property
    def is_empty(self) -> bool:
        """Return whether the next one is of a lot that is not made yet; no two processes share a lot."""
        return not len(self._ready) or self._key != self.stream.key_number

    @property
    def next_columns(self) -> int:
        """Return the number of columns of the next lot: twice as many as the last one's while that is few."""
        return self._columns if self._columns >= _MOST else max(_LEAST, 2 * self._columns)

    def give(self, lot: NDArray[np.float64], columns: int) -> None:
        """Take the next lot, made of the stream's words."""
        self._ready, self._columns, self._key = lot, columns, self.stream.key_number

    def take(self, most: int) -> NDArray[np.float64]:
        """Return up to `most` of them, at least one, valid until the next call."""
        if self.is_empty:
            columns = self.next_columns
            if self._room is None or self._room.columns != columns:
                self._room = _Room(1, columns)
            self.give(self._room.lots([self.stream]).reshape(-1), columns)
        values, self._ready = self._ready[:most], self._ready[most:]
        return values


class _Room:
    """Memory for lots of several streams, each with the bits that it has alone: all is elementwise.

    `made`: the first columns, where the others are not needed; their words are drawn all the same.
    """

    def __init__(self, streams: int, columns: int, made: int = 0) -> None:
        self.streams, self.columns, self.made = streams, columns, made or columns
        width = streams * self.made
        self._words = np.empty((streams, 2, _PAIRS, columns), np.int64)
        self._room = np.empty((6, _PAIRS, width))  # of radii, angles, and what is worked out of them
        self._sums, self._half_done = np.empty((2 * _PAIRS, width)), np.empty((2 * _PAIRS, width))

    def lots(self, streams: Sequence[CipherStream]) -> NDArray[np.float64]:
        """Return the next lot of each stream, (13, streams, columns), or (1, streams, made columns) of its first sum.

        Valid until the next use.

        Column k of a stream's words makes column k of its sums. Cosine and sine of an angle follow from the sine of its
        fourth by doubling twice.
        """
        cosines, sines = self._sums[:_PAIRS], self._sums[_PAIRS:]
        radii, angles = self._room[4], self._room[5]
        for stream, words in zip(streams, self._words, strict=True):
            stream.fill(words.reshape(-1).view(np.uint64))
        for i, numbers in enumerate((radii, angles)):  # signed numbers: their conversion needs no branch
            words = self._words[:, i, :, : self.made]
            numbers.reshape(_PAIRS, self.streams, self.made)[:] = np.moveaxis(words, 1, 0)
        radii *= 2 / _WORD
        np.abs(radii, out=radii)
        radii += 1 / _WORD  # uniform on (0, 1]: no logarithm of zero, and a radius of up to 9.4 standard deviations
        radii = logarithm_of_normal(radii, self._room[:4])
        radii *= -2 / (2 * _PAIRS)
        np.sqrt(radii, out=radii)  # Box-Muller's over four: the sums are of sixteen
        angles *= math.pi / 2 / _WORD  # fourths: uniform from -pi/4 to pi/4
        quarter, room = sine(angles, self._room[1:3]), self._room[3]
        np.multiply(quarter, quarter, out=room)
        np.subtract(1.0, room, out=room)
        _double(quarter, np.sqrt(room, out=room), angles, self._room[2])
        _double(angles, self._room[2], sines, cosines)
        cosines *= radii
        sines *= radii
        if self.made < self.columns:
            lot = _one_sum(self._sums, _GUESSED)
        else:
            lot = _added_with_signs(self._sums, self._half_done)[_GUESSED:]
        return lot.reshape(-1, self.streams, self.made)


class Noise:
    """Noise of many hospitals at once: each has the very bits that its own `Randomness.gaussian` would have given."""

    def __init__(self) -> None:
        self._rooms: dict[tuple[int, int, int], _Room] = {}

    def draw(self, many: Sequence[Randomness], into: NDArray[np.float64], *, last: bool = False) -> None:
        """Fill an array with standard Gaussians, (hospitals, size).

        Args:
            last: no more will be asked of these, so that what would be left of a lot need not be made.
        """
        streams, size = [randomness._noise for randomness in many], into.shape[1]
        counts = [0] * len(streams)
        wanting = list(range(len(streams)))
        while wanting:
            self._make([(streams[i], size - counts[i] if last else _MOST) for i in wanting if streams[i].is_empty])
            for i in wanting:
                some = streams[i].take(size - counts[i])
                into[i, counts[i] : counts[i] + len(some)] = some
                counts[i] += len(some)
            wanting = [i for i in wanting if counts[i] < size]

    def _make(self, empty: list[tuple[_Gaussians, int]]) -> None:
        """Draw the next lot of each; where no more than its first sum is asked for, so many of its columns."""
        sizes: dict[tuple[int, int], list[_Gaussians]] = {}
        for source, most in empty:
            sizes.setdefault((source.next_columns, min(most, source.next_columns)), []).append(source)
        for (columns, columns_made), alike in sizes.items():
            at_once = max(1, _AT_ONCE // columns)
            for start in range(0, len(alike), at_once):
                some = alike[start : start + at_once]
                lots = self._room(len(some), columns, columns_made).lots([source.stream for source in some])
                for i, source in enumerate(some):
                    source.give(lots[:, i].flatten() if columns_made == columns else lots[0, i].copy(), columns)

    def _room(self, streams: int, columns: int, made: int) -> _Room:
        room = streams, columns, made
        if room not in self._rooms:
            if len(self._rooms) >= _KEPT:
                self._rooms.clear()
            self._rooms[room] = _Room(*room)
        return self._rooms[room]


def _double(sine_of: NDArray[np.float64], cosine_of: NDArray[np.float64], sines: Any, cosines: Any) -> None:
    """Write sine and cosine of twice the angles."""
    np.multiply(sine_of, cosine_of, out=sines)
    sines *= 2.0
    np.multiply(sine_of, sine_of, out=cosines)
    cosines *= -2.0
    cosines += 1.0


def _added_with_signs(values: NDArray[np.float64], room: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return all sums of (2^k, columns) with the signs of a Hadamard matrix's rows (Sylvester 1867), in a fixed order.

    Sums and differences of pairs, k times, as in a fast Fourier transform. Both arrays are overwritten.
    """
    reach = 1
    while reach < len(values):
        before, after = (a.reshape(len(values) // (2 * reach), 2, reach, -1) for a in (values, room))
        np.add(before[:, 0], before[:, 1], out=after[:, 0])
        np.subtract(before[:, 0], before[:, 1], out=after[:, 1])
        values, room, reach = room, values, 2 * reach
    return values


def _one_sum(values: NDArray[np.float64], row: int) -> NDArray[np.float64]:
    """Return one of these sums: (columns,), added in the same order."""
    while len(values) > 1:
        values = values[0::2] - values[1::2] if row & 1 else values[0::2] + values[1::2]
        row >>= 1
    return values.reshape(-1)
