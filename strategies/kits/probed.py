"""The probe of a kit's models: opened in this process, on made-up patients."""

import contextlib
import importlib.util
from collections.abc import Callable, Sequence

import torch

from configs.kit import PREFIX, KitFiles
from strategies.kit import Model, RowInput
from strategies.kits.opened import open_files
from strategies.probe import Result, Subject, probe

INPUTS = 8  # columns of a made-up row
ACTING = {"antigravity", "idlelib", "test", "this", "turtledemo"}  # of Python's own: these do something when imported


def preload(names: Sequence[str]) -> None:
    """Import installed modules that a kit names, so that a process without files and threads can open the kit.

    No kit that pip installed is among them, and no module that does something when it is imported.
    """
    torch.set_num_threads(1)
    for name in ("numpy.random", *filter(_is_library, names)):
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            with contextlib.suppress(Exception, SystemExit):  # the kit says so itself, where it needs it
                importlib.import_module(name)
    probe(Subject(lambda: torch.nn.Linear(1, 1), lambda outputs, _: outputs.sum(1), (1,)))  # loads what comes late


def _is_library(name: str) -> bool:
    """Return whether a module is one to be used.

    >>> [_is_library(name) for name in ("scipy.stats", "unittest.__main__", "this", "archipel_kit_other.nets")]
    [True, False, False, False]
    """
    parts = name.split(".")
    return parts[0] not in ACTING and not any(part.startswith((PREFIX, "__")) for part in parts)


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
