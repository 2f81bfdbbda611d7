"""A study of a kit with a reader and a score of its own: pictures whose masks are learned."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.strict_yaml import dump_yaml
from simulations.cli import main
from strategies.kits.shelf import SHELF

SIDE = 12
SITES = ("brest", "lille")
MODULE = f"""
import numpy as np
import torch
from torch import nn
from strategies.kit import ImageInput, Model, Reader

SHAPE = (1, {SIDE}, {SIDE})

def soft_dice(outputs, mask):
    p, m = outputs.sigmoid().flatten(1), mask.flatten(1)
    return 1 - (2 * (p * m).sum(1) + 1) / (p.sum(1) + m.sum(1) + 1)

def dice(outputs, mask):
    found = (outputs > 0).float()
    return float(2 * (found * mask).sum() / (found.sum() + mask.sum()).clamp(min=1))

def read(path):
    return np.load(path, allow_pickle=False).astype(np.float32)[None] / 128 - 1

net = Model(build=lambda: nn.Conv2d(1, 1, 3, padding=1), loss=soft_dice, score=dice, input=ImageInput(SHAPE),
            target=ImageInput(SHAPE))
bytes_of = Reader(read, shape=SHAPE)
"""
PROJECT = """
[project]
name = "archipel-kit-discs"
version = "0.1"
[project.entry-points."archipel.models"]
net = "archipel_kit_discs:net"
[project.entry-points."archipel.readers"]
bytes_of = "archipel_kit_discs:bytes_of"
"""


def write_hospital(folder: Path, patients: int, seed: int) -> None:
    """Bright discs on noise in pictures of the clinic's own kind, and their masks."""
    folder.mkdir()
    chance, (down, right) = np.random.default_rng(seed), np.mgrid[:SIDE, :SIDE]
    lines = ["scan,mask"]
    for i in range(patients):
        (y, x), radius = chance.uniform(3, SIDE - 3, 2), chance.uniform(2, 4)
        mask = (down - y) ** 2 + (right - x) ** 2 < radius**2
        picture = np.clip(chance.normal(128, 20, mask.shape) + np.where(mask, 60, -60), 0, 255).astype(np.uint8)
        np.save(folder / f"{i}.npy", picture)
        np.save(folder / f"{i}-mask.npy", mask.astype(np.uint8))
        lines.append(f"{i}.npy,{i}-mask.npy")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")


def document(kit: str) -> dict[str, Any]:
    return {
        "name": "discs",
        "purpose": "Find the discs",
        "task": {"type": "own_mask", "target": "mask", "reader": "npy", "size": [SIDE, SIDE]},
        "patient_id": None,
        "features": {"scan": {"type": "image", "reader": "discs/bytes_of", "size": [SIDE, SIDE]}},
        "cohort": dict.fromkeys(SITES, 40),
        "kit": {"name": "discs", "version": "0.1", "sha256": kit},
        "model": {"name": "discs/net"},
        "training": {
            "strategy": {"name": "fedavg"},
            "rounds": 3,
            "local": {"steps": 4, "batch_size": "full", "optimizer": "adam", "learning_rate": 0.1},
        },
        "privacy": {"mode": "local", "epsilon": 20, "delta": 1e-4, "clip_norm": 0.5},
        "evaluation": {"test_fraction": 0.25},
        "releases": {"score_sum": {"epsilon": 8}},
        "simulation": {
            "sites": {s: {"connector": "csv", "path": f"{s}/index.csv", "root": s} for s in SITES},
        },
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("discs")
    (folder / "kit").mkdir()
    (folder / "kit" / "archipel_kit_discs.py").write_text(MODULE)
    (folder / "kit" / "pyproject.toml").write_text(PROJECT)
    for seed, site in enumerate(SITES):
        write_hospital(folder / site, 40, seed)
    return folder


def test_a_kits_reader_and_score_train_and_judge_a_study_of_masks(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SHELF.clear()
    assert main(["kit", "build", str(folder / "kit")]) == 0
    digest = capsys.readouterr().out.partition("sha256 ")[2].split()[0]
    study = folder / "study.yaml"
    study.write_text(dump_yaml(document(digest)))
    options = ["--kit", str(folder / "kit"), "--no-baselines", "--out", str(folder / "runs")]
    assert main(["simulate", str(study), *options]) == 0
    metrics = json.loads((folder / "runs" / "latest" / "metrics.json").read_text())
    assert metrics["models"]["federated"]["metrics"]["score"]["value"] > 0.8
    released = metrics["releases"]["score_sum"]
    assert abs(released["exact"] - metrics["models"]["federated"]["metrics"]["score"]["value"]) < 1e-6
    SHELF.clear()
