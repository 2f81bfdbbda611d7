"""The engine `alone`: against book-keeping and Opacus, its exact grid, and what a patient cannot change of another."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from client.trainer import Trainer
from configs.errors import PrivacyError
from configs.load import study_from
from configs.schema import Local, Model, Task
from simulations.benchmarks.models import Network, Residual, Transformer
from strategies.learning import learning
from strategies.privacy.engines.alone import Alone
from strategies.privacy.engines.base import NoisySum
from strategies.privacy.engines.one_by_one import Take, add_clipped, step_of_clip
from strategies.privacy.engines.opacus import OpacusEngine
from strategies.privacy.engines.select import private_engine
from strategies.privacy.randomness import Randomness
from strategies.releases.base import Fit
from tests import builders
from tests.builders import patients, random_arrays
from tests.strategies.privacy.compared import CLOSE, images, plan_of, sums_of, tokens

OWNERS = [0, 1, 1, 2, 2, 2, 3]


class Recurrent(nn.Module):
    """A recurrent layer whose last state is read: (rows, channels, length)."""

    def __init__(self, layer: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.layer, self.out = layer(2, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.out(self.layer(x.transpose(1, 2))[0][:, -1])
        return outputs


class Attending(nn.Module):
    """PyTorch's own attention, which book-keeping and Opacus cannot read."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.out(self.attention(x, x, x)[0].mean(1))
        return outputs


def transposed() -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(2, 2, 2, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(512, 3))


def volumes() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 27, 3))


def series(rows: int) -> Tensor:
    return torch.randn(rows, 2, 6, generator=torch.Generator().manual_seed(rows))


def dropping() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(128, 16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 3))


KNOWN: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor]]] = {
    "linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 8), nn.ReLU(), nn.Linear(8, 3)), images),
    "convolution and GroupNorm": (lambda: nn.Sequential(Residual(2, 4, 2, 2), nn.Flatten(), nn.Linear(64, 3)), images),
    "attention": (lambda: Transformer(words=7, width=4, heads=2, layers=1), tokens),
    "series": (lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)), series),
}
ANY: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor]]] = {
    "gru": (lambda: Recurrent(nn.GRU), series),
    "lstm": (lambda: Recurrent(nn.LSTM), series),
    "transposed convolution": (transposed, images),
    "PyTorch's own attention": (Attending, lambda rows: torch.randn(rows, 6, 4)),
    "volumes": (volumes, lambda rows: torch.randn(rows, 1, 5, 5, 5, generator=torch.Generator().manual_seed(0))),
}


def by_hand(make: Callable[[], nn.Module], x: Tensor, clip: float) -> Tensor:
    """The same sum by one call of autograd a patient, in float64."""
    network = Network(make)
    model, y, owners = network.build().double(), torch.arange(len(x)) % 2, torch.tensor(OWNERS)
    total = torch.zeros(sum(p.numel() for p in model.parameters()), dtype=torch.float64)
    for patient in range(max(OWNERS) + 1):
        rows = owners == patient
        loss = network.loss(model(x[rows].double() if x.is_floating_point() else x[rows]), y[rows]).sum()
        own = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
        total += own * min(1.0, clip / (float(own.norm()) + 1e-6))
    return total


@pytest.mark.parametrize("clip", [0.01, 0.5, 1000.0])
@pytest.mark.parametrize("name", KNOWN)
def test_it_equals_opacus_and_book_keeping(name: str, clip: float) -> None:
    make, rows = KNOWN[name]
    found, expected, kept = (
        sums_of(make, rows(len(OWNERS)), OWNERS, clip, **engine)
        for engine in ({"engine": Alone}, {"engine": OpacusEngine}, {})
    )
    close = CLOSE * max(clip, float(expected.norm()))
    assert float((found - expected).norm()) <= close
    assert float((found - kept).norm()) <= close


@pytest.mark.parametrize("clip", [0.01, 1000.0])
@pytest.mark.parametrize("name", ANY)
def test_any_layer_gives_the_clipped_sum_of_each_patients_own_gradient(name: str, clip: float) -> None:
    make, rows = ANY[name]
    x = rows(len(OWNERS))
    found, expected = sums_of(make, x, OWNERS, clip, Alone), by_hand(make, x, clip)
    assert float((found - expected).norm()) <= CLOSE * max(clip, float(expected.norm()))
    assert float(expected.norm()) > 0


# The grid


def clipped(gradient: NDArray[np.float32], clip: float) -> list[int]:
    total = np.zeros(len(gradient), np.int64)
    add_clipped(gradient, clip, total)
    return [int(number) for number in total]


@settings(max_examples=200)
@given(
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=40),
    st.floats(1e-3, 1e3),
    st.sampled_from([1, 400]),
)
def test_nobody_weighs_more_than_the_clip_in_whole_numbers(numbers: list[float], clip: float, times: int) -> None:
    """In Python's integers: neither a rounding nor the grid lets a patient above it."""
    gradient = np.tile(np.array(numbers, np.float32), times)
    assert sum(n * n for n in clipped(gradient, clip)) <= (clip / step_of_clip(clip)) ** 2


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=40), st.floats(1e-3, 1e3))
def test_the_grid_is_finer_than_single_precision_sees(numbers: list[float], clip: float) -> None:
    gradient = np.array(numbers, np.float64).astype(np.float32)
    exact = gradient.astype(np.float64) * min(1.0, clip / (float(np.linalg.norm(gradient.astype(np.float64))) + 1e-6))
    found = np.array(clipped(gradient, clip), np.float64) * step_of_clip(clip)
    assert np.abs(found - exact).max() <= step_of_clip(clip) * 1.01


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_contributes_zero(bad: float) -> None:
    assert clipped(np.array([1.0, bad, 2.0], np.float32), 1.0) == [0, 0, 0]


