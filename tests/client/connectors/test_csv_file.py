"""The CSV reader: no row is refused, each odd one has a public meaning and is noted by its line without its value."""

import math
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.connectors import checks, probe, read_table
from client.connectors.csv_file import read_columns
from client.connectors.notes import Notes
from client.patients import load_patients
from configs.errors import DataError, SourceError
from configs.load import load_study, study_from
from configs.schema import CsvFile, Study
from strategies.data.source import Table

MARKER = "Durand-1937"


def study(**changes: Any) -> Study:
    document: dict[str, Any] = {
        "name": "csv",
        "purpose": "Read",
        "task": {"type": "binary", "target": "ill"},
        "patient_id": None,
        "features": {
            "age": {"type": "number", "range": [20, 90]},
            "chol": {"type": "number", "range": [100, 400], "missing": [0]},
            "sex": {"type": "category", "values": ["female", "male"]},
            "stage": {"type": "category", "values": ["i", "ii"], "missing": ["?"]},
        },
        "model": {"name": "logistic"},
        "training": {
            "strategy": {"name": "fedavg"},
            "rounds": 1,
            "quorum": 1,
            "local": {"batch_size": "full", "learning_rate": 1},
        },
        "privacy": {"mode": "none"},
        "evaluation": {"test_fraction": 0.3},
    }
    return study_from(document | changes)


GOOD = "age,chol,sex,stage,ill\n50,200,male,i,0\n61,0,female,?,1\n70,,female,ii,1\n"


def read(folder: Path, text: str | bytes, of: Study | None = None) -> Table:
    path = folder / "data.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return read_table(CsvFile(path), of or study())


def told(folder: Path, text: str | bytes, of: Study | None = None) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, text, of)
    assert MARKER not in str(caught.value)
    return str(caught.value)


def test_columns_are_typed_and_unknown_values_are_marked(tmp_path: Path) -> None:
    table = read(tmp_path, GOOD)
    assert table.numbers["age"].tolist() == [50, 61, 70]
    assert np.isnan(table.numbers["chol"]).tolist() == [False, True, True]
    assert table.categories["stage"].tolist() == [0, -1, 1]
    assert table.targets["ill"].tolist() == [0, 1, 1]


def test_columns_that_the_study_does_not_name_are_not_kept(tmp_path: Path) -> None:
    table = read(tmp_path, GOOD.replace("ill\n", "ill,name\n").replace("0\n", f"0,{MARKER}\n").replace("1\n", "1,x\n"))
    assert MARKER not in repr(table)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD + "\n\n",
        GOOD.replace("0\n", "0,,\n"),
        GOOD.replace("50", '"50"').replace(",male", ", male "),
    ],
)
def test_what_spreadsheets_add_does_no_harm(text: str, tmp_path: Path) -> None:
    assert read(tmp_path, text).numbers["age"].tolist() == [50, 61, 70]


@pytest.mark.parametrize("cell", ["x" * 140_000, '"' + "x\n" * 200_000 + '"'])
def test_a_long_cell_does_no_harm(cell: str, tmp_path: Path) -> None:
    text = GOOD.replace("ill\n", "ill,report\n").replace("0\n", f"0,{cell}\n").replace("1\n", "1,x\n")
    assert read(tmp_path, text).numbers["age"].tolist() == [50, 61, 70]


def test_words_that_look_like_truth_values_or_numbers_are_compared_as_the_study_file_writes_them(
    tmp_path: Path,
) -> None:
    (tmp_path / "study.yaml").write_text(
        """
name: written
purpose: False alarms
task: {type: binary, target: ill, classes: [False, True]}
patient_id: null
features:
  dose: {type: category, values: [1.50, 2.0], missing: [-9.0]}
  smokes: {type: category, values: [False, True], missing: [unk]}
model: {name: logistic}
training: {strategy: {name: fedavg}, rounds: 1, quorum: 1, local: {batch_size: full, learning_rate: 1}}
privacy: {mode: none}
evaluation: {test_fraction: 0}
"""
    )
    text = "dose,smokes,ill\n1.50,False,False\n2.0,True,True\n-9.0,unk,True\n,,False\n"
    table = read(tmp_path, text, load_study(tmp_path / "study.yaml"))
    assert table.categories["dose"].tolist() == table.categories["smokes"].tolist() == [0, 1, -1, -1]
    assert table.targets["ill"].tolist() == [0, 1, 1, 0]


