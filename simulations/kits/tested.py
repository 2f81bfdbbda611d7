"""`archipel kit test`: what a kit's models do with made-up patients; no patient is read."""

import resource
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from configs.kit import KitFiles
from simulations.kits.project import read_project
from strategies.kits.opened import open_files
from strategies.kits.probed import results_of

KB = 1024


def test_project(folder: Path) -> int:
    """Print what the probe says of a project's models; return 1 where it warns.

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
    for name, reader in open_files(kit).readers.items():
        print(f"reader {kit.about.name}/{name}: records of shape {tuple(reader.shape)}")
    return int(any(result.warnings for result in results.values()))


def warnings_of(kit: KitFiles) -> Iterator[str]:
    """Yield what the probe warns of, for a kit that is about to be handed over or named in a study."""
    for name, result in results_of(kit, time.perf_counter).items():
        for finding in result.warnings:
            yield f"warning: the probe says of model {name} ({finding.check}): {finding.sentence}"


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KB
