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
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from configs.schema import DataSource, Feature, Study
from strategies.tasks.table import Table

MAX_PROBLEMS = 20
UNKNOWN = float("nan")


def read_csv(source: DataSource, study: Study) -> Table:
    """The study's columns of one file.

    Raises:
        DataError: unreadable, empty, or misfitting; every problem in one text.
    """
    named = [study.patient_id, study.evaluation.split_column]
    wanted = [feature.name for feature in study.features] + [study.task.target] + [name for name in named if name]
    columns = read_columns(_read_text(source.path), wanted, str(source.path))
    return _table(columns, study, str(source.path))


def read_columns(text: str, wanted: Sequence[str], name: str) -> dict[str, list[str]]:
    """The wanted columns' cells as text, stripped of white space.

    Raises:
        DataError: no header, no rows, a column missing or given twice, a line with another number of cells.
    """
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error:
        raise DataError(f"{name}: expected comma-separated values, found a broken quotation; export it again") from None
    while lines and not lines[-1]:
        lines.pop()  # empty lines at the end are everywhere; inside, one is a torn record
    header, rows = [cell.strip() for cell in lines[0]] if lines else [], lines[1:]
    problems = []
    if not any(header):
        raise DataError(f"{name}: expected a header line, found an empty file; export the data again")
    problems += [f"column {c!r} stands twice in the header; keep one" for c in wanted if header.count(c) > 1]
    if missing := [c for c in wanted if c not in header]:
        advice = "it seems to be separated by semicolons; export with commas" if ";" in header[0] else "add them"
        problems.append(f"columns {', '.join(map(repr, missing))} are not in the header; {advice}")
    if not rows:
        problems.append("expected at least one row, found none")
    if ragged := [i for i, row in enumerate(rows, 2) if len(row) != len(header)]:
        problems.append(f"expected {len(header)} cells a line, found another number {_lines(ragged)}")
    _raise_if_any(name, problems)
    positions = {c: header.index(c) for c in wanted}
    return {c: [row[i].strip() for row in rows] for c, i in positions.items()}


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: expected UTF-8 text, found other bytes; export the data as UTF-8") from None


def _table(columns: dict[str, list[str]], study: Study, name: str) -> Table:
    problems: list[str] = []
    # A model is told beforehand which columns may be unknown; statistics are asked to find that out.
    features, counted = study.features, not study.trains
    numbers = {f.name: _numbers(columns[f.name], f, problems, counted) for f in features if f.type == "number"}
    categories = {f.name: _categories(columns[f.name], f, problems, counted) for f in features if f.type == "category"}
    target = _target(columns[study.task.target], study, problems)
    patients, keys = _patients(columns, study, problems)
    in_test = _split(columns.get(study.evaluation.split_column or "", []), patients, len(keys), study, problems)
    _raise_if_any(name, problems)
    return Table(numbers, categories, target, patients, keys, in_test)


def _numbers(
    cells: list[str], feature: Feature, problems: list[str], empty_is_unknown: bool = False
) -> NDArray[np.float64]:
    codes = {float(code) for code in feature.missing}
    values = np.array([_number(cell) for cell in cells])
    empty = np.array([not cell for cell in cells], bool)
    _note(problems, feature.name, "a number", np.isnan(values) & ~empty)
    if not feature.missing and not empty_is_unknown:
        _note(problems, feature.name, "a value, as the study lists no code for unknown", empty)
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
    cells: list[str], feature: Feature, problems: list[str], empty_is_unknown: bool = False
) -> NDArray[np.int64]:
    codes = {value: i for i, value in enumerate(feature.values)} | dict.fromkeys(feature.missing, -1)
    if feature.missing or empty_is_unknown:
        codes[""] = -1
    found = np.array([codes.get(cell, -2) for cell in cells], np.int64)
    _note(problems, feature.name, f"one of {', '.join(codes)}"[:200], found == -2)
    return found