MISFITS: dict[str, tuple[str | bytes, str]] = {  # what the header decides
    "empty": ("", "expected a header line, found an empty file"),
    "missing columns": (
        GOOD.replace("age,chol", "Age,chol").replace("ill", "sick"),
        "columns 'age', 'ill' are not in the header",
    ),
    "duplicate column": (GOOD.replace("chol,", "age,"), "column 'age' stands twice in the header"),
    "semicolons": (GOOD.replace(",", ";"), "separated by semicolons"),
    "a header without its end": ('"' + GOOD, "a broken quotation"),
}


@pytest.mark.parametrize(("text", "expected"), MISFITS.values(), ids=MISFITS.keys())
def test_what_the_header_decides_is_refused_with_and_without_reading_the_rows(
    text: str | bytes, expected: str, tmp_path: Path
) -> None:
    assert expected in told(tmp_path, text)
    with pytest.raises(DataError) as caught:
        probe(CsvFile(tmp_path / "data.csv"), study())
    assert str(caught.value) == told(tmp_path, text)


NAN = math.nan
ODD_CELLS: dict[str, tuple[str, str, list[float], str]] = {  # a row's cell, another, what it is then, what is noted
    "no number": ("age", MARKER, [50, NAN, 70], "age: 1 of 3 rows is no number that can be read (line 3)"),
    "NaN": ("age", "NaN", [50, NAN, 70], "age: 1 of 3 rows is no number that can be read (line 3)"),
    "infinity": ("age", "inf", [50, NAN, 70], "no number that can be read"),
    "too large for a number": ("age", "1e400", [50, NAN, 70], "no number that can be read"),
    "underscored": ("age", "6_1", [50, NAN, 70], "no number that can be read"),
    "other digits": ("age", "\u0666\u0661", [50, NAN, 70], "no number that can be read"),
    "censored": ("age", "<30", [50, NAN, 70], "no number that can be read"),
    "an empty cell": ("age", "", [50, NAN, 70], "age: 33 % unknown"),
    "beyond the range": ("age", "1e300", [50, 1e300, 70], "age: 33 % outside its range, moved to the edge"),
    "unlisted": ("sex", MARKER, [1, -1, 0], "sex: 1 of 3 rows is no value that the study lists (line 3)"),
    "unlisted beside codes": ("stage", MARKER, [0, -1, 1], "stage: 1 of 3 rows is no value that the study lists"),
    "an empty category": ("sex", "", [1, -1, 0], "sex: 33 % unknown"),
}


@pytest.mark.parametrize(("column", "cell", "values", "note"), ODD_CELLS.values(), ids=ODD_CELLS)
def test_an_odd_cell_is_unknown_and_noted_for_the_hospital_by_its_line(
    column: str, cell: str, values: list[float], note: str, tmp_path: Path
) -> None:
    lines = GOOD.splitlines()
    row = dict(zip(lines[0].split(","), lines[2].split(","), strict=True)) | {column: cell}
    lines[2] = ",".join(row.values())
    notes = Notes()
    (tmp_path / "data.csv").write_text("\n".join(lines))
    table = read_table(CsvFile(tmp_path / "data.csv"), study(), notes)
    typed = {**table.numbers, **table.categories}[column]
    np.testing.assert_array_equal(typed, values)
    assert any(note in line for line in notes.lines())
    assert MARKER not in "".join(notes.lines())


WORDS_FOR_UNKNOWN = ["NA", "NR", "ND", ".", "-", "N/A", "inconnu", "#VALUE!", "\\N", "NULL", "nan", "<5", "9999"]


