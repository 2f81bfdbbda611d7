"""Noisy histograms of risks by a horizon: what is counted, what follows where some patients were lost from sight."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import ConfigError
from configs.load import load_study
from configs.schema import Study, Survival
from configs.schema.task import TASKS
from configs.strict_yaml import dump_yaml, read_yaml
from server.papers import write_report
from simulations.audit.evaluation import Evaluator, evaluation_checks, largest_move, noise_of_evaluations
from simulations.audit.periods import planted_to_judge
from simulations.audit.subject import Subject
from simulations.benchmarks import horizon
from simulations.benchmarks.horizon import Case, followed, histogram, simulated
from simulations.cli import main
from simulations.hospitals import load_all
from strategies.learning import learning_of
from strategies.releases.figures import figures
from strategies.releases.registry import SCORE_HISTOGRAM
from strategies.tasks.survival import Survival as Outcome
from tests.builders import study

PRESET = Path("configs/presets/survival.yaml")
RELEASE = {"epsilon": 20.0, "bins": 25}
SITES = ("est", "nord", "ouest", "sud")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The preset with a release, and few rounds."""
    document = read_yaml(PRESET)
    document["evaluation"]["release"] = RELEASE
    document["training"]["rounds"] = 3
    for site, source in document["simulation"]["sites"].items():
        source["path"] = str(Path(f"simulations/data/actg175/{site}.csv").resolve())
    written = tmp_path_factory.mktemp("horizon") / "study.yaml"
    written.write_text(dump_yaml(document))
    return written


@pytest.fixture(scope="module")
def run(path: Path) -> Path:
    assert main(["simulate", str(path), "--out", str(path.parent / "runs"), "--no-baselines"]) == 0
    return path.parent / "runs" / "latest"


# What is counted


def test_a_patient_has_had_the_event_is_free_of_it_or_was_lost_before() -> None:
    task = Survival("survival", "days", ("1", "2"), event="end", intervals=(0.0, 90.0, 180.0, 365.0), horizon=180.0)
    y = np.array([[180, 1], [181, 1], [90, 2], [179, 0], [180, 0], [365, 0]], np.float32)
    assert Outcome(task).states(y).tolist() == [1, 0, 0, 2, 0, 0]
    assert Outcome(task).scored == 1


def test_one_patient_more_changes_one_cell_by_one() -> None:
    risk, state = followed(np.random.default_rng(0), 60, lost=0.5)
    everybody = histogram(risk, state)
    assert everybody.shape == (3, 10)
    assert everybody.sum() == 60
    assert (everybody.sum(axis=1) > 0).all()
    for left_out in range(60):
        changed = everybody - histogram(np.delete(risk, left_out), np.delete(state, left_out))
        assert changed.max() == 1
        assert np.count_nonzero(changed) == 1


def test_only_tasks_with_such_a_release_may_ask_for_it() -> None:
    allowed = " or ".join(name for name in TASKS.names if TASKS[name].states)
    with pytest.raises(ConfigError, match=rf"evaluation\.release: expected none for a task that is not {allowed}, "):
        study(
            task={"type": "counts", "target": "visits", "range": [0, 9]},
            evaluation={"test_fraction": 0.2, "release": RELEASE},
        )


# What follows from it


@pytest.mark.parametrize("case", [Case(1, 300, 2.0), Case(4, 300, 1.0, lost=0.05)], ids=str)
def test_intervals_hold_the_auroc_as_often_as_they_say(case: Case) -> None:
    rng = np.random.default_rng(0)
    truth = figures(histogram(*followed(np.random.default_rng(1), 300_000, lost=0.0)), cell_variance=0.0).auroc
    assert truth is not None
    found = [simulated(rng, case)["auroc"] for _ in range(300)]
    assert 0.93 <= np.mean([auroc.low <= truth.value <= auroc.high for auroc in found]) <= 0.97


