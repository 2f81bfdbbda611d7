"""Clients per second of a simulated federation, ours beside the others, in one run.

    python -m simulations.benchmarks.simulation [--quick] [--clients 4 100] [--systems plain inprocess]

One client is a hospital with 64 rows that trains a 3,009-parameter MLP for one epoch of two batches; every client takes
part in every round. Systems:

- `plain`: a PyTorch loop over the clients with a running average, as one would write it by hand; with privacy, Opacus's
  `PrivacyEngine` made for each client
- `inprocess`: Archipel's default engine, the product's whole path (ServerApp, ClientApp, checks of every message, a
  ledger) without checkpoints, as no other side writes to disk
- `ray`: the same apps on Flower's Ray runtime; `flower_ray`: Flower's own FedAvg with the plain loop's client there
- `pfl`: Apple's pfl 0.6.0, where it is installed, or where ARCHIPEL_PFL_PYTHON names an interpreter that has it; it has
  no local differential privacy of this kind, so only without

Each measurement is a process of its own, with one BLAS thread: `startup_seconds` runs from the process's start to the
first round's start, `memory_mb` is its peak (with Ray, that of all its processes together). Figures are medians over
rounds, then over repeats in turn (A B C A B C), because shared machines drift. Quote the ratios in the last lines.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SYSTEMS = ("plain", "inprocess", "ray", "flower_ray", "pfl")
CLIENTS = (4, 100, 1000)
ROWS, FEATURES, BATCH, LEARNING_RATE = 64, 13, 32, 0.1
EPSILON, DELTA, CLIP = 8.0, 1e-3, 1.0
PFL_PYTHON, STARTED = "ARCHIPEL_PFL_PYTHON", "ARCHIPEL_STARTED"
MIN_SECONDS = 1.5  # of rounds in each process, so that a median has something to stand on

Finished = Callable[[float], None]  # called after each round with its seconds


def main(arguments: list[str] | None = None) -> None:
    """Measure every case and print one JSON line a row."""
    options = _options(arguments)
    if options.child:
        _child(*options.child)
        return
    for clients in options.clients:
        _ratios(_measure_all(clients, options))


def _measure_all(clients: int, options: argparse.Namespace) -> dict[tuple[str, int, bool], float]:
    """Every system at one number of clients: prints their rows and returns their clients per second."""
    cases = [(s, clients, private) for private in (False, True) for s in options.systems if _available(s, private)]
    measured: dict[tuple[str, int, bool], list[dict[str, float]]] = {case: [] for case in cases}
    for repeat in range(options.repeats):
        for system, _, private in cases:
            slow = "ray" in system or (system == "plain" and private)
            if repeat and slow and clients >= 100:
                continue  # minutes each, and far from any other: once is enough
            measured[system, clients, private].append(_measure(system, clients, private, quick=options.quick))
    return {case: _row(case, seconds) for case, seconds in measured.items()}


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS))
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--repeats", type=int, default=3, help="processes a case; slow ones run once")
    parser.add_argument("--quick", action="store_true", help="two rounds each, once: a check that all systems run")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.repeats = 1 if options.quick else options.repeats
    return options


def _available(system: str, private: bool) -> bool:
    if system != "pfl":
        return True
    return not private and _runs(_interpreter("pfl"), "import pfl")


def _interpreter(system: str) -> str:
    return os.environ.get(PFL_PYTHON, sys.executable) if system == "pfl" else sys.executable


def _runs(python: str, code: str) -> bool:
    return subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0


def _measure(system: str, clients: int, private: bool, quick: bool) -> dict[str, float]:
    """One process: its seconds a round, its start-up, its peak memory."""
    command = [_interpreter(system), "-m", "simulations.benchmarks.simulation", "--child"]
    seconds = 0.0 if quick else MIN_SECONDS
    environment = {
        **os.environ,
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        STARTED: str(time.time()),
    }
    command += [system, str(clients), str(int(private)), str(seconds)]
    # Files: a talkative system would fill a pipe and wait for ever.
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=complaints)
        peak = _watch_memory(process)
        output.seek(0)
        complaints.seek(0)
        lines, errors = output.read().strip().splitlines(), complaints.read()[-2000:]
    if process.returncode or not lines:
        raise SystemExit(
            f"{system} with {clients} clients ended with code {process.returncode} and no figure\n{errors}"
        )
    figures: dict[str, float] = json.loads(lines[-1])
    return figures | {"memory_mb": peak}


def _watch_memory(process: "subprocess.Popen[bytes]") -> float:
    """Largest sum of resident memory over the process and all its descendants, in MB, looked at ten times a second."""
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, sum(_resident_mb(pid) for pid in _family(process.pid)))
        time.sleep(0.1)
    return peak


def _family(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    family = [root]
    for pid in family:
        family += [child for child, parent in parents.items() if parent == pid]
    return family


def _resident_mb(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _row(case: tuple[str, int, bool], found: list[dict[str, float]]) -> float:
    system, clients, private = case
    rate = clients / statistics.median(f["seconds"] for f in found)
    row = {
        "system": system,
        "clients": clients,
        "private": private,
        "clients_per_second": round(rate, 1),
        "startup_seconds": round(statistics.median(f["startup"] for f in found), 2),
        "memory_mb": round(statistics.median(f["memory_mb"] for f in found)),
    }
    print(json.dumps(row), flush=True)
    return rate


def _ratios(rates: dict[tuple[str, int, bool], float]) -> None:
    for (system, clients, private), rate in rates.items():
        ours = rates.get(("inprocess", clients, private))
        if ours and system != "inprocess":
            row = {
                "ratio": f"inprocess/{system}",
                "clients": clients,
                "private": private,
                "value": round(ours / rate, 2),
            }
            print(json.dumps(row), flush=True)


# What follows runs in the measured process.


def _child(system: str, clients: str, private: str, seconds: str) -> None:
    """Run rounds and print their median. The first round may hold a part of the start-up (Ray's): it counts as that."""
    ended: list[float] = []
    durations: list[float] = []

    def finished(round_seconds: float) -> None:
        ended.append(time.time())
        durations.append(round_seconds)

    run = {"plain": _plain, "inprocess": _inprocess, "ray": _ray, "flower_ray": _flower_ray, "pfl": _pfl}[system]
    run(int(clients), private == "1", _rounds_for(system, int(clients), private == "1", float(seconds)), finished)
    usual = statistics.median(durations[1:])
    startup = ended[0] - min(usual, durations[0]) - float(os.environ[STARTED])
    print(json.dumps({"seconds": usual, "startup": startup}), flush=True)


def _rounds_for(system: str, clients: int, private: bool, seconds: float) -> int:
    """Return a number of rounds fixed beforehand: about so many seconds at a speed that the system surely has."""
    speed = 100 if "ray" in system or (system == "plain" and private) else 1000  # clients per second
    return max(2 if "ray" in system else 3, round(seconds * speed / clients))  # Ray takes minutes with 1,000


def _data(client: int) -> tuple[Any, Any]:
    """64 rows whose outcome follows a shared direction; each client's rows are shifted a little."""
    import numpy as np

    rng = np.random.default_rng(1000 + client)
    x = rng.normal(size=(ROWS, FEATURES)).astype("f4") + 0.3 * rng.normal(size=FEATURES).astype("f4")
    direction = np.random.default_rng(0).normal(size=FEATURES)
    return x, ((x @ direction + rng.normal(size=ROWS)) > 0).astype("f4")


def _model() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))


