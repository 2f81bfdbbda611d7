"""The header of a CSV file: where it stands, its names, and the wanted ones among them.

A name matches a wanted one as it stands, or else by what two people would read: any kind of white space is a space, and
accents may be part of their letter or not.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

from client.connectors.checks import Misfits
from client.connectors.dialects import SAMPLE, advice, quoted
from client.connectors.notes import Notes
from client.connectors.records import Form, records
from configs.errors import DataError
from configs.schema import CsvFile
from configs.schema.dialect import SEPARATORS, Dialect

MAX_HEADER = 1_000_000  # characters: what is longer is no header, whatever it holds
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)


@dataclass(frozen=True)
class Header:
    """The names of a file's columns, as they stand, and where its rows begin: position in the text, and line."""

    names: list[str]
    end: int
    line: int
    spelled: dict[str, str]

    def index(self, name: str) -> int:
        """Return the position of a wanted column, or of one by the name that the file has."""
        return self.names.index(self.spelled.get(name, name))

    def count(self, name: str) -> int:
        """Return how many columns have the name."""
        return self.names.count(self.spelled.get(name, name))


def find_header(text: str, wanted: Collection[str], source: CsvFile, head: bytes = b"") -> Header:
    """Return the header, which must have each wanted name once; its names end on their line unless `multiline`.

    Args:
        text: the file's, at least MAX_HEADER characters of it.
        head: the file's first bytes, to say what is wrong with its header.

    Raises:
        DataError: it has not, or there is no header.
    """
    form, stream = Form(source.dialect, multiline=source.multiline), io.StringIO(text[:MAX_HEADER], newline="")
    start, number = _start(stream, source.dialect, form)
    reader = form.reader(stream if source.multiline else [stream.readline()])
    try:
        names = [cell.strip() for cell in next(reader, [])]
    except csv.Error:
        names = None
    lines = text[start : stream.tell()]
    if names is None or _has_a_row_within(lines, len(names), form):
        cure = "" if source.multiline else ", or, if a name in it has several lines, write multiline: true beside path"
        raise DataError(
            f"{source.path}: expected a header line, found a broken quotation in it; export it again{cure}"
        ) from None
    if not any(names):
        raise DataError(f"{source.path}: expected a header line, found an empty file; export the data again")
    spelled = _spelled(names, wanted)
    is_whole = all(name in names or name in spelled for name in wanted)
    _check(names, spelled, wanted, source, "" if is_whole else advice(text[:SAMPLE], wanted, source, head))
    for _ in range(source.dialect.header_lines - 1):
        stream.readline()
    return Header(names, stream.tell(), number + max(1, reader.line_num) + source.dialect.header_lines - 1, spelled)


def _check(names: list[str], spelled: dict[str, str], wanted: Collection[str], source: CsvFile, cure: str) -> None:
    misfits = Misfits(str(source.path))
    wished = {file_name: name for name, file_name in spelled.items()}
    header = [wished.get(name, name) for name in names]
    misfits.check_header(header, list(wanted), "the header", "keep one", cure or _naming(header, wanted, source))
    misfits.raise_if_any()


def _naming(header: Collection[str], wanted: Collection[str], source: CsvFile) -> str:
    """Return what to do about columns that are not there, by any name that the first lines tell."""
    mapped = {*dict(source.columns).values(), *(name for dates in source.dates for name in dates.columns)}
    missing = [name for name in wanted if name not in header]
    if mapped.issuperset(missing):
        return "add them, or correct their names in columns or dates beside path"
    name = next(name for name in missing if name not in mapped)
    cure = f"add them, or say what they are called there: columns: {{{quoted(name)}: LOCAL COLUMN}} beside path"
    if len(missing) < len(wanted):
        return cure
    separator = _likely_separator(next(iter(header)), source.dialect) if len(header) == 1 else ""
    if separator:
        line = f"dialect: {{separator: {separator}}}"
        return f"one name stands there, with the sign {separator} in it: write {line}, and then {cure}"
    return f"{cure}; is the first line a header?"


def _likely_separator(line: str, dialect: Dialect) -> str:
    """Return the name of the sign that a header without the declared separator has instead, empty where it has none.

    >>> _likely_separator("IPP;Sexe;Date", Dialect()), _likely_separator("ipp,sexe;date", Dialect())
    ('semicolon', '')
    """
    if dialect.separator in line:
        return ""
    counts = {name: line.count(sign) for name, sign in SEPARATORS.items()}
    return max(counts, key=lambda name: counts[name]) if any(counts.values()) else ""


def _start(stream: io.StringIO, dialect: Dialect, form: Form) -> tuple[int, int]:
    """Pass over what stands above the header; return the header's position and line."""
    number = 1
    for _ in range(dialect.skip_lines):
        number += bool(stream.readline())
    while True:
        start = stream.tell()
        line = stream.readline()
        is_above = _names_separator(line, dialect) or form.is_comment(line) or (form.comment and line.isspace())
        if not line or not is_above:
            stream.seek(start)
            return start, number
        number += 1


def _names_separator(line: str, dialect: Dialect) -> bool:
    """Return whether a line is `sep=;`, of a file that site.yaml says to be written otherwise than the standard."""
    match = _SEPARATOR_LINE.fullmatch(line.rstrip("\r\n"))
    return match is not None and match[1] == dialect.separator and dialect != Dialect()


def _spelled(names: Collection[str], wanted: Collection[str]) -> dict[str, str]:
    """Return how the file spells a wanted name that it has otherwise: one name alone, in other spaces or accents."""
    tidy: dict[str, set[str]] = {}
    for name in names:
        tidy.setdefault(_tidy(name), set()).add(name)
    spelled = {name: tidy.get(_tidy(name), set()) for name in wanted if name not in names}
    return {name: each.pop() for name, each in spelled.items() if len(each) == 1}


def _tidy(name: str) -> str:
    """Return a name with its accents composed, plain spaces, and no invisible characters.

    >>> _tidy("Age\u00a0(ans)") == "Age (ans)", _tidy("e\u0301ge\u200b") == "\u00e9ge"
    (True, True)
    """
    visible = "".join(c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c) != "Cf")
    return " ".join(visible.split())


def _has_a_row_within(lines: str, width: int, form: Form) -> bool:
    """Return whether a line after the first could be a row: then the header never ended."""
    within = list(io.StringIO(lines, newline=""))[1:]
    return any(number for line in within for number, _ in records(line, width, Notes(), form))
