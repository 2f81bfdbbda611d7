"""The engine `forked` and real children: equal bits for honest models, and no patient moves another one's part."""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.children.limits import can_confine
from client.children.slots import Slots
from client.children.zygote import Work, Zygote
from configs.kit import About, KitFiles
from configs.schema.kit import KitKeys, KitModel
from configs.wire import ArraySpec
from strategies.kits.packed import unpacked
from strategies.kits.shelf import SHELF
from strategies.models.flat_model import FlatModel
from strategies.models.of_a_kit import KitArchitecture
from strategies.privacy.engines.alone import Alone
from strategies.privacy.engines.forked import Forked, PatientWork
from strategies.privacy.engines.one_by_one import OneByOne, Take
from strategies.privacy.plan import PrivacyPlan
from tests.faulty_models import FAULTY, INPUTS, SOUND, SOURCE, models

pytestmark = pytest.mark.skipif(not can_confine(), reason="needs seccomp")
MODELS: dict[str, Any] = models()
PATIENTS = 5
torch.set_num_threads(1)  # as whoever trains does


KIT = KitFiles(
    About("faulty", "1.0.0", models={name: f"archipel_kit_faulty:{name}" for name in (*FAULTY, *SOUND)}),
    {"archipel_kit_faulty.py": SOURCE.encode()},
)
KEYS = KitKeys("faulty", "1.0.0", KIT.sha256)


@dataclass(frozen=True)
class Task:
    """What FlatModel trains: a model of the kit, by its name."""

    name: str
    linear_layers: None = None

    @property
    def engine(self) -> str:
        return self.architecture.engine

    @property
    def architecture(self) -> KitArchitecture:
        arrays = sorted((name, tuple(p.shape)) for name, p in MODELS[self.name].build().named_parameters())
        return KitArchitecture(KitModel(f"faulty/{self.name}"), INPUTS, 1, None, KEYS, tuple(arrays))

    @property
    def parameters(self) -> Mapping[str, ArraySpec]:
        return self.architecture.parameters

    def build(self) -> nn.Module:
        return self.architecture.build()

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self.architecture.model.loss(outputs, y)

    def residual(self, outputs: NDArray[np.float64], y: NDArray[np.float32]) -> NDArray[np.float64]:
        raise NotImplementedError


def prepare(described: bytes) -> Work:
    SHELF.run = "forked"
    task = Task(described.decode())
    return PatientWork(task, opening=task.architecture.open)


@pytest.fixture(scope="module", autouse=True)
def _kit() -> Iterator[None]:
    SHELF.clear()
    SHELF.finder = lambda _: KIT
    yield
    SHELF.clear()


@pytest.fixture(scope="module")
def zygote(_kit: None) -> Iterator[Zygote]:
    with Zygote(prepare) as zygote:
        yield zygote


def plan() -> PrivacyPlan:
    numbers = {"clip_norm": 0.5, "noise_multiplier": 1.0, "sampling_rate": 1.0, "delta": 1e-5}
    return PrivacyPlan(**numbers, steps_per_round=1, rounds=1, expected_patients=PATIENTS)  # type: ignore[arg-type]


def patients(*, extreme: bool = False) -> list[Take]:
    """Return patients of two rows each; the last one's may be rare."""
    chance = torch.Generator().manual_seed(3)
    x = torch.randn((PATIENTS, 2, INPUTS), generator=chance)
    if extreme:
        x[-1] *= 1000.0
    y = torch.tensor([[0.0, 1.0]] * PATIENTS)
    return [lambda i=i: (x[i], y[i]) for i in range(PATIENTS)]  # type: ignore[misc]


def no_noise(size: int, deviation: float) -> Tensor:
    del deviation
    return torch.zeros(size, dtype=torch.float64)


def whole(engine: OneByOne, takes: list[Take]) -> NDArray[np.int64]:
    engine.begin(torch.zeros((0, INPUTS)), torch.zeros(0))
    return engine.whole_sum(takes).copy()


def model(name: str) -> FlatModel:
    model = FlatModel(Task(name))
    model.flat.data[:] = torch.linspace(-1.0, 1.0, len(model.flat))
    return model


def forked(zygote: Zygote, name: str) -> Forked:
    zygote.prepare(name.encode())
    return Forked(model(name), plan(), no_noise, children=Slots(zygote, 20.0, paced=False))


class Hostile(PatientWork):
    """A child that answers as the first number of its patient says."""

    def answer(self, patient: bytes) -> bytes:
        honest = super().answer(patient)
        deed = int(unpacked(patient)[0][0, 0])
        if deed == 1:
            return np.full(len(honest) // 4, np.nan, np.float32).tobytes()
        if deed == 2:
            return np.array([np.inf] + [0.0] * (len(honest) // 4 - 1), np.float32).tobytes()
        if deed == 3:
            return honest[:-4]
        if deed == 4:
            return honest + honest
        if deed == 5:
            os.kill(os.getppid(), 9)
        if deed == 6:
            bytearray(3_000_000_000)
        if deed == 7:
            [os.fork() for _ in range(1000)]
        if deed == 8:
            Path("/var/tmp/ledger.sqlite").write_bytes(b"spent")
        if deed == 9:
            time.sleep(100.0)
        if deed == 10:
            return np.full(len(honest) // 4, 1e30, np.float32).tobytes()
        return honest


def test_what_a_child_does_to_its_answer_is_a_zero_of_that_patient_alone() -> None:
    takes = patients()[:2]
    with Zygote(lambda described: Hostile(Task(described.decode()))) as zygote:
        zygote.prepare(b"layer_norm")
        engine = Forked(model("layer_norm"), plan(), no_noise, children=Slots(zygote, 20.0, paced=False))
        impatient = Forked(model("layer_norm"), plan(), no_noise, children=Slots(zygote, 0.5, paced=False))
        honest = whole(engine, takes)
        assert honest.any()
        for deed in range(1, 9):
            assert np.array_equal(whole(engine, [takes[0], hostile(deed), takes[1]]), honest), deed
        assert not whole(impatient, [hostile(9)]).any()
        everything = whole(engine, [*takes, hostile(10)]) - honest
    assert 0.49 < np.sqrt((everything.astype(float) ** 2).sum()) * engine.step <= 0.5


def hostile(deed: int) -> Take:
    return lambda: (torch.full((1, INPUTS), float(deed)), torch.zeros(1))


@pytest.mark.parametrize("name", SOUND)
def test_an_honest_model_has_the_same_bits_as_alone(zygote: Zygote, name: str) -> None:
    alone = Alone(model(name), plan(), no_noise)
    sums = whole(forked(zygote, name), patients()), whole(alone, patients())
    assert sums[0].any()
    assert np.array_equal(*sums)


@pytest.mark.parametrize("name", FAULTY)
def test_a_patient_adds_exactly_the_same_whoever_else_is_there(zygote: Zygote, name: str) -> None:
    """So whatever noise is added has the same distribution around sums that differ by one clipped gradient alone."""
    engine, everybody = forked(zygote, name), patients(extreme=True)
    last = whole(engine, everybody[-1:])
    together = whole(engine, everybody)
    assert together.any()
    assert np.array_equal(together - whole(engine, everybody[:-1]), last)
    assert np.sqrt((last.astype(float) ** 2).sum()) * engine.step <= 0.5