def _train_plainly(model: Any, x: Any, y: Any) -> None:
    import torch

    optimizer, loss = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE), torch.nn.BCEWithLogitsLoss()
    order = torch.randperm(len(x))
    for start in range(0, len(x), BATCH):
        rows = order[start : start + BATCH]
        optimizer.zero_grad()
        loss(model(x[rows]), y[rows]).backward()
        optimizer.step()


def _train_with_opacus(model: Any, x: Any, y: Any) -> Any:
    import torch
    from opacus import PrivacyEngine
    from torch.utils.data import DataLoader, TensorDataset

    optimizer, loss = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE), torch.nn.BCEWithLogitsLoss()
    private, optimizer, loader = PrivacyEngine(accountant="rdp").make_private(
        module=model,
        optimizer=optimizer,
        data_loader=DataLoader(TensorDataset(x, y), batch_size=BATCH),
        noise_multiplier=1.0,
        max_grad_norm=CLIP,
    )
    for batch_x, batch_y in loader:
        if len(batch_x):
            optimizer.zero_grad()
            loss(private(batch_x), batch_y).backward()
            optimizer.step()
    return private._module


def _tensors(clients: int) -> list[tuple[Any, Any]]:
    import torch

    torch.set_num_threads(1)
    return [(torch.from_numpy(x), torch.from_numpy(y)[:, None]) for x, y in map(_data, range(clients))]


def _plain(clients: int, private: bool, rounds: int, finished: Finished) -> None:
    data, shared = _tensors(clients), _model().state_dict()
    for _ in range(rounds):
        begin = time.perf_counter()
        sums: dict[str, Any] = {}
        for x, y in data:
            model = _model()
            model.load_state_dict(shared)
            if private:
                model = _train_with_opacus(model, x, y)
            else:
                _train_plainly(model, x, y)
            state = {name: value.detach() for name, value in model.state_dict().items()}
            sums = {name: sums[name] + value for name, value in state.items()} if sums else state
        shared = {name: value / clients for name, value in sums.items()}
        finished(time.perf_counter() - begin)


