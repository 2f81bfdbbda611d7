"""The bytes of a safetensors file, piece by piece, without a copy of the tensors.

>>> from safetensors.numpy import load
>>> load(as_bytes({"bias": np.ones(1, np.float32)}))
{'bias': array([1.], dtype=float32)}
"""

import json
import struct
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.exchange.pieces import pieces

_TYPES = {"<f4": "F32", "<f8": "F64"}


def safetensors(tensors: Mapping[str, NDArray[Any]], about: Mapping[str, str] | None = None) -> Iterator[Any]:
    """Yield the file as buffers.

    The format: a length, a header in JSON, the tensors, wide types first, then by name.

    Args:
        about: texts that are kept in the header (its `__metadata__`).
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(about)} if about else {}
    end = 0
    for name in order:
        start, end = end, end + tensors[name].nbytes
        kind = _TYPES[tensors[name].dtype.str]
        header[name] = {"dtype": kind, "shape": list(tensors[name].shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text))
    yield text
    for name in order:
        yield from pieces(np.asarray(tensors[name], order="C"))


def as_bytes(tensors: Mapping[str, NDArray[Any]], about: Mapping[str, str] | None = None) -> bytes:
    """Return the whole file, of tensors that are not large."""
    return b"".join(map(bytes, safetensors(tensors, about)))


def digest(tensors: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of the file."""
    hasher = sha256()
    for piece in safetensors(tensors):
        hasher.update(piece)
    return hasher.hexdigest()
