"""A kit's module in the engines: the same sums opened, unopened and under Opacus; buffers are put back."""

import pickle
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch

from configs.errors import KitError
from configs.kit import About, KitFiles
from configs.schema.kit import KitKeys, KitModel
from configs.schema.task import Task
from strategies.kits.shelf import SHELF, Shelf
from strategies.learning import Learning
from strategies.models.flat_model import FlatModel
from strategies.models.of_a_kit import KitArchitecture
from strategies.privacy.engines.alone import Alone
from strategies.privacy.engines.opacus import OpacusEngine
from strategies.privacy.plan import PrivacyPlan
from strategies.tasks.own import Own

SOURCE = b"""
import torch
from torch import nn
from torch.nn import functional as F
from strategies.kit import Model

class Net(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.second, self.first = nn.Linear(5, 1), nn.Linear(inputs, 5)  # not in the order of their names
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += len(x)
        return self.second(torch.tanh(self.first(x))) + self.seen

def loss(outputs, y):
    return F.binary_cross_entropy_with_logits(outputs[:, 0], y, reduction="none")

class Odd(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.words, self.out = nn.Embedding(10, 4, max_norm=0.5), nn.Linear(4, 1)

    def forward(self, x):
        if (x == 7).any():
            raise SystemExit
        if (x == 4).any():
            raise ValueError
        self.out.weight.data = self.out.weight.data * 0.9
        return self.out(F.dropout(self.words(x[:, 0].long()), 0.2))

class Picky(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.first, self.second = nn.Linear(inputs, 2), nn.Linear(2, 1)

    def forward(self, x):
        hidden = self.first(x)
        if (x == 7).any():
            raise ValueError
        return self.second(hidden)

picky = Model(build=Picky, loss=lambda outputs, y: loss(outputs, y))
odd = Model(build=Odd, loss=lambda outputs, y: loss(outputs, y), score=lambda outputs, y: float(outputs.sigmoid()))
net = Model(build=Net, loss=loss, score=lambda outputs, y: float(outputs.sigmoid().mean()))
plain = Model(build=lambda inputs: nn.Sequential(nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, 1)), loss=loss)
"""
KIT = KitFiles(
    About("toy", "1.0", models={name: f"archipel_kit_toy:{name}" for name in ("net", "odd", "picky", "plain")}),
    {"archipel_kit_toy.py": SOURCE},
)
KEYS = KitKeys("toy", "1.0", KIT.sha256)
PLAN = PrivacyPlan(
    clip_norm=0.3, noise_multiplier=1.0, sampling_rate=1.0, steps_per_round=1, rounds=1, delta=1e-5, expected_patients=1
)
SHAPES = {
    "net": (("first.bias", (5,)), ("first.weight", (5, 3)), ("second.bias", (1,)), ("second.weight", (1, 5))),
    "odd": (("out.bias", (1,)), ("out.weight", (1, 4)), ("words.weight", (10, 4))),
    "picky": (("first.bias", (2,)), ("first.weight", (2, 3)), ("second.bias", (1,)), ("second.weight", (1, 2))),
    "plain": (("0.bias", (5,)), ("0.weight", (5, 3)), ("2.bias", (1,)), ("2.weight", (1, 5))),
}


@pytest.fixture(autouse=True)
def _shelf() -> Iterator[None]:
    SHELF.clear()
    SHELF.finder = lambda _: KIT
    yield
    SHELF.clear()


def learning(name: str) -> Learning:
    section, inputs = KitModel(f"toy/{name}"), 1 if name == "odd" else 3
    return Learning(
        Own(Task("own", "ill", ("0", "1")), KEYS, section),
        KitArchitecture(section, inputs, 1, None, KEYS, SHAPES[name]),
    )


def sums(name: str, engine: type[Alone] | type[OpacusEngine]) -> torch.Tensor:
    model = FlatModel(learning(name))
    chance = torch.Generator().manual_seed(0)
    model.flat.data.copy_(torch.randn(model.flat.numel(), generator=chance))
    x, y = torch.randn(7, 3, generator=chance), (torch.arange(7) % 2).float()
    made = engine(model, PLAN, lambda size, _: torch.zeros(size, dtype=torch.float64))
    total = made.clipped_sum(x, y, torch.arange(7), patients_in_batch=7).clone()
    made.close()
    return total


