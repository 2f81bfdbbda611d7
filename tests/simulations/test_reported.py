"""What a simulated run's files say of patients and of the model: Table 1, thresholds, paired differences, charts."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from configs.load import study_from
from configs.records.fields import plain
from configs.records.result import read_result
from configs.strict_yaml import dump_yaml, read_yaml
from simulations import cli

PRESETS = Path(__file__).resolve().parents[2] / "configs" / "presets"
DATA = PRESETS.parents[1] / "simulations" / "data" / "heart_disease"


def document(name: str, **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = read_yaml(PRESETS / name)
    for source in made["simulation"]["sites"].values():
        source["path"] = str((PRESETS / source["path"]).resolve())
    return made | changes


def simulated(folder: Path, study: dict[str, Any]) -> Path:
    (folder / "study.yaml").write_text(dump_yaml(study))
    before = set(folder.glob("runs/*"))
    assert cli.main(["simulate", str(folder / "study.yaml"), "--out", str(folder / "runs")]) == 0
    (made,) = (path for path in set(folder.glob("runs/*")) - before if not path.is_symlink())
    return made


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("reported"), document("heart_statistics.yaml"))


@pytest.fixture(scope="module")
def run(counted: Path) -> Path:
    study = document("heart_disease.yaml")
    study["training"] |= {"rounds": 2}
    study["evaluation"] |= {"thresholds": [0.2, 0.5]}
    return simulated(counted.parents[1], study)


@pytest.fixture
def metrics(run: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return read


def test_the_file_is_read_and_written_byte_for_byte(run: Path, metrics: dict[str, Any]) -> None:
    assert json.dumps(plain(read_result(metrics)), indent=1) + "\n" == (run / "metrics.json").read_text()


def test_its_counts_are_those_of_the_data(metrics: dict[str, Any]) -> None:
    names = [column["name"] for column in metrics["patients"]["columns"]]
    labels = [len(column["labels"]) for column in metrics["patients"]["columns"]]
    for site, counts in metrics["patients"]["counts"].items():
        with (DATA / f"{site}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        place = sum(labels[: names.index("cp")])
        column = metrics["patients"]["columns"][names.index("cp")]
        present = Counter(row["cp"] for row in rows)
        assert counts[place : place + 4] == [present[value] for value in column["labels"][:4]]
        unknown = place = sum(labels[: names.index("chol") + 1]) - 1
        assert counts[unknown] == sum(row["chol"] in ("", "0") for row in rows)


def test_every_single_model_is_judged_at_the_stated_thresholds(metrics: dict[str, Any]) -> None:
    for name in ("federated", "federated_without_privacy", "pooled"):
        outcome = metrics["models"][name]["outcome"]
        assert [entry["threshold"] for entry in outcome["thresholds"]] == [0.2, 0.5]
        lower, upper = outcome["thresholds"]
        assert lower["sensitivity"]["value"] >= upper["sensitivity"]["value"]
        assert metrics["models"][name]["metrics"]["auprc"]["value"] > outcome["calibrated"]["observed"]["value"]
    assert "outcome" not in metrics["models"]["local_only"]


def test_differences_are_paired_and_of_the_shared_model_less_the_other(metrics: dict[str, Any]) -> None:
    models = metrics["models"]
    assert "difference" not in models["federated"]
    for name in ("federated_without_privacy", "local_only", "pooled"):
        whole = models[name]["difference"]["whole"]
        expected = models["federated"]["metrics"]["auroc"]["value"] - models[name]["metrics"]["auroc"]["value"]
        assert whole["value"] == pytest.approx(expected)
        ends = [models[n]["metrics"]["auroc"] for n in (name, "federated")]
        widths = [end["high"] - end["low"] for end in ends]
        assert whole["high"] - whole["low"] < sum(widths) / 2


def test_table_1_is_exact_and_says_so_unless_statistics_were_released(
    run: Path, counted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", str(run)]) == 0
    assert "Simulation only" in (run / "report.html").read_text()
    assert cli.main(["report", str(run), "--statistics", str(counted), "--figures", str(tmp_path / "charts")]) == 0
    page = (run / "report.html").read_text()
    assert "Simulation only" not in page
    assert "From the study of statistics" in page
    assert "every count carries noise" in (run / "model_card.md").read_text()
    assert {"table_1.csv", "forest.svg", "thresholds.csv"} <= {path.name for path in (tmp_path / "charts").iterdir()}
    assert "files in" in capsys.readouterr().out


def test_statistics_that_the_study_names_are_found_beside_the_run(run: Path, counted: Path) -> None:
    path = run / "metrics.json"
    before = path.read_text()
    named = json.loads(before)
    digest = json.loads((counted / "metrics.json").read_text())["study_sha256"]
    named["task"] |= {"outcome_share": 0.5, "outcome_share_source": f"statistics:{digest}"}
    try:
        path.write_text(json.dumps(named))
        assert cli.main(["report", str(run)]) == 0
        assert f"From the study of statistics {digest[:12]}" in (run / "report.html").read_text()
    finally:
        path.write_text(before)


def test_another_run_in_the_place_of_statistics_is_an_error(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(run), "--statistics", str(run)]) == 2
    assert (
        "expected a finished run of statistics, found a training; give the folder of another" in capsys.readouterr().err
    )


def test_a_study_of_numbers_counts_its_target_too(tmp_path: Path) -> None:
    from simulations.described import described
    from simulations.hospitals import load_all

    study = document("heart_disease.yaml", task={"type": "regression", "target": "thalach", "range": [60, 200]})
    del study["features"]["thalach"]
    study |= {"evaluation": {"test_fraction": 0.3}, "model": {"name": "linear"}}
    chosen = study_from(study)
    patients = described(chosen, load_all(chosen))
    assert patients is not None
    assert (patients.columns[-1].name, patients.outcome) == ("thalach", None)
    cells = len(patients.columns[-1].labels)
    everybody = {site: sum(counts[-cells:]) for site, counts in patients.counts.items()}
    assert everybody == {site: sum(counts[:11]) for site, counts in patients.counts.items()}
