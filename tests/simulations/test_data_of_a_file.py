"""`archipel data`: what the columns of a researcher's own file look like, and what a study would read of it."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from configs.strict_yaml import dump_yaml, parse_yaml
from simulations.cli import main
from tests.builders import study

Output = pytest.CaptureFixture[str]
MARKER = "Durand-1937"
ROWS = 40
COLUMNS: dict[str, list[str]] = {
    "ipp": [f"{MARKER}{n:05d}" for n in range(ROWS)],
    "age": [str(20 + n) for n in range(ROWS)],
    "sex": [("F", "H")[n % 2] for n in range(ROWS)],
    "hb": [f"{9 + n % 7},{n % 10}" for n in range(ROWS)],
    "seen": [f"{1 + n % 28:02d}/03/2024" for n in range(ROWS)],
    "remarks": [f"{MARKER} said {n}" for n in range(ROWS)],
    "code": [f"{n % 3}.0" for n in range(ROWS)],
    "stage": ["NR", *["II", "III"] * 19, "ND"],
    "empty": [""] * ROWS,
}
LOOKS = {
    **{"ipp": "id", "age": "number", "sex": "category", "hb": "number", "seen": "date", "remarks": "text"},
    **{"code": "category", "stage": "category", "empty": "nothing"},
}


def shown(capsys: Output, *words: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(["data", *words]) == code
    out, err = capsys.readouterr()
    assert MARKER not in out + err
    return err if code else out


def written(path: Path, separator: str = ";", encoding: str = "cp1252", above: str = "Export du 3 août\n\n") -> Path:
    """The columns as a French program may write them."""
    lines = [separator.join(row) for row in zip(*COLUMNS.values(), strict=True)]
    path.write_bytes((above + "\n".join([separator.join(COLUMNS), *lines]) + "\n").encode(encoding))
    return path


def test_a_file_of_another_dialect_is_read_and_its_columns_are_told_but_no_id_or_text(
    tmp_path: Path, capsys: Output
) -> None:
    profile = json.loads(shown(capsys, str(written(tmp_path / "lille.csv")), "--json"))
    assert {column["name"]: column["looks_like"] for column in profile["columns"]} == LOOKS
    of = {column["name"]: column for column in profile["columns"]}
    assert (of["age"]["low"], of["age"]["high"], of["age"]["distinct"]) == (20, 59, 40)
    assert (of["hb"]["low"], of["sex"]["values"], of["stage"]["unknown"]) == (9.0, ["F", "H"], 2)
    assert of["ipp"]["values"] == of["remarks"]["values"] == []
    found = {finding["column"]: finding["line"] for finding in profile["findings"]}
    assert found["hb"] == "decimal: comma"
    assert found["stage"] == 'missing: ["ND", "NR"]'
    source = parse_yaml(profile["source"], "the source")
    assert source["dialect"] == {"separator": "semicolon", "encoding": "cp1252", "skip_lines": 2}


def test_the_table_is_readable_and_parquet_is_read_too(tmp_path: Path, capsys: Output) -> None:
    columns: dict[str, Any] = COLUMNS | {"age": [float(cell) for cell in COLUMNS["age"]]}
    parquet.write_table(pa.table(columns), tmp_path / "lille.parquet")
    text = shown(capsys, str(tmp_path / "lille.parquet"))
    assert "source: {connector: parquet, path: " in text
    assert (
        " ".join(next(line for line in text.split("\n") if line.startswith("age ")).split())
        == "age number 20 to 59 40 -"
    )


def test_with_a_study_it_is_the_page_that_a_hospital_sees(tmp_path: Path, capsys: Output) -> None:
    rows = [f"{n},{2000 + n},{('female', 'MALE')[n % 2]},{n % 2}" for n in range(ROWS)]
    (tmp_path / "lille.csv").write_text("\n".join(["ipp,âge,sex,disease", *rows]) + "\n")
    chosen = study(patient_id="ipp", cohort={"lille": 40})
    mapped = {"connector": "csv", "path": "lille.csv", "columns": {"age": "âge"}}
    document = chosen.to_dict() | {"simulation": {"sites": {"lille": mapped}}}
    (tmp_path / "study.yaml").write_text(dump_yaml(document))
    text = shown(capsys, str(tmp_path / "lille.csv"), "--study", str(tmp_path / "study.yaml"))
    assert "40 rows, 40 patients" in text
    assert "! age: MOST VALUES LIE OUTSIDE the study's range" in text
    assert "line: words: {sex: {MALE: male}}" in text


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        ("1,2\n3,4\n", "expected names in the header, found values"),
        ("", "expected names in the header"),
        (None, "found none"),
    ],
    ids=["no header", "nothing", "no file"],
)
def test_a_file_without_names_is_refused(content: str | None, refusal: str, tmp_path: Path, capsys: Output) -> None:
    if content is not None:
        (tmp_path / "odd.csv").write_text(content)
    assert refusal in shown(capsys, str(tmp_path / "odd.csv"), code=2)
