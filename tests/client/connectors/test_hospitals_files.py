"""Files as hospitals really have them, each with the lines of site.yaml that describe it: what is read and told."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.connectors import read_table
from client.connectors.notes import Notes
from configs.errors import DataError
from configs.schema import Study
from configs.site import load_site
from strategies.data.source import Table
from tests import builders

SECRET = "Zérbinette"
FEATURES = {
    "age": {"type": "number", "range": [18, 100]},
    "creat": {"type": "number", "range": [20, 800], "unit": "umol/L", "missing": ["NA"]},
    "sexe": {"type": "category", "values": ["F", "M"]},
    "tabac": {"type": "category", "values": ["jamais", "sevré", "actif"]},
}
STUDY = builders.plain(patient_id="ipp", features=FEATURES, task={"type": "binary", "target": "deces"})
ROWS_ARE_PATIENTS = builders.plain(features=FEATURES, task={"type": "binary", "target": "deces"})
HEADER = "ipp,age,creat,sexe,tabac,deces,nom"
ROWS = [
    f"{n:04},{40 + n},{60 + n}.5,{'FM'[n % 2]},{('jamais', 'sevré', 'actif')[n % 3]},{n % 2},{SECRET}" for n in range(9)
]
TEXT = "\n".join([HEADER, *ROWS, ""])


def read(folder: Path, content: str | bytes, keys: str = "", study: Study = STUDY) -> tuple[Table, list[str]]:
    (folder / "patients.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    lines = "".join(f"    {line}\n" for line in keys.splitlines())
    text = f"site: lille\ncoordinator: c.example.org:8443\ndatasets:\n  test-study:\n    path: patients.csv\n{lines}"
    (folder / "site.yaml").write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))  # as Windows writes it
    notes = Notes(thorough=True)
    table = read_table(load_site(folder).datasets[0].source, study, notes)
    told = list(notes.lines())
    assert SECRET not in "".join(told)
    return table, told


def bits(table: Table) -> list[Any]:
    columns = [*table.numbers.values(), *table.categories.values(), *table.targets.values(), table.patients]
    return [*(values.tobytes() for values in columns), table.keys]


def of_columns(text: str, **changes: Any) -> str:
    """The same rows with one column changed, by a function of the cell and of the row's number."""
    rows = [line.split(",") for line in text.splitlines()]
    for name, change in changes.items():
        at = HEADER.split(",").index(name)
        rows[1:] = [[*row[:at], change(row[at], n), *row[at + 1 :]] for n, row in enumerate(rows[1:])]
    return "\n".join([",".join(row) for row in rows] + [""])


SEMICOLONS = TEXT.replace(",", ";")
SAME: dict[str, tuple[str | bytes, str, str]] = {  # content, what site.yaml says, what is told
    "02 a separator line": ("sep=;\n" + SEMICOLONS, "dialect: {separator: semicolon}", "9 rows"),
    "02 a title": ("Extraction du 12/03/2024\nCHU\n" + TEXT, "dialect: {skip_lines: 2}", "9 rows"),
    "03 cp1252": (SEMICOLONS.encode("cp1252"), "dialect: {separator: ';', encoding: cp1252}", "9 rows"),
    "03 utf-16": (TEXT.replace(",", "\t").encode("utf-16"), "dialect: {like: tabs, encoding: utf-16}", "9 rows"),
    "03 utf-16 without a mark": (TEXT.encode("utf-16-le"), "dialect: {encoding: utf-16}", "9 rows"),
    "04 ghost rows": (TEXT + ",,,,,,\n" * 40, "", "40 rows with nothing in them: no patient's"),
    "04 ghost rows of semicolons": (SEMICOLONS + ";;;;;;\n" * 2, "dialect: {separator: ';'}", "2 rows with nothing"),
    "05 line breaks in cells": (of_columns(TEXT, nom=lambda c, _: f'"{c}\nsaid ""no"""'), "", "9 rows"),
    "06 float codes": (of_columns(TEXT, deces=lambda c, _: f"{c}.0"), "", "9 rows"),
    "10 another unit": (
        of_columns(TEXT, creat=lambda c, _: repr(float(c) / 64)),
        "units: {creat: {from: mg/dl, to: umol/L, times: 64}}",
        "9 rows",
    ),
    "14 the header again": (TEXT + TEXT.splitlines()[0] + "\n", "", "1 row left out: the header again"),
    "14 empty columns at the end": (TEXT.replace("\n", ",,\n"), "", "9 rows"),
    "17 another word": (
        of_columns(TEXT, tabac=lambda c, _: c.replace("actif", "fumeur")),
        "words: {tabac: {fumeur: actif}}",
        "9 rows",
    ),
    "22 names of people": (
        TEXT.replace("age", "Âge | <ans>; n°", 1),
        "columns: {age: 'Âge | <ans>; n°'}",
        "9 rows",
    ),
    "22 a no-break space in a name": (TEXT.replace("age", "Age\u00a0(ans)", 1), "columns: {age: Age (ans)}", "9 rows"),
    "23 Windows": (TEXT.replace("\n", "\r\n"), "", "9 rows"),
    "25 a decimal comma": (
        of_columns(TEXT, creat=lambda c, _: f'"{c.replace(".", ",")}"'),
        "decimal: comma",
        "9 rows",
    ),
    "40 two headers": (HEADER + "\n,ans,µmol/L,,,,\n" + "\n".join(ROWS), "dialect: {header_lines: 2}", "9 rows"),
    "40 comments": ("# 2024\n" + TEXT + '# the "end\n', "dialect: {comment: hash}", "9 rows"),
}


