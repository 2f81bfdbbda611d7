"""How a hospital's columns, words, codes, units and dates are said beside its source, and what is wrong with them."""

from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.schema import CsvFile
from configs.schema.mapping import ISO, Dates, UnitChange
from configs.site import load_site
from tests import builders

WHOLE = """
    columns: {age: AGE_PAT, sex: Sexe}
    words: {sex: {H: male, F: female, 9: }, smoker: {1: true, 1.50: no}}
    missing: [NR, -9, 007]
    units: {chol: {from: mmol/L, to: mg/dl, times: 38.67}}
    dates: {follow_up: {from: DATE_DIAG, to: DATE_NOUV, format: DD/MM/YYYY}}
    decimal: comma
    thousands: ' '
"""


def source(folder: Path, keys: str) -> CsvFile:
    text = f"site: lille\ncoordinator: coord.example.org:8443\ndatasets:\n  heart:\n    path: a.csv\n{keys}"
    (folder / "site.yaml").write_text(text)
    read = load_site(folder).datasets[0].source
    assert isinstance(read, CsvFile)
    return read


def problems(folder: Path, keys: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        source(folder, f"    {keys}\n")
    return [problem.replace("datasets.heart.", "") for problem in caught.value.problems]


def test_a_hospital_says_how_it_writes_what_a_study_names(tmp_path: Path) -> None:
    mapping = source(tmp_path, WHOLE)
    assert dict(mapping.columns) == {"age": "AGE_PAT", "sex": "Sexe"}
    words = {name: dict(pairs) for name, pairs in mapping.words}
    assert words == {"sex": {"H": "male", "F": "female", "9": ""}, "smoker": {"1": "true", "1.50": "no"}}
    assert mapping.missing == (("", ("NR", "-9", "007")),)
    assert mapping.units == (UnitChange("chol", "mmol/L", "mg/dl", 38.67),)
    assert mapping.dates == (Dates("follow_up", "DATE_DIAG", "DATE_NOUV", ("DD/MM/YYYY", "DD/MM/YYYY")),)
    assert (mapping.decimal_sign, mapping.thousands_sign) == (",", " ")


def test_a_study_s_simulation_says_it_in_the_same_keys(tmp_path: Path) -> None:
    mapping = source(tmp_path, WHOLE)
    sites = dict.fromkeys(("brest", "lille", "lyon"), mapping.to_dict())
    assert dict(builders.study(simulation={"sites": sites}).simulation)["lille"] == mapping


def test_codes_may_be_one_column_s_and_dates_of_two_forms(tmp_path: Path) -> None:
    form = "format: {from: YYYY, to: DD/MM/YYYY}, unit: whole years"
    keys = f"    missing: {{chol: [-9]}}\n    dates: {{age: {{from: NAIS, to: 2020-01-01, {form}}}}}\n"
    mapping = source(tmp_path, keys)
    assert mapping.missing == (("chol", ("-9",)),)
    assert mapping.dates[0].forms == ("YYYY", "DD/MM/YYYY")
    assert mapping.dates[0].columns == ("NAIS",)
    assert source(tmp_path, "    dates: {age: {from: A, to: B}}\n").dates[0].forms == (ISO, ISO)


def test_a_dialect_may_be_named_or_said_sign_by_sign(tmp_path: Path) -> None:
    french = source(tmp_path, "    dialect: french\n")
    assert (french.dialect.separator, french.dialect.encoding, french.decimal_sign) == (";", "excel", ",")
    assert french.to_dict()["dialect"] == {"like": "french"}
    other = source(tmp_path, "    dialect: {like: french, encoding: latin-1, skip_lines: 2}\n    thousands: none\n")
    assert (other.dialect.separator, other.dialect.encoding, other.thousands_sign) == (";", "cp1252", "")
    assert other.to_dict()["dialect"] == {"like": "french", "encoding": "cp1252", "skip_lines": 2}
    assert source(tmp_path, "    dialect: standard\n") == source(tmp_path, "")


def test_null_is_a_word_where_a_data_base_writes_it(tmp_path: Path) -> None:
    mapping = source(tmp_path, "    missing: [NULL, 'NA']\n    words: {sex: {NULL: NULL, x: null}}\n")
    assert mapping.missing == (("", ("NULL", "NA")),)
    assert mapping.words == (("sex", (("NULL", ""), ("x", ""))),)


def test_a_source_without_a_mapping_is_written_as_ever(tmp_path: Path) -> None:
    assert source(tmp_path, "").to_dict() == {"connector": "csv", "path": str(tmp_path.resolve() / "a.csv")}


_UNIT = "units: {chol: {from: mmol/L, to: %s, times: %s}}"
MISTAKES = {
    "no factor": ("units: {chol: {from: a, to: b}}", "units.chol.times: expected a factor other than 0, found nothing"),
    "a factor 0": (_UNIT % ("mg/dl", "0"), "units.chol.times: expected a factor other than 0, found 0; correct it"),
    "not finite": (_UNIT % ("mg/dl", ".inf"), "units.chol.times: expected a factor other than 0, found inf"),
    "one unit": (_UNIT % ("mmol/L", "38.67"), "units.chol.to: expected another unit than 'mmol/L', found 'mmol/L'"),
    "two digits of a year": (
        "dates: {a: {from: B, to: C, format: DD/MM/YY}}",
        "with four digits (YYYY), minutes as mm",
    ),
    "a day without month": ("dates: {a: {from: B, to: C, format: DD/YYYY}}", "dates.a.format: expected a date's form"),
    "no date": ("dates: {a: {from: B, to: C, format: 3}}", "dates.a.format: expected a date's form, as DD/MM/YYYY"),
    "two days": ("dates: {a: {from: 2020-01-01, to: 2021-01-01}}", "dates.a.to: expected a column, found a second"),
    "dates and a column": (
        "{columns: {a: X}, dates: {a: {from: B, to: C}}}",
        "columns.a: expected nothing, as dates gives this column; keep one",
    ),
    "one sign for two": ("{decimal: comma, thousands: ','}", "thousands: expected another sign than decimal's, found"),
    "another sign": ("decimal: semicolon", "decimal: expected one of point, comma, found 'semicolon'; choose one"),
    "a list as a word": ("words: {sex: {H: [male]}}", "words.sex.H: expected a word, or null for unknown, found"),
    "no mapping of words": ("words: {sex: H}", "words.sex: expected a mapping of local word: study's word, found 'H'"),
    "a dialect that is none": (
        "dialect: frensh",
        "dialect: expected one of standard, french, tabs, found 'frensh'; did",
    ),
    "another separator": (
        "dialect: {separator: '::'}",
        "dialect.separator: expected one of comma, semicolon, tab, bar",
    ),
    "another encoding": (
        "dialect: {encoding: utf8}",
        "dialect.encoding: expected one of utf-8, excel, cp1252, windows-",
    ),
    "a comment that separates": (
        "dialect: {separator: ';', comment: ';'}",
        "dialect.comment: expected another sign than the separator, found ';'",
    ),
    "a typo in a dialect": ("dialect: {seperator: ';'}", "dialect.seperator: unknown key; did you mean 'separator'?"),
    "a typo": ("colums: {age: AGE}", "colums: unknown key; did you mean 'columns'?"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_of_the_mapping_says_what_was_expected(name: str, tmp_path: Path) -> None:
    keys, expected = MISTAKES[name]
    text = keys[1:-1].replace(", dates", "\n    dates").replace(", thousands", "\n    thousands")
    (problem,) = problems(tmp_path, text if keys.startswith("{") else keys)
    assert expected in problem
