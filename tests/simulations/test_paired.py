"""Several seeds in one command end with means and differences paired seed by seed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from configs.load import load_study
from configs.strict_yaml import dump_yaml
from simulations import cli
from simulations.paired import interval, repeated

PRESET = Path(__file__).resolve().parents[2] / "configs" / "presets" / "heart_disease.yaml"


def written(folder: Path, rounds: int = 2) -> Path:
    """The preset with few rounds, as a file."""
    study = load_study(PRESET)
    study = replace(study, training=replace(study.training, rounds=rounds))
    (folder / "study.yaml").write_text(dump_yaml(study.to_file()))
    return folder / "study.yaml"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three runs of one study, with the seeds 4, 5 and 9."""
    folder = tmp_path_factory.mktemp("seeds")
    assert cli.main(["simulate", str(written(folder)), "--seeds", "4,5,9", "--out", str(folder / "runs")]) == 0
    return sorted(path for path in (folder / "runs").iterdir() if not path.is_symlink())


def figures(runs: list[Path]) -> Callable[[str], np.ndarray]:
    """AUROC of a model by run."""
    results: list[Any] = [json.loads((run / "metrics.json").read_text()) for run in runs]
    return lambda key: np.array([result["models"][key]["auroc"]["value"] for result in results])


def test_each_seed_is_a_run_of_its_own(runs: list[Path]) -> None:
    assert [load_study(run / "study.yaml").seed for run in runs] == [4, 5, 9]
    assert all((run / "report.html").is_file() for run in runs)


def test_differences_are_paired_seed_by_seed(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", *map(str, runs)]) == 0
    shown = capsys.readouterr().out
    assert "3 seeds (4, 5, 9)" in shown
    of = figures(runs)
    for key, title in (("local_only", "alone"), ("pooled", "pooled"), ("federated_without_privacy", "no privacy")):
        less = of("federated") - of(key)
        low, high = stats.t.interval(0.95, 2, less.mean(), stats.sem(less))
        (line,) = [line for line in shown.splitlines() if f"{title} " in line and " to " in line]
        assert f"{of(key).mean():.3f}" in line
        assert f"{less.mean():+.3f} ({low:+.3f} to {high:+.3f})" in line


def test_runs_of_two_studies_or_of_one_seed_are_not_paired(runs: list[Path], tmp_path: Path) -> None:
    study = str(written(tmp_path, rounds=1))
    assert cli.main(["simulate", study, "--no-baselines", "--out", str(tmp_path / "runs")]) == 0
    other = (tmp_path / "runs" / "latest").resolve()
    assert [len(group.results) for group in repeated([*runs, other, runs[0]])] == [3]
    assert list(repeated([runs[0], other])) == list(repeated([runs[0], runs[0]])) == []


def test_an_interval_is_students() -> None:
    values = [0.01, -0.02, 0.05, 0.04]
    found = interval(values)
    assert found is not None
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    np.testing.assert_allclose((found.low, found.high), expected, atol=1e-4)
    assert interval([0.3]) is None


@pytest.mark.parametrize("seeds", ["0", "1", "1001", "1,1", "1,x", "a", "-1,2", ""])
def test_seeds_that_are_none_are_refused(seeds: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["simulate", str(PRESET), f"--seeds={seeds}", "--out", str(tmp_path / "runs")]) == 2
    assert "--seeds: expected a number from 2 to 1000, or a list such as 0,1,2" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_resumed_run_keeps_its_seed(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["simulate", "--resume", str(runs[0]), "--seeds", "3"]) == 2
    assert "a resumed run keeps its seed" in capsys.readouterr().err
