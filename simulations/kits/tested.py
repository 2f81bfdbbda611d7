"""`archipel kit test`: what a kit's models do with made-up patients; no patient is read."""

import re
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from configs.kit import KitFiles
from simulations.kits.project import read_project
from strategies.kit import Reader
from strategies.kits.opened import open_files
from strategies.kits.probed import results_of

KB = 1024
WITH_ARCHIPEL = ("numpy", "torch")


def test_project(folder: Path) -> int:
    """Print what the probe says of a project's models; return 1 where something is to be mended.

    Raises:
        KitError, RunError: the project is no kit. Anything: the kit's own failure when it is opened.
    """
    kit = read_project(folder)
    torch.set_num_threads(1)  # as at a hospital
    print(f"{kit.about.name} {kit.about.version}: {len(kit.sources)} files, {kit.lines} lines, digest {kit.sha256}")
    results = results_of(kit, time.perf_counter, _most_memory)
    for name, result in results.items():
        for sentence in result.sentences:
            print(f"model {name}: {sentence}")
    lacking = 0
    for name, reader in open_files(kit).readers.items():
        print(f"reader {kit.about.name}/{name}: records of shape {tuple(reader.shape)}")
        for library in _not_required(kit, reader):
            lacking += 1
            print(
                f"reader {kit.about.name}/{name}: warning: it needs {library}, which pyproject.toml does not require: "
                "add it to dependencies, so that a hospital is told to install it"
            )
    return int(lacking > 0 or any(result.warnings for result in results.values()))


def _not_required(kit: KitFiles, reader: Reader) -> list[str]:
    """Return the libraries that a reader needs beside Archipel's own and the project does not require."""
    required = {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in (*kit.about.requires, *WITH_ARCHIPEL)}
    return [library for library in reader.needs if library.lower() not in required]


def warnings_of(kit: KitFiles) -> Iterator[str]:
    """Yield what the probe warns of, for a kit that is about to be handed over or named in a study."""
    for name, result in results_of(kit, time.perf_counter).items():
        for finding in result.warnings:
            yield f"warning: the probe says of model {name} ({finding.check}): {finding.sentence}"


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KB
