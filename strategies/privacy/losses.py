"""Epsilon of composed releases from privacy loss distributions.

Every approximation is pessimistic. What epsilon is: the smallest for which both hockey-stick divergences, of adding and
of removing one patient, are at most delta. The steps, each of which errs upwards or not at all:

1. Each release's privacy loss is put on one grid by "connect the dots" (Doroshenko et al. 2022, arXiv 2207.04380): the
   mass between two grid points goes to these two, so that both distributions keep theirs. This interpolates a convex
   curve linearly, so it never lies below it, and a grid whose points are among another's never lies below that one's.
   With grids that are multiples of 1e-4 an answer is thus never below dp-accounting's, whose grid that is.
2. What lies beyond the grid is an infinite loss (at most a millionth of delta in all).
3. Releases are composed by one product of Fourier transforms (Koskela et al. 2020, arXiv 1906.03049), each tilted by
   exp(theta * loss) first: the sum is then centred where epsilon is, so that a short window suffices, and rounding
   errors are relative to delta, however small it is. Theta and the window follow from the sum's moments (Renyi's): the
   grid's own where theta is large beside it, or the tilt would leave one of its points and lose what matters. What
   is beyond the window's upper end is added to delta by Chernoff's bound; what folds in at its lower end only adds.
   Of many different releases only the lowest frequencies are ever computed: of all others the first ones leave nothing.

Memory is bounded by the grid's length (2^21 points); an epsilon that would need more gets a coarser grid: larger, never
smaller.

>>> round(pld_epsilon([Gaussian(noise_multiplier=1.0, sampling_rate=0.1, steps=100)], [], delta=1e-5), 3)
7.047
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, optimize, special

Floats = NDArray[np.float64]

_FINEST = 1e-4  # dp-accounting's own grid: a finer one would answer below the reference
_COARSEST = 50  # times the finest
_LOOSE = 4e-4  # of epsilon, that the grid may cost
_SMALL = 0.05  # an epsilon below it may have a finer grid: dp-accounting's own costs it several percent
_MOST_POINTS = 2**21
_GUIDES = 256  # points of the quadrature
_BEYOND = 1e-6  # the share of delta that may be an infinite loss
_NOTHING = 1e-22  # a frequency's share of the whole below which it is left out
_FEW = 400  # frequencies that are summed one by one in place of an FFT
_CUT = 1e-3  # the share of delta that may lie above the window
_FLAT = 0.05  # theta times the interval: below it the grid's moments are next to the exact ones
_STEEP = 4.0  # and at most so much: the next points have powers of exp(-_STEEP), above the FFT's rounding errors
_ARITHMETIC = 1e-6  # added to epsilon: more than all rounding of floats together


@dataclass(frozen=True, slots=True)
class Gaussian:
    """`steps` steps of the Poisson-sampled Gaussian mechanism; a sampling rate of 1 is everybody."""

    noise_multiplier: float
    sampling_rate: float
    steps: int


@dataclass(frozen=True, slots=True)
class Pure:
    """`steps` releases, each of which is (epsilon, 0)-private: the worst one is randomised response."""

    epsilon: float
    steps: int


@dataclass(frozen=True, slots=True)
class _Losses:
    """The privacy loss of one release on the grid: mass[i] at (first + i) * interval, the rest at infinity."""

    first: int
    mass: Floats
    infinite: float
    steps: int


def pld_epsilon(gaussians: Sequence[Gaussian], pures: Sequence[Pure], delta: float) -> float:
    """Return epsilon per patient, add or remove one; never below the true one."""
    steps = sum(event.steps for event in gaussians) + sum(event.steps for event in pures)
    beyond = max(_BEYOND * delta / steps, 1e-30)
    reach = -float(special.ndtri(beyond / 2))
    moments = _Moments(gaussians, pures, reach)
    theta = moments.theta(delta)
    interval = _interval(moments, steps, delta)
    removed, added = [], []
    for event in gaussians:
        remove, add = _gaussian_losses(event, interval, reach)
        removed.append(remove)
        added.append(add)
    both = [_pure_losses(event, interval) for event in pures]
    bound = _epsilon(removed + both, moments.removing, interval, theta, delta)
    if any(event.sampling_rate < 1.0 for event in gaussians):  # otherwise the two are the same
        bound = max(bound, _epsilon(added + both, moments.adding, interval, theta, delta))
    return bound + _ARITHMETIC


class _Moments:
    """log E[exp(theta * loss)] of all releases together, by quadrature: only guides where to look."""

    def __init__(self, gaussians: Sequence[Gaussian], pures: Sequence[Pure], reach: float) -> None:
        parts = [_quadrature(event, reach) for event in gaussians] + [_two_points(event) for event in pures]
        self._loss, self._log_mass = (np.stack(column) for column in zip(*parts, strict=True))  # (events, points)
        self._steps = np.array([e.steps for e in gaussians] + [e.steps for e in pures], np.float64)
        widths = np.ptp(self._loss, axis=1)
        self.width = float(max(widths.max(), widths.sum() / 8))  # of the longest grid; all together have eight times it

    def removing(self, theta: float) -> float:
        """Return the log moment of removing a patient."""
        exponent = theta * self._loss + self._log_mass
        top = exponent.max(axis=1)
        return float(self._steps @ (top + np.log(np.exp(exponent - top[:, None]).sum(axis=1))))

    def adding(self, theta: float) -> float:
        """Return the log moment of adding one: the same curve read from the other end."""
        return self.removing(-1.0 - theta)

    def theta(self, delta: float) -> float:
        """Return where the bound on epsilon is least."""
        return _least_theta(lambda theta: _bound(self.removing(theta), theta, delta))

    def chernoff(self, delta: float) -> tuple[float, float]:
        """Return Chernoff's own bound, which is above 0, and where it is least."""
        theta = _least_theta(lambda theta: (self.removing(theta) - math.log(delta)) / theta)
        return (self.removing(theta) - math.log(delta)) / theta, theta


