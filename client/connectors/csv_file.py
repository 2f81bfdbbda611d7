"""The connector of CSV files: comma-separated UTF-8 with one header line -> a typed `Table`.

Only the study's columns are kept. What the file as a whole or its header decides is refused, with what to do. What a
line decides never is: a refusal would tell that the line is there. A line with another number of cells, a broken
quotation or the header again is no patient's; bytes that are no UTF-8 are kept apart from each other and match no word
of a study. A cell in quotation marks may have several lines; a quotation that is never closed takes no other row with
it (records.py says how).

>>> read_columns("age,sex\\n50,male\\n", ["age", "sex"], "demo.csv")
{'age': ['50'], 'sex': ['male']}
>>> read_columns("age,age\\n50,51\\n", ["age"], "demo.csv")
Traceback (most recent call last):
    ...
configs.errors.DataError: demo.csv: column 'age' stands twice in the header; keep one
"""

import csv
import io
from collections.abc import Collection
from pathlib import Path
from typing import TextIO

from client.connectors.checks import Misfits
from client.connectors.columns import Cells, Column
from client.connectors.dialects import advice, kind, likely_encoding, twice_encoded
from client.connectors.ids import looks_like_ids
from client.connectors.notes import Notes
from client.connectors.records import records
from configs.errors import DataError, SourceError
from configs.schema import CsvFile

SAMPLE = 65_536  # bytes at the beginning of a file, to say what it is
MOST_WORDS = 100_000  # of cells that are held once: ids would fill a dictionary for nothing
MAX_HEADER = 1_000_000  # characters: what is longer is no header, whatever it holds


def read_csv(source: CsvFile, wanted: Collection[str], optional: Collection[str], notes: Notes) -> dict[str, Column]:
    """Return the wanted columns of one file, and those optional ones that it has once; `notes` gets the lines' numbers.

    Raises:
        SourceError: it cannot be opened. DataError: it has no header, or one without a wanted column.
    """
    head, text, name = _head(source.path), _read_text(source.path), str(source.path)
    header = _header(text, wanted, name, head, multiline=source.multiline)
    every = [*wanted, *(column for column in optional if header.count(column) == 1)]
    columns = read_columns(text, every, name, notes, head, multiline=source.multiline)
    return {column: Cells(cells) for column, cells in columns.items()}


def probe_csv(source: CsvFile, wanted: Collection[str]) -> None:
    """See whether the file opens and its header has the wanted columns; no row is looked at.

    A pipe is left alone: what is read from it is gone, and a reader may wait for long.

    Raises:
        SourceError, DataError: as `read_csv`.
    """
    try:
        if source.path.is_fifo():
            return
    except OSError as error:
        raise _unreadable(source.path, error) from None
    head = _head(source.path)
    try:
        with _open(source.path) as file:
            text = file.readline(MAX_HEADER)
            while source.multiline and text.count('"') % 2 and len(text) < MAX_HEADER:
                if not (line := file.readline(MAX_HEADER)):
                    break
                text += line  # a name with a line break in it
    except OSError as error:
        raise _unreadable(source.path, error) from None
    _header(text, wanted, str(source.path), head, multiline=source.multiline)


def read_columns(
    text: str,
    wanted: Collection[str],
    name: str,
    notes: Notes | None = None,
    head: bytes = b"",
    *,
    multiline: bool = False,
) -> dict[str, list[str]]:
    """Return the wanted columns' cells as text, stripped of white space.

    Args:
        notes: gets the counts of lines that are no patient's, and the number of each row's first line.
        head: the file's first bytes, to say what is wrong with its header.
        multiline: whatever stands between two quotation marks is one cell, in the header too.

    Raises:
        DataError: no header, or a wanted column is missing in it or given twice.
    """
    notes = Notes() if notes is None else notes
    notes.multiline = multiline
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # refuses long cells for all readers otherwise
    header = _header(text, wanted, name, head, multiline=multiline)
    cleaned = _Cells(notes)
    targets = [(header.index(column), list[str]()) for column in wanted]
    like_ids = [
        (header.index(column), notes.like(column)) for column in looks_like_ids(header) if notes.rows_are_patients
    ]
    for number, row in records(text, len(header), notes, multiline=multiline):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            notes.empty += 1
        elif cells == header:
            notes.headers += number > 1
        else:
            notes.numbers.append(number)
            for position, column in targets:
                column.append(cleaned.of(cells[position], number))
            for position, different in like_ids:
                different.add(cells[position])
    cleaned.finish()
    return dict(zip(wanted, (column for _, column in targets), strict=True))


