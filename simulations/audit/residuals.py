"""Residual test: what was released minus the noiseless sum must be the noise that was booked, in size and in shape.

In booked standard deviations every value must be an independent standard Gaussian. Size: the sum of squares is
chi-squared, over all values, for each coordinate and for each step. Centre: no coordinate's mean is off, and nothing of
the clean sum is left in the noise. Shape: Kolmogorov-Smirnov and the fourth moment. Independence: for every shift in
steps and coordinates the product sum is Gaussian (all shifts at once by Wiener-Khinchin), and no two steps have equal
noise. A seed used twice, one draw for several coordinates, and noise that is not Gaussian all show here.

>>> rng = np.random.default_rng(0)
>>> healthy = rng.normal(size=(200, 30))
>>> all(check.passed for check in noise_checks(healthy, np.ones((200, 30))))
True
>>> [check.name for check in noise_checks(0.5 * healthy, np.ones((200, 30))) if not check.passed][0]
'size'
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import fft, stats

from simulations.audit.recording import Recording
from simulations.audit.subject import Floats
from simulations.audit.verdict import Check, Part, exact, smallest_loss, two_sided

_SAME = 1e-4  # noise of two steps is equal within float32's rounding, in standard deviations
_BINS = 41


def residual_part(samples: Sequence[Sequence[Recording]], many: Sequence[Recording], left: Check) -> Part:
    """Judge several samples, each of one number of parameters.

    Args:
        many: where patients have very many rows, steps with all of them: few, so that they are judged by themselves.
        left: about the model that left.
    """
    checks: list[Check] = []
    for sample in samples:
        noise = np.concatenate([recording.noise for recording in sample])
        checks += noise_checks(noise, np.concatenate([recording.clean for recording in sample]))
    for number, recording in enumerate(many, 1):
        checks += many_rows_checks(recording, f"all rows, {number}")
    largest = max(samples, key=lambda sample: sum(r.noise.size for r in sample))
    values = np.concatenate([r.noise.ravel() for r in largest])
    if not values.size or not np.isfinite(values).all():
        return Part.of(
            "residual", "Noise", "no finite noise", "", [exact("steps", False, "no finite release was seen")]
        )
    size, error = math.sqrt(float(np.mean(values**2))), 1.96 / math.sqrt(2 * len(values))
    return Part.of(
        "residual",
        "Is the noise what was booked?",
        f"{size:.4f} of the booked standard deviation (95 % of healthy runs: 1 ± {error:.4f})",
        f"{len(values):,} noise values; {100 * smallest_loss(len(values)):.1f} % too little noise would be noticed in "
        f"999 of 1,000 audits{_many_words(many)}",
        [*checks, left],
        noise_drawing(values, size, error),
    )


def noise_drawing(values: Floats, size: float, error: float) -> dict[str, object]:
    """What audit.html draws of standardised noise."""
    return {"size": size, "error": error, "values": len(values), "histogram": _histogram(values)}


def noise_checks(noise: Floats, clean: Floats) -> list[Check]:
    """Check (steps, parameters) of standardised noise; `clean` is the noiseless sum in the same unit."""
    steps, size = noise.shape
    if steps < 2 or not np.isfinite(noise).all():
        return [exact("finite", False, f"{steps} steps with finite values were expected to be at least 2")]
    squares = noise**2
    return [
        _size(squares),
        _each("size of each coordinate", squares.sum(axis=0), steps),
        _each("size of each step", squares.sum(axis=1), size),
        Check("centre", float(stats.chi2.sf(steps * np.sum(noise.mean(axis=0) ** 2), size)), "a mean is not 0"),
        _left_over(noise, clean),
        *_shape(noise.ravel()),
        _independence(noise),
        _repeats(noise),
    ]


def many_rows_checks(recording: Recording, name: str) -> list[Check]:
    """What few steps can show of noise and sum: their size, and whether anything of the sum is left over."""
    if not recording.steps or not np.isfinite(recording.noise).all():
        return [exact(name, False, "steps with finite values were expected")]
    squares = recording.noise**2
    each = _each("size of each step", squares.sum(axis=1), squares.shape[1])
    found = [_size(squares), each, _left_over(recording.noise, recording.clean)]
    return [Check(f"{check.name} ({name})", check.p, check.words) for check in found]


def _many_words(many: Sequence[Recording]) -> str:
    if not many:
        return ""
    seen = max(many, key=lambda recording: recording.noise.size)
    loss = 100 * smallest_loss(max(1, seen.noise.size))
    return f"; {loss:.0f} % in {seen.steps:,} steps with all rows, {seen.most_rows:,} of a patient at most"


def _size(squares: Floats) -> Check:
    total, count = float(squares.sum()), squares.size
    p = two_sided(float(stats.chi2.cdf(total, count)), float(stats.chi2.sf(total, count)))
    return Check("size", p, f"{math.sqrt(total / count):.4f} of the booked standard deviation")


def _each(name: str, sums: Floats, count: int) -> Check:
    p = 2 * np.minimum(stats.chi2.cdf(sums, count), stats.chi2.sf(sums, count))
    worst = int(p.argmin())
    found = f"number {worst + 1} has {math.sqrt(sums[worst] / count):.3f} of the booked standard deviation"
    return Check(name, min(1.0, float(p[worst]) * len(p)), found)


def _left_over(noise: Floats, clean: Floats) -> Check:
    """The part of the clean sum that is in the noise: 0, unless the sum is clipped or scaled otherwise than booked."""
    weight = float(np.sum(clean**2))
    if weight == 0.0:
        return exact("clean sum", True)
    share = float(np.sum(noise * clean)) / weight
    return Check("clean sum", float(2 * stats.norm.sf(abs(share) * math.sqrt(weight))), f"off by {100 * share:+.1f} %")


def _shape(values: Floats) -> list[Check]:
    found = stats.kstest(values, "norm", mode="asymp" if len(values) > 1000 else "auto")
    fourth = (float(np.mean(values**4)) - 3.0) / math.sqrt(96.0 / len(values))
    return [
        Check("shape", float(found.pvalue), f"{found.statistic:.3f} from a Gaussian (Kolmogorov-Smirnov)"),
        Check("tails", float(2 * stats.norm.sf(abs(fourth))), "the fourth moment is not a Gaussian's"),
    ]


def _independence(noise: Floats) -> Check:
    """Product sums for every shift of up to half the steps and half the coordinates, but for no shift at all."""
    steps, size = noise.shape
    shape = (fft.next_fast_len(2 * steps, real=True), fft.next_fast_len(2 * size, real=True))
    products = fft.irfft2(np.abs(fft.rfft2(noise, s=shape)) ** 2, s=shape)
    down, across = steps // 2, size // 2
    rows = np.arange(down + 1)
    columns = np.concatenate([np.arange(across + 1), np.arange(-across, 0)]) if across else np.arange(1)
    scale = np.sqrt((steps - rows)[:, None] * (size - np.abs(columns))[None, :])
    z = products[np.ix_(rows, columns)] / scale
    z[0, 0] = 0.0
    z[0, across + 1 :] = 0.0  # shifts to the left are those to the right
    worst = np.unravel_index(np.abs(z).argmax(), z.shape)
    p = float(2 * stats.norm.sf(abs(z[worst])) * z.size)
    found = f"noise values {int(rows[worst[0]])} steps and {int(columns[worst[1]])} coordinates apart are related"
    return Check("independence", min(1.0, p), found)


def _repeats(noise: Floats) -> Check:
    """Pairs of steps with equal noise: neighbours when sorted by the first coordinate, equal in all."""
    steps, size = noise.shape
    order = np.argsort(noise[:, 0], kind="stable")
    pairs, shift = 0, 1
    while shift < steps:
        near = np.flatnonzero(noise[order[shift:], 0] - noise[order[:-shift], 0] < _SAME)
        if not len(near):
            break
        gap = np.abs(noise[order[near + shift]] - noise[order[near]]).max(axis=1)
        pairs += int((gap < _SAME).sum())
        shift += 1
    by_chance = steps * (steps - 1) / 2 * (2 * _SAME * 0.2821) ** size  # 1 / (2 sqrt(pi)): density of a difference at 0
    return Check("repeats", float(stats.poisson.sf(pairs - 1, by_chance)), f"{pairs} pairs of steps had the same noise")


def _histogram(values: Floats) -> list[float]:
    """Shares of the values in bins from -4.1 to 4.1 standard deviations, the tails in the last ones."""
    edges = np.linspace(-4.1, 4.1, _BINS + 1)
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
    return [float(count) / len(values) for count in counts]
