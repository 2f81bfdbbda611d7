"""Clipped sums in NumPy: the tasks' residuals, a patient's part to the last bit, and bits that no thread changes."""

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import Model, Task
from strategies.learning import Learning, learning
from strategies.models.flat_model import FlatModel
from strategies.privacy.engines.closed_form import ClosedForm
from strategies.privacy.engines.stack import Stack
from strategies.privacy.plan import PrivacyPlan

BINARY = Task("binary", "y")
TASKS = {
    "binary": learning(BINARY, Model("logistic"), inputs=3),
    "multiclass": learning(Task("multiclass", "y", ("a", "b", "c")), Model("logistic"), inputs=3),
    "regression": learning(Task("regression", "y", minimum=0.0, maximum=1.0), Model("linear"), inputs=3),
}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("rows", [0, 1, 9])
def test_a_residual_in_numpy_is_autograds(task: Learning, rows: int) -> None:
    chance = torch.Generator().manual_seed(rows)
    outputs = (4 * torch.randn(rows, task.architecture.outputs, generator=chance)).requires_grad_()
    y = torch.randint(0, max(2, task.architecture.outputs), (rows,), generator=chance).float()
    (expected,) = torch.autograd.grad(task.loss(outputs, y).sum(), outputs)
    found = task.residual(outputs.detach().double().numpy(), y.numpy())
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("output", [-200.0, 200.0])
def test_a_residual_far_out_is_finite(output: float) -> None:
    found = TASKS["binary"].residual(np.array([[output]]), np.zeros(1, np.float32))
    assert found.item() == pytest.approx(float(output > 0), abs=1e-80)


SUM = """
import hashlib, sys, torch
from configs.schema import Model, Task
from strategies.exact.layers import Layers
from strategies.privacy.engines.stack import Stack
from strategies.models.flat_model import FlatModel
from strategies.learning import learning
for hidden in ((), (64, 32), (300, 300)):
    task = learning(Task("binary", "y"), Model("mlp" if hidden else "logistic", hidden, "random"), inputs=13)
    model, chance = FlatModel(task), torch.Generator().manual_seed(0)
    model.load(task.initial(0))
    x = torch.randn(2000, 13, generator=chance)
    model.layers.load(model.flat.data.numpy())
    stack = Stack(model.layers, task.residual, 1.0)
    stack.add_rows(x.numpy(), (x[:, 0] > 0).float().numpy())
    print(hashlib.sha256(stack.take().tobytes()).hexdigest())
"""


def test_the_sum_does_not_depend_on_threads_or_kernels() -> None:
    found = set()
    for threads, kernel in (("1", "Haswell"), ("2", "Haswell"), ("2", "SkylakeX"), ("1", "Nehalem")):
        environment = os.environ | {"OPENBLAS_NUM_THREADS": threads, "OPENBLAS_CORETYPE": kernel}
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


def near_zero(task: Learning, row: np.ndarray, seed: int) -> FlatModel:
    """A model whose output for this row is between what two orders of addition give."""
    chance = np.random.default_rng(seed)
    weight = (chance.standard_normal((1, task.architecture.inputs)) * BIG).astype(np.float32)
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
        model, many = near_zero(learning(task, model_of, inputs), row, seed), 40 + seed
        owners = np.arange(many).repeat(each)
        joined = np.concatenate([np.zeros(1 if joins == "one row" else 2, np.int64), owners + 1])
        sums = [
            summed(model, row[None].repeat(len(who), 0), np.zeros(len(who), np.float32), who, plan_of(1.0, expected))
            for who in (owners, joined)
        ]
        assert float(np.linalg.norm(sums[1] - sums[0])) <= 1.0 + 1e-5


@pytest.mark.parametrize(("many", "expected"), [(40, 32.0), (1_000, 1_000.0), (50_000, 50_000.0)])
def test_among_many_patients_one_moves_the_sum_by_the_clip(many: int, expected: float) -> None:
    """Added up in single precision, fifty thousand equal gradients are so rough that one more counts for 1.002."""
    task = learning(REGRESSION, Model("linear"), 1)
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
    task = learning(BINARY, Model("mlp", (1,)), 1)
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


