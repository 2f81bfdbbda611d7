"""How well linear models of `encoder: texture` read pictures, without privacy and with.

    python -m simulations.benchmarks.textures [--patients 250] [--draws 3]    one JSON line a row

Four hospitals of made-up patients with one PNG picture each, 33 x 33: a smooth ground, three bumps and noise; of those
who are ill one of the bumps is striped, at any place and in any direction. Brightness and contrast differ by hospital.
Pictures lie in files and are read, encoded and trained on by the product's own path. Settings are the same for every
epsilon. Figures are the AUROC on as many further patients of the four hospitals, and how many pictures become numbers
in a second.
"""

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.patients import load_patients
from configs.load import study_from
from configs.schema import CsvFile, Study
from simulations.benchmarks.heart import score
from simulations.memory import train
from strategies.data.base import concatenate

SIDE, EPSILONS = 33, (None, 8.0, 3.0)
LIGHT = {"north": (1.0, 0.0), "east": (0.7, 15.0), "south": (1.3, -10.0), "west": (0.85, 5.0)}  # contrast, brightness
Floats = NDArray[np.float64]


def picture(
    rng: np.random.Generator, *, ill: bool, contrast: float = 1.0, brightness: float = 0.0
) -> NDArray[np.uint8]:
    """Return a made-up picture, (33, 33); of one who is ill the first bump is striped."""
    y, x = np.mgrid[:SIDE, :SIDE]
    frequencies = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE)))
    ground = np.fft.ifft2(np.fft.fft2(rng.normal(size=(SIDE, SIDE))) * np.exp(-((6 * frequencies) ** 2))).real
    image = 0.5 * ground / ground.std() + 0.15 * rng.normal(size=ground.shape)
    for bump in range(3):
        (across, down), width = rng.uniform(5, SIDE - 5, 2), rng.uniform(3, 5)
        height = rng.uniform(1.5, 2.5) * rng.choice([-1, 1])
        angle, wavelength, phase = rng.uniform(0, np.pi), rng.uniform(3.5, 5), rng.uniform(0, 2 * np.pi)
        along = (x - across) * np.cos(angle) + (y - down) * np.sin(angle)
        stripes = np.cos(2 * np.pi * along / wavelength + phase) if ill and not bump else 1.0
        image += height * stripes * np.exp(-((x - across) ** 2 + (y - down) ** 2) / (2 * width**2))
    return np.asarray(np.clip(128 + brightness + contrast * 30 * image, 0, 255), np.uint8)


def write_hospital(folder: Path, site: str, patients: int, seed: int) -> CsvFile:
    """Write a hospital's pictures, and their index with an id, a path and the outcome; return where they are."""
    from PIL import Image

    rng, root = np.random.default_rng([seed, sorted(LIGHT).index(site)]), folder / site
    root.mkdir()
    contrast, brightness = LIGHT[site]
    with (folder / f"{site}.csv").open("w", newline="") as file:
        index = csv.writer(file)
        index.writerow(["patient", "scan", "ill"])
        for number in range(patients):
            ill = bool(rng.random() < 0.5)
            pixels = picture(rng, ill=ill, contrast=contrast, brightness=brightness)
            Image.fromarray(pixels).save(root / f"{number}.png")
            index.writerow([f"p{number}", f"{number}.png", int(ill)])
    return CsvFile(folder / f"{site}.csv", root=root)


def study_of(patients: int, epsilon: float | None, **changes: Any) -> Study:
    """Return the study: 20 rounds with privacy, and 300 without."""
    privacy: dict[str, Any] = {"mode": "none"}
    if epsilon is not None:
        privacy = {"mode": "local", "epsilon": epsilon, "delta": 1e-5, "clip_norm": 2.0}
    document = {
        "name": "textures",
        "purpose": "Measure what a fixed encoder keeps",
        "task": {"type": "binary", "target": "ill"},
        "patient_id": "patient",
        "features": {"scan": {"type": "image", "reader": "png", "size": [SIDE, SIDE], "encoder": "texture"}},
        "cohort": dict.fromkeys(LIGHT, patients),
        "model": {"name": "logistic"},
        "training": {
            "strategy": {"name": "fedavg"},
            "rounds": 300 if epsilon is None else 20,
            "local": {"batch_size": "full", "epochs": 1, "learning_rate": 1.0},
            "average_last": 0.5,
        },
        "privacy": privacy,
        "evaluation": {"test_fraction": 0.5},
    }
    return study_from(document | changes, source="benchmark")


def rows(patients: int, draws: int) -> Iterator[dict[str, Any]]:
    """Yield how fast pictures become numbers, then a row for each epsilon: the mean over draws of pictures."""
    scores: dict[float | None, list[float]] = {epsilon: [] for epsilon in EPSILONS}
    seconds = 0.0
    for draw in range(draws):
        with tempfile.TemporaryDirectory() as folder:
            sources = {site: write_hospital(Path(folder), site, 2 * patients, draw) for site in LIGHT}
            begun = time.perf_counter()
            people = {site: load_patients(source, study_of(patients, None), site) for site, source in sources.items()}
            seconds += time.perf_counter() - begun
        test = concatenate([each.test for each in people.values()])
        for epsilon in EPSILONS:
            study = study_of(patients, epsilon)
            model = train(study, {site: each.train for site, each in people.items()}).model
            scores[epsilon].append(score(study, model, test, "auroc"))
    yield {"patients": patients, "pictures_a_second": round(2 * patients * len(LIGHT) * draws / seconds)}
    for epsilon in EPSILONS:
        yield {"patients": patients, "epsilon": epsilon, "auroc": round(float(np.mean(scores[epsilon])), 3)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print one JSON line a row."""
    parser = argparse.ArgumentParser(prog="python -m simulations.benchmarks.textures")
    parser.add_argument("--patients", type=int, default=250, help="patients that each hospital trains on")
    parser.add_argument("--draws", type=int, default=3, help="draws of pictures, of which a row is the mean")
    options = parser.parse_args(arguments)
    for row in rows(options.patients, options.draws):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
