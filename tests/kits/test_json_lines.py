"""A connector is one file and its registration: its source, its keys, how it is read."""

import csv
import json
from pathlib import Path

import pytest

from client.connectors import probe, read_table
from client.connectors.notes import Notes
from client.connectors.registry import CONNECTORS
from configs import reference
from configs.errors import ConfigError, DataError, SourceError
from configs.load import load_study
from configs.schema import CsvFile
from configs.schema.source import SOURCES
from configs.site import load_site
from configs.strict_yaml import dump_yaml, read_yaml
from simulations import cli
from tests.kits import json_lines
from tests.kits.json_lines import JsonLines

ROOT = Path(__file__).resolve().parents[2]
PRESET = ROOT / "configs" / "presets" / "heart_disease.yaml"
DATA = ROOT / "simulations" / "data" / "heart_disease"
SITES = ("cleveland", "hungary")


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (CONNECTORS, SOURCES):
        monkeypatch.setattr(registry, "_kinds", dict(registry._kinds))
    json_lines.install()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two hospitals' rows as JSON lines."""
    for site in SITES:
        rows = csv.DictReader((DATA / f"{site}.csv").read_text("utf-8").splitlines())
        (tmp_path / f"{site}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def study_file(folder: Path, connector: str, suffix: str, data: Path) -> Path:
    document = read_yaml(PRESET)
    document["cohort"] = {site: document["cohort"][site] for site in SITES}
    document["training"] |= {"rounds": 2, "quorum": 2}
    sources = {site: {"connector": connector, "path": str(data / f"{site}.{suffix}")} for site in SITES}
    document["simulation"] = {"sites": sources}
    path = folder / f"{connector}.yaml"
    path.write_text(dump_yaml(document))
    return path


def test_its_rows_are_those_of_the_same_file_as_csv(folder: Path) -> None:
    study = load_study(study_file(folder, "jsonl", "jsonl", folder))
    for site, source in study.simulation:
        assert source == JsonLines(folder / f"{site}.jsonl")
        assert repr(read_table(source, study)) == repr(read_table(CsvFile(DATA / f"{site}.csv"), study))


def test_a_simulation_of_it_gives_the_same_model(folder: Path) -> None:
    models = []
    for connector, suffix, data in (("jsonl", "jsonl", folder), ("csv", "csv", DATA)):
        out = folder / connector
        path = study_file(folder, connector, suffix, data)
        assert cli.main(["simulate", str(path), "--no-baselines", "--seed", "1", "--out", str(out)]) == 0
        metrics = json.loads((out / "latest" / "metrics.json").read_text())
        models.append((metrics["study_sha256"], metrics["model_sha256"]))
    assert models[0] == models[1]


def test_a_line_that_is_no_object_is_no_patients(folder: Path) -> None:
    study = load_study(study_file(folder, "jsonl", "jsonl", folder))
    path = folder / "cleveland.jsonl"
    whole = path.read_text()
    path.write_text(whole + "{torn\n")
    notes = Notes()
    read_table(JsonLines(path), study, notes)
    assert (notes.torn, notes.rows) == (1, len(whole.splitlines()))


def test_a_file_without_the_columns_or_none_at_all_is_told(folder: Path) -> None:
    study = load_study(study_file(folder, "jsonl", "jsonl", folder))
    (folder / "odd.jsonl").write_text('{"age": 1}\n')
    with pytest.raises(DataError, match="are not in the first object; add them to every object"):
        probe(JsonLines(folder / "odd.jsonl"), study)
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        probe(JsonLines(folder / "none.jsonl"), study)


def test_a_hospital_may_name_it_and_its_mistakes_are_told(folder: Path) -> None:
    def site(**entry: object) -> Path:
        document = {"site": "lille", "coordinator": "localhost:1", "datasets": {"heart": entry}}
        (folder / "site.yaml").write_text(dump_yaml(document))
        return folder

    config = load_site(site(connector="jsonl", path="cleveland.jsonl"))
    assert config.datasets[0].source == JsonLines(folder.resolve() / "cleveland.jsonl")
    with pytest.raises(ConfigError) as caught:
        load_site(site(connector="jsonl", multiline=True))
    assert caught.value.problems == (
        "datasets.heart.multiline: expected nothing with connector: jsonl, found a value; remove it, or write "
        "connector: csv",
        "datasets.heart.path: expected a file's path, found nothing; add it",
    )
    with pytest.raises(ConfigError, match=r"expected one of csv, sql, .*jsonl, found 'json'; did you mean 'jsonl'"):
        load_site(site(connector="json", path="a"))
    assert "connector: csv, connector: parquet, connector: jsonl" in reference.explain("datasets.heart.path")
