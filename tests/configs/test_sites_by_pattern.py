"""Hospitals of a simulation by one pattern: each file is the hospital's of its name; odd files are refused by name."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.load import load_study, study_from
from configs.schema import Study
from configs.strict_yaml import dump_yaml
from tests.builders import study

SHORT = "data/*.csv"
LONG = {"*": {"connector": "csv", "path": SHORT, "multiline": True}}

WITHOUT_COHORT = {
    "strategy": {"name": "fedavg"},
    "rounds": 1,
    "local": {"batch_size": "full", "learning_rate": 0.5},
    "quorum": 1,
}


def load(folder: Path, sites: object, files: tuple[str, ...] = (), **changes: Any) -> Study:
    """The study as a file in a folder with a folder of data."""
    for name in files:
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data" / name).touch()
    path = folder / "study.yaml"
    path.write_text(dump_yaml(json.loads(study().canonical) | {"simulation": {"sites": sites}} | changes))
    return load_study(path)


def problems(folder: Path, sites: object, files: tuple[str, ...] = (), **changes: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(folder, sites, files, **changes)
    return caught.value.problems


@pytest.mark.parametrize("sites", [SHORT, LONG])
def test_each_file_is_the_hospital_of_its_name(tmp_path: Path, sites: object) -> None:
    loaded = load(tmp_path, sites, ("lyon.csv", "brest.csv", "lille.csv", "notes.txt", ".brest.csv"))
    assert [(site, source.path) for site, source in loaded.simulation] == [
        (name, tmp_path / "data" / f"{name}.csv") for name in ("brest", "lille", "lyon")
    ]
    assert [source.to_dict().get("multiline", False) for _, source in loaded.simulation] == [sites is LONG] * 3
    assert loaded.sha256 == study().sha256
    assert set(loaded.to_file()["simulation"]["sites"]) == {"brest", "lille", "lyon"}


def test_a_plan_needs_no_data_where_a_cohort_is_announced(tmp_path: Path) -> None:
    assert [source.path for _, source in load(tmp_path, SHORT).simulation] == [
        tmp_path / "data" / f"{name}.csv" for name in ("brest", "lille", "lyon")
    ]


def test_files_that_are_not_the_cohorts_hospitals_are_named(tmp_path: Path) -> None:
    assert problems(tmp_path, SHORT, ("brest.csv", "lille.csv", "nancy.csv")) == (
        "simulation.sites: expected the hospitals of the cohort; differing: lyon, nancy; list the same names",
    )


@pytest.mark.parametrize(
    ("sites", "files", "problem"),
    [
        (SHORT, (), "simulation.sites: expected files, each with the name of a hospital, found none that match .*csv;"),
        (SHORT, ("Lille.csv",), "simulation.sites: Lille.csv: expected a hospital's name of .*; rename the file"),
        ("data/*", ("a.csv", "a.txt"), "simulation.sites: a.csv: expected one file of a hospital, found several"),
        ("*/data.csv", (), r"simulation.sites: expected a pattern with \* in the file's name alone"),
        ("data/lille.csv", (), r"simulation.sites: expected a pattern with \* in the file's name alone"),
        ("file:///*.csv", (), "simulation.sites: expected a file's path, found an address"),
        (LONG | {"lille": {"connector": "csv", "path": "a.csv"}}, (), r"simulation.sites.\*: expected a pattern alone"),
        ({"*": {"connector": "csv"}}, (), r"simulation.sites.\*.path: expected a file's path, found nothing; add it"),
        (
            {"*": {"connector": "sql", "url_env": "URL", "query": "select 1"}},
            (),
            "simulation.sites: expected a connector that reads a file",
        ),
    ],
)
def test_a_pattern_that_names_no_hospitals_is_one_problem(
    tmp_path: Path, sites: object, files: tuple[str, ...], problem: str
) -> None:
    first, *rest = problems(tmp_path, sites, files, cohort=None, privacy={"mode": "none"}, training=WITHOUT_COHORT)
    assert re.match(problem, first)
    assert rest in ([], [first.replace("a.csv", "a.txt", 1)])


def test_no_file_is_looked_for_on_behalf_of_a_message(tmp_path: Path) -> None:
    document = json.loads(study().canonical) | {"simulation": {"sites": str(tmp_path / "*.csv")}}
    with pytest.raises(ConfigError, match="expected hospitals by name, found a pattern of files; list them"):
        study_from(document)
