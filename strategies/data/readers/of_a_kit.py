"""Readers of study kits: a record is decoded by the kit, to the study's size and scale.

Only the kit that a process was told of is found by its name (strategies/kits/shelf.py); its code runs here, in the
process that holds the records.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.schema import Record
from strategies.data.readers.base import Reader, only_file
from strategies.data.source import Located
from strategies.kits.shelf import SHELF

FAMILY = "KIT/READER"


@dataclass(frozen=True)
class KitReader(Reader):
    """A kit's reader of one file; `name` is that of a study: kit/reader."""

    name: str  # type: ignore[misc]
    is_ready = True

    def read(self, record: Located, column: Record) -> NDArray[np.float32]:
        """Return what the kit makes of a record's file.

        Raises:
            UnreadError: it is a folder. KitError: the kit is not here. Exception: whatever the kit raises.
        """
        del column
        return SHELF.of_name(self.name.partition("/")[0]).reader(self.name).decode(only_file(record))

    def require(self) -> None:
        """Check that the kit is here.

        Raises:
            KitError: it is not.
        """
        SHELF.of_name(self.name.partition("/")[0]).reader(self.name)
