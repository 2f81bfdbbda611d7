"""The checks of every connector: columns from any store -> a typed `Table`.

No row is refused, because a refusal would reveal that such a row is there. What a cell means is decided by
the study alone, row by row, so one patient more or less changes nothing about the others:

- a number that cannot be read (`<5` too), is empty, or is a code or a word for unknown: unknown. One beyond its range
  is moved to the edge (strategies/data/table.py);
- a category's word that the study does not list: unknown. `1.0` and `1` are one code;
- a row without an outcome, a patient id or a side of the split that can be read is no patient's row: left out. A study
  of statistics counts unknown outcomes, so there it stays. A time before zero is no outcome, nor is half a count;
- of one patient the first MOST_ROWS_EACH rows count;
- a patient with a row on the test side is in the test, whole.

What was come upon is counted for the hospital's own people (client/connectors/notes.py). What is refused is what the
header decides: a column that is missing or stands there twice.

An empty cell is unknown. What a column says is its text, in whatever form a connector hands it over (columns.py), so
that the same patients are the same bits from a file and a data base.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from client.connectors.clues import clues_of, clues_of_ids
from client.connectors.columns import UNKNOWN, Cells, Column, Stored, number, plain
from client.connectors.ids import all_normal, could_be_alike
from client.connectors.notes import Notes
from configs.errors import DataError
from configs.schema import ID_STEPS, Feature, Study
from strategies.data.source import Table, WhenAsked
from strategies.tasks.registry import is_learned, objective_of

MAX_PROBLEMS = 20
MOST_ROWS_EACH = 10_000  # of one patient: a public number that bounds what one patient costs in time and memory
LIMITS = ("<", ">", "\u2264", "\u2265")  # how a cell begins that says less, or more, than what can be measured
_UNKNOWN_CODE, _UNREAD_CODE = -1, -2


@dataclass(frozen=True)
class Misfits:
    """What does not fit in a source's header."""

    source: str
    found: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Note a problem in words."""
        self.found.append(text)

    def check_header(self, header: Sequence[str], wanted: Collection[str], place: str, twice: str, add: str) -> None:
        """Note wanted columns that are missing or there twice; `twice` and `add` say what to do."""
        for column in wanted:
            if header.count(column) > 1:
                self.add(f"column {column!r} stands twice in {place}; {twice}")
        if missing := [column for column in wanted if column not in header]:
            self.add(f"columns {', '.join(map(repr, missing))} are not in {place}; {add}")

    def raise_if_any(self) -> None:
        """Raise what was noted.

        Raises:
            DataError: every problem in one text.
        """
        if len(self.found) == 1:
            raise DataError(f"{self.source}: {self.found[0]}")
        if self.found:
            rest = [f"and {len(self.found) - MAX_PROBLEMS} more"] if len(self.found) > MAX_PROBLEMS else []
            lines = [f"{self.source}: {len(self.found)} problems", *self.found[:MAX_PROBLEMS], *rest]
            raise DataError("\n  ".join(lines))


def columns_of(study: Study) -> dict[str, str]:
    """Return the columns that a study reads, in order, and what each is read as: a number, a category, or text."""
    return columns_read(study.counted) | {
        name: "text" for name in (study.patient_id, study.evaluation.split_column) if name
    }


def columns_read(columns: Iterable[Feature]) -> dict[str, str]:
    """Return what each of these columns is read as; a record's path is text."""
    return {column.name: "text" if column.is_record else column.type for column in columns}