def _target(cells: list[str], study: Study, problems: list[str]) -> NDArray[np.float64]:
    task = study.task
    if not study.trains:
        return _counted_target(cells, study, problems)
    if task.type == "regression":
        values = np.array([_number(cell) for cell in cells])
        _note(problems, task.target, "a number", np.isnan(values))
        return values
    found = np.array([_class_of(cell, task.classes) for cell in cells], float)
    _note(problems, task.target, f"one of {', '.join(task.classes)}"[:200], found == -1)
    if absent := [word for i, word in enumerate(task.classes) if not (found == i).any()]:
        problems.append(
            f"column {task.target!r}: no patient of class {', '.join(absent)}; a model cannot learn it here"
        )
    return found


def _counted_target(cells: list[str], study: Study, problems: list[str]) -> NDArray[np.float64]:
    """The target of statistics: class numbers with -1, or numbers with NaN, where the cell is empty."""
    task, empty = study.task, np.array([not cell for cell in cells], bool)
    if not task.classes:
        return _numbers(cells, study.counted[-1], problems, True)
    found = np.array([_class_of(cell, task.classes) for cell in cells], float)
    _note(problems, task.target, f"one of {', '.join(task.classes)}, or nothing"[:200], (found == -1) & ~empty)
    return found


def _class_of(cell: str, classes: tuple[str, ...]) -> int:
    """Position of the class that a cell names; '1.0' and '1' name the same one."""
    if cell in classes:
        return classes.index(cell)
    value = _number(cell)
    return next((i for i, word in enumerate(classes) if value == _number(word)), -1)


def _patients(
    columns: dict[str, list[str]], study: Study, problems: list[str]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Each row's patient, and the patients' keys: their ids, or what the row says where a row is a patient.

    A row's position would do as a key but for one thing: it changes when another patient's row is taken out, and the
    split by key would then move patients who have nothing to do with it. Equal rows have one key and share a side.
    """
    if study.patient_id is None:
        rows = list(zip(*columns.values(), strict=True))
        return np.arange(len(rows)), tuple("\x1f".join(row) for row in rows)
    cells = columns[study.patient_id]
    _note(problems, study.patient_id, "a patient id", np.array([not cell for cell in cells], bool))
    keys = tuple(dict.fromkeys(cells))
    position = {key: i for i, key in enumerate(keys)}
    return np.array([position[cell] for cell in cells], np.int64), keys


def _split(
    cells: list[str], patients: NDArray[np.int64], count: int, study: Study, problems: list[str]
) -> NDArray[np.bool_] | None:
    column = study.evaluation.split_column
    if column is None:
        return None
    _note(problems, column, "train or test", np.array([cell not in ("train", "test") for cell in cells], bool))
    is_test = np.array([cell == "test" for cell in cells], bool)
    per_patient = np.zeros(count, bool)
    per_patient[patients] = is_test
    torn = per_patient[patients] != is_test
    _note(problems, column, "the same side on every row of a patient", torn)
    return per_patient


def _note(problems: list[str], column: str, expected: str, wrong: NDArray[np.bool_]) -> None:
    if wrong.any():
        lines = (np.flatnonzero(wrong) + 2).tolist()
        problems.append(f"column {column!r}: expected {expected}; found something else {_lines(lines)}")


def _lines(numbers: list[int]) -> str:
    shown = ", ".join(str(n) for n in numbers[:3])
    more = f" and {len(numbers) - 3} more" if len(numbers) > 3 else ""
    return f"on line{'s' if len(numbers) > 1 else ''} {shown}{more} (values are not shown)"


def _raise_if_any(name: str, problems: list[str]) -> None:
    if len(problems) == 1:
        raise DataError(f"{name}: {problems[0]}")
    if problems:
        rest = [f"and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
        raise DataError("\n  ".join([f"{name}: {len(problems)} problems", *problems[:MAX_PROBLEMS], *rest]))
