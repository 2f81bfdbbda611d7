"""Sensitivity test: no patient moves the noiseless sum by more than the clip norm.

That holds whatever their rows and values are. Two fits of one step with the same seed have the same noise, so the
difference of what they release is the difference of their noiseless sums: with and without one patient (add or remove
one). The noise is next to none: what is released is rounded to a step that follows from it, and how far a patient moves
the sum does not. Every patient of a small cohort is taken out once; planted ones are put in: values at the corners of
the range and far beyond, every outcome, many rows, copies of others, and all of this also at starting models that a
hostile coordinator might send.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from configs.errors import PrivacyError
from simulations.audit.moving import QUIET
from simulations.audit.recording import record_fit
from simulations.audit.subject import Subject
from simulations.audit.verdict import Check, Part, exact
from strategies.data.base import concatenate
from strategies.data.table import TablePatients
from strategies.exchange.arrays import Arrays
from strategies.learning import Learning
from strategies.privacy.plan import PrivacyPlan

_ROUNDING = 1e-3  # of the clip norm, beside what float32 loses on sums of this size
_FLOAT32 = 6e-8
_TITLE = "Can one patient move the sum by more than the clip norm?"


@dataclass(frozen=True)
class Move:
    """One patient's effect on the sum, in clip norms, and the parameter tensor where it is largest."""

    who: str
    start: str
    size: float
    layer: str


def sensitivity_part(
    subject: Subject,
    task: Learning,
    plan: PrivacyPlan,
    cohort: TablePatients,
    starts: dict[str, Arrays],
    many: Sequence[TablePatients] = (),
    places: int = 3,
    others: Sequence[Check] = (),
) -> Part:
    """Measure every move.

    Args:
        cohort: few patients. many: patients with perhaps very many rows, which are planted as those of one.
        places: planted patients come last, first, and alone. others: about the evaluation.
    """
    prober = _Prober(
        subject, task, replace(plan, noise_multiplier=QUIET, sampling_rate=1.0, steps_per_round=1, rounds=1)
    )
    cohort = cohort.rows_alone()
    planted = [*planted_patients(cohort), *(_with_all_rows(people) for people in many)]
    moves = [move for name, start in starts.items() for move in prober.moves(name, start, cohort, planted, places)]
    if not moves:
        why = "every gradient was refused as not finite"
        return Part.of("sensitivity", _TITLE, "nothing was released", why, [], {"moves": []}, why)
    worst = max(moves, key=lambda move: move.size if math.isfinite(move.size) else math.inf)
    parameters = sum(array.size for array in next(iter(starts.values())).values())
    lost = 4 * _FLOAT32 * (cohort.count + 2) * math.sqrt(parameters)
    within_clip = worst.size <= 1 + _ROUNDING + lost  # not so if it is no number
    text = (
        f"{worst.who} moves the sum by {worst.size:.3g} clip norms, most in {worst.layer}, at the model {worst.start}"
    )
    return Part.of(
        "sensitivity",
        _TITLE,
        f"{worst.size:.4f} clip norms at most",
        f"{len(moves):,} neighbours at {len(starts)} starting models; the largest move was by {worst.who}",
        [exact("clip norm", text, holds=within_clip), *others],
        {"moves": _largest(moves)},
    )


