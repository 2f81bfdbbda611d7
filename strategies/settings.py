"""The settings that `training: auto` stands for, as a pure function of public facts.

They follow from the columns, the announced sizes, the announced outcome share, epsilon, delta and the spare releases:
what a study says before anybody has looked at a patient. Each comes with its reason, which `archipel complete` writes
beside it. The measurements behind them stand in configs/decisions/0033 and in `simulations.benchmarks.settings`.

>>> from configs.schema import Feature
>>> age = Feature("age", "number", minimum=20.0, maximum=90.0)
>>> sex = Feature("sex", "category", values=("female", "male"))
>>> round(row_norm((age, sex)), 2)
1.3
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from configs.schema import Feature, Study

NUMBER_SQUARE = (
    0.2  # mean square of a number in [-1, 1]: bell-shaped, its range five deviations wide, not quite central
)
UNKNOWN_SHARE = 0.05  # of a column that may be unknown
TYPICAL_CLIP = ((3.0, 0.6), (0.0, 0.4))  # epsilon from which, and the clip norm over the row norm


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a study with its value, and the public facts from which it follows."""

    section: str
    key: str
    value: Any
    why: str


def settings_of(study: Study) -> tuple[Setting, ...]:
    """Return every setting that an unfinished study leaves open, in the order of its file."""
    return (*_model(study), *_training(study), *_privacy(study))


def row_norm(features: Sequence[Feature]) -> float:
    """Return the root mean square of a row's norm, the intercept's 1 included, as public ranges and values have it.

    A gradient of a linear model is a residual times the row, so that this is the scale of a clip norm.
    """
    return math.sqrt(1.0 + sum(map(_mean_square, features)))


def _mean_square(feature: Feature) -> float:
    """Return the sum of a column's mean squared inputs; a category's values are taken as equally frequent."""
    unknown = UNKNOWN_SHARE if feature.missing else 0.0
    if feature.type == "number":
        return NUMBER_SQUARE + unknown
    return 1.0 - 1.0 / len(feature.values) + unknown


def _model(study: Study) -> tuple[Setting, ...]:
    if study.task.outcome_share is None:
        return ()
    return (Setting("model", "init", "share", f"everybody begins at the announced share {study.task.outcome_share:g}"),)


def _training(study: Study) -> tuple[Setting, ...]:
    private = study.privacy.keys.budgeted
    rounds, rate = (_rounds(study.privacy.epsilon), 4.0) if private else (60, 1.0)
    strategy = {"name": "fedavg"} if private else {"name": "fedavgm", "server_momentum": 0.9}
    local = {"epochs": 1, "batch_size": "full", "optimizer": "sgd", "learning_rate": rate}
    return (
        Setting("training", "strategy", strategy, "one step a round leaves no drift between hospitals to correct"),
        Setting("training", "weights", "public", "a hospital counts by its announced patients"),
        Setting("training", "rounds", rounds, f"epsilon {study.privacy.epsilon:g}" if private else "no noise"),
        Setting("training", "average_last", 0.5, "the noise of single rounds averages out"),
        Setting("training", "local", local, "full batches: the least noise for an epsilon"),
        Setting("training", "quorum", len(study.sites), "every hospital"),
    )


def _rounds(epsilon: float) -> int:
    return 30 if epsilon >= TYPICAL_CLIP[0][0] else 20


def _privacy(study: Study) -> tuple[Setting, ...]:
    if not study.privacy.keys.budgeted:
        return ()
    norm = row_norm(study.features)
    share = next(share for least, share in TYPICAL_CLIP if study.privacy.epsilon >= least)
    why = f"{share:g} of a typical row's norm {norm:.2f}, from the columns' public ranges and values"
    return (Setting("privacy", "clip_norm", round(share * norm, 2), why),)
