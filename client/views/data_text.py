"""The page of a look at data as lines for a terminal."""

import textwrap
from collections.abc import Iterator, Sequence

from configs.records.data_page import ColumnLook, DataFinding, DataPage
from configs.shown import escaped

WIDTH = 100
_HEAD = ("column", "read as", "expected", "read", "unknown", "not read", "outside")
_LONGEST = (30, 10, 34)  # of the texts in the first columns
_NONE = "-"


def data_page(view: DataPage, section: str) -> Iterator[str]:
    """Yield the lines of a page.

    Args:
        section: where a line that mends something belongs, in words.
    """
    yield f"{view.rows:,} rows, {view.patients:,} patients, of {view.counted:,} {_rows(view.counted)} that count"
    if view.test is not None:
        yield f"{view.train:,} patients to train on, {view.test:,} kept aside for the test"
    yield ""
    yield from table([_HEAD, *map(_cells, view.columns)], len(_LONGEST))
    yield ""
    yield from findings(view.findings, section)


def findings(noted: Sequence[DataFinding], section: str) -> Iterator[str]:
    """Yield the lines of findings; `section` says where a line that mends something belongs."""
    if not noted:
        yield "nothing odd was found"
    for finding in noted:
        about = f"{escaped(finding.column)}: " if finding.column else ""
        yield from textwrap.wrap(f"! {about}{finding.text}", WIDTH, subsequent_indent="  ")
        if finding.todo:
            yield from textwrap.wrap(f"  what: {finding.todo}", WIDTH, subsequent_indent="        ")
        if finding.line:
            yield f"  line: {finding.line}"
    if any(finding.line for finding in noted):
        yield f"lines belong under {section}; words in capitals are to be replaced"


def _cells(column: ColumnLook) -> tuple[str, ...]:
    expected = f"{column.expected} {column.unit}".strip()
    counts = (column.unknown, column.unread, column.outside)
    texts = (
        _cut(escaped(text), most) for text, most in zip((column.name, column.kind, expected), _LONGEST, strict=True)
    )
    return (*texts, f"{column.read:,}", *(share(count, column.rows) for count in counts))


def table(rows: Sequence[Sequence[str]], texts: int) -> Iterator[str]:
    """Yield rows with their cells below each other; the first `texts` columns are words, the others figures."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if place < texts else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def share(count: int, rows: int) -> str:
    """Return a count with its share of the rows; 0 % and 100 % say none and all.

    >>> share(0, 10), share(3, 10), share(1, 1000), share(999, 1000)
    ('-', '3 (30 %)', '1 (under 1 %)', '999 (over 99 %)')
    """
    if not count:
        return _NONE
    percent = 100 * count / max(1, rows)
    words = "under 1" if percent < 1 else "over 99" if 99 < percent < 100 else f"{percent:.0f}"
    return f"{count:,} ({words} %)"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _rows(count: int) -> str:
    return "row" if count == 1 else "rows"
