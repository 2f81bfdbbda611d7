"""Seconds a round between processes, for stock Flower and Archipel in turn.

Both run on this machine, over TLS on loopback.

    python -m simulations.benchmarks.deployed_round [--rounds 8] [--nodes 4] [--systems stock archipel]

Both have one SuperLink and four nodes, models of 4 KB and of 40 MB, FedAvg. Stock Flower's ClientApp sends back what it
got, without any training; Archipel runs its whole path (gateway, client certificates, seals, journals on disk, outbox,
egress guard, a checkpoint each round) around one step on sixty made-up patients, because it has no path without one.
A round's seconds are the time from its end to the next one's, medians over rounds; the first is left out.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from configs import journal as journals
from configs.load import load_study
from configs.records.run_journal import Round
from configs.strict_yaml import dump_yaml
from simulations.federation import federation_of
from simulations.stock import StockFlower

HIDDEN = {4_000: (90,), 40_000_000: (3155, 3155)}  # of an MLP with ten inputs
INPUTS, PATIENTS = 10, 60

_STOCK_PROJECT = """[project]
name = "stock-round"
version = "1.0.0"
dependencies = ["flwr>=1.41.0,<1.42"]
license = { file = "LICENSE" }

[tool.flwr.app]
publisher = "benchmark"
fab-format-version = 1
flwr-version-target = "1.41.0"
fab-include = ["LICENSE", "stock_client.py", "stock_server.py"]

[tool.flwr.app.components]
serverapp = "stock_server:app"
clientapp = "stock_client:app"
"""
_STOCK_CLIENT = """from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    content = RecordDict({"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})})
    return Message(content, reply_to=message)
"""
_STOCK_SERVER = """import json, time

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid, context):
    times = []

    def ended(number, arrays):
        times.append(time.time())
        open(OUT, "w").write(json.dumps(times))
        return MetricRecord({})

    arrays = ArrayRecord({f"layer{i}": Array(np.zeros(shape, np.float32)) for i, shape in enumerate(SHAPES)})
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=NODES, min_available_nodes=NODES)
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=ROUNDS, evaluate_fn=ended)
"""


def main(arguments: list[str] | None = None) -> None:
    """Measure every case and print one JSON line a row, the ratios last."""
    parser = argparse.ArgumentParser(prog="python -m simulations.benchmarks.deployed_round")
    parser.add_argument("--rounds", type=int, default=8, help="of Archipel; stock Flower gets half (default 8)")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--systems", nargs="+", choices=("stock", "archipel"), default=["stock", "archipel"])
    parser.add_argument("--bytes", nargs="+", type=int, choices=sorted(HIDDEN), default=sorted(HIDDEN))
    options = parser.parse_args(arguments)
    seconds: dict[tuple[str, int], float] = {}
    for size in options.bytes:
        for system in options.systems:
            measure = _stock if system == "stock" else _archipel
            rounds = max(3, options.rounds // 2) if system == "stock" else options.rounds
            seconds[system, size] = measure(size, options.nodes, rounds)
            row = {"system": system, "model_bytes": size, "seconds_per_round": round(seconds[system, size], 3)}
            print(json.dumps(row), flush=True)
    ratios = {
        f"ratio_{name}": round(seconds["stock", size] / seconds["archipel", size], 2)
        for name, size in (("4kb", 4_000), ("40mb", 40_000_000))
        if {("stock", size), ("archipel", size)} <= set(seconds)
    }
    print(json.dumps(ratios), flush=True)


def _periods(times: list[float]) -> float:
    """Return the median time from one round's end to the next one's."""
    return statistics.median(np.diff(times).tolist())


def _stock(size: int, nodes: int, rounds: int) -> float:
    from server.superlink.flower_inside import build_fab_from_files

    shapes = [shape for _, shape in _shapes(size)]
    with TemporaryDirectory(prefix="archipel-") as folder:
        out = Path(folder) / "times.json"
        constants = f"OUT, SHAPES, NODES, ROUNDS = {str(out)!r}, {shapes!r}, {nodes}, {rounds}\n"
        files = {
            "pyproject.toml": _STOCK_PROJECT.encode(),
            "LICENSE": b"Apache-2.0\n",
            "stock_client.py": _STOCK_CLIENT.encode(),
            "stock_server.py": (constants + _STOCK_SERVER).encode(),
        }
        bundle, _ = build_fab_from_files(files)
        with StockFlower(Path(folder) / "flower", [{}] * nodes) as flower:
            if (ended := flower.run(bundle, timeout_s=3600)) != "completed":
                sys.exit(f"stock Flower: {ended}\n{flower.logs()[-3000:]}")
        return _periods(json.loads(out.read_text())[1:])  # the first is the initial model's


def _archipel(size: int, nodes: int, rounds: int) -> float:
    with TemporaryDirectory(prefix="archipel-") as folder:
        path = write_study(Path(folder), HIDDEN[size], nodes, rounds)
        study = load_study(path)
        policy: dict[str, Any] = {"allow_privacy_none": True, "require_approval": False}
        with federation_of(study, Path(folder) / "federation", **policy) as federation:
            run = federation.submit(path)
            federation.await_state(run, "COMPLETE", timeout_s=3600)
            return _periods(list(ends(federation.coordinator / "runs" / run / "journal.jsonl")))


def ends(journal: Path) -> Iterator[float]:
    """Yield each round's end, in seconds since 1970."""
    from datetime import datetime

    for record in journals.read(journal):
        if record.of(Round):
            yield datetime.fromisoformat(record.time).timestamp()


def write_study(folder: Path, hidden: tuple[int, ...], nodes: int, rounds: int) -> Path:
    """Return a study of an MLP with these hidden layers, and its made-up patients at each node."""
    generator, sites = np.random.default_rng(0), {}
    names = [f"x{i}" for i in range(INPUTS)]
    for number in range(nodes):
        path = folder / f"node-{number}.csv"
        rows = generator.uniform(-1, 1, (PATIENTS, INPUTS)).round(4)
        lines = [",".join([*names, "y"]), *(",".join([*map(str, r), str(int(r[0] > 0))]) for r in rows.tolist())]
        path.write_text("\n".join(lines) + "\n")
        sites[f"node-{number}"] = {"connector": "csv", "path": str(path)}
    document = {
        "name": "round",
        "purpose": "Measure how long a round takes",
        "task": {"type": "binary", "target": "y"},
        "patient_id": None,
        "features": {name: {"type": "number", "range": [-1, 1]} for name in names},
        "cohort": dict.fromkeys(sites, PATIENTS),
        "model": {"name": "mlp", "hidden": list(hidden)},
        "training": {
            "strategy": {"name": "fedavg"},
            "rounds": rounds,
            "local": {"steps": 1, "batch_size": "full", "learning_rate": 0.01},
            "quorum": nodes,
            "round_timeout_s": 600,
        },
        "privacy": {"mode": "none"},
        "evaluation": {"test_fraction": 0.0},
        "simulation": {"sites": sites},
    }
    path = folder / "round.yaml"
    path.write_text(dump_yaml(document))
    return path


def _shapes(size: int) -> list[tuple[str, tuple[int, ...]]]:
    from configs.schema import Model
    from strategies.models.registry import architecture

    parameters = architecture(Model("mlp", hidden=HIDDEN[size]), inputs=INPUTS, outputs=1).parameters
    return [(name, shape) for name, (shape, _) in parameters.items()]


if __name__ == "__main__":
    main()
