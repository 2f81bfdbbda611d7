"""A CSV file -> a checked `Table`. Comma-separated UTF-8 with one header line; only the study's columns are kept.

Every misfit is reported at once, by column and line, and never with the value that was found: it is a patient's.

>>> read_columns("age,sex\\n50,male\\n", ["age", "sex"], "demo.csv")
{'age': ['50'], 'sex': ['male']}
>>> read_columns("age,age\\n50,51\\n", ["age"], "demo.csv")
Traceback (most recent call last):
    ...
configs.errors.DataError: demo.csv: column 'age' stands twice in the header; keep one
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from client.connectors.checks import Misfits, columns_of, table_of
from configs.errors import DataError, SourceError
from configs.schema import DataSource, Study
from strategies.tasks.table import Table


def read_csv(source: DataSource, study: Study) -> Table:
    """The study's columns of one file.

    Raises:
        DataError: unreadable, empty, or misfitting; every problem in one text.
    """
    assert source.path is not None
    columns = read_columns(_read_text(source.path), columns_of(study), str(source.path))
    return table_of(columns, study, _misfits(str(source.path)))


def read_columns(text: str, wanted: Sequence[str], name: str) -> dict[str, list[str]]:
    """The wanted columns' cells as text, stripped of white space.

    Raises:
        DataError: no header, no rows, a column missing or given twice, a line with another number of cells.
    """
    # The module refuses cells of more than 131,072 characters, for all readers; none is longer than its file.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error:
        raise DataError(f"{name}: expected comma-separated values, found a broken quotation; export it again") from None
    while lines and not lines[-1]:
        lines.pop()  # empty lines at the end are everywhere; inside, one is a torn record
    header, rows = [cell.strip() for cell in lines[0]] if lines else [], lines[1:]
    misfits = _misfits(name)
    if not any(header):
        raise DataError(f"{name}: expected a header line, found an empty file; export the data again")
    advice = "it seems to be separated by semicolons; export with commas" if ";" in header[0] else "add them"
    misfits.check_header(header, wanted, "the header", "keep one", advice)
    if not rows:
        misfits.add("expected at least one row, found none")
    if ragged := [i for i, row in enumerate(rows, misfits.first) if len(row) != len(header)]:
        misfits.add(f"expected {len(header)} cells a line, found another number {misfits.where(ragged)}")
    misfits.raise_if_any()
    positions = {c: header.index(c) for c in wanted}
    return {c: [row[i].strip() for row in rows] for c, i in positions.items()}


def _misfits(name: str) -> Misfits:
    return Misfits(name, "line", 2)  # line 1 is the header


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: expected UTF-8 text, found other bytes; export the data as UTF-8") from None
