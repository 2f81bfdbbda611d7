"""The interface of a reader, which decodes one record of one format.

A reader gets where one record lies, and sees no other. It may fail in any way: the record counts as unknown then, and
is counted for the hospital's own people.
"""

import importlib.util
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from numpy.typing import NDArray

from configs.errors import DataError
from configs.schema import Record
from strategies.data.source import Located, UnreadError, Why

MOST_READ = 1 << 28  # numbers of one record as it lies there


class Reader(ABC):
    """Reads records of one format. `needs`: the libraries that it imports, `extra`: what to install for them.

    `is_ready`: what it reads has the study's size and scale already, as the reader of a study kit says of itself.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = "images"
    is_ready: ClassVar[bool] = False

    @abstractmethod
    def read(self, record: Located, column: Record) -> NDArray[Any]:
        """Return what a record holds, as it is: (channels, sides...), or (sides...) of one channel.

        Args:
            column: as the study declares it; `labels` says that values are classes.

        Raises:
            UnreadError: it is no such record. Exception: whatever a library raises.
        """

    def require(self) -> None:
        """Check that the reader's libraries are installed, whatever the records hold.

        Raises:
            DataError: says what to install.
        """
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if missing:
            advice = f"pip install 'archipel[{self.extra}]'"
            raise DataError(f"reader {self.name}: expected the library {missing[0]}, found none; {advice}")


def require_readable(*sides: int) -> None:
    """Check a record's sides before it is decoded, as few bytes can stand for very many numbers.

    Raises:
        UnreadError: it has none, or too many.
    """
    if not 0 < math.prod(sides) <= MOST_READ:
        raise UnreadError(Why.TOO_LARGE if math.prod(sides) > 0 else Why.UNREADABLE)


def only_file(record: Located) -> str:
    """Return the path of a record that is one file.

    Raises:
        UnreadError: it is a folder of several.
    """
    if len(record.files) != 1:
        raise UnreadError(Why.UNREADABLE)
    return record.files[0]