@pytest.mark.parametrize(("content", "keys", "told"), SAME.values(), ids=SAME)
def test_a_file_reads_as_the_clean_one(content: str | bytes, keys: str, told: str, tmp_path: Path) -> None:
    wanted = bits(read(tmp_path, TEXT)[0])
    table, lines = read(tmp_path, content, keys)
    assert bits(table) == wanted
    assert any(told in line for line in lines)
    assert not any("can be read" in line or "LOOK LIKE" in line or "the study lists" in line for line in lines)


UNKNOWN = {  # of the column creat: content, site.yaml, the values that are known, what is told
    "11 censored": ("<30", "", "creat: of these 1 cell begins with < or >, beyond what is measured: unknown, never"),
    "11 a word for unknown": ("NR", "missing: [NR, ND]", "creat: 11 % unknown"),
    "13 thousands that nobody declared": (
        "1\u202f200",
        "",
        "creat: 1 of 9 rows is no number that can be read (line 2)",
    ),
    "30 one bad cell": ("soon", "", "creat: 1 of 9 rows is no number that can be read (line 2)"),
    "40 a spreadsheet's mistake": ("#VALUE!", "missing: {creat: ['#VALUE!', '#N/A']}", "creat: 11 % unknown"),
    "40 a data base's": ("\\N", "missing: ['\\N', NULL]", "creat: 11 % unknown"),
    "40 a date": ("12/03/2024", "", "creat: 1 of 9 rows is no number that can be read (line 2)"),
}


@pytest.mark.parametrize(("cell", "keys", "told"), UNKNOWN.values(), ids=UNKNOWN)
def test_one_cell_is_unknown_and_every_other_row_stays(cell: str, keys: str, told: str, tmp_path: Path) -> None:
    wanted = read(tmp_path, TEXT)[0].numbers["creat"]
    table, lines = read(tmp_path, of_columns(TEXT, creat=lambda c, n: c if n else cell), keys)
    assert np.isnan(table.numbers["creat"][0])
    assert table.numbers["creat"][1:].tobytes() == wanted[1:].tobytes()
    assert any(line.startswith(told) for line in lines), lines


def test_a_censored_value_counts_as_site_yaml_says(tmp_path: Path) -> None:
    table, _ = read(tmp_path, of_columns(TEXT, creat=lambda _c, _n: "<30"), "words: {creat: {'<30': 30}}")
    assert table.numbers["creat"].tolist() == [30] * 9
    table, _ = read(tmp_path, of_columns(TEXT, creat=lambda _c, _n: "1\u202f200"), "thousands: space")
    assert table.numbers["creat"].tolist() == [1200] * 9


