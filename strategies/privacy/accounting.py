"""Privacy accounting: epsilon of composed releases, derived from recorded events.

Epsilon is per patient, add or remove one. Composition is tight: closed form where everybody is in every step (Balle
and Wang 2018, arXiv 1805.06530, theorem 8), privacy loss distributions otherwise (strategies/privacy/losses.py),
whose every approximation errs on the safe side; Google's dp-accounting is the reference that the tests hold them
against. RDP is not used here: it is 10 % or more too large. These are costs of releases that were *planned
beforehand*; what to do where later ones depend on earlier results is in strategies/privacy/filter.py.

>>> round(epsilon([SampledGaussian(noise_multiplier=6.5, sampling_rate=1.0, steps=20)], delta=1e-5), 3)
2.853
>>> round(epsilon([SampledGaussian(1.0, 0.1, 60), LaplaceRelease(noise_multiplier=10.0, count=1)], delta=1e-5), 3)
5.592
>>> epsilon([], delta=1e-5)
0.0
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from configs.errors import PrivacyError


@dataclass(frozen=True, slots=True, order=True)
class SampledGaussian:
    """`steps` steps of the Poisson-sampled Gaussian mechanism.

    Every patient is in a step with probability `sampling_rate`; the sum of vectors of bounded norm gets noise of
    standard deviation `noise_multiplier` times that bound.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int

    def __post_init__(self) -> None:
        if not (0 < self.noise_multiplier < math.inf and 0 < self.sampling_rate <= 1 and self.steps >= 1):
            raise PrivacyError(f"expected sigma > 0, 0 < sampling rate <= 1 and steps >= 1, got {self}")


@dataclass(frozen=True, slots=True, order=True)
class GaussianRelease:
    """`count` one-off releases about everybody with Gaussian noise, as of a histogram or a table of counts.

    `noise_multiplier` is the noise's standard deviation over the most that one patient moves it (L2 norm).
    """

    noise_multiplier: float
    count: int = 1

    def __post_init__(self) -> None:
        if not (0 < self.noise_multiplier < math.inf and self.count >= 1):
            raise PrivacyError(f"expected sigma > 0 and count >= 1, got {self}")


@dataclass(frozen=True, slots=True, order=True)
class LaplaceRelease:
    """`count` one-off releases with Laplace or discrete Laplace noise, or any other of pure epsilon.

    `noise_multiplier` is the noise's scale over the most that one patient moves it (L1 norm): 1 / epsilon.
    """

    noise_multiplier: float
    count: int = 1

    def __post_init__(self) -> None:
        if not (0 < self.noise_multiplier < math.inf and self.count >= 1):
            raise PrivacyError(f"expected a scale > 0 and count >= 1, got {self}")

    @property
    def epsilon(self) -> float:
        """Return epsilon of one of them, at delta 0."""
        return 1.0 / self.noise_multiplier


Event = SampledGaussian | GaussianRelease | LaplaceRelease
Merged = SampledGaussian | LaplaceRelease


def epsilon(events: Iterable[Event], delta: float) -> float:
    """Return epsilon per patient of all events together; equal ones are merged first, results are cached.

    Raises:
        PrivacyError: delta is not between 0 and 1.
    """
    if not 0 < delta < 1:
        raise PrivacyError(f"delta: expected 0 < delta < 1, got {delta}; choose less than one over the patients")
    return _epsilon(merged(events), delta)


def merged(events: Iterable[Event]) -> tuple[Merged, ...]:
    """Return the same events, sorted, with one entry for each kind, noise multiplier and sampling rate.

    A Gaussian release is a step at which everybody is present, and becomes one.
    """
    gaussian: dict[tuple[float, float], int] = defaultdict(int)
    laplace: dict[float, int] = defaultdict(int)
    for event in events:
        if isinstance(event, SampledGaussian):
            gaussian[event.noise_multiplier, event.sampling_rate] += event.steps
        elif isinstance(event, GaussianRelease):
            gaussian[event.noise_multiplier, 1.0] += event.count
        else:
            laplace[event.noise_multiplier] += event.count
    return (
        *(SampledGaussian(sigma, rate, n) for (sigma, rate), n in sorted(gaussian.items())),
        *(LaplaceRelease(scale, n) for scale, n in sorted(laplace.items())),
    )


@lru_cache(maxsize=8192)
def _epsilon(events: tuple[Merged, ...], delta: float) -> float:
    if not events:
        return 0.0
    sampled = [e for e in events if isinstance(e, SampledGaussian) and e.sampling_rate < 1.0]
    laplace = [e for e in events if isinstance(e, LaplaceRelease)]
    mu = gaussian_mu(events)
    if not sampled and not laplace:
        return gaussian_epsilon(mu, delta)
    from strategies.privacy import losses  # SciPy, only where it is needed

    gaussians = [losses.Gaussian(e.noise_multiplier, e.sampling_rate, e.steps) for e in sampled]
    if mu:
        gaussians.append(losses.Gaussian(1.0 / mu, 1.0, 1))
    bound = losses.pld_epsilon(gaussians, [losses.Pure(e.epsilon, e.count) for e in laplace], delta)
    # Two upper bounds that need no grid: where noise is next to none, they are the smaller ones.
    everybody = gaussian_epsilon(math.sqrt(sum(e.steps / e.noise_multiplier**2 for e in sampled) + mu**2), delta)
    return min(bound, everybody + sum(e.count * e.epsilon for e in laplace))


def gaussian_mu(events: Iterable[Merged]) -> float:
    """Return mu (Gaussian DP) of all full-batch Gaussian events: a patient's largest move over the noise."""
    full = [e for e in events if isinstance(e, SampledGaussian) and e.sampling_rate == 1.0]
    return math.sqrt(sum(e.steps / e.noise_multiplier**2 for e in full))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the Gaussian mechanism's smallest epsilon for sensitivity over noise `mu`, by bisection, rounded up."""
    if mu == 0.0:
        return 0.0
    low, high = 0.0, 1.0
    while _gaussian_delta(mu, high) > delta:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _gaussian_delta(mu, middle) > delta else (low, middle)
    return high


def _gaussian_delta(mu: float, eps: float) -> float:
    """Return Phi(mu/2 - eps/mu) - exp(eps) Phi(-mu/2 - eps/mu), the second term by logarithms against overflow."""
    second = _log_normal_cdf(-mu / 2 - eps / mu) + eps
    return _normal_cdf(mu / 2 - eps / mu) - (math.exp(second) if second < 700 else math.inf)


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _log_normal_cdf(x: float) -> float:
    if x > -30:
        return math.log(_normal_cdf(x))
    return -x * x / 2 - math.log(-x * math.sqrt(2 * math.pi)) + math.log1p(-1 / x**2)  # Mills' ratio, far tail
