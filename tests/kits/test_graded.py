"""A task type with a loss, predictions and metrics of its own is one file and its registration."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from client.views.study_rows import rows_of
from configs.errors import ConfigError, KindError
from configs.load import load_study
from configs.schema import Study
from configs.schema.task import TASKS, Task
from configs.site import SiteConfig
from server.app import make_app
from simulations import cli
from simulations.audit.auditor import audit_patients
from simulations.audit.effort import Effort
from simulations.audit.subject import Subject
from simulations.engines import run_engine
from simulations.hospitals import Hospitals
from strategies.data.table import TablePatients
from strategies.tasks.registry import OBJECTIVES, objective_of, register
from tests.builders import flat, plain, study, write_simulated
from tests.kits import graded as kit
from tests.kits.graded import GRADED_KEYS, Graded, concordance, grade_error

GRADES = ("none", "mild", "severe")
TASK = {"type": "graded", "target": "grade", "classes": list(GRADES)}
OUTCOME = Graded(Task("graded", "grade", ("a", "b", "c", "d")))
ONE_STEP = {"rounds": 5, "weights": "uniform", "local": {"steps": 1, "batch_size": "full", "learning_rate": 0.7}}


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (OBJECTIVES, TASKS):
        monkeypatch.setattr(registry, "_kinds", dict(registry._kinds))
    kit.install()


def graded(make: Any = plain, **changes: Any) -> Study:
    return make(task=TASK, **changes)  # type: ignore[no-any-return]


def patients(count: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Ages, sexes, and grades that rise with both."""
    rng = np.random.default_rng(seed)
    age, sex = rng.uniform(20, 90, count).round(), rng.integers(0, 2, count)
    severity = (age - 55) / 20 + sex + rng.logistic(size=count) * 0.6
    return age, sex, np.digitize(severity, [-0.3, 1.2])


def encoded(count: int, seed: int) -> TablePatients:
    age, sex, grade = patients(count, seed)
    x = np.stack([(age - 55) / 35, sex], axis=1).astype(np.float32)
    return TablePatients(x, grade.astype(np.float32), np.arange(count), np.arange(count + 1))


# Against independent formulas


