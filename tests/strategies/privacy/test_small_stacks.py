"""Clipped sums in NumPy: which models they suit, the tasks' residuals, and bits that no number of threads changes."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from builders import random_arrays

from configs.schema import Model, Task
from strategies.privacy.stacks import SmallStack
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


@pytest.mark.parametrize(
    ("hidden", "inputs", "suits"), [((), 13, True), ((64, 32), 13, True), ((512, 512), 13, False), ((), 20_000, False)]
)
def test_small_layers_alone_are_worked_in_numpy(hidden: tuple[int, ...], inputs: int, suits: bool) -> None:
    model = Model("mlp", hidden) if hidden else Model("logistic")
    assert SmallStack.suits(FlatModel(tabular_task(BINARY, model, inputs))) == suits


SUM = """
import hashlib, sys, torch
from configs.schema import Model, Task
from strategies.privacy.stacks import SmallStack
from strategies.tasks.gradients import FlatModel
from strategies.tasks.tabular import tabular_task
for hidden in ((), (64, 32)):
    task = tabular_task(Task("binary", "y"), Model("mlp" if hidden else "logistic", hidden, "random"), inputs=13)
    model, chance = FlatModel(task), torch.Generator().manual_seed(0)
    model.load(task.initial(0))
    x = torch.randn(2000, 13, generator=chance)
    SmallStack(model, 1.0).sum_into_gradient(x, (x[:, 0] > 0).float())
    print(hashlib.sha256(model.gradient.numpy().tobytes()).hexdigest())
"""


def test_the_sum_does_not_depend_on_the_number_of_threads() -> None:
    found = set()
    for threads in ("1", "2"):
        environment = os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        found.add(subprocess.run([sys.executable, "-c", SUM], env=environment, check=True, capture_output=True).stdout)
    assert len(found) == 1


def test_many_rows_are_the_sum_of_their_portions() -> None:
    task = tabular_task(BINARY, Model("mlp", (64, 32)), inputs=13)
    model, chance = FlatModel(task), torch.Generator().manual_seed(0)
    model.load(random_arrays(task.parameters))
    stack, x = SmallStack(model, 1.0), torch.randn(1000, 13, generator=chance)
    y = (x[:, 0] > 0).float()
    total = torch.zeros_like(model.gradient)
    for start in range(0, 1000, 50):
        stack.sum_into_gradient(x[start : start + 50], y[start : start + 50])
        total += model.gradient
    stack.sum_into_gradient(x, y)
    assert float((model.gradient - total).norm()) <= 1e-6 * float(total.norm())
