"""Large parts of messages, kept in files.

So a coordinator's memory does not grow with its hospitals. This is for the process that conducts a run;
server/superlink/store.py is for the SuperLink. The kernel keeps the files in memory or not. Nothing is left behind:
they have no name.
"""

import itertools
import math
import mmap
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.frame import Buffer, MappedFile
from strategies.exchange.objects import ARRAY, CHUNK, Parts, chunk_body

LARGE_BYTES = 1_000_000  # of a part that lies in a file
FILED_BYTES = 200_000_000  # of an array that is worked on in a file
_ALIGNMENT = 64


class SpooledParts(Parts):
    """A message on its way, its large arrays in a file without a name, from which they are mapped.

    Parts come in Flower's order, an array's chunks before it; so each array is one piece of the file. Where they come
    in another, its chunks are put together in memory.
    """

    in_order = True

    def __init__(self, max_bytes: int, folder: Path) -> None:
        super().__init__(max_bytes)
        self._folder = folder
        self._file: Any = None
        self._places: dict[str, tuple[int, int]] = {}  # chunk -> from where to where in the file
        self._end, self._in_array = 0, False
        self._map: memoryview | None = None

    def forget(self) -> None:
        """Let go of every part; arrays that were made of them stay."""
        super().forget()
        if self._file is not None:
            self._file.close()

    def _keep(self, object_id: str, content: bytes) -> None:
        """Keep a part.

        Raises:
            OSError: the disk is full.
        """
        if content.startswith(ARRAY):
            self._end, self._in_array = -(-self._end // _ALIGNMENT) * _ALIGNMENT, False
        if content.startswith(CHUNK) and (self._in_array or len(content) >= LARGE_BYTES):
            start = self._end
            self._write(chunk_body(content))
            self._places[object_id], self._in_array = (start, self._end), True
        else:
            super()._keep(object_id, content)

    def _joined(self, chunks: Sequence[str], uses: Counter[str]) -> Buffer:
        places = [self._places[chunk] for chunk in chunks if chunk in self._places]
        if places and len(places) == len(chunks) and all(a[1] == b[0] for a, b in itertools.pairwise(places)):
            return self._mapped()[places[0][0] : places[-1][1]]
        return super()._joined(chunks, uses)

    def _body(self, chunk: str) -> memoryview:
        if chunk in self._places:
            start, end = self._places[chunk]
            return self._mapped()[start:end]
        return super()._body(chunk)

    def _mapped(self) -> memoryview:
        """Return the whole file; no part comes any more."""
        if self._map is None:
            self._map = memoryview(MappedFile(self._file.fileno(), 0, access=mmap.ACCESS_READ))
        return self._map

    def _write(self, body: memoryview) -> None:
        if self._file is None:
            self._file = TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 - see forget
        while len(body):
            written = os.pwrite(self._file.fileno(), body, self._end)
            self._end, body = self._end + written, body[written:]


def zeros(shape: tuple[int, ...], folder: Path, filed_bytes: int = FILED_BYTES) -> NDArray[np.float64]:
    """Return zeros to work on: from `filed_bytes` on in a file without a name, which goes with the array.

    Raises:
        OSError: the disk is full.
    """
    size = 8 * math.prod(shape)
    if size < filed_bytes:
        return np.zeros(shape)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder, buffering=0) as file:
        os.truncate(file.fileno(), size)
        if hasattr(os, "posix_fallocate"):  # a disk that is full is an error here, not a killed process later
            os.posix_fallocate(file.fileno(), 0, size)
        return np.frombuffer(MappedFile(file.fileno(), size), np.float64).reshape(shape)
