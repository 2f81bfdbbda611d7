"""Do the intervals of the release `inference` hold what they say, and how wide are they?

    python -m simulations.benchmarks.inference [--simulations 2000] [--cases mixed,rare]

In each simulation fresh made-up patients of several hospitals; a final model as a short private training leaves it
(full batches from zeros, clipped, noised); each hospital's release and what the coordinator makes of them, by the
product's own code; the converged regression on all patients; the truth that drew them. A row says how many of all
coefficients' intervals held the converged pooled ratio (`pooled`, the noise's interval) and the true one (`truth`, of
noise and sampling), their width over that of the pooled regression without noise, how often the noise would have
drowned the ratios (`undefined`), and the error of a straight Newton step and of ours, without noise, in standard errors
of the pooled regression. Case `few` has too few patients, `rare` rare values, `far` a training that ended far from
where it leads to; `hazards` are of times to an event that not every patient was followed up to, an outcome share of
events in six intervals. 2,000 simulations of all cases take about twenty minutes on one core.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.load import study_from
from configs.schema import Study
from strategies.data.table import TablePatients
from strategies.effects import contrasts
from strategies.learning import learning_of
from strategies.privacy.modes.registry import mode_of
from strategies.privacy.plan import Budget, least_noise
from strategies.privacy.randomness import Randomness
from strategies.releases.base import Arrays
from strategies.releases.inference import noised, of_sums
from strategies.releases.information import Frame, frame_of, summed
from strategies.releases.registry import INFERENCE

Floats = NDArray[np.float64]
DELTA, ROUNDS, RATE = 1e-5, 30, 2.0


@dataclass(frozen=True)
class Case:
    """Made-up hospitals. numbers: columns; shares: of the second value of each category of two."""

    name: str
    hospitals: int
    patients: int
    epsilon: float
    numbers: int = 3
    shares: tuple[float, ...] = (0.5, 0.3, 0.2, 0.4)
    clip: float = 1.5
    training_epsilon: float = 3.0
    events: float = 0.0  # of hazards: the share of patients with an event by the end, were all followed

    @property
    def intervals(self) -> int:
        """Return the intervals at risk; 0 where the outcome has no time."""
        return 6 if self.events else 0


CASES = (
    Case("mixed", 4, 1500, 1.0),
    Case("mixed", 4, 1500, 3.0),
    Case("mixed", 4, 7500, 1.0),
    Case("mixed", 20, 1500, 1.0),
    Case("few", 4, 500, 1.0),
    Case("rare", 4, 3000, 1.0, numbers=1, shares=(0.5, 0.05, 0.1, 0.3, 0.2)),
    Case("far", 4, 3000, 1.0, clip=0.5, training_epsilon=1.0),
    Case("hazards", 4, 1500, 3.0, events=0.3),
    Case("hazards", 4, 5000, 1.0, events=0.3),
    Case("hazards", 4, 5000, 1.0, events=0.15),
    Case("hazards", 4, 1500, 3.0, events=0.5),
)
QUICK_HAZARDS = Case("quick-hazards", 2, 1500, 3.0, numbers=1, shares=(0.5, 0.3), events=0.4)
QUICK = Case("quick", 2, 800, 3.0, numbers=1, shares=(0.5, 0.3))


@dataclass(frozen=True)
class Simulated:
    """One simulation: for each contrast what the row is about; the first three are None where it is undefined."""

    straight: Floats
    bent: Floats
    pooled: Floats | None = None
    truth: Floats | None = None
    width: Floats | None = None


def main(arguments: list[str] | None = None) -> None:
    """Print one JSON line a case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--cases", default=",".join(dict.fromkeys(case.name for case in CASES)))
    parser.add_argument("--quick", action="store_true", help="one small case")
    options = parser.parse_args(arguments)
    chosen = [QUICK] if options.quick else [case for case in CASES if case.name in options.cases.split(",")]
    for case in chosen:
        print(json.dumps(row(case, options.simulations)), flush=True)


def row(case: Case, simulations: int) -> dict[str, Any]:
    """Return what came of so many simulations of a case."""
    every = list(_simulations(case, simulations))
    defined = [one for one in every if one.width is not None]

    def mean(name: str) -> float | None:
        return round(float(np.mean([getattr(one, name) for one in defined])), 4) if defined else None

    def size(name: str) -> float:
        return round(float(np.sqrt(np.mean([getattr(one, name) ** 2 for one in every]))), 3)

    return {
        "case": case.name,
        "hospitals": case.hospitals,
        "patients": case.patients,
        "columns": case.numbers + len(case.shares) + 1,
        "epsilon": case.epsilon,
        "simulations": simulations,
        "pooled": mean("pooled"),
        "truth": mean("truth"),
        "width": mean("width"),
        "undefined": round(1 - len(defined) / len(every), 4),
        "straight_error": size("straight"),
        "error": size("bent"),
    }


