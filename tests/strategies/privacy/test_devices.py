"""The engines on another device than the processor: on a GPU where there is one, and everywhere on PyTorch's `meta`.

`meta` has shapes and no numbers, and refuses to mix with the processor as a GPU does: a tensor that an engine makes in
the wrong place is found without a GPU.
"""

import itertools
from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from configs.schema import Model, Task
from simulations.benchmarks.models import Network, Transformer, cnn
from strategies.learning import Learning, learning
from strategies.models.flat_model import FlatModel, Trainable
from strategies.privacy.engines.base import NoisySum
from strategies.privacy.engines.book_keeping import BookKeeping
from strategies.privacy.engines.groups import Groups, positions
from strategies.privacy.engines.in_portions import AllDigits, InPortions
from strategies.privacy.engines.layer_terms import add_up
from strategies.privacy.engines.select import private_engine
from strategies.privacy.engines.terms import Lookup
from strategies.privacy.plan import PrivacyPlan
from tests.strategies.privacy.compared import (
    CLIPS,
    OWNERS,
    REGISTERED,
    assert_equals_opacus,
    assert_task_equals_opacus,
    attention,
    clips,
    convnets,
    images,
    make_plain,
    owners,
    scales,
    some_owners,
    stacks,
    sums_of,
    tokens,
)

PLAN = PrivacyPlan(0.5, 1.0, sampling_rate=1.0, steps_per_round=1, rounds=1, delta=1e-5, expected_patients=4.0)
ROWS = 6
TASKS: dict[str, Trainable] = {
    "logistic": learning(Task("binary", "y"), Model("logistic"), 13),
    "mlp": learning(Task("binary", "y"), Model("mlp", (8, 4), "random"), 13),
    "cnn": Network(cnn),
    "transformer": Network(lambda: Transformer(words=7, width=8, heads=2, layers=1)),
}


def zeros(size: int, deviation: float) -> Tensor:
    return torch.zeros(size, dtype=torch.float64)


def batch(name: str) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(0)
    if name in ("logistic", "mlp"):
        return torch.randn(ROWS, 13, generator=chance), (torch.arange(ROWS) % 2).float()
    rows = torch.randn(ROWS, 1, 28, 28, generator=chance) if name == "cnn" else torch.arange(ROWS * 5).view(ROWS, 5) % 7
    return rows, torch.arange(ROWS) % 3


@pytest.mark.parametrize("name", TASKS)
def test_book_keeping_makes_every_tensor_where_the_rows_are(name: str) -> None:
    engine = private_engine(FlatModel(TASKS[name], "meta"), PLAN, zeros)
    assert isinstance(engine, BookKeeping)
    x, y = (part.to("meta") for part in batch(name))
    groups = Groups.of(positions(ROWS), ROWS, x.device)
    terms = [term for term in add_up(engine._terms(x, y)).values() if not isinstance(term, Lookup)]  # torch.unique
    assert terms
    for term in terms:
        assert term.squares(groups).norms.device == x.device
        assert term.weighted_sum(groups, x.new_ones(ROWS, dtype=torch.float32)).device == x.device


def test_patients_follow_their_rows_to_the_device() -> None:
    several = torch.tensor([0, 0, 1])
    assert Groups.of(positions(3), 3, torch.device("meta")).patients.device.type == "meta"
    assert Groups.of(several, 2, torch.device("meta")).sum(torch.ones(3, 4, device="meta")).shape == (2, 4)
    assert Groups.of(several, 2).patients is several


PATIENTS: dict[str, Callable[[], tuple[Tensor, int]]] = {
    "one row each": lambda: (positions(ROWS), ROWS),
    "several rows": lambda: (torch.tensor([0, 0, 0, 1, 2, 2]), 3),
}


def precisions() -> list[str]:
    return [what.fp32_precision for what in (torch.backends.cuda.matmul, torch.backends.cudnn.conv)]  # type: ignore[attr-defined]


