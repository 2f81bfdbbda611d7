"""How near do private hazards come to a pooled Cox model, on real sets split into six unequal hospitals?

    python -m simulations.benchmarks.survival [--sets rott2,flchain] [--splits 4] [--select]

One JSON line for each set and epsilon (null: without privacy): the mean concordance index over splits of the
federation, its standard error, of a Cox model of all data in one place, and of hazards fitted at each hospital alone.

ACTG 175 is read from simulations/data, rossi and gbsg2 from lifelines. Others are in the package SurvSet (GPL-3),
which is no dependency: `pip install SurvSet` beside Archipel for rott2, flchain, support2, smarto and Dialysis, the
last one in 32 real centres. Hospitals are made by quantiles of one column with as
much chance, 34 to 4 % of the patients each.
Settings are chosen on even splits with `--select`, and figures are those of odd ones. Ranges are the set's own 1 and
99 %: a benchmark may measure them, a study may not.
"""

import argparse
import importlib
import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs.errors import DataError
from configs.load import study_from
from configs.schema import Study
from server.app import make_app
from simulations.anchors import pooled_cox
from simulations.converged import converged
from simulations.engines import run_engine
from simulations.hospitals import Hospitals
from strategies.data.base import concatenate
from strategies.data.registry import data_of
from strategies.data.source import Table
from strategies.learning import learning_of
from strategies.privacy.modes.none import without_privacy
from strategies.tasks.times import concordance

Floats = NDArray[np.float64]
EPSILONS = (None, 8.0, 3.0, 1.0)
SHARES = (0.34, 0.24, 0.18, 0.12, 0.08, 0.04)
TEST, INTERVALS, MOST = 0.34, 8, 3000
# epsilon: (clip norm, learning rate, rounds), chosen on even splits (--select)
SETTINGS: dict[float | None, tuple[float, float, int]] = {
    None: (2.0, 1.0, 100),  # a clip holds a large rate back; without one it diverges
    8.0: (2.0, 3.0, 60),
    3.0: (2.0, 3.0, 60),
    1.0: (1.0, 3.0, 30),
}
CANDIDATES = ((1.0, 3.0, 30), (1.0, 3.0, 60), (2.0, 3.0, 30), (2.0, 3.0, 60), (1.0, 6.0, 30))


@dataclass(frozen=True)
class Set:
    """One set: features (patients, inputs), time, event, and a hospital's number for each patient."""

    name: str
    x: Floats
    time: Floats
    event: NDArray[np.int64]
    hospital: NDArray[np.int64]


# SurvSet's name: what is left out, as it is the outcome or stands for the hospital, and what makes hospitals.
SURVSET = {
    "rott2": ((), "num_nodes"),
    "flchain": (("fac_chapter", "num_sample_yr", "fac_sample_yr"), "num_age"),
    "support2": (("fac_sfdm2", "num_surv2m", "num_surv6m", "fac_dzclass"), "num_age"),
    "smarto": ((), "num_age"),
    "Dialysis": ((), "fac_center"),
}
LIFELINES = {"rossi": ("week", "arrest", "age"), "gbsg2": ("time", "cens", "age")}


def main(arguments: list[str] | None = None) -> int:
    """Print one line for each set and epsilon."""
    parser = argparse.ArgumentParser(prog="python -m simulations.benchmarks.survival")
    parser.add_argument("--sets", default="actg175,rossi,gbsg2,rott2,flchain,support2,smarto,Dialysis")
    parser.add_argument("--splits", type=int, default=4)
    parser.add_argument("--patients", type=int, default=MOST, help="of a larger set so many, drawn at random")
    parser.add_argument("--select", action="store_true", help="print what even splits say of each candidate")
    chosen = parser.parse_args(arguments)
    for name in chosen.sets.split(","):
        try:
            data = few(load(name), chosen.patients)
        except DataError as error:
            print(error, file=sys.stderr)
            continue
        rows = selected(data, chosen.splits) if chosen.select else measured(data, chosen.splits)
        for row in rows:
            print(json.dumps(row), flush=True)
    return 0