TOLD = {  # content, study, what the hospital's people are told
    "07 one id, two spellings": (TEXT + ROWS[1][3:] + "\n", STUDY, "1 patient ids differ from another only in zeros"),
    "09 a row is not a patient": (TEXT + ROWS[1], ROWS_ARE_PATIENTS, "ONE ROW COUNTS AS ONE PATIENT, but column 'ipp'"),
    "10 another unit": (
        of_columns(TEXT, creat=lambda c, _: repr(float(c) / 88.4)),
        STUDY,
        "creat: MOST VALUES LIE OUTSIDE the study's range: is it another unit?",
    ),
    "16 a column all unknown": (
        of_columns(TEXT, creat=lambda _c, _n: "NA"),
        STUDY,
        "creat: UNKNOWN OF ALL: is it another column?",
    ),
    "17 a word of one hospital": (
        TEXT.replace("actif", "fumeur"),
        STUDY,
        "tabac: 3 of 9 rows are no value that the study lists (lines 4, 7, 10)",
    ),
    "31 an empty cohort": (f"{HEADER}\n", STUDY, "no patient at all: only noise would leave"),
    "43 an export twice": (TEXT + "\n".join(ROWS), STUDY, "9 rows equal to another, word for word: an export twice"),
}


@pytest.mark.parametrize(("content", "study", "told"), TOLD.values(), ids=TOLD)
def test_what_is_odd_is_told_and_nothing_is_refused(content: str, study: Study, told: str, tmp_path: Path) -> None:
    _, lines = read(tmp_path, content, "", study)
    assert any(line.startswith(told) for line in lines), lines


def test_another_order_of_rows_is_the_same_patients(tmp_path: Path) -> None:
    table, _ = read(tmp_path, "\n".join([HEADER, *reversed(ROWS)]))
    wanted, _ = read(tmp_path, TEXT)
    assert table.keys == wanted.keys[::-1]
    assert table.numbers["creat"].tolist() == wanted.numbers["creat"].tolist()[::-1]


def test_a_file_without_a_header_is_refused_without_a_value(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="are not in the header; add them") as caught:
        read(tmp_path, "\n".join(ROWS))
    assert not any(word in str(caught.value) for word in (SECRET, "0000", "60.5"))


def test_folders_with_spaces_and_accents_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "données n° 1 (été)"
    folder.mkdir()
    assert bits(read(folder, TEXT)[0]) == bits(read(tmp_path, TEXT)[0])


def test_the_guide_s_export_is_read_as_the_guide_describes_it(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[3] / "client" / "README.md").read_text("utf-8")
    export, keys = re.findall(r"```(?:yaml)?\n(.*?)```", guide.split("<!-- export -->")[1], re.DOTALL)[:2]
    study = builders.plain(
        patient_id="ipp",
        task={"type": "binary", "target": "death"},
        features={
            "age": {"type": "number", "range": [18, 100], "unit": "years"},
            "chol": {"type": "number", "range": [20, 500], "unit": "mg/dl"},
            "creatinine": {"type": "number", "range": [20, 9000], "unit": "umol/L"},
            "sex": {"type": "category", "values": ["female", "male"]},
            "smoker": {"type": "category", "values": ["never", "current"]},
        },
    )
    (tmp_path / "labo.csv").write_bytes(export.encode("cp1252"))
    (tmp_path / "site.yaml").write_text(f"site: lille\ncoordinator: c.example.org:8443\n{keys}", "utf-8")
    notes = Notes()
    table = read_table(load_site(tmp_path).datasets[0].source, study, notes)
    assert table.keys == ("00012", "00013")
    assert table.numbers["age"].tolist()[0] == 71
    assert table.numbers["chol"].tolist() == [5.17 * 38.67, 38.67]
    assert table.numbers["creatinine"].tolist() == [9.5 * 8.842, 1011.0 * 8.842]
    assert [values.tolist() for values in table.categories.values()] == [[1, 0], [0, -1]]
    assert table.targets["death"].tolist() == [0, 1]
    assert list(notes.oddities()) == ["Naissance: 1 of 2 dates is not written as DD/MM/YYYY, so unknown (line 5)"]