def test_those_lost_count_half_among_those_at_risk() -> None:
    everybody = figures(histogram(*followed(np.random.default_rng(1), 300_000, lost=0.0)), cell_variance=0.0)
    cells = histogram(*followed(np.random.default_rng(2), 300_000, lost=0.5))
    half, without_them = figures(cells, cell_variance=0.0), figures(cells[:2], cell_variance=0.0)
    truth, near, far = (np.array([entry.observed for entry in f.calibration]) for f in (everybody, half, without_them))
    assert np.abs(near - truth).mean() < 0.03 < 0.07 < np.abs(far - truth).mean()
    assert everybody.brier is not None
    assert half.brier is not None
    assert half.brier.value == pytest.approx(everybody.brier.value, abs=0.006)
    assert half.auroc == without_them.auroc


def test_noise_that_drowns_the_figures_leaves_none() -> None:
    cells = histogram(*followed(np.random.default_rng(0), 60, lost=0.3))
    assert figures(cells, cell_variance=1.0).auroc is not None
    assert figures(cells, cell_variance=200.0).auroc is None


def test_the_benchmark_tells_how_often_intervals_hold(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(horizon, "MANY", 20_000)
    horizon.main(["--simulations", "3"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == len(horizon.CASES)
    assert all(0 <= row.get("auroc_held", 0) <= 1 and 0 < row["auroc_width"] < 1 for row in rows[:8])


# A study that asks for it


def test_the_page_of_a_deployment_says_why_the_concordance_index_is_missing(run: Path, tmp_path: Path) -> None:
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    released = tmp_path / "released"
    shutil.copytree(run, released)
    metrics["models"]["federated"], metrics["rehearsed"] = metrics["rehearsed"], None
    (released / "metrics.json").write_text(json.dumps(metrics))
    page = write_report(released).read_text()
    assert "lower is better); not released, or undefined" in page
    assert re.search(r"Concordance index.{0,60}undefined", page)


def test_a_simulation_shows_the_noisy_figures_beside_the_exact_ones(run: Path) -> None:
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    noisy, exact = metrics["rehearsed"]["metrics"], metrics["models"]["federated"]["metrics"]
    assert metrics["primary_metric"] == "horizon_auroc"
    assert noisy["c_index"] is None
    assert exact["c_index"]["value"] > 0.5
    for name in ("horizon_auroc", "horizon_brier"):
        assert noisy[name]["low"] <= exact[name]["value"] <= noisy[name]["high"]
        assert noisy[name]["value"] != exact[name]["value"]
    assert {site: np.shape(cells) for site, cells in metrics["released"]["histograms"].items()} == dict.fromkeys(
        SITES, (3, 25)
    )
    text = f"A deployment would show AUROC at the horizon {noisy['horizon_auroc']['value']:.2f}"
    page = (run / "report.html").read_text()
    assert text in page
    assert "reach an AUROC at the horizon of" in page
    assert text in (run / "model_card.md").read_text()


def test_the_plan_counts_the_cells(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(path)]) == 0
    assert "75 noisy counts of test patients from each hospital" in " ".join(capsys.readouterr().out.split())


def test_the_release_says_what_leaves(path: Path) -> None:
    assert SCORE_HISTOGRAM.sentence(load_study(path)) == (
        "once, after the last round, how many test patients have which score by outcome (free of the event at the "
        "horizon, with it by then, lost from sight before), with noise"
    )


def test_the_audit_finds_its_noise_as_booked_and_one_patient_moves_it_by_one(path: Path, tmp_path: Path) -> None:
    chosen: Study = load_study(path)
    people = load_all(chosen)["ouest"].train.subset(np.arange(60))
    model = {name: array + np.float32(0.37) for name, array in learning_of(chosen).initial(0).items()}
    evaluator = Evaluator(Subject(), chosen, "ouest", model, tmp_path / "audit", seeded=True)
    try:
        seen = noise_of_evaluations(evaluator, chosen, people, model, range(60))
        checks = evaluation_checks(seen)
        size, _ = largest_move(evaluator, people, planted_to_judge(chosen, people), 5)
    finally:
        evaluator.close()
    assert [check for check in checks if not check.passed] == []
    assert size == 1.0
