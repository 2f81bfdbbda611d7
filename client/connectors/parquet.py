"""The connector of Parquet: one file, or a folder of parts -> columns, each read when it is asked for.

Only the wanted columns are read, each alone and by batches, so that one of them is in memory at a time. What stands in
the file is what its text would be (columns.py): a number of 32 bits is the shortest decimal that reads back as it, a
decimal has no closing zeros, a date is written as 2024-01-31, null is an empty cell, and so is pandas's NaN.

What the footer decides is refused: a column that is missing, stands there twice, is nested, or holds times where a
number is wanted. A damaged page is the file's fault and no row's. Nothing of Arrow's own errors is shown: they may hold
a value.
"""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from client.connectors.arrow import EMPTY, NUMBER, TEXT, TIME, column_of, form_of
from client.connectors.checks import Misfits
from client.connectors.columns import Column, Stored, joined
from client.connectors.dialects import kind
from client.connectors.ids import looks_like_ids
from client.connectors.notes import Notes
from configs.errors import DataError, SourceError

MAGIC, ENCRYPTED, EDGE = b"PAR1", b"PARE", 4
BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class Part:
    """One file of a source, opened, as its footer describes it; `stamp` is what changes when it is written anew."""

    path: Path
    file: Any
    footer: Any
    schema: Any
    stamp: tuple[int, int]


def read_parquet(path: Path, wanted: Mapping[str, str], optional: Collection[str], notes: Notes) -> dict[str, Column]:
    """Return the wanted columns of a file or of a folder's parts, and those optional ones that it has once.

    Args:
        wanted: the columns, and what each is read as.

    Raises:
        SourceError: a file cannot be opened, or is damaged. DataError: its footer does not have the wanted columns.
    """
    notes.unit = "row"
    parts = _opened(path)
    check_footers(path, parts, wanted)
    readable = _readable(parts)
    every = dict(wanted) | dict.fromkeys((name for name in optional if name in readable), TEXT)
    columns = {name: _stored(parts, name, read_as) for name, read_as in every.items()}
    kept = _kept(parts, {name: _stored(parts, name, NUMBER) for name in sorted(readable)} | columns, notes)
    for name in looks_like_ids(sorted(readable)) if notes.rows_are_patients else ():
        notes.like(name).update(_taken(_stored(parts, name, TEXT), kept).texts())
    return {name: _taken(column, kept) for name, column in columns.items()}


def probe_parquet(path: Path, wanted: Mapping[str, str]) -> None:
    """See whether the files open and their footers have the wanted columns; no row is read.

    Raises:
        SourceError, DataError: as `read_parquet`.
    """
    check_footers(path, _opened(path), wanted)


def check_footers(path: Path, parts: Sequence[Part], wanted: Mapping[str, str]) -> None:
    """See whether each part has the wanted columns, of types that can be read.

    Raises:
        DataError: it has not; every problem in one text.
    """
    misfits, forms = Misfits(str(path)), dict[str, str]()
    for part in parts:
        place = "the file" if part.path == path else part.path.name
        misfits.check_header(part.schema.names, wanted, place, "keep one", "add them")
        for name in (name for name in wanted if part.schema.names.count(name) == 1):
            column = part.schema.field(name).type
            form = form_of(column)
            if problem := _problem(form, wanted[name], forms.get(name)):
                misfits.add(f"column {name!r} is {_shown(column)} in {place}, {problem}")
            elif form and form != EMPTY:
                forms.setdefault(name, form)
    misfits.raise_if_any()


def _problem(form: str | None, read_as: str, before: str | None) -> str:
    """Return what is wrong with a column of this form, which earlier parts have in the form `before`."""
    if form is None:
        return "expected one plain value a row; export it so"
    if form == TIME and read_as == NUMBER:
        return "expected numbers; export a number, or let dates in site.yaml count from one date to another"
    if before and form not in (EMPTY, before):
        return f"and of another kind ({before}) in an earlier part; export all parts in one schema"
    return ""


def _readable(parts: Sequence[Part]) -> set[str]:
    """Return the columns that every part has once, and with one plain value a row."""
    schemas = [part.schema for part in parts]
    return {
        name
        for name in schemas[0].names
        if all(schema.names.count(name) == 1 and form_of(schema.field(name).type) for schema in schemas)
    }


def _shown(column: Any) -> str:
    """Return a type in a word or a few, without the words of a dictionary or the names in a structure."""
    return str(column).split("<")[0].split("[")[0]


# Files


def parts_of(path: Path) -> list[Path]:
    """Return a source's files: itself, or those of a folder that end with .parquet, in the order of their names.

    Raises:
        SourceError: there is none, or they cannot be listed.
    """
    try:
        if not path.is_dir():
            return [path]
        names = sorted(name for name in os.listdir(path) if name.endswith(".parquet") and name[0] not in "._")
    except OSError as error:
        raise _unreadable(path, error) from None
    if not names:
        raise SourceError(f"{path}: expected files that end with .parquet in this folder, found none; correct the path")
    return [path / name for name in names]


