"""A Ray cluster of one's own, on which trials run: as many at once as it has processors.

Its nodes get the patients from this machine through Ray's object store, and need an installed Archipel of the same
release. Ray asks nobody who they are: whoever reaches the cluster's ports reaches these patients and runs any code. A
cluster belongs in a network where nobody else is.
"""

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from configs.errors import ArchipelError, RunError
from simulations.engines import quiet_flower
from simulations.federation import listens
from simulations.tuning.trial import Figures, Trial, figures, parts_of
from strategies.kits.shelf import SHELF, Shelf

_NO_CLUSTER = (
    "engine ray: expected a Ray cluster at {}, found none that answers; start one with `ray start --head`, and give "
    "the address that it prints"
)


class Cluster:
    """A Ray cluster: as many trials at once as it has processors."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._remote = ray.remote(num_cpus=1, max_retries=2, scheduling_strategy="SPREAD")(_on_a_node)
        self._parts: dict[Any, Any] = {}
        self.workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
        self.trials_by_node: dict[str, int] = {}

    def run(self, trials: Mapping[Any, Trial]) -> Iterator[tuple[Any, Figures]]:
        """Yield each trial's figures.

        Raises:
            ArchipelError: of a trial itself. RunError: a node or the cluster is gone.
        """
        ray = self._ray
        for kit in {trial.study.kit for trial in trials.values() if trial.study.kit is not None}:
            SHELF.files(kit)  # they travel to the nodes, which have no such folder
        keys = {self._remote.remote(trial, self._parts_of(trial), SHELF): key for key, trial in trials.items()}
        waiting = list(keys)
        try:
            while waiting:
                (done,), waiting = ray.wait(waiting)
                result, node = ray.get(done)
                self.trials_by_node[node] = self.trials_by_node.get(node, 0) + 1
                yield keys[done], result
        except ray.exceptions.RayError as error:
            if isinstance(cause := getattr(error, "cause", None), ArchipelError):
                raise cause from None
            why = type(error).__name__
            raise RunError(f"engine ray: a trial failed on the cluster ({why}); see `ray status` and go on") from None
        finally:
            for each in waiting:
                ray.cancel(each, force=True)

    def _parts_of(self, trial: Trial) -> Any:
        """Return where the patients of a trial lie in the object store."""
        key = (trial.data, trial.seed, trial.validation)
        if key not in self._parts:
            self._parts[key] = self._ray.put(parts_of(*key))
        return self._parts[key]


def _on_a_node(trial: Trial, parts: Any, shelf: Shelf) -> tuple[Figures, str]:
    import ray

    quiet_flower()
    SHELF.follow(shelf)
    return figures(trial, parts), str(ray.get_runtime_context().get_node_id())


@contextmanager
def cluster_at(address: str | None) -> Iterator[Cluster]:
    """Yield a cluster of one's own that runs already, or one of this machine that ends with the command.

    Raises:
        RunError: Ray is not installed, or no cluster answers at the address.
    """
    if importlib.util.find_spec("ray") is None:
        raise RunError('engine ray: Ray is not installed; pip install "archipel[ray]", or leave --engine out')
    quiet_flower()
    if address and not _answers(address):
        raise RunError(_NO_CLUSTER.format(address))
    import ray

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(
                address or "local",
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError):
        raise RunError(_NO_CLUSTER.format(address or "this machine")) from None
    try:
        yield Cluster(ray)
    finally:
        ray.shutdown()


def _answers(address: str) -> bool:
    """Return whether somebody listens at HOST:PORT or ray://HOST:PORT: Ray itself would wait for long."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    return bool(host) and port.isdecimal() and int(port) < 1 << 16 and listens(host.strip("[]"), int(port))
