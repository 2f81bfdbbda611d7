"""Clipped sums in NumPy: the tasks' residuals, a patient's part to the last bit, and bits that no thread changes."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from configs.schema import Model, Task
from strategies.privacy.gradients import ClosedForm
from strategies.privacy.plan import PrivacyPlan
from strategies.privacy.stacks import Stack, tile_rows
from strategies.tasks import rows
from strategies.tasks.gradients import FlatModel
from strategies.tasks.tabular import TabularTask, tabular_task

BINARY = Task("binary", "y")
TASKS = {
    "binary": tabular_task(BINARY, Model("logistic"), inputs=3),
    "multiclass": tabular_task(Task("multiclass", "y", ("a", "b", "c")), Model("logistic"), inputs=3),
    "regression": tabular_task(Task("regression", "y", minimum=0.0, maximum=1.0), Model("linear"), inputs=3),
}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("rows", [0, 1, 9])
def test_a_residual_in_numpy_is_autograds(task: TabularTask, rows: int) -> None:
    chance = torch.Generator().manual_seed(rows)
    outputs = (4 * torch.randn(rows, task.outputs, generator=chance)).requires_grad_()
    y = torch.randint(0, max(2, task.outputs), (rows,), generator=chance).float()
    (expected,) = torch.autograd.grad(task.loss(outputs, y).sum(), outputs)
    found = task.residual_in_numpy(outputs.detach().numpy().copy(), y.numpy())
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("output", [-200.0, 200.0])
def test_a_residual_far_out_is_finite(output: float) -> None:
    with np.errstate(over="ignore"):
        found = TASKS["binary"].residual_in_numpy(np.array([[output]], np.float32), np.zeros(1, np.float32))
    assert found.item() == (output > 0)


SUM = """
import hashlib, sys, torch
from configs.schema import Model, Task
from strategies.privacy.stacks import Stack
from strategies.tasks.gradients import FlatModel
from strategies.tasks.tabular import tabular_task
for hidden in ((), (64, 32), (300, 300)):
    task = tabular_task(Task("binary", "y"), Model("mlp" if hidden else "logistic", hidden, "random"), inputs=13)
    model, chance = FlatModel(task), torch.Generator().manual_seed(0)
    model.load(task.initial(0))
    x = torch.randn(2000, 13, generator=chance)
    stack = Stack(model, 1.0, tile=256)
    stack.add_rows(x.numpy(), (x[:, 0] > 0).float().numpy())
    print(hashlib.sha256(stack.total.tobytes()).hexdigest())
