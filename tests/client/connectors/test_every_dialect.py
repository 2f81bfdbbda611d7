"""The same patients, however a hospital writes them, are one table to the last bit, in simulator and node."""

import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.connectors import probe, read_table
from client.connectors.notes import Notes
from configs.schema import DataSource, Study
from configs.site import load_site
from configs.strict_yaml import parse_yaml
from strategies.data.source import Table
from tests import builders

FEATURES = {
    "age": {"type": "number", "range": [20, 90]},
    "sex": {"type": "category", "values": ["female", "male"]},
    "smoker": {"type": "category", "values": ["0", "1", "2"]},
    "chol": {"type": "number", "range": [100, 4000], "unit": "mg/dl"},
    "follow_up": {"type": "number", "range": [0, 5000]},
}
Patient = tuple[str, str, str, str, float | None, int | None, str]  # id, age, sex, smoker, chol, days, outcome
PATIENTS: list[Patient] = [
    ("0012", "61", "male", "0", 1234.5, 30, "1"),
    ("0013", "70", "female", "2", 200.25, 400, "0"),
    ("0014", "", "male", "1", None, None, "1"),
    ("0015", "44", "", "", 187.5, 0, "0"),
    ("0016", "35", "female", "1", 3000.0, 1461, "1"),
]
START = datetime.date(2016, 2, 28)
Write = Callable[[list[Patient], dict[str, Any]], bytes]


def study(entry: dict[str, Any]) -> Study:
    sites = {"sites": dict.fromkeys(("brest", "lille", "lyon"), entry)}
    return builders.study(patient_id="ipp", features=FEATURES, simulation=sites)


def lines_of(patients: list[Patient], options: dict[str, Any]) -> Iterator[list[str]]:
    """The cells of the header and of each row, as one hospital writes them."""
    number, day, words = options.get("number", repr), options.get("day", "%Y-%m-%d"), options.get("words", {})
    yield options.get("header", ["ipp", "age", "sex", "smoker", "chol", "DEBUT", "FIN", "disease"])
    for ipp, age, sex, smoker, chol, days, outcome in patients:
        cells = [age, words.get(sex, sex), words.get(f"smoker {smoker}", smoker), "" if chol is None else number(chol)]
        dates = [] if days is None else [START, START + datetime.timedelta(days)]
        cells += [date.strftime(day) for date in dates] or ["", ""]
        yield [ipp, *(cell or options.get("unknown", "") for cell in (*cells, words.get(outcome, outcome)))]


def written(patients: list[Patient], options: dict[str, Any]) -> bytes:
    """A hospital's file."""
    separator, quote = options.get("separator", ","), options.get("quote", "")
    rows = [separator.join(f"{quote}{cell}{quote}" for cell in line) for line in lines_of(patients, options)]
    rows = [*options.get("above", []), rows[0], *options.get("below", []), *rows[1:], *options.get("after", [])]
    again = [rows[len(options.get("above", []))]] if options.get("again") else []
    text = options.get("end", "\n").join([*rows, *again, ""])
    return bytes(text.encode(options.get("codec", "utf-8")))


