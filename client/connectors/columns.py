"""Columns as a connector hands them over, in one of few forms; each answers the same questions with the same results.

What a column says is its text, a cell a row: so the same patients are the same bits from every store. A form only
saves work. `Cells` hold the text itself; `Coded` hold positions in a list of words, so that what is decided is decided
once a word; `Numbers` hold what a store with typed numbers has, and their text is the shortest that reads back as the
same number.

>>> forms = Cells(["1", "", "2.5"]), Coded(np.array([1, 0, 2]), ["", "1", "2.5"]), Numbers(np.array([1, np.nan, 2.5]))
>>> [column.texts() for column in forms]
[['1', '', '2.5'], ['1', '', '2.5'], ['1', '', '2.5']]
>>> [column.numbers().tolist() for column in forms]
[[1.0, nan, 2.5], [1.0, nan, 2.5], [1.0, nan, 2.5]]
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNKNOWN = float("nan")
FALSE_TRUE = ("false", "true")
_ZERO_ONE = ("0", "1")


def number(cell: str) -> float:
    """Return the finite number that a cell holds, else NaN.

    Python's underscores and non-ASCII digits are not numbers here.
    """
    try:
        value = float(cell) if cell.isascii() and "_" not in cell else UNKNOWN
    except ValueError:
        return UNKNOWN
    return value if math.isfinite(value) else UNKNOWN


def plain(cell: str) -> str:
    """Return a number in its shortest decimal form; any other cell as it is.

    >>> print(plain("50.00"), plain("2.50"), plain("1e3"), plain("stage ii"))
    50 2.5 1000 stage ii
    """
    value = number(cell)
    return cell if math.isnan(value) else shortest(value)


class Column(ABC):
    """One column of a source, a cell a row; no white space stands around a cell, and an empty one is unknown."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def numbers(self) -> NDArray[np.float64]:
        """Return (rows,) the finite number that each cell holds, else NaN."""

    @abstractmethod
    def each(self, decide: Callable[[str], Any], kind: type) -> NDArray[Any]:
        """Return (rows,) what a function makes of each cell's text; a text that comes again need not be asked again."""

    @abstractmethod
    def taken(self, rows: NDArray[np.int64]) -> "Column":
        """Return these rows alone, in their order."""

    @abstractmethod
    def texts(self) -> list[str]:
        """Return each row's text."""

    @abstractmethod
    def mapped(self, change: Callable[[str], str]) -> "Column":
        """Return the column with each cell's text changed."""

    def held(self) -> "Column":
        """Return the column in memory, where several questions are asked of it."""
        return self

    def changed(self, change: "Callable[[Column], Column]") -> "Column":
        """Return what a function makes of the column in memory."""
        return change(self)

    def empty(self) -> NDArray[np.bool_]:
        """Return (rows,) whether a cell is empty."""
        return self.each(lambda cell: not cell, bool)

    def written(self, words: Sequence[str]) -> "Column":
        """Return the column as the study writes it, whose listed words these are: of consequence for truth alone."""
        del words
        return self


@dataclass(frozen=True)
class Cells(Column):
    """Text, a cell a row."""

    cells: Sequence[str]

    def __len__(self) -> int:
        return len(self.cells)

    def numbers(self) -> NDArray[np.float64]:
        """Return (rows,) the finite number that each cell holds, else NaN."""
        return np.fromiter(map(number, self.cells), np.float64, len(self.cells))

    def each(self, decide: Callable[[str], Any], kind: type) -> NDArray[Any]:
        """Return (rows,) what a function makes of each cell's text."""
        decided = {cell: decide(cell) for cell in set(self.cells)}
        return np.fromiter(map(decided.__getitem__, self.cells), kind, len(self.cells))

    def taken(self, rows: NDArray[np.int64]) -> "Cells":
        """Return these rows alone, in their order."""
        return Cells([self.cells[row] for row in rows.tolist()])

    def texts(self) -> list[str]:
        """Return each row's text."""
        return list(self.cells)

    def mapped(self, change: Callable[[str], str]) -> "Cells":
        """Return the column with each cell's text changed."""
        changed = {cell: change(cell) for cell in set(self.cells)}
        return Cells([changed[cell] for cell in self.cells])

    def empty(self) -> NDArray[np.bool_]:
        """Return (rows,) whether a cell is empty."""
        return np.fromiter((not cell for cell in self.cells), bool, len(self.cells))


