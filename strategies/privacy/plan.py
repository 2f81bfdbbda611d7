"""The privacy plan of one hospital's releases: their events and cost, as one frozen object.

Settings that cannot change privacy live elsewhere. A privacy mode (strategies/privacy/modes) derives it from the study
and from public numbers.

A release that is lost after it was booked is spent, and only another one, with fresh noise, can take its place. A study
that asks for `spare` releases has noise for its rounds and for that many more.

>>> budget = Budget(epsilon=3.0, delta=1e-5)
>>> plan = calibrate(budget, clip_norm=1.0, sampling_rate=1.0, steps_per_round=1, rounds=20, patients=200)
>>> plan.noise_multiplier, round(plan.epsilon(), 3)
(6.219, 3.0)
>>> round(plan.epsilon(rounds=10), 3)
2.031
>>> wary = calibrate(budget, clip_norm=1.0, sampling_rate=1.0, steps_per_round=1, rounds=20, patients=200, spare=2)
>>> wary.noise_multiplier, round(wary.epsilon(), 3), round(wary.epsilon(rounds=20), 3)
(6.5225, 3.0, 2.842)
"""

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache

from configs.errors import PrivacyError
from configs.schema import PER_PATIENT
from strategies.privacy.accounting import SampledGaussian, epsilon

MAX_NOISE_MULTIPLIER = 1e5
_DIGITS = 10_000  # noise multipliers are rounded up to four decimals, so that a plan can be read and typed


def _require(name: str, expected: str, found: float, *, fits: bool) -> None:
    if not fits:
        raise PrivacyError(f"privacy: {name}: expected {expected}, got {found:g}")


@dataclass(frozen=True, slots=True)
class Budget:
    """(epsilon, delta) per patient, add or remove one."""

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        _require("epsilon", "0 < epsilon", self.epsilon, fits=0 < self.epsilon < math.inf)
        _require("delta", "0 < delta < 1", self.delta, fits=0 < self.delta < 1)


@dataclass(frozen=True, slots=True)
class PrivacyPlan:
    """Everything that decides the guarantee: how sums are clipped, noised and sampled, and how many there are.

    `expected_patients` is the public divisor of each noisy sum: sampling rate times announced training patients.
    `evaluation` is the one noisy histogram after the last round, where the study asks and the hospital allows: beside
    the training and its budget, though no patient is in both the training and the test (composed as if they were).
    `others` are what the study asks for once beside it, by name, each with a budget of its own.
    `spare` is how many lost releases may be made anew, of whatever kind: each kind's noise is calibrated for so many
    more of its own, so that any mixture of them stays within both budgets.
    `trains`: a hospital that only tests has no training to release or to pay for.
    """

    clip_norm: float
    noise_multiplier: float
    sampling_rate: float
    steps_per_round: int
    rounds: int
    delta: float
    expected_patients: float
    evaluation: SampledGaussian | None = field(default=None, repr=False)
    spare: int = field(default=0, repr=False)
    others: tuple[tuple[str, SampledGaussian], ...] = field(default=(), repr=False)
    trains: bool = field(default=True, repr=False)

    def __post_init__(self) -> None:
        _require("clip_norm", "0 < clip norm", self.clip_norm, fits=0 < self.clip_norm < math.inf)
        _require("noise_multiplier", "0 < sigma", self.noise_multiplier, fits=0 < self.noise_multiplier < math.inf)
        _require("sampling_rate", "0 < sampling rate <= 1", self.sampling_rate, fits=0 < self.sampling_rate <= 1)
        _require("steps_per_round", "at least 1 step", self.steps_per_round, fits=self.steps_per_round >= 1)
        _require("rounds", "at least 1 round", self.rounds, fits=self.rounds >= 1)
        _require("delta", "0 < delta < 1", self.delta, fits=0 < self.delta < 1)
        _require("expected_patients", "more than 0", self.expected_patients, fits=0 < self.expected_patients < math.inf)
        _require("spare", "no fewer than 0", self.spare, fits=self.spare >= 0)

    @property
    def steps(self) -> int:
        """Return the number of steps of the whole study, where no release is lost."""
        return self.steps_per_round * self.rounds

    @property
    def training_steps(self) -> int:
        """Return the most steps of the training, spare rounds included; 0 at a hospital that only tests."""
        return self.steps_per_round * (self.rounds + self.spare) if self.trains else 0

    @property
    def round_event(self) -> SampledGaussian:
        """Return what one round releases."""
        return SampledGaussian(self.noise_multiplier, self.sampling_rate, self.steps_per_round)

    def epsilon(self, rounds: int | None = None) -> float:
        """Return epsilon per patient of the training after some rounds, by default all of them and every spare one."""
        if not self.trains:
            return 0.0
        rounds = self.rounds + self.spare if rounds is None else rounds
        return epsilon([self.round_event] * rounds, self.delta)

    @property
    def events(self) -> tuple[SampledGaussian, ...]:
        """Return the most that the study can release: its training, what is asked once, and every spare release."""
        training = (replace(self.round_event, steps=self.training_steps),) if self.trains else ()
        return *training, *(replace(event, steps=event.steps * (1 + self.spare)) for event in self.once)

    @property
    def once(self) -> tuple[SampledGaussian, ...]:
        """Return what is released once: the evaluation, and the others."""
        evaluation = () if self.evaluation is None else (self.evaluation,)
        return (*evaluation, *(event for _, event in self.others))

    def whole_epsilon(self) -> float:
        """Return epsilon per patient of training and evaluation together, with all spare releases."""
        return epsilon(self.events, self.delta)


