"""The connector of CSV files: text in columns with a header -> columns of cells.

Without a dialect in site.yaml it is comma-separated UTF-8 with one header line. Only the study's columns are kept. What
the file as a whole or its header decides is refused, with what to do. What a line decides never is: a refusal would
tell that the line is there. A line with another number of cells, a broken quotation or the header again is no
patient's; bytes that are no text are kept apart from each other and match no word of a study. A cell in quotation marks
may have several lines; a quotation that is never closed takes no other row with it (records.py says how).

>>> demo = CsvFile(Path("demo.csv"))
>>> read_columns("age,sex\\n50,male\\n", ["age", "sex"], demo)
{'age': ['50'], 'sex': ['male']}
>>> read_columns("age,age\\n50,51\\n", ["age"], demo)
Traceback (most recent call last):
    ...
configs.errors.DataError: demo.csv: column 'age' stands twice in the header; keep one
"""

import codecs
import csv
import re
from collections.abc import Collection
from pathlib import Path
from typing import TextIO

from client.connectors.columns import Cells, Column
from client.connectors.csv_header import MAX_HEADER, Header, find_header
from client.connectors.dialects import SAMPLE, kind, likely_encoding, named_encoding, twice_encoded
from client.connectors.ids import looks_like_ids
from client.connectors.notes import Notes
from client.connectors.records import Form, records
from configs.errors import DataError, SourceError
from configs.schema import CsvFile
from configs.schema.dialect import EXCEL, Dialect

MOST_WORDS = 100_000  # of cells that are held once: ids would fill a dictionary for nothing
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_csv(source: CsvFile, wanted: Collection[str], optional: Collection[str], notes: Notes) -> dict[str, Column]:
    """Return the wanted columns of one file, and those optional ones that it has once; `notes` gets the lines' numbers.

    Raises:
        SourceError: it cannot be opened. DataError: it has no header, or one without a wanted column.
    """
    head = _head(source)
    text = _read_text(source, head)
    header = find_header(text, wanted, source, head)
    every = [*wanted, *(column for column in optional if header.count(column) == 1)]
    return {column: Cells(cells) for column, cells in _columns(text, every, header, source, notes).items()}


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
    head = _head(source)
    find_header(_read_text(source, head, MAX_HEADER), wanted, source, head)


def read_columns(
    text: str, wanted: Collection[str], source: CsvFile, notes: Notes | None = None, head: bytes = b""
) -> dict[str, list[str]]:
    """Return the wanted columns' cells as text, stripped of white space.

    Args:
        source: says how the text is written.
        notes: gets the counts of lines that are no patient's, and the number of each row's first line.
        head: the file's first bytes, to say what is wrong with its header.

    Raises:
        DataError: no header, or a wanted column is missing in it or given twice.
    """
    header = find_header(text, wanted, source, head)
    return _columns(text, wanted, header, source, Notes() if notes is None else notes)


def _columns(text: str, wanted: Collection[str], header: Header, source: CsvFile, notes: Notes) -> dict[str, list[str]]:
    notes.multiline, notes.read_as = source.multiline, source.dialect.encoding
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # refuses long cells for all readers otherwise
    cleaned = _Cells(notes)
    targets = [(header.index(column), list[str]()) for column in wanted]
    like_ids = [
        (header.index(column), notes.like(column)) for column in looks_like_ids(header.names) if notes.rows_are_patients
    ]
    form = Form(source.dialect, multiline=source.multiline)
    begin = header.end
    if source.dialect.escape:
        text, begin = _nulls(form).sub("", text[begin:]), 0
    for number, row in records(text, len(header.names), notes, form, header.line, begin):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            notes.empty += 1
        elif cells == header.names:
            notes.headers += 1
        else:
            notes.numbers.append(number)
            for position, column in targets:
                column.append(cleaned.of(cells[position], number))
            for position, different in like_ids:
                different.add(cells[position])
    cleaned.finish()
    return dict(zip(wanted, (column for _, column in targets), strict=True))


def _nulls(form: Form) -> re.Pattern[str]:
    """Return what matches a cell that is \\N and no more: unknown, where a backslash escapes."""
    sign = re.escape(form.separator)
    return re.compile(rf"(?:^|(?<={sign}))\\N(?={sign}|$)", re.MULTILINE)


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
            self._notes.encoding = named_encoding(likely_encoding(bytes(self._foreign)))

    def _in_utf8(self, cell: str, number: int) -> str:
        if any("\ud800" <= character <= "\udfff" for character in cell):
            data = cell.encode("utf-8", "surrogateescape")
            self._notes.note_foreign(number)
            self._foreign += data[: max(0, SAMPLE - len(self._foreign))]
            return data.decode("utf-8", "backslashreplace")
        self._notes.twice_encoded += twice_encoded(cell) != cell
        return cell


def _unreadable(path: Path, error: OSError) -> SourceError:
    hint = "; it has backslashes: write / between folders" if "\\" in str(path) else ""
    return SourceError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions{hint}")


def _head(source: CsvFile) -> bytes:
    """Return a file's first bytes.

    Raises:
        SourceError: it cannot be opened. DataError: it is no text as its dialect says, by its first bytes.
    """
    try:
        with source.path.open("rb") as file:
            head = file.read(SAMPLE)
    except OSError as error:
        raise _unreadable(source.path, error) from None
    if what := kind(head, source.dialect):
        wanted = "comma-separated text in UTF-8" if source.dialect == Dialect() else f"text ({source.dialect})"
        raise DataError(f"{source.path}: expected {wanted}, found {what}")
    return head


def _codec(dialect: Dialect, head: bytes) -> str:
    """Return the codec of a file of this dialect; one that says UTF-8 by its first bytes is that."""
    if dialect.encoding == "utf-16":
        return "utf-16" if head.startswith(_UTF16_MARKS) else "utf-16-le"
    if dialect.encoding == "utf-8" or head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    return "cp1252" if dialect.encoding == EXCEL else dialect.encoding


def _open(source: CsvFile, head: bytes) -> TextIO:
    """Open a file as text; a byte that is no text becomes half of a surrogate pair, each its own.

    Of UTF-16, which has no such way, it becomes the sign for what cannot be read.
    """
    errors = "replace" if source.dialect.encoding == "utf-16" else "surrogateescape"
    return source.path.open(encoding=_codec(source.dialect, head), errors=errors)


def _read_text(source: CsvFile, head: bytes, size: int = -1) -> str:
    try:
        with _open(source, head) as file:
            return file.read(size)
    except OSError as error:
        raise _unreadable(source.path, error) from None
