"""Discrete hazards: what happened in which interval, the loss of each, and the risks that follow from hazards."""

from typing import Any

import numpy as np
import pytest
import torch

from client.ledger import Ledger
from client.patients import nobody
from client.site import Site
from configs.errors import ConfigError
from configs.schema import Study
from server.app import make_app
from simulations.engines import run_engine
from simulations.hospitals import Hospitals
from strategies.data.base import concatenate
from strategies.data.person_periods import PersonPeriods, person_periods
from strategies.data.registry import data_of
from strategies.data.source import Table
from strategies.data.table import TablePatients
from strategies.learning import inputs_of, learning_of
from strategies.models.flat_model import FlatModel
from strategies.privacy.engines.select import private_engine
from strategies.privacy.plan import PrivacyPlan
from strategies.releases.plausible import Plausibility
from strategies.tasks.registry import objective_of
from tests.builders import flat, plain, study

TASK = {"type": "survival", "time": "days", "event": "died", "unit": "days", "intervals": [0, 90, 180, 365]}
FULL = {"rounds": 4, "weights": "uniform", "local": {"steps": 1, "batch_size": "full", "learning_rate": 0.7}}
CAUSES = {"event": "end", "causes": ["relapse", "death"], "censored": "alive"}


def survival(make: Any = plain, task: dict[str, Any] | None = None, **changes: Any) -> Study:
    return make(task=TASK | (task or {}), **changes)  # type: ignore[no-any-return]


def people(chosen: Study, count: int, seed: int = 0) -> PersonPeriods:
    """Older patients die earlier; a third is lost from sight before."""
    rng = np.random.default_rng(seed)
    age, sex = rng.uniform(20, 90, count), rng.integers(0, 2, count)
    death, lost = rng.exponential(200 * np.exp(-(age - 55) / 20)), rng.uniform(20, 600, count)
    end = np.where(death <= lost, rng.integers(1, len(chosen.task.classes) + 1, count), 0)
    targets = {"days": np.minimum(death, lost).round(), chosen.task.columns[1].name: end.astype(float)}
    table = Table({"age": age}, {"sex": sex}, targets, np.arange(count), tuple(f"{i:05d}" for i in range(count)))
    read, _ = data_of(chosen).read(table, chosen)
    assert isinstance(read, PersonPeriods)
    return read


def hazards(times: list[float], ends: list[int], **task: Any) -> list[list[int]]:
    chosen = survival(task=task)
    outcome: Any = objective_of(chosen)
    y, _ = outcome.encode({"days": np.array(times), chosen.task.columns[1].name: np.array(ends, float)})
    return outcome.periods(y.astype(np.float32)).tolist()  # type: ignore[no-any-return]


def test_a_patient_is_at_risk_until_the_event_and_not_in_the_interval_of_censoring() -> None:
    died, lost = hazards([0, 90, 91, 365, 400], [1] * 5), hazards([0, 89, 90, 200, 364, 365, 400], [0] * 7)
    assert died == [[1, -1, -1], [1, -1, -1], [0, 1, -1], [0, 0, 1], [0, 0, 0]]
    assert lost == [[-1, -1, -1], [-1, -1, -1], [0, -1, -1], [0, 0, -1], [0, 0, -1], [0, 0, 0], [0, 0, 0]]


def test_each_cause_is_a_class_of_its_own() -> None:
    assert hazards([100, 100, 100], [0, 1, 2], **CAUSES) == [[0, -1, -1], [0, 1, -1], [0, 2, -1]]


@pytest.mark.parametrize("task", [{}, CAUSES], ids=["one cause", "two causes"])
def test_its_residual_is_the_derivative_of_its_loss_within_its_bound(task: dict[str, Any]) -> None:
    outcome = objective_of(survival(task=task))
    rng = np.random.default_rng(0)
    y = rng.integers(-1, len(outcome.task.classes) + 1, 200).astype(np.float32)
    outputs = torch.tensor(3 * rng.normal(size=(200, outcome.outputs)), requires_grad=True)
    outcome.loss(outputs, torch.from_numpy(y)).sum().backward()  # type: ignore[no-untyped-call]
    residual = outcome.residual(outputs.detach().numpy(), y)
    np.testing.assert_allclose(residual, outputs.grad.numpy(), atol=1e-7)  # type: ignore[union-attr]
    assert (residual[y < 0] == 0).all()
    assert np.linalg.norm(residual, axis=1).max() <= outcome.residual_bound[0]


