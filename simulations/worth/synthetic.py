"""Synthetic patients for a study that has not run.

They are made from announced sizes and public ranges; no patient is read. What is assumed, and nothing of it is known
before a study has run:

- A truth of the model's own kind: the outcome follows a logistic model (softmax for several classes) of the study's
  inputs. Every input matters, with a normal weight on its own scale. What interactions add is not in it, and what
  curves add only of columns that the study lets bend: the bends together weigh as much as the straight column.
- Its strength is `Assumed.signal`: the AUROC that a perfect model of the patient's features would reach.
- The outcome's share is `Assumed.outcomes`; several classes are equally frequent.
- A number is bell-shaped; its public range is five of its standard deviations wide and its mean lies up to .3 of the
  half range from the middle. A category's values have unequal shares. Up to a tenth of a column that may be unknown is,
  and that says nothing about the outcome.
- Columns go together, as in a clinic: a patient's severity, which is hidden, moves each of them (a correlation of .5
  with a number, so .25 between two) in the direction in which it moves the outcome.
- Hospitals differ: `Assumed.differences` is the standard deviation, over hospitals, of a number's mean (in standard
  deviations of patients), of a category's log odds and of the outcome's.
- One row is one patient.

Patients become inputs by the study's own encoding. A model is judged on 4,000 further patients of the same hospitals,
by their outcome's probability in place of a drawn outcome, which takes that draw's chance out of the figure.

>>> from configs.load import study_from
>>> world = draw(study_from(EXAMPLE, source="example"), Assumed(signal=0.8), seed=0)
>>> {site: patients.count for site, patients in world.train.items()}
{'brest': 60, 'lille': 100}
>>> round(world.auroc_of(world.best), 3)
0.8
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import ConfigError
from configs.schema import Feature, Study
from strategies.data.base import concatenate
from strategies.data.source import Table
from strategies.data.table import TablePatients, encoded
from strategies.exchange.arrays import Arrays
from strategies.learning import Learning, learning_of
from strategies.tasks.classification import AUROC, auroc
from strategies.tasks.registry import OBJECTIVES, objective_of

TEST_PATIENTS = 4000
CALIBRATED = 0.05  # mean predicted less observed within which a model is taken for calibrated
RANGE_DEVIATIONS = 5.0  # standard deviations that a public range spans
MEAN_SHIFT = 0.3  # of the half range, at most
UNKNOWN = 0.1  # share of a column that may be unknown, at most
SEVERITY = 0.5  # correlation of a number with the patient's severity
CATEGORY_SPREAD = 0.7  # standard deviation of a category's log odds
MAX_STRENGTH = 64.0
_HALVINGS = 16
_STEPS = 40  # of the fixed point for the outcome's share

EXAMPLE: dict[str, Any] = {
    "name": "example",
    "purpose": "Show how patients are made up",
    "task": {"type": "binary", "target": "disease"},
    "patient_id": None,
    "features": {"age": {"type": "number", "range": [20, 90]}},
    "cohort": {"brest": 60, "lille": 100},
    "model": {"name": "logistic"},
    "training": {"strategy": {"name": "fedavg"}, "rounds": 3, "local": {"batch_size": "full", "learning_rate": 1.0}},
    "privacy": {"mode": "local", "epsilon": 3.0, "delta": 1e-5, "clip_norm": 1.0},
    "evaluation": {"test_fraction": 0.0},
}

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Assumed:
    """The assumptions that cannot be known beforehand; see the module's docstring.

    Raises:
        ConfigError: a value that no world has.
    """

    signal: float = 0.85
    outcomes: float = 0.4
    differences: float = 0.4

    def __post_init__(self) -> None:
        allowed = {"signal": (0.55, 0.99), "outcomes": (0.01, 0.99), "differences": (0.0, 2.0)}
        problems = [
            f"{name}: expected {low:g} to {high:g}, got {getattr(self, name):g}"
            for name, (low, high) in allowed.items()
            if not low <= getattr(self, name) <= high
        ]
        if problems:
            raise ConfigError("assumed", problems)


@dataclass(frozen=True, slots=True)
class Judged:
    """A model's figures in one world. Without one outcome, as of several classes, the AUROC alone.

    Args:
        calibration: mean predicted probability less the observed share (calibration-in-the-large).
        called: the share of patients whose outcome is predicted with one half or more.
    """

    auroc: float
    calibration: float | None = None
    called: float | None = None

    @property
    def score(self) -> float:
        """Return the AUROC, less what the calibration is off beyond what is tolerated: settings are chosen by it."""
        return self.auroc - max(0.0, abs(self.calibration or 0.0) - CALIBRATED)


@dataclass(frozen=True)
class World:
    """Patients of one made-up draw. chances: (test rows, classes), the outcome's probabilities; best: log odds."""

    task: Learning
    train: Mapping[str, TablePatients]
    test: TablePatients
    chances: Floats
    best: Floats

    def judge(self, model: Arrays) -> Judged:
        """Return a model's expected figures on the test patients."""
        scores, outcome = self.task.predict(model, self.test.x), self.task.objective.outcome
        if outcome is None:
            return Judged(self.auroc_of(scores))
        predicted = scores[:, outcome]
        off = float(predicted.mean() - self.chances[:, outcome].mean())
        return Judged(self.auroc_of(scores), off, float((predicted >= 0.5).mean()))

    def auroc_of(self, scores: Floats) -> float:
        """Return the same of any scores, (test rows, classes)."""
        return expected_auroc(scores, self.chances)


