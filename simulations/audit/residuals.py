"""Residual test: a release minus the noiseless sum must be the booked noise.

It is compared in size and in shape. In booked standard deviations every value must be an independent standard Gaussian.
Size: the sum of squares is chi-squared, over all values, for each coordinate and for each step. Centre: no coordinate's
mean is off, and nothing of the clean sum, or of the one a step before, is left in the noise. Shape: Kolmogorov-Smirnov
and the fourth moment. Constancy: the size is the same in every window of the steps, and does not follow the number of
patients in a batch. Independence: for every shift in steps and coordinates the product sum is Gaussian (all shifts at
once by Wiener-Khinchin), no two steps and no two coordinates are correlated, and no two steps have equal noise. Grid:
what is released is a whole multiple of the noise's public step. A seed used twice, one draw for several coordinates,
noise that is not Gaussian or fades all show here.

>>> rng = np.random.default_rng(0)
>>> healthy = rng.normal(size=(200, 30))
>>> all(check.passed for check in noise_checks(healthy, np.ones((200, 30))))
True
>>> [check.name for check in noise_checks(0.5 * healthy, np.ones((200, 30))) if not check.passed][0]
'size'
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft, stats

from simulations.audit.recording import Recording
from simulations.audit.subject import Floats
from simulations.audit.verdict import Check, Part, exact, smallest_loss, two_sided

_SAME = 1e-4  # noise of two steps is equal within float32's rounding, in standard deviations
_BINS = 41
_WINDOWS = 8  # of consecutive steps
_MOST = 1_500  # steps or coordinates whose pairs are compared
_GRID_DIGITS = 12  # binary digits of the noise's standard deviation that a release keeps
_FLOAT32_DIGITS = 2.0**-23
_ENOUGH = 400  # values whose sum of squares is a Gaussian's, nearly


def residual_part(
    samples: Mapping[str, Sequence[Recording]], many: Sequence[Recording], others: Sequence[Check]
) -> Part:
    """Judge several samples by name, each of one number of parameters.

    Args:
        many: where patients have very many rows, steps with all of them: few, so that they are judged by themselves.
        others: about the models that left, and about the evaluation.
    """
    checks: list[Check] = []
    for name, sample in samples.items():
        noise = np.concatenate([recording.noise for recording in sample])
        clean = np.concatenate([recording.clean for recording in sample])
        batches = np.concatenate([recording.member.sum(axis=1) for recording in sample])
        results = [*noise_checks(noise, clean), *_course(noise, clean, batches, sample)]
        checks += [Check(f"{check.name}{name}", check.p, check.words) for check in results]
    for number, recording in enumerate(many, 1):
        checks += many_rows_checks(recording, f"all rows, {number}")
    largest = max(samples.values(), key=lambda sample: sum(r.noise.size for r in sample))
    values = np.concatenate([r.noise.ravel() for r in largest])
    if not values.size or not np.isfinite(values).all():
        return Part.of(
            "residual", "Noise", "no finite noise", "", [exact("steps", "no finite release was seen", holds=False)]
        )
    size, error = math.sqrt(float(np.mean(values**2))), 1.96 / math.sqrt(2 * len(values))
    return Part.of(
        "residual",
        "Is the noise what was booked?",
        f"{size:.4f} of the booked standard deviation (95 % of healthy runs: 1 ± {error:.4f})",
        f"{len(values):,} noise values; {100 * smallest_loss(len(values)):.1f} % too little noise would be noticed in "
        f"999 of 1,000 audits{_many_words(many)}",
        [*checks, *others],
        noise_drawing(values, size, error),
    )


def noise_drawing(values: Floats, size: float, error: float) -> dict[str, object]:
    """Return what audit.html draws of standardised noise."""
    return {"size": size, "error": error, "values": len(values), "histogram": _histogram(values)}


def noise_checks(noise: Floats, clean: Floats) -> list[Check]:
    """Check (steps, parameters) of standardised noise; `clean` is the noiseless sum in the same unit."""
    steps, size = noise.shape
    if steps < 2 or not np.isfinite(noise).all():
        return [exact("finite", f"{steps} steps with finite values were expected to be at least 2", holds=False)]
    squares = noise**2
    return [
        _size(squares),
        _each("size of each coordinate", squares.sum(axis=0), steps),
        _each("size of each step", squares.sum(axis=1), size),
        Check("centre", float(stats.chi2.sf(steps * np.sum(noise.mean(axis=0) ** 2), size)), "a mean is not 0"),
        _left_over(noise, clean),
        *_shape(noise.ravel()),
        _independence(noise),
        pairs_check("pairs of steps", noise),
        pairs_check("pairs of coordinates", noise.T),
        _repeats(noise),
    ]


def _course(noise: Floats, clean: Floats, batches: NDArray[np.int64], sample: Sequence[Recording]) -> list[Check]:
    """Check what changes from step to step: the noise's size, its relation to the step before, and the grid."""
    if len(noise) < 2 or not np.isfinite(noise).all():
        return []  # said by noise_checks
    before = _left_over(noise[1:], clean[:-1])
    return [
        Check("clean sum of the step before", before.p, before.words),
        _windows(sample),
        _by_batch(noise, batches),
        public_step_check(sample),
    ]


