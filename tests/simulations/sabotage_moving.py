"""More faults for the audit to find: that wait until weights move, drift, pair up, or concern the evaluation."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from client.ledger import Ledger, Release
from client.site import Site
from configs.errors import RunError
from configs.schema import EvaluationRelease, Study
from configs.wire import HISTOGRAM
from simulations.audit.evaluation import exact_histogram
from simulations.audit.subject import Subject
from strategies.privacy.accounting import SampledGaussian
from strategies.privacy.grid import on_grid
from strategies.privacy.plan import PrivacyPlan
from strategies.releases.base import Request
from tests.simulations.sabotage import (
    CHEAP,
    WORK,
    Chance,
    Engine,
    Sabotage,
    engine,
    ledger,
    of_plan,
    sampling,
    study,
    to_norm,
)

MOVING = replace(CHEAP, moving_steps=60)
LONG = replace(CHEAP, least_steps=1_600)


def asking(epsilon: float) -> Study:
    """The study, with an evaluation."""
    whole = study(epsilon)
    return replace(whole, evaluation=replace(whole.evaluation, release=EvaluationRelease(1.0, 6)))


# Faults that wait until the weights have moved


def has_moved(self: Engine) -> bool:
    if not hasattr(self, "began"):
        self.began = self.model.flat.detach().clone()
    return bool((self.model.flat.detach() - self.began).abs().max() > 1e-6)


def once_moved(then: Callable[..., Tensor], before: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda self, *given: (then if has_moved(self) else before)(self, *given)


def some_of_the_noise(share: float) -> Callable[..., Tensor]:
    return lambda self, size: share * Engine.noise(self, size)


def to_the_batch_median(self: Engine, each: Tensor) -> Tensor:
    norms = each.norm(dim=1)
    return to_norm(each, float(norms.median()) if len(norms) else 1.0)


def twice_the_norm(self: Engine, each: Tensor) -> Tensor:
    return to_norm(each, 2 * self.plan.clip_norm)


def unclipped(self: Engine, each: Tensor) -> Tensor:
    return each


def wider_with_distance(self: Engine, each: Tensor) -> Tensor:
    has_moved(self)
    distance = float((self.model.flat.detach() - self.began).norm())
    return to_norm(each, self.plan.clip_norm * (1 + distance))


class StaleNorm(Engine):
    """Clips by the norms that the same rows had at the weights of the step before."""

    def rows(self, x: Tensor, y: Tensor) -> Tensor:
        now = [w.detach().clone() for w in self.weights]
        stale = getattr(self, "stale", now)
        own, self.weights = self.weights, stale
        self.old = super().rows(x, y)
        self.weights, self.stale = own, now
        return super().rows(x, y)

    def patients(self, rows: Tensor, patients: Tensor, count: int) -> Tensor:
        self.old = super().patients(self.old, patients, count)
        return super().patients(rows, patients, count)

    def clip(self, each: Tensor) -> Tensor:
        norms = self.old.norm(dim=1, keepdim=True).clamp_min(self.plan.clip_norm)
        result: Tensor = each * (self.plan.clip_norm / norms)
        return result


class StepBefore(Engine):
    """Adds something of the step before, ahead of the noise."""

    def release(self, each: Tensor, batch: int) -> Tensor:
        clean = self.clip(each).sum(0)
        before, self.before = getattr(self, "before", torch.zeros_like(clean)), clean
        return (clean + 0.3 * before + self.noise(each.shape[1])) / self.plan.expected_patients


# Noise that is not what it was


def fading(self: Engine, size: int) -> Tensor:
    return Engine.noise(self, size) / (1 + 0.02 * self.steps)


def in_every_second_step(self: Engine, size: int) -> Tensor:
    return Engine.noise(self, size) * (1.3 if self.steps % 2 else 0.55)


def with_opposite_steps(self: Engine, size: int) -> Tensor:
    if self.steps % 2 and hasattr(self, "last"):
        return -self.last
    self.last = Engine.noise(self, size).clone()
    return self.last


def with_distant_opposites(self: Engine, size: int) -> Tensor:
    """Every step has its opposite seven to eleven steps later."""
    kept: dict[int, Tensor] = self.__dict__.setdefault("kept", {})
    if self.steps in kept:
        return kept.pop(self.steps)
    noise = Engine.noise(self, size).clone()
    later = self.steps + 7 + self.steps % 5
    if later not in kept:
        kept[later] = -noise
    return noise


def mirrored(sign: float, order: Callable[[int], Any]) -> Callable[..., Tensor]:
    """Coordinates in pairs that have the same noise, or opposite noise."""

    def noise(self: Engine, size: int) -> Tensor:
        half = size // 2
        drawn = Engine.noise(self, size - half)
        whole = torch.empty(size, dtype=drawn.dtype)
        places = torch.as_tensor(order(size))
        whole[places[: size - half]], whole[places[size - half :]] = drawn, sign * drawn[:half]
        return whole

    return noise


def of_low_rank(self: Engine, size: int) -> Tensor:
    mixed = np.random.default_rng(5).standard_normal((size, 20))
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    return torch.from_numpy(mixed).to(torch.float64) @ Engine.noise(self, 20).double()


def of_period(self: Engine, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(self.steps % 16)
    return torch.normal(0.0, self.plan.noise_multiplier * self.plan.clip_norm, (size,), generator=generator)


def of_few_levels(self: Engine, size: int) -> Tensor:
    deviation = self.plan.noise_multiplier * self.plan.clip_norm
    return torch.round(Engine.noise(self, size) / deviation * 4) / 4 * (deviation * math.sqrt(48 / 49))


def of_law(quantiles: Callable[[Any], Any]) -> Callable[..., Tensor]:
    """Noise of another law with the booked deviation."""

    def noise(self: Engine, size: int) -> Tensor:
        ranks = torch.special.ndtr(self.gaussian(size, 1.0)).numpy().clip(1e-12, 1 - 1e-12)
        return torch.from_numpy(quantiles(ranks)) * self.plan.noise_multiplier * self.plan.clip_norm

    return noise


def laplace(ranks: Any) -> Any:
    return -np.sign(ranks - 0.5) * np.log(1 - 2 * np.abs(ranks - 0.5) + 1e-15) / math.sqrt(2)


def student(ranks: Any) -> Any:
    from scipy import stats

    return stats.t.ppf(ranks, 5) / math.sqrt(5 / 3)


def cut_at_three(self: Engine, size: int) -> Tensor:
    deviation = self.plan.noise_multiplier * self.plan.clip_norm
    return self.gaussian(size, 1.0).clamp(-3, 3) * (deviation / 0.99865)


def related_to_the_last(self: Engine, size: int) -> Tensor:
    fresh = Engine.noise(self, size)
    last = getattr(self, "last", fresh)
    self.last = 0.25 * last + math.sqrt(1 - 0.25**2) * fresh
    return self.last


def telescoping(self: Engine, size: int) -> Tensor:
    fresh = Engine.noise(self, size).clone()
    noise = (fresh - getattr(self, "last", torch.zeros_like(fresh))) / math.sqrt(2)
    self.last = fresh
    return noise


def less_for_many(self: Engine, each: Tensor, batch: int) -> Tensor:
    """A third of the noise where more than two and a half times the expected patients came."""
    many = batch > 2.5 * self.plan.expected_patients
    noise = self.noise(each.shape[1]) * (1 / 3 if many else 1.0)
    return (self.clip(each).sum(0) + noise) / self.plan.expected_patients


def by_the_root_of_the_batch(self: Engine, each: Tensor, batch: int) -> Tensor:
    noise = self.noise(each.shape[1]) * math.sqrt(max(1, batch) / self.plan.expected_patients)
    return (self.clip(each).sum(0) + noise) / self.plan.expected_patients


def where_somebody_is(self: Engine, each: Tensor, batch: int) -> Tensor:
    clean = self.clip(each).sum(0)
    return (clean + self.noise(each.shape[1]) * (clean != 0)) / self.plan.expected_patients


class OnNoGrid(Engine):
    """Releases what it has, rounded in another way than to the public step."""

    rounded: Callable[[Any, float], Any] = staticmethod(lambda released, deviation: released)

    def noisy_gradient(self, x: Tensor, y: Tensor, patients: Tensor, *, patients_in_batch: int) -> Tensor:
        each = self.patients(self.rows(x, y), patients, patients_in_batch)
        deviation = self.plan.noise_multiplier * self.plan.clip_norm
        released = self.release(each, patients_in_batch).double().numpy() * self.plan.expected_patients
        self.model.gradient.copy_(torch.from_numpy(self.rounded(released, deviation) / self.plan.expected_patients))
        self.steps += 1
        result: Tensor = self.model.gradient
        return result


def on_no_grid(rounded: Callable[[Any, float], Any]) -> Subject:
    return Subject(engine=type("OnNoGrid", (OnNoGrid,), {"rounded": staticmethod(rounded)}))  # type: ignore[arg-type]


def exact_beside_the_grid(released: Any, deviation: float) -> Any:
    """On the grid but for one coordinate."""
    rounded = on_grid(released.copy(), deviation, 1.0)
    rounded[3] = released[3]
    return rounded


# Sensitivity


def by_the_largest_number(self: Engine, each: Tensor) -> Tensor:
    return each * (self.plan.clip_norm / each.abs().amax(1, keepdim=True).clamp_min(self.plan.clip_norm))


def to_the_mean_norm(self: Engine, each: Tensor) -> Tensor:
    norms = each.norm(dim=1)
    return each * (self.plan.clip_norm / max(self.plan.clip_norm, float(norms.mean()) if len(norms) else 0.0))


def split_after_four_rows(self: Engine, rows: Tensor, patients: Tensor, count: int) -> Tensor:
    """Whoever has more than four rows is taken for several patients."""
    place = torch.zeros_like(patients)
    for patient in range(count):
        own = (patients == patient).nonzero().flatten()
        place[own] = patient * 1000 + torch.arange(len(own)) // 4
    _, numbers = torch.unique(place, return_inverse=True)
    total = int(numbers.max()) + 1 if len(numbers) else 0
    return rows.new_zeros((total, rows.shape[1])).index_add_(0, numbers, rows)


def small_batches_twice(self: Engine, each: Tensor) -> Tensor:
    clipped = to_norm(each, self.plan.clip_norm)
    return clipped * 2 if len(clipped) < 5 else clipped


def last_of_many_unclipped(self: Engine, each: Tensor) -> Tensor:
    return torch.cat([to_norm(each[:-1], self.plan.clip_norm), each[-1:]]) if len(each) > 3 else to_norm(each, 1.0)


def clip_then_scale_up(self: Engine, each: Tensor) -> Tensor:
    return to_norm(each, self.plan.clip_norm) * 1.02


# Sampling


def step_of(own: Any) -> int:
    step: int = getattr(own, "step", -1) + 1
    own.step = step
    return step


def drawn(own: Any, patients: int, rate: Any) -> Any:
    return np.flatnonzero(own.sampling.random(patients) < rate)


def drifting(own: Any, patients: int, rate: float, first: float = 0.9, last: float = 1.1, steps: int = 1_300) -> Any:
    share = min(1.0, step_of(own) / steps)
    return drawn(own, patients, rate * (first + (last - first) * share))


def more_at_the_end(own: Any, patients: int, rate: float) -> Any:
    return drawn(own, patients, rate * (1.4 if step_of(own) > 1_150 else 1.0))


def some_more_often(own: Any, patients: int, rate: float) -> Any:
    return drawn(own, patients, rate * np.where(np.arange(patients) % 3, 0.8, 1.4))


def again_two_steps_later(own: Any, patients: int, rate: float) -> Any:
    number = step_of(own)
    kept = own.__dict__.setdefault("kept", {})
    kept[number] = kept.pop(number - 2) if number % 4 >= 2 else drawn(own, patients, rate)
    return kept[number]


def resting_after_a_step(own: Any, patients: int, rate: float) -> Any:
    """Who was in a step is not in the next one; the rate is right in the mean."""
    before = getattr(own, "before", np.zeros(patients, bool))
    chosen = ~before[:patients] & (own.sampling.random(patients) < rate / (1 - rate))
    own.before = chosen
    return np.flatnonzero(chosen)


def at_most(own: Any, patients: int, rate: float) -> Any:
    return drawn(own, patients, rate)[: math.ceil(1.15 * rate * patients)]


def at_least(own: Any, patients: int, rate: float) -> Any:
    chosen = drawn(own, patients, rate)
    while len(chosen) < 0.8 * rate * patients:
        chosen = drawn(own, patients, rate)
    return chosen


def exactly_of_each_half(own: Any, patients: int, rate: float) -> Any:
    half = patients // 2
    size = max(1, round(rate * half))
    halves = (own.sampling.permutation(half)[:size], half + own.sampling.permutation(patients - half)[:size])
    return np.sort(np.concatenate(halves))


def by_turns(own: Any, patients: int, rate: float) -> Any:
    """The patients of even and of odd numbers in turn, at twice the rate."""
    mine = np.arange(patients) % 2 == step_of(own) % 2
    return np.flatnonzero(mine & (own.sampling.random(patients) < 2 * rate))


class SameSampleEachRound(Site):
    """Who is in a step of a round is in the same step of every round."""

    def _randomness(self, *which: Any) -> Any:
        own = super()._randomness(*which)
        first = np.random.default_rng(3)
        return Chance(own, lambda chance, patients, rate: np.flatnonzero(first.random(patients) < rate))


class AnswersFailures(Site):
    """Answers a round that fails with the model that came."""

    def fit(self, round_number: int, start: Any, *rest: Any, **more: Any) -> Any:
        failures: list[Exception] = []
        self.on_failure = failures.append
        left = super().fit(round_number, start, *rest, **more)
        return start if failures else left


class RefusesFailures(Site):
    """Refuses a round that fails."""

    def fit(self, round_number: int, start: Any, *rest: Any, **more: Any) -> Any:
        failures: list[Exception] = []
        self.on_failure = failures.append
        left = super().fit(round_number, start, *rest, **more)
        if failures:
            raise RunError("it could not train")
        return left


# Ledgers


class BooksElsewhere(Ledger):
    """Books every second round under another data set."""

    @contextmanager
    def reserve(self, release: Release, plan: PrivacyPlan, *rest: Any, **more: Any) -> Iterator[None]:
        other = replace(release, dataset="elsewhere") if release.round == 2 else release
        with super().reserve(other, plan, *rest, **more):
            yield


class BooksRarerSamples(Ledger):
    """Books half the sampling rate."""

    def _insert(self, release: Release, plan: PrivacyPlan) -> int:
        assert isinstance(release.event, SampledGaussian)
        event = replace(release.event, sampling_rate=release.event.sampling_rate / 2)
        return super()._insert(replace(release, event=event), plan)


class StatesAtAnotherDelta(Ledger):
    """States epsilon at a delta a hundred times as large."""

    def spent(self, dataset: str, *, delta: float, study: str | None = None) -> float:
        return super().spent(dataset, delta=min(0.5, 100 * delta), study=study)


# Evaluations


class Evaluates(Site):
    """A hospital that makes its histogram by itself."""

    make: Callable[..., Any]

    def release(self, name: str, request: Request) -> Any:
        if name != "score histogram":
            return super().release(name, request)
        self.people = self._read().test
        assert self.plan is not None
        assert self.plan.evaluation is not None
        asked = self.study.evaluation.release
        assert asked is not None
        exact, _ = exact_histogram(self.task, request.arrays, self.people, asked.bins)
        chance = np.random.default_rng(self.study.seed if self.seeded else None)
        made = type(self).make(self, exact.reshape(2, -1), self.plan.evaluation.noise_multiplier, chance)
        return {HISTOGRAM: np.asarray(made, np.float32)}


def evaluating(make: Callable[..., Any]) -> Subject:
    return Subject(site=type("Broken", (Evaluates,), {"make": staticmethod(make)}))


def healthy_histogram(site: Any, exact: Any, deviation: float, chance: Any) -> Any:
    return exact + np.rint(chance.normal(0, deviation, exact.shape))


def with_noise(noise: Callable[[float, Any, Any], Any]) -> Subject:
    return evaluating(lambda site, exact, deviation, chance: exact + np.rint(noise(deviation, chance, exact.shape)))


def doubled_counts(site: Any, exact: Any, deviation: float, chance: Any) -> Any:
    return healthy_histogram(site, 2 * exact, deviation, chance)


def rows_counted(site: Any, exact: Any, deviation: float, chance: Any) -> Any:
    rows = np.diff(site.people.starts).sum() - site.people.count
    more = np.zeros_like(exact)
    more[0, 0] = rows
    return healthy_histogram(site, exact + more, deviation, chance)


def first_row_only(deviation: float, chance: Any, shape: Any) -> Any:
    noise = chance.normal(0, deviation, shape)
    noise[1] = 0.0
    return noise


def one_draw_for_both_rows(deviation: float, chance: Any, shape: Any) -> Any:
    return np.repeat(chance.normal(0, deviation, (1, shape[1])), 2, axis=0)


def uniform_noise(deviation: float, chance: Any, shape: Any) -> Any:
    return chance.uniform(-1, 1, shape) * math.sqrt(3) * deviation


EVALUATION_NOISE = replace(CHEAP, evaluations=150)
EVALUATIONS = [
    Sabotage("half the noise of an evaluation", with_noise(lambda d, c, s: c.normal(0, d / 2, s)), "residual"),
    Sabotage("no noise for patients with the outcome", with_noise(first_row_only), "residual"),
    Sabotage(
        "the same noise in every evaluation",
        with_noise(lambda d, c, s: np.random.default_rng(1).normal(0, d, s)),
        "residual",
    ),
    Sabotage("one draw for both outcomes", with_noise(one_draw_for_both_rows), "residual"),
    Sabotage("uniform noise of an evaluation", with_noise(uniform_noise), "residual"),
    Sabotage(
        "an evaluation that is not rounded", evaluating(lambda site, e, d, c: e + c.normal(0, d, e.shape)), "residual"
    ),
    Sabotage(
        "an evaluation whose noise is never negative", with_noise(lambda d, c, s: np.abs(c.normal(0, d, s))), "residual"
    ),
    Sabotage("patients counted twice", evaluating(doubled_counts), "sensitivity"),
    Sabotage("rows counted, not patients", evaluating(rows_counted), "sensitivity"),
]

MORE = [
    Sabotage(
        "a third of the noise once weights have moved",
        engine(noise=once_moved(some_of_the_noise(1 / 3), Engine.noise)),
        "residual",
        MOVING,
    ),
    Sabotage(
        "four fifths of the noise once weights have moved",
        engine(noise=once_moved(some_of_the_noise(0.8), Engine.noise)),
        "residual",
        MOVING,
    ),
    Sabotage(
        "no noise once weights have moved",
        engine(noise=once_moved(some_of_the_noise(1e-6), Engine.noise)),
        "residual",
        MOVING,
    ),
    Sabotage(
        "opposite noise once weights have moved",
        engine(noise=once_moved(with_opposite_steps, Engine.noise)),
        "residual",
        MOVING,
    ),
    Sabotage(
        "clipped to the batch's median once weights have moved",
        engine(clip=once_moved(to_the_batch_median, Engine.clip)),
        "sensitivity",
    ),
    Sabotage(
        "clipped at twice the norm once weights have moved",
        engine(clip=once_moved(twice_the_norm, Engine.clip)),
        "sensitivity",
    ),
    Sabotage("unclipped once weights have moved", engine(clip=once_moved(unclipped, Engine.clip)), "sensitivity"),
    Sabotage("a clip norm that grows with the way", engine(clip=wider_with_distance), "sensitivity"),
    Sabotage("a norm of the step before", Subject(engine=StaleNorm), "sensitivity"),
    Sabotage("a third of the step before", Subject(engine=StepBefore), "residual"),
    Sabotage("noise that fades", engine(noise=fading), "residual"),
    Sabotage("less noise in every second step", engine(noise=in_every_second_step), "residual"),
    Sabotage("opposite noise in every second step", engine(noise=with_opposite_steps), "residual"),
    Sabotage("opposite noise some steps later", engine(noise=with_distant_opposites), "residual"),
    Sabotage(
        "mirrored coordinates",
        engine(noise=mirrored(-1.0, lambda n: np.r_[: n - n // 2, n - 1 : n - n // 2 - 1 : -1])),
        "residual",
    ),
    Sabotage(
        "coordinates in pairs by lot",
        engine(noise=mirrored(1.0, lambda n: np.random.default_rng(9).permutation(n))),
        "residual",
    ),
    Sabotage(
        "opposite pairs by lot",
        engine(noise=mirrored(-1.0, lambda n: np.random.default_rng(8).permutation(n))),
        "residual",
    ),
    Sabotage("noise of low rank", engine(noise=of_low_rank), "residual"),
    Sabotage("noise that comes again after sixteen steps", engine(noise=of_period), "residual"),
    Sabotage("noise of few levels", engine(noise=of_few_levels), "residual"),
    Sabotage("Laplace noise", engine(noise=of_law(laplace)), "residual"),
    Sabotage("Student's noise", engine(noise=of_law(student)), "residual"),
    Sabotage("noise cut at three deviations", engine(noise=cut_at_three), "residual", WORK),
    Sabotage("noise related to the last", engine(noise=related_to_the_last), "residual"),
    Sabotage("telescoping noise", engine(noise=telescoping), "residual"),
    Sabotage("less noise where many came", engine(release=less_for_many), "residual"),
    Sabotage("noise by the root of the batch", engine(release=by_the_root_of_the_batch), "residual"),
    Sabotage("noise only where somebody is", engine(release=where_somebody_is), "residual"),
    Sabotage("released without a grid", on_no_grid(lambda r, d: r), "residual"),
    Sabotage("released in float16", on_no_grid(lambda r, d: r.astype(np.float16).astype(np.float64)), "residual"),
    Sabotage(
        "released in three quarters of the step", on_no_grid(lambda r, d: on_grid(r / 0.75, d, 1 / 0.75)), "residual"
    ),
    Sabotage("one coordinate beside the grid", on_no_grid(exact_beside_the_grid), "residual"),
    Sabotage("clipped by the largest number", engine(clip=by_the_largest_number), "sensitivity"),
    Sabotage("clipped by the batch's mean norm", engine(clip=to_the_mean_norm), "sensitivity"),
    Sabotage("many rows taken for several patients", engine(patients=split_after_four_rows), "sensitivity"),
    Sabotage("few patients count twice", engine(clip=small_batches_twice), "sensitivity", replace(WORK, places=3)),
    Sabotage("the last patient is never clipped", engine(clip=last_of_many_unclipped), "sensitivity", WORK),
    Sabotage("2 % over the clip norm", engine(clip=clip_then_scale_up), "sensitivity"),
    Sabotage(
        "clipped at 5 % more",
        of_plan(clip_norm=lambda p: 1.05 * p.clip_norm, noise_multiplier=lambda p: p.noise_multiplier / 1.05),
        "sensitivity",
    ),
    Sabotage("a rate that rises from .9 to 1.1", sampling(drifting), "sampler", LONG),
    Sabotage("a rate that falls from 1.15 to .85", sampling(partial(drifting, first=1.15, last=0.85)), "sampler", LONG),
    Sabotage("more patients at the end", sampling(more_at_the_end), "sampler", LONG),
    Sabotage("some patients more often", sampling(some_more_often), "sampler", LONG),
    Sabotage("the sample of two steps before", sampling(again_two_steps_later), "sampler"),
    Sabotage("who was there rests", sampling(resting_after_a_step), "sampler"),
    Sabotage("no more than a seventh over the mean", sampling(at_most), "sampler", LONG),
    Sabotage("no fewer than four fifths of the mean", sampling(at_least), "sampler"),
    Sabotage("as many of each half", sampling(exactly_of_each_half), "sampler"),
    Sabotage("patients by turns", sampling(by_turns), "sampler"),
    Sabotage("the same sample each round", Subject(site=SameSampleEachRound), "sampler", WORK),
    Sabotage("a failed round answered with the model that came", Subject(site=AnswersFailures), "residual"),
    Sabotage("a failed round refused", Subject(site=RefusesFailures), "residual"),
    Sabotage("a round booked elsewhere", ledger(BooksElsewhere), "ledger"),
    Sabotage("rarer samples booked", ledger(BooksRarerSamples), "ledger"),
    Sabotage("epsilon stated at another delta", ledger(StatesAtAnotherDelta), "ledger"),
]
