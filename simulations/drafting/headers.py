"""The names in a data file's header; nothing below it is ever read.

Of a CSV file bytes are read one by one up to the end of its first line, of a Parquet file the names and types of its
schema. So no value of a patient can reach a draft.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     _ = Path(folder, "a.csv").write_text("ipp;age\\n1;50\\n")
...     [variable.name for variable in header_of(Path(folder, "a.csv"))]
['ipp', 'age']
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from client.connectors.ids import looks_like_ids
from configs.errors import RunError
from configs.keys.values import COLUMN_NAME
from configs.shown import flaw_of
from simulations.drafting.variables import CATEGORY, NUMBER, Variable

MAX_HEADER = 1_000_000  # bytes
SEPARATORS = ",;\t|"
PARQUET = b"PAR1"
_SEPARATOR_LINE = re.compile(r"sep=(.)", re.IGNORECASE)
_VALUE = re.compile(r"[-+]?[0-9][0-9\s.,/:eE+-]*|true|false|na|nan|null|yes|no|oui|non", re.IGNORECASE)
_EXPORT = "export the data with a header line, or give a data dictionary"


@dataclass(frozen=True)
class FirstLine:
    """The cells of a file's header line, and what stands between them."""

    cells: list[str]
    delimiter: str


def first_line(path: Path) -> FirstLine:
    """Return a file's first line, or its second after a line that names the separator.

    Raises:
        RunError: it cannot be read, or has no header line.
    """
    try:
        with path.open("rb", buffering=0) as file:  # unbuffered, so that no byte below the header is read
            line = _decoded(file.readline(MAX_HEADER))
            separator = _SEPARATOR_LINE.fullmatch(line.strip())
            if separator:
                line = _decoded(file.readline(MAX_HEADER))
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from None
    if not line.strip() or "\0" in line:
        raise RunError(f"{path}: expected a header line of text, found none; {_EXPORT}")
    delimiter = separator[1] if separator else max(SEPARATORS, key=line.count)
    try:
        cells = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, strict=True))]
    except csv.Error:
        raise RunError(f"{path}: expected a header line, found a broken quotation in it; {_EXPORT}") from None
    return FirstLine(cells, delimiter)


def is_parquet(path: Path) -> bool:
    """Return whether a file begins as Parquet files do."""
    try:
        with path.open("rb", buffering=0) as file:
            return file.read(len(PARQUET)) == PARQUET
    except OSError:
        return False


def header_of(path: Path) -> list[Variable]:
    """Return the columns of a CSV or Parquet file, by their names and, of Parquet, their types.

    Raises:
        RunError: it cannot be read; its first line holds values, or names that no study may have.
    """
    if is_parquet(path):
        return _of_schema(path)
    return named(path, first_line(path).cells)


def named(path: Path, names: Sequence[str]) -> list[Variable]:
    """Return the columns of a header's cells.

    Raises:
        RunError: they are values, or names that no study may have.
    """
    if any(not name or _VALUE.fullmatch(name) for name in names):
        raise RunError(f"{path}: expected names in the header, found values or empty cells (not shown); {_EXPORT}")
    return _checked(path, [Variable(name) for name in names])


def _of_schema(path: Path) -> list[Variable]:
    try:
        from pyarrow import ArrowException, parquet  # an extra
    except ImportError:
        raise RunError(f"{path}: expected pyarrow, which reads Parquet; pip install 'archipel[parquet]'") from None
    try:
        fields = [(field.name, str(field.type)) for field in parquet.read_schema(path)]
    except (OSError, ArrowException):
        raise RunError(f"{path}: expected a Parquet file, found a broken one; export it again") from None
    return _checked(path, [_typed(name, kind) for name, kind in fields])


def _typed(name: str, kind: str) -> Variable:
    """Return what the type of a Parquet column says."""
    if re.match(r"u?int|float|double|halffloat|decimal", kind):
        return Variable(name, NUMBER)
    if kind == "bool":
        return Variable(name, CATEGORY, values=("false", "true"))
    if re.match(r"date|time", kind):
        return Variable(name, left_out="a date or time: site.yaml makes a number of two dates (dates)")
    return Variable(name, CATEGORY if kind.startswith("dictionary") else "")


def _checked(path: Path, variables: Sequence[Variable]) -> list[Variable]:
    """Return the columns, those with the name of an id marked.

    Raises:
        RunError: a name stands there twice, or is none that a study may have.
    """
    names = [variable.name for variable in variables]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RunError(f"{path}: column {twice[0]!r} stands twice in the header; rename one")
    if any(not COLUMN_NAME.fullmatch(name) or flaw_of(name) for name in names):
        raise RunError(f"{path}: expected names of letters, numbers and signs in the header, found others; rename them")
    ids = looks_like_ids(names)
    return [replace(variable, is_id=variable.name in ids, source=path.name) for variable in variables]


def _decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError:
        return line.decode("cp1252", "replace")
