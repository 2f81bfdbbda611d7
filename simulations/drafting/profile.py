"""What the columns of a researcher's own file look like: numbers, categories, dates, ids, text.

A help to write a study's features; ranges and values belong in it from public documentation all the same. Of columns
that look like ids or text no cell is told.

>>> from client.connectors.columns import Cells
>>> [looked_at("x", Cells(cells)).looks_like for cells in (["1.5", "2.5"] * 9, ["F", "M"] * 9, ["2024-01-31"] * 9)]
['number', 'category', 'date']
"""

import codecs
import csv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from client.connectors.checks import LIMITS
from client.connectors.clues import COMMA, DATE, THOUSANDS, UNKNOWN_WORDS, clues_of_ids
from client.connectors.columns import Cells, Column, number
from client.connectors.dialects import likely_encoding, named_encoding
from client.connectors.ids import looks_like_ids, normal
from client.connectors.notes import Notes
from client.connectors.registry import CONNECTORS
from configs.records.data_page import DataFinding
from configs.records.file_profile import FileColumn, FileProfile
from configs.schema import ID_STEPS, CsvFile, DataSource
from configs.schema.dialect import ENCODINGS, Dialect
from configs.schema.source import ParquetFiles
from simulations.drafting.headers import SEPARATORS, header_of, is_parquet, named
from simulations.drafting.variables import Variable

NEARLY_ALL = 0.9  # of a column's known cells
MOST_CODES, MOST_WORDS = 10, 30  # different cells of a category that is written in numbers, or in words
SHOWN = 12  # values of a category that are told
FEWEST_IDS = 20  # rows below which different cells are no sign of ids
HEAD, LINES = 65_536, 20  # bytes that say the encoding, and lines among which the header is


def source_of(path: Path) -> DataSource:
    """Return the source that reads a file: Parquet, or CSV in the dialect that its first lines show.

    Raises:
        RunError: it has no header line.
    """
    return _seen(path)[0]