@pytest.mark.parametrize("word", WORDS_FOR_UNKNOWN)
def test_a_number_may_have_words_for_unknown(word: str, tmp_path: Path) -> None:
    features = {"age": {"type": "number", "range": [20, 90], "missing": [word, "-1"]}}
    of, notes = study(features=features), Notes()
    (tmp_path / "data.csv").write_text(f"age,ill\n50,0\n{word},1\n-1.0,0\n,1\nNS,1\n")
    table = read_table(CsvFile(tmp_path / "data.csv"), of, notes)
    np.testing.assert_array_equal(table.numbers["age"], [50, NAN, NAN, NAN, NAN])
    assert (notes.columns["age"].unknown, notes.columns["age"].unread) == (3, 1)
    assert study_from(of.to_dict()).sha256 == of.sha256
    assert len(of.inputs) == 2  # the second says that the age is unknown


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (["<5", ">100", "\u22642", "\u2265 3", "50"], "age: of these 4 cells begin with < or >"),
        (["<5", "x", "50"], "age: of these 1 cell begins with < or >"),
        (["5<", "x", "", "50"], None),
    ],
)
def test_what_a_laboratory_could_not_measure_is_told_apart_from_what_is_no_number(
    cells: list[str], told: str | None, tmp_path: Path
) -> None:
    of, notes = study(features={"age": {"type": "number", "range": [20, 90]}}), Notes()
    (tmp_path / "data.csv").write_text("age,ill\n" + "".join(f"{cell},1\n" for cell in cells))
    table = read_table(CsvFile(tmp_path / "data.csv"), of, notes)
    assert np.nansum(table.numbers["age"]) == 50  # never the limit, never 0
    lines = [line for line in notes.oddities() if "begin" in line]
    assert lines == [] if told is None else lines[0].startswith(told)


NO_PATIENTS: dict[str, tuple[str, str]] = {  # a line in the middle of the file, what is noted
    "an unlisted outcome": (f"61,0,female,?,{MARKER}", "ill: 1 of 4 rows is no outcome that the study lists"),
    "an empty outcome": ("61,0,female,?,", "1 row left out: without an outcome"),
    "an outcome that is no number": ("61,0,female,?,nan", "1 row left out: without an outcome"),
    "a cell too few": ("61,0,female,?", "1 row left out: another number of cells, or a broken quotation (line 3)"),
    "a cell too many": ("61,0,female,?,1,1", "another number of cells, or a broken quotation (line 3)"),
    "nothing but commas": (",,,,", "1 row with nothing in it"),
    "nothing but spaces": ("  , ,,\t,", "1 row with nothing in it"),
    "an empty line": ("", "1 row with nothing in it"),
    "the header again": ("age,chol,sex,stage,ill", "1 row left out: the header again"),
    "a quotation without its end": (f'"{MARKER},0,female,?,1', "a broken quotation (line 3)"),
    "a quotation that goes on": ('61,0,"female"x,?,1', "a broken quotation (line 3)"),
    "one character": ("x", "another number of cells"),
}


@pytest.mark.parametrize(("line", "note"), NO_PATIENTS.values(), ids=NO_PATIENTS)
def test_a_line_that_is_no_patients_leaves_every_other_as_it_is(line: str, note: str, tmp_path: Path) -> None:
    rows, notes = GOOD.splitlines(), Notes()
    (tmp_path / "data.csv").write_text("\n".join([rows[0], rows[1], line, rows[2], rows[3]]) + "\n")
    table = read_table(CsvFile(tmp_path / "data.csv"), study(), notes)
    (tmp_path / "data.csv").write_text(GOOD)
    assert repr(table) == repr(read_table(CsvFile(tmp_path / "data.csv"), study()))
    assert any(note in line for line in notes.lines()), list(notes.lines())
    assert MARKER not in "".join(notes.lines())


DEMO = CsvFile(Path("demo.csv"))
SWALLOWING = "\n".join(["id,age,note", '"q,1,y', *[f"p{n},{n},x" for n in range(9)], '",2,z', ""])


def test_rows_between_a_quotation_that_is_never_closed_and_a_stray_mark_are_read() -> None:
    notes = Notes(patients=1)
    assert read_columns(SWALLOWING, ["id", "age"], DEMO, notes)["age"] == list("012345678")
    assert list(notes.oddities()) == [
        "2 rows left out: another number of cells, or a broken quotation (lines 2, 12)",
        'of these, 1 with a quotation that a row breaks off (line 2): export again with every " in a cell doubled; '
        "where the line that looks like a row is text, write multiline: true beside path in site.yaml",
    ]


def test_what_stands_in_a_quotation_is_one_cell_where_site_yaml_says_so_and_told() -> None:
    notes = Notes(patients=1)
    assert read_columns(SWALLOWING, ["id", "age"], replace(DEMO, multiline=True), notes)["age"] == ["2"]
    assert list(notes.oddities()) == [
        "9 LINES INSIDE A QUOTATION LOOK LIKE ROWS (line 2): they are no patients', as site.yaml says multiline: true; "
        'where a quotation mark was never closed, export again with every " in a cell doubled'
    ]


