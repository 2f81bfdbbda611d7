"""Plausibility bounds: how far an honest hospital's model can be from the shared one.

Models that are further are refused. Every bound is public: it follows from the study, the announced patients and the
shared model that was sent. It holds for each honest update but with a probability below 1e-9 (`_TAIL`, of the noise and
of the sample), so an update beyond it is poisoned or broken: the coordinator refuses it and names its hospital. An
attack within the bound is not seen; the robust strategies (median, trimmed_mean, krum) are for that.

- With privacy, SGD: a step's sum is at most clip_norm for each patient in it and its noise is Gaussian, so the update's
  norm is bounded whatever the model. A hospital is taken to have at most twice the patients that it announced, or 20
  more. Momentum, weight decay and what a strategy adds are affine: each gradient's part is computed exactly.
- Adam, with privacy or without: a step moves a coordinate by at most what Cauchy and Schwarz allow.
- Without privacy, SGD: the mean gradient of a logistic model is bounded by the public ranges. A linear regression's
  residual and an MLP's layers grow with the weights, so their bound is followed step by step. Over many steps at a
  large learning rate such a model may honestly diverge, and the bound grows beyond use; where it leaves the range of
  float32, any finite model is accepted.

>>> from configs.schema import Local
>>> gradient_weights(Local(None, 0.5, momentum=0.5), pull=0.0, steps=3)
(0.5, 0.75, 0.875)
>>> round(adam_steps(1), 6), round(adam_steps(100))
(1.0, 161)
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from configs.errors import ImplausibleError, PrivacyError
from configs.schema import Local, Study
from strategies.data.curve import largest_square
from strategies.exchange.arrays import Arrays, flat_of
from strategies.exchange.halves import both, spans
from strategies.exchange.pieces import pieces
from strategies.federated.registry import local_rule
from strategies.models.registry import architecture_of
from strategies.privacy.modes.registry import mode_of
from strategies.privacy.plan import PrivacyPlan
from strategies.tasks.registry import objective_of

MOST_PATIENTS = 10_000_000  # at a hospital that announced none
MOST_STEPS = 10_000  # that are followed one by one: beyond, a model without a closed form has no bound
_TAIL = math.log(1e10)  # a chance of 1e-10 for the noise, and as much for the sample
_SLACK = 1.01  # gradients may be rounded to a grid
_ROUNDING = 2.0**-22  # of a weight in one step: float32's, generously
_GRID = 2.0**-12  # half the grid of a noised sum over its noise (strategies/privacy/grid.py), generously
_LARGEST = 1e38
_AT_ONCE = 1 << 15  # values of a large matrix


@dataclass(frozen=True)
class Layer:
    """Bounds of one layer of the shared model: the weights' spectral norm, the biases' L2 norm."""

    weight: float
    bias: float


class Plausibility:
    """The bounds of honest updates of one shared model, hospital by hospital."""

    def __init__(self, study: Study, start: Arrays, sent: Callable[[str], Arrays] = lambda _: {}) -> None:
        """Hold what was sent: `start` to every hospital, and beside it what `sent` says of each."""
        self._study, self._start, self._sent = study, start, sent
        self._bounds: dict[tuple[int | None, float, float], float] = {}

    def work_out(self, sites: Iterable[str]) -> None:
        """Find these hospitals' bounds now, while their replies are awaited; what goes wrong shows in `require`."""
        for site in sites:
            with contextlib.suppress(Exception):
                self.bound(site)

    def require(self, site: str, update: Arrays) -> None:
        """Compare a hospital's model with the shared one that it was sent.

        Raises:
            ImplausibleError: it is further than clip norm, noise, ranges and steps can explain.
        """
        try:
            bound = self.bound(site)
        except PrivacyError:
            raise ImplausibleError("update refused: expected none, as this hospital has no privacy plan") from None
        moved = self._moved(update)
        if moved > bound:
            private = self._plan(site) is not None
            causes = "clip norm, noise and steps" if private else "ranges and steps"
            raise ImplausibleError(
                f"update refused: expected a move of at most {bound:.3g}, as {causes} explain, found {moved:.3g}; "
                "poisoned, broken, or of far more patients than announced"
            )

    def _moved(self, update: Arrays) -> float:
        """Return the distance that `bound` is about: of a small model in one pass over all arrays."""
        flat = flat_of([update[name] for name in self._start])
        if flat is None or self._flat is None:
            norm, largest = distance(self._start, update)
            return largest if self._by_coordinate else norm
        moved = np.subtract(flat, self._flat)
        if self._by_coordinate:
            return float(np.maximum.reduce(np.abs(moved, out=moved), initial=0.0))
        return math.sqrt(float(np.dot(moved, moved)))

    @cached_property
    def _flat(self) -> NDArray[np.float64] | None:
        flat = flat_of(self._start.values())
        return None if flat is None else flat.astype(np.float64)

    @property
    def _by_coordinate(self) -> bool:
        return self._study.training.local.optimizer == "adam"

    def bound(self, site: str) -> float:
        """Return the largest honest distance: with Adam of any coordinate, else of all together (L2); may be infinite.

        Raises:
            PrivacyError: the hospital has no plan.
        """
        study = self._study
        announced = study.announced_train_patients(site)
        rule = local_rule(study, self._sent(site))
        added = rule.pull, math.sqrt(sum(map(_square, (rule.drift or {}).values())))
        if (announced, *added) not in self._bounds:  # most hospitals of a large study have the bound of others
            self._bounds[announced, *added] = self._bound(self._plan(site), announced, *added)
        return self._bounds[announced, *added]

    def _plan(self, site: str) -> PrivacyPlan | None:
        mode = mode_of(self._study)
        return mode.training_plan(mode.plan(self._study, site))

    def _bound(self, plan: PrivacyPlan | None, announced: int | None, pull: float, drift: float) -> float:
        """Bound the move. `pull` and `drift` (its L2 norm) are what the strategy adds to each gradient."""
        local = self._study.training.local
        steps = plan.steps_per_round if plan else local.steps_per_round(announced or MOST_PATIENTS)
        if self._by_coordinate:
            weight, moved = self._largest_weight, local.learning_rate * adam_steps(steps)
        elif plan is not None:
            weight, moved = self._norm, private_bound(local, plan, pull, self._size, self._norm)
            moved += drift * sum(gradient_weights(local, pull, steps)) if drift else 0.0
        else:
            weight, moved = self._norm, self._plain_bound(steps, announced, pull, drift)
        bound = _SLACK * moved + steps * _ROUNDING * (weight + moved)
        return math.inf if math.isnan(bound) else bound  # of infinite parts, some of them times 0

    def _plain_bound(self, steps: int, announced: int | None, pull: float, drift: float) -> float:
        """Bound an update without noise; only that of a linear stack has a bound."""
        architecture = architecture_of(self._study)
        layers = architecture.linear_layers
        grows = objective_of(self._study).residual_bound[1] > 0
        if layers is None or (architecture.personal and grows):  # a residual that grows with what is not known here
            return math.inf
        if len(layers) == 1:
            return self._linear_bound(steps, _row_norm(self._study, announced), pull, drift)
        return self._stack_bound(steps, _row_norm(self._study, announced, of_each=True), pull, drift)

    def _linear_bound(self, steps: int, row: float, pull: float, drift: float) -> float:
        """Bound a logistic or linear model's plain update. `row`: the norm of what it reads, with the bias's 1."""
        study, local = self._study, self._study.training.local
        base, growth = objective_of(study).residual_bound
        row *= objective_of(study).rows_each  # of a patient; plain means are over patients
        if not growth:  # the residual is bounded at any weights
            total = math.fsum(gradient_weights(local, pull, steps))
            return total * (base * row + local.weight_decay * self._norm + drift)
        first = row * (base + growth * row * self._norm) + local.weight_decay * self._norm + drift
        slope, steep = local.weight_decay + pull, growth * row**2
        if local.momentum:
            return _followed(local, steps, lambda moved: first + (steep + slope) * moved)
        # A step's eigenvalues lie between 1 - rate * (slope + steep) and 1 - rate * slope.
        factor = max(abs(1 - local.learning_rate * slope), abs(1 - local.learning_rate * (slope + steep)))
        return local.learning_rate * first * _geometric(factor, steps)

    def _stack_bound(self, steps: int, row: float, pull: float, drift: float) -> float:
        """Bound the plain update of linear layers with ReLU between them: the product of the layers' norms."""
        local, inputs = self._study.training.local, math.sqrt(row**2 - 1)
        base, growth = objective_of(self._study).residual_bound

        def gradient(moved: float) -> float:
            read = [inputs]  # the norm of what each layer reads, and at last of the outputs
            for layer in self._layers:
                read.append((layer.weight + moved) * read[-1] + layer.bias + moved)
            back = base + growth * read[-1]
            norm = 0.0
            for layer, before in zip(reversed(self._layers), reversed(read[:-1]), strict=True):
                norm = math.hypot(norm, back * math.hypot(before, 1.0))
                back *= layer.weight + moved
            norm *= objective_of(self._study).rows_each  # of a patient; plain means are over patients
            return norm + local.weight_decay * (self._norm + moved) + pull * moved + drift

        return _followed(local, steps, gradient)

    @cached_property
    def _norm(self) -> float:
        return math.sqrt(sum(map(_square, self._start.values())))

    @cached_property
    def _largest_weight(self) -> float:
        return max(float(np.abs(piece).max(initial=0.0)) for array in self._start.values() for piece in pieces(array))

    @cached_property
    def _size(self) -> int:
        return sum(array.size for array in self._start.values())

    @cached_property
    def _layers(self) -> Sequence[Layer]:
        arrays = list(self._start.values())
        biases = [math.sqrt(_square(bias)) for bias in arrays[1::2]]
        biases += [0.0] * (len(arrays) % 2)  # the last one is the hospital's own; without growth it bounds nothing
        return [Layer(_spectral(w), bias) for w, bias in zip(arrays[::2], biases, strict=True)]


