"""The chart of many hospitals: a row for each model, a dot for each hospital, a bar for the middle half of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from server.charts import svg
from server.charts.markup import Html, el, join
from server.result.spread import Spread

ROW = 46.0


@dataclass(frozen=True)
class Strip:
    """One row: what it is, which model's colour it has, and each hospital's figure.

    `whole` is the figure of all patients together, drawn as the model's mark.
    """

    name: str
    key: str
    values: tuple[tuple[str, float], ...]
    whole: float | None = None


def strips(
    key: str, label: str, rows: Sequence[Strip], bounds: tuple[float, float], at: float | None = None
) -> Html | None:
    """Draw the rows on one axis, for screens and phones; `at` is a value that is marked. Nothing without a figure."""
    drawn = [row for row in rows if row.values]
    return svg.both(partial(_strips, key, label, drawn, bounds, at)) if drawn else None


def _strips(
    key: str, label: str, rows: Sequence[Strip], bounds: tuple[float, float], at: float | None, width: int
) -> Html:
    wide = width == svg.WIDE
    x = svg.Scale(bounds, (200.0, width - 140.0) if wide else (10.0, width - 12.0))
    height = ROW if wide else ROW + 18.0
    bottom = 20.0 + height * len(rows)
    values = svg.ticks(*bounds, 8 if wide else 5)
    form = svg.number(values)
    described = "; ".join(f"{row.name}: {_in_words(row)}" for row in rows)
    return svg.canvas(
        key,
        width,
        bottom + 44,
        f"{label}, a dot for each hospital",
        described,
        svg.axis_x(x, 20, bottom, label, values, form),
        svg.line(x(at), 14, x(at), bottom, "chance") if at is not None else None,
        *(_row(row, x, 20.0 + height * number, width) for number, row in enumerate(rows)),
    )


def _in_words(row: Strip) -> str:
    spread = Spread.of(value for _, value in row.values)
    assert spread is not None
    return f"{spread.count} hospitals, median {spread.median:.2f}, {spread.least:.2f} to {spread.greatest:.2f}"


def _row(row: Strip, x: svg.Scale, top: float, width: int) -> Html:
    wide = width == svg.WIDE
    middle = top + (ROW / 2 if wide else ROW / 2 + 16)
    spread = Spread.of(value for _, value in row.values)
    assert spread is not None
    said = f"{spread.median:.2f} ({spread.least:.2f}\N{EN DASH}{spread.greatest:.2f})"
    dots = [
        el(
            "circle",
            el("title", f"{site}: {value:.2f}"),
            cx=x(value),
            cy=middle + _shift(number),
            r=3,
            class_="dot",
        )
        for number, (site, value) in enumerate(row.values)
    ]
    return el(
        "g",
        svg.text(8, middle + 4 if wide else top + 14, row.name, "t strong"),
        svg.text(width - 8, middle + 4 if wide else top + 14, said, "t", "end"),
        svg.rect(x(spread.lower), middle - 12, x(spread.upper) - x(spread.lower), 24, "middle-half"),
        svg.line(x(spread.median), middle - 12, x(spread.median), middle + 12, "median"),
        join(dots),
        svg.mark(row.key, x(row.whole), middle, f"all together: {row.whole:.2f}") if row.whole is not None else None,
        class_=f"strip {row.key}",
    )


def _shift(number: int) -> float:
    """Return a distance from the row's middle, so that equal figures lie apart: the same at each drawing."""
    return ((number * 0.618034) % 1.0 - 0.5) * 18
