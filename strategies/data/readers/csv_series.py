"""The reader of series as text: a line for each point in time, a column for each channel.

Columns stand apart by a tab, a semicolon, a comma or a space, the first of these that the lines have; a comma in a
number is its decimal point where it sets no columns apart. Lines before the first number are a header. A cell without
a number is unknown. Of a long series no more is worked on than the study reads: its beginning.
"""

import io
from collections.abc import Iterator
from itertools import dropwhile, islice
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
        with open(only_file(record), "rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UnreadError(Why.TOO_LARGE)
        text = content.decode("utf-8-sig")
        apart = next((mark for mark in _APART if any(mark in line for line in _lines(text))), None)
        read = (_numbers(line, apart, column.channels) for line in _lines(text))
        known = dropwhile(lambda row: np.isnan(row).all(), read)
        rows = list(islice(known, column.size[0]))
        if not rows or len({len(row) for row in rows}) > 1:
            raise UnreadError(Why.UNREADABLE)
        require_readable(len(rows), len(rows[0]))
        return np.asarray(rows, np.float64).T


def _lines(text: str) -> Iterator[str]:
    return (line.strip("\r\n") for line in io.StringIO(text, newline="\n") if line.strip())


def _numbers(line: str, apart: str | None, channels: int) -> list[float]:
    """Return a line's numbers; of more than the study's channels only so many that it shows."""
    cells = line.split(None if apart == " " else apart, channels)
    return [_number(cell if apart == "," else cell.replace(",", ".")) for cell in cells]


def _number(cell: str) -> float:
    try:
        return float(cell) if cell.isascii() and "_" not in cell else float("nan")
    except ValueError:
        return float("nan")


CSV_SERIES = CsvReader()
