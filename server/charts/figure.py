"""One chart as a pair of files for a paper: NAME.svg and NAME.csv."""

from dataclasses import dataclass

from server.charts.markup import Html

Cell = str | float | int | None


@dataclass(frozen=True)
class Figure:
    """A chart and the numbers that it draws.

    `drawn` is one drawing of svg.py, of `WIDE` or `SQUARE` pixels; None where there is nothing to draw but the numbers.
    Each row has a cell for each heading; None is an empty cell.
    """

    name: str
    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    drawn: Html | None = None