def _seen(path: Path) -> tuple[DataSource, list[Variable]]:
    """Return the source that reads a file, and its columns."""
    if path.is_dir() or is_parquet(path):
        return ParquetFiles(path), header_of(path)
    with path.open("rb") as file:
        head = file.read(HEAD)
    encoding = _encoding(head)
    codec = {"utf-8": "utf-8-sig"}.get(encoding, ENCODINGS[encoding])
    lines = head.decode(codec, "replace").splitlines()[:LINES]
    separator = max(SEPARATORS, key=lambda sign: sorted(line.count(sign) for line in lines)[len(lines) // 2 :])
    counts = [line.count(separator) for line in lines]
    above = counts.index(max(counts)) if any(counts) else 0
    cells = next(csv.reader(lines[above : above + 1], delimiter=separator), [])
    dialect = Dialect(separator=separator, encoding=ENCODINGS[encoding], skip_lines=above)
    return CsvFile(path, dialect=dialect), named(path, [cell.strip() for cell in cells] or [""])


def _encoding(head: bytes) -> str:
    """Return how a file's letters are likely written, by the name that a dialect gives it."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if not (len(head) == HEAD and error.start > HEAD - 4):  # not a letter that the sample cuts
            return named_encoding(likely_encoding(head))
    return "utf-8"


def profiled(path: Path) -> FileProfile:
    """Return what a file's columns look like.

    Raises:
        ArchipelError: it cannot be read.
    """
    (source, variables), notes = _seen(path), Notes()
    names = {variable.name: variable.type or "text" for variable in variables}
    columns = CONNECTORS[source.connector].columns(source, names, [], notes)
    texts = {name: Cells(column.texts()) for name, column in columns.items()}
    notes.rows = notes.patients = len(next(iter(texts.values())))
    looks = tuple(looked_at(name, column) for name, column in texts.items())
    return FileProfile(
        file=str(path),
        source=_flow(source.to_dict() | {"path": str(path)}),
        rows=notes.rows,
        columns=looks,
        findings=(*_of_file(notes, texts), *(each for look in looks for each in _of_column(look, texts[look.name]))),
    )


def _flow(value: Any) -> str:
    """Return a source as it stands on one line of a file."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(entry)}" for key, entry in value.items()) + "}"
    return str(value)


def looked_at(name: str, column: Column) -> FileColumn:
    """Return what one column looks like."""
    cells = Counter(cell for cell in column.texts() if cell)
    known = Counter({cell: count for cell, count in cells.items() if cell.casefold() not in UNKNOWN_WORDS})
    kind = _kind(name, known)
    numbers = [number(_plain(cell)) for cell in known] if kind == "number" else []
    values = [value for value in numbers if value == value]
    return FileColumn(
        name=name,
        looks_like=kind,
        distinct=len(cells),
        unknown=len(column) - known.total(),
        low=min(values, default=None),
        high=max(values, default=None),
        values=tuple(cell for cell, _ in known.most_common(SHOWN)) if kind == "category" else (),
    )


def _kind(name: str, known: "Counter[str]") -> str:
    """Return what a column's known cells look like."""
    rows = known.total()
    if not rows:
        return "nothing"
    if looks_like_ids([name]):
        return "id"
    if _share(known, lambda cell: DATE.fullmatch(cell) is not None) >= NEARLY_ALL:
        return "date"
    are_whole = all(number(_plain(cell)).is_integer() for cell in known)
    if _share(known, lambda cell: number(_plain(cell)) == number(_plain(cell))) >= NEARLY_ALL:  # NaN is unlike itself
        if are_whole and len(known) <= MOST_CODES:
            return "category"
        is_id = rows >= FEWEST_IDS and are_whole and len(known) == rows and any(len(cell) > 4 for cell in known)
        return "id" if is_id else "number"
    if len(known) <= MOST_WORDS and (rows < FEWEST_IDS or len(known) < rows / 2):
        return "category"
    is_id = rows >= FEWEST_IDS and len(known) == rows and not any(" " in cell for cell in known)
    return "id" if is_id else "text"


def _share(cells: "Counter[str]", says: Callable[[str], bool]) -> float:
    return sum(count for cell, count in cells.items() if says(cell)) / cells.total()


def _plain(cell: str) -> str:
    """Return a number as it would be with a decimal point and nothing between thousands."""
    if COMMA.fullmatch(cell):
        return cell.replace(",", ".")
    return "".join(c for c in cell if c not in "' \u00a0\u202f") if THOUSANDS.fullmatch(cell) else cell


def _of_file(notes: Notes, texts: Mapping[str, Column]) -> Iterator[DataFinding]:
    yield from (DataFinding(text=text, todo=todo) for text, todo in notes.of_rows())
    rows = list(zip(*(column.texts() for column in texts.values()), strict=True))
    if equal := len(rows) - len(set(rows)):
        yield DataFinding(
            text=f"{equal:,} rows equal another, word for word", todo="see whether rows were exported twice"
        )


def _of_column(look: FileColumn, column: Column) -> Iterator[DataFinding]:
    """Yield what to look at in one column."""
    cells = [cell for cell in column.texts() if cell]
    words = sorted({cell for cell in cells if cell.casefold() in UNKNOWN_WORDS})
    if words and look.looks_like in ("number", "category", "date"):
        codes = ", ".join(f'"{word}"' for word in words)
        yield DataFinding(
            column=look.name, text=f"has words for unknown: {codes}", todo="list them", line=f"missing: [{codes}]"
        )
    if look.looks_like == "number":
        yield from _of_numbers(look.name, cells)
    if look.looks_like == "date":
        text, todo = "is a date, which no study reads", "make a number of two dates (dates)"
        yield DataFinding(column=look.name, text=text, todo=todo)
    if look.looks_like == "nothing" or look.distinct == 1:
        yield DataFinding(column=look.name, text="says the same of every row", todo="leave it out")
    if look.looks_like == "id":
        yield from _of_ids(look, cells)


def _of_numbers(name: str, cells: list[str]) -> Iterator[DataFinding]:
    """Yield how numbers are written otherwise than with a decimal point."""
    if any(COMMA.fullmatch(cell) for cell in cells):
        yield DataFinding(column=name, text="has decimal commas", todo="say so", line="decimal: comma")
    if any(THOUSANDS.fullmatch(cell) and not COMMA.fullmatch(cell) for cell in cells):
        todo = "say which sign: space, point, comma or apostrophe"
        yield DataFinding(column=name, text="has a sign between thousands", todo=todo, line="thousands: space")
    if limits := sum(cell.startswith(LIMITS) for cell in cells):
        beginning = "1 cell begins" if limits == 1 else f"{limits:,} cells begin"
        text = f"{beginning} with < or >, beyond what is measured: unknown, never that number"
        yield DataFinding(column=name, text=text, todo="export the limit itself where it should count")


def _of_ids(look: FileColumn, cells: list[str]) -> Iterator[DataFinding]:
    different = set(cells)
    if alike := len(different) - len({normal(cell, ID_STEPS) for cell in different}):
        yield DataFinding(
            column=look.name,
            text=f"{alike:,} ids differ from another only in zeros, case or invisible characters",
            todo=f"patient_id: {{column: {look.name}, normalise: [nfkc, case, zeros]}} in the study makes them one",
        )
    if len(different) < len(cells):
        yield DataFinding(
            column=look.name,
            text=f"{len(different):,} different ids in {len(cells):,} rows: patients have several rows",
            todo=f"write patient_id: {look.name}, never null",
        )
    for clue in clues_of_ids(Cells(cells)):
        text = f"{clue.count:,} ids were shortened by a spreadsheet (as in 8.4E+11)"
        yield DataFinding(column=look.name, text=text, todo="export the ids as text")
