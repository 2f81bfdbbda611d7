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
stands between two quotation marks is one cell, and the file's keeper vouches for every mark.
"""

import csv
import io
import re
from collections.abc import Iterator

from client.connectors.notes import Notes

Record = tuple[int, list[str]]  # the number of its first line, its cells
# A line that ends a quotation: no first cell begins with a comma or a line break, or has one mark only, at its end.
_ENDS = re.compile(r'(?>[^",\r\n]++|"")*+"\s*(?:,|\Z)')
# Whole cells, then one whose quotation does not end on this line.
_OPENS = re.compile(r'(?>(?:[^",\r\n]*+|"(?:[^"]++|"")*+"),)*+"(?:[^"]++|"")*+\Z')


def records(text: str, width: int, notes: Notes, *, multiline: bool = False) -> Iterator[Record]:
    """Yield the records of `width` cells, the header among them.

    A line that begins none is noted and left out alone: reading goes on with the line after it.
    """
    stream, number, blank = io.StringIO(text, newline=""), 1, 0
    while True:
        reader, before, start = csv.reader(stream, strict=True), number, stream.tell()
        try:
            for row in reader:
                first, number = number, before + reader.line_num
                several = number - first > 1
                if (several and not _fits(row, width)) or (not multiline and (several or _has_a_mark(row))):
                    number = first
                    raise csv.Error  # the lines are looked at one by one
                if _fits(row, width):
                    notes.empty, blank = notes.empty + blank, 0
                    if several:
                        _note_rows_within(row, width, first, notes)
                    yield first, row
                elif not row:
                    blank += 1  # at the end they are everywhere, and not counted
                else:
                    notes.note_torn(first)
                start = stream.tell()
            return
        except csv.Error:
            stream.seek(start)
            row, lines = ([], 0) if multiline else _by_lines(stream, width, number, notes)
            if lines:
                notes.empty, blank = notes.empty + blank, 0
                yield number, row
            else:
                notes.note_torn(number)
                stream.seek(start)
                stream.readline()
            number += max(1, lines)


def _by_lines(stream: io.StringIO, width: int, number: int, notes: Notes) -> tuple[list[str], int]:
    """Return the record that begins where the stream stands, and how many lines it has.

    Nothing, and 0, where none does.
    """

    def lines() -> Iterator[str]:
        if not _begins(line := stream.readline(), width):
            return
        yield line
        while line := stream.readline():
            if _begins(line, width):
                notes.note_within(number, 1)
                return
            yield line

    reader = csv.reader(lines(), strict=True)
    try:
        row = next(reader, [])
    except csv.Error:
        return [], 0
    return (row, reader.line_num) if _fits(row, width) else ([], 0)


def _begins(line: str, width: int) -> bool:
    """Return whether a line could begin a record: it is a non-empty one by itself, or it opens a quotation."""
    if _ENDS.match(line):
        return False
    if _OPENS.match(line):
        return True
    if line.count(",") < width - 1:
        return False
    try:
        row = next(csv.reader([line], strict=True), [])
    except csv.Error:
        return False
    return _fits(row, width) and any(map(str.strip, row))


def _has_a_mark(row: list[str]) -> bool:
    """Return whether the first cell ends with a quotation mark: it may be the only one of the line."""
    return bool(row) and row[0].rstrip().endswith('"')


def _fits(row: list[str], width: int) -> bool:
    return len(row) == width or (len(row) > width and not any(row[width:]))  # empty cells do no harm


def _note_rows_within(row: list[str], width: int, first: int, notes: Notes) -> None:
    """Note lines within a quotation that look like rows of their own: it may be one that was never meant to begin."""
    lines = [line for cell in row for line in cell.split("\n")[1:]]
    if count := sum(line.count(",") >= width - 1 for line in lines):
        notes.note_within(first, count)
