"""A model that is no linear stack is one file and its registration; book-keeping makes it private."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from client.trainer import Trainer
from configs.errors import ConfigError, KindError
from configs.keys.one_of import Kind
from configs.load import load_study
from configs.schema import Local, Study
from configs.schema.model import MODELS
from server.app import make_app
from simulations import cli
from simulations.audit.auditor import audit_patients
from simulations.audit.subject import Subject
from simulations.engines import run_engine
from simulations.hospitals import Hospitals
from strategies.data.table import TablePatients
from strategies.learning import Learning, learning_of
from strategies.models.flat_model import FlatModel
from strategies.models.registry import ARCHITECTURES, register, study_parameters
from strategies.privacy.engines.base import Engine, Gaussian
from strategies.privacy.engines.book_keeping import BookKeeping
from strategies.privacy.engines.opacus import OpacusEngine
from strategies.privacy.engines.select import private_engine
from strategies.privacy.plan import PrivacyPlan
from strategies.privacy.randomness import Randomness
from strategies.releases.base import Fit
from tests.builders import flat, patients, plain, random_arrays, study, write_simulated
from tests.kits import convolution as kit
from tests.kits.convolution import Convolution, ConvolutionKeys
from tests.simulations.sabotage import BRIEF, PATIENTS, SITE

MODEL = {"name": "convolution", "channels": 3}
PLAN = PrivacyPlan(0.3, 1.0, 0.5, steps_per_round=4, rounds=1, delta=1e-5, expected_patients=20)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (ARCHITECTURES, MODELS):
        monkeypatch.setattr(registry, "_kinds", dict(registry._kinds))
    kit.install()


def convolved(make: Any = plain, **changes: Any) -> Study:
    return make(model=MODEL, **changes)  # type: ignore[no-any-return]


def cohorts(chosen: Study, rows_each: int = 1) -> dict[str, TablePatients]:
    return {site: patients(60, seed=i, rows_each=rows_each) for i, site in enumerate(chosen.sites)}


def conduct(chosen: Study, people: dict[str, TablePatients]) -> Any:
    return run_engine("inprocess", Hospitals(chosen, people.__getitem__), lambda done: make_app(chosen, done=done))


def clipped_sum(engine: Any, task: Learning, start: dict[str, Any], people: TablePatients) -> np.ndarray:
    model = FlatModel(task)
    model.load(start)
    made = engine(model, PLAN, lambda size, _: torch.zeros(size, dtype=torch.float64))
    x, y = map(torch.from_numpy, people.take())
    total = made.clipped_sum(x, y, torch.from_numpy(people.patients), patients_in_batch=people.count)
    made.close()
    return total.numpy()  # type: ignore[no-any-return]


def by_torch(chosen: Study, people: list[TablePatients], rate: float) -> np.ndarray:
    """One full-batch step of each hospital by PyTorch alone, then the plain mean."""
    models = []
    for cohort in people:
        module = nn.Sequential(
            *(nn.Unflatten(1, (1, 2)), nn.Conv1d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(3, 1)),
        )
        start = learning_of(chosen).initial(chosen.seed)
        module.load_state_dict({name: torch.from_numpy(array) for name, array in start.items()})
        optimizer = torch.optim.SGD(module.parameters(), lr=rate)
        x, y = map(torch.from_numpy, cohort.take())
        nn.functional.binary_cross_entropy_with_logits(module(x)[:, 0], y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        models.append(torch.cat([p.detach().flatten() for p in module.parameters()]).numpy())
    mean: np.ndarray = np.mean(models, axis=0)
    return mean


# The model


def test_what_it_declares_is_what_it_builds_and_what_is_sent() -> None:
    chosen = convolved()
    built = {name: tuple(p.shape) for name, p in learning_of(chosen).build().named_parameters()}
    assert built == {name: shape for name, (shape, _) in study_parameters(chosen).items()}
    assert built == {"1.weight": (3, 1, 2), "1.bias": (3,), "4.weight": (1, 3), "4.bias": (1,)}


def test_a_model_that_builds_other_parameters_than_it_declares_is_refused() -> None:
    class Wrong(Convolution):
        def build(self) -> nn.Sequential:
            return nn.Sequential(*super().build(), nn.Linear(1, 1))

    task = learning_of(convolved())
    with pytest.raises(KindError, match=r"expected the parameters .* built .*5\.weight"):
        Learning(task.objective, Wrong(*vars(task.architecture).values())).build()


def test_a_model_that_keeps_statistics_at_a_hospital_is_refused() -> None:
    class Normalised(Convolution):
        def build(self) -> nn.Sequential:
            module = super().build()
            module[2] = nn.BatchNorm1d(3, affine=False)
            return module

    task = learning_of(convolved())
    with pytest.raises(KindError, match=r"buffers \['2\.running_mean'.*GroupNorm"):
        Learning(task.objective, Normalised(*vars(task.architecture).values())).build()


def test_it_starts_at_the_same_values_for_everyone_and_at_others_with_another_seed() -> None:
    task = learning_of(convolved())
    assert (flat(task.initial(0)) == flat(task.initial(0))).all()
    assert (flat(task.initial(0)) != flat(task.initial(1))).all()


# Privacy


@pytest.mark.parametrize("rows_each", [1, 3])
def test_its_clipped_sum_is_that_of_opacus(rows_each: int) -> None:
    task, people = learning_of(convolved()), patients(40, rows_each=rows_each, scale=3.0)
    start = random_arrays(task.parameters, seed=1)
    ours, theirs = (clipped_sum(engine, task, start, people) for engine in (BookKeeping, OpacusEngine))
    assert np.linalg.norm(ours - theirs) <= 1e-5 * max(PLAN.clip_norm, float(np.linalg.norm(theirs)))
    assert np.linalg.norm(theirs) > PLAN.clip_norm


def test_no_patient_weighs_more_than_the_clip_norm() -> None:
    task, people = learning_of(convolved()), patients(12, rows_each=2, scale=50.0)
    start = random_arrays(task.parameters, seed=1)
    norms = [np.linalg.norm(clipped_sum(BookKeeping, task, start, people.subset(np.array([i])))) for i in range(12)]
    assert max(norms) <= PLAN.clip_norm * (1 + 1e-5)
    assert max(norms) >= PLAN.clip_norm * (1 - 1e-3)  # the clip was at work


def test_a_trainer_takes_book_keeping_and_repeats_its_bits() -> None:
    task = learning_of(convolved())
    assert type(private_engine(FlatModel(task), PLAN, lambda size, _: torch.zeros(size))) is BookKeeping
    trainer, start, people = Trainer(task), task.initial(0), patients(40)
    fits = [Fit(start, people, Local(None, 0.1), 4, Randomness.seeded(0, "lille", 1), PLAN) for _ in range(2)]
    first, again = (flat(trainer.fit(fit)) for fit in fits)
    assert (first == again).all()
    assert np.isfinite(first).all()
    assert (first != flat(start)).all()


# In a federation


def test_a_federation_descends_its_loss() -> None:
    rate = 0.7
    training = {"rounds": 1, "weights": "uniform", "local": {"steps": 1, "batch_size": "full", "learning_rate": rate}}
    chosen = convolved(training=training)
    people = cohorts(chosen)
    conducted = conduct(chosen, people)
    np.testing.assert_allclose(flat(conducted.model), by_torch(chosen, list(people.values()), rate), atol=1e-6)


@pytest.mark.parametrize("rows_each", [1, 3])
def test_with_privacy_each_round_has_its_quorum_and_every_update_is_plausible(rows_each: int) -> None:
    changes = {"patient_id": "patient"} if rows_each > 1 else {}
    chosen = convolved(study, **changes)
    conducted = conduct(chosen, cohorts(chosen, rows_each))
    assert conducted.rounds.outcome == "COMPLETE"
    assert [record.missing for record in conducted.records] == [{}] * 3


def audited(subject: Subject) -> dict[str, str]:
    features = {f"input_{i}": {"type": "number", "range": [-1, 1]} for i in range(8)}
    chosen = convolved(study, features=features, cohort={SITE: PATIENTS}, training={"rounds": 2, "quorum": 1})
    audit = audit_patients(chosen, {SITE: patients(PATIENTS, inputs=8, seed=1)}, subject, seed=0, effort=BRIEF)
    return {part.key: part.verdict for part in audit.parts}


def test_an_audit_finds_nothing_against_it() -> None:
    verdicts = audited(Subject())
    assert {verdicts[key] for key in ("residual", "sensitivity", "sampler", "ledger")} == {"passed"}
    assert verdicts["canaries"] != "FAILED"


def test_an_audit_finds_half_of_the_noise_missing() -> None:
    def engine(model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian, name: Any = "auto") -> Engine:
        return private_engine(model, plan, lambda size, deviation: gaussian(size, deviation / 2), name)

    assert audited(Subject(engine=engine))["residual"] == "FAILED"


# From a study file


def test_its_keys_are_judged_as_any() -> None:
    with pytest.raises(ConfigError, match=r"model\.channels: expected an integer from 1 to 64, found 0"):
        plain(model=MODEL | {"channels": 0})
    with pytest.raises(ConfigError, match=r"model\.hidden: unknown key"):
        plain(model=MODEL | {"hidden": [8]})
    with pytest.raises(ConfigError, match=r"one of logistic, linear, mlp, .*convolution"):
        plain(model={"name": "convolutional"})
    model: object = convolved().model
    assert model == ConvolutionKeys("convolution", 3, 2)
    assert convolved().to_dict()["model"] == {"name": "convolution", "channels": 3, "width": 2}


def written(folder: Path) -> Path:
    rng, sites = np.random.default_rng(0), {"brest": 120, "lille": 200, "lyon": 160}
    for site, count in sites.items():
        age, sex = rng.uniform(20, 90, count).round(), rng.integers(0, 2, count)
        sick = ((age - 55) / 20 + sex - 0.5 + rng.logistic(size=count) * 0.5 > 0).astype(int)
        lines = [f"{a:g},{('female', 'male')[s]},{d}" for a, s, d in zip(age, sex, sick, strict=True)]
        (folder / f"{site}.csv").write_text("\n".join(["age,sex,disease", *lines, ""]))
    local = {"epochs": 2, "batch_size": 32, "learning_rate": 0.5}
    document = convolved(
        study,
        cohort=sites,
        evaluation={"test_fraction": 0.3},
        training={"rounds": 8, "local": local},
        privacy={"epsilon": 8.0},
    ).to_dict()
    return write_simulated(folder, document, sites)


def test_it_is_planned_simulated_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path)
    assert cli.main(["plan", str(path)]) == 0
    plan = capsys.readouterr().out
    assert "epsilon" in plan
    assert "on others results agree within rounding" in " ".join(plan.split())
    assert cli.main(["simulate", str(path), "--out", str(tmp_path / "runs")]) == 0
    run = tmp_path / "runs" / "latest"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["model"] == {"name": "convolution", "parameters": 13}
    for model in ("pooled", "federated", "federated_without_privacy"):
        assert metrics["models"][model]["auroc"]["value"] > 0.7
    assert "convolution" in (run / "report.html").read_text()
    assert "convolution" in (run / "model_card.md").read_text()
    kept: object = load_study(run / "study.yaml").model
    assert kept == ConvolutionKeys("convolution", 3, 2)


def test_keys_of_another_name_are_refused() -> None:
    with pytest.raises(KindError, match=r"Convolution\): expected keys of that name, found those of 'other'"):
        register(Convolution, Kind("other", ConvolutionKeys))
