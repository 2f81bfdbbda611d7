"""The cost of a private step, relative to the plain PyTorch step and to Opacus's.

Less is better.

    python -m simulations.benchmarks.dp_step [--quick] [--cases mlp cnn] [--device cuda]

One JSON line a row: `ratio_plain` is our time over that of the same model's step without privacy, `ratio_opacus` our
time over that of Opacus with its default hooks (0.1: ten times faster). Cases are steps on one batch; those that end in
`_end_to_end` are whole epochs over 2,000 patients: a Poisson sampler, the steps and the accounting, against a loop
over a DataLoader, and against Opacus's PrivacyEngine with its Poisson loader and its accountant, which notes each step
and is never asked for epsilon. Ours asks for it every epoch; equal questions are answered from memory, so the first,
which is not timed, does the work.

All sides run in one process with one thread, in turn (A B C A B C), timed by the processor time of that process. A
figure is the median of the turns' ratios: the two of a ratio are taken in the same tenth of a second, so that a second
busy process, which slows a shared core or cache, slows both.

With `--device cuda` the steps are a GPU's, each turn timed by the clock until the GPU is done. The plain step and
Opacus's have PyTorch's own settings (convolutions in TF32); ours has all digits of float32, its noise the processor's.
`ratio_processor` is then our step on the GPU over our step on the processor, and the epochs are left out: a hospital's
node trains on the processor.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from client.trainer import Trainer
from configs.memory import keep_freed_blocks
from configs.schema import Local, Model, Task
from simulations.benchmarks.models import CLASSES, Network, Transformer, cnn, resnet18
from strategies.data.table import TablePatients
from strategies.learning import Learning, learning
from strategies.models.flat_model import FlatModel
from strategies.privacy.engines.select import private_engine
from strategies.privacy.plan import PrivacyPlan
from strategies.privacy.randomness import Randomness
from strategies.releases.base import Fit

FEATURES = 13
PATIENTS = 2_000
LEARNING_RATE = 0.01
CLIP = NOISE = 1.0
BATCHES = {"logistic": (32, 2048), "mlp": (32, 256, 2048), "cnn": (32,), "resnet18": (32,), "transformer": (32,)}
END_TO_END = {"logistic_end_to_end": 32, "mlp_end_to_end": 32}
Run = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Sides:
    """Our step or epoch, and the same work of others by name."""

    ours: Run
    others: dict[str, Run]


def main(arguments: list[str] | None = None) -> None:
    """Print one row a case and batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two repeats, to see that it runs")
    parser.add_argument("--cases", nargs="+", default=[*BATCHES, *END_TO_END], choices=[*BATCHES, *END_TO_END])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: expected a GPU that PyTorch can use, found none; leave --device out")
    torch.set_num_threads(1)
    keep_freed_blocks()  # as every process that trains
    warnings.filterwarnings("ignore", module="opacus")
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    seconds = 0.0 if options.quick else 12.0
    clock = time.process_time if options.device == "cpu" else _when_the_gpu_is_done
    for case in options.cases:
        if case in END_TO_END and options.device != "cpu":
            continue
        for batch in BATCHES.get(case, (END_TO_END.get(case, 0),)):
            sides = (
                _epochs(case.partition("_")[0], batch) if case in END_TO_END else _steps(case, batch, options.device)
            )
            ratios = {f"ratio_{name}": round(ratio, 3) for name, ratio in _ratios(sides, seconds, clock).items()}
            print(json.dumps({"case": case, "batch": batch} | ratios), flush=True)


def _when_the_gpu_is_done() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def _ratios(sides: Sides, seconds: float, clock: Clock) -> dict[str, float]:
    """Return our time over each other engine's: the median of the turns' ratios.

    A side is repeated within a turn until it can be timed.
    """
    runs = [sides.ours, *sides.others.values()]
    repeats = []
    for run in runs:
        run()
        repeats.append(max(1, min(50, round(0.02 / max(_timed(run, 1, clock), 1e-6)))))
    samples: list[list[float]] = [[] for _ in runs]
    end = time.perf_counter() + seconds
    while len(samples[0]) < 2 or time.perf_counter() < end:
        for times, run, often in zip(samples, runs, repeats, strict=True):
            times.append(_timed(run, often, clock))
    ours, *others = samples
    over = ([a / b for a, b in zip(ours, other, strict=True)] for other in others)
    return {name: statistics.median(ratios) for name, ratios in zip(sides.others, over, strict=True)}


def _timed(run: Run, often: int, clock: Clock) -> float:
    begin = clock()
    for _ in range(often):
        run()
    return (clock() - begin) / often


