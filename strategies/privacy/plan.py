"""The guarantee at one hospital, as one frozen object. Settings that cannot change privacy live elsewhere.

`plan_for` derives it from the study and the number of training patients that the hospital announced in public. So the
plan is known before anybody looks at data, and one patient more or less changes neither noise, nor rate, nor steps. A
training at a hospital that announced no number has no plan: a number counted in its data would show in what it sends.

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
from configs.schema import PER_PATIENT, Study
from strategies.privacy.accounting import SampledGaussian, epsilon

MAX_NOISE_MULTIPLIER = 1e5
_DIGITS = 10_000  # noise multipliers are rounded up to four decimals, so that a plan can be read and typed


def _require(fits: bool, name: str, expected: str, found: float) -> None:
    if not fits:
        raise PrivacyError(f"privacy: {name}: expected {expected}, got {found:g}")


@dataclass(frozen=True, slots=True)
class Budget:
    """(epsilon, delta) per patient, add or remove one."""

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        _require(0 < self.epsilon < math.inf, "epsilon", "0 < epsilon", self.epsilon)
        _require(0 < self.delta < 1, "delta", "0 < delta < 1", self.delta)


@dataclass(frozen=True, slots=True)
class PrivacyPlan:
    """Everything that decides the guarantee: how sums are clipped, noised and sampled, and how many there are.

    `expected_patients` is the public divisor of each noisy sum: sampling rate times announced training patients.
    `evaluation` is the one noisy histogram after the last round, where the study asks and the hospital allows: beside
    the training and its budget, though nobody is in both the training and the test (composed as if they were).
    `spare` is how many lost releases may be made anew, of whatever kind: each kind's noise is calibrated for so many
    more of its own, so that any mixture of them stays within both budgets.
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

    def __post_init__(self) -> None:
        _require(0 < self.clip_norm < math.inf, "clip_norm", "0 < clip norm", self.clip_norm)
        _require(0 < self.noise_multiplier < math.inf, "noise_multiplier", "0 < sigma", self.noise_multiplier)
        _require(0 < self.sampling_rate <= 1, "sampling_rate", "0 < sampling rate <= 1", self.sampling_rate)
        _require(self.steps_per_round >= 1, "steps_per_round", "at least 1 step", self.steps_per_round)
        _require(self.rounds >= 1, "rounds", "at least 1 round", self.rounds)
        _require(0 < self.delta < 1, "delta", "0 < delta < 1", self.delta)
        _require(0 < self.expected_patients < math.inf, "expected_patients", "more than 0", self.expected_patients)
        _require(self.spare >= 0, "spare", "no fewer than 0", self.spare)

    @property
    def steps(self) -> int:
        """Steps of the whole study, where no release is lost."""
        return self.steps_per_round * self.rounds

    @property
    def round_event(self) -> SampledGaussian:
        """What one round releases."""
        return SampledGaussian(self.noise_multiplier, self.sampling_rate, self.steps_per_round)

    def epsilon(self, rounds: int | None = None) -> float:
        """Epsilon per patient of the training after some rounds, by default all of them and every spare one."""
        rounds = self.rounds + self.spare if rounds is None else rounds
        return epsilon([self.round_event] * rounds, self.delta)

    @property
    def events(self) -> tuple[SampledGaussian, ...]:
        """The most that the study can release: its training, then its evaluation, each with every spare release."""
        training = replace(self.round_event, steps=self.steps_per_round * (self.rounds + self.spare))
        if self.evaluation is None:
            return (training,)
        return training, replace(self.evaluation, steps=self.evaluation.steps * (1 + self.spare))

    def whole_epsilon(self) -> float:
        """Epsilon per patient of training and evaluation together, whatever part of the spare releases is needed."""
        return epsilon(self.events, self.delta)


def plan_for(study: Study, site: str, patients: int = 1, *, figures: bool = True) -> PrivacyPlan:
    """The plan of one hospital. Of statistics it is one step with everybody: each patient is in one cell per column.

    Args:
        patients: of statistics alone, where the study announces no number: what delta is held against.
        figures: whether the site lets the figures leave that the study may ask for.

    Raises:
        PrivacyError: the hospital announced no size, the batch is larger than that, or no noise reaches the budget.
    """
    public = public_train_patients(study, site) if study.trains else study.announced_train_patients(site)
    return plan_of_size(study, public or patients, site, figures=figures)


def public_train_patients(study: Study, site: str) -> int:
    """The training patients that a hospital announced, which decide noise, rate and steps of a private training.

    Raises:
        PrivacyError: it announced none: it is not in the cohort.
    """
    patients = study.announced_train_patients(site)
    if patients is None:
        raise PrivacyError(
            f"cohort: expected {site} with its announced patients, found none: noise, sampling rate and steps of a "
            f"private training follow from that public number, never from a count; add {site}: PATIENTS, a round number"
        )
    return patients