def test_risks_follow_from_hazards() -> None:
    outcome = objective_of(survival())
    odds = np.log(np.array([0.1, 0.2, 0.5, 0.3, 0.3, 0.3]) / (1 - np.array([0.1, 0.2, 0.5, 0.3, 0.3, 0.3])))
    expected = [[0.1, 1 - 0.9 * 0.8, 1 - 0.9 * 0.8 * 0.5], [0.3, 1 - 0.7**2, 1 - 0.7**3]]
    np.testing.assert_allclose(outcome.predict(odds[:, None]), expected, rtol=1e-12)


def test_risks_of_causes_add_up_to_that_of_any() -> None:
    outcome = objective_of(survival(task=CAUSES))
    outputs = np.random.default_rng(0).normal(size=(6, 3))
    shares = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    free = shares[:, 0].reshape(2, 3).cumprod(axis=1)
    risks = outcome.predict(outputs).reshape(2, 2, 3)
    np.testing.assert_allclose(risks.sum(axis=1), 1 - free, rtol=1e-9)
    np.testing.assert_allclose(
        risks[:, 0, 1], shares.reshape(2, 3, 3)[:, 0, 1] + free[:, 0] * shares.reshape(2, 3, 3)[:, 1, 1]
    )


def by_hand(hospitals: list[PersonPeriods], rounds: int) -> np.ndarray:
    """Gradient descent on the mean over hospitals of a patient's mean loss, interval by interval."""
    weights = np.zeros(6)
    for _ in range(rounds):
        steps = []
        for each in hospitals:
            gradient = np.zeros(6)
            for features, (time, died) in zip(each.features.x.astype(float), each.outcomes, strict=True):
                for k, (low, high) in enumerate([(0, 90), (90, 180), (180, 365)]):
                    event = died == 1 and (low < time <= high or k == time == 0)
                    if event or time >= high:
                        row = np.array([*features, *np.eye(3)[k], 1])
                        gradient += (1 / (1 + np.exp(-row @ weights)) - event) * row
            steps.append(gradient / each.count)
        weights = weights - 0.7 * np.mean(steps, axis=0)
    return weights


def test_a_federation_without_privacy_descends_the_mean_loss_of_a_patient() -> None:
    chosen = survival(training=FULL)
    hospitals = {site: people(chosen, 40 + 30 * i, i) for i, site in enumerate(chosen.sites)}
    for engine in ("inprocess", "together"):
        apart = Hospitals(chosen, hospitals.__getitem__, engine=None if engine == "together" else _usual)
        model = run_engine("inprocess", apart, lambda done: make_app(chosen, done=done)).model
        np.testing.assert_allclose(flat(model), by_hand(list(hospitals.values()), 4), rtol=1e-4, atol=1e-6)


def _usual(model: Any, plan: Any, gaussian: Any, name: Any) -> Any:
    return private_engine(model, plan, gaussian, name)


@pytest.mark.parametrize("task", [{}, CAUSES], ids=["one cause", "two causes"])
def test_a_patients_rows_are_added_before_the_clip(task: dict[str, Any]) -> None:
    """Against autograd on 1,000 patients: no sum is longer than the clip, and their sum is the engine's."""
    chosen, clip = survival(study, task=task), 0.8
    learned, everybody = learning_of(chosen), people(chosen, 1000)
    model = FlatModel(learned)
    rng = np.random.default_rng(1)
    model.load({name: rng.normal(size=shape).astype(np.float32) for name, (shape, _) in learned.parameters.items()})
    plan = PrivacyPlan(clip, 1.0, 1.0, steps_per_round=1, rounds=1, delta=1e-5, expected_patients=1000.0)
    engine = private_engine(model, plan, lambda size, _: torch.zeros(size), "auto")
    x, y, owners = map(torch.from_numpy, (everybody.x, everybody.y, everybody.patients))
    together = engine.clipped_sum(x, y, owners, patients_in_batch=1000)
    residual = learned.residual(model.module(x).detach().double().numpy(), everybody.y)
    read = np.hstack([everybody.x, np.ones((len(x), 1))])
    rows = (residual[:, :, None] * read[:, None, :]).reshape(len(x), -1)
    gradients = np.add.reduceat(rows, everybody.starts[:-1])
    norms = np.linalg.norm(gradients, axis=1)
    total = (
        (gradients * np.minimum(1, clip / (norms + 1e-6))[:, None]).sum(axis=0).reshape(learned.objective.outputs, -1)
    )
    assert (norms > clip).sum() > 100
    np.testing.assert_allclose(together, np.concatenate([total[:, :-1].ravel(), total[:, -1]]), rtol=1e-4, atol=1e-4)


