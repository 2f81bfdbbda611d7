"""Columns in every form answer every question as their text does, to the bit."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.connectors import gather
from client.connectors.checks import table_of
from client.connectors.columns import Cells, Coded, Column, Numbers, Stored, joined, plain
from client.connectors.gather import gatherer, short
from client.connectors.notes import Notes
from strategies.data.registry import data_of
from strategies.data.source import Table
from tests.client.connectors.test_csv_file import study

IDS = study(patient_id="id")
EACH = ["age", "chol", "sex", "stage", "ill"]
ODD = [0.0, -0.0, 1.0, 1e22, 2.0**53, 9007199254740993.0, 0.1, 1e-7, 55.5, np.inf, -np.inf, np.nan, -9.0, 1937.0]
Form = Callable[[list[str]], Column]


def coded(cells: list[str]) -> Column:
    """Words that stand twice in the list, and one that is never used."""
    words = ["never", *dict.fromkeys(cells), *dict.fromkeys(cells)]
    places = [words.index(cell) + (len(set(cells)) if row % 2 else 0) for row, cell in enumerate(cells)]
    return Coded(np.array(places, np.int32), words)


def in_pieces(cells: list[str]) -> Column:
    """Text and codes of one column, one after the other."""
    return (
        joined([coded(cells[:2]), coded(cells[2:])]) if len(cells) % 2 else joined([Cells(cells[:1]), coded(cells[1:])])
    )


FORMS: dict[str, Form] = {
    "coded": coded,
    "stored": lambda cells: Stored(len(cells), lambda: coded(cells)),
    "pieces": in_pieces,
}


def same(first: Table, second: Table) -> bool:
    """Whether two tables are the same bits."""
    assert first.keys == second.keys
    for one, other in (
        (first.numbers, second.numbers),
        (first.categories, second.categories),
        (first.targets, second.targets),
    ):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].tobytes() == other[name].tobytes(), name
    return first.patients.tobytes() == second.patients.tobytes()


def table(columns: Mapping[str, Column], *, ids: bool) -> tuple[Table, list[str]]:
    """The table of columns, and what was noted."""
    notes = Notes(thorough=True)
    of = IDS if ids else study()
    read = table_of(columns, of, notes)
    data_of(of).read(read, of)  # columns of a store are typed when they are asked for
    return read, list(notes.lines())


CELL = st.sampled_from(
    [
        "",
        "1",
        "1.0",
        "01",
        "0",
        "-0",
        "-0.0",
        "<5",
        "nan",
        "inf",
        "1e3",
        "1_0",
        "9007199254740993",
        "i",
        "male",
        "?",
        "55",
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[CELL] * 6), min_size=1, max_size=8), st.sampled_from(sorted(FORMS)), st.booleans())
def test_codes_words_and_text_make_one_table(rows: list[tuple[str, ...]], form: str, ids: bool) -> None:
    columns = {name: [row[place] for row in rows] for place, name in enumerate([*EACH, "id"])}
    text, noted = table({name: Cells(cells) for name, cells in columns.items()}, ids=ids)
    other, also_noted = table({name: FORMS[form](cells) for name, cells in columns.items()}, ids=ids)
    assert same(text, other)
    assert noted == also_noted


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(*[st.sampled_from(ODD) | st.floats(allow_nan=False)] * 6), min_size=1, max_size=8), st.booleans()
)
def test_typed_numbers_make_the_table_of_their_text(rows: list[tuple[float, ...]], ids: bool) -> None:
    columns = {name: Numbers(np.array([row[place] for row in rows])) for place, name in enumerate([*EACH, "id"])}
    text, noted = table({name: Cells(column.texts()) for name, column in columns.items()}, ids=ids)
    other, also_noted = table(columns, ids=ids)
    assert same(text, other)
    assert noted == also_noted


def test_a_number_without_digits_behind_the_point_is_the_text_of_a_whole_one() -> None:
    """Whole numbers with an empty cell among them, which a program kept as 1.0, nan, 2.0."""
    assert Numbers(np.array([1.0, np.nan, 2.0])).texts() == ["1", "", "2"]
    assert Numbers(np.array([-0.0])).mapped(lambda cell: cell).texts() == ["-0"]


GIVEN = st.lists(
    st.sampled_from([None, "1.50", "12345678901234567890.10", "NaN", "Infinity", "-0", "0.30000000000000004"]),
    max_size=9,
)


@given(GIVEN, st.sampled_from(["number", "category", "text"]), st.integers(1, 4), st.booleans())
def test_cells_are_gathered_as_their_text_however_they_come(
    cells: list[str | None], read_as: str, size: int, as_floats: bool
) -> None:
    if as_floats:
        read_as = "number"
    column = gatherer(read_as, short, is_typed=True)
    for start in range(0, len(cells), size):
        piece: list[Any] = cells[start : start + size]
        column.add([None if cell is None else float(cell) for cell in piece] if as_floats else piece)
    text = Cells(["" if cell is None else short(cell) for cell in cells])
    assert column.column().numbers().tobytes() == text.numbers().tobytes()
    assert column.column().mapped(plain).texts() == text.mapped(plain).texts()
    if read_as != "number":
        assert column.column().texts() == text.texts()


def test_words_that_never_come_again_are_not_looked_up_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "MOST_WORDS", 3)
    column = gatherer("category", str.strip)
    for word in "abcdeab":
        column.add([word, None])
    assert isinstance(column.column(), Cells)
    assert "".join(column.column().texts()) == "abcdeab"
