"""Files in another dialect than site.yaml says: what they are, and the very line to write there.

Only messages: nothing is read in another way because of them. No value of the file is ever in a text, as a file without
a header has a patient in its first line; a name is where it is a wanted one in other capitals, accents or spaces.

>>> kind(b"PK\\x03\\x04...", Dialect())
'an Excel workbook (.xlsx) or another zip archive; save it as "CSV UTF-8"'
>>> advice("sep=;\\nage;sex\\n", ["age", "sex"], CsvFile(Path("a.csv")))
'line 1 is `sep=`, which Excel writes and the columns are separated by semicolons: write \
dialect: {separator: semicolon, skip_lines: 1} beside path, or dialect: french where decimals have a comma'
"""

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path  # noqa: F401 - of the example above

from configs.schema import CsvFile
from configs.schema.dialect import ENCODINGS, SEPARATORS, Dialect, DialectKey

SAMPLE = 65_536  # bytes at the beginning of a file, to say what it is
_STANDARD = Dialect()
LINES = 20  # above which a header is looked for
_LINE_END = re.compile(r"\r\n|\r|\n")
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_KINDS = (
    (b"PK\x03\x04", 'an Excel workbook (.xlsx) or another zip archive; save it as "CSV UTF-8"'),
    (b"\xd0\xcf\x11\xe0", 'an old Excel workbook (.xls) or another Office file; save it as "CSV UTF-8"'),
    (b"\x1f\x8b", "a gzip archive; unpack it (gunzip)"),
    (b"BZh", "a bzip2 archive; unpack it (bunzip2)"),
    (b"\xfd7zXZ\x00", "an xz archive; unpack it (unxz)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it (unzstd)"),
    (b"PAR1", "a Parquet file; write connector: parquet"),
    (b"SQLite format 3\x00", "an SQLite data base; export the table as CSV"),
    (b"%PDF-", "a PDF; export the data themselves as CSV"),
    (b"$FL2", "an SPSS file; export it as CSV"),
    (b"\x89HDF", "an HDF5 file; export it as CSV"),
    (b"\xff\xfe\x00\x00", "text in UTF-32; save it as UTF-8"),
)
# The bytes of é è ê à ç ô in the encodings that French machines write.
_ACCENTS = {
    "Windows-1252": (b"\xe9\xe8\xea\xe0\xe7\xf4", "cp1252"),
    "MacRoman": (b"\x8e\x8f\x90\x88\x8d\x99", "macroman"),
    "DOS code page 850": (b"\x82\x8a\x88\x85\x87\x93", "cp850"),
}


def kind(head: bytes, dialect: Dialect = _STANDARD) -> str:
    """Return what a file is by its first bytes, with the cure; empty for what may be text of this dialect."""
    for mark, what in _KINDS:
        if head.startswith(mark):
            return what
    if dialect.encoding == "utf-16":
        return ""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return f'text in UTF-16, as Excel\'s "Unicode text" is; {_of_utf16(head, dialect)}'
    line = head.split(b"\n", 1)[0]
    if line.count(b"\0") > len(line) // 4:
        return f"text in UTF-16 without a mark at its beginning; {_of_utf16(head, dialect)}"
    return ""


def _of_utf16(head: bytes, dialect: Dialect) -> str:
    """Return the line to write for UTF-16, with the separator that its first line has most of."""
    line = head.split(b"\n", 1)[0].replace(b"\0", b"").decode("latin-1")
    separator = max((dialect.separator, *SEPARATORS.values()), key=line.count)
    return _line(replace(dialect, encoding="utf-16", separator=separator))


def _line(dialect: Dialect) -> str:
    """Return the line to write in site.yaml."""
    keys = ", ".join(f"{name}: {value}" for name, value in DialectKey().write(dialect).items())
    return f"write dialect: {{{keys}}} beside path"


def likely_encoding(data: bytes) -> str:
    """Return the likely encoding of bytes that are no UTF-8, by the accents that French texts have most.

    >>> likely_encoding("sevré, à Besançon".encode("mac_roman"))
    'MacRoman'
    """
    counts = {name: sum(data.count(byte) for byte in accents) for name, (accents, _) in _ACCENTS.items()}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else "Windows-1252"


def named_encoding(name: str) -> str:
    """Return how site.yaml names a likely encoding: cp1252 for Windows-1252."""
    return _ACCENTS[name][1]


@dataclass(frozen=True)
class _Reading:
    """The first lines read in one dialect: the cells of the line that would be its header."""

    dialect: Dialect
    cells: list[str]
    remarks: tuple[str, ...]

    def matches(self, wanted: Collection[str]) -> int:
        """Return how many wanted columns are there; one cell alone is a line's whole text."""
        return len(set(wanted) & set(self.cells)) if len(self.cells) > 1 or len(set(wanted)) == 1 else 0


