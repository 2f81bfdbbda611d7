"""What it costs to run a kit in a child for each patient: engine `forked` beside engine `alone`, on one processor.

    python -m simulations.benchmarks.kits [--patients 20] [--models NAME ...]    one JSON line a row

The same kit, opened from memory by each child, and made-up patients of one record each. All milliseconds are of one
patient, medians: `alone_ms` and `forked_ms` of processor time in all processes that take part (but for a dead child's
memory, which the kernel takes back), whatever else the machine does; `forked_wall_ms` by the clock, without slots.
`sum_is_equal` says whether both engines' sums have the same bits.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.children.slots import Slots
from client.children.zygote import Work, Zygote
from configs.kit import About, KitFiles
from configs.schema.kit import KitKeys, KitModel
from configs.wire import ArraySpec
from strategies.kits.children import Question
from strategies.kits.probed import preload
from strategies.kits.shelf import SHELF
from strategies.models.flat_model import FlatModel
from strategies.models.of_a_kit import KitArchitecture
from strategies.privacy.engines.alone import Alone
from strategies.privacy.engines.forked import Forked, PatientWork
from strategies.privacy.engines.one_by_one import OneByOne, Take
from strategies.privacy.plan import PrivacyPlan

SOURCE = """
import torch
from torch import nn
from torch.nn import functional as F
from strategies.kit import ImageInput, Model, RowInput, SeriesInput


def block(of, into, out):
    return nn.Sequential(of(into, out, 3, padding=1), nn.GroupNorm(4, out), nn.ReLU())


class UNet(nn.Module):
    def __init__(self, of=nn.Conv2d, pool=F.max_pool2d, width=8):
        super().__init__()
        self.pool = pool
        self.down, self.deep = block(of, 1, width), block(of, width, 2 * width)
        self.up, self.out = block(of, 3 * width, width), of(width, 1, 1)

    def forward(self, x):
        skip = self.down(x)
        deep = F.interpolate(self.deep(self.pool(skip, 2)), scale_factor=2)
        return self.out(self.up(torch.cat([skip, deep], 1)))


def soft_dice(outputs, mask):
    p, m = outputs.sigmoid().flatten(1), mask.flatten(1)
    return 1 - (2 * (p * m).sum(1) + 1) / (p.sum(1) + m.sum(1) + 1)


def entropy(outputs, y):
    return F.binary_cross_entropy_with_logits(outputs[:, 0], y, reduction="none")


mlp = Model(lambda inputs: nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 1)), entropy)
conv1d = Model(lambda: nn.Sequential(
    block(nn.Conv1d, 12, 32), nn.MaxPool1d(4), block(nn.Conv1d, 32, 64), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
    nn.Linear(64, 1)), entropy, input=SeriesInput((12, 1000)))
unet_2d = Model(UNet, soft_dice, input=ImageInput((1, 128, 128)), target=ImageInput((1, 128, 128)))
unet_3d = Model(lambda: UNet(nn.Conv3d, F.max_pool3d), soft_dice, input=ImageInput((1, 48, 48, 48)),
                target=ImageInput((1, 48, 48, 48)))
"""
Arrays = tuple[tuple[str, tuple[int, ...]], ...]
SHAPES = {"mlp": (32,), "conv1d": (12, 1000), "unet_2d": (1, 128, 128), "unet_3d": (1, 48, 48, 48)}
KIT = KitFiles(
    About("bench", "1.0.0", models={name: f"archipel_kit_bench:{name}" for name in SHAPES}),
    {"archipel_kit_bench.py": SOURCE.encode()},
)
KEYS = KitKeys("bench", "1.0.0", KIT.sha256)
PLAN = PrivacyPlan(
    clip_norm=1.0, noise_multiplier=1.0, sampling_rate=1.0, steps_per_round=1, rounds=1, delta=1e-5, expected_patients=1
)


@dataclass(frozen=True)
class Subject:
    """A model of the kit as engines train it."""

    architecture: KitArchitecture
    engine: str = "alone"
    linear_layers: None = None

    @classmethod
    def of(cls, name: str, arrays: Arrays = ()) -> "Subject":
        """Return the kit's model of that name; without arrays it is opened, and its own are listed."""
        shape = SHAPES[name]
        inputs = shape[0] if len(shape) == 1 else 0
        bare = KitArchitecture(KitModel(f"bench/{name}"), inputs, 1, shape, KEYS, arrays)
        if arrays:
            return cls(bare)
        own = sorted(bare.model.module({}, inputs).named_parameters())
        return cls(replace(bare, arrays=tuple((array, tuple(p.shape)) for array, p in own)))

    @property
    def parameters(self) -> dict[str, ArraySpec]:
        """Return the arrays by name."""
        return dict(self.architecture.parameters)

    def build(self) -> nn.Module:
        """Return the module."""
        return self.architecture.build()

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the kit's loss of each row."""
        return self.architecture.model.loss(outputs, y)

    def residual(self, outputs: NDArray[np.float64], y: NDArray[np.float32]) -> NDArray[np.float64]:
        """Refuse: only linear stacks are asked."""
        raise NotImplementedError


