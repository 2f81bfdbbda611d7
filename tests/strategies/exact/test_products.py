"""Every product of training and prediction is exact: any order, blocking and kernel gives the same bits."""

import math
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import Model, Task
from strategies.exact import layers as exact_layers
from strategies.exact import weights as exact_weights
from strategies.exact.layers import PORTION, Layers, MeanGradient
from strategies.exact.sums import ExactSum
from strategies.learning import Learning, learning
from strategies.models.flat_model import FlatModel
from strategies.privacy.engines import stack as stacks
from strategies.privacy.engines.closed_form import ClosedForm
from strategies.privacy.plan import PrivacyPlan

LIMIT = 2**53
TASKS = {
    "binary": Task("binary", "y"),
    "multiclass": Task("multiclass", "y", ("a", "b", "c")),
    "regression": Task("regression", "y", minimum=0.0, maximum=1.0),
}
magnitudes = st.sampled_from([1e-45, 1e-38, 1e-20, 1e-3, 0.3, 1.0, 40.0, 1e7, 1e19, 3e38])
widths = st.one_of(st.integers(1, 9), st.sampled_from([64, 130, 520]))


def weights_of(task: Learning, sizes: list[float], seed: int) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(seed)
    made = {}
    for i, (name, (shape, _)) in enumerate(task.parameters.items()):
        values = chance.uniform(-1, 1, shape) * sizes[i % len(sizes)]
        made[name] = values.astype(np.float32)
    return made