def advice(text: str, wanted: Collection[str], source: CsvFile, head: bytes = b"") -> str:
    """Return what to do about a header that lacks columns, empty where the file's first lines do not say it.

    Args:
        text: the first lines, as they were read. head: the same as bytes.
    """
    readings = list(_readings(text, source.dialect, head))
    best = max(readings, key=lambda reading: reading.matches(wanted))  # the first of those, with the fewest changes
    if best.matches(wanted) > readings[0].matches(wanted):
        hint = ""
        if best.dialect.separator == ";" and source.dialect == Dialect():
            hint = ", or dialect: french where decimals have a comma"
        return f"{' and '.join(best.remarks)}: {_line(best.dialect)}{hint}"
    return _otherwise_written(readings[0].cells, wanted, source, head)


def _readings(text: str, dialect: Dialect, head: bytes) -> Iterator[_Reading]:
    """Yield the first lines in each dialect that they may have; the declared one first, then the fewest changes."""
    texts = [(dialect.encoding, "", text)]
    if head and dialect.encoding != "utf-16":
        texts += [
            (name, words, head.decode(codec, "replace")) for name, words, codec in _other_encodings(dialect, head)
        ]
    for encoding, encoded, lines in (
        (encoding, words, _LINE_END.split(each)[:LINES]) for encoding, words, each in texts
    ):
        for above in range(dialect.skip_lines, max(len(lines), dialect.skip_lines + 1)):
            line = lines[above] if above < len(lines) else ""
            for separator in dict.fromkeys((dialect.separator, *SEPARATORS.values())):
                remarks = (
                    _of_lines(lines, above, dialect),
                    "" if separator == dialect.separator else f"the columns are separated by {_NAMES[separator]}",
                    encoded,
                )
                other = replace(dialect, encoding=encoding, separator=separator, skip_lines=above)
                yield _Reading(other, _cells(line, separator), tuple(filter(None, remarks)))


def _of_lines(lines: list[str], above: int, dialect: Dialect) -> str:
    if above == dialect.skip_lines:
        return ""
    first = lines[0].strip().strip('"')
    if above == 1 and first.lower().startswith("sep=") and len(first) <= 5:
        return "line 1 is `sep=`, which Excel writes"
    lines_above = {1: "line 1 stands", 2: "lines 1 and 2 stand"}.get(above, f"lines 1 to {above} stand")
    return f"{lines_above} above the header"


def _other_encodings(dialect: Dialect, head: bytes) -> Iterator[tuple[str, str, str]]:
    """Yield encodings that the first bytes may have instead: name, remark, codec."""
    if _is_utf8(head):
        if dialect.encoding != "utf-8":
            yield "utf-8", "the file is UTF-8", "utf-8-sig"
        return
    for name, (_, encoding) in _ACCENTS.items():
        if ENCODINGS[encoding] != dialect.encoding:
            yield ENCODINGS[encoding], f"the file is no UTF-8 but {name}, it seems", ENCODINGS[encoding]


def _cells(line: str, separator: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader(io.StringIO(line), delimiter=separator), [])]
    except csv.Error:
        return []


def _otherwise_written(cells: list[str], wanted: Collection[str], source: CsvFile, head: bytes) -> str:
    """Return whether the header has the missing names in another encoding, or in other spaces, accents, capitals."""
    missing = [name for name in wanted if name not in cells]
    if missing and set(missing) <= {twice_encoded(cell) for cell in cells}:
        return "the file was written in UTF-8 and read as Windows-1252 once: export it again, and open it as UTF-8"
    folded = {_folded(cell): cell for cell in cells}
    if missing and all(_folded(name) in folded for name in missing):
        names = {local: name for name, local in source.columns}
        return (
            "names there differ from the wanted ones in capitals, accents or spaces alone: write "
            f"columns: {{{_pairs({names.get(name, name): folded[_folded(name)] for name in missing})}}} beside path"
        )
    if head and not _is_utf8(head.split(b"\n", 1)[0]) and source.dialect.encoding == "utf-8":
        name = likely_encoding(head)
        encoding = ENCODINGS[named_encoding(name)]
        return f"the header is no UTF-8, perhaps {name}: {_line(replace(source.dialect, encoding=encoding))}"
    return ""


def _pairs(names: Mapping[str, str]) -> str:
    """Return a mapping as YAML has it on one line."""
    return ", ".join(f"{quoted(name)}: {quoted(local)}" for name, local in names.items())


def quoted(name: str) -> str:
    """Return a name as YAML has it."""
    return name if re.fullmatch(r"[^\W\d][\w ()/.-]*", name) else "'" + name.replace("'", "''") + "'"


def _is_utf8(data: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)  # the last character may be cut off
    except UnicodeDecodeError:
        return False
    return True


def twice_encoded(text: str) -> str:
    """Return a text that was written in UTF-8 and read as Windows-1252 once, as it was; any other as it is.

    >>> twice_encoded("sevrÃ©"), twice_encoded("sevré")
    ('sevré', 'sevré')
    """
    try:
        return text.encode("cp1252").decode("utf-8")
    except (UnicodeEncodeError, UnicodeDecodeError):
        return text


def _folded(name: str) -> str:
    """Return a name without capitals, accents, and spaces of any kind."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return "".join(plain.casefold().split())
