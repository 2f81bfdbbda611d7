"""The cost of the engine `alone`: processor time and memory of a private step on networks for images and series.

Less is better.

    python -m simulations.benchmarks.alone [--quick] [--cases resnet unet]

One JSON line a case. `plain_ms` is a patient's share of a step without privacy on the whole batch; `alone`,
`book_keeping` and `opacus` are the private steps' times over it. `memory` is how far the peak of the process rose above
what it held with the model and the batch, in MB. Volumes are worked out by `alone` and, as a batch, without privacy.

Every way of a case is a child process with one thread, of which getrusage says the processor time and the peak. The
children take turns (A B C A B C), so that what else the machine does slows all alike; a figure is the median of turns.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from configs.memory import keep_freed_blocks
from configs.schema import GRU, Conv1d, ResNet, Segmentation, Task, UNet
from strategies.learning import Learning, learning
from strategies.models.flat_model import FlatModel
from strategies.privacy.engines.select import load_engine
from strategies.privacy.plan import PrivacyPlan

WAYS = {"plain": "", "alone": "alone", "book_keeping": "book-keeping", "opacus": "opacus"}
TURNS, STEPS = 5, 2
BINARY = Task("binary", "y")


@dataclass(frozen=True)
class Case:
    """A network, the shape of a record, the records of a batch, and the ways that are measured."""

    section: Any
    shape: tuple[int, ...]
    batch: int
    maps: bool = False
    ways: tuple[str, ...] = tuple(WAYS)


CASES = {
    "resnet": Case(ResNet("resnet"), (1, 128, 128), 16),
    "unet": Case(UNet("unet"), (1, 128, 128), 8, maps=True),
    "unet_large": Case(UNet("unet", width=32), (1, 256, 256), 4, maps=True),
    "unet_volumes": Case(UNet("unet"), (1, 48, 48, 48), 4, maps=True, ways=("plain", "alone")),
    "resnet_tiny": Case(ResNet("resnet"), (1, 28, 28), 32),
    "conv1d": Case(Conv1d("conv1d"), (6, 200), 32),
    "gru": Case(GRU("gru"), (6, 100), 32, ways=("plain", "alone")),
}


def main(arguments: list[str] | None = None) -> None:
    """Print one row a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one turn, to see that it runs")
    parser.add_argument("--cases", nargs="+", default=[*CASES], choices=[*CASES])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        print(json.dumps(_measured(CASES[options.cases[0]], options.child, 1 if options.quick else STEPS)))
        return
    for name in options.cases:
        print(json.dumps({"case": name} | _row(name, quick=options.quick)), flush=True)


def _row(name: str, *, quick: bool) -> dict[str, Any]:
    case = CASES[name]
    turns = [{way: _child(name, way, quick=quick) for way in case.ways} for _ in range(1 if quick else TURNS)]
    milliseconds = {way: statistics.median(turn[way][0] for turn in turns) for way in case.ways}
    memory = {way: round(statistics.median(turn[way][1] for turn in turns)) for way in case.ways}
    ratios = {way: round(milliseconds[way] / milliseconds["plain"], 2) for way in case.ways if way != "plain"}
    return {"batch": case.batch, "plain_ms": round(milliseconds["plain"], 2), **ratios, "memory": memory}


def _child(name: str, way: str, *, quick: bool) -> tuple[float, float]:
    command = [sys.executable, "-m", __spec__.name, "--cases", name, "--child", way, *(["--quick"] if quick else [])]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    milliseconds, megabytes = json.loads(result.stdout.splitlines()[-1])
    return milliseconds, megabytes


def _measured(case: Case, way: str, steps: int) -> tuple[float, float]:
    """Return the milliseconds of a patient and the rise of the peak in MB, of this process."""
    torch.set_num_threads(1)
    keep_freed_blocks()
    step = _step(case, way)
    held = _peak()
    step()
    rise, begin = _peak() - held, _processor()
    for _ in range(steps):
        step()
    return 1e3 * (_processor() - begin) / steps / case.batch, rise


def _step(case: Case, way: str) -> Callable[[], object]:
    """Return a step on one batch: the gradient, with clip and noise where it is private, and the update."""
    task, (x, y) = _task(case), _batch(case)
    model = FlatModel(task)
    model.load(task.initial(0))
    patients, chance = torch.arange(case.batch), torch.Generator().manual_seed(0)
    if way == "plain":
        gradient: Callable[[], Tensor] = lambda: model.mean_gradient(x, y)  # noqa: E731
    else:
        plan = PrivacyPlan(1.0, 1.0, 1.0, steps_per_round=1, rounds=1, delta=1e-5, expected_patients=case.batch)
        engine = load_engine(WAYS[way])(
            model, plan, lambda size, deviation: torch.normal(0.0, deviation, (size,), generator=chance)
        )
        gradient = lambda: engine.noisy_gradient(x, y, patients, patients_in_batch=case.batch)  # noqa: E731
    return lambda: model.flat.data.add_(gradient(), alpha=-0.01)


@cache
def _task(case: Case) -> Learning:
    task = Segmentation("segmentation", "mask", size=case.shape[1:]) if case.maps else BINARY
    return learning(task, case.section, 0, case.shape)


def _batch(case: Case) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(case.batch, *case.shape, generator=chance)
    return x, (x[:, :1] > 0.5).float() if case.maps else torch.arange(case.batch).float() % 2


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()