def _study(clients: int, private: bool, rounds: int) -> Any:
    from configs.load import study_from

    privacy = {"mode": "local", "epsilon": EPSILON, "delta": DELTA, "clip_norm": CLIP}
    return study_from(
        {
            "name": "speed",
            "purpose": "Measure clients per second",
            "task": {"type": "binary", "target": "outcome"},
            "patient_id": None,
            "features": {f"x{i:02d}": {"type": "number", "range": [-1, 1]} for i in range(FEATURES)},
            "cohort": {f"client-{i:05d}": ROWS for i in range(clients)},
            "model": {"name": "mlp", "hidden": [64, 32]},
            "training": {
                "strategy": {"name": "fedavg"},
                "rounds": rounds,
                "local": {"epochs": 1, "batch_size": BATCH, "learning_rate": LEARNING_RATE},
            },
            "privacy": privacy if private else {"mode": "none"},
            "evaluation": {"test_fraction": 0},
        }
    )


def _train_of(site: str) -> Any:
    import numpy as np

    from strategies.data.table import TablePatients

    x, y = _data(int(site.rpartition("-")[2]))
    return TablePatients(x, y, np.arange(ROWS), np.arange(ROWS + 1))


def _archipel(engine: str, clients: int, private: bool, rounds: int, finished: Finished) -> None:
    from server.app import make_app
    from simulations.engines import run_engine
    from simulations.hospitals import Hospitals

    study = _study(clients, private, rounds)

    def make_server(done: Any) -> Any:
        return make_app(study, observer=lambda record, model: finished(record.seconds), done=done)

    conducted = run_engine(engine, Hospitals(study, _train_of), make_server)
    assert conducted.rounds.outcome == "COMPLETE", conducted.rounds.why


def _inprocess(clients: int, private: bool, rounds: int, finished: Finished) -> None:
    _archipel("inprocess", clients, private, rounds, finished)


def _ray(clients: int, private: bool, rounds: int, finished: Finished) -> None:
    _archipel("ray", clients, private, rounds, finished)


def _flower_ray(clients: int, private: bool, rounds: int, finished: Finished) -> None:
    """Flower as its tutorials use it: its FedAvg, a ClientApp that trains as the plain loop does, its Ray runtime."""
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    from simulations.engines import quiet_flower

    class Timed(FedAvg):
        begin = 0.0

        def configure_train(self, *arguments: Any, **named: Any) -> Any:
            self.begin = time.perf_counter()
            return super().configure_train(*arguments, **named)

        def aggregate_train(self, *arguments: Any, **named: Any) -> Any:
            aggregated = super().aggregate_train(*arguments, **named)
            finished(time.perf_counter() - self.begin)
            return aggregated

    server, client = ServerApp(), ClientApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        strategy = Timed(fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients)
        strategy.start(grid=grid, initial_arrays=ArrayRecord(_model().state_dict()), num_rounds=rounds)

    @client.train()
    def train(message: Message, context: Context) -> Message:
        import torch

        torch.set_num_threads(1)
        x, y = _data(int(context.node_config["partition-id"]))
        model = _model()
        model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
        inputs, targets = torch.from_numpy(x), torch.from_numpy(y)[:, None]
        if private:
            model = _train_with_opacus(model, inputs, targets)
        else:
            _train_plainly(model, inputs, targets)
        metrics = MetricRecord({"num-examples": ROWS})
        return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)

    quiet_flower()
    run_simulation(server, client, clients, backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}})


def _pfl(clients: int, private: bool, rounds: int, finished: Finished) -> None:
    """pfl as its documentation has it: FederatedAveraging on a SimulatedBackend, every user in every cohort."""
    import torch
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam.base import NNTrainHyperParams
    from pfl.model.pytorch import PyTorchModel

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stack, self.criterion = _model(), torch.nn.BCEWithLogitsLoss()

        def loss(self, x: Any, y: Any, eval: bool = False) -> Any:
            return self.criterion(self.stack(x), y)

        def metrics(self, x: Any, y: Any, eval: bool = False) -> dict[str, Any]:
            return {}

    class Timer(TrainingProcessCallback):  # type: ignore[misc]
        begin = 0.0

        def on_train_begin(self, *, model: Any) -> Any:
            from pfl.metrics import Metrics

            self.begin = time.perf_counter()
            return Metrics()

        def after_central_iteration(self, aggregate_metrics: Any, model: Any, *, central_iteration: int) -> Any:
            from pfl.metrics import Metrics

            now = time.perf_counter()
            finished(now - self.begin)
            self.begin = time.perf_counter()
            return False, Metrics()

    data, module = _tensors(clients), Module()
    dataset = FederatedDataset(
        lambda user: Dataset(list(data[user])), get_user_sampler("minimize_reuse", list(range(clients)))
    )
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=rounds, evaluation_frequency=10**9, train_cohort_size=clients, val_cohort_size=0
        ),
        SimulatedBackend(dataset, None),
        PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0)),
        NNTrainHyperParams(local_num_epochs=1, local_learning_rate=LEARNING_RATE, local_batch_size=BATCH),
        None,
        callbacks=[Timer()],
    )


if __name__ == "__main__":
    main()