def expected_auroc(scores: Floats, chances: Floats) -> float:
    """Return the expected AUROC where each row has each class with a probability, (rows, classes) both."""
    rows, classes = chances.shape
    y = np.repeat(np.arange(classes), rows).astype(np.float64)
    return float(auroc(y, np.tile(scores, (classes, 1)), chances.T.reshape(1, -1))[0])


def draw(study: Study, assumed: Assumed, seed: int) -> World:
    """Return one world: the same for the same study, assumptions and seed.

    Raises:
        ConfigError: no announced hospitals, or a task without an AUROC.
    """
    require_announced(study)
    rng = np.random.default_rng([seed, 0xA7C41])
    population = [_population(feature, rng) for feature in study.predictors]
    hospitals = [[p.at_a_hospital(assumed.differences, rng) for p in population] for _ in study.sites]
    announced = np.array([study.announced_patients(site) or 1 for site in study.sites])
    tests = np.maximum(1, np.round(TEST_PATIENTS * announced / announced.sum())).astype(int)
    trains = [study.announced_train_patients(site) or 1 for site in study.sites]
    test_parts = [_patients(study, columns, n, rng) for columns, n in zip(hospitals, tests, strict=True)]
    train_parts = [_patients(study, columns, n, rng) for columns, n in zip(hospitals, trains, strict=True)]
    test = concatenate(test_parts)
    where = np.repeat(np.arange(len(tests)), tests)
    signs = np.concatenate([column.signs() for column in population])
    truth = _truth(test.x, where, signs, max(2, len(study.task.classes)), assumed, rng)
    trained = {
        site: _with_outcomes(part, truth.chances(part.x, np.full(part.count, i)), rng)
        for i, (site, part) in enumerate(zip(study.sites, train_parts, strict=True))
    }
    return World(learning_of(study), trained, test, truth.chances(test.x, where), truth.best(test.x))


def require_announced(study: Study) -> None:
    """Refuse what no world can be made for.

    Raises:
        ConfigError: no announced hospitals, or a task without an AUROC.
    """
    problems = []
    if not study.cohort:
        problems.append("cohort: expected each hospital's announced patients, found nothing; add it")
    if study.input_shape is not None:
        problems.append(
            "features: expected columns with public ranges or values, found records that the model reads itself; "
            "simulate the study on data that you have instead"
        )
    if objective_of(study).metrics[0] != AUROC:
        types = " or ".join(kind.name for kind in OBJECTIVES if kind.metrics[0] == AUROC)
        problems.append(
            f"task.type: expected {types}, as the loss is counted in AUROC, found {study.task.type}; "
            "simulate the study on data that you have instead"
        )
    if problems:
        raise ConfigError(f"{study.name}: patients cannot be made up", problems)


@dataclass(frozen=True)
class _Number:
    feature: Feature
    mean: float  # in the feature's unit
    deviation: float
    sign: float  # of severity's pull
    unknown: float
    bends: tuple[float, ...]  # the pull of each bend

    def signs(self) -> Floats:
        """Return which way, and how much, each of the column's inputs pulls the outcome; 0 not at all."""
        return np.array([self.sign, *self.bends, *([0.0] if self.feature.missing else [])])

    def at_a_hospital(self, differences: float, rng: np.random.Generator) -> "_Number":
        return replace(self, mean=self.mean + differences * self.deviation * float(rng.normal()))

    def values(self, severity: Floats, rng: np.random.Generator) -> Floats:
        residual = math.sqrt(1 - SEVERITY**2) * rng.normal(size=len(severity))
        values = self.mean + self.deviation * (SEVERITY * self.sign * severity + residual)
        values[rng.random(len(severity)) < self.unknown] = np.nan
        return np.asarray(np.clip(values, self.feature.minimum, self.feature.maximum))


