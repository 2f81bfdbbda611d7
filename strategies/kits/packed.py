"""What passes between a worker and the children that run a kit: arrays as bytes, and what is to be done with them.

>>> import numpy as np
>>> [tensor.tolist() for tensor in unpacked(packed(np.zeros((1, 2), np.float32), np.ones(1, np.float32)))]
[[[0.0, 0.0]], [1.0]]
"""

import io
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # the coordinator knows kits' models, and begins without PyTorch
    from torch import Tensor

GRADIENT, SCORE = b"g", b"s"  # what children are to do with patients
RECORD = b"r"  # how the question begins by which a record is to be decoded; packed arrays begin otherwise
_LENGTHS = struct.Struct("<II")


def packed(*arrays: NDArray[Any]) -> bytes:
    """Return arrays as bytes."""
    buffer = io.BytesIO()
    for array in arrays:
        np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def record(reader: str, path: str, content: bytes) -> bytes:
    """Return the question by which a record is to be decoded."""
    names = [reader.encode(), path.encode("utf-8", "surrogateescape")]
    return b"".join([RECORD, _LENGTHS.pack(*map(len, names)), *names, content])


def told(question: bytes) -> tuple[str, str, bytes]:
    """Return reader, path and content of a record's question."""
    start = len(RECORD) + _LENGTHS.size
    of_reader, of_path = _LENGTHS.unpack(question[len(RECORD) : start])
    reader, path = question[start : start + of_reader], question[start + of_reader : start + of_reader + of_path]
    return reader.decode(), path.decode("utf-8", "surrogateescape"), question[start + of_reader + of_path :]


def unpacked(content: bytes) -> "list[Tensor]":
    """Return the arrays that were packed."""
    import torch

    buffer, tensors = io.BytesIO(content), []
    while buffer.tell() < len(content):
        tensors.append(torch.from_numpy(np.load(buffer, allow_pickle=False)))
    return tensors
