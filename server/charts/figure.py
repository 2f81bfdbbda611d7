"""One chart as a pair of files for a paper: NAME.svg and NAME.csv."""

from dataclasses import dataclass

from configs.records.estimate import Estimate
from server.charts.markup import Html

Cell = str | float | int | None


@dataclass(frozen=True)
class Figure:
    """A chart and the numbers that it draws.

    `drawn` is one drawing of svg.py, of `WIDE` or `SQUARE` pixels; None where there is nothing to draw but the numbers.
    Each row has a cell for each heading; None is an empty cell. `legend` has the class and the name of each line.
    """

    name: str
    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    drawn: Html | None = None
    legend: tuple[tuple[str, str], ...] = ()


def ends_of(estimate: Estimate | None) -> tuple[Cell, Cell, Cell]:
    """Return a figure and the ends of its interval as three cells, empty ones where it is undefined."""
    return (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)
