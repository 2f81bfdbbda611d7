"""What the terminal says under a run's table is true of that run."""

import json
from pathlib import Path
from typing import Any

import pytest

from configs.strict_yaml import dump_yaml, read_yaml
from simulations import cli
from simulations.tables import print_run

PRESET = Path(__file__).resolve().parents[2] / "configs" / "presets" / "heart_disease.yaml"


def simulated(folder: Path, *options: str, **evaluation: Any) -> Path:
    """Two rounds of the preset with another evaluation."""
    document = read_yaml(PRESET)
    document["training"] |= {"rounds": 2, "quorum": 4 - len(evaluation.get("test_only", []))}
    document["evaluation"] |= evaluation
    for source in document["simulation"]["sites"].values():
        source["path"] = str((PRESET.parent / source["path"]).resolve())
    study = folder / "study.yaml"
    study.write_text(dump_yaml(document))
    assert cli.main(["simulate", str(study), "--out", str(folder / "runs"), *options]) == 0
    return (folder / "runs" / "latest").resolve()


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_a_column_that_is_not_there_has_no_footnote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    simulated(tmp_path, "--no-baselines")
    assert "all together: mean of" not in said(capsys)
    simulated(tmp_path)
    assert "alone, all together: mean of the hospitals' own models" in said(capsys)


def test_without_test_patients_nobody_says_that_there_were_too_few(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = simulated(tmp_path, "--no-baselines", test_fraction=0)
    shown = said(capsys)
    assert "undefined: the study keeps no test patients (test_fraction: 0)." in shown
    assert "fewer than two" not in shown
    for name in ("report.html", "model_card.md"):
        text = (run / name).read_text()
        assert "how good it is was not measured: the study keeps no test patients" in text
        assert "fewer than two" not in text
    assert "Judged on nobody" in (run / "model_card.md").read_text()
    assert "Judged on test patients" not in (run / "model_card.md").read_text()


def test_a_simulation_of_a_study_that_asks_for_figures_says_what_their_epsilon_is_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = simulated(tmp_path, "--no-baselines", release={"epsilon": 1.0, "bins": 6})
    assert (
        "epsilon covers training and a noisy histogram of scores (epsilon 1 by itself). Figures here are exact: who "
        "simulates has the data." in said(capsys)
    )
    assert json.loads((run / "metrics.json").read_text())["privacy"]["evaluation_epsilon"] == 1.0
    for name in ("report.html", "model_card.md"):
        text = (run / name).read_text()
        assert (
            "The guarantee covers what training sends and the noisy histogram that the study asks for (epsilon 1.00 by "
            "itself). The figures here come from test patients and carry no noise: who simulates has the data." in text
        )


def test_figures_are_called_by_their_names_in_words_and_never_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = simulated(tmp_path, "--no-baselines")
    document = json.loads((run / "metrics.json").read_text())
    metrics = document["models"]["federated"]
    document["primary_metric"] = "balanced_accuracy"
    document["models"] |= dict.fromkeys(("local_only", "pooled", "federated_without_privacy", "personalised"), metrics)
    (run / "metrics.json").write_text(json.dumps(document))
    capsys.readouterr()
    print_run(run)
    shown = capsys.readouterr().out
    assert "Balanced accuracy on test patients" in shown
    assert "…" not in shown
    cli.main(["compare", str(run)])
    assert "Balanced accuracy" in capsys.readouterr().out


def test_a_hospital_that_only_tests_is_said_to_have_no_model_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simulated(tmp_path, test_only=["switzerland"], release={"epsilon": 1.0})
    assert "undefined: a hospital that trained on nobody has no model of its own." in said(capsys)


@pytest.mark.parametrize("task", [{}, {"type": "of no kit here"}, {"type": ["binary"]}])
def test_a_run_of_a_task_that_is_not_known_here_is_shown_all_the_same(
    task: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = Path(__file__).parents[1] / "configs" / "written" / "simulated_plain"
    result = json.loads((written / "metrics.json").read_text()) | {"task": task}
    (tmp_path / "metrics.json").write_text(json.dumps(result))
    print_run(tmp_path)
    assert result["study"] in said(capsys)
