"""A lower bound on epsilon from one run with canaries.

The method is that of Steinke, Nasr and Jagielski 2023 (arXiv 2305.08846). m canaries are each put among the patients by
the toss of a fair coin, all in one run; an observer of what leaves then guesses r of the m coins and abstains from the
others. An epsilon so small that the number of right guesses would be a surprise is refuted.

The bound (their theorem 5.2, derived again). Under (epsilon, 0) every guess is right with probability at most
p = e^epsilon / (1 + e^epsilon), whatever the others are: the odds of a fair coin grow by at most e^epsilon. So the
number of right guesses is at most a Binomial(r, p); let f(v) be its chance to reach v. Under (epsilon, delta) some
coins may be given away: F of them, at most m, with a mean of at most 2 m delta. An adversary spends that mean where it
helps most: v right guesses have at most the chance that is the mean of f(v - F), and no F of that mean makes it more
than f(v) + 2 m delta max over i in 1..m of (f(v - i) - f(v)) / i.

m and r are fixed before the run, from the plan alone; the best of several r would be no bound.

>>> p_value(100, 100, 90, epsilon=1.0, delta=0.0) < 1e-3 < p_value(100, 100, 75, epsilon=1.0, delta=0.0)
True
>>> lower_bound(1000, 200, 190, delta=1e-5) > lower_bound(1000, 200, 150, delta=1e-5) > 0
True
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from simulations.audit.recording import clipped_gradients
from simulations.audit.subject import Floats
from simulations.audit.verdict import LEVEL, Part, exact
from strategies.data.table import TablePatients
from strategies.exchange.arrays import Arrays
from strategies.learning import Learning
from strategies.privacy.plan import PrivacyPlan

CONFIDENCES = (0.95, 0.99, 0.999, 0.9999, 0.99999, 1 - LEVEL)
HIGHEST = 30.0  # epsilon where the search ends
GUESSES = (10, 20, 40, 60, 100, 150, 200, 300, 400, 600, 800, 1000, 2000, 3000)


def p_value(canaries: int, guesses: int, right: int, *, epsilon: float, delta: float) -> float:
    """Return how often an (epsilon, delta) private run gives so many right guesses or more, at most."""
    p = 1.0 / (1.0 + math.exp(-epsilon))
    reached = float(stats.binom.sf(right - 1, guesses, p))
    given_away = np.arange(1, canaries + 1)
    gain = (stats.binom.sf(right - given_away - 1, guesses, p) - reached) / given_away
    return min(1.0, reached + 2.0 * canaries * delta * max(0.0, float(gain.max())))


@lru_cache(maxsize=4096)
def lower_bound(canaries: int, guesses: int, right: int, *, delta: float, confidence: float = 0.95) -> float:
    """Return the largest epsilon that is refuted with this confidence; 0 if none is."""
    low, high = 0.0, HIGHEST
    if p_value(canaries, guesses, right, epsilon=0.0, delta=delta) > 1 - confidence:
        return 0.0
    for _ in range(30):
        middle = (low + high) / 2
        refuted = p_value(canaries, guesses, right, epsilon=middle, delta=delta) <= 1 - confidence
        low, high = (middle, high) if refuted else (low, middle)
    return low


@dataclass(frozen=True)
class Design:
    """How many canaries and guesses, the most that they could show, and what a healthy run is expected to show."""

    canaries: int
    guesses: int
    confidence: float
    ceiling: float
    expected: float


def design(plan: PrivacyPlan, claimed: float, steps: int, canaries: int) -> Design:
    """Fix the number of guesses and the confidence before the run.

    Of the numbers that could show more than the claim it is the one by which a healthy run is expected to show most.
    The confidence is the first at which a healthy run is accused less often than LEVEL: 0.95 but for a claim so small
    that Gaussian noise comes near the bound's own worst case.

    In clip norms a canary's score has mean `steps * rate` if it is in and 0 if not, and a variance of at most
    steps * (sigma^2 + rate (1 - rate)).
    """
    rate, sigma = plan.sampling_rate, plan.noise_multiplier
    gap = steps * rate / math.sqrt(steps * (sigma**2 + rate * (1 - rate)))
    designs = [_planned(gap, claimed, canaries, n, plan.delta) for n in GUESSES if n <= canaries]
    able = [run for run in designs if run.ceiling > 1.2 * claimed] or [max(designs, key=lambda run: run.ceiling)]
    return max(able, key=lambda run: (run.expected, run.guesses))


def _planned(gap: float, claimed: float, canaries: int, guesses: int, delta: float) -> Design:
    share = _share_right(gap, guesses / canaries)
    confidence = next(c for c in CONFIDENCES if _accused(share, claimed, canaries, guesses, delta, c) < LEVEL)
    ceiling, expected = (
        lower_bound(canaries, guesses, right, delta=delta, confidence=confidence)
        for right in (guesses, round(guesses * share))
    )
    return Design(canaries, guesses, confidence, ceiling, expected)


def _accused(share: float, claimed: float, canaries: int, guesses: int, delta: float, confidence: float) -> float:
    """Return how often a run refutes the claim if its guesses are right with this probability."""
    if confidence == CONFIDENCES[-1]:
        return 0.0
    low, high = 0, guesses + 1  # the fewest right guesses that refute the claim, by bisection
    while low < high:
        middle = (low + high) // 2
        refuted = p_value(canaries, guesses, middle, epsilon=claimed, delta=delta) <= 1 - confidence
        low, high = (low, middle) if refuted else (middle + 1, high)
    return float(stats.binom.sf(low - 1, guesses, share))


def _share_right(gap: float, guessed: float) -> float:
    """Return how many of the boldest guesses are right, if scores are N(-gap / 2, 1) or N(gap / 2, 1), half of each."""
    low, high = -gap / 2 - 10, gap / 2 + 10
    for _ in range(60):  # the score above which half of all guesses lie, by bisection
        middle = (low + high) / 2
        above = (stats.norm.sf(middle - gap / 2) + stats.norm.sf(middle + gap / 2)) / 2
        low, high = (middle, high) if above > guessed / 2 else (low, middle)
    return float(stats.norm.sf(low - gap / 2) / guessed)


def with_canaries(patients: TablePatients, chosen: NDArray[np.bool_], scale: float, outcome: float) -> TablePatients:
    """Return the patients, with an input more for every canary, and those canaries that the coins put in.

    A canary is one row, 0 everywhere but in its own input: its gradient lies, almost, along weights of its own, so that
    canaries do not disturb each other.
    """
    chosen_count, rows = len(chosen), np.flatnonzero(chosen)
    before, inputs = patients.x.shape
    x = np.zeros((before + len(rows), inputs + chosen_count), np.float32)
    x[:before, :inputs] = patients.x
    x[np.arange(before, len(x)), inputs + rows] = scale
    starts = np.concatenate([patients.starts, before + 1 + np.arange(len(rows))]).astype(np.int64)
    y = np.concatenate([patients.y, np.full((len(rows), *patients.y.shape[1:]), outcome, np.float32)])
    return replace(patients, x=x, y=y, patients=np.repeat(np.arange(len(starts) - 1), np.diff(starts)), starts=starts)


def canary_start(task: Learning) -> Arrays:
    """Return a model at which a canary's gradient is its own: first weights of 0, every hidden unit awake."""
    rng = np.random.default_rng(0)
    start = {}
    names = list(task.parameters)
    for name, (shape, _) in task.parameters.items():
        if name.endswith("bias"):
            start[name] = np.full(shape, 0.0 if name == names[-1] else 0.1, np.float32)
        else:
            start[name] = np.zeros(shape, np.float32) if name == names[0] else _positive(rng, shape)
    return start