class _Timed(PatientWork):
    """Adds its processor time to each answer."""

    def answer(self, patient: bytes) -> bytes:
        """Return a gradient and the seconds that it took in this process."""
        return super().answer(patient) + np.float64(time.process_time()).tobytes()


@dataclass
class _Apart:
    """Children whose processor time is noted, the zygote's part included."""

    zygote: Zygote
    seconds: float = 0.0

    def load(self, shared: bytes) -> None:
        """Give the parameters."""
        self.zygote.load(shared)

    def answers(
        self, questions: Sequence[Question], size: int, *, expected: float | None = None
    ) -> Iterator[tuple[int, bytes | None]]:
        """Yield gradients as they come."""
        del expected
        for number, answer in Slots(self.zygote, 60.0, paced=False).answers(questions, size + 8):
            self.seconds += 0.0 if answer is None else float(np.frombuffer(answer[-8:], np.float64)[0])
            yield number, None if answer is None else answer[:-8]

    def record(self, reader: str, path: str, content: bytes, size: int) -> bytes | None:
        """Decode nothing: patients are made up."""
        del reader, path, content, size
        return None


def _seconds_of(pid: int) -> float:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(fields[0]) / 1e9


def _prepare(described: bytes) -> Work:
    """Return what the children do; the kit is opened by them alone."""
    name, arrays = json.loads(described)
    SHELF.finder, SHELF.run = lambda _: KIT, "forked"
    preload(KIT.modules)
    subject = Subject.of(name, tuple((array, tuple(shape)) for array, shape in arrays))
    return _Timed(subject, opening=subject.architecture.open)


def _patients(name: str, count: int) -> list[Take]:
    chance = torch.Generator().manual_seed(0)
    x = torch.randn((count, 1, *SHAPES[name]), generator=chance)
    y = (x > 1).float() if name.startswith("unet") else torch.arange(count)[:, None].remainder(2).float()
    return [lambda i=i: (x[i], y[i]) for i in range(count)]  # type: ignore[misc]


def _timed(
    engine: OneByOne, takes: Sequence[Take], shape: tuple[int, ...], apart: Callable[[], float] = lambda: 0.0
) -> tuple[float, float, NDArray[np.int64]]:
    """Return the median milliseconds of one patient, of processor and clock, and the sum of all.

    Args:
        apart: processor time of other processes so far.
    """
    engine.begin(torch.zeros((0, *shape)), torch.zeros((0, *(shape if len(shape) > 2 else ()))))
    spent, walls = [], []
    for take in (takes[0], *takes):
        start, begin = time.perf_counter(), time.process_time() + apart()
        engine.whole_sum([take])
        spent.append(time.process_time() + apart() - begin)
        walls.append(time.perf_counter() - start)
    times = (1000 * statistics.median(each[1:]) for each in (spent, walls))
    return (*times, engine.whole_sum(takes).copy())  # type: ignore[return-value]


def _model(subject: Subject) -> FlatModel:
    model = FlatModel(subject)
    model.flat.data.copy_(0.1 * torch.randn(len(model.flat), generator=torch.Generator().manual_seed(1)))
    return model


def rows(names: Sequence[str], patients: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each model."""
    torch.set_num_threads(1)
    SHELF.clear()
    SHELF.finder = lambda _: KIT
    with Zygote(_prepare) as zygote:
        children = _Apart(zygote)
        for name in names:
            takes, shape, subject = _patients(name, patients), SHAPES[name], Subject.of(name)
            zygote.prepare(json.dumps([name, subject.architecture.arrays]).encode())
            engine = Forked(_model(subject), PLAN, _no_noise, children=children)
            forked, wall, in_child = _timed(engine, takes, shape, lambda: children.seconds + _seconds_of(zygote.pid))
            alone, _, here = _timed(Alone(_model(subject), PLAN, _no_noise), takes, shape)
            yield {
                "model": name,
                "parameters": len(here),
                "alone_ms": round(alone, 1),
                "forked_ms": round(forked, 1),
                "more_ms": round(forked - alone, 1),
                "forked_wall_ms": round(wall, 1),
                "sum_is_equal": bool(here.any() and np.array_equal(in_child, here)),
            }
    SHELF.clear()


def _no_noise(size: int, deviation: float) -> Tensor:
    del deviation
    return torch.zeros(size, dtype=torch.float64)


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=20)
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=list(SHAPES))
    arguments = parser.parse_args()
    for row in rows(arguments.models, arguments.patients):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