class Numpy:
    """NumPy, whose products are held against whole numbers and other orders."""

    def __init__(self, seed: int) -> None:
        self.chance, self.seen = np.random.default_rng(seed), 0

    def __getattr__(self, name: str) -> object:
        return getattr(np, name)

    def matmul(self, a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        found = np.matmul(a, b, out=out) if out is not None else np.matmul(a, b)
        for one, other, product in zip(*(stacked(m) for m in (a, b, found)), strict=True):
            self.check(one, other, product)
        self.seen += 1
        return found

    def check(self, a: np.ndarray, b: np.ndarray, product: np.ndarray) -> None:
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            return
        assert (a == np.rint(a)).all()
        assert (b == np.rint(b)).all()
        rows, columns = (self.chance.integers(0, size, 3) for size in product.shape)
        some, others = a[rows].astype(object), b[:, columns].astype(object)
        whole = np.vectorize(int, otypes=[object])
        exact = whole(some) @ whole(others)
        assert (whole(product[rows][:, columns]) == exact).all()
        assert (
            whole(abs(some)) @ whole(abs(others))
        ).max() <= LIMIT  # so every partial sum is a whole number of 53 bits
        order = self.chance.permutation(a.shape[1])
        cut = int(self.chance.integers(0, a.shape[1] + 1))
        again = a[:, order[:cut]] @ b[order[:cut]] + a[:, order[cut:]] @ b[order[cut:]]
        assert (again == product).all()


def stacked(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *values.shape[-2:])


@contextmanager
def checked(seed: int) -> Iterator[Numpy]:
    spy = Numpy(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact_layers, "np", spy)
        patch.setattr(exact_weights, "np", spy)
        patch.setattr(stacks, "np", spy)
        yield spy


@st.composite
def models(draw: st.DrawFn) -> tuple[Learning, dict[str, np.ndarray]]:
    hidden = tuple(draw(st.lists(widths, max_size=3)))
    kind = draw(st.sampled_from(sorted(TASKS)))
    name = "mlp" if hidden else "linear" if kind == "regression" else "logistic"
    task = learning(TASKS[kind], Model(name, hidden), draw(widths))
    return task, weights_of(task, draw(st.lists(magnitudes, min_size=1, max_size=4)), draw(st.integers(0, 99)))


def rows_of(task: Learning, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    x = chance.uniform(-1, 1, (count, task.architecture.inputs)).astype(np.float32)
    x[chance.random(x.shape) < 0.2] = 1.0
    return x, chance.integers(0, max(2, task.architecture.outputs), count).astype(np.float32)


def plan_of(clip: float) -> PrivacyPlan:
    return PrivacyPlan(clip, 1.0, sampling_rate=1.0, steps_per_round=1, rounds=1, delta=1e-5, expected_patients=32.0)


@settings(max_examples=60, deadline=None)
@given(models(), st.sampled_from([1, 5, 64, 65, 200]), st.integers(0, 99), st.booleans())
def test_every_product_is_exact_in_any_order(
    model: tuple[Learning, dict[str, np.ndarray]], count: int, seed: int, is_large: bool
) -> None:
    task, weights = model
    x, y = rows_of(task, count, seed)
    with pytest.MonkeyPatch.context() as patched, checked(seed) as spy, np.errstate(all="ignore"):
        if is_large:
            large(patched, 1000)
        flat = FlatModel(task)
        flat.load(weights)
        engine = ClosedForm(flat, plan_of(1.0), lambda size, _: torch.zeros(size, dtype=torch.float64))
        owners = {"one row each": np.arange(count), "several rows": np.arange(count) // 3}
        task.predict(weights, x)
        flat.mean_gradient(torch.from_numpy(x), torch.from_numpy(y))
        for owner in owners.values():
            rows = (torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(owner))
            engine._sums(*rows, int(owner[-1]) + 1)
    assert spy.seen >= 4 * len(flat.layers.shapes)


@settings(max_examples=40, deadline=None)
@given(models(), st.integers(2, 90), st.integers(0, 99))
def test_a_row_is_worked_out_alike_alone_and_among_others(
    model: tuple[Learning, dict[str, np.ndarray]], count: int, seed: int
) -> None:
    task, weights = model
    x, _ = rows_of(task, count, seed)
    with np.errstate(all="ignore"):
        together = task.predict(weights, x)
        order = np.random.default_rng(seed).permutation(count)
        assert task.predict(weights, x[order]).tobytes() == together[order].tobytes()
        assert task.predict(weights, x[-1:]).tobytes() == together[-1:].tobytes()


@settings(max_examples=40, deadline=None)
@given(models(), st.integers(1, 5), st.integers(1, 80), st.integers(0, 99))
def test_several_models_at_once_have_the_bits_of_each_alone(
    model: tuple[Learning, dict[str, np.ndarray]], models_at_once: int, count: int, seed: int
) -> None:
    task, _ = model
    chance = np.random.default_rng(seed)
    sizes = [float(10.0 ** chance.uniform(-6, 3)) for _ in range(models_at_once)]
    shapes = FlatModel(task).layers.shapes
    flats = np.stack(
        [
            np.concatenate([a.reshape(-1) for a in weights_of(task, [size], seed + i).values()])
            for i, size in enumerate(sizes)
        ]
    )
    rows = [rows_of(task, count, seed + i) for i in range(models_at_once)]
    x, y = np.stack([r[0] for r in rows]), np.stack([r[1] for r in rows])

    def gradients(lead: tuple[int, ...], flat: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        layers = Layers(shapes, lead)
        layers.load(flat)
        return MeanGradient(layers).of(x, lambda some: lambda out: task.residual(out, y[..., some]), count).copy()

    with np.errstate(all="ignore"):
        together = gradients((models_at_once,), flats, x, y)
        for i in range(models_at_once):
            assert (gradients((), flats[i], x[i], y[i]) + 0.0).tobytes() == (together[i] + 0.0).tobytes()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-LIMIT, LIMIT), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_a_sum_of_many_parts_loses_nothing(numbers: list[int], chance: object) -> None:
    shuffled = list(numbers)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    found = []
    for order, at_once in ((numbers, 1), (shuffled, 1), (shuffled, 3)):
        total = ExactSum((1,))
        for start in range(0, len(order), at_once):
            parts = np.array([[float(n)] for n in order[start : start + at_once]])
            if at_once == 1:
                total.room()[:] = parts[0]
                total.add()
            else:
                total.add_all(parts)
        found.append(float(total.value()[0]))
    assert found == [float(sum(numbers))] * 3


def test_gradients_hardly_differ_from_float64s() -> None:
    """What the rounding of factors costs: some 1e-7 of the norm, as float32 does."""
    task = learning(TASKS["binary"], Model("mlp", (64, 32), "random"), 13)
    model, x, y = FlatModel(task), *rows_of(task, 64, 0)
    model.load(task.initial(0))
    module = task.build().double()
    module.load_state_dict({name: torch.from_numpy(a).double() for name, a in task.initial(0).items()})
    loss: Callable[..., torch.Tensor] = task.loss
    loss(module(torch.from_numpy(x).double()), torch.from_numpy(y).double()).mean().backward()  # type: ignore[no-untyped-call]
    expected = torch.cat([p.grad.flatten() for p in module.parameters()])  # type: ignore[union-attr]
    found = model.mean_gradient(torch.from_numpy(x), torch.from_numpy(y)).double()
    assert float((found - expected).norm() / expected.norm()) < 1e-6


# Large models


def large(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    """Every model is a large one, whose weights are made in pieces of so many numbers."""
    monkeypatch.setattr(exact_layers, "IN_PIECES", 0)
    monkeypatch.setattr(exact_weights, "_PIECE", piece)


@pytest.mark.parametrize("piece", [1, 7, 40, 10**6])
@pytest.mark.parametrize("scale", [1.0, 1e-45, 3e38, math.nan], ids=str)
@pytest.mark.parametrize("hidden", [(), (6,), (9, 5)], ids=str)
@pytest.mark.parametrize("rows", [1, 40, PORTION, PORTION + 3])
def test_a_large_model_has_the_bits_of_one_that_is_held(
    hidden: tuple[int, ...], rows: int, scale: float, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradient, clipped sum and predictions, of a task with one output and of one with three."""
    chance = np.random.default_rng(rows)
    for made in (Task("binary", "y"), Task("multiclass", "y", ("a", "b", "c"))):
        task = learning(made, Model("mlp" if hidden else "logistic", hidden, "random"), inputs=4)
        with np.errstate(all="ignore"):
            start = {
                name: (chance.uniform(-1, 1, shape) * scale).astype(np.float32)
                for name, (shape, _) in task.parameters.items()
            }
        x = chance.uniform(-1, 1, (rows, 4)).astype(np.float32)
        y = chance.integers(0, task.architecture.outputs + (task.architecture.outputs == 1), rows).astype(np.float32)
        found = []
        for is_large in (False, True):
            with monkeypatch.context() as patched:
                if is_large:
                    large(patched, piece)
                model = FlatModel(task)
                model.load(start)
                assert model.layers.in_pieces == is_large
                bits = [model.mean_gradient(torch.from_numpy(x), torch.from_numpy(y)).numpy().tobytes()]
                model.layers.load(model.flat.detach().numpy())
                stack = stacks.Stack(model.layers, task.residual, 1.0)
                stack.add_rows(x, y)
                bits += [stack.take().tobytes(), task.predict(start, x).tobytes()]
                found.append(bits)
        assert found[0] == found[1]


def test_a_plain_step_of_a_large_model_holds_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside its parameters and their gradient, in float32: a few pieces."""
    monkeypatch.setattr(exact_layers, "IN_PIECES", 0)
    task = learning(Task("binary", "y"), Model("mlp", (2000, 1000), "random"), inputs=50)
    model = FlatModel(task)
    model.load(task.initial(0))
    x, y = torch.rand(16, 50), torch.zeros(16)
    tracemalloc.start(1)
    try:
        model.mean_gradient(x, y)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    bytes_of_the_model = 4 * sum(math.prod(shape) for shape, _ in task.parameters.values())
    assert peak < 1.1 * bytes_of_the_model  # 8.4 MB: two pieces of 2 MB, and rows
