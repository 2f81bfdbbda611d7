"""The page of a look at data: counts, causes, what to do, and the line of site.yaml that mends it; no cell's text."""

import json
from pathlib import Path
from typing import Any

import pytest

from client.cli import main
from client.connectors.notes import Notes
from client.looking import page_of
from client.patients import load_patients
from client.views.data_text import data_page
from configs import journal
from configs.records.data_page import DataPage
from configs.schema import Study
from configs.schema.source import SOURCE
from configs.sections import Section
from configs.strict_yaml import dump_yaml, parse_yaml
from tests.builders import study
from tests.consortium import Consortium

Output = pytest.CaptureFixture[str]
MARKER = "Durand-1937"
FEATURES = {
    "age": {"type": "number", "range": [18, 100], "unit": "years"},
    "creat": {"type": "number", "range": [20, 800], "unit": "µmol/l"},
    "sex": {"type": "category", "values": ["female", "male"]},
}
CHOSEN = study(patient_id="ipp", features=FEATURES, cohort={"lille": 100})
USUAL = {
    "ipp": [f"{n:05d}" for n in range(100)],
    "age": [str(20 + n % 60) for n in range(100)],
    "creat": [str(60 + 7 * (n % 40)) for n in range(100)],
    "sex": [("female", "male")[n % 2] for n in range(100)],
    "disease": [str(n // 3 % 2) for n in range(100)],
}


def looked_at(
    folder: Path,
    columns: dict[str, list[str]],
    chosen: Study = CHOSEN,
    min_patients: int = 0,
    mapping: dict[str, Any] | None = None,
) -> DataPage:
    """The page of these columns in the usual ones' place."""
    cells = USUAL | columns
    rows = zip(*cells.values(), strict=True)
    (folder / "rows.csv").write_text("\n".join([",".join(cells), *[",".join(row) for row in rows]]) + "\n")
    notes = Notes(thorough=True)
    entry = Section({"connector": "csv", "path": "rows.csv", **(mapping or {})}, "", [])
    source = SOURCE.read_mapping(entry, {"folder": folder})
    assert entry.problems == []
    people = load_patients(source, chosen, "lille", notes)
    page = page_of(chosen, notes, people, site="lille", min_patients=min_patients)
    assert MARKER not in "\n".join(data_page(page, "site.yaml"))
    return page


def test_usual_data_have_a_row_for_each_column_and_no_finding(tmp_path: Path) -> None:
    page = looked_at(tmp_path, {})
    assert page.findings == ()
    assert {c.name: (c.kind, c.unit, c.expected, c.read) for c in page.columns} == {
        "age": ("number", "years", "18 to 100", 100),
        "creat": ("number", "µmol/l", "20 to 800", 100),
        "sex": ("category", "", "female, male", 100),
        "disease": ("outcome", "", "0, 1", 100),
        "ipp": ("patient id", "", "", 100),
    }


def odd(name: str, count: int, *cells: str) -> dict[str, list[str]]:
    """A usual column where the first cells are others."""
    return {name: [cells[n % len(cells)] for n in range(count)] + USUAL[name][count:]}


CASES: dict[str, tuple[dict[str, list[str]], str, str]] = {  # columns, what is found, the line
    "words for unknown": (
        odd("age", 3, "NR", "nd"),
        "3 cells hold a word for unknown: NR, nd",
        "missing: {age: [NR, nd]}",
    ),
    "an error of a spreadsheet": (
        odd("age", 1, "#N/A"),
        '1 cell holds a word for unknown: "#N/A"',
        'missing: {age: ["#N/A"]}',
    ),
    "dates": (
        odd("age", 9, "12/03/2024"),
        "9 cells hold a date",
        "dates: {age: {from: LOCAL COLUMN, to: LOCAL COLUMN, format: DD/MM/YYYY, unit: years}}",
    ),
    "thousands": (odd("creat", 2, "1 234"), "2 cells hold a number with a sign between", "thousands: space"),
    "a name": (
        odd("creat", 2, MARKER),
        "2 of 100 rows are no number that can be read (lines 2, 3)",
        "missing: {creat: [CODE]}",
    ),
    "creatinine in mg/dl": (
        {"creat": [f"{0.5 + 0.1 * (n % 40):.1f}" for n in range(100)]},
        "MOST VALUES LIE OUTSIDE the study's range: is it another unit? 88.42 times them would fit (creatinine",
        "units: {creat: {from: UNIT HERE, to: µmol/l, times: 88.42}}",
    ),
    "ten times too large": (
        {"age": [str(10 * int(cell)) for cell in USUAL["age"]]},
        "0.1 times them would fit",
        "units: {age: {from: UNIT HERE, to: years, times: 0.1}}",
    ),
    "outside for no reason that is known": ({"age": ["1e6", "2"] * 50}, "is it another unit?", "times: FACTOR"),
    "all in one place of the range": (
        {"creat": [f"{20 + 0.01 * (n % 40):.2f}" for n in range(100)]},
        "nearly all values lie in a fiftieth of the study's range",
        "times: 10}",
    ),
    "upper case": (
        odd("sex", 4, "MALE"),
        "4 cells hold a value of the study in other letters",
        "words: {sex: {MALE: male}}",
    ),
    "common words": (
        odd("sex", 4, "H", "F"),
        "4 cells hold a common word that the study does not list: F, H",
        "words: {sex: {F: WORD OF THE STUDY, H: WORD OF THE STUDY}}",
    ),
    "other words": (
        odd("sex", 4, MARKER, MARKER + "x"),
        "4 of 100 rows are no value that the study lists (lines 2, 3, 4 and 1 more); 2 different words without a known",
        "words: {sex: {LOCAL WORD: female}}",
    ),
    "unknown of all": ({"sex": [""] * 100}, "UNKNOWN OF ALL: is it another column?", "columns: {sex: LOCAL COLUMN}"),
    "one outcome": ({"disease": ["1"] * 100}, "all patients have the same outcome", ""),
    "the outcome in disguise": ({"age": [str(20 + 9 * int(y)) for y in USUAL["disease"]]}, "says disease alone", ""),
    "ids of a spreadsheet": (odd("ipp", 5, "8.45E+11"), "5 ids were shortened by a spreadsheet", ""),
}


@pytest.mark.parametrize(("columns", "text", "line"), CASES.values(), ids=CASES)
def test_what_is_odd_is_told_with_what_to_do(
    columns: dict[str, list[str]], text: str, line: str, tmp_path: Path
) -> None:
    findings = looked_at(tmp_path, columns).findings
    matching = [finding for finding in findings if text in finding.text]
    assert matching, findings
    assert matching[0].todo
    assert line in matching[0].line
    assert all(finding.todo or ";" in finding.text for finding in findings)


MENDED: dict[str, dict[str, str]] = {  # cases above, and what a person writes in the place of words in capitals
    "words for unknown": {},
    "an error of a spreadsheet": {},
    "thousands": {},
    "creatinine in mg/dl": {"UNIT HERE": "mg/dl"},
    "ten times too large": {"UNIT HERE": "tenths"},
    "upper case": {},
    "common words": {"F: WORD OF THE STUDY": "F: female", "H: WORD OF THE STUDY": "H: male"},
    "other words": {"LOCAL WORD: female": f"{MARKER}: female, {MARKER}x: male"},
}


@pytest.mark.parametrize("case", MENDED)
def test_the_line_that_is_told_mends_it(case: str, tmp_path: Path) -> None:
    columns, text, line = CASES[case]
    (finding,) = [finding for finding in looked_at(tmp_path, columns).findings if text in finding.text]
    assert line in finding.line
    written = finding.line
    for placeholder, answer in MENDED[case].items():
        written = written.replace(placeholder, answer)
    assert looked_at(tmp_path, columns, mapping=parse_yaml(written, "the line")).findings == ()


def test_a_row_that_equals_another_is_told(tmp_path: Path) -> None:
    columns = {name: [*cells[:99], cells[0]] for name, cells in USUAL.items()}
    assert [finding.text for finding in looked_at(tmp_path, columns).findings] == [
        "1 row equals another, word for word"
    ]


def test_few_patients_and_another_size_than_announced_are_told(tmp_path: Path) -> None:
    chosen = study(patient_id="ipp", features=FEATURES, cohort={"lille": 9000})
    texts = [finding.text for finding in looked_at(tmp_path, {}, chosen, min_patients=200).findings]
    assert "100 patients, fewer than 200 (policy.min_patients of site.yaml)" in texts
    assert "100 patients, where the study announces 9,000 of this hospital (cohort)" in texts


def hospital(folder: Path, path: Path) -> Path:
    """A hospital whose data set of the study is this file; the study was proposed to nobody."""
    config = Consortium(folder).hospital("lille", datasets={CHOSEN.name: {"connector": "csv", "path": str(path)}})
    return config.folder


def test_the_command_takes_a_study_file_that_nobody_proposed_and_is_in_the_journal(
    tmp_path: Path, capsys: Output
) -> None:
    looked_at(tmp_path, odd("age", 3, "NR"))
    folder = hospital(tmp_path, tmp_path / "rows.csv")
    (tmp_path / "study.yaml").write_text(dump_yaml(CHOSEN.to_dict()))
    words = ["-C", str(folder), "check", "--data", str(tmp_path / "study.yaml")]
    capsys.readouterr()
    assert main(words) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "100 rows, 100 patients" in out
    assert "line: missing: {age: [NR]} lines belong under datasets.test-study in site.yaml" in out
    assert main([*words, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["line"] == "missing: {age: [NR]}"
    (first, _) = [r for r in journal.read(folder / "journal.jsonl") if r.kind == "data reviewed"]
    assert first.facts["study"] == CHOSEN.sha256
    assert main(["-C", str(folder), "check", "--data", "0123456789"]) == 2
    assert "expected the digest of one study" in capsys.readouterr().err
