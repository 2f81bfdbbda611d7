"""A task type whose outcome is two columns of the data is one file and its registration, too."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client.connectors import read_table
from client.ledger import Ledger
from client.patients import nobody
from client.site import Site
from client.views.study_rows import rows_of
from configs.errors import ConfigError
from configs.schema import CsvFile, Study
from configs.schema.task import TASKS
from configs.site import SiteConfig
from server.app import make_app
from simulations import cli
from simulations.audit.auditor import audit_patients
from simulations.audit.effort import Effort
from simulations.audit.subject import Subject
from simulations.engines import run_engine
from simulations.hospitals import Hospitals
from strategies.data.base import concatenate
from strategies.data.table import TablePatients
from strategies.learning import learning_of
from strategies.models.flat_model import FlatModel
from strategies.privacy.engines.select import private_engine
from strategies.privacy.plan import PrivacyPlan
from strategies.tasks.registry import OBJECTIVES, objective_of
from tests.builders import flat, plain, study, write_simulated
from tests.kits.time_to_event import harrells_c, install

TASK = {"type": "time_to_event", "target": "months", "event": "died", "range": [0, 60], "unit": "months"}
TRAINING = {"rounds": 5, "weights": "uniform", "local": {"steps": 1, "batch_size": "full", "learning_rate": 0.7}}


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (OBJECTIVES, TASKS):
        monkeypatch.setattr(registry, "_kinds", dict(registry._kinds))
    install()


def survival(make: Any = plain, **changes: Any) -> Study:
    return make(**{"task": TASK, "model": {"name": "linear"}} | changes)  # type: ignore[no-any-return]


def followed(count: int, seed: int) -> tuple[np.ndarray, ...]:
    """Ages, sexes, months and deaths: older patients die earlier, a third is lost from sight before."""
    rng = np.random.default_rng(seed)
    age, sex = rng.uniform(20, 90, count).round(), rng.integers(0, 2, count)
    death = rng.exponential(50 * np.exp(-(age - 55) / 20 - 0.5 * sex))
    lost = rng.uniform(5, 80, count)
    return age, sex, np.minimum(death, lost).round(1), (death <= lost).astype(int)


def encoded(chosen: Study, count: int, seed: int) -> TablePatients:
    age, sex, months, died = followed(count, seed)
    x = np.stack([(age - 55) / 35, sex], axis=1).astype(np.float32)
    y, _ = objective_of(chosen).encode({"months": months, "died": died.astype(float)})
    return TablePatients(x, y.astype(np.float32), np.arange(count), np.arange(count + 1))


def by_hand(hospitals: list[TablePatients], rounds: int) -> np.ndarray:
    """Gradient descent on the mean of the hospitals' mean losses, interval by interval."""
    weights = np.zeros((4, 3))
    for _ in range(rounds):
        steps = []
        for people in hospitals:
            x = np.hstack([people.x, np.ones((len(people.x), 1))]).astype(np.float64)
            gradient = np.zeros((4, 3))
            for row, (interval, event) in zip(x, people.y, strict=True):
                for k in range(int(interval) + 1):
                    hazard = 1 / (1 + np.exp(-row @ weights[k]))
                    gradient[k] += (hazard - (event == 1 and k == interval)) * row
            steps.append(gradient / len(x))
        weights = weights - 0.7 * np.mean(steps, axis=0)
    return np.concatenate([weights[:, :2].ravel(), weights[:, 2]])


def test_a_federation_descends_its_loss() -> None:
    chosen = survival(training=TRAINING)
    people = {site: encoded(chosen, 40 + 10 * i, i) for i, site in enumerate(chosen.sites)}
    hospitals = Hospitals(chosen, people.__getitem__)
    conducted = run_engine("inprocess", hospitals, lambda done: make_app(chosen, done=done))
    np.testing.assert_allclose(flat(conducted.model), by_hand(list(people.values()), 5), rtol=1e-4, atol=1e-5)


def test_hospitals_trained_together_have_the_bits_of_each_alone() -> None:
    chosen = survival(study, training={"rounds": 1, "local": {"steps": 6, "batch_size": 16, "learning_rate": 0.5}})
    people = {site: encoded(chosen, 3000, i) for i, site in enumerate(chosen.sites)}
    start = learning_of(chosen).initial(0)
    together = run_engine(
        "inprocess", Hospitals(chosen, people.__getitem__), lambda done: make_app(chosen, done=done)
    ).model
    alone = [
        Site(site, chosen, people[site], Ledger.in_memory(), seeded=True).fit(1, start)["0.bias"]
        for site in chosen.sites
    ]
    weights = np.array([chosen.announced_train_patients(site) for site in chosen.sites], float)
    np.testing.assert_allclose(together["0.bias"], weights @ np.array(alone) / weights.sum(), rtol=1e-5)


def test_a_release_of_noise_alone_has_the_shape_of_an_outcome_of_two_columns() -> None:
    assert nobody(survival()).train.y.shape == (0, 2)
    assert nobody(plain()).train.y.shape == (0,)


