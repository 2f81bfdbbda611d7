"""Sums in whole numbers modulo 2^64: what a hospital encodes, masks and sends, and what the coordinator opens.

A hospital divides its clipped sum by a public step, rounds it, adds its share of the noise and the masks of its pairs,
and sends uint64 words. The masks of all hospitals cancel, so the sum of all vectors modulo 2^64 is the sum of what they
encoded. The last PROOF words are zeros before they are masked: they are zeros again only where every mask cancelled.

The noise of each hospital is NOISE steps wide, always; the step carries the scale. Of m hospitals that are listed and t
that may tell the coordinator all they know, m - t hospitals' noise protects. So

    step = z C (1 + 2^-10) / (NOISE sqrt(m - t) - z sqrt(P))

for a noise multiplier z, a clip norm C and P parameters: then the noise of m - t hospitals is z times what one patient
moves the encoded sum by, C (1 + 2^-10) + step sqrt(P). The first slack is for sums in floating point, the second for
rounding, which moves each coordinate by at most a step.

>>> step = step_size(multiplier=2.0, clip_norm=1.0, parameters=3, honest=2)
>>> words = [encoded(np.array([1.0, -2.0, 0.5]), step, hospitals=2) for _ in range(2)]
>>> opening = Opening(3)
>>> for vector in words:
...     opening.add(vector.view(np.uint64))
>>> (opening.total() * step).round(6).tolist()
[2.0, -4.0, 1.0]
"""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from configs.errors import PrivacyError, WireError
from strategies.privacy.cipher import CipherStream

NOISE_SCALE = 32  # each hospital's noise is 2^32 steps wide
PROOF = 4  # words after the parameters, zeros before they are masked
_SLACK = 1 + 2.0**-10
_HALF = 2**62  # no sum of encoded vectors is beyond it, so that none wraps around
_AT_ONCE = 2**13  # words of a mask that are drawn together

Words = NDArray[np.uint64]


def step_size(*, multiplier: float, clip_norm: float, parameters: int, honest: int) -> float:
    """Return the step in which sums are encoded, in units of the gradient.

    Args:
        honest: hospitals whose noise protects: those listed less those that may collude.

    Raises:
        PrivacyError: so many parameters cannot be encoded with that noise.
    """
    room = math.sqrt(honest) * 2.0**NOISE_SCALE - multiplier * math.sqrt(parameters)
    if honest < 1 or room <= 0:
        raise PrivacyError(
            f"privacy.mode: secure: expected at least one hospital that does not collude, and parameters that rounding "
            f"leaves room for; found {honest} and {parameters:,} parameters with a noise multiplier of {multiplier:g}; "
            "lower privacy.colluding, or ask for more epsilon"
        )
    return multiplier * clip_norm * _SLACK / room


def encoded(total: NDArray[np.float64], step: float, hospitals: int) -> NDArray[np.int64]:
    """Return a sum in whole steps, (parameters + PROOF,), the last words zero.

    A number that is not finite becomes zero, and one beyond what `hospitals` such sums may add up to is moved to that
    edge: neither lets one patient move a coordinate by more.
    """
    edge = float(_HALF // hospitals)
    vector = np.zeros(len(total) + PROOF, np.int64)
    steps = np.rint(total / step)
    np.nan_to_num(steps, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    vector[: len(total)] = np.clip(steps, -edge, edge).astype(np.int64)
    return vector


def mask(words: Words, streams: Iterable[tuple[CipherStream, bool]]) -> None:
    """Add each pair's mask to the words, or subtract it, modulo 2^64; overwritten.

    Args:
        streams: of each pair, from its beginning, and whether its mask is added: at one of the two hospitals it is.
    """
    room = np.empty(min(_AT_ONCE, len(words)), np.uint64)
    for stream, is_added in streams:
        for start in range(0, len(words), _AT_ONCE):
            part = words[start : start + _AT_ONCE]
            drawn = room[: len(part)]
            stream.fill(drawn)
            (np.add if is_added else np.subtract)(part, drawn, out=part)


class Opening:
    """The sum of masked vectors, added as they arrive: one vector's memory, however many hospitals there are."""

    def __init__(self, parameters: int) -> None:
        self._sum, self.vectors = np.zeros(parameters + PROOF, np.uint64), 0

    def add(self, words: Words) -> None:
        """Add a hospital's vector.

        Raises:
            WireError: it has another size or type.
        """
        if words.dtype != np.uint64 or words.shape != self._sum.shape:
            raise WireError(
                f"masked: expected {len(self._sum)} words of uint64, got {words.shape} of {words.dtype}: send what the "
                "study's parameters ask for"
            )
        np.add(self._sum, words, out=self._sum)
        self.vectors += 1

    @property
    def cancels(self) -> bool:
        """Return whether all masks cancelled: a wrong sum passes with a chance of 2^-256."""
        return not self._sum[-PROOF:].any()

    def total(self) -> NDArray[np.int64]:
        """Return the sum of what the hospitals encoded, in steps: (parameters,).

        Raises:
            WireError: the masks do not cancel.
        """
        if not self.cancels:
            raise WireError(
                "masked: the masks do not cancel: a vector is missing, or somebody does not follow the protocol"
            )
        return self._sum[:-PROOF].view(np.int64)