def study_of(case: Case) -> Study:
    """Return a study of the case: numbers, categories of two values, and one of three."""
    numbers: dict[str, Any] = {f"number{i}": {"type": "number", "range": [0, 10]} for i in range(case.numbers)}
    words: dict[str, Any] = {f"word{i}": {"type": "category", "values": ["no", "yes"]} for i in range(len(case.shares))}
    cuts = list(range(case.intervals + 1))
    hazards = {"type": "survival", "time": "time", "event": "event", "intervals": cuts, "outcome_share": case.events}
    return study_from(
        {
            "name": case.name,
            "purpose": "benchmark",
            "task": hazards if case.events else {"type": "binary", "target": "outcome"},
            "patient_id": None,
            "features": {**numbers, **words, "stage": {"type": "category", "values": ["i", "ii", "iii"]}},
            "cohort": {f"h{i}": case.patients for i in range(case.hospitals)},
            "model": {"name": "logistic"},
            "training": {
                "strategy": {"name": "fedavg"},
                "rounds": ROUNDS,
                "local": {"epochs": 1, "batch_size": "full", "learning_rate": RATE},
            },
            "privacy": {"mode": "local", "epsilon": case.training_epsilon, "delta": DELTA, "clip_norm": case.clip},
            "evaluation": {"test_fraction": 0.0},
            "releases": {"inference": {"epsilon": case.epsilon}},
        }
    )


def _simulations(case: Case, simulations: int) -> Iterator[Simulated]:
    study = study_of(case)
    learning, frame = learning_of(study), frame_of(study)
    plan = mode_of(study).plan(study, study.sites[0])
    assert plan is not None
    event = INFERENCE.event(plan)
    assert event is not None
    deviation = event.noise_multiplier * frame.length
    truth = _truth(case)
    for number in range(simulations):
        rng = np.random.default_rng([number, case.patients, case.hospitals])
        chance = Randomness.seeded(number, case.name, case.hospitals)
        made = _made_up(case, rng, truth)
        pooled, covariance = converged(made.rows, made.y, truth)
        model = _final_model(case, rng, made, frame)
        exact, released = np.zeros(frame.size), {}
        for site, people in zip(study.sites, made.hospitals(case), strict=True):
            part = summed(people, learning, model, frame)
            exact += part
            released[site] = {"information": noised(part, deviation, chance)}
        yield _judged(study, released, exact, model, (pooled, covariance, truth), frame)


def _judged(
    study: Study,
    released: dict[str, Arrays],
    exact: Floats,
    model: Arrays,
    anchor: tuple[Floats, Floats, Floats],
    frame: Frame,
) -> Simulated:
    pooled, covariance, truth = anchor
    told = INFERENCE.combine(study, released, model)
    weights = np.stack([contrast.weights for contrast in contrasts(study)])
    inputs = len(study.inputs)
    errors = np.sqrt(np.einsum("ci,ij,cj->c", weights, covariance[:inputs, :inputs], weights))
    noiseless = of_sums(study, model, exact, frame, [0.0])
    assert noiseless.moved is not None
    start = np.asarray(model["0.weight"][0, :inputs], np.float64)
    score, information = frame.apart(exact)
    straight = (weights @ (start - np.linalg.solve(information, score)[:inputs] - pooled[:inputs])) / errors
    bent = (weights @ (start + noiseless.moved[:inputs] - pooled[:inputs])) / errors
    if told.undefined:
        return Simulated(straight, bent)
    of_pooled, whole = (
        np.log([[e.low, e.high] for r in told.rows if (e := getattr(r, name))]) for name in ("pooled", "estimate")
    )
    return Simulated(
        straight,
        bent,
        _holds(of_pooled, weights @ pooled[:inputs]),
        _holds(whole, weights @ truth[:inputs]),
        (whole[:, 1] - whole[:, 0]) / (2 * 1.96 * errors),
    )


def _holds(ends: Floats, values: Floats) -> Floats:
    return ((ends[:, 0] <= values) & (values <= ends[:, 1])).astype(np.float64)


def converged(z: Floats, y: NDArray[np.float32], start: Floats) -> tuple[Floats, Floats]:
    """Return the converged logistic regression's coefficients and their covariance; a y below 0 says nothing."""
    z, y, weights = z[y >= 0], y[y >= 0], start.copy()
    for _ in range(50):
        p = _sigmoid(z @ weights)
        information = (z * (p * (1 - p))[:, None]).T @ z
        step = np.linalg.solve(information, z.T @ (y - p))
        weights += step
        if np.abs(step).max() < 1e-9:
            break
    return weights, np.asarray(np.linalg.inv(information), np.float64)