def _bound(log_moment: float, theta: float, delta: float) -> float:
    """Return epsilon by Chernoff's bound at Renyi order theta + 1, in which a loss counts by its excess alone.

    mass * (1 - exp(epsilon - loss)) <= mass * exp(theta * (loss - epsilon)) * theta^theta / (theta + 1)^(theta + 1)
    (Canonne, Kamath, Steinke 2020, arXiv 2004.00010, proposition 12). Without that factor theta would grow without end
    where a single loss has more than delta, and all others vanish beside it.
    """
    counted = theta * math.log(theta / (theta + 1)) - math.log1p(theta)
    return (log_moment + counted - math.log(delta)) / theta


def _least_theta(bound: Callable[[float], float], most: float = math.exp(14.0)) -> float:
    best = optimize.minimize_scalar(
        lambda log_theta: bound(math.exp(log_theta)),
        bounds=(min(-14.0, math.log(most) - 14.0), math.log(most)),
        method="bounded",
        options={"xatol": 0.02},
    )
    return math.exp(best.x)


def _quadrature(event: Gaussian, reach: float) -> tuple[Floats, Floats]:
    sigma, rate = event.noise_multiplier, event.sampling_rate
    x = np.linspace(-reach * sigma, 1 + reach * sigma, _GUIDES)
    loss = _loss(x, sigma, rate)
    log_mass = loss - x * x / (2 * sigma**2)
    top = log_mass.max()
    return loss, log_mass - top - math.log(np.exp(log_mass - top).sum())


def _two_points(event: Pure) -> tuple[Floats, Floats]:
    loss, mass = np.zeros(_GUIDES), np.full(_GUIDES, -1e4)
    loss[:2] = event.epsilon, -event.epsilon
    mass[:2] = special.log_expit(loss[:2])
    return loss, mass


