"""Sampler test: every patient is in every step independently, with the booked probability.

Amplification by sampling holds for Poisson samples alone; batches of a shuffled list, or of a fixed size, are not
Poisson samples, and their epsilon is larger than what such a ledger books (Chua et al. 2024, arXiv 2403.17673). Under
the booked rate the number of times that somebody is in a step is binomial; the sizes of the batches and the patients'
own counts vary as a binomial's do (fixed sizes, shuffled passes and patients who come together do not); for every
number of steps between two, and for every two patients, the product sums are what independence makes them. The rate is
the booked one in every window of the steps too, and neither rises nor falls.

>>> rng = np.random.default_rng(0)
>>> all(check.passed for check in membership_checks(rng.random((400, 50)) < 0.2, 0.2))
True
>>> shuffled = np.concatenate([(rng.permutation(50) % 5)[None, :] == np.arange(5)[:, None] for _ in range(80)])
>>> {check.name for check in membership_checks(shuffled, 0.2) if not check.passed} >= {"batch sizes", "patients"}
True
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft, stats

from simulations.audit.recording import Recording
from simulations.audit.subject import Floats
from simulations.audit.verdict import LEVEL, MISSED, Check, Part, exact, two_sided

_FEW = 50  # expected coincidences: with fewer, a product sum is no Gaussian
_LONGEST = 2000  # steps apart that are looked at
_WINDOWS = 8  # of consecutive steps


def sampler_part(samples: Sequence[Recording], rehearsal: Sequence[Recording]) -> Part:
    """Judge recordings at the study's own plans, and short ones of few patients, where batches are often empty."""
    everything = [*samples, *rehearsal]
    steps, booked = (sum(getattr(r, name) for r in everything) for name in ("steps", "expected_steps"))
    as_booked = all(r.steps == r.expected_steps for r in everything)
    torn = any(r.torn for r in everything)
    checks = [
        exact("number of steps", f"{steps:,} were taken, {booked:,} booked", holds=as_booked),
        exact(
            "whole patients", "a step held a row twice, rows of nobody, or a part of a patient's rows", holds=not torn
        ),
    ]
    for r in samples:
        checks += membership_checks(r.member, r.plan.sampling_rate) if r.steps else []
    checks += [_empty(r) for r in rehearsal if r.plan.sampling_rate < 1.0 and r.steps]
    shown = max(samples, key=lambda r: r.member.size)
    rate, frequency = shown.plan.sampling_rate, float(shown.member.mean()) if shown.member.size else 0.0
    empty = sum(int((~r.member.any(axis=1)).sum()) for r in everything)
    return Part.of(
        "sampler",
        "Is every patient in a step as often as booked?",
        f"in {frequency:.4f} of the steps at {shown.site}, {rate:.4f} booked",
        _words(samples, empty),
        _worst_of_each(checks),
        {"rate": rate, "found": frequency, "sizes": _sizes(shown), "patients": shown.member.shape[1]},
    )


def membership_checks(member: NDArray[np.bool_], rate: float) -> list[Check]:
    """Check the sampling, (steps, patients) booleans."""
    steps, patients = member.shape
    if rate >= 1.0:
        return [exact("everybody", "somebody is missing, though the rate is 1", holds=bool(member.all()))]
    total = int(member.sum())
    law = stats.binom(member.size, rate)
    return [
        Check(
            "rate",
            two_sided(float(law.cdf(total)), float(law.sf(total - 1))),
            f"{total / member.size:.4f}, booked {rate:.4f}",
        ),
        _windows(member, rate),
        _dispersion("batch sizes", member.sum(axis=1), patients, rate),
        _dispersion("patients", member.sum(axis=0), steps, rate),
        _between_steps(member.astype(np.float64) - rate, rate * (1 - rate)),
        _between_patients(member, rate),
    ]


def _windows(member: NDArray[np.bool_], rate: float) -> Check:
    """Check the rate in windows of consecutive steps, and its trend over the steps."""
    counts, patients = member.sum(axis=1), member.shape[1]
    checks = []
    for number, window in enumerate(np.array_split(counts, min(_WINDOWS, len(counts))), 1):
        law, total = stats.binom(len(window) * patients, rate), int(window.sum())
        words = f"{total / max(1, len(window) * patients):.4f} in window {number}, booked {rate:.4f}"
        checks.append((two_sided(float(law.cdf(total)), float(law.sf(total - 1))), words))
    place = np.arange(len(counts)) - (len(counts) - 1) / 2
    spread = rate * (1 - rate) * patients * float(place @ place)
    if spread * rate * (1 - rate) > _FEW:
        z = float(place @ (counts - rate * patients)) / math.sqrt(spread)
        checks.append((float(2 * stats.norm.sf(abs(z))), "the rate rises or falls from step to step"))
    p, words = min(checks)
    return Check("rate in windows", min(1.0, p * len(checks)), words)