@dataclass(frozen=True)
class _Category:
    feature: Feature
    log_odds: Floats  # (values,)
    pulls: Floats  # (values,) what a unit of severity adds to them
    unknown: float

    def signs(self) -> Floats:
        """Return the signs as of a number; the first value is the reference."""
        relative = np.sign(self.pulls[1:] - self.pulls[0])
        return np.append(relative, 0.0) if self.feature.missing else relative

    def at_a_hospital(self, differences: float, rng: np.random.Generator) -> "_Category":
        return replace(self, log_odds=self.log_odds + differences * rng.normal(size=len(self.log_odds)))

    def values(self, severity: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
        log_odds = self.log_odds + severity[:, None] * self.pulls  # (patients, values)
        codes = (log_odds + rng.gumbel(size=log_odds.shape)).argmax(axis=1)
        codes[rng.random(len(severity)) < self.unknown] = -1
        return np.asarray(codes, np.int64)


def _population(feature: Feature, rng: np.random.Generator) -> _Number | _Category:
    unknown = UNKNOWN * float(rng.random()) if feature.missing else 0.0
    if feature.type == "category":
        spread = CATEGORY_SPREAD * rng.normal(size=len(feature.values))
        return _Category(feature, spread, 2 * SEVERITY * rng.normal(size=len(feature.values)), unknown)
    assert feature.minimum is not None
    assert feature.maximum is not None
    half = (feature.maximum - feature.minimum) / 2
    mean = feature.minimum + half * (1 + float(rng.uniform(-MEAN_SHIFT, MEAN_SHIFT)))
    sign = float(rng.choice([-1.0, 1.0]))
    inner = max(0, len(feature.knots) - 2)
    bends = tuple((rng.choice([-1.0, 1.0], inner) / math.sqrt(inner)).tolist()) if inner else ()
    return _Number(feature, mean, 2 * half / RANGE_DEVIATIONS, sign, unknown, bends)


def _patients(study: Study, columns: list[_Number | _Category], count: int, rng: np.random.Generator) -> TablePatients:
    """Return the patients of one hospital, without an outcome yet."""
    severity = rng.normal(size=count)
    numbers = {c.feature.name: c.values(severity, rng) for c in columns if isinstance(c, _Number)}
    categories = {c.feature.name: c.values(severity, rng) for c in columns if isinstance(c, _Category)}
    keys = tuple(map(str, range(count)))
    targets = {column.name: np.zeros(count) for column in study.task.columns}
    table = Table(numbers, categories, targets, np.arange(count), keys)
    return encoded(table, study)


@dataclass(frozen=True)
class _Truth:
    """Log odds of each class are `strength * x @ weights + intercepts`, and a shift of each hospital."""

    weights: Floats  # (inputs, classes)
    strength: float
    intercepts: Floats  # (classes,)
    shifts: Floats  # (hospitals, classes)

    def best(self, x: NDArray[np.float32]) -> Floats:
        """Return the perfect model's probabilities, which knows everything but the hospital: (rows, classes)."""
        return _softmax(self.strength * (x @ self.weights) + self.intercepts)

    def chances(self, x: NDArray[np.float32], hospitals: NDArray[np.int64]) -> Floats:
        """Return (rows, classes) probabilities; hospitals: (rows,) positions."""
        return _softmax(self.strength * (x @ self.weights) + self.intercepts + self.shifts[hospitals])


def _truth(
    x: NDArray[np.float32],
    hospitals: NDArray[np.int64],
    signs: Floats,
    classes: int,
    assumed: Assumed,
    rng: np.random.Generator,
) -> _Truth:
    """Return the truth with the assumed AUROC of a perfect model over these rows, and the assumed share of outcomes."""
    scale = x.std(axis=0).astype(np.float64)
    weights = np.abs(signs)[:, None] * rng.normal(size=(x.shape[1], classes))
    weights /= np.where(scale > 0, scale, 1.0)[:, None]
    shifts = assumed.differences * rng.normal(size=(int(hospitals.max()) + 1, classes))
    shares = np.full(classes, 1 / classes)
    if classes == 2:
        weights = np.stack([np.zeros(len(signs)), np.abs(weights[:, 1]) * signs], axis=1)
        shifts[:, 0] = 0.0
        shares = np.array([1 - assumed.outcomes, assumed.outcomes])

    def reached(strength: float) -> tuple[_Truth, float]:
        truth = _with_strength(strength, weights, shifts, shares, x, hospitals)
        return truth, expected_auroc(truth.best(x), truth.chances(x, hospitals))

    low, high = 0.0, 1.0
    while reached(high)[1] < assumed.signal and high < MAX_STRENGTH:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle)[1] < assumed.signal else (low, middle)
    return reached(high)[0]


def _with_strength(
    strength: float, weights: Floats, shifts: Floats, shares: Floats, x: NDArray[np.float32], hospitals: NDArray[Any]
) -> _Truth:
    """Return the truth with intercepts that give the shares, by a fixed point."""
    truth = _Truth(weights, strength, np.log(shares), shifts)
    for _ in range(_STEPS):
        chances = truth.chances(x, hospitals).mean(axis=0)
        if np.abs(chances - shares).max() < 1e-4:
            break
        truth = _Truth(weights, strength, truth.intercepts + np.log(shares / chances), shifts)
    return truth


def _with_outcomes(patients: TablePatients, chances: Floats, rng: np.random.Generator) -> TablePatients:
    drawn = (rng.random(len(chances))[:, None] > np.cumsum(chances, axis=1)[:, :-1]).sum(axis=1)
    return TablePatients(patients.x, drawn.astype(np.float32), patients.patients, patients.starts)


def _softmax(log_odds: Floats) -> Floats:
    powers = np.exp(log_odds - log_odds.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