@pytest.mark.parametrize("rows_each", [1, 3])
def test_its_private_sum_clips_each_patient(rows_each: int) -> None:
    """Against autograd, patient by patient."""
    chosen, clip = survival(study), 0.3
    task, people = learning_of(chosen), encoded(chosen, 12 * rows_each, 3)
    model = FlatModel(task)
    model.load(task.initial(0) | {"0.bias": np.array([0.2, -0.5, 1.0, 0.0], np.float32)})
    x, y = torch.from_numpy(people.x), torch.from_numpy(people.y)
    owners = torch.arange(12).repeat_interleave(rows_each)
    plan = PrivacyPlan(clip, 1.0, 1.0, steps_per_round=1, rounds=1, delta=1e-5, expected_patients=12.0)
    engine = private_engine(model, plan, lambda size, _: torch.zeros(size), "auto")
    found = engine.clipped_sum(x, y, owners, patients_in_batch=12)
    total = torch.zeros_like(found)
    for patient in range(12):
        mine = owners == patient
        grads = torch.autograd.grad(task.loss(model.module(x[mine]), y[mine]).sum(), list(model.module.parameters()))
        gradient = torch.cat([g.flatten() for g in grads])
        total += gradient * min(1.0, clip / float(gradient.norm()))
    torch.testing.assert_close(found, total, rtol=1e-3, atol=1e-4)


def test_harrells_index_counts_pairs_one_by_one() -> None:
    rng = np.random.default_rng(1)
    y = np.stack([rng.integers(0, 4, 20), rng.integers(0, 2, 20)], axis=1).astype(float)
    risk, counts = rng.integers(0, 4, 20) / 4, rng.integers(0, 3, 20)
    pairs = [
        (counts[i] * counts[j], (risk[i] > risk[j]) + (risk[i] == risk[j]) / 2)
        for i in range(20)
        for j in range(20)
        if y[i, 0] < y[j, 0] and y[i, 1] == 1
    ]
    by_pairs = sum(n * right for n, right in pairs) / sum(n for n, _ in pairs)
    assert harrells_c(y, risk[:, None], counts[None].astype(float))[0] == pytest.approx(by_pairs)


def written(folder: Path) -> Path:
    sites = {"brest": 120, "lille": 200, "lyon": 160}
    for seed, (site, count) in enumerate(sites.items()):
        rows = [f"{a:g},{('female', 'male')[s]},{m:g},{d}" for a, s, m, d in zip(*followed(count, seed), strict=True)]
        (folder / f"{site}.csv").write_text("\n".join(["age,sex,months,died", *rows, ""]))
    document = survival(
        study, cohort=sites, evaluation={"test_fraction": 0.3}, training={"rounds": 8}, privacy={"epsilon": 8.0}
    ).to_dict()
    return write_simulated(folder, document, sites)


def test_it_is_planned_simulated_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path)
    assert cli.main(["plan", str(path)]) == 0
    assert cli.main(["simulate", str(path), "--out", str(tmp_path / "runs")]) == 0
    assert "Concordance index" in capsys.readouterr().out
    run = tmp_path / "runs" / "latest"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["models"]["pooled"]["metrics"]["concordance"]["value"] > 0.65
    assert metrics["models"]["federated"]["metrics"]["concordance"]["value"] > 0.6
    assert "Concordance index" in (run / "report.html").read_text()
    assert "the risk by `months` (months)" in (run / "model_card.md").read_text()


def test_a_patient_without_one_of_the_two_is_left_out(tmp_path: Path) -> None:
    chosen = survival()
    (tmp_path / "a.csv").write_text("age,sex,months,died\n50,male,12,1\n60,male,,1\n70,female,9,\n40,male,70,0\n")
    table = read_table(CsvFile(tmp_path / "a.csv"), chosen)
    assert {name: values.tolist() for name, values in table.targets.items()} == {"months": [12, 70], "died": [1, 0]}


def test_both_columns_are_reviewed_and_neither_may_be_a_feature(tmp_path: Path) -> None:
    rows = {row.title: row.text for row in rows_of(SiteConfig(tmp_path, "lille", "coord.example.org:8443"), survival())}
    assert rows["learns"] == ("time_to_event 'months' (0 to 60) in 'months' and 'died' ('0', '1') with a linear model")
    assert "'died': the outcome ('0', '1')" in rows["reads"]
    with pytest.raises(ConfigError, match="expected a column that is not a feature, found 'sex'"):
        survival(task=TASK | {"event": "sex"})


def test_hospitals_are_pooled() -> None:
    chosen = survival()
    assert concatenate([encoded(chosen, 3, 0), encoded(chosen, 4, 1)]).y.shape == (7, 2)


def test_it_is_audited() -> None:
    """Its noise, clipping, sampling, ledger and canaries, as those of any private study."""
    chosen = survival(study)
    people = {site: encoded(chosen, 60, i) for i, site in enumerate(chosen.sites)}
    effort = Effort(0.3, least_steps=30, few_steps=20, canaries=60, neighbours=2, starts=1, places=1)
    audited = audit_patients(chosen, people, Subject(), seed=1, effort=effort)
    assert {part.key: part.verdict for part in audited.parts if part.verdict == "FAILED"} == {}
    assert len(audited.parts) == 5
