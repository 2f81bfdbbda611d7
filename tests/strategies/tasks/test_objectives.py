"""Every registered task type: its residual against autograd, its bound, its columns, and what a registry refuses."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from configs.errors import KindError
from configs.schema import Counts, Survival, Task
from configs.schema.task import TASKS, TaskKeys
from strategies.tasks.base import Objective
from strategies.tasks.binary import Binary
from strategies.tasks.registry import OBJECTIVES, objective, register

EXAMPLES = {
    "binary": Task("binary", "y", ("no", "yes")),
    "multiclass": Task("multiclass", "y", ("a", "b", "c", "d")),
    "regression": Task("regression", "y", minimum=-5.0, maximum=15.0),
}
OF_TWO_COLUMNS = {
    "survival": Survival("survival", "t", ("1",), event="y", intervals=(0.0, 90.0, 365.0), horizon=365.0),
    "counts": Counts("counts", "y", (), 0.0, 20.0, exposure="t", least_exposure=1.0, most_exposure=365.0),
}
ALL = EXAMPLES | OF_TWO_COLUMNS
each_kind = pytest.mark.parametrize("outcome", [objective(task) for task in ALL.values()], ids=ALL)
of_one_column = pytest.mark.parametrize("outcome", [objective(task) for task in EXAMPLES.values()], ids=EXAMPLES)


def rows_of(outcome: Objective, count: int, seed: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(seed)
    outputs = scale * torch.randn(count, outcome.outputs, generator=chance, dtype=torch.float64)
    y = torch.from_numpy(outcome.made_up(count)) if outcome.name != "regression" else torch.rand(count) * 2 - 1
    return outputs, y


def test_every_type_has_an_example_here() -> None:
    elsewhere = {"own", "own_mask", "segmentation"}  # a kit's loss: test_kit_of_pictures.py; test_segmentation.py
    assert set(ALL) | elsewhere == set(OBJECTIVES.names)


@each_kind
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_a_residual_is_the_losses_gradient(outcome: Objective, scale: float) -> None:
    outputs, y = rows_of(outcome, 40, 1, scale)
    (gradient,) = torch.autograd.grad(outcome.loss(outputs.requires_grad_(), y.double()).sum(), outputs)
    found = outcome.residual(outputs.detach().numpy(), y.numpy())
    np.testing.assert_allclose(found, gradient.numpy(), atol=1e-8, rtol=1e-6)


@each_kind
def test_a_residual_of_models_together_is_that_of_each(outcome: Objective) -> None:
    parts = [rows_of(outcome, 9, seed, 3.0) for seed in range(4)]
    outputs, y = (np.stack([part[i].numpy() for part in parts]) for i in range(2))
    together = outcome.residual(outputs.copy(), y)
    for i in range(4):
        assert together[i].tobytes() == outcome.residual(outputs[i].copy(), y[i]).tobytes()


@each_kind
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e3])
def test_no_residual_is_longer_than_its_bound_and_some_come_near(outcome: Objective, scale: float) -> None:
    outputs, y = rows_of(outcome, 300, 2, scale)
    lengths = np.linalg.norm(outcome.residual(outputs.numpy().copy(), y.numpy()), axis=1)
    base, growth = outcome.residual_bound
    bounds = base + growth * np.linalg.norm(outputs.numpy(), axis=1)
    assert (lengths <= bounds * (1 + 1e-12)).all()
    assert scale == 0.0 or (lengths / bounds).max() > 0.7


@of_one_column
def test_an_outcome_is_read_from_its_columns(outcome: Objective) -> None:
    (column,) = outcome.columns
    values = np.array([0.0, 1.0, 1.0]) if column.values else np.array([-5.0, 5.0, 40.0])
    y, clipped = outcome.encode({column.name: values})
    assert y.tolist() == ([0.0, 1.0, 1.0] if column.values else [-1.0, 0.0, 1.0])
    assert clipped == ({} if column.values else {"y": 1})
    assert outcome.in_unit(y).tolist() == ([0.0, 1.0, 1.0] if column.values else [-5.0, 5.0, 15.0])
    assert y.min() >= outcome.lowest


def test_a_guess_is_what_the_middle_of_the_range_is_off_by() -> None:
    assert objective(EXAMPLES["regression"]).guess(np.array([5.0, 15.0, 1.0])) == pytest.approx((0 + 10 + 4) / 3)
    assert objective(EXAMPLES["binary"]).guess(np.array([0.0, 1.0])) is None


def test_no_type_is_registered_twice_or_without_a_part_and_an_unknown_one_is_told_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for registry in (OBJECTIVES, TASKS):
        monkeypatch.setattr(registry, "_kinds", dict(registry._kinds))

    class Again(Binary):
        pass

    class Silent:
        name, metrics = "silent", ()

    with pytest.raises(KindError, match=r"Again.*found .*strategies\.tasks\.binary\.Binary"):
        register(Again, TASKS["binary"])
    silent: Any = Silent
    with pytest.raises(KindError, match=r"Silent.*found no prediction"):
        register(silent, TaskKeys("silent", TASKS["binary"].section))
    with pytest.raises(KindError, match=r"expected one of binary, multiclass, regression, .*, found 'ranks'"):
        objective(Task("ranks", "y"))
    assert "silent" not in TASKS


def test_a_type_that_lacks_a_method_is_refused_when_it_is_registered() -> None:
    class Half(Objective):
        name, metrics, prediction = "half", Binary.metrics, "half of"

    with pytest.raises(KindError, match="found no residual_bound and no encode and no loss"):
        OBJECTIVES.register(Half)  # type: ignore[type-abstract]


def test_plans_reports_and_reviews_know_every_type_without_pytorch() -> None:
    code = "import sys, strategies.tasks.registry, server.result.wording; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
