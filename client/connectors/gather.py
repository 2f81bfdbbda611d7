"""Cells of a query's rows, gathered as they arrive: held as numbers or as codes and words, not as text, where they can.

>>> numbers, words = gatherer("number", short), gatherer("category", short)
>>> for gathered in (numbers, words):
...     gathered.add(["1.50", None, "2"])
>>> numbers.column().numbers().tolist(), words.column().texts()
([1.5, nan, 2.0], ['1.5', '', '2'])
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from client.connectors.columns import Cells, Coded, Column, Numbers, joined, shortest

MOST_WORDS = 100_000  # of one column: beyond, as of ids, words are not looked up any more
Cell = str | float | None
Given = Sequence[Cell]
_INFINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}
Write = Callable[[str], str]


class Gatherer(ABC):
    """One column of the rows that have come so far. A cell is text, a float, or None where it is NULL."""

    @abstractmethod
    def add(self, cells: Given) -> None:
        """Take the cells of the next rows."""

    @abstractmethod
    def column(self) -> Column:
        """Return the column."""


def text_of_cell(cell: Cell, write: Write) -> str:
    """Return what would stand in a file; `write` makes it of a cell that came as text."""
    if isinstance(cell, float):
        return "NaN" if math.isnan(cell) else _INFINITE.get(cell) or shortest(cell)
    return "" if cell is None else write(cell)


class Texts(Gatherer):
    """Text of which most differs."""

    def __init__(self, write: Write) -> None:
        self._write, self._cells = write, list[str]()

    def add(self, cells: Given) -> None:
        """Take the cells of the next rows."""
        self._cells += [text_of_cell(cell, self._write) for cell in cells]

    def column(self) -> Column:
        """Return the column."""
        return Cells(self._cells)


class _Places(dict[Cell, int]):
    """Positions of words in the order in which they came."""

    def __missing__(self, word: Cell) -> int:
        self[word] = place = len(self)
        return place


class Words(Gatherer):
    """Text that comes again and again."""

    def __init__(self, write: Write) -> None:
        self._write, self._places, self._codes = write, _Places(), list[NDArray[np.int32]]()
        self._rest = Texts(write)

    def add(self, cells: Given) -> None:
        """Take the cells of the next rows."""
        if len(self._places) > MOST_WORDS:
            self._rest.add(cells)
        else:
            self._codes.append(np.fromiter(map(self._places.__getitem__, cells), np.int32, len(cells)))

    def column(self) -> Column:
        """Return the column."""
        words = [text_of_cell(word, self._write) for word in self._places]
        coded = Coded(np.concatenate([np.empty(0, np.int32), *self._codes]), words)
        rest = self._rest.column()
        return joined([coded, rest]) if len(rest) else coded


class Truths(Words):
    """A store's booleans, which come as t and f."""

    def __init__(self) -> None:
        super().__init__({"f": "0", "t": "1"}.__getitem__)

    def column(self) -> Column:
        """Return the column."""
        coded = super().column()
        assert isinstance(coded, Coded)
        return Coded(coded.codes, coded.words, is_truth=True)


class TypedNumbers(Gatherer):
    """Numbers of a column that can hold nothing else."""

    def __init__(self, write: Write) -> None:
        self._write, self._pieces = write, list[Column]()

    def add(self, cells: Given) -> None:
        """Take the cells of the next rows; what is not finite stays text, with those that came beside it."""
        values = np.array(cells, np.float64)  # of text too, and NaN of None
        unknown = np.count_nonzero(~np.isfinite(values))
        if unknown == 0 or unknown == cells.count(None):
            self._pieces.append(Numbers(values))
        else:
            self._pieces.append(Cells([text_of_cell(cell, self._write) for cell in cells]))

    def column(self) -> Column:
        """Return the column."""
        return joined(self._pieces)


def gatherer(read_as: str, write: Write, *, is_typed: bool = False) -> Gatherer:
    """Return what gathers one column.

    Args:
        read_as: "number", "category" or "text".
        write: makes of a cell what would stand in a file.
        is_typed: whether the store holds numbers in this column, and nothing else.
    """
    if read_as == "number" and is_typed:
        return TypedNumbers(write)
    return Texts(write) if read_as == "text" else Words(write)


def short(cell: str) -> str:
    """Return a decimal without closing zeros, every digit kept.

    >>> short("120.50"), short("100"), short("3.00"), short("12345678901234567890.10")
    ('120.5', '100', '3', '12345678901234567890.1')
    """
    return cell.rstrip("0").rstrip(".") if "." in cell else cell


def has_any(row: Given) -> bool:
    """Return whether there is anything in a row."""
    first = row[0] if row else None
    if isinstance(first, float) or (first and not first.isspace()):  # nearly always: a generator costs more
        return True
    return any(isinstance(cell, float) or (cell and not cell.isspace()) for cell in row)