def _windows(sample: Sequence[Recording]) -> Check:
    """Check the noise's size in windows of consecutive steps of each recording, and its rise or fall."""
    worst, words, tried = 1.0, "", 0
    for recording in sample:
        sums = np.sum(recording.noise**2, axis=1)
        size = recording.noise.shape[1]
        for number, window in enumerate(np.array_split(sums, min(_WINDOWS, len(sums))), 1):
            count = len(window) * size
            p = two_sided(float(stats.chi2.cdf(window.sum(), count)), float(stats.chi2.sf(window.sum(), count)))
            tried += 1
            if p < worst:
                worst = p
                words = f"{math.sqrt(window.sum() / count):.3f} of the booked standard deviation in window {number}"
        place = np.arange(len(sums)) - (len(sums) - 1) / 2
        trend = float(place @ (sums - size)) / math.sqrt(max(1e-300, 2 * size * float(place @ place)))
        p = float(2 * stats.norm.sf(abs(trend))) if len(sums) * size >= _ENOUGH else 1.0
        tried += 1
        if p < worst:
            worst, words = p, "the noise grows or fades from step to step"
    return Check("windows", min(1.0, worst * tried), words)


def _by_batch(noise: Floats, batches: NDArray[np.int64]) -> Check:
    """Check that the noise's size does not follow the number of sampled patients."""
    steps, size = noise.shape
    centred = batches - batches.mean()
    spread = float(centred @ centred)
    if spread == 0.0 or steps * size < _ENOUGH:
        return exact("size by batch", holds=True)
    z = float(centred @ (np.sum(noise**2, axis=1) - size)) / math.sqrt(2 * size * spread)
    return Check(
        "size by batch", float(2 * stats.norm.sf(abs(z))), "the noise follows the number of patients in a step"
    )