def test_a_gpu_multiplies_in_all_digits_while_an_engine_works_and_then_as_before() -> None:
    before = precisions()
    assert before[1] == "tf32"  # PyTorch's own choice for convolutions
    with suppress(KeyboardInterrupt), AllDigits():
        assert precisions() == ["ieee", "ieee"]
        raise KeyboardInterrupt
    assert precisions() == before


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@needs_gpu
@pytest.mark.parametrize("engine", ["auto", "opacus"])
@pytest.mark.parametrize("patients", PATIENTS.values(), ids=PATIENTS)
@pytest.mark.parametrize("rows_at_once", [None, 2])
@pytest.mark.parametrize("name", TASKS)
def test_a_gpu_gives_the_processors_sum(
    name: str, engine: str, patients: Callable[[], tuple[Tensor, int]], rows_at_once: int | None
) -> None:
    owners, count = patients()
    sums = []
    for device in ("cpu", "cuda"):
        model = FlatModel(TASKS[name], device)
        chance = torch.Generator().manual_seed(1)
        model.flat.data.copy_(0.1 * torch.randn(len(model.flat), generator=chance))
        made = private_engine(model, PLAN, zeros, engine)
        assert isinstance(made, NoisySum)
        if rows_at_once and isinstance(made, InPortions):
            made._rows_at_once = rows_at_once
        x, y = (part.to(device) for part in batch(name))
        sums.append(made.clipped_sum(x, y, owners, patients_in_batch=count).cpu())
        noisy = made.noisy_gradient(x, y, owners, patients_in_batch=count)
        assert noisy.device.type == device
        assert not made.clipped_sum(x[:0], y[:0], torch.arange(0), patients_in_batch=0).any()
        made.close()
    assert float((sums[0] - sums[1]).norm()) <= 1e-5 * max(PLAN.clip_norm, float(sums[0].norm()))


@needs_gpu
def test_a_gpu_adds_the_noise_that_it_is_given() -> None:
    model = FlatModel(TASKS["mlp"], "cuda")
    engine = private_engine(model, PLAN, lambda size, deviation: torch.full((size,), deviation, dtype=torch.float64))
    x, y = (part.to("cuda") for part in batch("mlp"))
    noisy = engine.noisy_gradient(x[:0], y[:0], torch.arange(0), patients_in_batch=0)
    assert noisy.is_cuda
    assert noisy.tolist() == [PLAN.noise_multiplier * PLAN.clip_norm / PLAN.expected_patients] * len(noisy)
    x[0] = float("nan")  # whose part is nothing
    found, expected = (
        engine.clipped_sum(x[who], y[who], torch.arange(len(who)), patients_in_batch=len(who))
        for who in (torch.arange(ROWS), torch.arange(1, ROWS))
    )
    torch.testing.assert_close(found, expected)


@needs_gpu
@pytest.mark.parametrize("task", REGISTERED.values(), ids=REGISTERED)
def test_a_registered_model_on_a_gpu_equals_opacus_there(task: Learning) -> None:
    for clip, patients in itertools.product(CLIPS, OWNERS):
        assert_task_equals_opacus(task, clip, patients, device="cuda")


@needs_gpu
@settings(max_examples=60, deadline=None)
@given(stacks(), some_owners, st.sampled_from(CLIPS), scales, st.integers(0, 99))
def test_a_random_stack_on_a_gpu_equals_opacus_there(
    task: Learning, patients: list[int], clip: float, scale: float, seed: int
) -> None:
    assert_task_equals_opacus(task, clip, patients, scale, seed, device="cuda")


@needs_gpu
@settings(max_examples=40, deadline=None)
@given(convnets(), owners, clips)
def test_convolutions_and_group_norms_on_a_gpu_equal_opacus_on_the_processor(
    make: Callable[[], nn.Module], patients: list[int], clip: float
) -> None:
    assert_equals_opacus(make_plain(make), images(len(patients)), patients, clip, "cuda")


@needs_gpu
@pytest.mark.parametrize("rows", [6, 40])
@pytest.mark.parametrize("width", [2, 40])
def test_large_convolutions_on_a_gpu_equal_opacus_on_the_processor(width: int, rows: int) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Conv2d(2, width, 3), nn.Tanh(), nn.Conv2d(width, width, 3, padding=1), nn.Flatten())

    for patients in (list(range(rows)), [i // 2 for i in range(rows)]):
        assert_equals_opacus(make, images(rows), patients, 0.5, "cuda")


@needs_gpu
@settings(max_examples=25, deadline=None)
@given(attention(), owners, clips)
def test_embeddings_layer_norms_and_attention_on_a_gpu_equal_opacus_on_the_processor(
    make: Callable[[], nn.Module], patients: list[int], clip: float
) -> None:
    assert_equals_opacus(make, tokens(len(patients)), patients, clip, "cuda")


@needs_gpu
def test_one_patient_on_a_gpu_never_weighs_more_than_the_clip() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.Flatten())

    found = sums_of(make, 1e3 * images(12, 1, 12), [0] * 12, 0.5, device="cuda")
    assert 0.5 * (1 - 1e-4) <= float(found.norm()) <= 0.5 * (1 + 1e-6)
