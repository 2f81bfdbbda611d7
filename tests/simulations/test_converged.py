"""The baselines alone and pooled are at their optimum, whatever the study's settings."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from configs.records.models import ComparedModel
from configs.schema import Model, Task
from simulations.baselines import baselines
from simulations.benchmarks.heart import preset
from simulations.converged import converged
from simulations.display import PlainDisplay
from simulations.hospitals import load_all
from strategies.data.base import concatenate
from strategies.data.table import TablePatients
from strategies.learning import Learning, learning, learning_of

BINARY = Task("binary", "disease")
CLASSES = Task("multiclass", "grade", classes=("a", "b", "c"))
NUMBER = Task("regression", "days", minimum=0.0, maximum=1.0)


def people(y: np.ndarray, inputs: int = 4, seed: int = 0) -> TablePatients:
    """Patients of one row each, with columns of very different scales."""
    rng, count = np.random.default_rng(seed), len(y)
    x = rng.normal(size=(count, inputs)) + 0.5 * y[:, None]
    x[:, 0] *= 0.01
    return TablePatients(x.astype(np.float32), y.astype(np.float32), np.arange(count), np.arange(count + 1))


def of(task: Task, name: str = "logistic", **options: object) -> Learning:
    """What is trained for a task by a model of four inputs."""
    return learning(task, Model(name, **options), inputs=4)  # type: ignore[arg-type]


def fitted(patients: TablePatients, ridge: float) -> LogisticRegression:
    """scikit-learn's model with the same penalty, by the solver that goes to the end whatever the columns' scales."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?i).*line search")  # it is at the optimum then
        return LogisticRegression(C=1 / ridge, tol=1e-10, solver="newton-cg").fit(patients.x, patients.y)


@pytest.mark.parametrize("ridge", [1.0, 1e-4])
@pytest.mark.parametrize(("task", "classes"), [(BINARY, 2), (CLASSES, 3)])
def test_a_logistic_regression_is_the_one_of_scikit_learn(task: Task, classes: int, ridge: float) -> None:
    patients = people(np.random.default_rng(1).integers(0, classes, 300))
    predicted = of(task).predict(converged(of(task), patients, ridge=ridge), patients.x)
    np.testing.assert_allclose(predicted, fitted(patients, ridge).predict_proba(patients.x), atol=2e-5)


def test_a_linear_regression_is_the_ridge_regression_of_scikit_learn() -> None:
    patients = people(np.random.default_rng(2).uniform(-1, 1, 200))
    model = converged(of(NUMBER, "linear"), patients)
    expected = Ridge(alpha=1.0).fit(patients.x, patients.y)
    np.testing.assert_allclose(model["0.weight"][0], expected.coef_, atol=1e-5)
    np.testing.assert_allclose(model["0.bias"], expected.intercept_, atol=1e-5)


def test_weights_stay_finite_where_one_column_tells_the_outcome() -> None:
    y = np.repeat([0, 1], 20)
    patients = people(y)
    patients.x[:, 1] = y
    model = converged(of(BINARY), patients)
    assert 1.0 < model["0.weight"][0, 1] < 10.0
    assert ((of(BINARY).predict(model, patients.x)[:, 1] > 0.5) == y).all()


def test_a_hospital_without_patients_has_the_model_that_training_starts_from() -> None:
    nobody = people(np.array([0, 1])).subset(np.empty(0, np.int64))
    assert not converged(of(BINARY), nobody)["0.weight"].any()


def test_a_network_is_stopped_before_it_learns_its_patients_by_heart() -> None:
    task = of(BINARY, "mlp", hidden=(32,), init="random")
    rng = np.random.default_rng(3)
    learned, others = people(rng.integers(0, 2, 120)), people(rng.integers(0, 2, 4000), seed=1)
    model = converged(task, learned)

    def loss(patients: TablePatients) -> float:
        probability = task.predict(model, patients.x)[np.arange(patients.rows), patients.y.astype(int)]
        return float(-np.log(probability).mean())

    assert loss(others) < 0.66  # a guess has .69
    assert loss(others) < loss(learned) + 0.1


def test_the_baselines_owe_nothing_to_the_rounds_and_rates_of_the_study() -> None:
    study = preset("heart_disease_none")
    local = replace(study.training.local, learning_rate=1e-3)
    poor = replace(study, training=replace(study.training, rounds=1, local=local))
    patients = load_all(study)
    models = baselines(poor, patients, PlainDisplay(), {})
    everybody = concatenate([people.train for people in patients.values()])
    expected = fitted(everybody, 1.0).predict_proba(everybody.x)
    task = learning_of(study)
    np.testing.assert_allclose(task.predict(models[ComparedModel.POOLED], everybody.x), expected, atol=1e-4)
    assert set(models[ComparedModel.LOCAL_ONLY]) == set(study.sites)
