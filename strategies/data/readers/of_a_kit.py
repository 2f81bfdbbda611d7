"""Readers of study kits: a record is decoded by the kit, to the study's size and scale.

Only the kit that a process was told of is found by its name (strategies/kits/shelf.py). Where a hospital runs kits in
children, a child is given the bytes of the one file, and its answer has the declared number of float32 or is unknown;
elsewhere the kit's code runs here, in the process that holds the records.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.schema import Record
from strategies.data.readers.base import Reader, only_file
from strategies.data.source import Located, UnreadError, Why
from strategies.kits.shelf import SHELF

FAMILY = "KIT/READER"
_FLOAT32, _MOST_BYTES = 4, 1 << 29


@dataclass(frozen=True)
class KitReader(Reader):
    """A kit's reader of one file; `name` is that of a study: kit/reader."""

    name: str  # type: ignore[misc]
    is_ready = True

    def read(self, record: Located, column: Record) -> NDArray[np.float32]:
        """Return what the kit makes of a record's file.

        Raises:
            UnreadError: it is a folder, or a child does not decode it. KitError: the kit is not here. Exception:
                whatever the kit raises.
        """
        path = only_file(record)
        if SHELF.run == "forked":
            return self._of_child(path, column.full_shape)
        return SHELF.of_name(self.name.partition("/")[0]).reader(self.name).decode(path)

    def _of_child(self, path: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if SHELF.children is None or len(content) > _MOST_BYTES:
            raise UnreadError(Why.UNREADABLE)
        decoded = SHELF.children.record(self.name, path, content, _FLOAT32 * math.prod(shape))
        if decoded is None:
            raise UnreadError(Why.UNREADABLE)
        return np.frombuffer(decoded, np.float32).reshape(shape)

    def require(self) -> None:
        """Check that the kit is here and has such a reader; nothing of it is executed.

        Raises:
            KitError: it is not, or has none.
        """
        SHELF.require_reader(self.name)
