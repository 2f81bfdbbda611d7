"""The CSV reader: every misfit at once, by column and line, and never with a patient's value."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.connectors import read_table
from client.site import load_patients
from configs.errors import DataError, SourceError
from configs.load import load_study, study_from
from configs.schema import DataSource, Study
from strategies.tasks.table import Table

MARKER = "Durand-1937"


def study(**changes: Any) -> Study:
    document: dict[str, Any] = {
        "name": "csv",
        "purpose": "Read",
        "task": {"type": "binary", "target": "ill"},
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
    return read_table(DataSource("csv", path), of or study())


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
    assert table.target.tolist() == [0, 1, 1]


def test_columns_that_the_study_does_not_name_are_not_kept(tmp_path: Path) -> None:
    table = read(tmp_path, GOOD.replace("ill\n", "ill,name\n").replace("0\n", f"0,{MARKER}\n").replace("1\n", "1,x\n"))
    assert MARKER not in repr(table)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD + "\n\n",
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
    assert table.target.tolist() == [0, 1, 1, 0]


MISFITS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "expected a header line, found an empty file"),
    "header only": ("age,chol,sex,stage,ill\n", "expected at least one row"),
    "missing columns": (
        GOOD.replace("age,chol", "Age,chol").replace("ill", "sick"),
        "columns 'age', 'ill' are not in the header",
    ),
    "duplicate column": (GOOD.replace("chol,", "age,"), "column 'age' stands twice in the header"),
    "semicolons": (GOOD.replace(",", ";"), "separated by semicolons"),
    "wrong type": (GOOD.replace("61", MARKER), "column 'age': expected a number; found something else on line 3"),
    "NaN": (GOOD.replace("61", "NaN"), "column 'age': expected a number"),
    "infinity": (GOOD.replace("61", "inf"), "column 'age': expected a number"),
    "underscored": (GOOD.replace("61", "6_1"), "column 'age': expected a number"),
    "other digits": (GOOD.replace("61", "٦١"), "column 'age': expected a number"),
    "empty cell": (GOOD.replace("61", ""), "column 'age': expected a value, as the study lists no code for unknown"),
    "category": (GOOD.replace("male,i,", f"{MARKER},i,"), "column 'sex': expected one of female, male"),
    "category or nothing": (
        GOOD.replace("male,i,", f"male,{MARKER},"),
        "column 'stage': expected one of i, ii, ?, or nothing; found something else",
    ),
    "class": (GOOD.replace("?,1", f"?,{MARKER}"), "column 'ill': expected one of 0, 1"),
    "no patient of a class": (GOOD.replace("i,0", "i,1"), "column 'ill': no patient of class 0"),
    "ragged": (GOOD + f"{MARKER},1\n", "expected 5 cells a line, found another number on line 5"),
    "a line torn inside": (GOOD.replace("\n61", "\n\n61"), "expected 5 cells a line, found another number on line 3"),
    "broken quotation": (GOOD + f'"{MARKER}', "broken quotation"),
    "not UTF-8": (GOOD.replace("male", "m\xe2le").encode("latin-1"), "expected UTF-8 text"),
}


@pytest.mark.parametrize(("text", "expected"), MISFITS.values(), ids=MISFITS.keys())
def test_a_misfit_is_told_by_column_and_line(text: str | bytes, expected: str, tmp_path: Path) -> None:
    assert expected in told(tmp_path, text)


def test_every_misfit_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    text = told(tmp_path, GOOD.replace("61", "x").replace("male,i,", "man,i,").replace("?,1", "?,2"))
    assert [name for name in ("age", "sex", "ill") if f"column '{name}'" in text] == ["age", "sex", "ill"]


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        read_table(DataSource("csv", tmp_path / "none.csv"), study())


PATIENTS = "patient,age,chol,sex,stage,ill\nb,50,200,male,i,0\na,61,0,female,?,1\nb,70,,female,ii,1\n"


def test_rows_of_one_patient_stay_together(tmp_path: Path) -> None:
    table = read(tmp_path, PATIENTS, study(patient_id="patient"))
    assert (table.keys, table.patients.tolist()) == (("b", "a"), [0, 1, 0])


def test_a_patient_id_that_is_null_is_told(tmp_path: Path) -> None:
    text = told(tmp_path, PATIENTS.replace("\na,", "\n,"), study(patient_id="patient"))
    assert "column 'patient': expected a patient id; found something else on line 3" in text


def test_a_split_that_tears_a_patient_apart_is_told(tmp_path: Path) -> None:
    rows = zip(PATIENTS.splitlines(), ("fold", "train", "test", "test"), strict=True)
    text = "\n".join(f"{row},{fold}" for row, fold in rows)
    of = study(patient_id="patient", evaluation={"split_column": "fold"})
    assert "column 'fold': expected the same side on every row of a patient" in told(tmp_path, text, of)


def test_a_split_that_leaves_nobody_to_train_on_is_told(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("age,chol,sex,stage,ill,fold\n50,200,male,i,0,test\n61,0,female,?,1,test\n")
    with pytest.raises(DataError, match="expected training patients, found none"):
        load_patients(DataSource("csv", path), study(evaluation={"split_column": "fold"}), "lille")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "ignore")))
def test_any_bytes_are_a_table_or_a_told_misfit(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    with pytest.raises(DataError):
        read(tmp_path_factory.mktemp("any"), content)


CELLS = st.sampled_from(["50", "", "male", "i", "1", "x", '"', "a,b", "\n", "9" * 400, "\x00", "1e400", "?"])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(CELLS, min_size=4, max_size=6), min_size=1, max_size=5),
    st.integers(0, 4),
    st.integers(0, 3),
)
def test_no_error_ever_holds_a_value_of_a_patient(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], row: int, column: int
) -> None:
    rows[row % len(rows)][column] = MARKER
    text = "age,chol,sex,stage,ill\n" + "\n".join(",".join(cells) for cells in rows)
    told(tmp_path_factory.mktemp("marked"), text)


def test_taking_one_patient_out_moves_no_other_across_the_split(tmp_path: Path) -> None:
    rows = [f"{20 + i % 70},{150 + i},{('male', 'female')[i % 2]},i,{i % 2}" for i in range(200)]
    header = GOOD.splitlines()[0]
    path = tmp_path / "data.csv"
    sides = []
    for kept in (rows, rows[:10] + rows[11:], rows[::-1]):
        path.write_text("\n".join([header, *kept]) + "\n")
        patients = load_patients(DataSource("csv", path), study(), "lille")
        sides.append({tuple(x) for x in patients.test.x.tolist()})
    assert 30 < len(sides[0]) < 90
    assert len(sides[0] ^ sides[1]) <= 1  # the one that was taken out, if it was there
    assert sides[0] == sides[2]  # nor does the order of the rows matter
