"""Error messages for files in another format than comma-separated UTF-8 with a header line.

Each says what the file is and what to do about it. Only messages: nothing is read in another way because of it. No name
and no value of the file is ever in a text, as a file without a header has a patient in its first line.

>>> kind(b"PK\\x03\\x04...")
'an Excel workbook (.xlsx) or another zip archive; save it as "CSV UTF-8"'
>>> advice("sep=,\\nage,sex\\n", ["age", "sex"])
'line 1 is `sep=`, which only Excel reads: remove that line'
"""

import csv
import io
import unicodedata
from collections.abc import Collection

LINES = 20  # above which a header is looked for
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_KINDS = (
    (b"PK\x03\x04", 'an Excel workbook (.xlsx) or another zip archive; save it as "CSV UTF-8"'),
    (b"\xd0\xcf\x11\xe0", 'an old Excel workbook (.xls) or another Office file; save it as "CSV UTF-8"'),
    (b"\x1f\x8b", "a gzip archive; unpack it (gunzip)"),
    (b"BZh", "a bzip2 archive; unpack it (bunzip2)"),
    (b"\xfd7zXZ\x00", "an xz archive; unpack it (unxz)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it (unzstd)"),
    (b"PAR1", "a Parquet file; export it as CSV"),
    (b"SQLite format 3\x00", "an SQLite data base; export the table as CSV"),
    (b"%PDF-", "a PDF; export the data themselves as CSV"),
    (b"$FL2", "an SPSS file; export it as CSV"),
    (b"\x89HDF", "an HDF5 file; export it as CSV"),
    (b"\xff\xfe\x00\x00", "text in UTF-32; save it as UTF-8"),
    (b"\xff\xfe", 'text in UTF-16, as Excel\'s "Unicode text" is; save it as "CSV UTF-8"'),
    (b"\xfe\xff", 'text in UTF-16; save it as "CSV UTF-8"'),
)
# The bytes of é è ê à ç ô in the encodings that French machines write.
_ACCENTS = {
    "Windows-1252": (b"\xe9\xe8\xea\xe0\xe7\xf4", "cp1252"),
    "MacRoman": (b"\x8e\x8f\x90\x88\x8d\x99", "mac_roman"),
    "DOS code page 850": (b"\x82\x8a\x88\x85\x87\x93", "cp850"),
}


def kind(head: bytes) -> str:
    """Return what a file is by its first bytes, with the cure; empty for what may be text in UTF-8."""
    for mark, what in _KINDS:
        if head.startswith(mark):
            return what
    line = head.split(b"\n", 1)[0]
    if line.count(b"\0") > len(line) // 4:
        return 'text in UTF-16 without a mark at its beginning; save it as "CSV UTF-8"'
    return ""


def likely_encoding(data: bytes) -> str:
    """Return the likely encoding of bytes that are no UTF-8, by the accents that French texts have most.

    >>> likely_encoding("sevré, à Besançon".encode("mac_roman"))
    'MacRoman'
    """
    counts = {name: sum(data.count(byte) for byte in accents) for name, (accents, _) in _ACCENTS.items()}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else "Windows-1252"


def advice(text: str, wanted: Collection[str], data: bytes = b"") -> str:
    """Return what to do about a header that lacks columns, empty where the file's first lines do not say it.

    Args:
        text: the first lines. data: the same as bytes, where they are no UTF-8.
    """
    lines = text.splitlines()[:LINES]
    first = lines[0].strip().strip('"') if lines else ""
    if first.lower().startswith("sep=") and len(first) <= 5:
        rest = advice("\n".join(lines[1:]), wanted)
        return "line 1 is `sep=`, which only Excel reads: remove that line" + (f"; then {rest}" if rest else "")
    if (separated := _separated(lines[0] if lines else "", wanted)) is not None:
        return f"the columns are separated by {separated}: export with commas"
    for number, line in enumerate(lines[1:], 2):
        if set(wanted) <= set(_cells(line, ",")) or _separated(line, wanted) is not None:
            above = "line 1 stands" if number == 2 else f"lines 1 to {number - 1} stand"
            rest = advice(line, wanted)
            return f"{above} above the header, a title perhaps: remove what is above line {number}" + (
                f"; then {rest}" if rest else ""
            )
    return _otherwise_written(lines[0] if lines else "", wanted, data)


def _cells(line: str, separator: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader(io.StringIO(line), delimiter=separator), [])]
    except csv.Error:
        return []


def _separated(line: str, wanted: Collection[str]) -> str | None:
    """Return the other separator by which a line is the header, None where there is none."""
    for separator, name in SEPARATORS.items():
        cells = _cells(line, separator)
        if len(cells) > 1 and set(wanted) & set(cells) and len(cells) > len(_cells(line, ",")):
            return name
    return None


def _otherwise_written(line: str, wanted: Collection[str], data: bytes) -> str:
    """Return whether the header has the missing names in another encoding, or in other spaces, accents, capitals."""
    missing = set(wanted) - set(_cells(line, ","))
    if not missing:
        return ""
    if data and not _is_utf8(data):
        for name, (_, codec) in _ACCENTS.items():
            if missing <= set(_cells(data.split(b"\n", 1)[0].decode(codec, "replace"), ",")):
                return f"the file is no UTF-8 but {name}, it seems: save it as UTF-8"
        return f"the header is no UTF-8, perhaps {likely_encoding(data)}: save the file as UTF-8"
    if missing <= {twice_encoded(cell) for cell in _cells(line, ",")}:
        return "the file was written in UTF-8 and read as Windows-1252 once: export it again, and open it as UTF-8"
    folded = {_folded(cell) for cell in _cells(line, ",")}
    if all(_folded(name) in folded for name in missing):
        return "names there differ from the study's in capitals, accents or spaces alone: write them alike"
    return ""


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
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