def spare_cost(plan: PrivacyPlan) -> float:
    """Return by which share the plan's noise is larger than without spare releases, 0.05 for 5 %."""
    if not plan.spare or not plan.trains:
        return 0.0
    budget = Budget(plan.epsilon(), plan.delta)
    return plan.noise_multiplier / least_noise(budget, plan.sampling_rate, plan.steps) - 1.0


def calibrate(
    budget: Budget,
    *,
    clip_norm: float,
    sampling_rate: float,
    steps_per_round: int,
    rounds: int,
    patients: int,
    spare: int = 0,
) -> PrivacyPlan:
    """Return the plan with the least noise that keeps the whole study within the budget.

    Args:
        spare: rounds that may be made a second time, each at the full cost of a round.

    Raises:
        PrivacyError: no noise multiplier up to 1e5 is enough; a number that cannot be, or a delta of 1 / patients or
            more, which would allow to publish somebody.
    """
    _require("patients", "at least 1", patients, fits=patients >= 1)
    if budget.delta * patients >= 1:
        raise PrivacyError(
            f"privacy.delta: expected 0 < delta < 1/patients (= {1 / patients:.1e}), got {budget.delta:g}; lower delta"
        )
    _require("sampling_rate", "0 < sampling rate <= 1", sampling_rate, fits=0 < sampling_rate <= 1)
    _require("steps", "at least 1 step", steps_per_round * rounds, fits=steps_per_round * rounds >= 1)
    _require("spare", "no fewer than 0", spare, fits=spare >= 0)
    sigma = least_noise(budget, sampling_rate, steps_per_round * (rounds + spare))
    expected_patients = sampling_rate * patients
    return PrivacyPlan(
        clip_norm, sigma, sampling_rate, steps_per_round, rounds, budget.delta, expected_patients, spare=spare
    )


@lru_cache(maxsize=8192)
def least_noise(budget: Budget, sampling_rate: float, steps: int) -> float:
    """Return the least noise multiplier that fits, in ten-thousandths, by regula falsi: a probe takes 50 ms."""

    def excess(ticks: int) -> float:
        spent = epsilon([SampledGaussian(ticks / _DIGITS, sampling_rate, steps)], budget.delta)
        return math.log(max(spent, 1e-300) / budget.epsilon)

    # Full batches cost at least as much as sampled ones and have a closed form: double until they fit, then walk down
    # in small factors, so that no probe is far over the budget (privacy losses of hundreds take minutes and gigabytes).
    high = _DIGITS
    while epsilon([SampledGaussian(high / _DIGITS, 1.0, steps)], budget.delta) > budget.epsilon:
        high *= 2
        if high > MAX_NOISE_MULTIPLIER * _DIGITS:
            raise PrivacyError(
                f"privacy: expected a noise multiplier up to {MAX_NOISE_MULTIPLIER:g} to keep {steps} steps within "
                f"epsilon {budget.epsilon:g} at delta {budget.delta:g} {PER_PATIENT}, found none; "
                "ask for fewer steps or more epsilon"
            )
    above, below, low = excess(high), math.inf, high * 3 // 4
    while low >= 1 and (below := excess(low)) <= 0:
        high, above, low = low, below, low * 3 // 4
    stale = 0  # which end stayed where it was: its value is halved, so that the next probe falls beyond the root
    while high - low > 1:
        middle = low + round((high - low) * below / (below - above)) if below > above else (low + high) // 2
        middle = min(max(middle, low + 1), high - 1)
        over = excess(middle)
        if over > 0:
            low, below, above, stale = middle, over, above / (2 if stale == 1 else 1), 1
        else:
            high, above, below, stale = middle, over, below / (2 if stale == -1 else 1), -1
    return high / _DIGITS
