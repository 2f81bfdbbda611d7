"""Recordings of fits: each step's patients, what was released, and the expected sum.

To know who is in a step, an audit's copies of the patients carry a mark that survives every path: each row's first
input is replaced by that row's rank among all, scaled to [-1, 1], so that no two rows agree in it. The learning rate is
0, so the model stays where it starts, and the noiseless sum of a step is the sum of its patients' own clipped
gradients: plain autograd in float64, a patient at a time, with nothing of the engine's code.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from configs.schema import Local
from simulations.audit.subject import Floats, Subject, Watch, watched_trainer
from strategies.data.table import TablePatients
from strategies.exchange.arrays import Arrays
from strategies.learning import Learning
from strategies.privacy.plan import PrivacyPlan
from strategies.privacy.randomness import Randomness
from strategies.releases.base import Fit

STILL = Local(batch_size=None, learning_rate=0.0)  # a fit that leaves the model where it starts
_AT_ONCE = 4096  # rows of a patient whose gradients are in memory together


def marked(patients: TablePatients) -> TablePatients:
    """Return the same patients with marks: x[:, 0] becomes the row's rank, from -1 to 1."""
    x = patients.x.copy()
    rank = np.empty(len(x), np.int64)
    rank[np.argsort(x[:, 0], kind="stable")] = np.arange(len(x))
    x[:, 0] = np.linspace(-1.0, 1.0, len(x), dtype=np.float32)[rank] if len(x) > 1 else 0.0
    return replace(patients, x=x)


def joined(patients: TablePatients, sizes: Sequence[int] = (1, 2, 1, 3, 1, 8)) -> TablePatients:
    """Return the same rows as fewer patients of several rows each, so that a row is no patient.

    >>> rows = TablePatients(np.zeros((6, 1), np.float32), np.zeros(6, np.float32), np.arange(6), np.arange(7))
    >>> joined(rows, (1, 2)).starts.tolist()
    [0, 1, 3, 4, 6]
    """
    starts = [0]
    while starts[-1] < len(patients.x):
        starts.append(min(len(patients.x), starts[-1] + sizes[(len(starts) - 1) % len(sizes)]))
    bounds = np.array(starts, np.int64)
    return replace(patients, patients=np.repeat(np.arange(len(starts) - 1), np.diff(bounds)), starts=bounds)


def shortened(patients: TablePatients, rows: int) -> TablePatients:
    """Return the same patients with `rows` rows or fewer in all (one each at least).

    Those with most rows lose their last.

    >>> owners, starts = np.repeat([0, 1], [1, 8]), np.array([0, 1, 9])
    >>> people = TablePatients(np.zeros((9, 1), np.float32), np.zeros(9, np.float32), owners, starts)
    >>> shortened(people, 5).starts.tolist()
    [0, 1, 5]
    """
    lengths = np.diff(patients.starts)
    if lengths.sum() <= rows:
        return patients
    few, many = 1, int(lengths.max())
    while few < many:  # the most rows that one may have, by bisection
        middle = (few + many + 1) // 2
        few, many = (middle, many) if np.minimum(lengths, middle).sum() <= rows else (few, middle - 1)
    kept_rows = np.minimum(lengths, few)
    starts = np.concatenate([[0], np.cumsum(kept_rows)]).astype(np.int64)
    owners = np.repeat(np.arange(len(kept_rows)), kept_rows)
    chosen = np.arange(starts[-1]) + np.repeat(patients.starts[:-1] - starts[:-1], kept_rows)
    return replace(patients, x=patients.x[chosen], y=patients.y[chosen], patients=owners, starts=starts)


def longest(patients: TablePatients, rows: int) -> TablePatients:
    """Return the patients with most rows, as many as have `rows` rows together; one at least, cut to that many."""
    lengths = np.diff(patients.starts)
    order = np.argsort(-lengths, kind="stable")
    count = max(1, int(np.searchsorted(np.cumsum(lengths[order]), rows, side="right")))
    return shortened(patients.subset(np.sort(order[:count])), rows)


class Roll:
    """The presence of some marked patients in each step, read from the marks of its rows."""

    def __init__(self, patients: TablePatients) -> None:
        self._order = np.argsort(patients.x[:, 0], kind="stable")
        self._marks = patients.x[self._order, 0]
        self._owners, self._lengths = patients.patients, np.diff(patients.starts)
        self._member: list[NDArray[np.bool_]] = []
        self.torn = 0

    def call(self, seen: NDArray[np.float32]) -> None:
        """Record one step: the first input of each of its rows."""
        place = np.minimum(np.searchsorted(self._marks, seen), len(self._marks) - 1)
        rows = self._order[place]
        counts = np.bincount(self._owners[rows], minlength=len(self._lengths))
        self._member.append(counts > 0)
        once = not len(seen) or int(np.bincount(place).max()) == 1
        unchanged = once and bool((self._marks[place] == seen).all())
        self.torn += not unchanged or bool(((counts > 0) & (counts != self._lengths)).any())

    @property
    def last(self) -> NDArray[np.bool_]:
        """Return which patients were in the last step, (patients,)."""
        return self._member[-1]

    @property
    def member(self) -> NDArray[np.bool_]:
        """Return the patients in each step, (steps, patients)."""
        return np.array(self._member, bool).reshape(len(self._member), len(self._lengths))