def test_a_text_of_several_lines_is_nothing_to_tell() -> None:
    notes = Notes(patients=1)
    text = 'id,age,note\np,1,"fever, cough\nand more, as was said"\nq,2,""\n'
    assert read_columns(text, ["id", "age"], DEMO, notes)["id"] == ["p", "q"]
    assert list(notes.oddities()) == []


@pytest.mark.parametrize("at", [1, 2, 3, 4])
@pytest.mark.parametrize("cell", ['"', '"""', 'x"', '"x"y', '"\r', '",'])
def test_a_stray_quotation_mark_takes_no_other_patients_line_with_it(cell: str, at: int, tmp_path: Path) -> None:
    rows = ['50,"200",male,i,0', '61,0,"female",?,1', '70,,female,ii,"1"', '71,"1,5",male,i,0']
    before = read(tmp_path, "\n".join([GOOD.splitlines()[0], *rows]))
    lines = [GOOD.splitlines()[0], *rows]
    lines.insert(at, f"40,{cell},male,i,0")
    after = read(tmp_path, "\n".join(lines))
    assert set(before.keys) <= set(after.keys)
    assert len(after.keys) <= len(before.keys) + 1


def test_line_breaks_in_cells_count_as_lines_of_the_file(tmp_path: Path) -> None:
    text = 'age,note,chol,sex,stage,ill\n50,"a\nb\nc",200,male,i,0\nx,d,0,female,?,1\n'
    (tmp_path / "data.csv").write_text(text)
    notes = Notes()
    read_table(CsvFile(tmp_path / "data.csv"), study(), notes)
    assert "age: 1 of 2 rows is no number that can be read (line 5)" in list(notes.lines())


@pytest.mark.parametrize("cell", ["1.0", "1.00", "1", " 1 ", "1e0", "+1", "01"])
def test_a_number_is_one_code_however_it_is_written(cell: str, tmp_path: Path) -> None:
    features = {"stage": {"type": "category", "values": ["0", "1", "2"], "missing": ["9"]}}
    of = study(features=features)
    table = read(tmp_path, f"stage,ill\n{cell},{cell}\n2.0,0.0\n9.0,1\n", of)
    assert table.categories["stage"].tolist() == [1, 2, -1]
    assert table.targets["ill"].tolist() == [1, 0, 1]
    assert table.keys == read(tmp_path, "stage,ill\n1,1\n2,0\n9,1\n", of).keys


@pytest.mark.parametrize("text", ["age,chol,sex,stage,ill\n", "age,chol,sex,stage,ill", GOOD.replace(",0\n", ",1\n")])
def test_nobody_or_nobody_of_a_class_is_no_reason_to_refuse(text: str, tmp_path: Path) -> None:
    table = read(tmp_path, text)
    assert len(table.keys) == len(text.splitlines()) - 1
    patients = load_patients(CsvFile(tmp_path / "data.csv"), study(), "lille")
    assert patients.train.x.shape[1] == patients.test.x.shape[1] == len(study().inputs)


def test_bytes_that_are_no_utf_8_stay_apart_and_match_no_word(tmp_path: Path) -> None:
    of = study(patient_id="patient")
    text = b"patient,age,chol,sex,stage,ill\n\xe9,50,200,m\xe2le,i,0\n\xe8,61,0,female,?,1\n\xe9,70,,female,ii,1\n"
    table = read(tmp_path, text, of)
    assert table.patients.tolist() == [0, 1, 0]
    assert table.categories["sex"].tolist() == [-1, 0, 0]


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        read_table(CsvFile(tmp_path / "none.csv"), study())


PATIENTS = "patient,age,chol,sex,stage,ill\nb,50,200,male,i,0\na,61,0,female,?,1\nb,70,,female,ii,1\n"


def test_rows_of_one_patient_stay_together(tmp_path: Path) -> None:
    table = read(tmp_path, PATIENTS, study(patient_id="patient"))
    assert (table.keys, table.patients.tolist()) == (("b", "a"), [0, 1, 0])


