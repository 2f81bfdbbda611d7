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

_WORDS = 624  # of the Mersenne Twister


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
        sampling = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
        noise = torch.Generator().manual_seed(int.from_bytes(digest[16:24], "little") >> 1)
        return cls(sampling, noise, is_seeded=True)

    @classmethod
    def system(cls) -> "Randomness":
        """Streams that nobody can repeat: their whole state comes from the operating system."""
        return cls(np.random.Generator(np.random.PCG64(secrets.randbits(128))), _system_noise(), is_seeded=False)

    def poisson(self, patients: int, rate: float) -> NDArray[np.int64]:
        """Each patient independently with probability `rate`: sorted positions, possibly none."""
        if rate >= 1.0:
            return np.arange(patients)
        return np.flatnonzero(self.sampling.random(patients) < rate)


def _system_noise() -> torch.Generator:
    """Of a seed PyTorch's generator keeps 32 bits, few enough to try them all: so all its 624 words are drawn."""
    generator = torch.Generator()
    state = generator.get_state()  # 24 bytes of counters, then each word as eight bytes
    words = np.frombuffer(secrets.token_bytes(4 * _WORDS), "<u4").astype("<u8")
    state[24 : 24 + 8 * _WORDS] = torch.from_numpy(words.view(np.uint8))
    return generator.set_state(state)
