"""The settings that `training: auto` stands for, as a pure function of public facts.

They follow from the columns, the announced sizes, the announced outcome share, epsilon, delta and the spare releases:
what a study says before anybody has looked at a patient. Each comes with its reason, which `archipel complete` writes
beside it. What was tried and measured stands in configs/decisions/0033; `simulations.benchmarks.settings` measures it.

One step of everybody a round, averaged over hospitals, is gradient descent with noise on the mean of clipped gradients.
Rounds alone do not cost accuracy: the noise of a round grows with their root, and their steps shrink. What counts is
the learning time, rounds times learning rate. Too little of it learns nothing, and the noise in each weight grows with
it, as clip norm * learning time * `noise_of`. So the time is set where that noise has a public, fixed size.

>>> from configs.schema import Feature
>>> age = Feature("age", "number", minimum=20.0, maximum=90.0)
>>> sex = Feature("sex", "category", values=("female", "male"))
>>> round(row_norm((age, sex)), 2)
1.2
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np

from configs.errors import ConfigError
from configs.schema import Feature, Study
from strategies.data.curve import bends
from strategies.data.table import centres
from strategies.privacy.plan import Budget, least_noise
from strategies.tasks.registry import objective_of

DEVIATION, OFF_CENTRE = 0.4, 0.03  # of a number in [-1, 1]: its range five deviations wide; mean square of its mean
UNKNOWN_SHARE = 0.05  # of a column that may be unknown
CLIP_SHARE = 0.65  # clip norm over row norm: shorter ones count heads, longer ones add noise
NOISE_TIME = 0.25  # learning time times noise times steepness
STEEPEST = 4.0  # learning rate times steepness, at most
FEWEST, MOST = 16, 100  # rounds
NO_NOISE = {"rounds": 60, "steepest": 2.0, "momentum": 0.9}  # of a study without privacy
SPARE = 2  # lost releases of a hospital that may be made anew
_POINTS = 41  # at which a number's inputs are averaged


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a study with its value, and the public facts from which it follows; no section: a key of the file."""

    section: str
    key: str
    value: Any
    why: str


def settings_of(study: Study) -> tuple[Setting, ...]:
    """Return every setting that an unfinished study leaves open, in the order of its file.

    Raises:
        ConfigError: a public fact is missing: the hospitals, or the share of a task that can begin nowhere else.
        PrivacyError: no noise keeps the budget.
    """
    _require_facts(study)
    return (*_inputs(study), *_model(study), *_training(study), *_privacy(study))


def _require_facts(study: Study) -> None:
    problems = []
    if not study.sites:
        problems.append("cohort: expected each hospital's announced patients for training: auto, found none; add them")
    if study.input_shape is not None:
        text = "expected rounds, strategy and local with a model that reads records, found auto"
        problems.append(f"training: {text}; write them (what is tried here was measured on rows of numbers)")
    if objective_of(study).begins_at_share and study.task.outcome_share is None:
        about = "the share of patients with an event in the end, for training: auto to begin at"
        problems.append(f"task.outcome_share: expected {about}, found nothing; add it")
    if problems:
        raise ConfigError(study.name, problems)


def row_norm(features: Sequence[Feature], added: int = 0) -> float:
    """Return the root mean square of a row's norm, as public ranges and values have it, with the intercept's 1.

    A gradient of a linear model is a residual times the row, so that this is the scale of a clip norm.

    Args:
        added: 1 where a task adds inputs of which one is 1, as intervals of time.
    """
    return math.sqrt(1.0 + added + sum(map(_mean_square, features)))


def noise_of(study: Study) -> float:
    """Return the noise's deviation in a mean gradient, over the clip norm, if all of epsilon went into one round.

    With noise at each hospital it is 1 / (mu * patients) * root of hospitals, where mu is that of Gaussian
    differential privacy (Dong 2019, arXiv 1905.02383) at epsilon and delta.
    """
    once = least_noise(Budget(study.privacy.epsilon, study.privacy.delta), 1.0, 1)
    return once * math.sqrt(len(study.sites) if study.privacy.keys.noised_here else 1) / _patients(study)


def _patients(study: Study) -> int:
    return sum(study.announced_train_patients(site) or 1 for site in study.sites)