# One patient more or less, at any size of weights, clip and batch


class Rows(NamedTuple):
    x: np.ndarray
    y: np.ndarray


SIZES = st.floats(-45, 38.4).map(lambda power: 10.0**power)
PATIENT = st.tuples(st.integers(1, 3), st.integers(0, 10**6))  # rows and seed


@st.composite
def hostile(draw: st.DrawFn) -> tuple[Learning, dict[str, np.ndarray]]:
    """A model of any size, each layer of its own; some bring a row's output to the edge of turning."""
    hidden = tuple(draw(st.lists(st.integers(1, 8), max_size=3)))
    task = learning(draw(st.sampled_from([BINARY, REGRESSION])), Model("mlp", hidden), 5)
    chance, arrays = np.random.default_rng(draw(st.integers(0, 99))), {}
    for name, (shape, _) in task.parameters.items():
        arrays[name] = (chance.uniform(-1, 1, shape) * draw(SIZES)).astype(np.float32)
    if not hidden and draw(st.booleans()):
        row = rows_of(1, 7).x[0].astype(np.float64)
        arrays["0.bias"] = -(arrays["0.weight"].astype(np.float64) @ row).astype(np.float32)
    return task, arrays


def rows_of(count: int, seed: int) -> Rows:
    chance = np.random.default_rng(seed)
    return Rows(chance.uniform(-1, 1, (count, 5)).astype(np.float32), chance.integers(0, 2, count).astype(np.float32))


def summed_exactly(model: FlatModel, clip: float, patients: Sequence[Rows]) -> np.ndarray:
    """The sum in float64, of patients in this order."""
    engine = ClosedForm(model, plan_of(clip, 20.0), lambda size, _: torch.zeros(size, dtype=torch.float64))
    x, y = (np.concatenate([p[i] for p in patients]) for i in range(2))
    owners = np.arange(len(patients)).repeat([len(p.x) for p in patients])
    with np.errstate(all="raise"):
        rows = (torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(owners))
        return engine._sums(*rows, len(patients)).copy()


@settings(max_examples=300, deadline=None)
@given(hostile(), st.lists(PATIENT, min_size=1, max_size=12), PATIENT, st.floats(-6, 6), st.integers(0, 99))
def test_one_patient_more_adds_that_patients_own_part_and_moves_nobody_elses(
    model: tuple[Learning, dict[str, np.ndarray]],
    others: list[tuple[int, int]],
    joins: tuple[int, int],
    power: float,
    seed: int,
) -> None:
    """Also where a patient with several rows joins patients with one, which must not change how these are worked."""
    task, arrays = model
    flat, clip = FlatModel(task), min(max(10.0**power, 1e-6), 1e6)
    flat.load(arrays)
    patients, one = [rows_of(*other) for other in others], rows_of(*joins)
    if seed % 2:  # all alike, so that all would turn together
        patients = [Rows(patients[0].x[:1], patients[0].y[:1])] * (2 * len(patients))
    place = seed % (len(patients) + 1)
    without = summed_exactly(flat, clip, patients)
    everybody = summed_exactly(flat, clip, [*patients[:place], one, *patients[place:]])
    own = summed_exactly(flat, clip, [one])
    assert float(np.linalg.norm(own / clip)) <= 1 + 1e-9
    # Whole numbers of one step, which the clip norm multiplied, rounded to float64: below half a step of 25 patients.
    steps = [
        [round(Fraction(value) / Fraction(clip) * 2**47) for value in values] for values in (without, everybody, own)
    ]
    assert [b - a for a, b in zip(steps[0], steps[1], strict=True)] == steps[2]
    np.testing.assert_allclose(everybody / clip, without / clip + own / clip, rtol=0, atol=1e-13 * (1 + len(patients)))


