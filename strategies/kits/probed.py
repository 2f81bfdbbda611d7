"""The probe of a kit's models: opened in this process, on made-up patients."""

import contextlib
import importlib.util
from collections.abc import Callable, Sequence

import torch

from configs.kit import KitFiles
from strategies.kit import Model, RowInput
from strategies.kits.opened import open_files
from strategies.probe import Result, Subject, probe

INPUTS = 8  # columns of a made-up row


def preload(names: Sequence[str]) -> None:
    """Import installed modules that a kit names, so that a process without files and threads can open the kit."""
    torch.set_num_threads(1)
    for name in ("numpy.random", *names):
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            with contextlib.suppress(Exception):  # the kit says so itself, where it needs it
                importlib.import_module(name)
    probe(Subject(lambda: torch.nn.Linear(1, 1), lambda outputs, _: outputs.sum(1), (1,)))  # loads what comes late


def subject_of(model: Model) -> Subject:
    """Return a kit's model as the probe takes it, with its default options."""
    shape = (INPUTS,) if isinstance(model.input, RowInput) else model.input.shape
    target = None if model.target is None else model.target.shape
    return Subject(lambda: model.module({}, INPUTS), model.loss, shape, target, model.score)


def results_of(
    kit: KitFiles, clock: Callable[[], float], memory_bytes: Callable[[], int] = lambda: 0
) -> dict[str, Result]:
    """Open a kit and return what the probe says of each of its models, by the name in a study.

    Args:
        clock: seconds, such as time.perf_counter.
        memory_bytes: the most memory that this process has had.

    Raises:
        Anything: the kit's own failure.
    """
    opened = open_files(kit)
    return {
        f"{opened.name}/{name}": probe(subject_of(model), clock=clock, memory_bytes=memory_bytes)
        for name, model in opened.models.items()
    }
