"""Engines, samplers, hospitals and ledgers with one fault each for the audit to find, and a small study for it."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.ledger import Ledger, Release
from client.site import Site
from client.trainer import Trainer
from configs.schema import Model, Study
from simulations.audit.auditor import PARTS, audit_patients
from simulations.audit.effort import Effort
from simulations.audit.subject import Subject, chance
from simulations.audit.verdict import Audit
from strategies.privacy.accounting import SampledGaussian, epsilon
from strategies.privacy.engines.select import private_engine
from strategies.privacy.grid import on_grid
from strategies.privacy.plan import Budget, PrivacyPlan
from strategies.privacy.randomness import Randomness
from strategies.releases.base import Fit
from tests import builders

SITE, PATIENTS = "lille", 60
WORK = Effort(least_steps=64, few_steps=60, canaries=60, neighbours=4, starts=1, places=1, patients=PATIENTS)
CHEAP = replace(WORK, smallest_loss=0.05, neighbours=1)
BRIEF = replace(CHEAP, smallest_loss=0.2, least_steps=40, few_steps=40, canaries=20, moving_steps=10, evaluations=40)


def study(epsilon: float, **training: Any) -> Study:
    """One hospital of 60 patients, batches of 12, a model of about 800 parameters."""
    features = {f"input_{i}": {"type": "number", "range": [-1, 1]} for i in range(20)}
    return builders.study(
        features=features,
        cohort={SITE: PATIENTS},
        model={"name": "mlp", "hidden": [36], "init": "random"},
        training={
            "rounds": 3,
            "quorum": 1,
            "local": {"epochs": 1, "batch_size": 12, "learning_rate": 0.5},
            **training,
        },
        privacy={"epsilon": epsilon},
    )


def small_study() -> Study:
    """The same with 21 parameters, which takes a third of the time."""
    return replace(study(1.0), model=Model("logistic"))


def audited(subject: Subject, epsilon: float = 1.0, seed: int = 0, effort: Effort = WORK, *only: str) -> Audit:
    """The audit of the study with something broken."""
    return audited_study(study(epsilon), subject, seed, effort, *only)


def audited_study(study: Study, subject: Subject, seed: int | None, effort: Effort, *only: str) -> Audit:
    """The audit of any study of this hospital."""
    people = builders.patients(PATIENTS, inputs=20, seed=1)
    return audit_patients(study, {SITE: people}, subject, seed=seed, effort=effort, only=only or PARTS)


def failed(audit: Audit) -> set[str]:
    """The parts that failed."""
    return {part.key for part in audit.parts if part.verdict == "FAILED"}


# Engines


class Engine:
    """A private step in the plainest words: each method is one thing that can be got wrong."""

    began: Tensor  # the weights at first, and the noise of the step before: some faults keep them
    last: Tensor

    def __init__(self, model: Any, plan: PrivacyPlan, gaussian: Callable[[int, float], Tensor], name: str) -> None:
        self.model, self.plan, self.gaussian = model, plan, gaussian
        self.weights = list(model.module.parameters())
        self.sizes = [p.numel() for p in self.weights]
        self.steps = 0

    def rows(self, x: Tensor, y: Tensor) -> Tensor:
        """(rows, parameters): gradients of one hidden layer's stack, by hand."""
        w1, b1, w2, b2 = self.weights
        with torch.no_grad():
            before = x @ w1.T + b1
            hidden = before.relu()
            last = self.derivative(hidden @ w2.T + b2, y)
            first = (last @ w2) * (before > 0)
            parts = [first[:, :, None] * x[:, None, :], first, last[:, :, None] * hidden[:, None, :], last]
            return torch.cat([part.flatten(1) for part in parts], 1)

    def derivative(self, outputs: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            outputs.requires_grad_()
            (gradient,) = torch.autograd.grad(self.model.task.loss(outputs, y).sum(), outputs)
        return gradient

    def patients(self, rows: Tensor, patients: Tensor, count: int) -> Tensor:
        return rows.new_zeros((count, rows.shape[1])).index_add_(0, patients, rows)

    def clip(self, each: Tensor) -> Tensor:
        result: Tensor = each * (self.plan.clip_norm / each.norm(dim=1, keepdim=True).clamp_min(self.plan.clip_norm))
        return result

    def noise(self, size: int) -> Tensor:
        return self.gaussian(size, self.plan.noise_multiplier * self.plan.clip_norm)

    def release(self, each: Tensor, batch: int) -> Tensor:
        return (self.clip(each).sum(0) + self.noise(each.shape[1])) / self.plan.expected_patients

    def clipped_sum(self, x: Tensor, y: Tensor, patients: Tensor, *, patients_in_batch: int) -> Tensor:
        return self.clip(self.patients(self.rows(x, y), patients, patients_in_batch)).sum(0)

    def noisy_gradient(self, x: Tensor, y: Tensor, patients: Tensor, *, patients_in_batch: int) -> Tensor:
        each = self.patients(self.rows(x, y), patients, patients_in_batch)
        deviation, expected = self.plan.noise_multiplier * self.plan.clip_norm, self.plan.expected_patients
        released = self.release(each, patients_in_batch).double().numpy() * expected
        self.model.gradient.copy_(torch.from_numpy(on_grid(released, deviation, expected)))
        self.steps += 1
        result: Tensor = self.model.gradient
        return result

    def close(self) -> None:
        pass


def engine(**methods: Callable[..., Any]) -> Subject:
    """The plain engine with some methods of others."""
    return Subject(engine=type("Broken", (Engine,), methods))  # type: ignore[arg-type]


def of_plan(**changes: Callable[[PrivacyPlan], Any]) -> Subject:
    """The product's own engine, given another plan than the one that is booked."""

    def make(model: Any, plan: PrivacyPlan, gaussian: Any, name: Any) -> Any:
        return private_engine(model, replace(plan, **{key: change(plan) for key, change in changes.items()}), gaussian)

    return Subject(engine=make)


def scaled(factor: float) -> Subject:
    return of_plan(noise_multiplier=lambda plan: factor * plan.noise_multiplier)


def layers(each: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
    return torch.split(each, sizes, dim=1)


def to_norm(each: Tensor, norm: float) -> Tensor:
    result: Tensor = each * (norm / each.norm(dim=1, keepdim=True).clamp_min(norm))
    return result


def clip_after_averaging(self: Engine, each: Tensor, batch: int) -> Tensor:
    mean = each.sum(0, keepdim=True) / self.plan.expected_patients
    noise = self.noise(each.shape[1]) / self.plan.expected_patients
    return to_norm(mean, self.plan.clip_norm)[0] + noise


def last_layer_unclipped(self: Engine, each: Tensor) -> Tensor:
    *first, weight, bias = layers(each, self.sizes)
    return torch.cat([to_norm(torch.cat(first, 1), self.plan.clip_norm), weight, bias], 1)


def each_layer_at_full_norm(self: Engine, each: Tensor) -> Tensor:
    return torch.cat([to_norm(layer, self.plan.clip_norm) for layer in layers(each, self.sizes)], 1)


def norm_without_bias(self: Engine, each: Tensor) -> Tensor:
    w1, _, w2, _ = layers(each, self.sizes)
    norm = torch.cat([w1, w2], 1).norm(dim=1, keepdim=True)
    result: Tensor = each * (self.plan.clip_norm / norm.clamp_min(self.plan.clip_norm))
    return result


def clip_by_value(self: Engine, each: Tensor) -> Tensor:
    return each.clamp(-self.plan.clip_norm, self.plan.clip_norm)


def never_the_first(self: Engine, each: Tensor) -> Tensor:
    clipped = to_norm(each, self.plan.clip_norm)
    return torch.cat([each[:1], clipped[1:]])


def rows_for_patients(self: Engine, rows: Tensor, patients: Tensor, count: int) -> Tensor:
    return rows


def noise_before_the_clip(self: Engine, each: Tensor, batch: int) -> Tensor:
    noise = self.noise(each.shape[1]) / math.sqrt(max(1, batch))
    return self.clip(each + noise).sum(0) / self.plan.expected_patients


def by_the_batch_that_came(self: Engine, each: Tensor, batch: int) -> Tensor:
    return (self.clip(each).sum(0) + self.noise(each.shape[1])) / max(1, batch)


def one_number(self: Engine, size: int) -> Tensor:
    return Engine.noise(self, 1).expand(size)


def same_every_step(self: Engine, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.normal(0.0, self.plan.noise_multiplier * self.plan.clip_norm, (size,), generator=generator)


def uniform(self: Engine, size: int) -> Tensor:
    ranks = torch.special.ndtr(self.gaussian(size, 1.0))
    result: Tensor = (ranks - 0.5) * math.sqrt(12) * self.plan.noise_multiplier * self.plan.clip_norm
    return result


def cut_tails(self: Engine, size: int) -> Tensor:
    sigma = self.plan.noise_multiplier * self.plan.clip_norm
    return self.gaussian(size, 1.0).clamp(-2.5, 2.5) * (sigma / 0.9939)  # the standard deviation is right again


def weights_only(self: Engine, size: int) -> Tensor:
    noise = Engine.noise(self, size).clone()
    noise[-1] = 0.0
    return noise


def first_step_only(self: Engine, size: int) -> Tensor:
    return Engine.noise(self, size) * (self.steps == 0)


def half_of_it_again(self: Engine, size: int) -> Tensor:
    half = Engine.noise(self, size // 2)
    return torch.cat([half, half, half.new_zeros(size % 2) + half[0]])


def none_for_empty_batches(self: Engine, each: Tensor, batch: int) -> Tensor:
    return Engine.release(self, each, batch) if batch else torch.zeros(each.shape[1])


# Sampling


class Chance:
    """Randomness whose samples are others."""

    def __init__(self, own: Randomness, sample: Callable[..., Any]) -> None:
        self._own, self._sample = own, sample
        self._pass: NDArray[np.int64] = np.empty((0, 0), np.int64)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def poisson(self, patients: int, rate: float) -> Any:
        return self._sample(self, patients, rate) if patients else np.empty(0, np.int64)  # a failed round has nobody

    def next_of_pass(self, patients: int, rate: float, *, drop_last: bool = False) -> Any:
        """The next batch of a shuffled list."""
        size = max(1, round(rate * patients))
        if not len(self._pass):
            order = self.sampling.permutation(patients)
            whole = patients // size if drop_last else -(-patients // size)
            self._batches = [np.sort(order[i * size : (i + 1) * size]) for i in range(whole)]
            self._pass = np.arange(whole)
        number, self._pass = self._pass[0], self._pass[1:]
        return self._batches[number]


def sampling(sample: Callable[[Any, int, float], Any]) -> Subject:
    """Other samples, in the audit's own fits and at the hospital."""

    def make(seed: int | None, site: str, number: int) -> Any:
        own = chance(seed, site, number)
        return own if site == "sensitivity" else Chance(own, sample)

    class Hospital(Site):
        def _randomness(self, *which: Any) -> Any:
            return Chance(super()._randomness(*which), sample)

    return Subject(randomness=make, site=Hospital)


def fixed_size(own: Any, patients: int, rate: float) -> Any:
    size = max(1, round(rate * patients))
    return np.sort(own.sampling.permutation(patients)[:size])


def doubled(own: Any, patients: int, rate: float) -> Any:
    return np.flatnonzero(own.sampling.random(patients) < 2 * rate)


def together(own: Any, patients: int, rate: float) -> Any:
    pairs = own.sampling.random((patients + 1) // 2) < rate
    return np.flatnonzero(np.repeat(pairs, 2)[:patients])


def never_empty(own: Any, patients: int, rate: float) -> Any:
    while not len(chosen := np.flatnonzero(own.sampling.random(patients) < rate)):
        pass
    return chosen


def sticky(own: Any, patients: int, rate: float) -> Any:
    """Who was in a step is in the next one more often."""
    before = getattr(own, "before", None)
    fresh = own.sampling.random(patients) < rate
    chosen = fresh if before is None else np.where(own.sampling.random(patients) < 0.3, before, fresh)
    own.before = chosen
    return np.flatnonzero(chosen)


class SkipsEmptyBatches(Trainer):
    """Takes no step where nobody was drawn."""

    def _private(self, fit: Fit, plan: PrivacyPlan) -> Iterator[Tensor]:
        for _ in range(plan.steps_per_round):
            chosen = fit.randomness.poisson(fit.patients.count, plan.sampling_rate)
            if len(chosen):
                certain: Any = Chance(fit.randomness, lambda own, count, rate, chosen=chosen: chosen)
                yield from super()._private(replace(fit, randomness=certain), replace(plan, steps_per_round=1))


class DropsTheLastStep(Trainer):
    """Takes a step less than is booked."""

    def _private(self, fit: Fit, plan: PrivacyPlan) -> Iterator[Tensor]:
        yield from super()._private(fit, replace(plan, steps_per_round=plan.steps_per_round - 1))


class TakesAnotherStep(Trainer):
    """Takes a step more than is booked."""

    def _private(self, fit: Fit, plan: PrivacyPlan) -> Iterator[Tensor]:
        yield from super()._private(fit, replace(plan, steps_per_round=plan.steps_per_round + 1))


class SendsWithoutNoise(Trainer):
    """Trains privately, and sends another model."""

    def fit(self, fit: Fit) -> Any:
        super().fit(fit)
        return super().fit(replace(fit, plan=None))


# Hospitals and ledgers


class SameSeedEachRound(Site):
    """Every round has the chance of the first."""

    def _randomness(self, label: str, number: int, attempt: int) -> Randomness:
        return super()._randomness(label, 1, attempt)


class NoisierPlan(Site):
    """Books a plan and trains with half its noise."""

    def work(self, fit: Fit) -> Any:
        assert fit.plan is not None
        less = replace(fit.plan, noise_multiplier=fit.plan.noise_multiplier / 2)
        return super().work(replace(fit, plan=less))


class Wiped(Ledger):
    """Starts again with every round."""

    def _book(self, release: Release, *rest: Any) -> int:
        self._connection.execute("DELETE FROM releases")
        return super()._book(release, *rest)


class ForgetsTheSecond(Ledger):
    """Does not book round 2."""

    @contextmanager
    def reserve(self, release: Release, plan: PrivacyPlan, *rest: Any, **more: Any) -> Iterator[None]:
        if release.round == 2:
            yield
            return
        with super().reserve(release, plan, *rest, **more):
            yield


class BooksAfterwards(Ledger):
    """Books a round when it is over."""

    @contextmanager
    def reserve(self, release: Release, plan: PrivacyPlan, *rest: Any, **more: Any) -> Iterator[None]:
        yield
        with super().reserve(release, plan, *rest, **more):
            pass


class Refunds(Ledger):
    """Gives a round back whose training failed."""

    @contextmanager
    def reserve(self, release: Release, plan: PrivacyPlan, *rest: Any, **more: Any) -> Iterator[None]:
        try:
            with super().reserve(release, plan, *rest, **more):
                yield
        except BaseException:
            self._connection.execute("DELETE FROM releases WHERE state = 'reserved'")
            raise


class BooksLess(Ledger):
    """Books one step of each round."""

    @contextmanager
    def reserve(self, release: Release, plan: PrivacyPlan, *rest: Any, **more: Any) -> Iterator[None]:
        assert isinstance(release.event, SampledGaussian)
        one = replace(release, event=replace(release.event, steps=1))
        with super().reserve(one, plan, *rest, **more):
            yield


class BooksMoreNoise(Ledger):
    """Books twice the noise."""

    def _insert(self, release: Release, plan: PrivacyPlan) -> int:
        event = replace(release.event, noise_multiplier=2 * release.event.noise_multiplier)
        return super()._insert(replace(release, event=event), plan)


class StatesOneRound(Ledger):
    """Has every row, and states what the last one costs."""

    def spent(self, dataset: str, *, delta: float, study: str | None = None) -> float:
        events = self.events(dataset, study)
        if not events:
            return 0.0
        assert isinstance(events[0], SampledGaussian)
        return epsilon([replace(events[0], steps=1)], delta)


class NeverRefuses(Ledger):
    """Books whatever comes."""

    def _require(self, release: Release, plan: PrivacyPlan, budget: Budget | None) -> None:
        pass


class LosesARow(Ledger):
    """A reservation vanishes, and is written again as another."""

    def _insert(self, release: Release, plan: PrivacyPlan) -> int:
        row = super()._insert(release, plan)
        if release.round == 2:
            self._connection.execute("UPDATE releases SET id = 7 WHERE id = ?", (row,))
            return 7
        return row


def ledger(kind: type[Ledger]) -> Subject:
    """A hospital with this ledger on its disk."""
    return Subject(ledger=partial(kind.open, durable=False))


@dataclass(frozen=True)
class Sabotage:
    """What is broken, the part that must find it, and how long it must look."""

    name: str
    subject: Subject
    part: str
    effort: Effort = CHEAP


SABOTAGES = [
    Sabotage("noise off", scaled(1e-9), "residual"),
    Sabotage("half the noise", scaled(0.5), "residual"),
    Sabotage("1 % too little noise", scaled(0.99), "residual", WORK),
    Sabotage("noise divided by the root of the patients", scaled(1 / math.sqrt(PATIENTS)), "residual"),
    Sabotage("the same noise in every step", engine(noise=same_every_step), "residual"),
    Sabotage("the same noise for every coordinate", engine(noise=one_number), "residual"),
    Sabotage("half the coordinates repeat the others", engine(noise=half_of_it_again), "residual"),
    Sabotage("uniform noise", engine(noise=uniform), "residual"),
    Sabotage("noise without tails", engine(noise=cut_tails), "residual"),
    Sabotage("one coordinate without noise", engine(noise=weights_only), "residual"),
    Sabotage("noise in the first step of a round only", engine(noise=first_step_only), "residual"),
    Sabotage("no noise for an empty batch", engine(release=none_for_empty_batches), "residual"),
    Sabotage("noise added before the clip", engine(release=noise_before_the_clip), "residual"),
    Sabotage("divided by the batch that came", engine(release=by_the_batch_that_came), "residual"),
    Sabotage("the same seed each round", Subject(site=SameSeedEachRound), "residual"),
    Sabotage("trained with less noise than booked", Subject(site=NoisierPlan), "residual"),
    Sabotage("another model is sent", Subject(trainer=SendsWithoutNoise), "residual"),
    Sabotage(
        "clipped at twice the norm",
        of_plan(clip_norm=lambda p: 2 * p.clip_norm, noise_multiplier=lambda p: p.noise_multiplier / 2),
        "sensitivity",
    ),
    Sabotage("clipped after averaging", engine(release=clip_after_averaging), "sensitivity"),
    Sabotage("one layer unclipped", engine(clip=last_layer_unclipped), "sensitivity"),
    Sabotage("every layer clipped at the full norm", engine(clip=each_layer_at_full_norm), "sensitivity"),
    Sabotage("a norm without the biases", engine(clip=norm_without_bias), "sensitivity"),
    Sabotage("clipped by value", engine(clip=clip_by_value), "sensitivity"),
    Sabotage("the first patient is never clipped", engine(clip=never_the_first), "sensitivity"),
    Sabotage("rows clipped, not patients", engine(patients=rows_for_patients), "sensitivity"),
    Sabotage("shuffled batches booked as Poisson", sampling(Chance.next_of_pass), "sampler"),
    Sabotage("last batch of a pass dropped", sampling(partial(Chance.next_of_pass, drop_last=True)), "sampler"),
    Sabotage("batches of a fixed size", sampling(fixed_size), "sampler"),
    Sabotage("the rate doubled", sampling(doubled), "sampler"),
    Sabotage("patients sampled in pairs", sampling(together), "sampler"),
    Sabotage("who was there comes again", sampling(sticky), "sampler", WORK),
    Sabotage("empty batches drawn again", sampling(never_empty), "sampler"),
    Sabotage("empty batches skipped", Subject(trainer=SkipsEmptyBatches), "sampler"),
    Sabotage("last step dropped", Subject(trainer=DropsTheLastStep), "sampler"),
    Sabotage("a step more than booked", Subject(trainer=TakesAnotherStep), "ledger"),
    Sabotage("accountant reset every round", ledger(Wiped), "ledger"),
    Sabotage("a round not booked", ledger(ForgetsTheSecond), "ledger"),
    Sabotage("booked when the round is over", ledger(BooksAfterwards), "ledger"),
    Sabotage("given back after a crash", ledger(Refunds), "ledger"),
    Sabotage("one step of each round booked", ledger(BooksLess), "ledger"),
    Sabotage("more noise booked", ledger(BooksMoreNoise), "ledger"),
    Sabotage("epsilon of one round stated", ledger(StatesOneRound), "ledger"),
    Sabotage("nothing refused", ledger(NeverRefuses), "ledger"),
    Sabotage("a row of the ledger vanished", ledger(LosesARow), "ledger"),
]
HEALTHY = {"the product": Subject(), "the plain engine": engine()}