@settings(max_examples=60, deadline=None)
@given(hostile(), st.lists(PATIENT, min_size=2, max_size=100), st.floats(-6, 6), st.integers(0, 99))
def test_the_order_of_patients_changes_no_bit(
    model: tuple[Learning, dict[str, np.ndarray]], patients: list[tuple[int, int]], power: float, seed: int
) -> None:
    flat = FlatModel(model[0])
    flat.load(model[1])
    clip, made = 10.0**power, [rows_of(*patient) for patient in patients]
    order = np.random.default_rng(seed).permutation(len(made))
    again = summed_exactly(flat, clip, [made[i] for i in order])
    assert again.tobytes() == summed_exactly(flat, clip, made).tobytes()


@pytest.mark.parametrize("clip", [1e-6, 1e-3, 1.0, 1e6])
@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-20, 1e-3, 1.0, 1e12, 1e19, 3e38])
def test_the_sum_is_that_of_clipped_gradients_at_any_size(size: float, clip: float) -> None:
    """Against each patient's gradient in whole numbers of Python: exact forward and back, one clip, fractions."""
    task = learning(REGRESSION, Model("mlp", (3,)), 5)
    flat, chance = FlatModel(task), np.random.default_rng(1)
    arrays = {
        name: (chance.uniform(0.2, 1, shape) * (size if name == "0.weight" else 1.0)).astype(np.float32)
        for name, (shape, _) in task.parameters.items()
    }
    flat.load(arrays)
    patients = [rows_of(count, count) for count in (1, 2, 1, 3)]
    expected = np.zeros(len(flat.flat))
    for patient in patients:
        gradient = by_fractions(arrays, patient)
        square = sum(g * g for g in gradient)
        norm = math.sqrt(square) if square < 10**300 else math.isqrt(int(square))
        share = min(Fraction(1), Fraction(clip) / (Fraction(norm) + Fraction(1e-6)))
        expected += [float(g * share) for g in gradient]
    found = summed_exactly(flat, clip, patients)
    assert float(np.linalg.norm(found - expected)) <= 2e-6 * max(float(np.linalg.norm(expected)), clip / 10)


def by_fractions(arrays: dict[str, np.ndarray], patient: Rows) -> list[Fraction]:
    """The gradient of a patient's summed loss, of a regression with one hidden layer, without any rounding."""
    first, shift, second, last = ([*map(Fraction, a.ravel().tolist())] for a in arrays.values())
    total = [Fraction(0)] * sum(a.size for a in arrays.values())
    for row, y in zip(patient.x.tolist(), patient.y.tolist(), strict=True):
        x = [*map(Fraction, row)]
        hidden = [sum((w * v for w, v in zip(first[5 * j : 5 * j + 5], x, strict=True)), shift[j]) for j in range(3)]
        read = [max(h, Fraction(0)) for h in hidden]
        residual = sum((w * r for w, r in zip(second, read, strict=True)), last[0]) - Fraction(y)
        back = [w * residual if h > 0 else Fraction(0) for w, h in zip(second, hidden, strict=True)]
        own = [b * v for b in back for v in x] + back + [residual * r for r in read] + [residual]
        total = [t + g for t, g in zip(total, own, strict=True)]
    return total


@pytest.mark.parametrize("hidden", [3, 7, 8, 9, 16, 17], ids="{} hidden layers".format)
def test_a_deep_stack_gives_a_patient_the_same_part_alone_and_among_others(hidden: int) -> None:
    """NumPy adds up eight numbers that lie in a row in another order than eight rows of numbers."""
    task = learning(BINARY, Model("mlp", (6,) * hidden, "random"), inputs=4)
    model, chance = FlatModel(task), np.random.default_rng(hidden)
    # A start that keeps the signal alive through all layers, so that each layer's share of a norm counts.
    model.load({name: array + np.float32(0.4) for name, array in task.initial(0).items()})
    model.layers.load(model.flat.data.numpy())
    stack = Stack(model.layers, task.residual, 1.0)
    x, y = chance.uniform(-1, 1, (200, 4)).astype(np.float32), chance.integers(0, 2, 200).astype(np.float32)
    steps = np.zeros(model.layers.size)
    for row in range(len(x)):
        stack.add_rows(x[row : row + 1], y[row : row + 1])
        alone = stack.take() * 2.0**47  # whole numbers, exact together
        steps += alone
    stack.add_rows(x, y)
    assert (stack.take() * 2.0**47 == steps).all()