def test_its_loss_is_minus_the_log_likelihood_of_each_threshold() -> None:
    outputs, y = torch.tensor([[0.5, -1.0, 2.0], [0.0, 0.0, -3.0]]), torch.tensor([2.0, 0.0])
    by_hand = []
    for row, grade in zip(outputs.double().numpy(), (2, 0), strict=True):
        chances = [1 / (1 + np.exp(-o)) for o in row]
        by_hand.append(-sum(np.log(p if grade > k else 1 - p) for k, p in enumerate(chances)))
    np.testing.assert_allclose(OUTCOME.loss(outputs, y).numpy(), by_hand, rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_its_residual_is_what_autograd_finds_and_within_its_bound(seed: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    outputs = (5 * torch.randn(30, 3, generator=chance, dtype=torch.float64)).requires_grad_()
    y = torch.randint(0, 4, (30,), generator=chance).float()
    (gradient,) = torch.autograd.grad(OUTCOME.loss(outputs, y).sum(), outputs)
    found = OUTCOME.residual(outputs.detach().numpy(), y.numpy())
    np.testing.assert_allclose(found, gradient.numpy(), atol=1e-9)
    base, growth = OUTCOME.residual_bound
    assert (np.linalg.norm(found, axis=1) <= base + growth * outputs.detach().norm(dim=1).numpy()).all()


def test_its_predictions_are_the_probabilities_of_the_grades() -> None:
    outputs = np.random.default_rng(0).normal(size=(50, 3)) * 4
    falling = -np.sort(-outputs, axis=1)
    chances = OUTCOME.predict(falling)
    assert (chances >= 0).all()
    np.testing.assert_allclose(chances.sum(axis=1), 1.0)
    worse = np.cumsum(chances[:, ::-1], axis=1)[:, ::-1][:, 1:]  # P(worse than grade k)
    np.testing.assert_allclose(worse, 1 / (1 + np.exp(-falling)), atol=1e-9)
    assert (OUTCOME.predict(outputs) >= 0).all()  # also where thresholds cross


@pytest.mark.parametrize("seed", range(5))
def test_the_concordance_index_counts_pairs_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, raw = rng.integers(0, 3, 25).astype(float), rng.integers(1, 4, (25, 3)).astype(float)  # with ties
    predicted = raw / raw.sum(axis=1, keepdims=True)
    score = np.round(predicted @ [0, 1, 2], 12)
    exact = np.stack([1 - score / 2, np.zeros(25), score / 2], axis=1)  # the same expected grade, without rounding
    counts = rng.integers(0, 3, 25)
    pairs = [
        (counts[i] * counts[j], (score[i] > score[j]) + (score[i] == score[j]) / 2)
        for i in range(25)
        for j in range(25)
        if y[i] > y[j]
    ]
    by_hand = sum(n * right for n, right in pairs) / sum(n for n, _ in pairs)
    assert concordance(y, exact, counts[None].astype(float))[0] == pytest.approx(by_hand, abs=1e-9)


def test_the_grade_error_is_a_distance_in_grades() -> None:
    predicted = np.eye(3)[[0, 2, 1, 0]]
    assert grade_error(np.array([0.0, 0, 1, 2]), predicted, np.ones((1, 4))).tolist() == [1.0]


# In a federation


def by_hand(hospitals: list[TablePatients], rounds: int) -> NDArray[np.float64]:
    """Gradient descent on the mean of the hospitals' mean losses: each threshold's weights, then the biases."""
    weights = np.zeros((2, 3))  # (thresholds, inputs and bias)
    for _ in range(rounds):
        steps = []
        for people in hospitals:
            x = np.hstack([people.x, np.ones((len(people.x), 1))]).astype(np.float64)
            worse = (people.y[:, None] > np.arange(2)).astype(float)
            steps.append((1 / (1 + np.exp(-x @ weights.T)) - worse).T @ x / len(x))
        weights = weights - 0.7 * np.mean(steps, axis=0)
    return np.concatenate([weights[:, :2].ravel(), weights[:, 2]])


def test_a_federation_descends_its_loss() -> None:
    chosen = graded(training=ONE_STEP)
    people = {site: encoded(40 + 10 * i, i) for i, site in enumerate(chosen.sites)}
    hospitals = Hospitals(chosen, people.__getitem__)
    conducted = run_engine("inprocess", hospitals, lambda done: make_app(chosen, done=done))
    np.testing.assert_allclose(flat(conducted.model), by_hand(list(people.values()), 5), rtol=1e-4, atol=1e-5)


def test_with_privacy_each_round_has_its_quorum_and_every_update_is_plausible() -> None:
    chosen = graded(study)
    hospitals = Hospitals(chosen, {site: encoded(60, i) for i, site in enumerate(chosen.sites)}.__getitem__)
    conducted = run_engine("inprocess", hospitals, lambda done: make_app(chosen, done=done))
    assert conducted.rounds.outcome == "COMPLETE"
    assert [record.missing for record in conducted.records] == [{}] * 3


# From a study file


def test_its_keys_are_judged_as_any() -> None:
    with pytest.raises(ConfigError, match="three grades or more"):
        plain(task=TASK | {"classes": ["no", "yes"]})
    with pytest.raises(ConfigError, match="one of concordance, grade_error"):
        graded(evaluation={"test_fraction": 0.3, "metrics": ["auroc"]})
    with pytest.raises(ConfigError, match="none for a task that is not binary"):
        graded(study, evaluation={"test_fraction": 0.3, "release": {"epsilon": 1.0}})
    assert graded().to_dict()["task"] == TASK
    assert objective_of(graded()).outputs == 2


def test_a_hospital_reads_what_is_learned_before_it_decides(tmp_path: Path) -> None:
    config = SiteConfig(tmp_path, "lille", "coord.example.org:8443")
    rows = {row.title: row.text for row in rows_of(config, graded(study))}
    assert rows["learns"] == "graded 'grade' ('none', 'mild', 'severe') with a logistic model"
    assert "'grade': the outcome ('none', 'mild', 'severe')" in rows["reads"]


def written(folder: Path) -> Path:
    sites = {"brest": 120, "lille": 200, "lyon": 160}
    for seed, (site, count) in enumerate(sites.items()):
        age, sex, grade = patients(count, seed)
        lines = [f"{a:g},{('female', 'male')[s]},{GRADES[g]}" for a, s, g in zip(age, sex, grade, strict=True)]
        (folder / f"{site}.csv").write_text("\n".join(["age,sex,grade", *lines, ""]))
    document = graded(
        study, cohort=sites, evaluation={"test_fraction": 0.3}, training={"rounds": 8}, privacy={"epsilon": 8.0}
    ).to_dict()
    return write_simulated(folder, document, sites)


def test_it_is_planned_simulated_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path)
    assert cli.main(["plan", str(path)]) == 0
    assert "epsilon" in capsys.readouterr().out
    assert cli.main(["simulate", str(path), "--out", str(tmp_path / "runs")]) == 0
    assert "Concordance index" in capsys.readouterr().out
    run = tmp_path / "runs" / "latest"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["primary_metric"] == "concordance"
    for model in ("pooled", "federated", "federated_without_privacy"):
        figures = metrics["models"][model]["metrics"]
        assert figures["concordance"]["value"] > 0.7
        assert figures["grade_error"]["value"] < 0.8
    html = (run / "report.html").read_text()
    assert "Concordance index" in html
    assert "0.5 is chance" in html
    assert "no single probability" in html
    assert "the grade of `grade`" in (run / "model_card.md").read_text()
    assert load_study(run / "study.yaml").task.type == "graded"
    del OBJECTIVES._kinds["graded"]  # as where the kind is not installed: the report is plainer, and can be read
    assert cli.main(["report", str(run)]) == 0
    assert "Together, three hospitals reach a concordance of" in (run / "report.html").read_text()
    assert "a prediction of `grade`" in (run / "model_card.md").read_text()


def test_patients_are_not_made_up_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(written(tmp_path)), "--worth"]) == 2
    assert re.search(r"expected binary or multiclass.*, found graded", capsys.readouterr().err)


def test_a_type_whose_keys_name_other_metrics_is_refused() -> None:
    class Other(Graded):
        name = "stepwise"

    with pytest.raises(KindError, match=r"Other\): expected .*'graded' with .*, found 'stepwise' with"):
        register(Other, GRADED_KEYS)


def test_it_is_audited() -> None:
    """Its noise, clipping, sampling, ledger and canaries, as those of any private study."""
    chosen = graded(study)
    people = {site: encoded(60, i) for i, site in enumerate(chosen.sites)}
    effort = Effort(0.3, least_steps=30, few_steps=20, canaries=60, neighbours=2, starts=1, places=1)
    audited = audit_patients(chosen, people, Subject(), seed=1, effort=effort)
    assert {part.key: part.verdict for part in audited.parts if part.verdict == "FAILED"} == {}
    assert len(audited.parts) == 5
