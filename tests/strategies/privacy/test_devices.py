"""The engines on another device than the processor: on a GPU where there is one, and everywhere on PyTorch's `meta`.

`meta` has shapes and no numbers, and refuses to mix with the processor as a GPU does: a tensor that an engine makes in
the wrong place is found without a GPU.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from configs.schema import Model, Task
from simulations.benchmarks.models import Network, Transformer, cnn
from strategies.privacy.bookkeeping import BookKeeping
from strategies.privacy.gradients import ClosedForm, private_engine
from strategies.privacy.layers import Groups, Lookup, add_up, positions
from strategies.privacy.plan import PrivacyPlan
from strategies.tasks.gradients import FlatModel
from strategies.tasks.tabular import tabular_task

PLAN = PrivacyPlan(0.5, 1.0, sampling_rate=1.0, steps_per_round=1, rounds=1, delta=1e-5, expected_patients=4.0)
ROWS = 6
TASKS = {
    "logistic": tabular_task(Task("binary", "y"), Model("logistic"), 13),
    "mlp": tabular_task(Task("binary", "y"), Model("mlp", (8, 4), "random"), 13),
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


@pytest.mark.parametrize("name", ["cnn", "transformer"])
def test_book_keeping_makes_every_tensor_where_the_rows_are(name: str) -> None:
    engine = BookKeeping(FlatModel(TASKS[name], "meta"), PLAN, zeros)
    x, y = (part.to("meta") for part in batch(name))
    groups = Groups.of(positions(ROWS), ROWS, x.device)
    terms = [term for term in add_up(engine._terms(x, y)).values() if not isinstance(term, Lookup)]  # torch.unique
    assert len(terms) > 5
    for term in terms:
        assert term.squares(groups).norms.device == x.device
        assert term.weighted_sum(groups, x.new_ones(ROWS, dtype=torch.float32)).device == x.device


@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_the_closed_form_makes_every_tensor_where_the_rows_are(name: str) -> None:
    engine = ClosedForm(FlatModel(TASKS[name], "meta"), PLAN, zeros)
    x, y = (part.to("meta") for part in batch(name))
    engine._sum_into_gradient(x, y, Groups.of(positions(ROWS), ROWS, x.device))  # raises where devices mix


def test_patients_follow_their_rows_to_the_device() -> None:
    several = torch.tensor([0, 0, 1])
    assert Groups.of(positions(3), 3, torch.device("meta")).patients.device.type == "meta"
    assert Groups.of(several, 2, torch.device("meta")).sum(torch.ones(3, 4, device="meta")).shape == (2, 4)
    assert Groups.of(several, 2).patients is several


PATIENTS: dict[str, Callable[[], tuple[Tensor, int]]] = {
    "one row each": lambda: (positions(ROWS), ROWS),
    "several rows": lambda: (torch.tensor([0, 0, 0, 1, 2, 2]), 3),
}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
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
        made = private_engine(model, PLAN, zeros, engine)  # type: ignore[arg-type]
        if rows_at_once:
            made._rows_at_once = rows_at_once  # type: ignore[attr-defined]
        x, y = (part.to(device) for part in batch(name))
        sums.append(made.clipped_sum(x, y, owners, patients_in_batch=count).cpu())
        noisy = made.noisy_gradient(x, y, owners, patients_in_batch=count)
        assert noisy.device.type == device
        made.close()
    assert float((sums[0] - sums[1]).norm()) <= 1e-5 * max(PLAN.clip_norm, float(sums[0].norm()))
