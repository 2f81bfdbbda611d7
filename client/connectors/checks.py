"""Cells as text, whatever store they come from -> a checked `Table`. What every connector ends with.

Every misfit is reported at once, by column and line, and never with the value that was found: it is a patient's.
An empty cell is unknown. Cells are text here, so that the same patients are the same bits from a file and a data base.

>>> print(plain("50.00"), plain("2.50"), plain("1e3"), plain("stage ii"))
50 2.5 1000 stage ii
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from configs.schema import Feature, Study
from strategies.tasks.table import Table

MAX_PROBLEMS = 20
UNKNOWN = float("nan")


@dataclass(frozen=True)
class Misfits:
    """What does not fit in one source. Its rows are counted in `unit`s, the first of them being number `first`."""

    source: str
    unit: str
    first: int
    found: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Note a problem in words."""
        self.found.append(text)

    def note(self, column: str, expected: str, wrong: NDArray[np.bool_]) -> None:
        """Note the rows where a column is not what was expected; wrong: (rows,)."""
        if wrong.any():
            where = self.where((np.flatnonzero(wrong) + self.first).tolist())
            self.add(f"column {column!r}: expected {expected}; found something else {where}")

    def where(self, numbers: Sequence[int]) -> str:
        """These rows in words."""
        shown = ", ".join(str(n) for n in numbers[:3])
        more = f" and {len(numbers) - 3} more" if len(numbers) > 3 else ""
        return f"on {self.unit}{'s' if len(numbers) > 1 else ''} {shown}{more} (values are not shown)"

    def check_header(self, header: Sequence[str], wanted: Sequence[str], place: str, twice: str, add: str) -> None:
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


def columns_of(study: Study) -> list[str]:
    """The columns that a study reads: all that a connector keeps."""
    named = [study.patient_id, study.evaluation.split_column]
    return [feature.name for feature in study.features] + [study.task.target] + [name for name in named if name]


def table_of(columns: dict[str, list[str]], study: Study, misfits: Misfits) -> Table:
    """Checked and typed columns of a study; each of `columns` has a cell a row, without white space around it.

    Raises:
        DataError: the cells do not fit the study; every problem in one text.
    """
    # A model is told beforehand which columns may be unknown; statistics are asked to find that out.
    features, counted = study.features, not study.trains
    numbers = {f.name: _numbers(columns[f.name], f, misfits, counted) for f in features if f.type == "number"}
    categories = {f.name: _categories(columns[f.name], f, misfits, counted) for f in features if f.type == "category"}
    target = _target(columns[study.task.target], study, misfits)
    patients, keys = _patients(columns, study, misfits)
    in_test = _split(columns.get(study.evaluation.split_column or "", []), patients, len(keys), study, misfits)
    misfits.raise_if_any()
    return Table(numbers, categories, target, patients, keys, in_test)


def _numbers(
    cells: list[str], feature: Feature, misfits: Misfits, empty_is_unknown: bool = False
) -> NDArray[np.float64]:
    codes = {float(code) for code in feature.missing}
    values = np.array([_number(cell) for cell in cells])
    empty = np.array([not cell for cell in cells], bool)
    misfits.note(feature.name, "a number", np.isnan(values) & ~empty)
    if not feature.missing and not empty_is_unknown:
        misfits.note(feature.name, "a value, as the study lists no code for unknown", empty)
    values[np.isin(values, list(codes))] = UNKNOWN
    return values


def _number(cell: str) -> float:
    """The finite number that a cell holds, else NaN. Python's underscores and non-ASCII digits are not numbers here."""
    try:
        value = float(cell) if cell.isascii() and "_" not in cell else UNKNOWN
    except ValueError:
        return UNKNOWN
    return value if math.isfinite(value) else UNKNOWN