@dataclass(frozen=True)
class Coded(Column):
    """Words, and the position of each row's word: (rows,) integers. A word may stand there twice, or never be used.

    `is_truth`: the words are those of a store with booleans, which a study may list as true and false, or as 1 and 0.
    """

    codes: NDArray[Any]
    words: Sequence[str]
    is_truth: bool = False

    def __len__(self) -> int:
        return len(self.codes)

    def numbers(self) -> NDArray[np.float64]:
        """Return (rows,) the finite number that each cell holds, else NaN."""
        return self.each(number, float)

    def each(self, decide: Callable[[str], Any], kind: type) -> NDArray[Any]:
        """Return (rows,) what a function makes of each cell's text, asked once a word."""
        decided: NDArray[Any] = np.fromiter(map(decide, self.words), kind, len(self.words))[self.codes]
        return decided

    def taken(self, rows: NDArray[np.int64]) -> "Coded":
        """Return these rows alone, in their order."""
        return Coded(self.codes[rows], self.words, self.is_truth)

    def texts(self) -> list[str]:
        """Return each row's text."""
        return [self.words[code] for code in self.codes.tolist()]

    def mapped(self, change: Callable[[str], str]) -> "Coded":
        """Return the column with each word changed."""
        return Coded(self.codes, [change(word) for word in self.words])

    def written(self, words: Sequence[str]) -> "Coded":
        """Return a store's booleans as the study lists them: its false and true, or 0 and 1 where it lists neither.

        >>> truth = Coded(np.array([1, 0]), ["0", "1"], is_truth=True)
        >>> truth.written(["False", "True"]).texts(), truth.written(["0", "1"]).texts()
        (['True', 'False'], ['1', '0'])
        """
        if not self.is_truth:
            return self
        listed = {name: name for name in FALSE_TRUE} | {word.lower(): word for word in words}
        names = [listed[name] for name in FALSE_TRUE]
        spelled = dict(zip(_ZERO_ONE, names if {*names} & {*words} else _ZERO_ONE, strict=True))
        return Coded(self.codes, [spelled.get(word, word) for word in self.words])


@dataclass(frozen=True)
class Numbers(Column):
    """Numbers of a store that has typed ones: (rows,), NaN where it has none. Infinity is text that is no number."""

    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.values)

    def numbers(self) -> NDArray[np.float64]:
        """Return (rows,) the finite number that each cell holds, else NaN."""
        finite: NDArray[np.float64] = np.where(np.isinf(self.values), UNKNOWN, self.values)
        return finite

    def each(self, decide: Callable[[str], Any], kind: type) -> NDArray[Any]:
        """Return (rows,) what a function makes of each cell's text, asked once a number."""
        return self.coded().each(decide, kind)

    def taken(self, rows: NDArray[np.int64]) -> "Numbers":
        """Return these rows alone, in their order."""
        return Numbers(self.values[rows])

    def texts(self) -> list[str]:
        """Return each row's text."""
        return list(map(shortest, self.values.tolist()))

    def mapped(self, change: Callable[[str], str]) -> Column:
        """Return the column with each cell's text changed."""
        return self.coded().mapped(change)

    def empty(self) -> NDArray[np.bool_]:
        """Return (rows,) whether there is no number."""
        return np.isnan(self.values)

    def coded(self) -> Coded:
        """Return the same as words, told apart by their bits, as -0 is not written as 0."""
        bits = np.where(np.isnan(self.values), UNKNOWN, self.values).view(np.int64)
        different, codes = np.unique(bits, return_inverse=True)
        return Coded(codes, list(map(shortest, different.view(np.float64).tolist())))


@dataclass(frozen=True)
class Stored(Column):
    """A column that stays in its store until it is asked, and is read anew for each question."""

    rows: int
    load: Callable[[], Column]

    def __len__(self) -> int:
        return self.rows

    def held(self) -> Column:
        """Return the column in memory."""
        return self.load().held()

    def numbers(self) -> NDArray[np.float64]:
        """Return (rows,) the finite number that each cell holds, else NaN."""
        return self.held().numbers()

    def each(self, decide: Callable[[str], Any], kind: type) -> NDArray[Any]:
        """Return (rows,) what a function makes of each cell's text."""
        return self.held().each(decide, kind)

    def changed(self, change: Callable[[Column], Column]) -> "Stored":
        """Return what a function will make of the column, once it is read."""
        return Stored(self.rows, lambda: change(self.held()))

    def taken(self, rows: NDArray[np.int64]) -> "Stored":
        """Return these rows alone, in their order."""
        return Stored(len(rows), lambda: self.held().taken(rows))

    def texts(self) -> list[str]:
        """Return each row's text."""
        return self.held().texts()

    def mapped(self, change: Callable[[str], str]) -> "Stored":
        """Return the column with each cell's text changed."""
        return self.changed(lambda column: column.mapped(change))

    def empty(self) -> NDArray[np.bool_]:
        """Return (rows,) whether a cell is empty."""
        return self.held().empty()

    def written(self, words: Sequence[str]) -> "Stored":
        """Return the column as the study writes it."""
        return self.changed(lambda column: column.written(words))


def joined(pieces: Sequence[Column]) -> Column:
    """Return pieces of one column, one after the other; numbers that stand beside text are text too."""
    if not pieces:
        return Cells([])
    if all(isinstance(piece, Numbers) for piece in pieces):
        return Numbers(np.concatenate([piece.values for piece in pieces if isinstance(piece, Numbers)]))
    coded = [piece.coded() if isinstance(piece, Numbers) else piece for piece in pieces]
    if not all(isinstance(piece, Coded) for piece in coded):
        return Cells([cell for piece in pieces for cell in piece.texts()])
    positions, codes = dict[str, int](), []
    for piece in coded:
        assert isinstance(piece, Coded)
        places = [positions.setdefault(word, len(positions)) for word in piece.words]
        codes.append(np.asarray(places, np.int32)[piece.codes])
    is_truth = any(isinstance(piece, Coded) and piece.is_truth for piece in coded)
    return Coded(np.concatenate(codes), list(positions), is_truth)


def shortest(value: float) -> str:
    """Return a number's shortest decimal form, empty for NaN."""
    return "" if math.isnan(value) else repr(value).removesuffix(".0")