def _positive(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return rng.uniform(0.5, 1.0, shape).astype(np.float32)


def canary_scores(task: Learning, start: Arrays, canaries: TablePatients, plan: PrivacyPlan, total: Floats) -> Floats:
    """Return (canaries,) how far the sum of everything released points along each canary's own clipped gradient.

    Args:
        canaries: every canary, whether it was in or not. total: (parameters,), the noisy sums of all steps.
    """
    along = clipped_gradients(task, start, canaries, plan.clip_norm)
    return np.array([float(gradient @ total) for gradient in along]) / plan.clip_norm**2


def canary_part(scores: Floats, chosen: NDArray[np.bool_], fixed: Design, claimed: float, delta: float) -> Part:
    """Guess the highest scores in and the lowest out, count, and compare the bound with what the ledger claims."""
    order = np.argsort(scores, kind="stable")
    half = fixed.guesses // 2
    right = int(chosen[order[-half:]].sum() + (~chosen[order[:half]]).sum())
    shown = lower_bound(fixed.canaries, 2 * half, right, delta=delta, confidence=fixed.confidence)
    cannot = (
        f"with {fixed.canaries:,} canaries one run can show epsilon {fixed.ceiling:.2f} at most, less than the "
        f"{claimed:.2f} that is claimed"
    )
    return Part.of(
        "canaries",
        "Does one run give away more than the ledger claims?",
        f"epsilon is at least {shown:.2f}, {claimed:.2f} claimed",
        f"{right} of {2 * half} guesses about {fixed.canaries:,} canaries were right ({100 * fixed.confidence:.5g} % "
        f"confidence); a healthy run is expected to show {fixed.expected:.2f}, and these guesses can show "
        f"{fixed.ceiling:.2f} at most",
        [exact("claim", f"epsilon is at least {shown:.2f}, the ledger claims {claimed:.2f}", holds=shown <= claimed)],
        {
            "shown": shown,
            "claimed": claimed,
            "confidence": fixed.confidence,
            "ceiling": fixed.ceiling,
            "expected": fixed.expected,
            "right": right,
            "guesses": 2 * half,
            "canaries": fixed.canaries,
        },
        cannot if fixed.ceiling <= claimed else "",
    )
