"""Which settings are trained with how many seeds: all with all (grid), or the better half with more (halving).

Successive halving (Karnin, Koren and Somekh 2013; Jamieson and Talwalkar 2016) spends seeds, not rounds: a private
training of fewer rounds has another noise and is another setting. The study's own settings stay to the end.

>>> rungs("grid", 27, 3)
[Rung(settings=27, seeds=3)]
>>> rungs("halving", 27, 3)
[Rung(settings=27, seeds=1), Rung(settings=14, seeds=2), Rung(settings=7, seeds=3)]
>>> trainings(rungs("grid", 27, 3)), trainings(rungs("halving", 27, 3))
(81, 48)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

SEARCHES = ("grid", "halving")
Train = Callable[[Sequence[tuple[int, int]]], None]  # trains these pairs of a setting and a seed's place
Score = Callable[[int], float]  # a setting's score by what is trained so far, the lower the better


@dataclass(frozen=True)
class Rung:
    """So many settings are trained with so many seeds."""

    settings: int
    seeds: int


def rungs(search: str, settings: int, seeds: int) -> list[Rung]:
    """Return the steps of a search; `settings` counts the study's own."""
    if search == "grid":
        return [Rung(settings, seeds)]
    steps, count = list[Rung](), 1
    while count < seeds:
        steps.append(Rung(settings, count))
        settings, count = max(2, math.ceil(settings / 2)) if settings > 1 else 1, min(2 * count, seeds)
    return [*steps, Rung(settings, seeds)]


def trainings(steps: Sequence[Rung]) -> int:
    """Return how many trainings a search is made of."""
    before, total = 0, 0
    for step in steps:
        total, before = total + step.settings * (step.seeds - before), step.seeds
    return total


def search(steps: Sequence[Rung], settings: int, train: Train, score: Score) -> list[int]:
    """Carry out a search, and return the settings of the last step, the best first.

    Setting 0 is the study's own and part of every step.
    """
    alive = list(range(settings))
    for step in steps:
        best = sorted((i for i in alive if i), key=score)[: step.settings - 1]
        alive = [0, *best]
        train([(i, place) for place in range(step.seeds) for i in sorted(alive)])
    return sorted(alive, key=score)


def mean_score(values: Mapping[int, float | None], *, lower_is_better: bool) -> float:
    """Return the mean over seeds as a score, infinite where a figure is missing.

    >>> mean_score({0: 0.8, 1: 0.6}, lower_is_better=False), mean_score({0: None}, lower_is_better=True)
    (-0.7, inf)
    """
    present = [value for value in values.values() if value is not None]
    if not present or len(present) < len(values):
        return math.inf
    mean = math.fsum(present) / len(present)
    return mean if lower_is_better else -mean
