"""Made-up brains: the same files each time, masks that fit the images, and the preset that segments them."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from configs.load import load_study
from configs.strict_yaml import dump_yaml
from simulations import cli
from simulations.benchmarks import brains
from simulations.data.brains import make_up
from simulations.data.brains.make_up import HOSPITALS, volume_of

PATIENTS, SIDE = 6, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("brains")
    assert make_up.main(["--folder", str(made), "--patients", str(PATIENTS), "--side", str(SIDE)]) == 0
    return made


def test_the_same_numbers_make_the_same_files(folder: Path, tmp_path: Path) -> None:
    make_up.make_up(tmp_path, PATIENTS, SIDE)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert len(files) == len(HOSPITALS) * (2 * PATIENTS + 1)
    assert all((folder / path).read_bytes() == (tmp_path / path).read_bytes() for path in files)


@pytest.mark.parametrize("hospital", sorted(HOSPITALS))
def test_masks_are_inside_of_heads_and_no_two_patients_are_alike(folder: Path, hospital: str) -> None:
    scans = [volume_of(path) for path in sorted((folder / hospital).glob("*-t1.nii"))]
    masks = [volume_of(path) for path in sorted((folder / hospital).glob("*-white.nii"))]
    for scan, mask in zip(scans, masks, strict=True):
        assert scan.shape == mask.shape == (SIDE,) * 3
        assert set(np.unique(mask)) == {0.0, 1.0}
        assert 0.04 < mask.mean() < 0.3
        assert scan[mask > 0].mean() > 1.3 * scan[mask == 0].mean()
    assert all((masks[0] != other).mean() > 0.02 for other in masks[1:])


def test_hospitals_differ_as_their_scanners_do(folder: Path) -> None:
    bright = {name: volume_of(folder / name / "000-t1.nii").max() for name in HOSPITALS}
    assert bright["sud"] < bright["nord"] < bright["est"] < bright["ouest"]


def test_without_the_template_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert make_up.main(["--folder", str(tmp_path / "none")]) == 2
    assert "pip install 'archipel[brains]'" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_the_preset_runs_on_brains_and_its_numbers_say_how_well(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(dump_yaml(brains.study(folder, PATIENTS, 2, SIDE)))
    assert cli.main(["simulate", str(path), "--no-baselines", "--out", str(tmp_path / "runs")]) == 0
    metrics = json.loads((tmp_path / "runs" / "latest" / "metrics.json").read_text())
    assert (metrics["outcome"], metrics["primary_metric"], metrics["rounds_completed"]) == ("COMPLETE", "dice", 2)
    dice = metrics["models"]["federated"]["metrics"]["dice"]
    assert 0 <= dice["low"] <= dice["value"] <= dice["high"] <= 1
    assert all(5 < site["epsilon"] <= 8 for site in metrics["sites"])  # two more rounds are spare
    assert "Dice" in capsys.readouterr().out


def test_the_preset_says_what_must_be_made_first(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert load_study(brains.PRESET).input_shape == (1, 24, 24, 24)
    assert "python -m simulations.data.brains.make_up" in brains.PRESET.read_text()
    path = tmp_path / "study.yaml"
    path.write_text(dump_yaml(brains.study(tmp_path / "nothing", PATIENTS, 2, SIDE)))
    assert cli.main(["simulate", str(path), "--out", str(tmp_path / "runs")]) == 2
    assert "found none" in capsys.readouterr().err


def test_the_benchmark_prints_a_row_for_each_way_of_training(capsys: pytest.CaptureFixture[str]) -> None:
    assert brains.main(["--patients", "8", "--rounds", "1", "--side", "8"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["training"], row["epsilon"]) for row in rows] == [("adam", None), ("preset", None), ("preset", 8.0)]
    assert all(0 < row["everything"] < 1 and 0 <= row["dice"] <= 1 for row in rows)
