"""SVG drawing: scales, axes, marks and curves.

Sizes are CSS pixels; colours are classes that page.css gives. Every chart is drawn twice, WIDE and NARROW, and page.css
shows the one that fits, so that text keeps its size.

>>> Scale((0.0, 10.0), (100.0, 200.0))(5.0)
150.0
>>> ticks(0.83, 0.91, 4)
[0.84, 0.86, 0.88, 0.9]
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from configs.records.models import ComparedModel
from server.charts.markup import Html, decimal, el, join

WIDE, NARROW = 780, 340
SQUARE = 440  # the wide form of a drawing as high as it is wide
MAP = 400  # a drawing that has one form
STEPS = 6  # between the lines of an upright axis
POINTS = 240  # of a curve: more than a screen has room for


@dataclass(frozen=True)
class Scale:
    """From values to pixels."""

    domain: tuple[float, float]
    pixels: tuple[float, float]

    def __call__(self, value: float) -> float:
        """Return where a value lies; values beyond the domain lie on its edge."""
        low, high = self.domain
        part = (value - low) / (high - low) if high > low else 0.5
        return self.pixels[0] + min(1.0, max(0.0, part)) * (self.pixels[1] - self.pixels[0])


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers within the bounds, `most` of them or few more."""
    step = _step(low, high, most)
    if step is None:
        return [low]
    first = math.ceil(low / step - 1e-9)
    return [
        round(number * step, 12) for number in range(first, first + most + 2) if number * step <= high + step * 1e-9
    ]


def widened(
    low: float, high: float, least: float, floor: float = -math.inf, ceiling: float = math.inf
) -> tuple[float, float]:
    """Return bounds at least so far apart and on round numbers, kept within floor and ceiling.

    >>> widened(0.861, 0.868, 0.1, 0.0, 1.0)
    (0.8, 0.92)
    """
    spare = max(0.0, least - (high - low)) / 2
    low, high = max(floor, low - spare), min(ceiling, high + spare)
    step = _step(low, high, STEPS)
    if step is None:
        return low - least / 2, high + least / 2
    down, up = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return max(floor, round(down, 12)), min(ceiling, round(up, 12))


def _step(low: float, high: float, most: int) -> float | None:
    """Return the round distance between ticks; None where the bounds are one place."""
    if high - low <= 1e-12 * max(1.0, abs(low), abs(high)):
        return None
    rough = (high - low) / max(1, most)
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * m for m in (1, 2, 5, 10, 20) if power * m >= rough * (1 - 1e-9))


def text(x: float, y: float, content: str, class_: str = "t", anchor: str | None = None) -> Html:
    """Draw a line of text; anchor is middle or end."""
    return el("text", content, x=x, y=y, class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Html:
    """Draw a straight line."""
    return el("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def rect(
    x: float, y: float, width: float, height: float, class_: str, hint: str | None = None, rx: float | None = None
) -> Html:
    """Draw a rectangle with a tooltip."""
    inner = el("title", hint) if hint else None
    return el("rect", inner, x=x, y=y, width=max(0.0, width), height=max(0.0, height), class_=class_, rx=rx)


def path(points: Sequence[tuple[float, float]], class_: str, *, closed: bool = False) -> Html:
    """Draw straight lines from point to point."""
    steps = " ".join(f"{decimal(x)},{decimal(y)}" for x, y in points)
    return el("polygon" if closed else "polyline", points=steps, class_=class_)


def mark(key: str, x: float, y: float, hint: str | None = None, radius: float = 5.0) -> Html:
    """Draw the shape of a model: shapes differ, so that no chart needs its colours."""
    inner = el("title", hint) if hint else None
    class_ = f"m {key}"
    if key == ComparedModel.LOCAL_ONLY:
        side = radius * 1.7
        return el("rect", inner, x=x - side / 2, y=y - side / 2, width=side, height=side, class_=class_)
    if key == ComparedModel.POOLED:
        r = radius * 1.2
        corners = [(x, y - r), (x + r, y), (x, y + r), (x - r, y)]
        steps = " ".join(f"{decimal(a)},{decimal(b)}" for a, b in corners)
        return el("polygon", inner, points=steps, class_=class_)
    if key == ComparedModel.PERSONALISED:
        r = radius * 1.2
        steps = " ".join(
            f"{decimal(a)},{decimal(b)}" for a, b in [(x, y - r), (x + r, y + r * 0.8), (x - r, y + r * 0.8)]
        )
        return el("polygon", inner, points=steps, class_=class_)
    return el("circle", inner, cx=x, cy=y, r=radius, class_=class_)


def canvas(key: str, width: int, height: float, title: str, description: str, *parts: str | None) -> Html:
    """Return one drawing with its accessible title and description; page.css shows its class where it fits."""
    size = "any" if width == MAP else "narrow" if width == NARROW else "wide"
    name = f"{key}-{size}"
    return el(
        "svg",
        el("title", title, id=f"{name}-t"),
        el("desc", description, id=f"{name}-d"),
        *parts,
        viewBox=f"0 0 {width} {decimal(height)}",
        class_=size,
        role="img",
        aria_labelledby=f"{name}-t {name}-d",
    )


def both(draw: Callable[[int], Html]) -> Html:
    """Draw for screens and paper, and for phones."""
    return join([draw(WIDE), draw(NARROW)])


def axis_x(
    x: Scale, top: float, bottom: float, label: str, values: Sequence[float], form: Callable[[float], str]
) -> Html:
    """Return vertical grid lines with their values below, and the axis' name."""
    middle = (x.pixels[0] + x.pixels[1]) / 2
    return join(
        [
            *(line(x(v), top, x(v), bottom, "grid") for v in values),
            *(text(x(v), bottom + 18, form(v), "t", "middle") for v in values),
            text(middle, bottom + 40, label, "t name", "middle"),
        ]
    )


def axis_y(
    y: Scale, left: float, right: float, label: str, values: Sequence[float], form: Callable[[float], str]
) -> Html:
    """Return horizontal grid lines with their values at the left, and the axis' name above them."""
    return join(
        [
            *(line(left, y(v), right, y(v), "grid") for v in values),
            *(text(left - 8, y(v) + 4, form(v), "t", "end") for v in values),
            text(0, y.pixels[1] - 16, label, "t name"),
        ]
    )


def number(values: Sequence[float]) -> Callable[[float], str]:
    """Return a form for ticks: as many decimals as tell them apart."""
    gap = min((b - a for a, b in itertools.pairwise(values)), default=1.0)
    decimals = min(6, max(0, -math.floor(math.log10(gap) + 1e-9))) if gap > 0 else 0
    exact = any(abs(v * 10**decimals - round(v * 10**decimals)) > 1e-6 for v in values)
    if max(map(abs, values), default=0.0) >= 1e7:
        return lambda value: f"{value:.3g}"
    return lambda value: f"{value:,.{decimals + exact}f}"


def thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return at most as many of the points as can be seen, the last among them."""
    every = max(1, -(-len(points) // POINTS))
    return [*points[:-1:every], *points[-1:]]


def spread(places: Sequence[float], apart: float, top: float, bottom: float) -> list[float]:
    """Return label positions near their places, in order, `apart` from each other as far as there is room.

    >>> spread([10.0, 11.0, 50.0], 12.0, 0.0, 100.0)
    [10.0, 22.0, 50.0]
    """
    order = sorted(range(len(places)), key=places.__getitem__)
    positions, last = list(places), top - apart
    for number in order:
        last = positions[number] = max(places[number], last + apart)
    limit = bottom
    for number in reversed(order):
        positions[number] = min(positions[number], limit)
        limit = positions[number] - apart
    return positions
