"""Where chance comes from: which patients are in a step, and the noise.

A deployed hospital draws from the operating system. A simulation or a test may ask for seeded chance, so that two runs
agree bit for bit; whoever knows the seed can subtract the noise, so the ledger records which of the two it was.

>>> a, b = Randomness.seeded(0, "lille", 3), Randomness.seeded(0, "lille", 3)
>>> bool((a.poisson(1000, 0.1) == b.poisson(1000, 0.1)).all())
True
>>> Randomness.system().is_seeded
False
"""

import hashlib
import secrets
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Randomness:
    """Two independent streams for one hospital and one round: sampling (NumPy) and noise (PyTorch)."""

    sampling: np.random.Generator
    noise: torch.Generator
    is_seeded: bool

    @classmethod
    def seeded(cls, seed: int, site: str, round_number: int) -> "Randomness":
        """The same streams for the same study seed, site and round, on every engine."""
        digest = hashlib.sha256(f"{seed}/{site}/{round_number}".encode()).digest()
        return cls._from(digest, is_seeded=True)

    @classmethod
    def system(cls) -> "Randomness":
        """Streams that nobody can repeat, seeded by the operating system."""
        return cls._from(secrets.token_bytes(32), is_seeded=False)

    @classmethod
    def _from(cls, entropy: bytes, is_seeded: bool) -> "Randomness":
        sampling = np.random.Generator(np.random.PCG64(int.from_bytes(entropy[:16], "little")))
        noise = torch.Generator().manual_seed(int.from_bytes(entropy[16:24], "little") >> 1)
        return cls(sampling, noise, is_seeded)

    def poisson(self, patients: int, rate: float) -> NDArray[np.int64]:
        """Each patient independently with probability `rate`: sorted positions, possibly none."""
        if rate >= 1.0:
            return np.arange(patients)
        return np.flatnonzero(self.sampling.random(patients) < rate)
