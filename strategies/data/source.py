"""A hospital's rows as a connector returns them: typed, checked columns."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray


class Why(Enum):
    """Why a record is not read, in words for the hospital's own people."""

    UNKNOWN = "no path"
    MISSING = "no such file"
    OUTSIDE = "outside of the folder root"
    NO_FILE = "neither a file nor a folder of files"
    TOO_LARGE = "more bytes, files or pixels than one record may have"
    UNREADABLE = "broken, not whole, or of another format"
    SHAPE = "another number of axes or channels"


class UnreadError(Exception):
    """A record that is not read. It never leaves: the record counts as unknown."""

    def __init__(self, why: Why) -> None:
        super().__init__(f"a record is not read: {why.value}")
        self.why = why


@dataclass(frozen=True, slots=True)
class Located:
    """Where one record lies: its path, and its files, which are several where it is a folder of slices."""

    path: str
    files: tuple[str, ...]


class Files(Protocol):
    """The place of records, which alone looks at folders. Rows name records by texts."""

    def find(self, text: str) -> Located:
        """Return where a record lies.

        Raises:
            UnreadError: it is not there, it lies elsewhere, or it is nothing that is opened.
        """

    def digest(self, text: str) -> bytes:
        """Return a SHA-256 of what a record's files hold, of nothing for one that cannot be read."""


Values = TypeVar("Values")


class WhenAsked(Mapping[str, Values]):
    """Columns that are read anew each time they are asked for, so that one at a time is in memory."""

    def __init__(self, makers: Mapping[str, Callable[[], Values]]) -> None:
        self._makers = makers

    def __getitem__(self, name: str) -> Values:
        """Read one column."""
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


@dataclass(frozen=True)
class Table:
    """Columns of one hospital. A number that is unknown is NaN, a category that is unknown is -1.

    `targets` are the columns that the outcome is read from: (rows,) numbers, or positions in the column's values.
    `patients` maps each row to a position in `keys`: (rows,) integers, every patient having one row or more.
    `records` are the texts of columns of paths, (rows,) each; `files` finds what they lead to.
    `in_test` is given where a column of the data decides the split: (patients,) booleans.
    """

    numbers: Mapping[str, NDArray[np.float64]]
    categories: Mapping[str, NDArray[np.int64]]
    targets: Mapping[str, NDArray[np.float64]]
    patients: NDArray[np.int64]
    keys: tuple[str, ...]
    in_test: NDArray[np.bool_] | None = None
    records: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    files: Files | None = None