def table_of(columns: Mapping[str, Column], study: Study, notes: Notes) -> Table:
    """Return the typed table of a study's columns.

    Args:
        notes: gets the counts of what was come upon; it has the rows' numbers for people.
    """
    rows = len(columns[study.task.columns[0].name])
    where = notes.numbers_of(rows)
    notes.rows += rows
    columns = {name: columns[name].written(_listed(study, name)) for name in columns_of(study)}
    if study.patient_id is not None:
        columns[study.patient_id] = _alike(columns[study.patient_id], study.normalise, notes)
    reader = _Reader(columns, notes, where)
    for feature in study.features:
        if not feature.is_record:
            notes.column(feature.name, feature.type)  # so that people see them in the study's order
    targets = {
        column.name: reader.target(column, may_be_unknown=not is_learned(study))
        for column in study.task.columns
        if not column.is_record
    }
    complete = np.full(rows, fill_value=True)
    for _, has_value in targets.values():
        complete &= has_value
    if is_learned(study):
        complete &= reader.sound(objective_of(study).unsound({name: values for name, (values, _) in targets.items()}))
    complete &= reader.identified(study.patient_id)
    in_test, has_side = reader.sides(study.evaluation.split_column)
    complete &= has_side
    notes.left_out += int(rows - complete.sum())
    chosen, patients, keys = _patients(columns, study, np.flatnonzero(complete), notes)
    notes.patients += len(keys)
    notes.counted += len(chosen)
    notes.rows_are_patients = study.patient_id is None
    notes.ids = () if notes.rows_are_patients else keys
    if notes.thorough:
        _look_for_clues(columns, study, notes)
        notes.equal += len(chosen) - len(set(zip(*(c.taken(chosen).texts() for c in columns.values()), strict=True)))
    typed = _Typed(columns, notes, where, chosen)
    return Table(
        _when_asked(typed.numbers, study, "number", columns),
        _when_asked(typed.categories, study, "category", columns),
        {name: values[chosen] for name, (values, _) in targets.items()},
        patients,
        keys,
        None if in_test is None else _side_of_each(in_test[chosen], patients, len(keys), notes),
        {column.name: tuple(columns[column.name].taken(chosen).texts()) for column in study.records},
    )


Values = TypeVar("Values", bound=np.generic)


def _when_asked(
    make: Callable[[Feature], NDArray[Values]], study: Study, kind: str, columns: Mapping[str, Column]
) -> Mapping[str, NDArray[Values]]:
    """Return typed columns of a kind by name: made now, or when asked for where a column stays in its store."""
    makers = {f.name: partial(make, f) for f in study.features if f.type == kind and not f.is_record}
    if any(isinstance(columns[name], Stored) for name in makers):
        return WhenAsked(makers)
    return {name: maker() for name, maker in makers.items()}


class _Typed:
    """The features of the rows that count; what is come upon is noted once, however often a column is asked for."""

    def __init__(
        self, columns: Mapping[str, Column], notes: Notes, where: NDArray[np.int64], chosen: NDArray[np.int64]
    ) -> None:
        self._columns, self._notes, self._where, self._chosen = columns, notes, where, chosen
        self._asked: set[str] = set()

    def numbers(self, feature: Feature) -> NDArray[np.float64]:
        """Return (rows that count,) numbers; NaN is unknown."""
        return self._of_chosen(self._reader(feature).numbers(feature))

    def categories(self, feature: Feature) -> NDArray[np.int64]:
        """Return (rows that count,) positions in the feature's values; -1 is unknown."""
        return self._of_chosen(self._reader(feature).categories(feature))

    def _reader(self, feature: Feature) -> "_Reader":
        notes = Notes() if feature.name in self._asked else self._notes
        self._asked.add(feature.name)
        return _Reader({feature.name: self._columns[feature.name].held()}, notes, self._where)

    def _of_chosen(self, values: NDArray[Values]) -> NDArray[Values]:
        return values if len(self._chosen) == len(values) else values[self._chosen]


def _look_for_clues(columns: Mapping[str, Column], study: Study, notes: Notes) -> None:
    """Note what would explain the cells that the study cannot take."""
    for feature in study.counted:
        if feature.is_record:
            continue  # client/connectors/recorded.py looks at the files
        notes.columns[feature.name].clues = tuple(clues_of(columns[feature.name], feature))
    if study.patient_id is not None:
        notes.columns[study.patient_id].clues = tuple(clues_of_ids(columns[study.patient_id]))


def features_of(
    columns: Mapping[str, Column], study: Study, notes: Notes
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.int64]]]:
    """Return the typed columns of a study's features, of every row: numbers and categories by name."""
    rows = len(columns[study.features[0].name])
    flat = [feature.name for feature in study.features if not feature.is_record]
    reader = _Reader(
        {name: columns[name].written(_listed(study, name)) for name in flat}, notes, notes.numbers_of(rows)
    )
    of_kind = {kind: [f for f in study.features if f.type == kind] for kind in ("number", "category")}
    return (
        {feature.name: reader.numbers(feature) for feature in of_kind["number"]},
        {feature.name: reader.categories(feature).astype(np.int64) for feature in of_kind["category"]},
    )