@dataclass(frozen=True)
class _MadeUp:
    """All patients' rows, patient by patient: rows (rows, coefficients) with their intercepts, y, owners (rows,)."""

    rows: Floats
    y: NDArray[np.float32]
    owners: NDArray[np.int64]

    def hospitals(self, case: Case) -> Iterator[TablePatients]:
        """Yield each hospital's patients, with the rows that a study's model reads."""
        x = (self.rows if case.events else self.rows[:, :-1]).astype(np.float32)
        for first in range(0, case.hospitals * case.patients, case.patients):
            here = (self.owners >= first) & (self.owners < first + case.patients)
            owners = self.owners[here] - first
            starts = np.searchsorted(owners, np.arange(case.patients + 1))
            yield TablePatients(x[here], self.y[here], owners, starts)


def _made_up(case: Case, rng: np.random.Generator, truth: Floats) -> _MadeUp:
    """Return rows and outcomes: one row a patient, or one for each interval at risk."""
    x = _inputs(case, rng)
    everybody = np.arange(len(x))
    if not case.events:
        rows = np.concatenate([x, np.ones((len(x), 1))], axis=1)
        return _MadeUp(rows, (rng.random(len(x)) < _sigmoid(rows @ truth)).astype(np.float32), everybody)
    intervals = case.intervals
    hazards = _sigmoid((x @ truth[:-intervals])[:, None] + truth[-intervals:])
    occurs = rng.random(hazards.shape) < hazards
    event = np.where(occurs.any(axis=1), occurs.argmax(axis=1), intervals)
    lost = np.floor(rng.random(len(x)) * 1.6 * intervals).astype(np.int64)  # the interval in which sight is lost
    last = np.maximum(np.minimum(event + 1, np.minimum(lost, intervals)), 1)
    owners, interval = np.nonzero(np.arange(intervals) < last[:, None])
    y = ((event[owners] == interval) & (interval < lost[owners])).astype(np.float32)
    y[lost[owners] == 0] = -1.0  # never seen at risk: a row that says nothing
    return _MadeUp(np.concatenate([x[owners], np.eye(intervals)[interval]], axis=1), y, owners)


def _final_model(case: Case, rng: np.random.Generator, made: _MadeUp, frame: Frame) -> Arrays:
    """Return the model of a short private training by all hospitals, averaged over its second half."""
    deviation = least_noise(Budget(case.training_epsilon, DELTA), 1.0, ROUNDS) * case.clip * case.hospitals**0.5
    width, patients = len(frame.centre), case.hospitals * case.patients
    z = made.rows.copy()
    z[:, :width] -= frame.centre
    starts = np.searchsorted(made.owners, np.arange(patients))
    weights, mean = np.zeros(z.shape[1]), np.zeros(z.shape[1])
    if case.events:
        weights[width:] = np.log(-np.log1p(-case.events) / case.intervals)
    for number in range(ROUNDS):
        residual = np.where(made.y < 0, 0.0, _sigmoid(z @ weights) - made.y)
        gradients = np.add.reduceat(residual[:, None] * z, starts, axis=0)
        norms = np.linalg.norm(gradients, axis=1)
        summed = np.minimum(1.0, case.clip / (norms + 1e-9)) @ gradients
        weights = weights - RATE * (summed + rng.normal(0, deviation, len(weights))) / patients
        mean += weights * 2 / ROUNDS if number >= ROUNDS // 2 else 0.0
    mean[width:] -= mean[:width] @ frame.centre
    if case.events:
        return {"0.weight": mean[None].astype(np.float32), "0.bias": np.zeros(1, np.float32)}
    return {"0.weight": mean[None, :-1].astype(np.float32), "0.bias": mean[-1:].astype(np.float32)}


def _truth(case: Case) -> Floats:
    numbers, words = np.array([1.2, 0.8, -0.6]), np.array([0.5, 0.9, -0.4, 0.2, -0.7])
    ends = [-0.8]
    if case.events:  # hazards that fall over time
        ends = list(np.linspace(0.5, -0.5, case.intervals) + np.log(-np.log1p(-case.events) / case.intervals) - 0.5)
    return np.array([*numbers[: case.numbers], *words[: len(case.shares)], 0.3, -0.5, *ends])


def _inputs(case: Case, rng: np.random.Generator) -> Floats:
    """Return all hospitals' patients, one after the other: (rows, inputs)."""
    rows = case.hospitals * case.patients
    numbers = np.clip(rng.normal([0.0, -0.2, 0.1][: case.numbers], 0.38, (rows, case.numbers)), -1, 1)
    numbers[:, 1:] = np.clip(numbers[:, 1:] + 0.3 * numbers[:, :1], -1, 1)
    stage = rng.integers(0, 3, rows)
    return np.stack(
        [*numbers.T, *((rng.random(rows) < share) * 1.0 for share in case.shares), stage == 1, stage == 2], axis=1
    ).astype(np.float64)


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-values)))


if __name__ == "__main__":
    main()