def _categories(
    cells: list[str], feature: Feature, misfits: Misfits, empty_is_unknown: bool = False
) -> NDArray[np.int64]:
    codes = {value: i for i, value in enumerate(feature.values)} | dict.fromkeys(feature.missing, -1)
    if feature.missing or empty_is_unknown:
        codes[""] = -1
    found = np.array([codes.get(cell, -2) for cell in cells], np.int64)
    words, nothing = ", ".join(code for code in codes if code), ", or nothing" if "" in codes else ""
    misfits.note(feature.name, f"one of {words}"[:200] + nothing, found == -2)
    return found


def _target(cells: list[str], study: Study, misfits: Misfits) -> NDArray[np.float64]:
    task = study.task
    if not study.trains:
        return _counted_target(cells, study, misfits)
    if task.type == "regression":
        values = np.array([_number(cell) for cell in cells])
        misfits.note(task.target, "a number", np.isnan(values))
        return values
    found = np.array([_class_of(cell, task.classes) for cell in cells], float)
    misfits.note(task.target, f"one of {', '.join(task.classes)}"[:200], found == -1)
    if absent := [word for i, word in enumerate(task.classes) if not (found == i).any()]:
        misfits.add(f"column {task.target!r}: no patient of class {', '.join(absent)}; a model cannot learn it here")
    return found


def _counted_target(cells: list[str], study: Study, misfits: Misfits) -> NDArray[np.float64]:
    """The target of statistics: class numbers with -1, or numbers with NaN, where the cell is empty."""
    task, empty = study.task, np.array([not cell for cell in cells], bool)
    if not task.classes:
        return _numbers(cells, study.counted[-1], misfits, True)
    found = np.array([_class_of(cell, task.classes) for cell in cells], float)
    misfits.note(task.target, f"one of {', '.join(task.classes)}, or nothing"[:200], (found == -1) & ~empty)
    return found


def _class_of(cell: str, classes: tuple[str, ...]) -> int:
    """Position of the class that a cell names; '1.0' and '1' name the same one."""
    if cell in classes:
        return classes.index(cell)
    value = _number(cell)
    return next((i for i, word in enumerate(classes) if value == _number(word)), -1)


def _patients(
    columns: dict[str, list[str]], study: Study, misfits: Misfits
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Each row's patient, and the patients' keys: their ids, or what the row says where a row is a patient.

    A row's position would do as a key but for one thing: it changes when another patient's row is taken out, and the
    split by key would then move patients who have nothing to do with it. Equal rows have one key and share a side, and
    so do rows that write the same number in two ways: 50 in a file is 50.00 in a data base.
    """
    if study.patient_id is None:
        rows = list(zip(*_told_apart(columns, study), strict=True))
        return np.arange(len(rows)), tuple("\x1f".join(row) for row in rows)
    cells = columns[study.patient_id]
    misfits.note(study.patient_id, "a patient id", np.array([not cell for cell in cells], bool))
    keys = tuple(dict.fromkeys(cells))
    position = {key: i for i, key in enumerate(keys)}
    return np.array([position[cell] for cell in cells], np.int64), keys


def _told_apart(columns: dict[str, list[str]], study: Study) -> list[list[str]]:
    """Every column's cells, a number always written in the same way."""
    numbers = {feature.name for feature in study.features if feature.type == "number"} | {study.task.target}
    return [[plain(cell) for cell in cells] if name in numbers else cells for name, cells in columns.items()]


def plain(cell: str) -> str:
    """A number in its shortest decimal form; any other cell as it is."""
    value = _number(cell)
    return cell if math.isnan(value) else repr(value).removesuffix(".0")


def _split(
    cells: list[str], patients: NDArray[np.int64], count: int, study: Study, misfits: Misfits
) -> NDArray[np.bool_] | None:
    column = study.evaluation.split_column
    if column is None:
        return None
    misfits.note(column, "train or test", np.array([cell not in ("train", "test") for cell in cells], bool))
    is_test = np.array([cell == "test" for cell in cells], bool)
    per_patient = np.zeros(count, bool)
    per_patient[patients] = is_test
    torn = per_patient[patients] != is_test
    misfits.note(column, "the same side on every row of a patient", torn)
    return per_patient