class _Reader:
    """Columns, read one by one into typed arrays of all rows."""

    def __init__(self, columns: Mapping[str, Column], notes: Notes, where: NDArray[np.int64]) -> None:
        self._columns, self._notes, self._where = columns, notes, where

    def numbers(self, feature: Feature, kind: str = "number") -> NDArray[np.float64]:
        """Return (rows,) numbers; NaN is unknown."""
        column, counted = self._columns[feature.name], self._notes.column(feature.name, kind)
        values = column.numbers()
        unread = np.isnan(values) & ~column.empty()
        rows = np.flatnonzero(unread)
        odd = column.taken(rows) if len(rows) else Cells([])
        if feature.missing:
            unread[rows] = ~odd.each(feature.missing.__contains__, bool)
        counted.odd(unread, self._where)
        counted.limits += int((unread[rows] & odd.each(lambda cell: cell.startswith(LIMITS), bool)).sum())
        if codes := [number(code) for code in feature.missing]:
            values = np.where(np.isin(values, codes), UNKNOWN, values)
        counted.unknown += int(np.isnan(values).sum()) - counted.unread
        if feature.minimum is not None and feature.maximum is not None:
            counted.outside += int(((values < feature.minimum) | (values > feature.maximum)).sum())
        return values

    def categories(self, feature: Feature, kind: str = "category") -> NDArray[np.int64]:
        """Return (rows,) positions in the feature's values; -1 is unknown."""
        words = {"": _UNKNOWN_CODE} | dict.fromkeys(feature.missing, _UNKNOWN_CODE)
        codes = self._codes(feature.name, words | {value: i for i, value in enumerate(feature.values)}, kind)
        return np.maximum(codes, _UNKNOWN_CODE)

    def target(self, column: Feature, *, may_be_unknown: bool) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return (rows,) numbers or class numbers, and which rows count: those with a value, unless it may be unknown.

        Values that may be unknown are counted like a feature's; else they are an outcome's.
        """
        kind = column.type if may_be_unknown else "outcome"
        read = self.numbers if column.type == "number" else self.categories
        values = read(column, kind).astype(np.float64)
        has_value = ~np.isnan(values) if column.type == "number" else values >= 0
        return values, has_value | may_be_unknown

    def sound(self, unsound: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """Return (rows,) whether a row's values can be an outcome, and count those that cannot."""
        is_sound = np.full(len(self._where), fill_value=True)
        for name, cells in unsound.items():
            self._notes.column(name, "outcome").odd(cells, self._where)
            is_sound &= ~cells
        return is_sound

    def identified(self, name: str | None) -> NDArray[np.bool_]:
        """Return (rows,) whether each row has a patient's id; all count as having one where a row is a patient."""
        if name is None:
            return np.full(len(self._where), fill_value=True)
        has_id = ~self._columns[name].empty()
        self._notes.column(name, "patient id").odd(~has_id, self._where)
        return has_id

    def sides(self, name: str | None) -> tuple[NDArray[np.bool_] | None, NDArray[np.bool_]]:
        """Return (rows,) whether a row is on the test side, None without such a column, and whether it says so."""
        if name is None:
            return None, np.full(len(self._where), fill_value=True)
        cells = self._columns[name]
        has_side = cells.each(("train", "test").__contains__, bool)
        self._notes.column(name, "split").odd(~has_side, self._where)
        return cells.each("test".__eq__, bool), has_side

    def _codes(self, name: str, words: Mapping[str, int], kind: str) -> NDArray[np.int64]:
        """Return (rows,) codes of the cells' words, which may be numbers written otherwise; _UNREAD_CODE of others."""
        by_number = _by_number(words)

        def code_of(cell: str) -> int:
            return words[cell] if cell in words else by_number.get(number(cell), _UNREAD_CODE)

        cells = self._columns[name].each(code_of, np.int64)
        counted = self._notes.column(name, kind)
        counted.odd(cells == _UNREAD_CODE, self._where)
        counted.unknown += int((cells == _UNKNOWN_CODE).sum())
        return cells


