"""Clipped sums of what a study file can name, and of random stacks, against Opacus's own; one backward pass for them.

Convolutions, norms, embeddings and attention, at random too, are in test_book_keeping.py.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from configs.schema import MODELS, Model, Task
from configs.schema.model import axes_of
from simulations.benchmarks.models import Network, Transformer, cnn, resnet18
from strategies.learning import Learning, learning
from strategies.models.flat_model import FlatModel
from strategies.privacy.engines.base import NoisySum
from strategies.privacy.engines.closed_form import ClosedForm
from strategies.privacy.engines.groups import Groups
from strategies.privacy.engines.select import private_engine
from tests.strategies.privacy.compared import (
    CLIPS,
    OWNERS,
    REGISTERED,
    assert_task_equals_opacus,
    plan_of,
    scales,
    some_owners,
    stacks,
)

BINARY = Task("binary", "y")


def test_every_model_of_the_registry_is_among_those_that_are_compared() -> None:
    of_rows = {name for name in MODELS.names if 0 in axes_of(name)}  # networks are in test_networks.py
    assert {name.split()[0] for name in REGISTERED} == of_rows
    assert len(REGISTERED) == 6  # logistic and mlp classify two and more; linear and mlp have a regression


@pytest.mark.parametrize("task", REGISTERED.values(), ids=REGISTERED)
@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("owners", OWNERS, ids=lambda owners: f"{len(owners)} rows of {len(set(owners))}")
def test_a_registered_model_equals_opacus(task: Learning, clip: float, owners: list[int]) -> None:
    assert_task_equals_opacus(task, clip, owners)


@settings(max_examples=60, deadline=None)
@given(stacks(), some_owners, st.sampled_from(CLIPS), scales, st.integers(0, 99))
def test_a_random_stack_equals_opacus(task: Learning, owners: list[int], clip: float, scale: float, seed: int) -> None:
    assert_task_equals_opacus(task, clip, owners, scale, seed)


# How often, and how long


NETWORKS = {
    "convolutions": (cnn, torch.ones(2, 1, 28, 28)),
    "residual blocks": (resnet18, torch.ones(2, 3, 32, 32)),
    "attention": (lambda: Transformer(words=7, width=8, heads=2, layers=1), torch.ones(2, 6, dtype=torch.long)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_any_network_takes_one_backward_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, x = NETWORKS[name]
    passes, run = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **named: (passes.append("grad"), run(*args, **named))[1])
    monkeypatch.setattr(Tensor, "backward", lambda *_: pytest.fail("a second way backward"))
    engine = private_engine(Network(make).flat_model(), plan_of(1.0), lambda size, _: torch.zeros(size))
    engine.noisy_gradient(x, torch.tensor([0, 1]), torch.tensor([0, 1]), patients_in_batch=2)
    assert passes == ["grad"]


def test_a_linear_stack_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.autograd, "grad", lambda *_, **__: pytest.fail("autograd was asked"))
    task = learning(BINARY, Model("mlp", (64, 32)), 13)
    engine = private_engine(FlatModel(task), plan_of(1.0), lambda size, _: torch.zeros(size))
    engine.noisy_gradient(torch.ones(2, 13), torch.ones(2), torch.tensor([0, 1]), patients_in_batch=2)
    assert isinstance(engine, ClosedForm)


@pytest.mark.parametrize("name", ["auto", "opacus"])
@pytest.mark.parametrize("kind", ["closed form", "any network"])
@pytest.mark.parametrize(("expected", "worked_on"), [(32.4, 32), (0.2, 1), (1e6, None)])
def test_an_empty_batch_is_the_work_of_a_usual_one_and_nothing_of_it_is_left(
    kind: str, name: str, expected: float, worked_on: int | None
) -> None:
    """Time would tell it from others if it took another path; what is worked on is made up, and the sum is zero."""
    if kind == "closed form":
        flat = FlatModel(learning(BINARY, Model("mlp", (8,), "random"), 13))
        x, y = torch.ones(0, 13), torch.ones(0)
    else:
        flat = Network(lambda: Transformer(words=7, width=8, heads=2, layers=1)).flat_model()
        x, y = torch.zeros(0, 6, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    plan = replace(plan_of(1.0), expected_patients=expected)
    engine = private_engine(flat, plan, lambda size, deviation: torch.ones(size, dtype=torch.float64), name)
    assert isinstance(engine, NoisySum)
    seen: list[int] = []
    work = engine._sums

    def watched(x: Tensor, y: Tensor, patients: Tensor, count: int) -> Any:
        sums = work(x, y, patients, count)
        if len(x):
            assert Groups.of(patients, count).one_row_each
            assert sums.any()
            seen.append(len(x))
        return sums

    engine._sums = watched  # type: ignore[method-assign]
    assert not engine.clipped_sum(x, y, torch.arange(0), patients_in_batch=0).any()
    assert seen == [worked_on or engine.rows_at_once]
