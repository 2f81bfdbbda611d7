"""`archipel new`: a first study file from public documentation and headers; no value below a header influences it."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from simulations.cli import main
from simulations.complete import completed

Output = pytest.CaptureFixture[str]
MARKER = "Durand-1937"
REDCAP = """\
"Variable / Field Name","Field Type","Field Label","Choices, Calculations, OR Slider Labels",\
"Text Validation Type OR Show Slider Number","Text Validation Min","Text Validation Max",Identifier?
record_id,text,Record,,,,,
born,text,Date of birth,,date_dmy,,,y
age,text,Age at <b>admission</b>,,integer,18,100,
sex,radio,Sex,"1, Female | 2, Male",,,,
smoker,yesno,Smoker?,,,,,
ill,checkbox,Illnesses,"1, Diabetes | 2, COPD",,,,
remarks,notes,Remarks,,,,,
phone,text,Telephone,,,,,y
"""
DICTIONARY = "name;type;unit;min;max;values\nage;number;years;18;100;\nsex;category;;;;F|M\nhb;number;g/dl;4;;\n"


def drafted(folder: Path, capsys: Output, *words: str, code: int = 0) -> str:
    """What `archipel new` prints, without the lines that say how files were taken."""
    capsys.readouterr()
    assert main(["new", *[str(folder / word) if "." in word else word for word in words]]) == code
    out, err = capsys.readouterr()
    assert MARKER not in out + err
    return err if code else out


def test_a_dictionary_of_redcap_becomes_features_and_identifying_fields_are_left_out(
    tmp_path: Path, capsys: Output
) -> None:
    (tmp_path / "redcap.csv").write_text(REDCAP)
    text = drafted(tmp_path, capsys, "redcap.csv", "--target", "smoker")
    assert "patient_id: record_id" in text
    assert "task: {type: binary, target: smoker, classes: [0, 1]}  # Smoker?" in text
    assert "  age: {type: number, range: [18, 100]}  # Age at admission\n" in text
    assert "  sex: {type: category, values: [1, 2]}  # Sex; 1 = Female, 2 = Male\n" in text
    assert "  ill___2: {type: category, values: [0, 1]}  # Illnesses: COPD\n" in text
    for name in ("born", "remarks", "phone"):
        assert f"  # {name}: left out: " in text
    assert "phone:" not in text.replace("# phone:", "")


def test_a_line_that_nobody_documented_is_refused_by_name_until_it_is_filled_in(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "dictionary.csv").write_text(DICTIONARY)
    path = tmp_path / "draft.yaml"
    assert "4 lines to fill in" in drafted(
        tmp_path, capsys, "dictionary.csv", "--target", "sex", "--patient-id", "age", "--out", "draft.yaml"
    )
    assert main(["simulate", str(path)]) == 2
    refusal = capsys.readouterr().err
    for key in ("features.hb.range", "purpose", "cohort.hospital", "simulation.sites.hospital.path"):
        assert f"{key}: expected" in refusal
    text = path.read_text().replace("purpose:", "purpose: See who is what")
    text = text.replace("range: TODO", "range: [4, 20]").replace("hospital: TODO", "hospital: 200")
    path.write_text(text.replace("path: TODO", "path: data.csv"))
    assert completed(path).study.task.classes == ("F", "M")


def test_a_draft_replaces_no_file(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "dictionary.csv").write_text(DICTIONARY)
    (tmp_path / "mine.yaml").write_text("mine")
    assert "found one" in drafted(tmp_path, capsys, "dictionary.csv", "--out", "mine.yaml", code=2)
    assert (tmp_path / "mine.yaml").read_text() == "mine"


HEADER = 'sep=;\nipp;age;"poids (kg)";sex\n'


@settings(max_examples=30)
@given(rows=st.binary(max_size=200))
def test_no_value_below_a_header_influences_a_draft(rows: bytes, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("rows")
    texts = []
    for body in (b"", rows):
        (folder / "lille.csv").write_bytes(HEADER.encode() + body)
        (folder / "out.yaml").unlink(missing_ok=True)
        assert main(["new", str(folder / "lille.csv"), "--out", str(folder / "out.yaml")]) == 0
        texts.append((folder / "out.yaml").read_bytes())
    assert texts[0] == texts[1]
    assert b"'poids (kg)': {type: TODO}" in texts[0]
    assert b"patient_id: ipp" in texts[0]


@pytest.fixture
def positions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How far each file that was opened for bytes was read."""
    ends: list[int] = []

    class Watched(io.FileIO):
        def close(self) -> None:
            if not self.closed:
                ends.append(self.tell())
            super().close()

    usual = Path.open

    def watched(self: Path, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        file = Watched(self, "r") if mode == "rb" else usual(self, mode, buffering, **options)
        return io.BufferedReader(file) if mode == "rb" and buffering else file

    monkeypatch.setattr(Path, "open", watched)
    return ends


def test_no_byte_below_a_header_is_read(tmp_path: Path, capsys: Output, positions: list[int]) -> None:
    (tmp_path / "lille.csv").write_text(HEADER + f"{MARKER};50;80;F\n" * 10)
    drafted(tmp_path, capsys, "lille.csv")
    assert max(positions) == len(HEADER)


def test_the_schema_of_a_parquet_file_gives_types_and_no_value(tmp_path: Path, capsys: Output) -> None:
    columns = {"ipp": ["1"], "age": [51.5], "smokes": [True], "ward": pa.array([MARKER]).dictionary_encode()}
    parquet.write_table(pa.table(columns), tmp_path / "lille.parquet")
    text = drafted(tmp_path, capsys, "lille.parquet")
    assert "  age: {type: number, range: TODO}" in text
    assert "  smokes: {type: category, values: ['false', 'true']}" in text
    assert "  ward: {type: category, values: TODO}" in text
    assert "51" not in text


ODD = {
    "values in the first line": (f"{MARKER},51\n", "found values or empty cells (not shown)"),
    "nothing": ("", "expected a header line of text, found none"),
    "a broken quotation": ('"ipp,age\n', "a broken quotation"),
    "a name twice": ("age,age\n", "column 'age' stands twice"),
    "names that no terminal should show": ("age,a\x1b[2J\n", "expected names of letters"),
    "a dictionary that says a column twice": ("name,type,unit\nage,number,\nage,number,\n", "described twice"),
}


@pytest.mark.parametrize(("content", "refusal"), ODD.values(), ids=ODD)
def test_a_file_that_gives_no_names_is_refused(content: str, refusal: str, tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "odd.csv").write_text(content)
    assert refusal in drafted(tmp_path, capsys, "odd.csv", code=2)


def test_two_files_are_joined_and_what_one_header_lacks_is_said(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "dictionary.csv").write_text(DICTIONARY)
    (tmp_path / "lille.csv").write_text("ipp,age,sex\n")
    text = drafted(tmp_path, capsys, "dictionary.csv", "lille.csv")
    assert "patient_id: ipp" in text
    assert "NOT in the header of lille.csv" in next(line for line in text.split("\n") if line.startswith("  hb:"))
    assert "  age: {type: number, range: [18, 100], unit: years}\n" in text
    assert "    lille: {connector: csv, path: " in text