def test_one_prediction_is_made_of_each_patient() -> None:
    chosen = survival()
    learned, everybody = learning_of(chosen), people(chosen, 30)
    predicted = learned.predictions(learned.initial(0), everybody)
    np.testing.assert_allclose(predicted, np.tile([0.5, 0.75, 0.875], (30, 1)))
    assert inputs_of(chosen) == ("age", "sex = male", "days 0 to 90", "days 90 to 180", "days 180 to 365")


def test_chosen_patients_and_hospitals_together_keep_their_outcomes() -> None:
    chosen = survival()
    first, second = people(chosen, 20), people(chosen, 10, 1)
    both = concatenate([first, second])
    some = both.subset(np.array([25, 3]))
    assert some.outcomes.tolist() == [second.outcomes[5].tolist(), first.outcomes[3].tolist()]
    again = person_periods(some.features, objective_of(chosen))  # type: ignore[arg-type]
    assert (again.digest, again.rows) == (some.digest, some.rows)
    assert some.digest != both.subset(np.array([3, 25])).digest


def test_of_several_rows_the_one_with_the_longest_follow_up_counts() -> None:
    chosen = survival(patient_id="who")
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        numbers, time, end = np.array([[30.0, 40, 50, 60], [10, 200, 70, 70], [0, 0, 1, 0]])[:, order]
        owners = np.array([0, 0, 1, 1])[order]
        table = Table({"age": numbers}, {"sex": np.zeros(4, int)}, {"days": time, "died": end}, owners, ("a", "b"))
        read, _ = data_of(chosen).read(table, chosen)
        assert read.outcomes.tolist() == [[200, 0], [70, 1]]
        assert read.features.x[:, 0].tolist() == pytest.approx([-15 / 35, -5 / 35])


def test_a_release_of_noise_alone_has_its_shapes() -> None:
    chosen = survival(study)
    none = nobody(chosen).train
    assert (none.x.shape, none.y.shape, none.outcomes.shape) == ((0, 5), (0,), (0, 2))


@pytest.mark.parametrize("model", [{"name": "logistic"}, {"name": "mlp", "hidden": [4]}])
def test_an_honest_update_is_plausible(model: dict[str, Any]) -> None:
    """Each patient has a row of every interval, and none of them cancels."""
    chosen = survival(model=model, training=FULL | {"local": {"steps": 5, "batch_size": "full", "learning_rate": 0.1}})
    x = np.ones((60, 2), np.float32)
    outcomes = np.tile(np.array([400, 0], np.float32), (60, 1))
    base = TablePatients(x, outcomes, np.arange(60), np.arange(61))
    alike = person_periods(base, objective_of(chosen))  # type: ignore[arg-type]
    start = learning_of(chosen).initial(0)
    start[list(start)[-1]] += 5.0  # of the last bias: everybody is thought to die in each interval
    update = Site("lille", chosen, alike, Ledger.in_memory(), seeded=True).fit(1, start)
    bound = Plausibility(chosen, start)
    bound.require("lille", update)
    least = bound.bound("lille") / (3 if model["name"] == "logistic" else 50)
    assert np.linalg.norm(flat(update) - flat(start)) > least


@pytest.mark.parametrize("intervals", [[0, 90, 60], [90], [-1, 90], [0, 0], "soon", [0, float("nan")], []])
def test_cut_points_that_cannot_be_read_are_one_problem_whatever_the_horizon(intervals: Any) -> None:
    for horizon in ({}, {"horizon": 90}, {"horizon": "late"}):
        with pytest.raises(ConfigError, match=r"task\.intervals: expected a list of 2 to 101 cut points") as caught:
            survival(task={"intervals": intervals} | horizon)
        assert len(caught.value.problems) == 1


@pytest.mark.parametrize("horizon", [0, 100, 366, "late", [90]])
def test_a_horizon_is_the_end_of_an_interval(horizon: Any) -> None:
    with pytest.raises(ConfigError, match=r"task\.horizon: expected one of the intervals' ends, 90, 180, 365"):
        survival(task={"horizon": horizon})