def prepare(study: Study) -> None:
    """Calibrate every hospital's plan beforehand: of sampled batches each takes up to a second."""
    for site in study.sites:
        with contextlib.suppress(PrivacyError):
            mode_of(study).plan(study, site)


def distance(start: Arrays, update: Arrays) -> tuple[float, float]:
    """Return the L2 norm and the largest coordinate of the difference, in one pass over both."""
    parts = [
        (array.reshape(-1)[half], update[name].reshape(-1)[half])
        for name, array in start.items()
        for half in _halves(array)
    ]
    square, largest = 0.0, 0.0
    for moves in both(_moved_in, parts, sum(array.nbytes for array in start.values())):
        for part_square, most in moves:
            square, largest = square + part_square, max(largest, most)
    return math.sqrt(square), largest


def _halves(array: NDArray[np.float32]) -> list[slice]:
    return [slice(part.start // array.itemsize, part.stop // array.itemsize) for part in spans(array.nbytes)]


def _moved_in(part: tuple[NDArray[np.float32], NDArray[np.float32]]) -> list[tuple[float, float]]:
    """Return each piece's squared difference before and after, and its largest coordinate."""
    moves = []
    for before, after in zip(pieces(part[0]), pieces(part[1]), strict=True):
        moved = np.subtract(after, before, dtype=np.float64)
        square = float(np.dot(moved, moved))
        moves.append((square, float(np.maximum.reduce(np.abs(moved, out=moved), initial=0.0))))
    return moves


def private_bound(local: Local, plan: PrivacyPlan, pull: float, size: int, norm: float) -> float:
    """Return the largest L2 norm of an honest private update by SGD, but with a chance of 2 exp(-_TAIL).

    Args:
        pull: of the strategy towards the start, 0 without.
        size, norm: of the shared model: parameters, and L2 norm.
    """
    weights = np.array(gradient_weights(local, pull, plan.steps_per_round))
    total = float(weights.sum())
    announced = plan.expected_patients / plan.sampling_rate
    patients = max(2 * announced, announced + 20)
    drawn = patients * total if plan.sampling_rate == 1.0 else _drawn(patients, plan.sampling_rate, weights)
    # The norm of n standard Gaussians exceeds this with a chance of exp(-_TAIL): Laurent and Massart 2000, lemma 1.
    gaussian = math.sqrt(size) + math.sqrt(2 * _TAIL)
    noise = plan.noise_multiplier * (float(np.linalg.norm(weights)) * gaussian + _GRID * total * math.sqrt(size))
    return plan.clip_norm / plan.expected_patients * (drawn + noise) + total * local.weight_decay * norm


def _drawn(patients: float, rate: float, weights: NDArray[np.float64]) -> float:
    """Bound the weighted number of patients in Poisson samples (Bernstein's inequality)."""
    mean, variance = patients * rate * weights.sum(), patients * rate * (weights**2).sum()
    third = weights.max() * _TAIL / 3
    return float(mean + third + math.sqrt(third**2 + 2 * variance * _TAIL))


@lru_cache(maxsize=64)
def gradient_weights(local: Local, pull: float, steps: int) -> tuple[float, ...]:
    """Return by how much each step's gradient moves the result of SGD, the last step's first: (steps,).

    Momentum, weight decay and the pull towards the start are linear, so that an update is the sum of the gradients, and
    of weight decay's part of the start, with these weights but for signs.
    """
    weights: list[float] = []
    velocity, moved, slope = 1.0, 0.0, local.weight_decay + pull
    for step in range(steps):
        velocity = local.momentum * velocity + slope * moved if step else 1.0
        moved -= local.learning_rate * velocity
        if abs(moved) > _LARGEST:
            return (*weights, *[math.inf] * (steps - step))
        weights.append(abs(moved))
    return tuple(weights)


@lru_cache(maxsize=64)
def adam_steps(steps: int, beta_1: float = 0.9, beta_2: float = 0.999) -> float:
    """Return how far Adam moves a coordinate in so many steps at most, in learning rates.

    |m| / sqrt(v) is at most (1 - b1) / sqrt(1 - b2) * sqrt(sum of (b1^2 / b2)^k) by Cauchy and Schwarz; the two
    corrections of the bias are numbers (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1).
    """
    t, ratio = np.arange(1, steps + 1, dtype=np.float64), beta_1**2 / beta_2
    square = (1 - beta_2**t) / (1 - beta_2) * (1 - ratio**t) / (1 - ratio)
    return float(((1 - beta_1) / (1 - beta_1**t) * np.sqrt(square)).sum())


def _row_norm(study: Study, announced: int | None, *, of_each: bool = False) -> float:
    """Bound the L2 norm of what a model reads of a row, with the 1 of the bias.

    Of a column at most one input of at most 1 in size is not 0; a curve's have a bound of their own. With
    `scaling: site` inputs have a mean square of at most 1: that bounds a batch of everybody as a whole, and one row
    (`of_each`) by the number of rows.
    """
    one = 2 if objective_of(study).added_inputs else 1  # the bias's, and that of the one added input that is not 0
    if study.scaling != "site":
        return math.sqrt(sum(map(largest_square, study.predictors)) + one)
    if study.training.local.batch_size is None and not of_each:
        return math.sqrt(len(study.inputs) + one)
    rows = MOST_PATIENTS if announced is None or study.patient_id else max(2 * announced, announced + 20)
    return math.sqrt(len(study.inputs) * rows + one)


def _followed(local: Local, steps: int, gradient: Callable[[float], float]) -> float:
    """Follow how far a model can be after each step, where its gradient grows with that distance."""
    if steps > MOST_STEPS:
        return math.inf
    velocity, moved = 0.0, 0.0
    for _ in range(steps):
        velocity = local.momentum * velocity + gradient(moved)
        moved += local.learning_rate * velocity
        if moved > _LARGEST:
            return math.inf
    return moved


def _geometric(factor: float, steps: int) -> float:
    """Sum the powers of a factor from 0 to steps - 1."""
    if abs(factor - 1) < 1e-12:
        return float(steps)
    if steps * math.log(max(factor, 1.0)) > math.log(_LARGEST):
        return math.inf
    return (factor**steps - 1) / (factor - 1)


def _square(array: NDArray[np.float32]) -> float:
    return sum(float(np.square(piece, dtype=np.float64).sum()) for piece in pieces(array))


def _spectral(weight: NDArray[np.float32]) -> float:
    """Bound a matrix' largest singular value: by its L2 norm, and by its largest row and column sums."""
    rows = max(1, _AT_ONCE // max(1, weight.shape[1]))
    square, row, columns = 0.0, 0.0, np.zeros(weight.shape[1])
    for start in range(0, len(weight), rows):  # the whole matrix in float64 would be as much again as two of it
        sizes = np.abs(weight[start : start + rows], dtype=np.float64)
        row = max(row, float(sizes.sum(axis=1).max(initial=0.0)))
        columns += sizes.sum(axis=0)
        square += float(np.dot(sizes.reshape(-1), sizes.reshape(-1)))
    return min(math.sqrt(square), math.sqrt(float(columns.max(initial=0.0)) * row))