FRENCH_NUMBER = {"number": lambda value: f"{value:,}".replace(",", "\u202f").replace(".", ",")}
FRENCH_DAY = {"day": "%d/%m/%Y"}
ISO_DATES = "dates: {follow_up: {from: DEBUT, to: FIN}}"
FRENCH_DATES = "dates: {follow_up: {from: DEBUT, to: FIN, format: DD/MM/YYYY}}"
FRENCH_HEADER = ["IPP", "Âge", "Sexe", "Tabac", "Cholestérol\u00a0(total)", "DEBUT", "FIN", "Décès"]
FRENCH_COLUMNS = (
    "columns: {ipp: IPP, age: Âge, sex: Sexe, smoker: Tabac, chol: 'Cholestérol (total)', disease: Décès}\n"
    "words: {sex: {H: male, F: female}, smoker: {jamais: 0, sevré: 1, actif: 2}, disease: {Vrai: 1, Faux: 0}}\n"
)
FRENCH_WORDS = {"male": "H", "female": "F", "1": "Vrai", "0": "Faux"}
FRENCH_WORDS |= {"smoker 0": "jamais", "smoker 1": "sevré", "smoker 2": "actif"}
FRENCH = FRENCH_NUMBER | FRENCH_DAY | {"separator": ";", "header": FRENCH_HEADER, "words": FRENCH_WORDS}
EXPORTS: dict[str, tuple[dict[str, Any], str]] = {
    "standard": ({}, ISO_DATES),
    "semicolons": ({"separator": ";"}, f"{ISO_DATES}\ndialect: {{separator: semicolon}}"),
    "tabs": ({"separator": "\t"}, f"{ISO_DATES}\ndialect: tabs"),
    "bars": ({"separator": "|"}, f"{ISO_DATES}\ndialect: {{separator: '|'}}"),
    "with a mark": ({"codec": "utf-8-sig"}, ISO_DATES),
    "windows lines": ({"end": "\r\n"}, ISO_DATES),
    "old mac lines": ({"end": "\r"}, ISO_DATES),
    "all quoted": ({"quote": '"'}, ISO_DATES),
    "apostrophes": ({"quote": "'"}, f"{ISO_DATES}\ndialect: {{quote: single}}"),
    "french excel": (FRENCH | {"codec": "cp1252", "number": lambda v: f"{v}".replace(".", ",")}, "dialect: french"),
    "french utf-8": (FRENCH | {"codec": "utf-8-sig"}, "dialect: french"),
    "macroman": (
        FRENCH | {"codec": "mac-roman", "end": "\r", "number": lambda v: f"{v}".replace(".", ",")},
        "dialect: {like: french, encoding: macroman}",
    ),
    "dos": (
        FRENCH | {"codec": "cp850", "number": lambda v: f"{v:,}".replace(",", "\u00a0").replace(".", ",")},
        "dialect: {like: french, encoding: cp850}",
    ),
    "utf-16": ({"separator": "\t", "codec": "utf-16"}, f"{ISO_DATES}\ndialect: {{like: tabs, encoding: utf-16}}"),
    "utf-16 without a mark": (
        {"separator": "\t", "codec": "utf-16-le"},
        f"{ISO_DATES}\ndialect: {{like: tabs, encoding: utf-16}}",
    ),
    "sep=": ({"separator": ";", "above": ["sep=;"]}, f"{ISO_DATES}\ndialect: {{separator: semicolon}}"),
    "a title": ({"above": ['Extraction "été";;', ""]}, f"{ISO_DATES}\ndialect: {{skip_lines: 2}}"),
    "units below": (
        {"below": [",ans,,,mg/dl,,,"]},
        f"{ISO_DATES}\ndialect: {{header_lines: 2}}",
    ),
    "the header again": ({"again": True}, ISO_DATES),
    "ghost rows": ({"after": [",,,,,,,"] * 3 + ["", " , ,,,,,,"]}, ISO_DATES),
    "comments": (
        {"above": ["# export of today", ""], "after": ['# the "end']},
        f"{ISO_DATES}\ndialect: {{comment: hash}}",
    ),
    "nulls": ({"unknown": "\\N", "separator": "\t"}, f"{ISO_DATES}\ndialect: {{like: tabs, escape: backslash}}"),
    "codes": ({"unknown": "NULL"}, f"{ISO_DATES}\nmissing: [NULL, '#N/A']"),
    "excel's mistakes": ({"unknown": "#VALUE!"}, f"{ISO_DATES}\nmissing: ['#VALUE!', '#N/A']"),
    "swiss": (
        {"number": lambda value: f"{value:,}".replace(",", "\u2019")},
        f"{ISO_DATES}\nthousands: apostrophe",
    ),
    "german": (
        {"separator": ";", "number": lambda v: f"{v:,}".replace(",", " ").replace(".", ",").replace(" ", ".")},
        f"{ISO_DATES}\ndialect: {{separator: semicolon}}\ndecimal: comma\nthousands: point",
    ),
    "another unit": (
        {"number": lambda value: repr(value / 4)},
        f"{ISO_DATES}\nunits: {{chol: {{from: quarters, to: mg/dl, times: 4}}}}",
    ),
    "dates with hours": ({"day": "%d.%m.%Y 00:00"}, ISO_DATES.replace("FIN", "FIN, format: DD.MM.YYYY HH:mm")),
    "compact dates": ({"day": "%Y%m%d"}, ISO_DATES.replace("FIN", "FIN, format: YYYYMMDD")),
    "float codes": ({"words": {"smoker 0": "0.0", "smoker 1": "1.0", "1": "1.0"}}, ISO_DATES),
    "float codes with commas": (
        {"words": {"smoker 0": "0,0", "1": "1,0"}, "separator": ";", "number": lambda v: f"{v}".replace(".", ",")},
        f"{ISO_DATES}\ndialect: {{separator: ';'}}\ndecimal: ','",
    ),
    "swapped codes": (
        {"words": {"smoker 0": "2.0", "smoker 2": "0.0", "0": "2"}},
        f"{ISO_DATES}\nwords: {{smoker: {{2: 0, 0: 2}}, disease: {{2: 0}}}}",
    ),
}
FRENCH_KEYS = f"{FRENCH_COLUMNS}{FRENCH_DATES}\n"


