"""Where rows come from: which keys a connector has, and that an address written into a file is refused unseen."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.load import study_from
from configs.schema import CsvFile, DataSource, SqlQuery
from configs.site import SiteConfig, load_site
from configs.strict_yaml import dump_yaml
from tests import builders

SECRET = "Pa55-of-the-test"
URL = f"postgresql://reader:{SECRET}@db.example.org/eds"


def site(folder: Path, entry: dict[str, Any], **document: Any) -> SiteConfig:
    document = {"site": "lille", "coordinator": "coord.example.org:8443", "datasets": {"heart": entry}} | document
    (folder / "site.yaml").write_text(dump_yaml(document))
    return load_site(folder)


def problems(folder: Path, entry: dict[str, Any], **document: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        site(folder, entry, **document)
    assert SECRET not in str(caught.value)
    return list(caught.value.problems)


def test_a_query_and_the_name_of_a_variable_are_a_source(tmp_path: Path) -> None:
    config = site(tmp_path, {"connector": "sql", "url_env": "EDS_URL", "query": " select 1 \n"})
    assert config.datasets[0].source == SqlQuery("EDS_URL", "select 1", 300)
    assert config.secrets == ("EDS_URL",)
    entry = {"connector": "sql", "url_env": "EDS_URL", "query": "select 1", "query_timeout_s": 900}
    source = site(tmp_path, entry).datasets[0].source
    assert isinstance(source, SqlQuery)
    assert source.query_timeout_s == 900


def test_a_file_stays_what_is_meant_where_no_connector_is_named(tmp_path: Path) -> None:
    source = site(tmp_path, {"path": "a.csv"}).datasets[0].source
    assert source == CsvFile(tmp_path.resolve() / "a.csv")


@pytest.mark.parametrize("said", [True, False, None])
def test_a_file_may_be_said_to_have_cells_of_several_lines(said: bool | None, tmp_path: Path) -> None:
    source = site(tmp_path, {"path": "a.csv", "multiline": said}).datasets[0].source
    assert isinstance(source, CsvFile)
    assert source.multiline is (said is True)
    again = builders.study(simulation={"sites": dict.fromkeys(("brest", "lille", "lyon"), source.to_dict())})
    assert dict(again.simulation)["lille"] == source


SQL = {"connector": "sql", "url_env": "EDS_URL", "query": "select 1"}
MISTAKES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "everything missing": (
        {"connector": "sql"},
        [
            "datasets.heart.url_env: expected the NAME of an",
            "datasets.heart.query: expected one SELECT statement, found",
        ],
    ),
    "a path too": (
        SQL | {"path": "a.csv"},
        ["datasets.heart.path: expected nothing with connector: sql, found a value; remove it, or write connector:"],
    ),
    "a file's keys and a data base's": (
        {"path": "a.csv", "url_env": "EDS_URL", "query": "select 1", "query_timeout_s": 3},
        [
            f"datasets.heart.{key}: expected nothing with connector: csv"
            for key in ("url_env", "query", "query_timeout_s")
        ],
    ),
    "no truth value": (
        {"path": "a.csv", "multiline": "yes, it has"},
        ["datasets.heart.multiline: expected true where quoted text has lines that look like rows, else false"],
    ),
    "a data base's lines": (
        SQL | {"multiline": True},
        ["datasets.heart.multiline: expected nothing with connector: sql, found a value; remove it, or write"],
    ),
    "no path": ({"connector": "csv"}, ["datasets.heart.path: expected a file's path, found nothing; add it"]),
    "another connector": (
        SQL | {"connector": "sqll"},
        ["datasets.heart.connector: expected one of csv, sql, "],
    ),
    "an address in place of its name": (
        SQL | {"url_env": URL},
        ["datasets.heart.url_env: expected the NAME of an environment variable, found something else (not shown"],
    ),
    "a password in place of its name": (SQL | {"url_env": f"{SECRET}!"}, ["datasets.heart.url_env: expected the NAME"]),
    "an address as path": ({"path": URL}, ["datasets.heart.path: expected a file's path, found an address (not shown"]),
    "a list as connector": (
        {"connector": ["csv"], "path": "a"},
        ["datasets.heart.connector: expected one of csv, sql, "],
    ),
    "an address as connector": (
        {"connector": URL, "path": "a"},
        ["datasets.heart.connector: expected one of csv, sql"],
    ),
    "an unknown key": (SQL | {"url": URL}, ["datasets.heart.url: unknown key; did you mean 'url_env'?"]),
    "no time": (SQL | {"query_timeout_s": 0}, ["datasets.heart.query_timeout_s: expected an integer from 1 to 86400"]),
    "no query": (SQL | {"query": " "}, ["datasets.heart.query: expected one SELECT statement, found something else"]),
    "a long query": (SQL | {"query": "x" * 20_001}, ["datasets.heart.query: expected one SELECT statement of at most"]),
    "a list": (SQL | {"query": ["select 1"]}, ["datasets.heart.query: expected one SELECT statement, found something"]),
}


@pytest.mark.parametrize(("entry", "expected"), MISTAKES.values(), ids=MISTAKES.keys())
def test_every_mistake_is_said_at_once_with_its_place(
    tmp_path: Path, entry: dict[str, Any], expected: list[str]
) -> None:
    found = problems(tmp_path, entry)
    assert len(found) == len(expected)
    for problem, start in zip(found, expected, strict=True):
        assert problem.startswith(start)


@pytest.mark.parametrize("document", [{"coordinator": f"x {URL}"}, {"worker_network": [URL]}, {"site": URL}])
def test_an_address_with_a_password_is_hidden_wherever_it_stands(tmp_path: Path, document: dict[str, Any]) -> None:
    (problem,) = problems(tmp_path, SQL, **document)
    assert "postgresql://...; correct it" in problem


def test_a_studys_simulation_takes_the_same_sources() -> None:
    sites = dict.fromkeys(("brest", "lille", "lyon"), SQL)
    found = builders.study(simulation={"sites": sites})
    assert dict(found.simulation)["lille"].to_dict() == SQL | {"query_timeout_s": 300}
    assert "EDS_URL" not in found.canonical
    document = found.to_dict() | {"simulation": {"sites": sites | {"lyon": {"connector": "sql", "path": "a"}}}}
    with pytest.raises(ConfigError) as caught:
        study_from(document)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        f"simulation.sites.lyon.{key}" for key in ("path", "url_env", "query")
    ]


@dataclass(frozen=True, slots=True)
class Shelf(DataSource):
    """A toy store that is neither a file nor behind a variable."""

    connector = "shelf"
    name: str


def test_sources_share_a_store_where_they_read_one_file_one_data_base_or_are_equal(tmp_path: Path) -> None:
    file, query = CsvFile(tmp_path / "a.csv"), SqlQuery("EDS_URL", "select 1")
    (tmp_path / "link.csv").symlink_to(tmp_path / "a.csv")
    assert file.shares_store(CsvFile(tmp_path / "link.csv"))
    assert query.shares_store(SqlQuery("EDS_URL", "select 2"))
    assert not query.shares_rows(SqlQuery("EDS_URL", "select 2"))
    assert Shelf("a").shares_store(Shelf("a"))
    for one, other in ((file, query), (query, file), (file, Shelf("a")), (query, Shelf("a")), (Shelf("a"), Shelf("b"))):
        assert not one.shares_store(other)
        assert not other.shares_store(one)