def _interval(moments: _Moments, steps: int, delta: float) -> float:
    """Return a bound of what rounding to a grid adds.

    At most steps * (theta + 1) * interval^2 / 8 to epsilon, to first order.
    """
    bound, theta = moments.chernoff(delta)
    loose = max(_LOOSE, 1e-3 * (bound - 45)) if bound >= _SMALL else 0.01 * bound
    interval_wanted = math.sqrt(8 * loose / (steps * (theta + 1)))
    if bound < _SMALL and interval_wanted < _FINEST:
        interval = interval_wanted
    else:
        interval = _FINEST * min(_COARSEST, max(1, math.floor(interval_wanted / _FINEST)))
    least = max(moments.width, 2 * abs(bound)) / _MOST_POINTS
    return interval if interval >= least else _FINEST * math.ceil(least / _FINEST)


def _loss(x: Floats, sigma: float, rate: float) -> Floats:
    """log of (1 - rate) + rate * N(1, sigma) / N(0, sigma) at x."""
    return np.logaddexp(math.log1p(-rate) if rate < 1 else -math.inf, math.log(rate) + (2 * x - 1) / (2 * sigma**2))


def _gaussian_losses(event: Gaussian, interval: float, reach: float) -> tuple[_Losses, _Losses]:
    """Return the losses of removing one patient and of adding one."""
    sigma, rate = event.noise_multiplier, event.sampling_rate
    ends = _loss(np.array([-reach * sigma, 1 + reach * sigma]), sigma, rate) / interval
    first, last = math.floor(ends[0]), math.ceil(ends[1])
    grid = interval * np.arange(first, last + 1)  # (points,)
    edges = _inverse_loss(grid, sigma, rate)
    without, shifted = (
        _between(edges / sigma),
        _between((edges - 1) / sigma),
    )  # (points - 1,) of N(0, sigma), N(1, sigma)
    mixed = (1 - rate) * without + rate * shifted
    # Of the mass between two points, so much goes to the upper one that both distributions keep their mass.
    growth = without * np.exp(np.minimum(grid[:-1], 700.0))
    upper = np.clip((mixed - growth) / -math.expm1(-interval), 0.0, mixed)
    remove = np.zeros(len(grid))
    remove[:-1] += mixed - upper
    remove[1:] += upper
    # A mass below 1e-300 is none here: where adding has more than that, it is taken to be an infinite loss.
    lost = float(without[grid[:-1] < -690.0].sum())
    add = remove * np.exp(-np.maximum(grid, -700.0))
    below, above = special.ndtr(edges[0] / sigma), special.ndtr(-edges[-1] / sigma)
    mixed_below = (1 - rate) * below + rate * special.ndtr((edges[0] - 1) / sigma)
    mixed_above = (1 - rate) * above + rate * special.ndtr((1 - edges[-1]) / sigma)
    remove[0] += mixed_below
    add[-1] += above  # the last point is the lowest loss of adding
    return (
        _Losses(first, remove, float(mixed_above), event.steps),
        _Losses(-last, add[::-1].copy(), min(1.0, float(below) + lost), event.steps),
    )


def _inverse_loss(loss: Floats, sigma: float, rate: float) -> Floats:
    """Return the point with a given loss; minus infinity where the loss is never so low."""
    if rate == 1.0:
        return sigma**2 * loss + 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        # log((exp(loss) - (1 - rate)) / rate), for large losses without overflow
        excess = np.where(loss > 30, loss, np.log(np.maximum(np.expm1(np.minimum(loss, 30.0)) + rate, 0.0)))
        return sigma**2 * (excess - math.log(rate)) + 0.5


def _between(edges: Floats) -> Floats:
    """Return the mass of a standard Gaussian between neighbouring edges, exact in both tails."""
    tail = special.ndtr(-np.abs(edges))
    inner: Floats = np.abs(np.diff(tail))
    across = (edges[:-1] < 0) & (edges[1:] > 0)
    inner[across] = 1 - tail[:-1][across] - tail[1:][across]
    return inner


