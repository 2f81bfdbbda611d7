"""Bounds of honest updates: none that a real fit makes is ever refused, what nobody can explain always is."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from client.ledger import Ledger
from client.site import Site
from configs.errors import ImplausibleError, RunError
from configs.frame import WINDOW_BYTES
from configs.schema import Local, Study
from strategies.data.table import TablePatients, standardise
from strategies.exchange.arrays import Arrays
from strategies.exchange.halves import FROM_BYTES
from strategies.models.registry import study_parameters
from strategies.privacy.modes.local import plan_for
from strategies.releases.plausible import MOST_STEPS, Plausibility, adam_steps, distance, gradient_weights
from tests.builders import patients, random_arrays
from tests.builders import study as private_study

SIZES = {"brest": 40, "lille": 90}
TASKS: dict[str, dict[str, Any]] = {
    "binary": {"type": "binary", "target": "disease"},
    "multiclass": {"type": "multiclass", "target": "stage", "classes": ["a", "b", "c"]},
    "regression": {"type": "regression", "target": "days", "range": [0, 30]},
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "momentum": {"momentum": 0.9},
    "decay": {"weight_decay": 0.3},
    "momentum and decay": {"momentum": 0.5, "weight_decay": 2.0},
    "adam": {"optimizer": "adam"},
    "adam and decay": {"optimizer": "adam", "weight_decay": 0.1},
}


def study_of(
    task: str,
    model: str,
    optimizer: str,
    *,
    private: bool,
    batch: int | str = "full",
    rate: float = 0.5,
    steps: int = 3,
    fedprox: bool = False,
    scaling: str = "public",
    clip: float = 1.0,
) -> Study:
    name = "linear" if model == "logistic" and task == "regression" else model
    local = {"batch_size": batch, "steps": steps, "learning_rate": rate, **OPTIMIZERS[optimizer]}
    strategy = {"name": "fedprox", "proximal_mu": 0.7} if fedprox else {"name": "fedavg"}
    return private_study(
        task=TASKS[task],
        cohort=SIZES,
        model={"name": name, **({"hidden": [5, 4]} if name == "mlp" else {})},
        training={"local": local, "strategy": strategy, "rounds": 2, "quorum": 1},
        privacy={"clip_norm": clip} if private else {"mode": "none"},
        scaling=scaling,
        evaluation={"test_fraction": 0.0, "metrics": ["mae"] if task == "regression" else ["accuracy"]},
    )


def people(study: Study, count: int, seed: int, *, extreme: bool) -> TablePatients:
    """Patients within the public ranges; the extreme ones lie at the edges and all pull the same way."""
    rng = np.random.default_rng(seed)
    ages = np.ones(count) if extreme else rng.uniform(-1, 1, count)
    sexes = np.ones(count) if extreme else rng.integers(0, 2, count)
    kinds = {"binary": 2, "multiclass": 3}
    if study.task.type == "regression":
        y = np.full(count, -1.0) if extreme else rng.uniform(-1, 1, count)
    else:
        y = np.zeros(count) if extreme else rng.integers(0, kinds[study.task.type], count)
    x = np.stack([ages, sexes], axis=1).astype(np.float32)
    made = replace(patients(count), x=x, y=y.astype(np.float32))
    return standardise(made, np.arange(count)) if study.scaling == "site" else made


def fitted(
    study: Study, site: str, count: int, start: Arrays, seed: int, *, extreme: bool = False, seeded: bool = False
) -> Arrays:
    """What an honest hospital sends: the real path, with a ledger and the system's noise or a seeded one."""
    made = people(study, count, seed, extreme=extreme)
    return Site(site, replace(study, seed=seed), made, Ledger.in_memory(), seeded=seeded).fit(1, start)


def start_of(study: Study, size: float, seed: int) -> Arrays:
    return {name: a * np.float32(size) for name, a in random_arrays(study_parameters(study), seed=seed).items()}