def measured(data: Set, splits: int) -> Iterator[dict[str, Any]]:
    """Yield a line for each epsilon, from odd splits."""
    facts = {"set": data.name, "patients": len(data.x), "inputs": data.x.shape[1], "events": int(data.event.sum())}
    concordances: dict[float | None, list[float]] = {epsilon: [] for epsilon in EPSILONS}
    anchors: list[tuple[float, float]] = []
    for seed in range(1, 2 * splits, 2):
        split = _Split(data, seed)
        anchors.append((split.cox(), split.alone()))
        for epsilon in EPSILONS:
            concordances[epsilon].append(split.federated(epsilon, SETTINGS[epsilon]))
    cox, alone = np.mean(anchors, axis=0)
    for epsilon, values in concordances.items():
        error = float(np.std(values) / np.sqrt(len(values)))
        figures = {"c_index": float(np.mean(values)), "se": error, "cox": float(cox), "alone": float(alone)}
        yield facts | {"hospitals": len(set(data.hospital)), "epsilon": epsilon} | _rounded(figures)


def selected(data: Set, splits: int) -> Iterator[dict[str, Any]]:
    """Yield a line for each epsilon and candidate, from even splits."""
    for epsilon, settings in itertools.product(EPSILONS, CANDIDATES):
        values = [_Split(data, seed).federated(epsilon, settings) for seed in range(0, 2 * splits, 2)]
        clip, rate, rounds = settings
        facts = {"set": data.name, "epsilon": epsilon, "clip_norm": clip, "learning_rate": rate, "rounds": rounds}
        yield facts | _rounded({"c_index": float(np.mean(values))})


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in figures.items()}


class _Split:
    """One split of a set into training and test patients of each hospital."""

    def __init__(self, data: Set, seed: int) -> None:
        self._data, self._seed = data, seed
        self._study = self._study_with(None, SETTINGS[None])
        rng = np.random.default_rng([seed, len(data.x)])
        in_test = rng.random(len(data.x)) < TEST
        numbers = np.unique(data.hospital)
        sides = [
            {f"h{n:02d}": self._people((data.hospital == n) & side) for n in numbers} for side in (~in_test, in_test)
        ]
        self._train, test = sides
        self._test = concatenate(list(test.values()))
        self._task = learning_of(self._study)

    def cox(self) -> float:
        return self._concordance(pooled_cox(self._study, concatenate(list(self._train.values())))(self._test))

    def alone(self) -> float:
        models = [converged(self._task, people) for people in self._train.values()]
        return float(np.mean([self._concordance(self._task.predictions(model, self._test)) for model in models]))

    def federated(self, epsilon: float | None, settings: tuple[float, float, int]) -> float:
        study = self._study_with(epsilon, settings)
        with closing(Hospitals(study, self._train.__getitem__)) as hospitals:
            model = run_engine("inprocess", hospitals, lambda done: make_app(study, done=done)).model
        return self._concordance(self._task.predictions(model, self._test))

    def _concordance(self, predicted: Floats) -> float:
        y = self._task.objective.in_unit(self._test.outcomes)
        return float(concordance(y, predicted, np.ones((1, len(y))))[0])

    def _people(self, chosen: NDArray[np.bool_]) -> Any:
        data, rows = self._data, np.flatnonzero(chosen)
        numbers = {f"x{i:02d}": data.x[rows, i] for i in range(data.x.shape[1])}
        targets = {"time": data.time[rows], "event": data.event[rows].astype(float)}
        keys = tuple(f"{row:06d}" for row in rows)
        return data_of(self._study).read(Table(numbers, {}, targets, np.arange(len(rows)), keys), self._study)[0]

    def _study_with(self, epsilon: float | None, settings: tuple[float, float, int]) -> Study:
        clip, rate, rounds = settings
        data = self._data
        sizes = {f"h{n:02d}": int((1 - TEST) * (data.hospital == n).sum()) for n in np.unique(data.hospital)}
        ends = np.unique(np.quantile(data.time[data.event == 1], np.linspace(0, 1, INTERVALS + 1)[1:-1]))
        last = float(np.quantile(data.time, 0.95))
        cuts = [0.0, *(float(end) for end in ends if 0 < end < last), last]
        low, high = np.quantile(data.x, [0.01, 0.99], axis=0)
        flat = high <= low
        low, high = np.where(flat, data.x.min(0), low), np.where(flat, data.x.max(0) + 1e-6, high)
        features = {
            f"x{i:02d}": {"type": "number", "range": [float(low[i]), float(high[i])]} for i in range(data.x.shape[1])
        }
        study = study_from(
            {
                "name": "benchmark",
                "purpose": "measure what privacy costs",
                "task": {"type": "survival", "time": "time", "event": "event", "intervals": cuts},
                "patient_id": None,
                "features": features,
                "cohort": sizes,
                "model": {"name": "logistic"},
                "training": {
                    "strategy": {"name": "fedavg"},
                    "rounds": rounds,
                    "average_last": 0.5,
                    "local": {"epochs": 1, "batch_size": "full", "learning_rate": rate},
                },
                "privacy": {"mode": "local", "epsilon": epsilon or 1.0, "delta": 1e-5, "clip_norm": clip},
                "evaluation": {"test_fraction": 0.0},
                "seed": self._seed,
            }
        )
        return study if epsilon else without_privacy(study)


