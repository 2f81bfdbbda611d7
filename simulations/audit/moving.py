"""Fits at the study's own learning rate, judged at each step's own weights.

They are whole rounds, made through Site.fit. A fit at learning rate 0 cannot show a fault that waits until the weights
have moved: less noise from then on, a clip norm that follows the batch, a norm that was right a step ago. Here each
step's noiseless sum is computed anew at the weights where that step began, by plain autograd in float64, and each round
begins where the one before ended.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from configs.errors import ArchipelError, RunError
from configs.schema import Local, Study
from simulations.audit.recording import Recording, Roll, clip_each
from simulations.audit.rehearsal import AuditedSite, plan_of
from simulations.audit.subject import Floats, Subject, Watch, watched_trainer
from simulations.audit.verdict import Check, exact, two_sided
from strategies.data.table import TablePatients
from strategies.exchange.arrays import Arrays
from strategies.federated.registry import local_rule
from strategies.learning import Learning, learning_of
from strategies.privacy.plan import PrivacyPlan
from strategies.releases.base import Fit

QUIET = 2.0**-20  # noise multiplier of a fit whose sums are to be seen: the public step follows from it
_BUILT = 1 << 22  # numbers of several rows' gradients that are in memory together


class RowGradients:
    """Gradients of single rows of any model, at any weights, by autograd in float64.

    >>> from configs.schema import Model, Task
    >>> from strategies.learning import learning
    >>> rows = RowGradients(learning(Task("binary", "disease"), Model("logistic"), inputs=1))
    >>> rows.at(np.zeros(2), np.array([[2.0]]), np.array([1.0])).tolist()
    [[-1.0, -0.5]]
    """

    def __init__(self, task: Learning) -> None:
        module = task.build().double()
        names, shapes = zip(*((name, tuple(p.shape)) for name, p in module.named_parameters()), strict=True)
        self._sizes = [math.prod(shape) for shape in shapes]

        def loss(weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
            parts = (p.view(shape) for p, shape in zip(torch.split(weights, self._sizes), shapes, strict=True))
            outputs = torch.func.functional_call(module, dict(zip(names, parts, strict=True)), (x[None],))
            return task.loss(outputs, y[None]).sum()

        self._gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))

    def at(self, weights: NDArray[np.floating], x: NDArray[np.floating], y: NDArray[np.floating]) -> Floats:
        """Return the gradient of each row's loss, (rows, parameters)."""
        tensors = (torch.from_numpy(np.asarray(a, np.float64)) for a in (weights, x, y))
        gradients: Floats = self._gradients(*tensors).numpy()
        return gradients

    def of_patients(
        self, weights: NDArray[np.floating], patients: TablePatients, chosen: NDArray[np.int64]
    ) -> Iterator[Floats]:
        """Yield each chosen patient's gradient, (parameters,), summed over their rows, before any clip."""
        at_once = max(1, _BUILT // sum(self._sizes))
        lengths = np.diff(patients.starts)[chosen]
        ends, first = np.cumsum(lengths), 0
        while first < len(chosen):
            begin = ends[first] - lengths[first]
            last = max(first + 1, int(np.searchsorted(ends, begin + at_once, side="right")))
            rows = patients.rows_of(chosen[first:last])
            parts = np.array_split(rows, -(-len(rows) // at_once))  # several of a patient with very many rows
            if len(parts) == 1:
                gradients = self.at(weights, patients.x[rows], patients.y[rows])
                yield from np.add.reduceat(gradients, ends[first:last] - lengths[first:last] - begin)
            else:
                yield np.sum([self.at(weights, patients.x[some], patients.y[some]).sum(0) for some in parts], axis=0)
            first = last


class _Follower:
    """What was released in each step, less the noiseless sum at the weights where that step began."""

    def __init__(self, task: Learning, patients: TablePatients, clip_norm: float) -> None:
        self.roll, self.clean = Roll(patients), list[Floats]()
        self._rows, self._patients, self._clip = RowGradients(task), patients, clip_norm
        self._weights: NDArray[np.float32] | None = None
        self.watch = Watch(weights=self._begin, look=self.roll.call, after=self._end)

    def _begin(self, weights: NDArray[np.float32]) -> None:
        self._weights = weights

    def _end(self, gradient: NDArray[np.float32]) -> None:
        assert self._weights is not None
        chosen = np.flatnonzero(self.roll.last)
        total = np.zeros(len(gradient))
        for clipped in clip_each(self._rows.of_patients(self._weights, self._patients, chosen), self._clip):
            total += clipped
        self.clean.append(total)


def moving_rounds(audited: AuditedSite, folder: Path, *, steps: int) -> tuple[Recording, Check]:
    """Train rounds of a study one after the other, at its own rate, until about `steps` steps are taken.

    Returns:
        the steps, each against the noiseless sum at its own weights; and whether the model that left after each round
        is the round's start moved by the noisy steps alone.
    """
    folder.mkdir(parents=True)
    study = audited.study
    follower = _Follower(learning_of(study), audited.patients, study.privacy.clip_norm)
    watch = follower.watch
    hospital = audited.watched(folder / "ledger.sqlite", watch)
    plan, model, wrong, done = plan_of(hospital), audited.start, list[int](), 0
    rounds = max(1, min(plan.rounds, -(-steps // plan.steps_per_round)))
    for number in range(1, rounds + 1):
        steps_before = watch.steps
        try:
            outcome = hospital.fit(number, {name: array.copy() for name, array in model.items()})
        except RunError:  # the study diverges at this rate, without a fault in its privacy
            break
        done = number
        expected = _retrained(model, watch.released[steps_before:], study.training.local, local_rule(study, {}).pull)
        if watch.steps - steps_before != plan.steps_per_round or not _as_expected(model, outcome, expected):
            wrong.append(number)
        model = outcome
    hospital.ledger.close()
    unit = plan.noise_multiplier * plan.clip_norm
    clean = np.array(follower.clean).reshape(watch.steps, -1) / unit
    released = np.array(watch.released, np.float64).reshape(watch.steps, -1)
    noise = released * (plan.expected_patients / unit) - clean
    total = np.zeros(clean.shape[1]) + watch.total * np.float64(plan.expected_patients)
    most = int(np.diff(audited.patients.starts).max(initial=0))
    booked = done * plan.steps_per_round if done == rounds else watch.steps
    roll = follower.roll
    moved = Recording(audited.site, plan, roll.member, noise, clean, total, booked, roll.torn, most)
    words = f"round {wrong[0] if wrong else ''}: the model that left is not the start moved by the noisy steps"
    return moved, exact("what leaves", words, holds=not wrong)


def quiet_fit(
    subject: Subject, study: Study, plan: PrivacyPlan, patients: TablePatients, start: Arrays, steps: int
) -> tuple[float, int]:
    """Train at the study's own rate with next to no noise, so that each step's sum itself is seen.

    Returns:
        the largest distance of a step's sum from the noiseless sum at its own weights, in clip norms, and its step.
    """
    task = learning_of(study)
    quiet = replace(plan, noise_multiplier=QUIET, steps_per_round=steps, rounds=1)
    follower = _Follower(task, patients, plan.clip_norm)
    trainer = watched_trainer(subject, task, follower.watch)
    randomness = subject.randomness(0, "quiet", 1)
    trainer.fit(Fit(start, patients, study.training.local, steps, randomness, quiet))
    released = np.array(follower.watch.released, np.float64).reshape(follower.watch.steps, -1)
    gaps = released * plan.expected_patients - np.array(follower.clean).reshape(released.shape)
    distances = np.linalg.norm(gaps, axis=1) / plan.clip_norm
    if not len(distances) or not np.isfinite(distances).all():
        return math.inf, 0
    return float(distances.max()), int(distances.argmax()) + 1


def failed_round(audited: AuditedSite, folder: Path) -> Check:
    """Let a round fail at its first step, as a patient may make it fail: what leaves must be the booked noise alone."""
    folder.mkdir(parents=True)
    study, start = audited.study, audited.start
    rows = list[int]()

    def fail_once() -> None:
        if watch.steps == 0 and not rows:
            rows.append(-1)
            raise ValueError

    watch = Watch(before=fail_once, look=lambda marks: rows.append(len(marks)))
    hospital = audited.watched(folder / "ledger.sqlite", watch)
    hospital.on_failure = lambda _error: None
    plan = plan_of(hospital)
    try:
        released = hospital.fit(1, {name: array.copy() for name, array in start.items()})
    except ArchipelError:
        return exact(
            "noise alone", "a round that fails after it was booked is answered otherwise than others", holds=False
        )
    finally:
        hospital.ledger.close()
    expected = _retrained(start, watch.released, study.training.local, local_rule(study, {}).pull)
    whole = watch.steps == plan.steps_per_round and not any(rows[1:]) and _as_expected(start, released, expected)
    values = np.array(watch.released, np.float64).ravel() * (
        plan.expected_patients / (plan.noise_multiplier * plan.clip_norm)
    )
    if not whole or not np.isfinite(values).all():
        return exact("noise alone", "a round that fails after it was booked is no round of noise alone", holds=False)
    total = float(np.sum(values**2))
    p = two_sided(float(stats.chi2.cdf(total, values.size)), float(stats.chi2.sf(total, values.size)))
    return Check("noise alone", p, f"{math.sqrt(total / values.size):.3f} of the booked standard deviation")


def _as_expected(start: Arrays, left: Arrays, expected: Arrays) -> bool:
    gap = max(float(np.abs(left[name] - expected[name]).max()) for name in start)
    moved = max(float(np.abs(expected[name] - start[name]).max()) for name in start)
    return gap <= 1e-3 * moved + 1e-6


def _retrained(start: Arrays, released: list[NDArray[np.float32]], local: Local, pull: float) -> Arrays:
    """Return the start after these noisy gradients, by PyTorch's own optimizers."""
    parameters = [torch.from_numpy(array.copy()).requires_grad_() for array in start.values()]
    anchors = [p.detach().clone() for p in parameters]
    kind = torch.optim.Adam if local.optimizer == "adam" else torch.optim.SGD
    more = {} if local.optimizer == "adam" else {"momentum": local.momentum}
    optimizer = kind(parameters, lr=local.learning_rate, weight_decay=local.weight_decay, **more)  # type: ignore[arg-type]
    for gradient in released:
        parts = torch.split(torch.from_numpy(gradient), [p.numel() for p in parameters])
        for parameter, part, anchor in zip(parameters, parts, anchors, strict=True):
            parameter.grad = part.view_as(parameter) + pull * (parameter.detach() - anchor)
        optimizer.step()
    return {name: p.detach().numpy() for name, p in zip(start, parameters, strict=True)}