"""


def test_the_sum_does_not_depend_on_the_number_of_threads() -> None:
    found = set()
    for threads in ("1", "2"):
        environment = os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        found.add(subprocess.run([sys.executable, "-c", SUM], env=environment, check=True, capture_output=True).stdout)
    assert len(found) == 1


# One patient's part


REGRESSION = Task("regression", "y", minimum=0.0, maximum=1.0)
BIG = 1e12  # weights under which the last bit of an output decides its sign


def plan_of(clip: float, expected: float, rate: float = 1.0) -> PrivacyPlan:
    return PrivacyPlan(
        clip, 1.0, sampling_rate=rate, steps_per_round=1, rounds=1, delta=1e-5, expected_patients=expected
    )


def summed(model: FlatModel, x: np.ndarray, y: np.ndarray, owners: np.ndarray, plan: PrivacyPlan) -> np.ndarray:
    engine = ClosedForm(model, plan, lambda size, _: torch.zeros(size, dtype=torch.float64))
    count, patients = int(owners.max(initial=-1)) + 1, torch.from_numpy(owners)
    found = engine.clipped_sum(torch.from_numpy(x), torch.from_numpy(y), patients, patients_in_batch=count)
    return found.double().numpy()


def near_zero(task: TabularTask, row: np.ndarray, seed: int) -> FlatModel:
    """A model whose output for this row is between what two orders of addition give."""
    chance = np.random.default_rng(seed)
    weight = (chance.standard_normal((1, task.inputs)) * BIG).astype(np.float32)
    orders = {float(np.add.reduce((row * weight[0])[order])) for order in (slice(None), slice(None, None, -1))}
    orders |= {float(np.dot(np.repeat(row[None], many, 0), weight.T)[-1, 0]) for many in (1, 2, 3, 21)}
    model = FlatModel(task)
    model.load({"0.weight": weight, "0.bias": np.array([-(min(orders) + max(orders)) / 2], np.float32)})
    return model


@pytest.mark.parametrize("inputs", [5, 13, 30])
@pytest.mark.parametrize("expected", [20.0, 100.0])
@pytest.mark.parametrize("task", [REGRESSION, BINARY], ids=lambda task: task.type)
@pytest.mark.parametrize("joins", ["one row", "two rows", "among patients of two rows"])
def test_whoever_joins_changes_nobody_elses_part(task: Task, inputs: int, expected: float, joins: str) -> None:
    """Fifty equal patients, so that all would turn together: the sum moves by one clip, not by fifty."""
    model_of = Model("linear" if task is REGRESSION else "logistic")
    each = 2 if joins == "among patients of two rows" else 1
    for seed in range(20):
        row = np.random.default_rng(seed).uniform(-1, 1, inputs).astype(np.float32)
        model, many = near_zero(tabular_task(task, model_of, inputs), row, seed), 40 + seed
        owners = np.arange(many).repeat(each)
        joined = np.concatenate([np.zeros(1 if joins == "one row" else 2, np.int64), owners + 1])
        sums = [
            summed(model, row[None].repeat(len(who), 0), np.zeros(len(who), np.float32), who, plan_of(1.0, expected))
            for who in (owners, joined)
        ]
        assert float(np.linalg.norm(sums[1] - sums[0])) <= 1.0 + 1e-5


def test_where_a_tile_does_not_treat_its_rows_alike_rows_are_worked_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    task = tabular_task(BINARY, Model("mlp", (8, 4), "random"), 5)
    model, x = FlatModel(task), np.random.default_rng(0).standard_normal((20, 5), np.float32)
    model.load(task.initial(0))
    owners, y = np.arange(20), (x[:, 0] > 0).astype(np.float32)
    expected = summed(model, x, y, owners, plan_of(0.1, 20.0))
    monkeypatch.setattr("strategies.privacy.stacks.rows_are_alike", lambda shapes, rows: False)
    stack = Stack(model, 0.1, 32)
    assert stack._tile == 1
    stack.add_rows(x, y)
    np.testing.assert_allclose(stack.total, expected, rtol=1e-4, atol=1e-6)


def test_products_that_treat_rows_differently_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.dot
    rows.rows_are_alike.cache_clear()
    assert rows.rows_are_alike(((3, 7),), 16)
    rows.rows_are_alike.cache_clear()

    def at_the_edge(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        found = whole(a, b)
        found[-1] = np.nextafter(found[-1], np.float32(np.inf))
        return found

    monkeypatch.setattr(rows.np, "dot", at_the_edge)
    assert not rows.rows_are_alike(((3, 7),), 16)
    rows.rows_are_alike.cache_clear()


@pytest.mark.parametrize(("many", "expected"), [(40, 32.0), (1_000, 1_000.0), (50_000, 50_000.0)])
def test_among_many_patients_one_moves_the_sum_by_the_clip(many: int, expected: float) -> None:
    """Added up in single precision, fifty thousand equal gradients are so rough that one more counts for 1.002."""
    task = tabular_task(REGRESSION, Model("linear"), 1)
    model, chance = FlatModel(task), np.random.default_rng(0)
    model.load({"0.weight": np.full((1, 1), 0.3, np.float32), "0.bias": np.full(1, 9.0, np.float32)})
    x, owners = chance.uniform(0.5, 1, (many, 1)).astype(np.float32), np.arange(many)
    engine = ClosedForm(model, plan_of(1.0, expected), lambda size, _: torch.zeros(size, dtype=torch.float64))
    sums = [
        engine._sums(torch.from_numpy(x[:n]), torch.zeros(n), torch.from_numpy(owners[:n]), n).astype(np.float64)
        for n in (many, many - 1)
    ]
    assert float(np.linalg.norm(sums[0] - sums[1])) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("clip", [1e-6, 1e-3, 1.0])
def test_what_a_square_loses_weighs_nothing(clip: float) -> None:
    """A huge activation times a tiny derivative: in single precision the square of the latter is none."""
    task = tabular_task(BINARY, Model("mlp", (1,)), 1)
    model = FlatModel(task)
    for activation in (1e3, 1e6, 1e12, 1.8e19):
        for logit in np.linspace(-100, -10, 46):
            model.load(
                {
                    "0.weight": np.full((1, 1), activation, np.float32),
                    "0.bias": np.zeros(1, np.float32),
                    "2.weight": np.full((1, 1), logit / activation, np.float32),
                    "2.bias": np.zeros(1, np.float32),
                }
            )
            one = np.ones((1, 1), np.float32)
            moved = summed(model, one, np.zeros(1, np.float32), np.zeros(1, np.int64), plan_of(clip, 1.0))
            assert float(np.linalg.norm(moved)) <= clip * (1 + 1e-5)


def test_tiles_follow_from_public_numbers() -> None:
    assert [tile_rows(plan_of(1.0, e, q)) for e, q in ((0.2, 0.1), (32.0, 0.01), (200.0, 1.0), (1e6, 0.5))] == [
        *(16, 48, 208, 512)
    ]