def keys_of(name: str) -> str:
    options, keys = EXPORTS[name]
    return FRENCH_KEYS + keys if "header" in options else keys


def sources_of(folder: Path, content: bytes, keys: str) -> tuple[DataSource, DataSource, Study]:
    """The file as the simulator's study and as the node's site.yaml name it."""
    (folder / "a.csv").write_bytes(content)
    entry = {"path": str(folder / "a.csv"), **(parse_yaml(keys, "test") or {})}
    simulated = study({"connector": "csv", **entry})
    lines = "\n".join(f"    {line}" for line in keys.splitlines())
    text = f"site: lille\ncoordinator: c.example.org:8443\ndatasets:\n  test-study:\n    path: a.csv\n{lines}\n"
    (folder / "site.yaml").write_text(text, encoding="utf-8")
    return dict(simulated.simulation)["lille"], load_site(folder).datasets[0].source, simulated


def bits(table: Table) -> list[Any]:
    columns = [*table.numbers.items(), *table.categories.items(), *table.targets.items()]
    return [(name, values.tobytes()) for name, values in columns] + [table.patients.tobytes(), table.keys]


def tables(folder: Path, patients: list[Patient], name: str) -> list[tuple[list[Any], list[str]]]:
    """What the simulator and the node make of one export: the table's bits, and what is odd."""
    at_simulator, at_node, of = sources_of(folder, written(patients, EXPORTS[name][0]), keys_of(name))
    made = []
    for source in (at_simulator, at_node):
        notes = Notes()
        probe(source, of)
        made.append((bits(read_table(source, of, notes)), list(notes.oddities())))
    return made


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_is_the_same_table_to_the_last_bit(name: str, tmp_path: Path) -> None:
    (wanted, _), _ = tables(tmp_path, PATIENTS, "standard")
    for table, oddities in tables(tmp_path, PATIENTS, name):
        assert table == wanted
        assert not any("can be read" in line or "the study lists" in line for line in oddities)


OUTCOME = st.sampled_from(["0", "1"])
PATIENT = st.tuples(
    st.integers(0, 99).map("{:04}".format),
    st.just("") | st.integers(0, 120).map(str),
    st.sampled_from(["male", "female", ""]),
    st.sampled_from(["0", "1", "2", ""]),
    st.none() | st.integers(0, 40_000_000).map(lambda n: n / 4096 * 4),
    st.none() | st.integers(0, 20_000),
    OUTCOME,
)


@settings(max_examples=30, deadline=None)
@given(st.lists(PATIENT, min_size=1, max_size=6), st.sampled_from(sorted(EXPORTS)))
def test_any_patients_are_the_same_table_in_any_dialect(patients: list[Patient], name: str) -> None:
    with TemporaryDirectory() as folder:
        (wanted, _), _ = tables(Path(folder), patients, "standard")
        assert [table for table, _ in tables(Path(folder), patients, name)] == [wanted, wanted]


def rows_by_id(table: Table) -> dict[str, list[Any]]:
    columns = [*table.numbers.values(), *table.categories.values(), *table.targets.values()]
    return {table.keys[patient]: [repr(c[row]) for c in columns] for row, patient in enumerate(table.patients)}


HOSTILE = ["french excel", "nulls", "comments", "german", "bars"]
LINE = st.text(alphabet='";,|\t\\#/0123456789 <->NRxé\u00a0.', max_size=40)


@settings(max_examples=40, deadline=None)
@given(LINE, st.integers(0, len(PATIENTS)), st.sampled_from(HOSTILE))
def test_no_line_changes_how_another_is_read(line: str, place: int, name: str) -> None:
    options = EXPORTS[name][0]
    above = len(options.get("above", [])) + 1
    lines = written(PATIENTS, options).decode(options.get("codec", "utf-8")).split("\n")
    lines.insert(above + place, line)
    with TemporaryDirectory() as folder:
        content = "\n".join(lines).encode(options.get("codec", "utf-8"))
        source, _, of = sources_of(Path(folder), content, keys_of(name))
        rows = rows_by_id(read_table(source, of))
        source, _, of = sources_of(Path(folder), written(PATIENTS, options), keys_of(name))
        wanted = rows_by_id(read_table(source, of))
    assert {key: rows.get(key) for key in wanted} == wanted