def _mean_square(feature: Feature) -> float:
    """Return the sum of a column's mean squared inputs; a category's values are taken as equally frequent."""
    unknown = UNKNOWN_SHARE if feature.missing else 0.0
    if feature.type == "category":
        return sum(middle * (1.0 - middle) for middle in centres(feature)) + unknown
    return _of_a_number(len(feature.knots)) + unknown


@cache
def _of_a_number(knots: int) -> float:
    bell = NormalDist(0.0, DEVIATION)
    values = np.array([min(1.0, max(-1.0, bell.inv_cdf((i + 0.5) / _POINTS))) for i in range(_POINTS)])
    inputs = np.stack([values, *bends(values, knots)])
    return float((inputs**2).sum(axis=0).mean()) + OFF_CENTRE


def _inputs(study: Study) -> tuple[Setting, ...]:
    if all(feature.type == "number" for feature in study.predictors):
        return ()
    why = "shorter rows, so less noise, and an intercept that learns for itself"
    return (Setting("", "scaling", "centred", why),)


def _model(study: Study) -> tuple[Setting, ...]:
    share = study.task.outcome_share
    if share is None:
        return ()
    return (Setting("model", "init", "share", f"everybody begins at the announced share {share:g}"),)


def _training(study: Study) -> tuple[Setting, ...]:
    private = study.privacy.keys.budgeted
    rounds, rate, why, rate_why = _with_noise(study) if private else _without_noise(study)
    momentum = {"name": "fedavgm", "server_momentum": NO_NOISE["momentum"]}
    local = {"epochs": 1, "batch_size": "full", "optimizer": "sgd", "learning_rate": _brief(rate)}
    if not private and study.cohort:
        local |= {"weight_decay": float(f"{1 / _patients(study):.1g}")}
    plain, quick = "one step a round leaves no drift between hospitals to correct", "momentum: no noise to add up"
    announced = bool(study.cohort)
    return (
        Setting("training", "strategy", {"name": "fedavg"} if private else momentum, plain if private else quick),
        Setting(
            "training",
            "weights",
            "public" if announced else "uniform",
            "by announced patients" if announced else "no sizes are announced",
        ),
        Setting("training", "rounds", rounds, why),
        Setting("training", "average_last", 0.5 if private else 0.1, "noise of single rounds averages out"),
        Setting("training", "local", local, rate_why),
        Setting("training", "quorum", len(study.training_sites), "every hospital"),
        Setting("training", "round_timeout_s", 600, "the usual"),
    )


def _steepness(study: Study) -> float:
    """Return the most that a mean loss can be curved, by the public size of rows: beyond 2 over it steps diverge."""
    return objective_of(study).largest_curvature * _norm(study) ** 2


def _norm(study: Study) -> float:
    return row_norm(study.predictors, added=bool(objective_of(study).added_inputs))


def _with_noise(study: Study) -> tuple[int, float, str, str]:
    noise, curved = noise_of(study), _steepness(study)
    rounds = round(min(max(NOISE_TIME / STEEPEST / noise, FEWEST), MOST))
    time = min(NOISE_TIME / noise, STEEPEST * rounds) / curved
    facts = f"epsilon {study.privacy.epsilon:g}, {_patients(study):,} training patients in {len(study.sites)} hospitals"
    return rounds, time / rounds, facts, f"a learning time of {time:.2g} in all: the same facts, and the row norm"


def _without_noise(study: Study) -> tuple[int, float, str, str]:
    rate = NO_NOISE["steepest"] / _steepness(study)
    return (
        int(NO_NOISE["rounds"]),
        rate,
        "to convergence",
        f"a typical row's norm is {_norm(study):.3g}; ridge as usual",
    )


def _privacy(study: Study) -> tuple[Setting, ...]:
    if not study.privacy.keys.budgeted:
        return ()
    norm = _norm(study)
    why = f"{CLIP_SHARE:g} of a typical row's norm {norm:.3g}, from the columns' public ranges and values"
    lost = "a release that is lost after it was booked ends no study"
    return (
        Setting("privacy", "clip_norm", _brief(CLIP_SHARE * norm), why),
        Setting("privacy", "spare", SPARE, lost),
    )


def _brief(value: float) -> float:
    """Return two significant digits, so that a setting can be read and typed."""
    return float(f"{value:.2g}")