class _Cells:
    """Cells as they are kept: a word that comes again is held once, bytes that are no UTF-8 are escaped and counted."""

    def __init__(self, notes: Notes) -> None:
        self._notes, self._words, self._foreign = notes, dict[str, str](), bytearray()

    def of(self, cell: str, number: int) -> str:
        """Return a cell of the record that begins on line `number`."""
        if not cell.isascii():
            cell = self._in_utf8(cell, number)
        if (word := self._words.get(cell)) is not None:
            return word
        if len(self._words) < MOST_WORDS:
            self._words[cell] = cell
        return cell

    def finish(self) -> None:
        """Note the encoding that bytes which are no UTF-8 are likely in."""
        if self._foreign:
            self._notes.encoding = likely_encoding(bytes(self._foreign))

    def _in_utf8(self, cell: str, number: int) -> str:
        if any("\ud800" <= character <= "\udfff" for character in cell):
            data = cell.encode("utf-8", "surrogateescape")
            self._notes.note_foreign(number)
            self._foreign += data[: max(0, SAMPLE - len(self._foreign))]
            return data.decode("utf-8", "backslashreplace")
        self._notes.twice_encoded += twice_encoded(cell) != cell
        return cell


def _header(text: str, wanted: Collection[str], name: str, head: bytes = b"", *, multiline: bool = False) -> list[str]:
    """Return the names in the header, which must have each wanted one once; it ends on its line unless `multiline`.

    Raises:
        DataError: it has not, or there is no header.
    """
    lines = io.StringIO(text[:MAX_HEADER], newline="")
    reader = csv.reader(lines if multiline else [lines.readline()], strict=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
    except csv.Error:
        header = None
    if header is None or _has_a_row_within(text, reader.line_num, len(header)):
        cure = "" if multiline else ", or, if a name in it has several lines, write multiline: true beside path"
        raise DataError(
            f"{name}: expected a header line, found a broken quotation in it; export it again{cure}"
        ) from None
    if not any(header):
        raise DataError(f"{name}: expected a header line, found an empty file; export the data again")
    misfits = Misfits(name)
    sample = text if len(head) < len(text) else head.decode("utf-8", "replace")  # a probe has read no further
    misfits.check_header(header, wanted, "the header", "keep one", advice(sample[:SAMPLE], wanted, head) or "add them")
    misfits.raise_if_any()
    return header


def _has_a_row_within(text: str, count: int, width: int) -> bool:
    """Return whether a line after the first, up to `count`, could be a row: then the header never ended."""
    stream = io.StringIO(text[:MAX_HEADER], newline="")
    within = [line for line, _ in zip(stream, range(count), strict=False)][1:]
    return any(number for line in within for number, _ in records(line, width, Notes()))


def _unreadable(path: Path, error: OSError) -> SourceError:
    hint = "; it has backslashes: write / between folders" if "\\" in str(path) else ""
    return SourceError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions{hint}")


def _head(path: Path) -> bytes:
    """Return a file's first bytes.

    Raises:
        SourceError: it cannot be opened. DataError: it is no text in UTF-8, by its first bytes.
    """
    try:
        with path.open("rb") as file:
            head = file.read(SAMPLE)
    except OSError as error:
        raise _unreadable(path, error) from None
    if what := kind(head):
        raise DataError(f"{path}: expected comma-separated text in UTF-8, found {what}")
    return head


def _open(path: Path) -> TextIO:
    """Open a file as text; a byte that is no UTF-8 becomes half of a surrogate pair, each its own."""
    return path.open(encoding="utf-8-sig", errors="surrogateescape")


def _read_text(path: Path) -> str:
    try:
        with _open(path) as file:
            return file.read()
    except OSError as error:
        raise _unreadable(path, error) from None