def _listed(study: Study, name: str) -> tuple[str, ...]:
    """Return the words that a study lists for a column."""
    return next((column.values + column.missing for column in study.counted if column.name == name), ())


def _by_number(words: Mapping[str, int]) -> dict[float, int]:
    """Return codes by the number that a word is; of words that are the same number, the first."""
    numbers: dict[float, int] = {}
    for word, code in words.items():
        if not math.isnan(value := number(word)):
            numbers.setdefault(value, code)
    return numbers


def _patients(
    columns: Mapping[str, Column], study: Study, rows: NDArray[np.int64], notes: Notes
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    """Return the rows that count, each row's patient, and the patients' keys: their ids, or the row's cells.

    A row's position would do as a key but for one thing: it changes when another patient's row is taken out, and the
    split by key would then move unrelated patients. Equal rows have one key and share a side, and
    so do rows that write the same number in two ways: 50 in a file is 50.00 in a data base.
    """
    if study.patient_id is None:
        cells = _told_apart(columns, study, rows)
        return rows, np.arange(len(rows)), tuple("\x1f".join(row) for row in zip(*cells, strict=True))
    column = columns[study.patient_id]
    ids = column.texts() if len(rows) == len(column) else column.taken(rows).texts()
    position = dict.fromkeys(ids, 0)
    if len(position) == len(ids):
        return rows, np.arange(len(rows)), tuple(ids)
    position = {key: i for i, key in enumerate(position)}
    patients = np.fromiter(map(position.__getitem__, ids), np.int64, len(ids))
    counts = _rows_before(patients) < MOST_ROWS_EACH
    notes.beyond += int((~counts).sum())
    return rows[counts], patients[counts], tuple(position)


def _alike(ids: Column, steps: tuple[str, ...], notes: Notes) -> Column:
    """Return (rows,) ids after the study's steps; notes how many more would be one after all of them."""
    ids = ids.held()
    texts = ids.texts()
    if steps:
        cells = list(set(texts))
        ids = ids.mapped(dict(zip(cells, all_normal(cells, steps), strict=True)).__getitem__)
        texts = ids.texts()
    if could_be_alike(texts):
        different = {*texts} - {""}
        notes.spelled += len(different) - len({*all_normal(list(different), ID_STEPS)} - {""})
    return ids


def _rows_before(patients: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (rows,) the number of earlier rows of the same patient."""
    order = np.argsort(patients, kind="stable")
    ranked = patients[order]
    first = np.searchsorted(ranked, ranked)
    before = np.empty(len(patients), np.int64)
    before[order] = np.arange(len(patients)) - first
    return before


def _told_apart(columns: Mapping[str, Column], study: Study, rows: NDArray[np.int64]) -> list[list[str]]:
    """Return every column's cells in these rows, a number always written in the same way."""
    numbers = {column.name for column in study.counted if column.type == "number"}
    numbers |= {column.name for column in study.task.columns}
    words = {f.name: dict.fromkeys(f.values + f.missing, 0) for f in study.features if f.type == "category"}
    apart = []
    for name, column in columns.items():
        cells = column.taken(rows)
        if name in numbers:
            cells = cells.mapped(plain)
        elif name in words:
            cells = cells.mapped(_spelled(words[name]))
        apart.append(cells.texts())
    return apart


def _spelled(words: Mapping[str, int]) -> Callable[[str], str]:
    """Return how the study's list writes a cell: 1 for 1.0; a cell that it does not list, as it is."""
    by_number = {value: word for word in reversed(list(words)) if not math.isnan(value := number(word))}
    return lambda cell: cell if cell in words else by_number.get(number(cell), cell)


def _side_of_each(
    is_test: NDArray[np.bool_], patients: NDArray[np.int64], count: int, notes: Notes
) -> NDArray[np.bool_]:
    """Return (patients,) booleans from (rows,) ones: one row on the test side keeps a patient out of the training."""
    in_test, in_train = np.zeros(count, bool), np.zeros(count, bool)
    in_test[patients[is_test]] = True
    in_train[patients[~is_test]] = True
    notes.both_sides += int((in_test & in_train).sum())
    return in_test