def _steps(case: str, batch: int, device: str) -> Sides:
    """Return functions of one step on a given batch: gradient, clip, noise, update."""
    task: Any = _task(case) if case in ("logistic", "mlp") else Network(_network(case))
    inputs = _batch(case, batch)
    there = tuple(part.to(device) for part in inputs)
    others = {name: _torch_step(task, *there, private=name == "opacus") for name in ("plain", "opacus")}
    if device != "cpu":
        others["processor"] = _our_step(task, *inputs)
    return Sides(_our_step(task, *there), others)


def _task(case: str) -> Learning:
    return learning(Task("binary", "y"), Model(case, (64, 32) if case == "mlp" else (), "random"), FEATURES)


def _network(case: str) -> Callable[[], nn.Module]:
    return {"cnn": cnn, "resnet18": resnet18, "transformer": Transformer}[case]


def _batch(case: str, rows: int) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(0)
    if case in ("logistic", "mlp"):
        return torch.randn(rows, FEATURES, generator=chance), torch.randint(0, 2, (rows,), generator=chance).float()
    y = torch.randint(0, CLASSES, (rows,), generator=chance)
    if case == "transformer":
        return torch.randint(0, 1000, (rows, 64), generator=chance), y
    return torch.randn(rows, *((1, 28, 28) if case == "cnn" else (3, 64, 64)), generator=chance), y


def _plan(batch: int, rate: float = 1.0, steps: int = 1) -> PrivacyPlan:
    return PrivacyPlan(CLIP, NOISE, rate, steps_per_round=steps, rounds=1, delta=1e-5, expected_patients=batch)


def _our_step(task: Any, x: Tensor, y: Tensor) -> Run:
    if isinstance(task, Network):
        model = task.flat_model(x.device.type)
    else:
        model = FlatModel(task, x.device.type)
        model.load(task.initial(0))
    noise = torch.Generator().manual_seed(0)
    engine = private_engine(
        model, _plan(len(x)), lambda size, deviation: torch.normal(0.0, deviation, (size,), generator=noise)
    )
    patients = torch.arange(len(x))

    def step() -> None:
        gradient = engine.noisy_gradient(x, y, patients, patients_in_batch=len(x))
        model.flat.data.add_(gradient, alpha=-LEARNING_RATE)

    return step


def _torch_step(task: Any, x: Tensor, y: Tensor, *, private: bool) -> Run:
    """Return PyTorch's step as one writes it, or Opacus's around the same model."""
    module = task.build().to(x.device)
    optimizer: Any = torch.optim.SGD(module.parameters(), lr=LEARNING_RATE)
    if private:
        from opacus.grad_sample import GradSampleModule
        from opacus.optimizers import DPOptimizer

        module = GradSampleModule(module)
        optimizer = DPOptimizer(
            optimizer, noise_multiplier=NOISE, max_grad_norm=CLIP, expected_batch_size=len(x), loss_reduction="mean"
        )

    def step() -> None:
        optimizer.zero_grad()
        task.loss(module(x), y).mean().backward()
        optimizer.step()

    return step


def _epochs(case: str, batch: int) -> Sides:
    task = _task(case)
    x, y = _batch(case, PATIENTS)
    others = {name: _loader_epoch(task, x, y, batch, private=name == "opacus") for name in ("plain", "opacus")}
    return Sides(_our_epoch(task, x, y, batch), others)


def _our_epoch(task: Learning, x: Tensor, y: Tensor, batch: int) -> Run:
    trainer, start = Trainer(task), task.initial(0)
    people = TablePatients(x.numpy(), y.numpy(), np.arange(PATIENTS), np.arange(PATIENTS + 1))
    local, steps = Local(batch, LEARNING_RATE), -(-PATIENTS // batch)
    plan = _plan(batch, batch / PATIENTS, steps)

    def epoch() -> None:
        plan.epsilon()
        trainer.fit(Fit(start, people, local, steps, Randomness.seeded(0, "here", 1), plan))

    return epoch


def _loader_epoch(task: Learning, x: Tensor, y: Tensor, batch: int, *, private: bool) -> Run:
    from torch.utils.data import DataLoader, TensorDataset

    module: nn.Module = task.build()
    optimizer: Any = torch.optim.SGD(module.parameters(), lr=LEARNING_RATE)
    loader: Any = DataLoader(TensorDataset(x, y), batch_size=batch, shuffle=True)
    if private:
        from opacus import PrivacyEngine

        module, optimizer, loader = PrivacyEngine(accountant="prv").make_private(
            module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=NOISE, max_grad_norm=CLIP
        )

    def epoch() -> None:
        for rows, targets in loader:
            if len(rows):
                optimizer.zero_grad()
                task.loss(module(rows), targets).mean().backward()  # type: ignore[no-untyped-call]
                optimizer.step()

    return epoch


if __name__ == "__main__":
    main()