def plan_of_size(study: Study, patients: int, site: str, *, figures: bool = True) -> PrivacyPlan:
    """The plan of a hospital of so many training patients, a public number; `site` is for messages.

    Raises:
        PrivacyError: the batch is larger than the hospital, or no noise reaches the budget.
    """
    local, privacy = study.training.local, study.privacy
    if local.batch_size is not None and local.batch_size > patients:
        raise PrivacyError(
            f"{site}: training.local.batch_size: expected at most the {patients} training patients announced, "
            f"got {local.batch_size}; lower it, or write full"
        )
    plan = calibrate(
        Budget(privacy.epsilon, privacy.delta),
        clip_norm=privacy.clip_norm if study.trains else statistics_norm(study),
        sampling_rate=local.sampling_rate(patients),
        steps_per_round=local.steps_per_round(patients),
        rounds=study.training.rounds,
        patients=patients,
        spare=privacy.spare,
    )
    return replace(plan, evaluation=evaluation_event(study) if figures else None)


def statistics_plan(study: Study) -> PrivacyPlan:
    """The plan of a study of statistics at any hospital: whatever its size, the noise is the same.

    Raises:
        PrivacyError: no noise reaches the budget.
    """
    return plan_for(study, study.sites[0] if study.sites else "")


def statistics_norm(study: Study) -> float:
    """The most that one patient moves a study's statistics (L2): 1 in one cell of each column's histogram.

    >>> from configs.load import study_from
    >>> document = {"name": "x", "purpose": "y", "patient_id": None}
    >>> document |= {"task": {"type": "statistics", "target": "disease"}}
    >>> document |= {"features": {name: {"type": "number", "range": [0, 1]} for name in ("age", "chol", "oldpeak")}}
    >>> document |= {"cohort": {"lille": 60}, "privacy": {"mode": "local", "epsilon": 0.5, "delta": 1e-5}}
    >>> statistics_norm(study_from(document))
    2.0
    """
    return math.sqrt(len(study.counted))


def evaluation_event(study: Study) -> SampledGaussian | None:
    """The noisy histogram that a study asks for: a step with everybody in it; None where it asks for none.

    Its noise multiplier is the least that keeps this one release, and every spare one if all were needed here, within
    its own epsilon at the study's delta. One patient more or less changes one cell of the histogram by 1, so that is
    the sensitivity (L2).
    """
    asked = study.evaluation.release
    if asked is None or not study.private:
        return None
    budget = Budget(asked.epsilon, study.privacy.delta)
    return SampledGaussian(_least_noise(budget, 1.0, 1 + study.privacy.spare), 1.0, 1)


def spare_cost(plan: PrivacyPlan) -> float:
    """Return by which share the plan's noise is larger than without spare releases, 0.05 for 5 %."""
    if not plan.spare:
        return 0.0
    budget = Budget(plan.epsilon(), plan.delta)
    return plan.noise_multiplier / _least_noise(budget, plan.sampling_rate, plan.steps) - 1.0


def fragility(study: Study) -> str:
    """Return a sentence where one lost release ends the study for ever, an empty text where it does not."""
    if not study.private or study.privacy.spare or study.training.quorum < max(1, len(study.sites)):
        return ""
    return (
        f"training.quorum is all {len(study.sites)} hospitals and privacy.spare is 0: one release that is lost after "
        "it was booked (a killed process, a power cut) ends the study for ever; write privacy.spare: 2, or lower "
        "training.quorum"
    )


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
    """The plan with the least noise that keeps the whole study within the budget.

    Args:
        spare: rounds that may be made a second time, each at the full cost of a round.

    Raises:
        PrivacyError: no noise multiplier up to 1e5 is enough; a number that cannot be, or a delta of 1 / patients or
            more, which would allow to publish somebody.
    """
    _require(patients >= 1, "patients", "at least 1", patients)
    if budget.delta * patients >= 1:
        raise PrivacyError(
            f"privacy.delta: expected 0 < delta < 1/patients (= {1 / patients:.1e}), got {budget.delta:g}; lower delta"
        )
    _require(0 < sampling_rate <= 1, "sampling_rate", "0 < sampling rate <= 1", sampling_rate)
    _require(steps_per_round * rounds >= 1, "steps", "at least 1 step", steps_per_round * rounds)
    _require(spare >= 0, "spare", "no fewer than 0", spare)
    sigma = _least_noise(budget, sampling_rate, steps_per_round * (rounds + spare))
    expected_patients = sampling_rate * patients
    return PrivacyPlan(
        clip_norm, sigma, sampling_rate, steps_per_round, rounds, budget.delta, expected_patients, spare=spare
    )


@lru_cache(maxsize=8192)
def _least_noise(budget: Budget, sampling_rate: float, steps: int) -> float:
    """The smallest whole ten-thousandths that fit, by regula falsi (Illinois): few probes, as each may cost 50 ms."""

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
        found = excess(middle)
        if found > 0:
            low, below, above, stale = middle, found, above / (2 if stale == 1 else 1), 1
        else:
            high, above, below, stale = middle, found, below / (2 if stale == -1 else 1), -1
    return high / _DIGITS
