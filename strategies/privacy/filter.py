"""The adaptive-composition filter: whether one more release may happen.

It is needed if what is released next depends on what came out before. Composition (strategies/privacy/accounting.py) is
for releases whose noise, rate and steps were fixed beforehand. One study's plan is, however much its models depend on
each other. Several studies of one data set are not: people choose the second after they have seen the first. Composing
privacy loss distributions proves nothing then: whoever chooses may take, at every value of the first release's loss,
whichever second mechanism is worse there, and the worse of two curves lies above both. What holds is a *filter*: a rule
that stops before a bound on a quantity that simply adds up.

Two have the shape of our events, and `Filter` allows what either allows, each at half of delta:

- Gaussian: if everybody is in every step, the sum of steps / noise_multiplier^2 may not pass mu^2, and the whole is
  mu-GDP (Koskela, Tobaben and Honkela 2023, arXiv 2209.15596; Smith and Thakurta 2022, arXiv 2210.17520). It costs
  nothing over composition, so half a delta is its whole price: 3 to 5 % of epsilon.
- Renyi: at one order, fixed beforehand, the sum of the divergences may not pass a limit (Feldman and Zrnic 2021,
  "Individual privacy accounting via a Renyi filter", arXiv 2008.11193, theorem 4.3). The sampled Gaussian has a closed
  form at whole orders (Mironov, Talwar and Zhang 2019, arXiv 1908.10530, section 3.3); from order to (epsilon, delta):
  Canonne, Kamath and Steinke 2020 (arXiv 2004.00010), proposition 12. Its price against composition is a tenth to a
  fifth of epsilon where that is 1 or more, and more below.

Why either may allow: sums only grow, so a set of results splits into those reached through histories that the first
allows and the rest, reached through ones that the second allows; each part exceeds e^epsilon times its neighbour by at
most delta / 2. (Whitehouse et al. 2023, "Fully adaptive composition in differential privacy", arXiv 2203.05481, have
filters for other families of mechanisms.)

Assumed: a release's parameters are known before it starts, and so is whether it may. Orders and limits follow from the
cap alone, so they cannot depend on results.

>>> rule = Filter(epsilon=8.0, delta=1e-5)
>>> rule.allows([SampledGaussian(2.0, 0.1, 300)]), rule.allows([SampledGaussian(2.0, 0.1, 3000)])
(True, False)
>>> round(rule.needs([SampledGaussian(8.0, 1.0, 20), SampledGaussian(6.0, 1.0, 5)]), 2)
2.89
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from configs.errors import PrivacyError
from strategies.privacy.accounting import (
    Event,
    LaplaceRelease,
    Merged,
    SampledGaussian,
    gaussian_epsilon,
    merged,
)

_ORDERS = range(2, 513)
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Filter:
    """The rule that keeps everything ever released within (epsilon, delta) per patient, add or remove one."""

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not (0 < self.epsilon < math.inf and 0 < self.delta < 1):
            raise PrivacyError(f"expected 0 < epsilon and 0 < delta < 1, got {self.epsilon} and {self.delta}")

    @cached_property
    def order(self) -> int:
        """Return the order that leaves most room for Gaussians: their divergence is proportional to it."""
        return max(_ORDERS, key=lambda order: (self.epsilon - self._converted(order)) / order)

    def allows(self, events: Iterable[Event]) -> bool:
        """Return whether all of these may have happened, in any order and by any choice."""
        return self.needs(events) <= self.epsilon + _ROUNDING

    def needs(self, events: Iterable[Event]) -> float:
        """Return the epsilon, at this rule's delta and order, that would just allow these events.

        The smaller of the two bounds.
        """
        events = merged(events)
        if not events:
            return 0.0
        return min(self._gaussian(events), self._renyi(events))

    def _gaussian(self, events: tuple[Merged, ...]) -> float:
        steps = [event for event in events if isinstance(event, SampledGaussian)]
        if len(steps) < len(events):
            return math.inf
        if any(event.sampling_rate < 1.0 for event in steps) and self._renyi(events) <= self.epsilon:
            return math.inf  # not asked: without credit for sampling it is rarely the smaller one
        return gaussian_epsilon(math.sqrt(sum(e.steps / e.noise_multiplier**2 for e in steps)), self.delta / 2)

    def _renyi(self, events: tuple[Merged, ...]) -> float:
        return self._converted(self.order) + sum(divergence(event, self.order) for event in events)

    def _converted(self, order: int) -> float:
        """Return what a divergence of this order lacks to an epsilon."""
        return math.log1p(-1 / order) - math.log(self.delta / 2 * order) / (order - 1)


@lru_cache(maxsize=8192)
def divergence(event: SampledGaussian | LaplaceRelease, order: int) -> float:
    """Return the Renyi divergence of a whole order of at least 2, in the worse of the two directions."""
    if isinstance(event, LaplaceRelease):
        return event.count * _pure(event.epsilon, order)
    if event.sampling_rate == 1.0:
        return event.steps * order / (2 * event.noise_multiplier**2)
    return event.steps * _sampled(event.noise_multiplier, event.sampling_rate, order)


def _sampled(sigma: float, rate: float, order: int) -> float:
    """log of sum over k of C(order, k) (1 - rate)^(order - k) rate^k exp(k (k - 1) / (2 sigma^2)), over order - 1.

    The binomial's own sum is 1, which is taken out before the logarithm: rates of a millionth keep their digits.
    """
    terms = [
        math.lgamma(order + 1) - math.lgamma(k + 1) - math.lgamma(order - k + 1)
        + (order - k) * math.log1p(-rate) + k * math.log(rate) + _log_expm1(k * (k - 1) / (2 * sigma**2))
        for k in range(2, order + 1)
    ]  # fmt: skip
    top = max(terms)
    if top > 700:
        return (top + math.log(math.fsum(math.exp(term - top) for term in terms))) / (order - 1) + 1e-12
    return math.log1p(math.fsum(math.exp(term) for term in terms)) / (order - 1)


def _pure(epsilon: float, order: int) -> float:
    """Return the divergence of randomised response, the worst release of pure epsilon."""
    likely, unlikely = -math.log1p(math.exp(-epsilon)), -epsilon - math.log1p(math.exp(-epsilon))
    first, second = order * likely + (1 - order) * unlikely, order * unlikely + (1 - order) * likely
    return max(0.0, (first + math.log1p(math.exp(second - first))) / (order - 1))


def _log_expm1(x: float) -> float:
    return x + math.log1p(-math.exp(-x)) if x > 1e-300 else -math.inf
