"""The split into training and test: each patient's side depends on that patient alone.

A shuffled split would move other patients from train to test when one more patient joins, and then "add or remove one
patient" would change many training records. A keyed hash of the patient's identity does not.

>>> before = in_test(["a", "b", "c"], site="lille", seed=0, fraction=0.34)
>>> after = in_test(["new", "a", "b", "c"], site="lille", seed=0, fraction=0.34)
>>> bool((after[1:] == before).all())
True
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def in_test(keys: Sequence[str], *, site: str, seed: int, fraction: float) -> NDArray[np.bool_]:
    """Return (patients,) booleans, each True with probability `fraction`."""
    if fraction == 0.0:
        return np.zeros(len(keys), bool)
    salt = hashlib.sha256(f"split/{seed}/{site}/".encode())
    limit = int(fraction * 2**64)

    def draw(key: str) -> bytes:
        keyed = salt.copy()
        keyed.update(key.encode())
        return keyed.digest()[:8]

    if limit == 2**64:
        return np.ones(len(keys), bool)
    return np.frombuffer(b"".join(map(draw, keys)), ">u8") < np.uint64(limit)
