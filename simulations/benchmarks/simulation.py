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
from pathlib import Path
from typing import Any, NamedTuple

from simulations.benchmarks.simulated_by_others import (
    BATCH,
    CLIP,
    FEATURES,
    LEARNING_RATE,
    ROWS,
    Finished,
    Trial,
    data_of,
    flower_ray,
    pfl,
    plain,
)

ROOT = Path(__file__).resolve().parents[2]
SYSTEMS = ("plain", "inprocess", "ray", "flower_ray", "pfl")
CLIENTS = (4, 100, 1000)
EPSILON, DELTA = 8.0, 1e-3
PFL_PYTHON, STARTED = "ARCHIPEL_PFL_PYTHON", "ARCHIPEL_STARTED"
MIN_SECONDS = 1.5  # of rounds in each process, so that a median has something to stand on


class Case(NamedTuple):
    """What is measured: a system, its number of clients, and whether they train with privacy."""

    system: str
    clients: int
    private: bool


def main(arguments: list[str] | None = None) -> None:
    """Measure every case and print one JSON line a row."""
    options = _options(arguments)
    if options.child:
        _child(*options.child)
        return
    for clients in options.clients:
        _ratios(_measure_all(clients, options))


def _measure_all(clients: int, options: argparse.Namespace) -> dict[Case, float]:
    """Measure every system at one number of clients, print their rows and return their clients per second."""
    cases = [Case(system, clients, private) for private in (False, True) for system in options.systems]
    measured: dict[Case, list[dict[str, float]]] = {case: [] for case in cases if _is_available(case)}
    for repeat in range(options.repeats):
        for case, figures in measured.items():
            if not (repeat and _is_slow(case) and clients >= 100):  # minutes each, and far from any other: once
                figures.append(_measure(case, quick=options.quick))
    return {case: _row(case, figures) for case, figures in measured.items()}


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


def _is_slow(case: Case) -> bool:
    return "ray" in case.system or (case.system == "plain" and case.private)


def _is_available(case: Case) -> bool:
    return case.system != "pfl" or (not case.private and _runs(_interpreter("pfl"), "import pfl"))


def _interpreter(system: str) -> str:
    return os.environ.get(PFL_PYTHON, sys.executable) if system == "pfl" else sys.executable


def _runs(python: str, code: str) -> bool:
    return subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0


def _measure(case: Case, *, quick: bool) -> dict[str, float]:
    """Return one process's seconds a round, its start-up and its peak memory."""
    command = [_interpreter(case.system), "-m", "simulations.benchmarks.simulation", "--child"]
    seconds = 0.0 if quick else MIN_SECONDS
    environment = {
        **os.environ,
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        STARTED: str(time.time()),
    }
    command += [case.system, str(case.clients), str(int(case.private)), str(seconds)]
    # Files: a talkative system would fill a pipe and wait for ever.
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=complaints)
        peak = _watch_memory(process)
        output.seek(0)
        complaints.seek(0)
        lines, errors = output.read().strip().splitlines(), complaints.read()[-2000:]
    if process.returncode or not lines:
        raise SystemExit(
            f"{case.system} with {case.clients} clients ended with code {process.returncode} and no figure\n{errors}"
        )
    figures: dict[str, float] = json.loads(lines[-1])
    return figures | {"memory_mb": peak}


def _watch_memory(process: "subprocess.Popen[bytes]") -> float:
    """Return the largest resident memory of the process and all its descendants together, in MB: ten looks a second."""
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


def _row(case: Case, figures: list[dict[str, float]]) -> float:
    rate = case.clients / statistics.median(f["seconds"] for f in figures)
    row = {
        **case._asdict(),
        "clients_per_second": round(rate, 1),
        "startup_seconds": round(statistics.median(f["startup"] for f in figures), 2),
        "memory_mb": round(statistics.median(f["memory_mb"] for f in figures)),
    }
    print(json.dumps(row), flush=True)
    return rate


def _ratios(rates: dict[Case, float]) -> None:
    for case, rate in rates.items():
        ours = rates.get(case._replace(system="inprocess"))
        if ours and case.system != "inprocess":
            row = {
                "ratio": f"inprocess/{case.system}",
                "clients": case.clients,
                "private": case.private,
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

    case = Case(system, int(clients), private == "1")
    run = {"plain": plain, "inprocess": _inprocess, "ray": _ray, "flower_ray": flower_ray, "pfl": pfl}[system]
    run(Trial(case.clients, case.private, _rounds_for(case, float(seconds))), finished)
    usual = statistics.median(durations[1:])
    startup = ended[0] - min(usual, durations[0]) - float(os.environ[STARTED])
    print(json.dumps({"seconds": usual, "startup": startup}), flush=True)


def _rounds_for(case: Case, seconds: float) -> int:
    """Return a number of rounds fixed beforehand: about so many seconds at a speed that the system surely has."""
    speed = 100 if _is_slow(case) else 1000  # clients per second
    return max(2 if "ray" in case.system else 3, round(seconds * speed / case.clients))  # Ray takes minutes with 1,000


def _study(trial: Trial) -> Any:
    from configs.load import study_from

    privacy = {"mode": "local", "epsilon": EPSILON, "delta": DELTA, "clip_norm": CLIP}
    return study_from(
        {
            "name": "speed",
            "purpose": "Measure clients per second",
            "task": {"type": "binary", "target": "outcome"},
            "patient_id": None,
            "features": {f"x{i:02d}": {"type": "number", "range": [-1, 1]} for i in range(FEATURES)},
            "cohort": {f"client-{i:05d}": ROWS for i in range(trial.clients)},
            "model": {"name": "mlp", "hidden": [64, 32]},
            "training": {
                "strategy": {"name": "fedavg"},
                "rounds": trial.rounds,
                "local": {"epochs": 1, "batch_size": BATCH, "learning_rate": LEARNING_RATE},
            },
            "privacy": privacy if trial.private else {"mode": "none"},
            "evaluation": {"test_fraction": 0},
        }
    )


def _train_of(site: str) -> Any:
    import numpy as np

    from strategies.data.table import TablePatients

    x, y = data_of(int(site.rpartition("-")[2]))
    return TablePatients(x, y, np.arange(ROWS), np.arange(ROWS + 1))


def _archipel(engine: str, trial: Trial, finished: Finished) -> None:
    from server.app import make_app
    from simulations.engines import run_engine
    from simulations.hospitals import Hospitals

    study = _study(trial)

    def make_server(done: Any) -> Any:
        return make_app(study, observer=lambda record, _model: finished(record.seconds), done=done)

    conducted = run_engine(engine, Hospitals(study, _train_of), make_server)
    assert conducted.rounds.outcome == "COMPLETE", conducted.rounds.why


def _inprocess(trial: Trial, finished: Finished) -> None:
    _archipel("inprocess", trial, finished)


def _ray(trial: Trial, finished: Finished) -> None:
    _archipel("ray", trial, finished)


if __name__ == "__main__":
    main()
