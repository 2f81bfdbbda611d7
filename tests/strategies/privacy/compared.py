"""Our clipped sums beside Opacus's on the processor, and what both are worked out on: networks, rows, patients."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from configs.errors import ConfigError
from configs.load import study_from
from configs.schema import MODELS, Model, Task
from simulations.benchmarks.models import Network, Residual, Transformer
from strategies.learning import Learning, learning
from strategies.models.flat_model import FlatModel
from strategies.privacy.engines.base import NoisySum
from strategies.privacy.engines.book_keeping import BookKeeping
from strategies.privacy.engines.opacus import OpacusEngine
from strategies.privacy.engines.select import private_engine
from strategies.privacy.plan import PrivacyPlan
from tests import builders
from tests.builders import random_arrays

CLOSE = 1e-5  # of the clip norm or of the sum's norm, whichever is larger


def plan_of(clip: float, expected_patients: float = 32.0) -> PrivacyPlan:
    return PrivacyPlan(
        clip, 1.0, sampling_rate=1.0, steps_per_round=1, rounds=1, delta=1e-5, expected_patients=expected_patients
    )


def sums_of(
    make: Callable[[], nn.Module],
    x: Tensor,
    patients: Sequence[int],
    clip: float,
    engine: type[NoisySum] = BookKeeping,
    rows_at_once: int | None = None,
    device: str = "cpu",
    y: Tensor | None = None,
) -> Tensor:
    """Worked out where `device` says, returned on the processor."""
    model = Network(make).flat_model(device)
    made = engine(model, plan_of(clip), lambda size, _: torch.zeros(size), rows_at_once=rows_at_once)
    y = torch.arange(len(x)) % 2 if y is None else y
    try:
        owners, count = torch.tensor(patients, dtype=torch.long), max(patients, default=-1) + 1
        return made.clipped_sum(x.to(device), y.to(device), owners, patients_in_batch=count).cpu()
    finally:
        made.close()


def assert_equals_opacus(
    make: Callable[[], nn.Module], x: Tensor, patients: Sequence[int], clip: float, device: str = "cpu"
) -> None:
    found, expected = sums_of(make, x, patients, clip, device=device), sums_of(make, x, patients, clip, OpacusEngine)
    assert float((found - expected).norm()) <= CLOSE * max(clip, float(expected.norm()))
    assert float(expected.norm()) > 0


def images(rows: int, channels: int = 2, size: int = 8) -> Tensor:
    return torch.randn(rows, channels, size, size, generator=torch.Generator().manual_seed(rows))


def tokens(rows: int, length: int = 6, words: int = 7) -> Tensor:
    return torch.randint(0, words, (rows, length), generator=torch.Generator().manual_seed(rows))


@st.composite
def convnets(draw: st.DrawFn) -> Callable[[], nn.Module]:
    width, kernel = draw(st.sampled_from([2, 4])), draw(st.integers(1, 3))
    stride, padding, dilation = draw(st.integers(1, 2)), draw(st.integers(0, 1)), draw(st.integers(1, 2))
    bias, in_place, residual = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())

    def make() -> nn.Module:
        first = nn.Conv2d(2, width, kernel, stride, padding, dilation, bias=bias)
        more = [Residual(width, 4, 2, groups=2)] if residual else []
        norm = nn.GroupNorm(2, width)
        return nn.Sequential(
            first, norm, nn.ReLU(in_place), *more, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(3)
        )

    return made_ready(make, images(1))


def made_ready(make: Callable[[], nn.Module], x: Tensor) -> Callable[[], nn.Module]:
    """The same model after it has seen `x`, which tells its lazy layers how wide they are."""

    def ready() -> nn.Module:
        module = make()
        module(x)
        return module

    return ready


def make_plain(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """The same model without activations in place, which Opacus cannot do."""

    def plain() -> nn.Module:
        module = make()
        for layer in module.modules():
            if isinstance(layer, nn.ReLU):
                layer.inplace = False
        return module

    return plain


@st.composite
def attention(draw: st.DrawFn) -> Callable[[], nn.Module]:
    width, count = draw(st.sampled_from([4, 8])), draw(st.integers(1, 2))
    return lambda: Transformer(words=7, width=width, heads=2, layers=count)


owners = st.sampled_from([[0], [0, 1, 2, 3], [0, 0, 0], [0, 1, 1, 2, 2, 2, 2, 2], [2, 0, 1, 0, 2]])
clips = st.sampled_from([0.01, 0.3, 1000.0])  # everybody is clipped, some are, nobody is
moves = st.sampled_from([0.0, 8.0, 1e9])  # every gradient is built, the cheaper way, ghost norms alone


# Models that a study file can name


TASK_TYPES: dict[str, dict[str, Any]] = {
    "binary": {"type": "binary", "target": "y"},
    "multiclass": {"type": "multiclass", "target": "y", "classes": ["a", "b", "c"]},
    "regression": {"type": "regression", "target": "y", "range": [0, 9]},
}
OWNERS = [[], [0], [0, 1, 2, 3, 4], [0, 0, 0], [2, 0, 1, 0, 2], [0, 1, 1, 2, 2, 2, 2, 2], list(range(70))]
CLIPS = [0.01, 0.5, 1000.0]


def accepted(model: str, task: str) -> Learning | None:
    """The task that a study file with this model gets; None where the file is refused."""
    document = builders.study().to_dict() | {"model": {"name": model}, "task": TASK_TYPES[task]}
    metric = "mae" if task == "regression" else "accuracy"
    try:
        study = study_from(document | {"evaluation": {"test_fraction": 0.0, "metrics": [metric]}})
    except ConfigError:
        return None
    return learning(study.task, study.model, inputs=len(study.inputs))


REGISTERED = {
    f"{model} {task}": found
    for model, task in itertools.product(MODELS.names, TASK_TYPES)
    if (found := accepted(model, task)) is not None
}


@st.composite
def stacks(draw: st.DrawFn) -> Learning:
    hidden = draw(st.lists(st.one_of(st.integers(1, 9), st.sampled_from([64, 300])), max_size=3))
    inputs, kind = draw(st.integers(1, 20)), draw(st.sampled_from(sorted(TASK_TYPES)))
    task = Task(
        kind,
        "y",
        ("a", "b", "c") if kind == "multiclass" else (),
        *((0.0, 9.0) if kind == "regression" else (None, None)),
    )
    model = Model("mlp", tuple(hidden)) if hidden else Model("linear" if kind == "regression" else "logistic")
    return learning(task, model, inputs)


some_owners = st.lists(st.integers(0, 6), max_size=12)
scales = st.sampled_from([0.1, 1.0, 30.0])


def assert_task_equals_opacus(
    task: Learning, clip: float, owners: list[int], scale: float = 1.0, seed: int = 0, device: str = "cpu"
) -> None:
    chance = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(len(owners), task.architecture.inputs, generator=chance)
    y = torch.randint(0, max(2, len(task.objective.task.classes)), (len(owners),), generator=chance).float()

    def clipped_sum(engine: str, kind: torch.dtype) -> Tensor:
        before = torch.get_default_dtype()
        torch.set_default_dtype(kind)
        try:
            model = FlatModel(task, device)
            model.load(random_arrays(task.parameters))
            made: Any = private_engine(model, plan_of(clip), lambda size, _: torch.zeros(size), engine)
            patients, count = torch.tensor(owners, dtype=torch.long), max(owners, default=-1) + 1
            rows = x.to(device, kind), y.to(device, kind), patients
            found: Tensor = made.clipped_sum(*rows, patients_in_batch=count).cpu().double()
            made.close()
            return found
        finally:
            torch.set_default_dtype(before)

    # The reference in float64: a softmax that is all but sure has few digits left in float32. On a GPU both lose them.
    found = clipped_sum("auto", torch.float32)
    expected = clipped_sum("opacus", torch.float64 if device == "cpu" else torch.float32)
    assert float((found - expected).norm()) <= CLOSE * max(clip, float(expected.norm()))