# Nobody changes what another adds


def engine_of(make: Callable[[], nn.Module], engine: type[NoisySum] = Alone, clip: float = 0.5) -> Alone:
    made = engine(Network(make).flat_model(), plan_of(clip), lambda size, _: torch.zeros(size, dtype=torch.float64))
    assert isinstance(made, Alone)
    return made


def whole(engine: Alone, x: Tensor, order: list[int]) -> NDArray[np.int64]:
    def take(patient: int) -> Take:
        return lambda: (x[patient : patient + 1], torch.tensor([patient % 2]))

    engine.begin(x[:0], torch.zeros(0, dtype=torch.long))
    return engine.whole_sum([take(patient) for patient in order]).copy()


class Counting(nn.Module):
    """A buffer that counts what went through, and a layer whose output depends on it."""

    counted: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(128, 3)
        self.register_buffer("counted", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.counted += len(x)
        outputs: Tensor = self.out(x.flatten(1)) * self.counted
        return outputs


@pytest.mark.parametrize("make", [dropping, Counting, transposed], ids=["dropout", "a buffer", "plain"])
def test_leaving_one_out_takes_exactly_that_patient_away_in_any_order(make: Callable[[], nn.Module]) -> None:
    x, engine = images(6), engine_of(make)
    everybody, backwards = whole(engine, x, [0, 1, 2, 3, 4, 5]), whole(engine, x, [5, 4, 3, 2, 1, 0])
    assert (everybody == backwards).all()
    assert everybody.any()
    for left_out in range(6):
        rest = [patient for patient in range(6) if patient != left_out]
        assert (everybody - whole(engine, x, rest) == whole(engine, x, [left_out])).all()


def test_dropout_is_another_at_other_parameters_and_for_another_patient() -> None:
    engine, x = engine_of(dropping), images(1)
    same_twice = whole(engine, x, [0]), whole(engine, x, [0])
    assert (same_twice[0] == same_twice[1]).all()
    gradients = engine.gradient_of(lambda: (x, torch.tensor([0]))).copy()
    engine._model.flat.data[0] += 1e-6
    engine.begin(x[:0], torch.zeros(0, dtype=torch.long))
    moved = engine.gradient_of(lambda: (x, torch.tensor([0])))
    assert ((gradients == 0) != (moved == 0)).any()  # other units were dropped


def test_chance_of_the_process_goes_on_as_if_nobody_had_trained() -> None:
    engine, x = engine_of(dropping), images(3)
    states = []
    for train in (False, True):
        random.seed(1)
        torch.manual_seed(1)
        np.random.seed(1)
        if train:
            whole(engine, x, [0, 1, 2])
        states.append((random.random(), float(torch.rand(())), float(np.random.rand())))
    assert states[0] == states[1]


class Remembering(nn.Module):
    """Adds the mean of whoever was seen before, kept in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.before = nn.Linear(128, 3), torch.zeros(1, 128)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.out(x.flatten(1) + self.before)
        self.before = x.flatten(1).mean(0, keepdim=True)
        return outputs


def test_a_model_that_remembers_a_patient_is_refused_before_the_first_one() -> None:
    engine = engine_of(Remembering)
    with pytest.raises(PrivacyError, match="keeps something of the patients"):
        engine.begin(images(3)[:0], torch.zeros(0, dtype=torch.long))


def test_what_goes_wrong_with_one_patient_contributes_zero() -> None:
    def failing(x: Tensor) -> Tensor:
        if float(x.max()) > 1e3:
            raise ValueError("a patient's value")
        return x

    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(128, 3)

        def forward(self, x: Tensor) -> Tensor:
            outputs: Tensor = self.out(failing(x).flatten(1))
            return outputs

    x, engine = images(4), engine_of(Fails)
    expected = whole(engine, x, [0, 1, 3])
    x[2] = 1e4
    assert (whole(engine, x, [0, 1, 2, 3]) == expected).all()


# In a study


def test_patients_are_read_one_at_a_time_and_the_bits_are_those_of_a_batch() -> None:
    task, people = learning(Task("binary", "y"), Model("mlp", (4,), "random"), 3), patients(7, inputs=3, rows_each=2)
    portions: list[int] = []

    class Watched(type(people)):  # type: ignore[misc]
        def take(self, rows: NDArray[np.int64] | None = None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            portions.append(-1 if rows is None else len(rows))
            return super().take(rows)  # type: ignore[no-any-return]

    watched = Watched(people.x, people.y, people.patients, people.starts)
    local, chance = Local(batch_size=None, learning_rate=0.3, engine="alone"), Randomness.seeded(0, "lille", 1)
    start, plan = random_arrays(task.parameters), plan_of(0.5)
    found = Trainer(task).fit(Fit(start, watched, local, 1, chance, plan))
    assert portions == [0] + [2] * 7

    def by_batch(model: object, plan: object, gaussian: object, name: str) -> object:
        made = private_engine(model, plan, gaussian, name)  # type: ignore[arg-type]
        return type("Other", (), {"noisy_gradient": made.noisy_gradient, "close": made.close})

    chance = Randomness.seeded(0, "lille", 1)
    expected = Trainer(task, by_batch).fit(Fit(start, people, local, 1, chance, plan))  # type: ignore[arg-type]
    assert builders.same_bits(found, expected)


def test_a_study_may_ask_for_it_and_one_that_does_not_keeps_its_digest() -> None:
    document = builders.study().to_dict()
    plain = study_from(document)
    training = document["training"] | {"local": document["training"]["local"] | {"engine": "alone"}}
    asked = study_from(document | {"training": training})
    assert asked.training.local.engine == "alone"
    assert asked.sha256 != plain.sha256
    assert "engine" not in plain.to_dict()["training"]["local"]
