"""The audit of what a study asks once beside the evaluation: the releases `inference` and `subgroups`.

As the evaluation's histogram (simulations/audit/evaluation.py): many releases of one model through Site.release, each
with a ledger of its own, less what they would be without noise, worked out here with nothing of the product's. The
noise must be a Gaussian of the booked deviation, on its grid, and one patient more or less must move a release by no
more than is booked. What is not of whole numbers is looked at in eighths of its noise, whose shape is a rounded
Gaussian's too. All questions by chance of one release are put together in one.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from configs.records.subgroups import SubgroupsKeys
from configs.schema import Feature, Study, Survival
from configs.wire import COUNTS, INFORMATION
from simulations.audit.evaluation import Evaluations, Evaluator, evaluation_checks, exact_histogram
from simulations.audit.residuals import public_step
from simulations.audit.subject import Floats
from simulations.audit.verdict import Check, exact
from strategies.data.table import TablePatients
from strategies.exchange.arrays import Arrays
from strategies.learning import learning_of
from strategies.releases.further import given_keys, keys_of

Mask = NDArray[np.bool_]
_PARTS = 8.0  # of the noise's deviation, in which a release that is not of whole numbers is looked at


class FurtherRelease(ABC):
    """One release as the audit knows it. `of_counts`: whether its numbers are whole patients."""

    name: ClassVar[str]
    array: ClassVar[str]
    of_counts: ClassVar[bool]

    @abstractmethod
    def bound(self, study: Study) -> float:
        """Return the most that one patient may move it (L2 norm)."""

    @abstractmethod
    def exact(self, study: Study, model: Arrays, patients: TablePatients) -> tuple[Floats, Mask]:
        """Return it without noise, (numbers,), and which of the numbers no rounding can change."""

    def evaluator(self, evaluator: Evaluator) -> Evaluator:
        """Let an evaluator ask for this release."""
        evaluator.kind, evaluator.array = self.name, self.array
        return evaluator

    def noise(
        self, evaluator: Evaluator, study: Study, patients: TablePatients, model: Arrays, seeds: range
    ) -> list[Check]:
        """Check the noise of one release a seed."""
        expected, clear = self.exact(study, model, patients)
        released = np.array([evaluator.release(patients, seed) for seed in seeds])
        deviation = evaluator.deviation(patients) * self.bound(study)
        step = 1.0 if self.of_counts else public_step(deviation)
        on_grid = exact(f"{self.name}: grid", "a number is not on the noise's grid", holds=_on_grid(released, step))
        noise = (released - expected)[:, clear]
        if not self.of_counts:
            noise, deviation = np.rint(noise * (_PARTS / deviation)), _PARTS
        seen = Evaluations(noise, deviation, whole=True)
        return [on_grid, _together(f"{self.name}: noise", evaluation_checks(seen))]

    def move(self, evaluator: Evaluator, study: Study, patients: TablePatients, move: tuple[float, str]) -> Check:
        """Check the largest move of one patient, and who does it; both releases were rounded to the grid."""
        (size, who), most = move, self.bound(study)
        step = 0.0 if self.of_counts else public_step(evaluator.deviation(patients) * most)
        rounding = step * math.sqrt(len(evaluator.release(patients, 0, seeded=True)))
        text = f"{who} moves the release {self.name} by {size:.3g} (L2 norm), {most:.3g} is booked"
        return exact(self.name, text, holds=size <= most * (1 + 1e-6) + rounding)


class _Inference(FurtherRelease):
    """The loss's gradient and second derivative over all patients, about the middle of what the columns allow."""

    name, array, of_counts = "inference", INFORMATION, False

    def bound(self, study: Study) -> float:
        return math.sqrt(1 + sum(_reach(feature)[1] for feature in study.predictors))

    def exact(self, study: Study, model: Arrays, patients: TablePatients) -> tuple[Floats, Mask]:
        bound = self.bound(study)
        middle = np.concatenate([np.full(len(f.inputs), _reach(f)[0]) for f in study.predictors])
        middle -= np.concatenate([_taken_off(study, feature) for feature in study.predictors])
        module = learning_of(study).build().double()
        module.load_state_dict({name: torch.from_numpy(array.astype(np.float64)) for name, array in model.items()})
        with torch.no_grad():
            chance = torch.sigmoid(module(torch.from_numpy(patients.x).double())[:, 0]).numpy()
        z = np.column_stack(
            [patients.x[:, : len(middle)].astype(np.float64) - middle, _intercepts(patients, len(middle))]
        )
        known, share = patients.y >= 0, _information_share(study)
        total = np.zeros(z.shape[1] * (z.shape[1] + 3) // 2)
        for first, end in zip(patients.starts[:-1], patients.starts[1:], strict=True):
            at = slice(first, end)
            rows, p, y = z[at][known[at]], chance[at][known[at]], patients.y[at][known[at]].astype(np.float64)
            curvature = np.einsum("ri,rj,r->ij", rows, rows, p * (1 - p)) * (share / bound)
            upper = curvature * np.where(np.eye(len(curvature)) > 0, 1.0, math.sqrt(2))
            vector = np.concatenate([(p - y) @ rows, upper[np.triu_indices(len(upper))]])
            total += vector * min(1.0, bound / max(float(np.linalg.norm(vector)), 1e-300))
        return total, np.ones(len(total), bool)


class _Subgroups(FurtherRelease):
    """The evaluation's histogram for each group of each listed column."""

    name, array, of_counts = "subgroups", COUNTS, True

    def bound(self, study: Study) -> float:
        keys = keys_of(study, SubgroupsKeys)
        return math.sqrt(len(keys.by)) if keys else 0.0

    def exact(self, study: Study, model: Arrays, patients: TablePatients) -> tuple[Floats, Mask]:
        keys, task = given_keys(study, SubgroupsKeys), learning_of(study)
        groups = [group for name in keys.by for group in _groups(study, name, dict(keys.cuts), patients)]
        parts = [exact_histogram(task, model, patients.subset(group), keys.bins) for group in groups]
        return np.concatenate([counts for counts, _ in parts]), np.concatenate([clear for _, clear in parts])


FURTHER: tuple[FurtherRelease, ...] = (_Inference(), _Subgroups())


def further_of(study: Study) -> list[FurtherRelease]:
    """Return the releases of a study that the audit knows."""
    asked = {release.name for release in study.releases}
    return [release for release in FURTHER if release.name in asked]


def _intercepts(patients: TablePatients, columns: int) -> Floats:
    """Return 1 for each row; of intervals three columns, which say in which third of them it is."""
    intervals = patients.x.shape[1] - columns
    if not intervals:
        return np.ones((len(patients.x), 1))
    thirds = min(3, intervals)
    third = np.arange(intervals) * thirds // intervals
    shared: Floats = patients.x[:, columns:].astype(np.float64) @ (third[:, None] == np.arange(thirds)).astype(
        np.float64
    )
    return shared


def _information_share(study: Study) -> float:
    """Return what the information counts beside the score: phi^2.5, less where a patient has a row each interval."""
    most: float = 1.618033988749895**2.5
    if not isinstance(study.task, Survival):
        return most
    share = study.task.outcome_share
    events = 0.5 if share is None else min(0.7, max(0.165, 1.4 * math.log(1 / (1 - share))))
    return min(most, math.sqrt(2 / events - 1), math.sqrt(1 / events**2 - 1))


def _reach(feature: Feature) -> tuple[float, float]:
    """Return the middle of each of a column's inputs, and the largest square of the distance from there."""
    if feature.type == "number":
        return 0.0, 1.5 if feature.curve else 1.0
    values = len(feature.inputs)  # beside the first
    return (0.5, 0.25) if values == 1 else (1 / values, 1 - 1 / values)


def _taken_off(study: Study, feature: Feature) -> Floats:
    """Return what `scaling: centred` has taken off each input of a column."""
    words = len(feature.values) - 1 if study.scaling == "centred" and feature.type == "category" else 0
    return np.array([1 / max(1, len(feature.values))] * words + [0.0] * (len(feature.inputs) - words))


def _groups(
    study: Study, name: str, cuts: dict[str, tuple[float, ...]], patients: TablePatients
) -> Iterator[NDArray[np.int64]]:
    """Yield the patients of each group of a column, by the first row."""
    (feature,) = [feature for feature in study.features if feature.name == name]
    x, place = patients.x[patients.starts[:-1]].astype(np.float64), list(study.inputs)
    unknown = x[:, place.index(f"{name} unknown")] > 0.5 if feature.missing else np.zeros(len(x), bool)
    if feature.type == "number":
        assert feature.minimum is not None
        assert feature.maximum is not None
        width = feature.maximum - feature.minimum
        value = feature.minimum + (x[:, place.index(name)] + 1) / 2 * width + 1e-6 * width
        ends = [-math.inf, *cuts.get(name, (feature.minimum + width / 2,)), math.inf]
        members = [(value >= low) & (value < high) for low, high in itertools.pairwise(ends)]
    else:
        off = _taken_off(study, feature)[0]
        others = [x[:, place.index(f"{name} = {word}")] + off > 0.5 for word in feature.values[1:]]
        members = [~np.any(others, axis=0), *others]
    for member in members:
        yield np.flatnonzero(member & ~unknown)
    if feature.missing:
        yield np.flatnonzero(unknown)


def _on_grid(released: Floats, step: float) -> bool:
    return bool((released / step == np.rint(released / step)).all())


def _together(name: str, checks: list[Check]) -> Check:
    """Return one check of all: its p is the least of theirs, times how many are by chance (Bonferroni)."""
    worst = min(checks, key=lambda check: check.p)
    by_chance = sum(0 < check.p < 1 for check in checks)
    return Check(name, min(1.0, worst.p * max(1, by_chance)), f"{worst.name}: {worst.words}")