def _pure_losses(event: Pure, interval: float) -> _Losses:
    """Return the losses plus and minus epsilon, both rounded up."""
    above = math.ceil(event.epsilon / interval)
    below = math.ceil(-event.epsilon / interval)
    mass = np.zeros(above - below + 1)
    mass[-1] += special.expit(event.epsilon)
    mass[0] += special.expit(-event.epsilon)
    return _Losses(below, mass, 0.0, event.steps)


def _epsilon(
    losses: Sequence[_Losses], moments: Callable[[float], float], interval: float, theta: float, delta: float
) -> float:
    """Return the smallest epsilon of the composed discrete losses at delta."""
    if any(part.infinite >= delta for part in losses):
        return math.inf
    infinite = -math.expm1(sum(part.steps * math.log1p(-part.infinite) for part in losses))
    if infinite >= delta:
        return math.inf
    low, size, tilt = _window(moments, theta, interval, delta) if theta * interval <= _FLAT else (0, 0, 0.0)
    lost = _lost(losses, tilt, interval, low + size - 1) if size else math.inf
    # A grid that is coarse beside the losses spreads them: ask it, not the exact ones.
    if lost > _CUT * delta and size < _MOST_POINTS:
        theta = _least_theta(lambda t: _bound(_log_moment(losses, t, interval), t, delta), _STEEP / interval)
        low, size, tilt = _window(lambda t: _log_moment(losses, t, interval), theta, interval, delta)
        lost = _lost(losses, tilt, interval, low + size - 1)
    tilted, log_moment = _compose(losses, theta, interval, low, size)  # (size,) at (low + i) * interval
    return _root(tilted, log_moment, theta, low, interval, delta - infinite - lost)


def _lost(losses: Sequence[_Losses], tilt: float, interval: float, last: int) -> float:
    """Return Chernoff's bound on the mass of the sum above the window's last point."""
    return math.exp(min(0.0, _log_moment(losses, tilt, interval) - tilt * interval * last))


def _window(moments: Callable[[float], float], theta: float, interval: float, delta: float) -> tuple[int, int, float]:
    """Return the first point's index, the number of points, and the tilt of the bound on what lies above the last."""
    step = theta * 1e-2
    middle, up, down = (moments(t) for t in (theta, theta + step, theta - step))
    mean, variance = (up - down) / (2 * step), max((up - 2 * middle + down) / step**2, interval**2)
    deviation = math.sqrt(variance)
    half = 6 * deviation + 8 * interval
    while True:
        top = mean + half
        tilt = min((theta + k / deviation for k in (0, 2, 4, 6, 8)), key=lambda t: moments(t) - t * top)
        lost = moments(tilt) - tilt * top
        rise = min(theta / 2, 6 / deviation)  # what folds in from below, as a share of the tilted mass: it only adds
        folded = moments(theta - rise) - middle + rise * (mean - half)
        size = fft.next_fast_len(2 * math.ceil(half / interval) + 1, real=True)
        if (lost <= math.log(1e-7 * delta) and folded <= math.log(1e-7)) or size > _MOST_POINTS:
            return math.floor(mean / interval) - size // 2, size, tilt
        half *= 1.2


def _log_moment(losses: Sequence[_Losses], theta: float, interval: float) -> float:
    """log E[exp(theta * loss)] of the finite losses together, as they stand on the grid."""
    return sum(part.steps * _tilted(part, theta, interval)[1] for part in losses)


def _tilted(part: _Losses, theta: float, interval: float) -> tuple[Floats, float]:
    """Return the mass times exp(theta * loss), normalised, and the logarithm of what it was divided by."""
    exponent = theta * interval * np.arange(part.first, part.first + len(part.mass))
    logs = np.log(part.mass, out=np.full(len(exponent), -math.inf), where=part.mass > 0)
    top = float(exponent[np.argmax(exponent + logs)])
    mass = part.mass * np.exp(np.minimum(exponent - top, 700.0))
    total = float(mass.sum())
    return mass / total, top + math.log(total)