def load(name: str) -> Set:
    """Return a set by name.

    Raises:
        DataError: what brings it is not installed.
    """
    if name == "actg175":
        return _actg175()
    if name in LIFELINES:
        time, event, by = LIFELINES[name]
        table = getattr(_module("lifelines.datasets", name), f"load_{name}")()
        return _set(name, table.drop(columns=[time, event]), table[time], table[event], by)
    if name not in SURVSET:
        names = ", ".join(("actg175", *LIFELINES, *SURVSET))
        raise DataError(f"{name}: expected one of {names}; correct it")
    leave_out, by = SURVSET[name]
    table = _module("SurvSet.data", name).SurvLoader().load_dataset(ds_name=name)["df"]
    features = table.drop(columns=["pid", "time", "event", *leave_out])
    return _set(name, features, table["time"], table["event"], by)


def few(data: Set, most: int) -> Set:
    """Return at most so many of a set's patients, drawn at random; all of one with hospitals of its own."""
    if len(data.x) <= most or data.name == "Dialysis":
        return data
    rows = np.sort(np.random.default_rng(0).permutation(len(data.x))[:most])
    return Set(data.name, data.x[rows], data.time[rows], data.event[rows], data.hospital[rows])


def _module(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise DataError(f"{name}: expected the package {package}, found none; pip install {package}") from None


def _actg175() -> Set:
    from simulations.data.actg175.rebuild import FOLDER, HOSPITALS

    tables = [pd.read_csv(FOLDER / f"{name}.csv").assign(hospital=name) for name in HOSPITALS]
    table = pd.concat(tables, ignore_index=True)
    return _set("actg175", table.drop(columns=["days", "event"]), table["days"], table["event"], "hospital")


def _set(name: str, features: pd.DataFrame, time: pd.Series, event: pd.Series, by: str) -> Set:
    """Return numbers with medians for what is unknown, words as 0 and 1, and hospitals by a column."""
    is_hospital = features[by].dtype == object or str(features[by].dtype).startswith(("str", "cat"))
    if is_hospital:
        sizes = features[by].map(features[by].value_counts())
        keep = (sizes >= 100).to_numpy()
        hospital = pd.factorize(features[by])[0]
        features = features.drop(columns=[by])
    else:
        keep = np.ones(len(features), bool)
        ranks = features[by].rank(method="first").to_numpy() / len(features)
        skewed = ranks + np.random.default_rng(0).uniform(size=len(ranks))
        hospital = np.searchsorted(np.cumsum(SHARES)[:-1], np.argsort(np.argsort(skewed)) / len(ranks))
    words = features.select_dtypes(exclude="number").columns
    numbers = features.drop(columns=words)
    coded = (
        pd.get_dummies(features[words].astype(str), drop_first=True)
        if len(words)
        else pd.DataFrame(index=features.index)
    )
    x = pd.concat([numbers.fillna(numbers.median()), coded], axis=1).to_numpy(np.float64)
    times = np.maximum(time.to_numpy(np.float64), 0.0)
    return Set(name, x[keep], times[keep], event.to_numpy(np.int64)[keep], hospital[keep])


if __name__ == "__main__":
    sys.exit(main())
