"""OMOP: windows and takes against plain Python on a real PostgreSQL, the query's text, and what may not stand in it."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from client import cli as hospital
from client.admission import Admission
from client.connectors import read_table, try_source
from client.connectors.notes import Notes
from client.connectors.registry import CONNECTORS
from client.connectors.sql import require_one_select
from client.connectors.sql_server import OTHERS
from configs.errors import ConfigError, DataError
from configs.load import load_study
from configs.schema import CsvFile
from configs.schema.omop import OmopCohort
from configs.schema.omop_query import DATABASES, Column, Index, write_query
from configs.site import load_site
from configs.strict_yaml import dump_yaml, read_yaml
from simulations import cli as researcher
from simulations.complete import completed
from simulations.data.omop_made_up import rebuild
from simulations.data.omop_made_up.cdm import HOSPITALS, made_cdm
from tests.client.connectors.test_postgresql import bits
from tests.client.pages import page
from tests.consortium import Consortium
from tests.omop import edgy_cdm, truth
from tests.postgresql import PASSWORD, READER, USER, PostgreSql

ROOT = Path(__file__).resolve().parents[3]
PRESET = ROOT / "configs" / "presets" / "omop_risk.yaml"
SOURCE = read_yaml(rebuild.DEFINITION)
INDEXES = [
    Index(cohort=17, take="first"),
    Index(cohort=17, table="edgy.cohort", take="every"),
    Index(table="condition_occurrence", concepts=(101,), descendants=True, take="last", observed=10),
    Index(table="visit_occurrence", concepts=(101, 103), take="every"),
]
WINDOWS: list[tuple[int | None, int]] = [(None, -1), (-3, 0), (0, 0), (1, 5)]
UNITS = ((8840, 1.0), (8749, 0.0113), (0, 10.0))


def every_column() -> list[tuple[str, Column]]:
    """Each take of each window, of concepts with and without those below."""
    columns = [Column(name) for name in ("id", "age", "gender", "race", "ethnicity", "location")]
    for window, below in itertools.product(WINDOWS, (False, True)):
        columns += [
            Column("", "measurement", (101,), below, window, take, "number", UNITS)
            for take in ("last", "first", "mean", "min", "max")
        ]
        columns += [Column("", "observation", (101, 103), below, window, take, "concept") for take in ("first", "last")]
        columns += [Column("", "drug_exposure", (103, 101), below, window, take) for take in ("count", "any")]
    columns += [Column("", "death", (), False, window, "any") for window in WINDOWS]
    columns += [Column("", "death", (101,), False, (None, 5), "count")]
    return [(f"column {number}", column) for number, column in enumerate(columns)]


@pytest.fixture(scope="module")
def edgy(server: PostgreSql) -> Any:
    cdm = edgy_cdm(80, 5)
    rebuild.load(server.url(USER), "edgy", cdm, READER)
    return cdm


@pytest.mark.parametrize("index", INDEXES, ids=["a cohort", "every date", "observed before", "every visit"])
def test_every_take_of_every_window_is_what_plain_python_makes_of_each_person(
    server: PostgreSql, edgy: Any, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMOP_URL", server.url())
    columns = every_column()
    source = OmopCohort("OMOP_URL", "postgresql", "edgy", index, tuple(columns))
    read = CONNECTORS["omop"].columns(source, dict.fromkeys((name for name, _ in columns), "text"), (), Notes())
    expected = truth(edgy, index, columns)
    assert len(expected) > 15
    for position, (name, column) in enumerate(columns):
        assert read[name].texts() == [row[position] for row in expected], column
    for name, column in columns:
        assert len(set(read[name].texts())) > 1 or column.person in ("race", "ethnicity"), column


# The made-up hospitals


@pytest.fixture(scope="module")
def hospitals(server: PostgreSql) -> PostgreSql:
    for name in HOSPITALS:
        rebuild.load(server.url(USER), f"cdm_{name}", made_cdm(name), READER)
    return server


def test_the_extracts_are_what_the_data_base_gives(hospitals: PostgreSql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(rebuild.VARIABLE, hospitals.url())
    study = load_study(PRESET)
    for name in HOSPITALS:
        assert rebuild.extract(name) == (rebuild.FOLDER / f"{name}.csv").read_text()
        in_file = dict(study.simulation)[name]
        assert isinstance(in_file, CsvFile)
        assert bits(read_table(rebuild.source_of(name), study)) == bits(read_table(in_file, study))


def test_a_study_on_the_cdms_ends_with_the_bits_of_one_on_their_extracts(
    hospitals: PostgreSql, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(rebuild.VARIABLE, hospitals.url())
    document = read_yaml(PRESET)
    document["training"]["rounds"] = 2
    sites = document["simulation"]["sites"]
    models = []
    for sources in (
        {name: site | {"path": str(rebuild.FOLDER / f"{name}.csv")} for name, site in sites.items()},
        {name: rebuild.source_of(name).to_dict() for name in sites},
    ):
        path = tmp_path / "study.yaml"
        path.write_text(dump_yaml(document | {"simulation": {"sites": sources}}))
        assert researcher.main(["simulate", str(path), "--no-baselines", "--out", str(tmp_path / "runs")]) == 0
        models.append((tmp_path / "runs" / "latest" / "model.safetensors").read_bytes())
    assert models[0] == models[1]


def test_what_the_cdm_does_not_have_is_said(hospitals: PostgreSql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMOP_URL", hospitals.url())
    good = Index(table="device_exposure", concepts=(1,))
    for schema, index, expected in (
        ("cdm_nord", good, "a table or view of the query is not in the data base"),
        ("nowhere", Index(cohort=1), "is not in the data base"),
    ):
        with pytest.raises(DataError, match=expected) as caught:
            try_source(OmopCohort("OMOP_URL", "postgresql", schema, index, (("age", Column("age")),)))
        assert PASSWORD not in str(caught.value)


# The text


def test_every_data_base_gets_its_own_dates_and_names() -> None:
    columns = [
        ("a]b", Column("age")),
        ("chol", Column("", "measurement", (1,), False, (-365, -1), "last", "number", UNITS)),
    ]
    texts = {name: write_query(name, "cdm", Index(cohort=3, observed=30), columns) for name in DATABASES}
    assert "(k.index_date + (-365))" in texts["postgresql"]
    assert 'AS "a]b"' in texts["postgresql"]
    assert "t.measurement_date >= DATEADD(day, -365, k.index_date)" in texts["sql_server"]
    assert "YEAR(k.index_date) - p.year_of_birth AS [a]]b]" in texts["sql_server"]
    assert 'FROM "CDM".measurement' not in texts["oracle"]
    assert 'JOIN "CDM".measurement t' in texts["oracle"]
    assert '"chol"' in texts["oracle"]
    for name, text in texts.items():
        assert text == write_query(name, "cdm", Index(cohort=3, observed=30), columns)
        assert "measurement, day -365 to -1, last" in text
        source = OmopCohort("V", name, "cdm", Index(cohort=3, observed=30), tuple(columns))
        require_one_select(source, OTHERS)
        assert str(source).endswith(text)


def site(folder: Path, **changes: Any) -> OmopCohort:
    entry = SOURCE | changes
    document = {"site": "lille", "coordinator": "coord.example.org:8443", "datasets": {"omop-risk": entry}}
    (folder / "site.yaml").write_text(dump_yaml(document))
    source = load_site(folder).datasets[0].source
    assert isinstance(source, OmopCohort)
    return source


def test_a_hospital_writes_it_and_reads_it_back(tmp_path: Path) -> None:
    source = site(tmp_path)
    assert source.words
    assert source.secrets == ("OMOP_MADE_UP_URL",)
    written = source.to_dict()
    assert written["define"]["creatinine"]["window"] == [-365, -1]
    assert written["define"]["diabetes"]["window"] == ["any", 0]
    assert site(tmp_path, **written) == source


def test_the_example_of_the_readme_is_one(tmp_path: Path) -> None:
    text = (ROOT / "client" / "README.md").read_text("utf-8")
    example = text.split("<!-- omop -->")[1].split("```yaml\n")[1].split("```")[0]
    (tmp_path / "site.yaml").write_text("site: lille\ncoordinator: coord.example.org:8443\n" + example)
    (dataset,) = load_site(tmp_path).datasets
    assert "observation_period_start_date <= (k.index_date + (-365))" in dataset.source.query


def test_a_person_reads_what_will_be_asked_before_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = completed(PRESET).study
    config = Consortium(tmp_path / "consortium").hospital("nord", datasets={study.name: SOURCE, "heart": {"path": "a"}})
    asked = config.datasets[0].source.query
    assert hospital.main(["-C", str(config.folder), "query", study.name]) == 0
    assert capsys.readouterr().out == asked + "\n"
    shown = page(config, Admission(study.sha256, study.name, study.canonical, "waiting", "", "now"))
    words = " ".join(shown.split())
    assert f"whose address the variable OMOP_MADE_UP_URL holds: {' '.join(asked.split())} (budget of" in words
    assert "-- creatinine: measurement, day -365 to -1, last" in words
    for name, found in (("heart", "a file"), ("lung", "no such data set")):
        assert hospital.main(["-C", str(config.folder), "query", name]) == 2
        assert (
            f"{name}: expected a data set of site.yaml that asks a data base, found {found}" in capsys.readouterr().err
        )


CREATININE = {
    "table": "measurement",
    "concepts": [3016723],
    "unit_concepts": {8840: 1},
    "window": [-9, -1],
    "take": "last",
}
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "a query in a schema": ({"schema": 'cdm".person; drop table x; --'}, "schema: expected a name of letters"),
    "a query in an index": ({"index": {"cohort": "1 or 1=1"}}, "index.cohort: expected an integer from 1"),
    "a query in its table": ({"index": {"cohort": 1, "table": "a b"}}, "index.table: expected a name of letters"),
    "no index": ({"index": {}}, "index.cohort: expected a cohort's id, or a table's concepts"),
    "both indexes": (
        {"index": {"cohort": 1, "table": "measurement", "concepts": [1]}},
        "index.cohort: expected a cohort's",
    ),
    "another table": ({"index": {"table": "person", "concepts": [1]}}, "index.table: expected one of condition_occ"),
    "a quotation mark": ({"define": {'a"b': {"person": "age"}}}, "without a quotation mark; rename it"),
    "no columns": ({"define": {}}, "define: expected columns, found none"),
    "person and table": ({"define": {"x": CREATININE | {"person": "age"}}}, "define.x.table: expected person or table"),
    "a window of a person": (
        {"define": {"x": {"person": "age", "window": [0, 0]}}},
        "x.window: expected nothing beside",
    ),
    "no window": ({"define": {"x": CREATININE | {"window": None}}}, "define.x.window: expected [first, last] days"),
    "no take": ({"define": {"x": CREATININE | {"take": None}}}, "define.x.take: expected how several records"),
    "another take": ({"define": {"x": CREATININE | {"take": "median"}}}, "define.x.take: expected one of last, first"),
    "no unit": ({"define": {"x": CREATININE | {"unit_concepts": None}}}, "x.unit_concepts: expected a factor for each"),
    "a factor of 0": ({"define": {"x": CREATININE | {"unit_concepts": {8840: 0}}}}, "write factors above 0"),
    "text as a unit": ({"define": {"x": CREATININE | {"unit_concepts": {"mg/dl": 1}}}}, "write factors above 0"),
    "a unit of a count": (
        {"define": {"x": CREATININE | {"take": "any"}}},
        "x.unit_concepts: expected nothing where no",
    ),
    "a value of a condition": (
        {"define": {"x": {"table": "condition_occurrence", "concepts": [1], "window": [0, 1], "take": "last"}}},
        "define.x.take: expected any or count, as the table has no values",
    ),
    "a concept twice": (
        {"define": {"x": CREATININE | {"concepts": [1, 1]}}},
        "x.concepts: expected a list of distinct",
    ),
    "another data base": ({"database": "mysql"}, "database: expected one of postgresql, sql_server, oracle"),
}


@pytest.mark.parametrize(("changes", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_said_with_its_key(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        site(tmp_path, **changes)
    assert any(expected in problem for problem in caught.value.problems), caught.value.problems
