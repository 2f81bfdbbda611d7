"""Gradients in closed form against autograd, losses and predictions against their formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import MODELS, Model, Task
from configs.schema.model import axes_of
from strategies.learning import Learning, learning
from strategies.models.flat_model import FlatModel
from tests.builders import patients, random_arrays, same_bits

KINDS = {
    "binary": (Task("binary", "y"), 2),
    "multiclass": (Task("multiclass", "y", ("a", "b", "c", "d")), 4),
    "regression": (Task("regression", "y", minimum=-5.0, maximum=15.0), None),
}
tasks = st.builds(
    lambda kind, hidden, inputs: learning(KINDS[kind][0], Model("mlp" if hidden else "linear", tuple(hidden)), inputs),
    st.sampled_from(sorted(KINDS)),
    st.lists(st.integers(1, 9), max_size=3),
    st.integers(1, 8),
)


def rows_for(task: Learning, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    made = patients(count, inputs=task.architecture.inputs, classes=KINDS[task.objective.name][1], seed=seed)
    return torch.from_numpy(made.x), torch.from_numpy(made.y)


def by_autograd(task: Learning, arrays: dict[str, np.ndarray], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """In double precision, from PyTorch's own model and loss functions."""
    model = task.build().double()
    model.load_state_dict({name: torch.from_numpy(array).double() for name, array in arrays.items()})
    outputs = model(x.double())
    if task.objective.name == "binary":
        loss = torch.nn.BCEWithLogitsLoss()(outputs[:, 0], y.double())
    elif task.objective.name == "multiclass":
        loss = torch.nn.CrossEntropyLoss()(outputs, y.long())
    else:
        loss = ((outputs[:, 0] - y.double()) ** 2).mean() / 2
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


@given(tasks, st.integers(1, 12), st.integers(0, 1000))
def test_the_closed_form_is_what_autograd_finds(task: Learning, rows: int, seed: int) -> None:
    arrays = random_arrays(task.parameters, seed)
    x, y = rows_for(task, rows, seed)
    model = FlatModel(task)
    model.load(arrays)
    expected = by_autograd(task, arrays, x, y)
    torch.testing.assert_close(model.mean_gradient(x, y).double(), expected, rtol=2e-4, atol=2e-5)


@given(tasks, st.integers(0, 1000))
def test_what_is_loaded_is_what_is_read_out(task: Learning, seed: int) -> None:
    arrays, model = random_arrays(task.parameters, seed), FlatModel(task)
    model.load(arrays)
    assert same_bits(model.arrays(), arrays)


@given(tasks)
def test_what_is_read_out_has_the_announced_names_shapes_and_types(task: Learning) -> None:
    found = {name: (array.shape, str(array.dtype)) for name, array in FlatModel(task).arrays().items()}
    assert found == dict(task.parameters)


def test_what_is_read_out_does_not_change_with_the_next_load() -> None:
    task = learning(KINDS["binary"][0], Model("logistic"), 2)
    model = FlatModel(task)
    model.load(random_arrays(task.parameters, 1))
    before = model.arrays()
    model.load(random_arrays(task.parameters, 2))
    assert same_bits(before, random_arrays(task.parameters, 1))


def test_a_gradient_does_not_depend_on_the_one_before() -> None:
    task = learning(KINDS["multiclass"][0], Model("mlp", (4,)), 3)
    model = FlatModel(task)
    model.load(random_arrays(task.parameters))
    x, y = rows_for(task, 6)
    first = model.mean_gradient(x, y).clone()
    model.mean_gradient(x[:2] * 9, y[:2])
    assert torch.equal(model.mean_gradient(x, y), first)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_each_row_follows_its_formula(kind: str) -> None:
    task = learning(KINDS[kind][0], Model("linear"), 3)
    _, y = rows_for(task, 8)
    outputs = np.random.default_rng(1).normal(size=(8, task.architecture.outputs))
    truth = y.numpy().astype(int)
    if kind == "binary":
        p = 1 / (1 + np.exp(-outputs[:, 0]))
        expected = -np.log(np.where(truth == 1, p, 1 - p))
    elif kind == "multiclass":
        p = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
        expected = -np.log(p[np.arange(8), truth])
    else:
        expected = (outputs[:, 0] - y.numpy()) ** 2 / 2
    found = task.loss(torch.from_numpy(outputs), y.double() if kind != "multiclass" else y)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_predictions_are_the_probabilities_of_the_linear_model(kind: str) -> None:
    task = learning(KINDS[kind][0], Model("logistic"), 3)
    arrays = random_arrays(task.parameters)
    x = rows_for(task, 8)[0].numpy()
    outputs = x.astype(float) @ arrays["0.weight"].T.astype(float) + arrays["0.bias"]
    if kind == "binary":
        positive = 1 / (1 + np.exp(-outputs))
        expected = np.concatenate([1 - positive, positive], axis=1)
    else:
        expected = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(task.predict(arrays, x), expected, rtol=1e-5)


def test_a_regression_predicts_in_the_targets_own_unit() -> None:
    task = learning(KINDS["regression"][0], Model("linear"), 1)
    arrays = {"0.weight": np.ones((1, 1), np.float32), "0.bias": np.zeros(1, np.float32)}
    x = np.array([[-1.0], [0.0], [1.0]], np.float32)
    assert task.predict(arrays, x).ravel().tolist() == [-5.0, 5.0, 15.0]


def test_extreme_outputs_still_make_probabilities() -> None:
    task = learning(KINDS["binary"][0], Model("logistic"), 1)
    arrays = {"0.weight": np.full((1, 1), 1e20, np.float32), "0.bias": np.zeros(1, np.float32)}
    assert task.predict(arrays, np.array([[1.0], [-1.0]], np.float32)).tolist() == [[0.0, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize("name", [name for name in MODELS.names if 0 in axes_of(name)])
@pytest.mark.parametrize("kind", KINDS)
def test_every_model_that_a_study_may_name_can_be_built_and_trained(name: str, kind: str) -> None:
    task = learning(KINDS[kind][0], Model(name, (3,) if name == "mlp" else (), "random"), 4)
    x, y = rows_for(task, 5)
    model = FlatModel(task)
    model.load(task.initial(0))
    assert float(model.mean_gradient(x, y).abs().sum()) > 0


def test_random_parameters_follow_the_seed_and_leave_other_chance_alone() -> None:
    task = learning(KINDS["binary"][0], Model("mlp", (5,), "random"), 4)
    torch.manual_seed(9)
    undisturbed = torch.rand(1)
    torch.manual_seed(9)
    assert same_bits(task.initial(3), task.initial(3))
    assert not same_bits(task.initial(3), task.initial(4))
    assert torch.equal(torch.rand(1), undisturbed)


def test_zero_parameters_are_zero() -> None:
    task = learning(KINDS["multiclass"][0], Model("logistic"), 4)
    assert all(not array.any() for array in task.initial(3).values())
