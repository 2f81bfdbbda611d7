"""The reader of series as text: a line for each point in time, a column for each channel.

Columns stand apart by a tab, a semicolon, a comma or a space, the first of these that the lines have; a comma in a
number is its decimal point where it sets no columns apart. Lines before the first number are a header. A cell without
a number is unknown.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.schema import Record
from strategies.data.readers.base import Reader, only_file, require_readable
from strategies.data.source import Located, UnreadError, Why

_APART = "\t;, "
MOST_BYTES = 1 << 28


class CsvReader(Reader):
    """Reads series from CSV files."""

    name = "csv"

    def read(self, record: Located, column: Record) -> NDArray[Any]:
        """Return (channels, length), NaN where a cell holds no number."""
        del column
        with open(only_file(record), "rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UnreadError(Why.TOO_LARGE)
        lines = [line.strip("\r") for line in content.decode("utf-8-sig").split("\n") if line.strip()]
        apart = next((mark for mark in _APART if any(mark in line for line in lines)), None)
        rows = [_numbers(line, apart) for line in lines]
        first = next((i for i, row in enumerate(rows) if not np.isnan(row).all()), len(rows))
        rows = rows[first:]
        if not rows or len({len(row) for row in rows}) > 1:
            raise UnreadError(Why.UNREADABLE)
        require_readable(len(rows), len(rows[0]))
        return np.asarray(rows, np.float64).T


def _numbers(line: str, apart: str | None) -> list[float]:
    cells = line.split() if apart in (None, " ") else line.split(apart)
    return [_number(cell if apart == "," else cell.replace(",", ".")) for cell in cells]


def _number(cell: str) -> float:
    try:
        return float(cell) if cell.isascii() and "_" not in cell else float("nan")
    except ValueError:
        return float("nan")


CSV_SERIES = CsvReader()