def _dispersion(name: str, counts: NDArray[np.int64], trials: int, rate: float) -> Check:
    """Sum of squared, standardised deviations of binomial counts: a gamma of the same mean and variance."""
    spread = trials * rate * (1 - rate)
    dispersion = float(np.sum((counts - trials * rate) ** 2)) / spread
    mean, variance = len(counts), len(counts) * (2 + (1 - 6 * rate * (1 - rate)) / spread)
    law = stats.gamma(mean**2 / variance, scale=variance / mean)
    words = f"they vary {dispersion / mean:.2f} times as much as independent patients' would"
    return Check(name, two_sided(float(law.cdf(dispersion)), float(law.sf(dispersion))), words)


def _between_steps(centred: Floats, spread: float) -> Check:
    """Check for every number of steps apart that the samples of two steps are independent."""
    steps, patients = centred.shape
    longest = min(steps // 2, _LONGEST)
    size = fft.next_fast_len(steps + longest, real=True)
    power = (np.abs(fft.rfft(centred, n=size, axis=0)) ** 2).sum(axis=1)
    apart = np.arange(1, longest + 1)
    pairs = patients * (steps - apart)
    usable = pairs * spread**2 >= _FEW
    if not usable.any():
        return exact("steps", holds=True)
    z = fft.irfft(power, n=size)[apart][usable] / (spread * np.sqrt(pairs[usable]))
    worst = int(np.abs(z).argmax())
    p = float(2 * stats.norm.sf(abs(z[worst])) * len(z))
    return Check(
        "steps", min(1.0, p), f"who is in one step tells who is in one {int(apart[usable][worst])} steps later"
    )


def _between_patients(member: NDArray[np.bool_], rate: float) -> Check:
    """Check for every two patients that their joint number of steps is binomial with the square of the rate."""
    steps, patients = member.shape
    if patients < 2:
        return exact("pairs", holds=True)
    together = (member.T.astype(np.float32) @ member.astype(np.float32))[np.triu_indices(patients, 1)].round()
    most, least = float(together.max()), float(together.min())
    law = stats.binom(steps, rate**2)
    p = two_sided(float(law.cdf(least)), float(law.sf(most - 1))) * len(together)
    return Check("pairs", min(1.0, p), f"two patients came together {most:.0f} times, {law.mean():.0f} expected")


def _empty(recording: Recording) -> Check:
    """Check the number of empty batches, which is binomial too and large for few patients."""
    chance = (1 - recording.plan.sampling_rate) ** recording.member.shape[1]
    empty = int((~recording.member.any(axis=1)).sum())
    law = stats.binom(recording.steps, chance)
    p = two_sided(float(law.cdf(empty)), float(law.sf(empty - 1)))
    return Check("empty batches", p, f"{empty} of {recording.steps} steps, {law.mean():.0f} expected")


def _worst_of_each(checks: Sequence[Check]) -> list[Check]:
    """Return the worst of each check on several recordings, its p-value multiplied by their number (Bonferroni)."""
    worst_checks = []
    for name in dict.fromkeys(check.name for check in checks):
        same = [check for check in checks if check.name == name]
        worst = min(same, key=lambda check: check.p)
        worst_checks.append(Check(name, min(1.0, worst.p * len(same)), worst.words))
    return worst_checks


def _words(samples: Sequence[Recording], empty: int) -> str:
    steps = sum(r.steps for r in samples)
    rates = [r for r in samples if r.plan.sampling_rate < 1.0]
    if not rates:
        return f"the rate is 1, and everybody was in each of {steps:,} steps"
    finest = min(math.sqrt((1 - r.plan.sampling_rate) / (r.plan.sampling_rate * max(1, r.member.size))) for r in rates)
    noticed = finest * float(stats.norm.isf(LEVEL / 2 / len(samples)) + stats.norm.isf(MISSED))
    return f"{steps:,} steps, {empty} of them empty; a rate off by {100 * noticed:.1f} % of itself would be noticed"


def _sizes(recording: Recording) -> list[int]:
    """Return how many steps had 0, 1, 2 ... patients."""
    return [int(n) for n in np.bincount(recording.member.sum(axis=1), minlength=recording.member.shape[1] + 1)]