def test_a_row_without_a_patient_id_is_no_patients(tmp_path: Path) -> None:
    table = read(tmp_path, PATIENTS.replace("\na,", "\n,"), study(patient_id="patient"))
    assert (table.keys, table.patients.tolist()) == (("b",), [0, 0])


def test_a_patient_on_both_sides_of_the_split_is_in_the_test_whole(tmp_path: Path) -> None:
    rows = zip(PATIENTS.splitlines(), ("fold", "train", "train", "test"), strict=True)
    text = "\n".join(f"{row},{fold}" for row, fold in rows)
    of = study(patient_id="patient", evaluation={"split_column": "fold"})
    table = read(tmp_path, text, of)
    assert table.in_test is not None
    assert (table.keys, table.in_test.tolist()) == (("b", "a"), [True, False])


def test_a_row_whose_side_of_the_split_cannot_be_read_is_no_patients(tmp_path: Path) -> None:
    rows = zip(PATIENTS.splitlines(), ("fold", "train", "Test", "train"), strict=True)
    text = "\n".join(f"{row},{fold}" for row, fold in rows)
    table = read(tmp_path, text, study(patient_id="patient", evaluation={"split_column": "fold"}))
    assert (table.keys, table.patients.tolist()) == (("b",), [0, 0])


def test_of_one_patient_a_public_number_of_rows_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MOST_ROWS_EACH", 2)
    text = PATIENTS + "b,71,,female,ii,1\na,30,,female,ii,1\nb,72,,female,ii,1\n"
    table = read(tmp_path, text, study(patient_id="patient"))
    assert table.numbers["age"].tolist() == [50, 61, 70, 30]
    assert table.patients.tolist() == [0, 1, 0, 1]


def test_a_split_that_leaves_nobody_to_train_on_trains_on_nobody(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("age,chol,sex,stage,ill,fold\n50,200,male,i,0,test\n61,0,female,?,1,test\n")
    patients = load_patients(CsvFile(path), study(evaluation={"split_column": "fold"}), "lille")
    assert (patients.train.count, patients.test.count) == (0, 2)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "ignore")))
def test_any_bytes_after_the_header_are_a_table(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    read(tmp_path_factory.mktemp("any"), GOOD.splitlines()[0].encode() + b"\n" + content)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "ignore")))
def test_any_bytes_are_no_header_of_the_study(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    with pytest.raises(DataError):
        read(tmp_path_factory.mktemp("any"), content)


CELLS = st.sampled_from(["50", "", "male", "i", "1", "x", '"', "a,b", "\n", "9" * 400, "\x00", "1e400", "?"])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(CELLS, min_size=4, max_size=6), min_size=1, max_size=5),
    st.integers(0, 4),
    st.integers(0, 3),
)
def test_no_row_is_refused_and_no_note_ever_holds_a_value_of_a_patient(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], row: int, column: int
) -> None:
    rows[row % len(rows)][column] = MARKER
    path, notes = tmp_path_factory.mktemp("marked") / "data.csv", Notes()
    path.write_text("age,chol,sex,stage,ill\n" + "\n".join(",".join(cells) for cells in rows))
    read_table(CsvFile(path), study(), notes)
    assert MARKER not in "".join(notes.lines())


def test_taking_one_patient_out_moves_no_other_across_the_split(tmp_path: Path) -> None:
    rows = [f"{20 + i % 70},{150 + i},{('male', 'female')[i % 2]},i,{i % 2}" for i in range(200)]
    header = GOOD.splitlines()[0]
    path = tmp_path / "data.csv"
    sides = []
    for kept in (rows, rows[:10] + rows[11:], rows[::-1]):
        path.write_text("\n".join([header, *kept]) + "\n")
        patients = load_patients(CsvFile(path), study(), "lille")
        sides.append({tuple(x) for x in patients.test.x.tolist()})
    assert 30 < len(sides[0]) < 90
    assert len(sides[0] ^ sides[1]) <= 1  # the one that was taken out, if it was there
    assert sides[0] == sides[2]  # nor does the order of the rows matter


def test_a_pipe_is_not_opened_to_look_at_its_header(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "data.csv")
    waits = threading.Thread(target=probe, args=(CsvFile(tmp_path / "data.csv"), study()), daemon=True)
    waits.start()
    waits.join(20)
    assert not waits.is_alive()
