"""The simulation engines `inprocess` and `ray`, which end with the same bits.

Both run the same ServerApp and ClientApp. `inprocess` needs nothing but this process; `ray` is Flower's own simulation
runtime, for machines and clusters (`pip install "archipel[ray]"`).
"""

import gc
import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

from flwr.app import Context, RecordDict
from flwr.serverapp import ServerApp

from configs.errors import RunError
from server.outcome import Outcome
from simulations.grid import RUN_ID, InProcessGrid
from simulations.hospitals import Hospitals

Engine = Literal["inprocess", "ray"]
ENGINES: tuple[str, ...] = get_args(Engine)
_OBJECTS = 20_000  # more of them than were let go, before the youngest are looked at
Conduct = Callable[[Callable[[Outcome], None]], ServerApp]


def run_engine(engine: str, hospitals: Hospitals, make_server: Conduct, *, workers: int = 1) -> Outcome:
    """Run one ServerApp against the hospitals to its end.

    Args:
        make_server: makes the ServerApp, given where to leave the result.

    Raises:
        RunError: Ray is asked for and not installed, or ended without a result.
    """
    results: list[Outcome] = []
    app = make_server(results.append)
    quiet_flower()
    if engine == "ray":
        _run_ray(app, hospitals)
    else:
        count = len(hospitals.study.sites)
        with (
            _few_collections(),
            InProcessGrid(hospitals.make_app, count, workers=workers, make_rounds=hospitals.make_rounds) as grid,
        ):
            app(grid, Context(run_id=RUN_ID, node_id=0, node_config={}, state=RecordDict(), run_config={}))
    if not results:
        raise RunError(f"engine {engine}: it ended without a result; run again with --engine inprocess to see why")
    return results[0]


@contextmanager
def _few_collections() -> Iterator[None]:
    """Look for garbage among this run's own objects alone, and less often.

    Thousands of hospitals' objects live from a round's start to its end, and modules for ever: with Python's own
    thresholds all of them are walked through again and again.
    """
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_OBJECTS, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def quiet_flower() -> None:
    """Turn off Flower's telemetry, update check and log lines below errors: our own output says what happens."""
    os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1", RAY_USAGE_STATS_ENABLED="0")
    logging.getLogger("flwr").setLevel(logging.ERROR)


def _run_ray(app: ServerApp, hospitals: Hospitals) -> None:
    if importlib.util.find_spec("ray") is None:
        raise RunError('engine ray: Ray is not installed; pip install "archipel[ray]", or use --engine inprocess')
    from flwr.simulation import run_simulation

    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_simulation(
            server_app=app,
            client_app=hospitals.make_app(),
            num_supernodes=len(hospitals.study.sites),
            backend_config={
                "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
                "init_args": {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR},
            },
        )