@dataclass(frozen=True)
class Recording:
    """Steps of one plan, as they were seen.

    member: (steps, patients) booleans; noise: (steps, coordinates), what was released minus the noiseless sum, in
    booked standard deviations; clean: (steps, coordinates), the noiseless sum in the same unit; total: (parameters,),
    all that was released, added up; expected_steps: those booked; torn: steps that held rows of nobody, a row twice, or
    some of a patient's rows only; most_rows: of one patient. Coordinates are all parameters, or those that were kept.
    """

    site: str
    plan: PrivacyPlan
    member: NDArray[np.bool_]
    noise: Floats
    clean: Floats
    total: Floats
    expected_steps: int
    torn: int
    most_rows: int

    @property
    def steps(self) -> int:
        """Return the number of steps that were taken."""
        return len(self.member)


def coordinates(task: Learning, rows: int, values: int) -> NDArray[np.int64] | slice:
    """Return the coordinates kept where `rows` rows of them may hold `values` numbers: all, or equidistant ones.

    That is fixed before the fit, by numbers of the plan.
    """
    size, most = _size(task), max(1, values // max(1, rows))
    return slice(None) if size <= most else np.linspace(0, size - 1, most).astype(np.int64)


def _size(task: Learning) -> int:
    return sum(math.prod(shape) for shape, _ in task.parameters.values())


def recorded(
    watch: Watch,
    roll: Roll,
    site: str,
    task: Learning,
    plan: PrivacyPlan,
    patients: TablePatients,
    start: Arrays,
    steps: int,
) -> Recording:
    """Return what a watch saw of marked patients, all steps from the same start; so many `steps` are booked."""
    unit = plan.noise_multiplier * plan.clip_norm
    size = _size(task)
    each = np.empty((patients.count, np.arange(size)[watch.kept].size))  # (patients, coordinates)
    for row, gradient in zip(each, clipped_gradients(task, start, patients, plan.clip_norm), strict=True):
        row[:] = gradient[watch.kept] / unit
    clean = roll.member.astype(np.float64) @ each  # (steps, coordinates)
    released = np.array(watch.released, np.float64).reshape(len(watch.released), each.shape[1])
    noise = released * (plan.expected_patients / unit) - clean
    total = np.zeros(size) + watch.total * np.float64(plan.expected_patients)
    most = int(np.diff(patients.starts).max(initial=0))
    return Recording(site, plan, roll.member, noise, clean, total, steps, roll.torn, most)


def record_fit(
    subject: Subject,
    task: Learning,
    plan: PrivacyPlan,
    patients: TablePatients,
    start: Arrays,
    randomness: Randomness,
    look: Callable[[NDArray[np.float32]], None] = lambda _marks: None,
) -> Watch:
    """Return the recording of one fit of the plan's steps, watched, at learning rate 0."""
    watch = Watch(look=look)
    trainer = watched_trainer(subject, task, watch)
    trainer.fit(Fit(start, patients, STILL, plan.steps_per_round, randomness, plan))
    return watch


def clipped_gradients(task: Learning, start: Arrays, patients: TablePatients, clip_norm: float) -> Iterator[Floats]:
    """Yield each patient's gradient, (parameters,), summed over their rows, shortened to the clip norm."""
    yield from clip_each(patient_gradients(task, start, patients), clip_norm)


def clip_each(gradients: Iterable[Floats], clip_norm: float) -> Iterator[Floats]:
    """Yield each gradient shortened to the clip norm; one that is not finite as zeros."""
    for raw in gradients:
        length = float(np.linalg.norm(raw))
        yield raw * min(1.0, clip_norm / max(length, 1e-300)) if math.isfinite(length) else np.zeros_like(raw)


def patient_gradients(task: Learning, start: Arrays, patients: TablePatients) -> Iterator[Floats]:
    """Yield each patient's gradient of the sum of the losses of their rows, (parameters,)."""
    model = task.build().double()
    model.load_state_dict({name: torch.from_numpy(array.astype(np.float64)) for name, array in start.items()})
    parameters = list(model.parameters())
    for first, end in itertools.pairwise(patients.starts.tolist()):
        total = np.zeros(sum(p.numel() for p in parameters))
        for some in range(first, end, _AT_ONCE):
            rows = slice(some, min(end, some + _AT_ONCE))
            x, y = torch.from_numpy(patients.x[rows]).double(), torch.from_numpy(patients.y[rows]).double()
            gradient = torch.autograd.grad(task.loss(model(x), y).sum(), parameters)
            total += torch.cat([g.flatten() for g in gradient]).numpy()
        yield total
