"""A simulation also says what a deployment would show, and what the model is worth at a hospital that took no part."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn.metrics import roc_auc_score

from client.patients import load_patients
from configs.load import load_study
from configs.schema import Study
from configs.strict_yaml import dump_yaml
from simulations import leave_one_out, memory
from simulations.cli import main
from simulations.memory import Trained
from strategies.learning import learning_of
from strategies.releases.figures import figures
from strategies.releases.noisy_counts import cell_variance
from tests.builders import study

SITES = ("brest", "lille", "lyon")


def written(folder: Path, **changes: Any) -> Path:
    """Three hospitals' files of made-up patients, and a study of them."""
    rng = np.random.default_rng(7)
    (folder / "data").mkdir(parents=True)
    for site in SITES:
        ages, sexes = rng.uniform(20, 90, 240), rng.integers(0, 2, 240)
        ill = rng.random(240) < 1 / (1 + np.exp(-(ages - 55) / 8 - sexes + 0.5))
        with (folder / "data" / f"{site}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["age", "sex", "disease"])
            rows.writerows(zip(ages.round(1), np.array(["female", "male"])[sexes], ill.astype(int), strict=True))
    document = study(
        cohort=dict.fromkeys(SITES, 240),
        training={"rounds": 4, "local": {"epochs": 1, "batch_size": "full", "learning_rate": 4.0}, "quorum": 3},
        evaluation={"test_fraction": 0.5, "metrics": ["auroc", "brier"], "release": {"epsilon": 8.0, "bins": 5}},
    ).to_dict()
    path = folder / "study.yaml"
    path.write_text(dump_yaml(document | {"simulation": {"sites": "data/*.csv"}} | changes))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("left_out")
    path = written(folder)
    assert main(["simulate", str(path), "--out", str(folder / "runs"), "--leave-one-out", "--no-baselines"]) == 0
    return folder / "runs" / "latest"


@pytest.fixture(scope="module")
def metrics(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "metrics.json").read_text()))


def test_noisy_figures_are_those_of_the_very_histograms_that_leave(metrics: dict[str, Any]) -> None:
    released = metrics["released"]
    together = np.sum([np.array(counts) for counts in released["histograms"].values()], axis=0)
    expected = figures(together, cell_variance=3 * cell_variance(released["noise_multiplier"])).auroc
    assert expected is not None
    noisy, exact = metrics["rehearsed"]["metrics"]["auroc"], metrics["models"]["federated"]["auroc"]
    assert noisy == {"value": expected.value, "low": expected.low, "high": expected.high}
    assert noisy["value"] != exact["value"]
    assert noisy["high"] - noisy["low"] > exact["high"] - exact["low"]
    assert metrics["rehearsed"]["noisy"]["sites"] == list(SITES)


def test_a_hospital_left_out_is_judged_by_a_model_that_never_saw_it(
    metrics: dict[str, Any], tmp_path: Path, run: Path
) -> None:
    whole = load_study(run / "study.yaml")
    others = leave_one_out.without(whole, "lille")
    assert (others.sites, others.training.quorum) == (("brest", "lyon"), 2)
    path = tmp_path / "others.yaml"
    path.write_text(dump_yaml(others.to_file()))
    assert main(["simulate", str(path), "--out", str(tmp_path / "runs"), "--no-baselines"]) == 0
    model = load_file(tmp_path / "runs" / "latest" / "model.safetensors")
    split = load_patients(dict(whole.simulation)["lille"], whole, "lille")
    x, y = (np.concatenate([getattr(split.train, name), getattr(split.test, name)]) for name in ("x", "y"))
    predicted = learning_of(others).predict(model, x)[:, 1]
    entry = metrics["left_out"]["lille"]
    assert entry["patients"] == 240
    assert entry["metrics"]["auroc"]["value"] == pytest.approx(roc_auc_score(y, predicted))
    assert entry["in_the_large"]["value"] == pytest.approx(float(predicted.mean() - y.mean()), abs=1e-6)
    assert sorted(metrics["left_out"]) == list(SITES)


def test_report_and_card_tell_both(run: Path, metrics: dict[str, Any]) -> None:
    page, card = (run / "report.html").read_text(), (run / "model_card.md").read_text()
    noisy = f"{metrics['rehearsed']['auroc']['value']:.2f}"
    assert 'id="rehearsal"' in page
    assert 'id="left-out"' in page
    assert f"A deployment would show AUROC {noisy}" in page
    assert f"A deployment would show AUROC {noisy}" in card
    assert "At a hospital that was left out of the training, AUROC is from" in page
    assert not (run / leave_one_out.FOLDER).exists()


def test_a_run_that_is_interrupted_between_hospitals_goes_on_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, train = written(tmp_path), memory.train
    trained: list[tuple[str, ...]] = []

    def interrupted(study_: Study, patients: Any) -> Trained:
        if len(trained) == 1:
            raise KeyboardInterrupt
        trained.append(study_.sites)
        return train(study_, patients)

    def counted(study_: Study, patients: Any) -> Trained:
        trained.append(study_.sites)
        return train(study_, patients)

    monkeypatch.setattr(leave_one_out, "train", interrupted)
    out = str(tmp_path / "runs")
    assert main(["simulate", str(path), "--out", out, "--leave-one-out", "--no-baselines"]) == 130
    monkeypatch.setattr(leave_one_out, "train", counted)
    assert main(["simulate", "--resume", str(tmp_path / "runs" / "latest"), "--no-baselines"]) == 0
    assert trained == [("lille", "lyon"), ("brest", "lyon"), ("brest", "lille")]
    assert "lyon left out: 0." in capsys.readouterr().out


def test_what_has_nobody_to_leave_out_is_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(
        tmp_path,
        cohort={"brest": 240},
        simulation={"sites": {"brest": {"connector": "csv", "path": "data/brest.csv"}}},
    )
    path.write_text(path.read_text().replace("quorum: 3", "quorum: 1"))
    assert main(["simulate", str(path), "--out", str(tmp_path / "runs"), "--leave-one-out"]) == 2
    assert "--leave-one-out: expected two hospitals or more, found 1" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