@settings(max_examples=150, deadline=None)
@given(
    task=st.sampled_from(sorted(TASKS)),
    model=st.sampled_from(["logistic", "mlp"]),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    private=st.booleans(),
    batch=st.sampled_from(["full", 1, 7, 30]),
    rate=st.sampled_from([1e-3, 0.05, 0.5, 3.0]),
    steps=st.sampled_from([1, 2, 5, 20]),
    fedprox=st.booleans(),
    site_scaling=st.booleans(),
    clip=st.sampled_from([0.01, 1.0, 50.0]),
    weights=st.sampled_from([0.0, 0.3, 3.0, 100.0]),
    more=st.sampled_from([0.5, 1.0, 1.5, 2.0]),
    extreme=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_no_honest_update_is_ever_refused(
    task: str,
    model: str,
    optimizer: str,
    private: bool,
    batch: int | str,
    rate: float,
    steps: int,
    fedprox: bool,
    site_scaling: bool,
    clip: float,
    weights: float,
    more: float,
    extreme: bool,
    seed: int,
) -> None:
    study = study_of(
        task,
        model,
        optimizer,
        private=private,
        batch=batch,
        rate=rate,
        steps=steps,
        fedprox=fedprox,
        scaling="site" if site_scaling and not private else "public",
        clip=clip,
    )
    start = start_of(study, weights, seed)
    try:
        update = fitted(study, "lille", round(more * SIZES["lille"]), start, seed, extreme=extreme)
    except RunError:  # a training that diverges sends nothing
        return
    Plausibility(study, start).require("lille", update)


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
@pytest.mark.parametrize("extreme", [True, False])
def test_many_private_updates_at_the_edge_of_what_is_announced_are_all_plausible(optimizer: str, extreme: bool) -> None:
    study = study_of("binary", "logistic", optimizer, private=True, batch=10, steps=4)
    start = start_of(study, 1.0, 3)
    plausibility = Plausibility(study, start)
    for seed in range(40):
        plausibility.require("brest", fitted(study, "brest", 80, start, seed, extreme=extreme))


POISON: dict[str, Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[Any]]] = {
    "1e30": lambda start, honest: np.full_like(start, 1e30),
    "3e38": lambda start, honest: np.full_like(start, 3e38),
    "-3e38": lambda start, honest: np.full_like(start, -3e38),
    "one large coordinate": lambda start, honest: np.where(
        np.arange(start.size).reshape(start.shape) == 0, 1e6, honest
    ),
    "minus twenty steps": lambda start, honest: start - 20 * (honest - start),
}


@pytest.mark.parametrize("how", sorted(POISON))
@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
@pytest.mark.parametrize("batch", ["full", 20])
def test_what_no_hospital_can_explain_is_refused(how: str, private: bool, optimizer: str, batch: int | str) -> None:
    study = study_of("binary", "logistic", optimizer, private=private, batch=batch, steps=3)
    start = start_of(study, 0.0, 1)
    # Of a seed: twenty times a step that its own noise happens to cancel would be no more than an honest one.
    honest = fitted(study, "lille", 90, start, 1, extreme=how == "minus twenty steps", seeded=True)
    poisoned = {name: np.asarray(POISON[how](array, honest[name]), np.float32) for name, array in start.items()}
    plausibility = Plausibility(study, start)
    plausibility.require("lille", honest)
    with pytest.raises(ImplausibleError, match=r"update refused: expected a move of at most .* explain, found"):
        plausibility.require("lille", poisoned)


@pytest.mark.parametrize("task", sorted(TASKS))
@pytest.mark.parametrize("private", [True, False])
def test_an_mlp_and_a_regression_have_a_bound_too(task: str, private: bool) -> None:
    for model in ("logistic", "mlp"):
        study = study_of(task, model, "sgd", private=private, rate=0.1, steps=1)
        start = start_of(study, 0.3, 2)
        plausibility = Plausibility(study, start)
        assert plausibility.bound("lille") < 1e3
        with pytest.raises(ImplausibleError):
            plausibility.require("lille", {name: np.full_like(array, 1e30) for name, array in start.items()})


