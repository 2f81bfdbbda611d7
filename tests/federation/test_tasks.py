"""Whole studies of every task, with several rows a patient, end to end."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.strict_yaml import dump_yaml
from simulations.cli import main

SITES = ("lille", "lyon")
TASKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # task, model
    "binary": ({"type": "binary", "target": "outcome", "classes": ["well", "ill"]}, {"name": "mlp", "hidden": [8]}),
    "multiclass": ({"type": "multiclass", "target": "outcome", "classes": ["a", "b", "c"]}, {"name": "logistic"}),
    "regression": ({"type": "regression", "target": "outcome", "range": [-3, 3], "unit": "mmol/l"}, {"name": "linear"}),
}


def write_hospital(path: Path, task: str, seed: int) -> None:
    """Patients with one to three visits; the outcome follows two measurements."""
    rng = np.random.default_rng(seed)
    lines = ["patient,sodium,crp,outcome"]
    for patient in range(120):
        for _ in range(rng.integers(1, 4)):
            sodium, crp = rng.uniform(-1, 1, 2)
            signal = 2 * sodium - crp + rng.normal(0, 0.3)
            outcome = {
                "binary": "ill" if signal > 0 else "well",
                "multiclass": "abc"[int(np.digitize(signal, [-0.7, 0.7]))],
                "regression": f"{signal:.4f}",
            }[task]
            lines.append(f"p{patient},{sodium:.4f},{crp:.4f},{outcome}")
    path.write_text("\n".join(lines) + "\n")


def write_study(folder: Path, task: str, privacy: dict[str, Any]) -> Path:
    for seed, site in enumerate(SITES):
        write_hospital(folder / f"{site}.csv", task, seed)
    document = {
        "name": f"synthetic-{task}",
        "purpose": "Check that every task works",
        "task": TASKS[task][0],
        "patient_id": "patient",
        "features": {name: {"type": "number", "range": [-1, 1]} for name in ("sodium", "crp")},
        "cohort": dict.fromkeys(SITES, 120),
        "model": TASKS[task][1],
        "training": {
            "strategy": {"name": "fedavg"},
            "rounds": 15,
            "local": {"epochs": 1, "batch_size": 20, "learning_rate": 0.5},
        },
        "privacy": privacy,
        "evaluation": {"test_fraction": 0.3},
        "simulation": {"sites": {site: {"connector": "csv", "path": f"{site}.csv"} for site in SITES}},
    }
    path = folder / "study.yaml"
    path.write_text(dump_yaml(document))
    return path


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("privacy", [{"mode": "none"}, {"mode": "local", "epsilon": 8, "delta": 1e-4, "clip_norm": 1}])
def test_a_study_of_every_task_learns_with_and_without_privacy(
    task: str, privacy: dict[str, Any], tmp_path: Path
) -> None:
    study = write_study(tmp_path, task, privacy)
    assert main(["simulate", str(study), "--out", str(tmp_path / "runs")]) == 0
    run = tmp_path / "runs" / "latest"
    metrics = json.loads((run / "metrics.json").read_text())
    measured = metrics["models"]["federated"]["metrics"]
    if task == "regression":
        assert metrics["models"]["federated"]["auroc"] is None
        assert measured["r2"]["value"] > 0.5
        assert measured["mae"]["low"] < measured["mae"]["value"] < measured["mae"]["high"]
    else:
        assert measured["auroc"]["value"] > 0.85
    assert all(site["patients_train"] + site["patients_test"] == 120 for site in metrics["sites"])
    assert (run / "report.html").stat().st_size > 10_000