def _compose(losses: Sequence[_Losses], theta: float, interval: float, low: int, size: int) -> tuple[Floats, float]:
    """Return the tilted, normalised sum's mass (size,), what lies outside folded into it; the logarithm of its divisor.

    No factor's transform exceeds 1, so a frequency at which the product of some is next to nothing stays so: those that
    come after are evaluated at the others alone. The widest comes first, as it leaves the fewest.
    """
    spectrum = np.ones(size // 2 + 1, np.complex128)
    shift, log_moment, length = 0, 0.0, len(spectrum)
    for part in sorted(losses, key=lambda part: -part.steps * _spread(part.mass)):
        mass, log_total = _tilted(part, theta, interval)
        log_moment += part.steps * log_total
        peak = int(np.argmax(mass))  # near zero, so that the phase of a high power stays exact
        transform = _transform(mass, peak, size, length)
        spectrum[:length] *= transform if part.steps == 1 else transform**part.steps
        above = np.flatnonzero(np.abs(spectrum[:length]) > _NOTHING)
        spectrum[above[-1] + 1 : length] = 0.0
        length = int(above[-1]) + 1
        shift += part.steps * (part.first + peak)
    mass = fft.irfft(spectrum, size)
    return np.maximum(np.roll(mass, (shift - low) % size), 0.0), log_moment


def _spread(mass: Floats) -> float:
    """Return the variance of next to all of a distribution, in grid points squared: only orders."""
    points = np.arange(len(mass), dtype=np.float64)
    mean = float(points @ mass)
    return float((points * points) @ mass) - mean * mean


def _transform(mass: Floats, peak: int, size: int, kept: int) -> NDArray[np.complex128]:
    """Return the lowest (kept,) frequencies of the mass's Fourier transform of length `size`, its peak moved to 0.

    By FFT, or, where few are wanted, as the sum that it is: exp(-iw(ar + c)) = exp(-iwar) exp(-iwc), so that rows of r
    points are two small tables and a product of matrices.
    """
    if kept > _FEW:
        return np.asarray(fft.rfft(_folded(mass, peak, size))[:kept])
    row = math.isqrt(len(mass)) + 1
    padded = np.zeros(row * -(-len(mass) // row))
    padded[: len(mass)] = mass
    turn = -2j * math.pi / size * np.arange(kept)  # (kept,) radians a grid point
    within = padded.reshape(-1, row) @ np.exp(np.outer(np.arange(row), turn)).view(np.float64)
    starts = np.arange(len(within)) * row - peak
    across = np.exp(np.outer(starts, turn))  # (rows, kept)
    return np.asarray((within.view(np.complex128) * across).sum(axis=0))


def _folded(mass: Floats, peak: int, size: int) -> Floats:
    """Return (size,) values modulo the size, the one at `peak` moved to 0."""
    padded = np.zeros(size * -(-len(mass) // size))
    padded[: len(mass)] = mass
    return np.roll(padded.reshape(-1, size).sum(axis=0), -peak)


def _root(tilted: Floats, log_moment: float, theta: float, low: int, interval: float, delta: float) -> float:
    """Return the smallest epsilon >= 0 with sum over losses above it of mass * (1 - exp(epsilon - loss)) <= delta."""
    if delta <= 0:
        return math.inf
    loss = interval * (low + np.arange(len(tilted)))

    def excess(epsilon: float) -> float:
        above = loss > epsilon
        gap = loss[above] - epsilon
        total = float(np.sum(tilted[above] * np.exp(np.maximum(-theta * gap, -745.0)) * -np.expm1(-gap)))
        return math.log(max(total, 1e-300)) + log_moment - theta * epsilon - math.log(delta)

    if loss[-1] <= 0 or excess(max(0.0, loss[0])) <= 0:
        return max(0.0, float(loss[0])) if loss[-1] > 0 else 0.0
    return float(optimize.brentq(excess, max(0.0, loss[0]), loss[-1], xtol=1e-9)) + 1e-9
