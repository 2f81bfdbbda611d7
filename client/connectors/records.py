"""The records of a CSV file's text.

These lines alone decide which of them are a record. A quotation mark that is never closed must not take other patients'
lines with it, yet free text of several lines is a proper cell (RFC 4180, section 2.6). So a quotation goes on over the
end of its line as long as no line within it could itself begin a record: by being one whole, or by opening a quotation
as RFC 4180 has it. A line with a stray quotation mark is left out alone, and every other record stays what it was.

>>> broken = 'p,"q,1\\na,2,3\\nb,5,"6\\nor 7"\\n'
>>> notes = Notes()
>>> list(records(broken, 3, notes))
[(2, ['a', '2', '3']), (3, ['b', '5', '6\\nor 7'])]
>>> notes.torn
1

Text in which lines look like records (a table that was pasted into a note) is read as `multiline` says: then whatever
stands between two quotation marks is one cell, and the file's keeper vouches for every mark. A dialect (`Form`) has
other signs and the same rules; a line that begins as its comments do is no record, and not counted.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from client.connectors.notes import Notes
from configs.schema.dialect import Dialect

if TYPE_CHECKING:
    from _csv import Reader

Record = tuple[int, list[str]]  # the number of its first line, its cells
_NEVER = re.compile(r"(?!)")


class Form:
    """The signs of one dialect, and how to tell by them whether a line could begin a record."""

    def __init__(self, dialect: Dialect, *, multiline: bool = False) -> None:
        self.separator, self.quote, self.comment = dialect.separator, dialect.quote, dialect.comment
        self.multiline = multiline
        self._escape = dialect.escape
        if not self.quote:
            self._ends = self._opens = _NEVER
            return
        sign, mark, escape = (re.escape(each) for each in (self.separator, self.quote, self._escape))
        within = f"(?:[^{mark}{escape}]++|{mark}{mark}" + (f"|{escape}.)*+" if escape else ")*+")
        outside = f"(?:[^{mark}{sign}{escape}\\r\\n]++" + (f"|{escape}.)*+" if escape else ")?+")
        first = f"(?>[^{mark}{sign}{escape}\\r\\n]++|{mark}{mark}" + (f"|{escape}.)*+" if escape else ")*+")
        # A line that ends a quotation: no first cell begins with a separator or a line break, or has one mark only, at
        # its end.
        self._ends = re.compile(rf"{first}{mark}\s*(?:{sign}|\Z)")
        # Whole cells, then one whose quotation does not end on this line.
        self._opens = re.compile(rf"(?>(?:{outside}|{mark}{within}{mark}){sign})*+{mark}{within}\Z", re.DOTALL)

    def reader(self, lines: Iterable[str]) -> "Reader":
        """Return the reader of the standard library with these signs."""
        return csv.reader(
            lines,
            strict=True,
            delimiter=self.separator,
            quotechar=self.quote or None,
            escapechar=self._escape or None,
            quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
        )

    def begins(self, line: str, width: int) -> bool:
        """Return whether a line could begin a record: it is a non-empty one by itself, or it opens a quotation."""
        if self._ends.match(line):
            return False
        if self._opens.match(line):
            return True
        if line.count(self.separator) < width - 1:
            return False
        try:
            row = next(self.reader([line]), [])
        except csv.Error:
            return False
        return _fits(row, width) and any(map(str.strip, row))

    def is_comment(self, line: str) -> bool:
        """Return whether a line is a comment."""
        return bool(self.comment) and line.startswith(self.comment)

    def has_a_mark(self, row: list[str]) -> bool:
        """Return whether the first cell ends with a quotation mark: it may be the only one of the line."""
        return bool(row) and bool(self.quote) and row[0].rstrip().endswith(self.quote)


STANDARD = Form(Dialect())


def records(
    text: str, width: int, notes: Notes, form: Form = STANDARD, number: int = 1, begin: int = 0
) -> Iterator[Record]:
    """Yield the records of `width` cells from position `begin` of the text on, which is in line `number` of its file.

    A line that begins none is noted and left out alone: reading goes on with the line after it.
    """
    stream, blank = io.StringIO(text, newline=""), 0
    stream.seek(begin)
    while True:
        reader, before, start = form.reader(stream), number, stream.tell()
        try:
            for row in reader:
                first, number = number, before + reader.line_num
                several = number - first > 1
                if (several and not _fits(row, width)) or (not form.multiline and (several or form.has_a_mark(row))):
                    number = first
                    raise csv.Error  # the lines are looked at one by one
                if form.comment and row and row[0].startswith(form.comment):
                    pass
                elif _fits(row, width):
                    notes.empty, blank = notes.empty + blank, 0
                    if several:
                        _note_rows_within(row, width, first, notes, form)
                    yield first, row
                elif not row:
                    blank += 1  # at the end they are everywhere, and not counted
                else:
                    notes.note_torn(first)
                start = stream.tell()
            return
        except csv.Error:
            stream.seek(start)
            row, lines = ([], 0) if form.multiline else _by_lines(stream, width, number, notes, form)
            if lines:
                notes.empty, blank = notes.empty + blank, 0
                yield number, row
            else:
                stream.seek(start)
                if not form.is_comment(stream.readline()):
                    notes.note_torn(number)
            number += max(1, lines)


def _by_lines(stream: io.StringIO, width: int, number: int, notes: Notes, form: Form) -> tuple[list[str], int]:
    """Return the record that begins where the stream stands, and how many lines it has.

    Nothing, and 0, where none does.
    """

    def lines() -> Iterator[str]:
        line = stream.readline()
        if form.is_comment(line) or not form.begins(line, width):
            return
        yield line
        while line := stream.readline():
            if form.begins(line, width):
                notes.note_within(number, 1)
                return
            yield line

    reader = form.reader(lines())
    try:
        row = next(reader, [])
    except csv.Error:
        return [], 0
    return (row, reader.line_num) if _fits(row, width) else ([], 0)


def _fits(row: list[str], width: int) -> bool:
    return len(row) == width or (len(row) > width and not any(row[width:]))  # empty cells do no harm


def _note_rows_within(row: list[str], width: int, first: int, notes: Notes, form: Form) -> None:
    """Note lines within a quotation that look like rows of their own: it may be one that was never meant to begin."""
    lines = [line for cell in row for line in cell.split("\n")[1:]]
    if count := sum(line.count(form.separator) >= width - 1 for line in lines):
        notes.note_within(first, count)
