"""Who trains with Opacus today brings that model unchanged: as a kit, where a hospital runs kits together."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.errors import PrivacyError
from configs.kit import About, KitFiles
from configs.schema import Study
from strategies.kits.shelf import SHELF
from strategies.learning import Learning, learning_of
from strategies.models.flat_model import FlatModel
from strategies.models.of_a_kit import KitArchitecture
from strategies.privacy.engines.select import load_engine, private_engine
from strategies.privacy.plan import PrivacyPlan
from tests.builders import study

SOURCE = '''
import torch
from opacus.grad_sample import register_grad_sampler
from opacus.layers import DPMultiheadAttention
from torch import nn
from strategies.kit import Model


class Scale(nn.Module):
    """A layer of one's own, with its own rule for Opacus."""

    def __init__(self, inputs):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(inputs))

    def forward(self, x):
        return x * self.weight


@register_grad_sampler(Scale)
def scale_gradient(layer, activations, backprops):
    return {layer.weight: activations[0] * backprops}


class Attending(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.attention, self.last = DPMultiheadAttention(inputs, 1, batch_first=True), nn.Linear(inputs, 1)

    def forward(self, x):
        rows = torch.stack([x, 2 * x], 1)
        return self.last(self.attention(rows, rows, rows)[0].mean(1))


def loss(outputs, y):
    return nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], y, reduction="none")


def score(outputs, y):
    return float(outputs.sigmoid().mean())


scaled = Model(lambda inputs: nn.Sequential(Scale(inputs), nn.Linear(inputs, 1)), loss, score)
attending = Model(Attending, loss, score)
'''
KIT = KitFiles(
    About("ours", "1.0.0", models={name: f"archipel_kit_ours:{name}" for name in ("scaled", "attending")}),
    {"archipel_kit_ours.py": SOURCE.encode()},
)
PLAN = PrivacyPlan(
    clip_norm=0.3, noise_multiplier=1.0, sampling_rate=1.0, steps_per_round=1, rounds=1, delta=1e-5, expected_patients=4
)


@pytest.fixture(autouse=True)
def _shelf() -> Iterator[None]:
    SHELF.clear()
    SHELF.finder = lambda _: KIT
    yield
    SHELF.clear()


def learning(name: str) -> Learning:
    document: dict[str, Any] = {
        "task": {"type": "own", "target": "disease"},
        "kit": {"name": "ours", "version": "1.0.0", "sha256": KIT.sha256},
        "model": {"name": f"ours/{name}", "start": {"sha256": "0" * 64}},
        "arrays": {"any": [1]},
    }
    learned: Study = study(**document)
    made = learning_of(learned)
    assert isinstance(made.architecture, KitArchitecture)
    bare = replace(made.architecture, arrays=())
    arrays = tuple((name, tuple(p.shape)) for name, p in sorted(bare.module().named_parameters()))
    return replace(made, architecture=replace(bare, arrays=arrays))


def clipped(name: str, engine: str) -> Tensor:
    model = FlatModel(learning(name))
    model.flat.data.copy_(torch.linspace(-1.0, 1.0, len(model.flat)))
    made = private_engine(model, PLAN, lambda size, _: torch.zeros(size, dtype=torch.float64), engine)
    x = torch.randn((4, 2), generator=torch.Generator().manual_seed(0))
    total = made.clipped_sum(x, torch.tensor([0.0, 1.0, 1.0, 0.0]), torch.arange(4), patients_in_batch=4)
    made.close()
    return total


@pytest.mark.parametrize("name", ["scaled", "attending"])
def test_opacus_hooks_give_the_sum_that_one_patient_after_the_other_gives(name: str) -> None:
    together, alone = clipped(name, "opacus"), clipped(name, "auto")
    assert float(alone.norm()) > 0.1
    torch.testing.assert_close(together, alone, rtol=0.0, atol=1e-5 * PLAN.clip_norm)


def test_in_children_no_study_can_ask_for_opacus() -> None:
    with pytest.raises(PrivacyError, match="needs kit_run: together"):
        load_engine("forked", "opacus")
    assert load_engine("forked", "alone") is load_engine("forked")
