"""A study of very many patients on one machine: peak memory of each command, and times.

It says when the model is there, too.

    python -m simulations.benchmarks.many_patients [--patients 1000000] [--only simulate baselines plan]

Two hospitals with half of the made-up patients each, in CSV files; a logistic model, full batches, 3 rounds, privacy.
`simulate` is without baselines, `baselines` with them, `plan` the planning aid (`--worth`), cut off after a minute of
computing. `peak_mb` is the command's own peak of resident memory, as the system counted it for the child; `model_s` is
when model.safetensors was there: the figures come after it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from configs.strict_yaml import dump_yaml

SITES = ("lille", "lyon")
PIECE = 100_000  # patients that are written at once


def main(arguments: list[str] | None = None) -> None:
    """Measure and print one JSON line a command."""
    parser = argparse.ArgumentParser(prog="python -m simulations.benchmarks.many_patients")
    parser.add_argument("--patients", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="+", choices=sorted(COMMANDS), default=sorted(COMMANDS, reverse=True))
    options = parser.parse_args(arguments)
    with TemporaryDirectory(prefix="archipel-") as name:
        study = write_study(Path(name), options.patients)
        for what in options.only:
            print(json.dumps({"command": what, "patients": options.patients} | measured(study, what)), flush=True)


COMMANDS = {
    "simulate": ("simulate", "{study}", "--no-baselines", "--out", "{out}"),
    "baselines": ("simulate", "{study}", "--out", "{out}"),
    "plan": ("plan", "{study}", "--worth", "--seconds", "60", "--json"),
}


def write_study(folder: Path, patients: int) -> Path:
    """Write two hospitals' made-up patients, and the study of them."""
    rng, each = np.random.default_rng(0), patients // len(SITES)
    for place, site in enumerate(SITES):
        with (folder / f"{site}.csv").open("w") as file:
            file.write("id,age,creatinine,sex,died\n")
            for start in range(0, each, PIECE):
                count = min(PIECE, each - start)
                age, creatinine = rng.integers(18, 100, count), rng.integers(40, 400, count)
                sex, chance = rng.integers(0, 2, count), rng.random(count)
                died = chance < (age - 18) / 164 + (creatinine - 40) / 1440
                for n in range(count):
                    number = f"{place}{start + n:08d}"
                    file.write(f"{number},{age[n]},{creatinine[n]},{'FM'[sex[n]]},{int(died[n])}\n")
    document = {
        "name": "many-patients",
        "purpose": "Measure the memory of a large study",
        "task": {"type": "binary", "target": "died"},
        "patient_id": "id",
        "features": {
            "age": {"type": "number", "range": [18, 100]},
            "creatinine": {"type": "number", "range": [40, 400]},
            "sex": {"type": "category", "values": ["F", "M"]},
        },
        "cohort": dict.fromkeys(SITES, each),
        "model": {"name": "logistic"},
        "training": {
            "strategy": {"name": "fedavg"},
            "rounds": 3,
            "local": {"batch_size": "full", "learning_rate": 1.0},
            "quorum": 2,
            "round_timeout_s": 3600,
        },
        "privacy": {"mode": "local", "epsilon": 3.0, "delta": 1e-8, "clip_norm": 0.5, "spare": 2},
        "evaluation": {"test_fraction": 0.3, "metrics": ["auroc", "accuracy"]},
        "simulation": {"sites": {site: {"connector": "csv", "path": f"{site}.csv"} for site in SITES}},
    }
    path = folder / "study.yaml"
    path.write_text(dump_yaml(document))
    return path


def measured(study: Path, what: str) -> dict[str, Any]:
    """Run one command; return its peak memory, its seconds and its exit code."""
    out = study.parent / f"out-{what}"
    words = [word.format(study=study, out=out) for word in COMMANDS[what]]
    began, model_s = time.monotonic(), None
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "simulations.cli", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while True:
        ended, status, usage = os.wait4(child.pid, os.WNOHANG)
        if model_s is None and list(out.glob("*/model.safetensors")):
            model_s = round(time.monotonic() - began, 1)
        if ended:
            break
        time.sleep(0.1)
    child.returncode = os.waitstatus_to_exitcode(status)
    return {
        "rc": child.returncode,
        "peak_mb": round(usage.ru_maxrss / 1024),
        "seconds": round(time.monotonic() - began, 1),
        "model_s": model_s,
    }


if __name__ == "__main__":
    main()
