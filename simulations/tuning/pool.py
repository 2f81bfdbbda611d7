"""Where trials run: in this process, in several on this machine, or on a Ray cluster of one's own (cluster.py).

A trial is a pure function, so each place ends with the same figures. Processes read the patients from the study's
sources.
"""

import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, Protocol

from configs.errors import RunError
from simulations.engines import quiet_flower
from simulations.tuning.cluster import cluster_at
from simulations.tuning.trial import Figures, Trial, figures
from strategies.kits.shelf import SHELF, Shelf


class Pool(Protocol):
    """A place where trials run."""

    workers: int

    def run(self, trials: Mapping[Any, Trial]) -> Iterator[tuple[Any, Figures]]:
        """Yield each trial's key and figures as they are done, in any order."""


class Here:
    """This process, one trial after the other."""

    workers = 1

    def run(self, trials: Mapping[Any, Trial]) -> Iterator[tuple[Any, Figures]]:
        """Yield each trial's figures."""
        quiet_flower()
        for key, trial in trials.items():
            yield key, figures(trial)


class Processes:
    """So many processes of this machine."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool = ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=_prepare, initargs=(SHELF,)
        )

    def run(self, trials: Mapping[Any, Trial]) -> Iterator[tuple[Any, Figures]]:
        """Yield each trial's figures.

        Raises:
            RunError: a process was killed.
        """
        keys = {self._pool.submit(figures, trial): key for key, trial in trials.items()}
        try:
            for done in as_completed(keys):
                yield keys[done], done.result()
        except BrokenProcessPool:
            raise RunError(
                "a worker process ended before its work was done (killed, or out of memory); the same command goes on, "
                "with fewer --workers"
            ) from None

    def close(self) -> None:
        """End the processes; what has not begun is not done."""
        self._pool.shutdown(cancel_futures=True)


def _prepare(shelf: Shelf) -> None:
    """Leave Ctrl-C to the process that asked for the work, and find the kits that it finds."""
    SHELF.follow(shelf)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet_flower()


@contextmanager
def pool_of(engine: str, workers: int, address: str | None) -> Iterator[Pool]:
    """Yield where trials run, and end what was started for it.

    Raises:
        RunError: Ray is not installed, or no cluster answers at the address.
    """
    if engine == "ray":
        with cluster_at(address) as cluster:
            yield cluster
    elif workers > 1:
        processes = Processes(workers)
        try:
            yield processes
        finally:
            processes.close()
    else:
        yield Here()
