"""A hospital's columns, words, codes, units and dates become the study's: each row alone, and nothing refuses a row."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.connectors import probe, read_table
from client.connectors.columns import Cells, Coded, Column, Numbers
from client.connectors.mapping import changed, number_change
from client.connectors.notes import Notes
from client.views.mapped import mapping_lines
from configs.errors import DataError
from configs.schema import CsvFile, DataSource, Feature, Study
from configs.schema.mapping import SiteMapping, UnitChange
from configs.schema.source import SOURCE
from configs.sections import Section
from configs.strict_yaml import parse_yaml
from strategies.data.source import Table
from tests import builders

STUDY = builders.plain(
    features={
        "age": {"type": "number", "range": [20, 90]},
        "sex": {"type": "category", "values": ["female", "male"]},
        "chol": {"type": "number", "range": [100, 400], "unit": "mg/dl", "missing": ["-9"]},
        "stay": {"type": "number", "range": [0, 100]},
    }
)
HEADER = "AGE_PAT,Sexe,CHOL,ENTREE,SORTIE,disease"
KEYS = """
columns: {age: AGE_PAT, sex: Sexe, chol: CHOL}
words: {sex: {H: male, F: female, I: }}
missing: [NR, 999]
units: {chol: {from: mmol/L, to: mg/dl, times: 38.5}}
dates: {stay: {from: ENTREE, to: SORTIE, format: DD/MM/YYYY}}
"""
KEYS_OF_AGE = "dates: {age: {from: A, to: B, unit: whole years}}"


def source_of(path: Path, keys: str) -> DataSource:
    section = Section({"connector": "csv", "path": path.name, **(parse_yaml(keys, "test") or {})}, "", [])
    source = SOURCE.read_mapping(section, {"folder": path.parent})
    assert section.problems == []
    assert isinstance(source, DataSource)
    return source


def read(folder: Path, rows: list[str], keys: str = KEYS, study: Study = STUDY, header: str = HEADER) -> Any:
    (folder / "a.csv").write_text("\n".join([header, *rows, ""]))
    notes = Notes()
    table = read_table(source_of(folder / "a.csv", keys), study, notes)
    return table, list(notes.lines())


def same(first: Table, second: Table) -> bool:
    def parts(table: Table) -> list[Any]:
        arrays = [*table.numbers.values(), *table.categories.values(), *table.targets.values(), table.patients]
        return [array.tobytes() for array in arrays] + [table.keys]

    return parts(first) == parts(second)


def test_a_hospital_s_export_is_the_study_s_table(tmp_path: Path) -> None:
    local = ["50,H,5.0,01/01/2020,11/01/2020,1", "60,F,NR,28/02/2020,1/3/2020,0", "NR,I,999,,03/04/2021,1"]
    table, _ = read(tmp_path, local)
    written = ["50,male,192.5,10,1", "60,female,,2,0", ",,,,1"]
    other, _ = read(tmp_path, written, "", header="age,sex,chol,stay,disease")
    assert same(table, other)


def test_a_code_of_the_study_stays_one_whatever_the_unit(tmp_path: Path) -> None:
    table, _ = read(tmp_path, ["50,H,-9.0,,,1", "50,H,-9,,,1", "50,H,-8,,,1"])
    assert np.isnan(table.numbers["chol"]).tolist() == [True, True, False]


def test_dates_of_another_form_are_unknown_and_counted_by_column(tmp_path: Path) -> None:
    rows = ["50,H,5,2020-01-01,11/01/2020,1", "50,H,5,01/01/2020,11/01/2020,1", "50,H,5,2020-02-01,soon,0"]
    table, lines = read(tmp_path, rows)
    assert np.isnan(table.numbers["stay"]).tolist() == [True, False, True]
    told = "ENTREE: 2 of 3 dates are not written as DD/MM/YYYY, so unknown; they seem to be YYYY-MM-DD (lines 2, 4)"
    assert told in lines
    assert "SORTIE: 1 of 3 dates is not written as DD/MM/YYYY, so unknown (line 4)" in lines


def test_an_age_from_a_year_of_birth_and_a_public_day(tmp_path: Path) -> None:
    keys = "dates: {age: {from: NAIS, to: 2020-06-30, format: YYYY, unit: whole years}}"
    study = builders.plain(features={"age": {"type": "number", "range": [0, 90]}})
    table, _ = read(tmp_path, ["1960,1", "1960.5,0"], keys, study, "NAIS,disease")
    assert table.numbers["age"].tolist()[0] == 59
    assert np.isnan(table.numbers["age"][1])


@pytest.mark.parametrize(
    ("born", "day", "age"),
    [("2000-03-01", "2018-03-01", 18), ("2000-03-01", "2018-02-28", 17), ("2000-02-29", "2018-03-01", 18)],
)
def test_whole_years_are_birthdays(born: str, day: str, age: int, tmp_path: Path) -> None:
    study = builders.plain(features={"age": {"type": "number", "range": [0, 90]}})
    table, _ = read(tmp_path, [f"{born},{day},1"], KEYS_OF_AGE, study, "A,B,disease")
    assert table.numbers["age"].tolist() == [age]


@pytest.mark.parametrize(
    ("unit", "value"), [("hours", 36), ("days", 1.5), ("weeks", 1.5 / 7), ("months", 1.5 / 30.4375)]
)
def test_times_are_counted_in_a_unit(unit: str, value: float, tmp_path: Path) -> None:
    keys = f"dates: {{age: {{from: A, to: B, format: YYYY-MM-DD HH:mm, unit: {unit}}}}}"
    study = builders.plain(features={"age": {"type": "number", "range": [0, 90]}})
    table, _ = read(tmp_path, ["2020-02-28 12:00,2020-03-01 00:00,1"], keys, study, "A,B,disease")
    assert table.numbers["age"].tolist() == [value]


def test_a_unit_that_is_not_the_study_s_is_refused_before_any_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{HEADER}\n")
    keys = KEYS.replace("to: mg/dl", "to: g/l")
    for attempt in (probe, read_table):
        with pytest.raises(DataError, match=r"units\.chol\.to: expected 'mg/dl', the study's unit, found 'g/l'"):
            attempt(source_of(tmp_path / "a.csv", keys), STUDY)
    unit_of_a_word = CsvFile(tmp_path / "a.csv", units=(UnitChange("sex", "a", "b", 2.0),))
    with pytest.raises(DataError, match=r"units\.sex: expected a number of the study, found a category"):
        probe(unit_of_a_word, STUDY)


def test_the_two_signs_for_micro_are_one(tmp_path: Path) -> None:
    study = builders.plain(features={"creat": {"type": "number", "range": [0, 900], "unit": "\u00b5mol/l"}})
    keys = "units: {creat: {from: mg/l, to: \u03bcmol/l, times: 8.84}}"
    table, _ = read(tmp_path, ["10,1"], keys, study, "creat,disease")
    assert table.numbers["creat"].tolist() == [88.4]


def test_a_time_in_another_unit_than_the_study_s_is_refused(tmp_path: Path) -> None:
    study = builders.plain(features={"age": {"type": "number", "range": [0, 90], "unit": "years"}})
    keys = "dates: {age: {from: NAIS, to: 2020-06-30, unit: %s}}"
    with pytest.raises(DataError, match=r"dates\.age\.unit: expected 'years', the study's unit, found 'days'"):
        read(tmp_path, ["1960-01-01,1"], keys % "days", study, "NAIS,disease")
    table, _ = read(tmp_path, ["1960-01-01,1"], keys % "whole years", study, "NAIS,disease")
    assert table.numbers["age"].tolist() == [60]


def test_names_and_words_that_the_study_lacks_are_told_with_a_hint(tmp_path: Path) -> None:
    keys = KEYS.replace("{age: AGE_PAT,", "{age: AGE_PAT, aeg: AGE,").replace("F: female", "F: femal")
    _, lines = read(tmp_path, ["50,H,5,,,1"], keys)
    assert "columns.aeg: the study has no such column; did you mean 'age'?" in lines
    assert "words.sex: the study lists no 'femal' there; did you mean 'female'?" in lines


def test_a_local_column_that_is_missing_is_named_as_the_file_would(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="columns 'AGE_PAT' are not in the header; add them, or correct their names in"):
        read(tmp_path, ["1,2"], header="age,CHOL,Sexe,ENTREE,SORTIE,disease")


DECIMALS = {
    "1234,5": "1234.5",
    "1 234,5": "1234.5",
    "1\u202f234,5": "1234.5",
    "1\u00a0234\u00a0567": "1234567",
    "-1 234": "-1234",
    "12 34": "?12 34",
    "1.5": "?1.5",
    "<30": "<30",
    "": "",
    "1,2,3": "1.2.3",
}


@pytest.mark.parametrize("cell", DECIMALS)
def test_french_numbers_are_read_as_declared_and_no_other(cell: str) -> None:
    change = number_change(SiteMapping(decimal=",", thousands=" "), Feature("chol", "number"))
    assert change is not None
    assert change(cell) == DECIMALS[cell]


@pytest.mark.parametrize(("thousands", "cell"), [("'", "1'234.5"), ("'", "1\u2019234.5"), (",", "1,234.5")])
def test_thousands_of_other_countries(thousands: str, cell: str) -> None:
    change = number_change(SiteMapping(thousands=thousands), Feature("chol", "number"))
    assert change is not None
    assert change(cell) == "1234.5"


def test_codes_of_every_column_are_no_patient_s_id(tmp_path: Path) -> None:
    study = builders.plain(patient_id="ipp", features={"age": {"type": "number", "range": [20, 90]}})
    table, _ = read(tmp_path, ["99,99,1", "98,50,0"], "missing: [99]", study, "ipp,age,disease")
    assert table.keys == ("99", "98")
    assert np.isnan(table.numbers["age"]).tolist() == [True, False]
    table, _ = read(tmp_path, ["99,99,1", "98,50,0"], "missing: {ipp: [99]}", study, "ipp,age,disease")
    assert table.keys == ("98",)


@pytest.mark.parametrize(
    "feature", [STUDY.features[2], STUDY.features[1], Feature("flag", "category", values=("0", "1"))]
)
def test_every_form_of_column_is_changed_alike(feature: Feature) -> None:
    source = CsvFile(
        Path("a.csv"),
        words=((feature.name, (("7", feature.values[0] if feature.values else "150"), ("8", ""))),),
        missing=(("", ("999",)),),
        units=(UnitChange("chol", "mmol/L", "mg/dl", 38.67, 0.1),),
    )
    numbers = np.array([5.2, 7, 8, 999, -9, np.nan, 0.1, 1.0])
    cells = Numbers(numbers).texts()
    forms: list[Column] = [Numbers(numbers), Cells(cells), Coded(np.arange(len(cells)), cells)]
    texts = [changed(form, source, feature).texts() for form in forms]
    assert texts[0] == texts[1] == texts[2]
    without = CsvFile(Path("a.csv"), missing=source.missing, units=source.units)
    texts = [changed(form, without, feature).texts() for form in forms]
    assert texts[0] == texts[1] == texts[2]


def test_a_store_s_truth_is_written_as_the_hospital_s_words(tmp_path: Path) -> None:
    truth = Coded(np.array([1, 0]), ["0", "1"], is_truth=True)
    source = CsvFile(tmp_path, words=(("smoker", (("true", "yes"), ("false", "no"))),))
    feature = Feature("smoker", "category", values=("no", "yes"))
    assert changed(truth, source, feature).texts() == ["yes", "no"]
    assert changed(truth, CsvFile(tmp_path, missing=(("", ("1",)),)), feature) is truth


def test_a_person_reads_how_the_study_is_mapped_here(tmp_path: Path) -> None:
    keys = KEYS + "dialect: {like: french, skip_lines: 2}\n"
    keys = keys.replace("{age: AGE_PAT,", "{age: AGE_PAT, aeg: AGE,").replace("to: mg/dl", "to: g/l")
    source = source_of(tmp_path / "a.csv", keys)
    assert mapping_lines(source, STUDY) == [
        "'age': column 'AGE_PAT'",
        "'chol': column 'CHOL'; mmol/L times 38.5 is g/l",
        "'sex': column 'Sexe'; 'F' is 'female', 'H' is 'male', 'I' is unknown",
        "'stay': days from ENTREE to SORTIE, dates as DD/MM/YYYY",
        "every column but the patient's id: unknown where 'NR', '999'",
        "numbers: a comma before decimals, a space between thousands",
        "file: like french, skip_lines 2",
        "WARNING units.chol.to: expected 'mg/dl', the study's unit, found 'g/l'; correct it, and the factor with it",
        "WARNING columns.aeg: the study has no such column; did you mean 'age'?",
    ]
    assert mapping_lines(CsvFile(tmp_path / "a.csv"), STUDY) == []