def pairs_check(name: str, rows: Floats) -> Check:
    """Check the correlation of every two rows: of the first ones, where there are very many.

    With a known mean of 0 the correlation r of n independent pairs makes r sqrt((n - 1) / (1 - r^2)) a Student t of
    n - 1 degrees of freedom.
    """
    rows = rows[:_MOST]
    count, length = rows.shape
    if count < 2 or length < 3:
        return exact(name, holds=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.maximum(lengths, 1e-300)
    products = np.abs(np.triu(unit @ unit.T, 1))
    first, second = np.unravel_index(int(products.argmax()), products.shape)
    r = min(1.0 - 1e-15, float(products[first, second]))
    p = 2 * float(stats.t.sf(r * math.sqrt((length - 1) / (1 - r * r)), length - 1)) * (count * (count - 1) / 2)
    return Check(name, min(1.0, p), f"numbers {first + 1} and {second + 1} have a correlation of {r:.2f}")


def public_step(deviation: float) -> float:
    """Return the step to which noised sums are rounded: the power of two at 2^-11 to 2^-12 of the deviation.

    >>> public_step(1.0), public_step(1.999), public_step(2.0)
    (0.00048828125, 0.00048828125, 0.0009765625)
    """
    return math.ldexp(1.0, math.frexp(deviation)[1] - _GRID_DIGITS)


def public_step_check(sample: Sequence[Recording]) -> Check:
    """Check that every released number is a whole multiple of the public step, as far as float32 can tell."""
    off = 0
    for recording in sample:
        unit = recording.plan.noise_multiplier * recording.plan.clip_norm
        steps = (recording.noise + recording.clean) * (unit / public_step(unit))
        slack = np.abs(steps) * (4 * _FLOAT32_DIGITS) + 1e-9
        off += int(((np.abs(steps - np.rint(steps)) > slack) & (slack < 0.1)).sum())
    return exact(
        "public step", f"{off:,} released numbers are no whole multiples of the noise's public step", holds=not off
    )


def many_rows_checks(recording: Recording, name: str) -> list[Check]:
    """Return what few steps can show of noise and sum: their size, and whether anything of the sum is left over."""
    if not recording.steps or not np.isfinite(recording.noise).all():
        return [exact(name, "steps with finite values were expected", holds=False)]
    squares = recording.noise**2
    each = _each("size of each step", squares.sum(axis=1), squares.shape[1])
    checks = [_size(squares), each, _left_over(recording.noise, recording.clean)]
    return [Check(f"{check.name} ({name})", check.p, check.words) for check in checks]


def _many_words(many: Sequence[Recording]) -> str:
    if not many:
        return ""
    largest = max(many, key=lambda recording: recording.noise.size)
    loss = 100 * smallest_loss(max(1, largest.noise.size))
    return f"; {loss:.0f} % in {largest.steps:,} steps with all rows, {largest.most_rows:,} of a patient at most"


def _size(squares: Floats) -> Check:
    total, count = float(squares.sum()), squares.size
    p = two_sided(float(stats.chi2.cdf(total, count)), float(stats.chi2.sf(total, count)))
    return Check("size", p, f"{math.sqrt(total / count):.4f} of the booked standard deviation")


def _each(name: str, sums: Floats, count: int) -> Check:
    p = 2 * np.minimum(stats.chi2.cdf(sums, count), stats.chi2.sf(sums, count))
    worst = int(p.argmin())
    text = f"number {worst + 1} has {math.sqrt(sums[worst] / count):.3f} of the booked standard deviation"
    return Check(name, min(1.0, float(p[worst]) * len(p)), text)


def _left_over(noise: Floats, clean: Floats) -> Check:
    """Check that no part of the clean sum is in the noise.

    0, unless the sum is clipped or scaled otherwise than booked.
    """
    weight = float(np.sum(clean**2))
    if weight == 0.0:
        return exact("clean sum", holds=True)
    share = float(np.sum(noise * clean)) / weight
    return Check("clean sum", float(2 * stats.norm.sf(abs(share) * math.sqrt(weight))), f"off by {100 * share:+.1f} %")


def _shape(values: Floats) -> list[Check]:
    test = stats.kstest(values, "norm", mode="asymp" if len(values) > 1000 else "auto")
    fourth = (float(np.mean(values**4)) - 3.0) / math.sqrt(96.0 / len(values))
    return [
        Check("shape", float(test.pvalue), f"{test.statistic:.3f} from a Gaussian (Kolmogorov-Smirnov)"),
        Check("tails", float(2 * stats.norm.sf(abs(fourth))), "the fourth moment is not a Gaussian's"),
    ]


def _independence(noise: Floats) -> Check:
    """Check the product sums for every shift of up to half the steps and half the coordinates, except no shift."""
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
    text = f"noise values {int(rows[worst[0]])} steps and {int(columns[worst[1]])} coordinates apart are related"
    return Check("independence", min(1.0, p), text)


def _repeats(noise: Floats) -> Check:
    """Check that no two steps have equal noise: neighbours when sorted by the first coordinate, equal in all."""
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
    """Return the shares of the values in bins from -4.1 to 4.1 standard deviations, the tails in the last ones."""
    edges = np.linspace(-4.1, 4.1, _BINS + 1)
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
    return [float(count) / len(values) for count in counts]