class _Prober:
    """Fits of one step with everybody in it, all with one seed."""

    def __init__(self, subject: Subject, task: Learning, plan: PrivacyPlan) -> None:
        self._subject, self._task, self._plan = subject, task, plan

    def moves(
        self,
        name: str,
        start: Arrays,
        cohort: TablePatients,
        patients: Sequence[tuple[str, TablePatients]],
        places: int,
    ) -> Iterator[Move]:
        """Yield the moves: every patient taken out once; every planted one put in last, first and alone."""
        everybody, nobody = self._sum(start, cohort), self._sum(start, cohort.subset(np.empty(0, np.int64)))
        for number in range(cohort.count):
            rest = cohort.subset(np.delete(np.arange(cohort.count), number))
            yield from self._move("a patient of the hospital", name, everybody, self._sum(start, rest))
        for who, planted in patients:
            for people, others in self._places(cohort, planted)[:places]:
                yield from self._move(who, name, self._sum(start, people), everybody if others else nobody)

    @staticmethod
    def _places(cohort: TablePatients, planted: TablePatients) -> list[tuple[TablePatients, bool]]:
        return [(concatenate([cohort, planted]), True), (concatenate([planted, cohort]), True), (planted, False)]

    def _sum(self, start: Arrays, patients: TablePatients) -> Arrays | None:
        """Return the noisy sum, parameter by parameter.

        Its noise is the same each time. None if nothing was released.
        """
        randomness = self._subject.randomness(0, "sensitivity", 1)
        try:
            watch = record_fit(self._subject, self._task, self._plan, patients, start, randomness)
        except PrivacyError:  # refused, as a gradient that is not finite must be: no patient has moved the sum
            return None
        if not watch.released:
            return {name: np.full_like(array, math.nan) for name, array in start.items()}
        released = watch.released[0] * np.float64(self._plan.expected_patients)
        ends = np.cumsum([array.size for array in start.values()])[:-1]
        return dict(zip(start, np.split(released, ends), strict=True))

    def _move(self, who: str, name: str, with_patient: Arrays | None, without: Arrays | None) -> Iterator[Move]:
        if with_patient is None or without is None:
            return
        layers = {layer: float(np.linalg.norm(with_patient[layer] - without[layer])) for layer in without}
        size = math.sqrt(sum(length**2 for length in layers.values())) / self._plan.clip_norm
        yield Move(who, name, size, max(layers, key=lambda layer: layers[layer]))


def planted_patients(cohort: TablePatients) -> list[tuple[str, TablePatients]]:
    """Return worst-case patients (extreme values, many rows, duplicates), each with a name."""
    inputs = cohort.x.shape[1]
    corner, zeros = np.ones(inputs, np.float32), np.zeros(inputs, np.float32)
    mixed = np.where(np.arange(inputs) % 2, 1.0, -1.0).astype(np.float32)
    low, high = cohort.y.min(axis=0), cohort.y.max(axis=0)
    planted = []
    for y in (low, high):
        planted += [
            ("a patient at the range's upper corner", _patient([corner], [y])),
            ("a patient at the range's lower corner", _patient([-corner], [y])),
            ("a patient at a mixed corner", _patient([mixed], [y])),
            ("a patient of zeros", _patient([zeros], [y])),
            ("a patient a thousand times beyond the range", _patient([1e3 * mixed], [y])),
            ("a patient a million times beyond the range", _patient([1e6 * corner], [y])),
            ("a patient with 50 equal rows", _patient([mixed] * 50, [y] * 50)),
            ("a patient with 20 rows of zeros", _patient([zeros] * 20, [y] * 20)),
        ]
    return [
        *planted,
        ("a patient with 200 rows of both outcomes", _patient([corner, -corner] * 100, [low, high] * 100)),
        ("a copy of another patient", cohort.subset(np.array([0]))),
    ]


def _with_all_rows(people: TablePatients) -> tuple[str, TablePatients]:
    whose = "the hospital" if people.count > 1 else "one of the hospital"
    return f"a patient with all {len(people.x):,} rows of {whose}", _patient(people.x, people.y)


def _patient(x: ArrayLike, y: ArrayLike) -> TablePatients:
    rows = np.array(x, np.float32)
    return TablePatients(
        rows, np.array(y, np.float32), np.zeros(len(rows), np.int64), np.array([0, len(rows)], np.int64)
    )


def _largest(moves: Sequence[Move]) -> list[dict[str, object]]:
    """Return the largest move of each kind of patient, in falling order."""
    sizes: dict[str, float] = {}
    for move in moves:
        sizes[move.who] = max(sizes.get(move.who, 0.0), move.size)
    return [{"who": who, "move": size} for who, size in sorted(sizes.items(), key=lambda item: -item[1])]
