"""`archipel kit test`: what a kit's models do with made-up patients; no patient is read.

Each model is built with its default options, its loss worked out and differentiated. The probe says whether it keeps
patients apart.
"""

import resource
import time
from pathlib import Path

import torch

from configs.errors import KitError
from simulations.kits.project import read_project
from strategies.kit import Model, RowInput
from strategies.kits.opened import open_files

RECORDS, INPUTS = 4, 8  # of one made-up patient; columns of a made-up row


def test_project(folder: Path) -> int:
    """Print what the project's models do; return 1 where one fails.

    Raises:
        KitError, RunError: the project is no kit.
    """
    files = read_project(folder)
    kit = open_files(files)
    print(f"{kit.name} {kit.version}: {len(files.sources)} files, {files.lines} lines, digest {kit.sha256}")
    failed = 0
    for name, model in kit.models.items():
        try:
            print(f"model {kit.name}/{name}: {_tried(model)}")
        except Exception as error:
            failed = 1
            print(f"model {kit.name}/{name}: FAILED: {type(error).__name__}: {error}")
    for name, reader in kit.readers.items():
        print(f"reader {kit.name}/{name}: records of shape {tuple(reader.shape)}")
    return failed


def made_up(model: Model, records: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a made-up patient's records and targets, of the shapes that a model declares."""
    chance = torch.Generator().manual_seed(seed)
    shape = (INPUTS,) if isinstance(model.input, RowInput) else model.input.shape
    x = torch.randn(records, *shape, generator=chance)
    sides = () if model.target is None else model.target.shape
    return x, (torch.rand(records, *sides, generator=chance) > 0.5).float()


def _tried(model: Model) -> str:
    module = model.module({}, INPUTS)
    x, y = made_up(model, RECORDS, 0)
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    losses = model.loss(module(x), y)
    if losses.shape != (RECORDS,):
        raise KitError(f"expected the loss of each record, of shape ({RECORDS},), found {tuple(losses.shape)}")
    losses.sum().backward()  # type: ignore[no-untyped-call]
    spent = time.process_time() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if model.score is not None and not 0.0 <= float(model.score(module(x).detach(), y)) <= 1.0:
        raise KitError("expected a score from 0 to 1, found another")
    count = sum(parameter.numel() for parameter in module.parameters())
    return f"{count:,} parameters, {1000 * spent / RECORDS:.1f} ms a record, {memory / 1024:.0f} MB more memory"