def _opened(path: Path) -> list[Part]:
    return [_open(part) for part in parts_of(path)]


def _open(path: Path) -> Part:
    """Open one file and read its footer.

    Raises:
        SourceError: it cannot be opened, or its footer cannot be read. DataError: it is no Parquet.
    """
    _check_edges(path)
    try:
        file = pa.OSFile(str(path))
        footer = _reader(file)
        return Part(path, file, footer.metadata, footer.schema_arrow, _stamp(file))
    except OSError as error:
        if error.errno:
            raise _unreadable(path, error) from None
    except (pa.ArrowException, ValueError):
        pass
    raise SourceError(f"{path}: its footer cannot be read: it is damaged, or encrypted; export it again, unencrypted")


def _reader(file: Any, words: Collection[str] = (), footer: Any = None) -> Any:
    """Return a reader of an open file by this thread alone; the columns `words` come as codes and words."""
    return pq.ParquetFile(
        file,
        metadata=footer,
        read_dictionary=list(words),
        pre_buffer=False,
        page_checksum_verification=True,
    )


def _check_edges(path: Path) -> None:
    """See by its first and last bytes whether a file is a Parquet, whole and not encrypted."""
    try:
        with path.open("rb") as file:
            head = file.read(1024)
            file.seek(-min(EDGE, file.seek(0, os.SEEK_END)), os.SEEK_END)
            tail = file.read(EDGE)
    except OSError as error:
        raise _unreadable(path, error) from None
    if ENCRYPTED in (head[:EDGE], tail):
        raise SourceError(f"{path}: it is encrypted; export it without a key, on a disk that is")
    if head[:EDGE] != MAGIC:
        what = "an empty file" if not head else kind(head) or "something else"
        raise DataError(f"{path}: expected a Parquet file, found {what}; correct the path, or the connector")
    if tail != MAGIC:
        raise SourceError(f"{path}: it ends before its footer: the export, or a copy, was cut off; export it again")


def _stamp(file: Any) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_mtime_ns, status.st_size


def _unreadable(path: Path, error: OSError) -> SourceError:
    return SourceError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions")


# Columns


def _rows(parts: Sequence[Part]) -> int:
    return sum(part.footer.num_rows for part in parts)


def _stored(parts: Sequence[Part], name: str, read_as: str) -> Column:
    return Stored(_rows(parts), partial(_loaded, parts, name, read_as))


def _taken(column: Column, rows: NDArray[np.int64] | None) -> Column:
    return column if rows is None else column.taken(rows)


def _loaded(parts: Sequence[Part], name: str, read_as: str) -> Column:
    """Return one column of all parts.

    Raises:
        SourceError: as `_pieces`; or the footer and the pages say other numbers of rows.
    """
    pieces = [piece for part in parts for piece in _pieces(part, name, read_as)]
    if sum(map(len, pieces)) != _rows(parts):
        raise SourceError(f"{parts[0].path}: it has another number of rows than its footer says; export it again")
    return joined(pieces)


def _pieces(part: Part, name: str, read_as: str) -> Iterator[Column]:
    """Yield one column's batches of one part.

    Raises:
        SourceError: a page is damaged, or the file was written meanwhile.
    """
    words = [name] if read_as != TEXT and form_of(part.schema.field(name).type) == TEXT else []
    try:
        reader = _reader(part.file, words, part.footer)
        for batch in reader.iter_batches(BATCH_ROWS, columns=[name], use_threads=False):
            yield column_of(batch.column(0), as_text=read_as == TEXT)
        changed = _stamp(part.file) != part.stamp
    except (OSError, pa.ArrowException, ValueError):
        changed = _stamp(part.file) != part.stamp
        if not changed:
            raise SourceError(f"{part.path}: column {name!r} is damaged in the file; export it again") from None
    if changed:
        raise SourceError(f"{part.path}: it was written while it was read; replace an export by renaming")


def _kept(parts: Sequence[Part], columns: Mapping[str, Column], notes: Notes) -> NDArray[np.int64] | None:
    """Return the rows that have anything in any column, None for all; note the others: they are no patient's.

    Columns with the fewest gaps, by the footers, are looked at first; after them hardly ever a row is left.
    """
    gaps = [_gaps(part) for part in parts]
    empty = np.full(_rows(parts), fill_value=True)
    for name in sorted(columns, key=lambda name: sum(each.get(name, len(empty)) for each in gaps)):
        if not empty.any():
            return None
        empty &= columns[name].empty()
    kept = np.flatnonzero(~empty)
    notes.empty += len(empty) - len(kept)
    notes.numbers.extend((kept + 1).tolist())
    return kept


def _gaps(part: Part) -> dict[str, int]:
    """Return the number of nulls in each column whose footer has it."""
    gaps: dict[str, int] = {}
    for group in range(part.footer.num_row_groups):
        for place in range(part.footer.num_columns):
            column = part.footer.row_group(group).column(place)
            if column.is_stats_set and column.statistics.has_null_count:
                gaps[column.path_in_schema] = gaps.get(column.path_in_schema, 0) + column.statistics.null_count
    return gaps