def test_opacus_hooks_a_kits_layers_and_sums_as_one_patient_at_a_time_does() -> None:
    torch.testing.assert_close(sums("plain", OpacusEngine), sums("plain", Alone), atol=1e-6, rtol=1e-5)


def test_a_kit_that_is_opened_by_the_first_record_has_the_same_bits() -> None:
    opened = sums("net", Alone)
    SHELF.run = "forked"  # what is built then executes nothing of the kit
    SHELF._opened.clear()
    assert FlatModel(learning("net")).names == list(dict(SHAPES["net"]))
    assert not SHELF._opened
    assert sums("net", Alone).tolist() == opened.tolist()


def test_a_study_that_lists_other_arrays_is_told() -> None:
    section = KitModel("toy/net")
    with pytest.raises(KitError, match="expected the arrays that the study lists"):
        KitArchitecture(section, 3, 1, None, KEYS, SHAPES["plain"]).build()


def test_another_process_finds_the_kits_that_this_one_does() -> None:
    SHELF.finder = None
    SHELF._files[KIT.sha256] = KIT
    other = Shelf()
    other.follow(pickle.loads(pickle.dumps(SHELF)))
    assert other.files(KEYS).sha256 == KIT.sha256
    assert other.opened(KEYS).model("toy/net").score is not None


def test_no_patient_moves_what_another_one_adds_or_scores() -> None:
    """A module may rewrite its parameters for what it reads, replace them, draw, stumble or leave."""
    rows = torch.tensor([[3.0], [7.0], [2.0], [4.0], [5.0]])  # the kit leaves at 7, stumbles at 4
    y = torch.ones(len(rows))
    model = FlatModel(learning("odd"))
    model.flat.data.copy_(torch.linspace(-3.0, 3.0, model.flat.numel()))
    before, arrays = model.flat.detach().clone(), model.arrays()

    def whole(chosen: list[int]) -> np.ndarray:
        engine = Alone(model, PLAN, lambda size, _: torch.zeros(size, dtype=torch.float64))
        engine.begin(rows[:0], y[:0])
        return engine.whole_sum([partial(lambda i: (rows[i : i + 1], y[i : i + 1]), i) for i in chosen]).copy()

    each = [whole([i]) for i in range(len(rows))]
    assert whole([0, 1, 2, 3, 4]).tolist() == whole([4, 3, 2, 1, 0]).tolist() == np.sum(each, axis=0).tolist()
    assert model.flat.detach().equal(before)  # what is released next holds nothing but noised sums
    assert [bool(one.any()) for one in each] == [True, False, True, False, True]

    architecture = learning("odd").architecture
    alone = [architecture.evaluate(arrays, row[None].numpy()).item() for row in rows]
    assert architecture.evaluate(arrays, rows.numpy())[:, 0].tolist() == alone
    assert architecture.evaluate(arrays, rows.flip(0).numpy())[:, 0].tolist() == alone[::-1]
    assert (alone[1], alone[3]) == (0.0, 0.0)
    assert len({0.0, *alone}) == 4


def test_under_opacus_too_nobody_falls_with_a_patient_over_whom_a_kit_stumbles() -> None:
    model = FlatModel(learning("picky"))
    model.flat.data.copy_(torch.linspace(-1.0, 1.0, model.flat.numel()))
    engine = OpacusEngine(model, PLAN, lambda size, _: torch.zeros(size, dtype=torch.float64))
    x, y = torch.tensor([[3.0, 1.0, 1.0], [7.0, 1.0, 1.0], [2.0, 1.0, 1.0], [2.0, 0.0, 1.0]]), torch.ones(4)

    def summed(rows: list[int], owners: list[int]) -> torch.Tensor:
        return engine.clipped_sum(x[rows], y[rows], torch.tensor(owners), patients_in_batch=owners[-1] + 1).clone()

    without = summed([0, 2, 3], [0, 1, 1])
    assert without.norm() > 0.1
    torch.testing.assert_close(summed([0, 1, 2, 3], [0, 1, 2, 2]), without, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(summed([0, 2, 3], [0, 1, 1]), without)  # nothing of it stays
    assert not summed([1], [0]).any()
    engine.close()
