"""What does a small 3-D U-Net learn of four hospitals' made-up brains, and what does epsilon 8 cost?

    python -m simulations.benchmarks.brains [--patients 24] [--rounds 20] [--side 24]

The study of configs/presets/brain_seg.yaml on brains whose truth is known (simulations/data/brains/make_up.py). One
JSON line for each: without privacy, by local steps of Adam and by the preset's own steps, and with the preset's
epsilon. `dice` is of all test patients, with its 95 % interval; `everything` is the Dice of saying that every place
which is not dark is white matter. Six minutes on two cores.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from configs.strict_yaml import dump_yaml, read_yaml
from simulations import cli
from simulations.data.brains.make_up import make_up, volume_of

PRESET = Path(__file__).resolve().parents[2] / "configs" / "presets" / "brain_seg.yaml"
ADAM = {"strategy": {"name": "fedavg"}}
ADAM_STEPS = {"steps": 10, "batch_size": 4, "optimizer": "adam", "learning_rate": 0.02}


def main(arguments: list[str] | None = None) -> int:
    """Print one line for each way of training."""
    parser = argparse.ArgumentParser(prog="python -m simulations.benchmarks.brains")
    parser.add_argument("--patients", type=int, default=24, help="of each hospital")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--side", type=int, default=24)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        make_up(Path(folder), options.patients, options.side)
        for row in measured(Path(folder), options.patients, options.rounds, options.side):
            print(json.dumps(row), flush=True)
    return 0


def measured(folder: Path, patients: int, rounds: int, side: int) -> Iterator[dict[str, Any]]:
    """Yield the lines, of brains that lie in a folder."""
    everything = round(_everything(folder), 3)
    for name, changes, local in (
        ("adam", {"privacy": {"mode": "none"}}, ADAM_STEPS),
        ("preset", {"privacy": {"mode": "none"}}, {}),
        ("preset", {}, {}),
    ):
        document = study(folder, patients, rounds, side)
        document |= changes
        if local:
            document["training"] |= ADAM | {"local": local}
        started = time.process_time()
        metrics = simulated(folder, document)
        dice = metrics["models"]["federated"]["metrics"]["dice"]
        yield {
            "training": name,
            "epsilon": document["privacy"].get("epsilon"),
            "hospitals": len(document["cohort"]),
            "patients": patients,
            "side": side,
            "rounds": rounds,
            "dice": round(dice["value"], 3),
            "low": round(dice["low"], 3),
            "high": round(dice["high"], 3),
            "everything": everything,
            "cpu_seconds": round(time.process_time() - started, 1),
        }


def study(folder: Path, patients: int, rounds: int, side: int) -> dict[str, Any]:
    """Return the preset's document, about the brains in a folder."""
    document: dict[str, Any] = read_yaml(PRESET)
    document["cohort"] = dict.fromkeys(document["cohort"], patients)
    document["training"]["rounds"] = rounds
    for sized in (document["task"], document["features"]["scan"]):
        sized["size"] = [side] * 3
    for site, source in document["simulation"]["sites"].items():
        source.update(path=str(folder / f"{site}.csv"), root=str(folder))
    return document


def simulated(folder: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of a study's simulation, without baselines.

    Raises:
        RuntimeError: it did not end complete.
    """
    path, out = folder / "study.yaml", folder / "runs"
    path.write_text(dump_yaml(dict(document)))
    with contextlib.redirect_stdout(sys.stderr):
        code = cli.main(["simulate", str(path), "--no-baselines", "--out", str(out)])
    if code:
        raise RuntimeError("the simulation did not end complete; see above")
    return dict(json.loads((out / "latest" / "metrics.json").read_text()))


def _everything(folder: Path) -> float:
    """Return the mean Dice of calling every place white matter that is brighter than a fifth of the brightest."""
    found = []
    for scan in sorted(folder.glob("*/*-t1.nii")):
        image, mask = (volume_of(path) for path in (scan, _mask_of(scan)))
        bright = image > image.max() / 5
        found.append(2 * (bright * mask).sum() / (bright.sum() + mask.sum()))
    return float(np.mean(found))


def _mask_of(scan: Path) -> Path:
    return scan.with_name(scan.name.replace("t1", "white"))


if __name__ == "__main__":
    sys.exit(main())
