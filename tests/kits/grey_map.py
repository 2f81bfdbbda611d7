"""A toy reader: PGM pictures ("portable grey map"), whose numbers stand there as text. Not part of the product."""

import numpy as np
from numpy.typing import NDArray

from configs.schema import Record
from configs.schema.records import ReaderKeys
from strategies.data.readers.base import Reader, only_file, require_readable
from strategies.data.readers.registry import register
from strategies.data.source import Located, UnreadError, Why


class GreyMapReader(Reader):
    """Reads PGM files of text."""

    name = "grey map"

    def read(self, record: Located, column: Record) -> NDArray[np.int64]:
        """Return (height, width), values as they stand there."""
        del column
        with open(only_file(record), encoding="ascii") as file:
            magic, *numbers = file.read().split()
        if magic != "P2":
            raise UnreadError(Why.UNREADABLE)
        width, height, _, *values = map(int, numbers)
        require_readable(height, width)
        return np.array(values, np.int64).reshape(height, width)


def install() -> None:
    """Let studies name it."""
    register(GreyMapReader(), ReaderKeys("grey map", axes=(2,)))