def test_a_model_that_may_honestly_diverge_has_no_bound_and_is_accepted() -> None:
    study = study_of("regression", "mlp", "sgd", private=False, rate=3.0, steps=20)
    start = start_of(study, 3.0, 2)
    plausibility = Plausibility(study, start)
    assert math.isinf(plausibility.bound("lille"))
    plausibility.require("lille", {name: np.full_like(array, 1e30) for name, array in start.items()})
    long = study_of("regression", "mlp", "sgd", private=False, rate=1e-6, steps=MOST_STEPS + 1)
    assert math.isinf(Plausibility(long, start).bound("lille"))


@pytest.mark.parametrize("size", [7, WINDOW_BYTES // 4 + 1, FROM_BYTES // 4 - 1, FROM_BYTES // 4 + 3, FROM_BYTES])
def test_a_large_distance_is_the_one_of_piece_after_piece_to_the_bit(size: int) -> None:
    generator = np.random.default_rng(size)
    start, update = ({"w": generator.normal(size=size).astype(np.float32)} for _ in range(2))
    square = 0.0
    for begin in range(0, size, WINDOW_BYTES // 4):
        moved = np.subtract(
            update["w"][begin : begin + WINDOW_BYTES // 4], start["w"][begin : begin + WINDOW_BYTES // 4], dtype=float
        )
        square += float(np.dot(moved, moved))
    largest = float(np.abs(np.subtract(update["w"], start["w"], dtype=float)).max())
    assert distance(start, update) == (math.sqrt(square), largest)


def test_a_bound_that_was_worked_out_before_is_the_same() -> None:
    study = study_of("binary", "mlp", "sgd", private=False)
    start = start_of(study, 0.1, 1)
    before = Plausibility(study, start)
    before.work_out(["lille", "of no plan"])
    assert before.bound("lille") == Plausibility(study, start).bound("lille")


def test_the_bound_of_a_private_update_does_not_depend_on_the_model() -> None:
    study = study_of("binary", "mlp", "sgd", private=True)
    bounds = [Plausibility(study, start_of(study, size, 1)).bound("lille") for size in (0.1, 1.0)]
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-4)


def test_the_bound_is_of_the_size_of_what_is_honest() -> None:
    """Not so wide that it says nothing: the largest honest update is within a small factor."""
    study = study_of("binary", "logistic", "sgd", private=True, steps=5)
    start = start_of(study, 0.0, 1)
    moved = [distance(start, fitted(study, "lille", 90, start, seed, extreme=True))[0] for seed in range(20)]
    assert max(moved) < Plausibility(study, start).bound("lille") < 5 * max(moved)


@given(
    momentum=st.floats(0, 0.99),
    decay=st.floats(0, 3.0),
    pull=st.floats(0, 3.0),
    rate=st.floats(1e-3, 1.0),
    steps=st.integers(1, 12),
)
def test_the_weight_of_each_gradient_is_what_pytorchs_optimizer_makes_of_it(
    momentum: float, decay: float, pull: float, rate: float, steps: int
) -> None:
    import torch

    local = Local(None, rate, momentum=momentum, weight_decay=decay)
    weights = gradient_weights(local, pull, steps)
    for impulse in range(steps):
        w = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=rate, momentum=momentum, weight_decay=decay)
        for step in range(steps):
            w.grad = torch.full((1,), float(step == impulse), dtype=torch.float64) + pull * w.detach()
            optimizer.step()
        assert abs(float(w.detach())) == pytest.approx(weights[steps - 1 - impulse], rel=1e-6, abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_adam_never_moves_a_coordinate_further(gradients: list[float]) -> None:
    import torch

    w = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([w], lr=1.0)
    for gradient in gradients:
        w.grad = torch.full((1,), gradient, dtype=torch.float64)
        optimizer.step()
    assert abs(float(w.detach())) <= adam_steps(len(gradients)) * (1 + 1e-9)


def test_a_hospital_without_a_plan_can_have_no_update() -> None:
    study = study_of("binary", "logistic", "sgd", private=True)
    start = start_of(study, 0.0, 1)
    with pytest.raises(ImplausibleError, match="no privacy plan"):
        Plausibility(study, start).require("paris", start)
    assert plan_for(study, "lille").rounds == 2
