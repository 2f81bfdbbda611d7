"""Ratios with their intervals as a forest: one row a coefficient, on a logarithmic axis."""

import math

from configs.records.inference import Ratio, Ratios
from configs.records.models import ComparedModel
from server.charts import svg
from server.charts.markup import Html, join
from server.result.wording import figure_of

STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # of a logarithmic axis
FINE = (0.25, 0.33, 0.5, 0.67, 0.8, 1, 1.25, 1.5, 2, 3, 4)  # where the axis is short
_ROW, _TOP = 30.0, 16.0


def ratios(result: Ratios, width: int) -> Html:
    """Draw one row for each coefficient that has a figure: dot and whisker, and a line where a column does nothing."""
    wide = width == svg.WIDE
    rows = [row for row in result.rows if row.estimate is not None]
    ends = [math.log(end) for row in rows if row.estimate for end in (row.estimate.low, row.estimate.high, 1.0)] or [
        0.0
    ]
    margin = 0.08 * (max(ends) - min(ends)) or 0.1
    low, high = min(ends) - margin, max(ends) + margin
    x = svg.Scale((low, high), (230.0, width - 24.0) if wide else (12.0, width - 12.0))
    height = _ROW if wide else _ROW * 1.6
    bottom = _TOP + height * len(rows)
    axis = svg.axis_x(x, _TOP, bottom, result.measure, _ticks(low, high), lambda place: figure_of(math.exp(place)))
    drawn = [_row(row, x, _TOP + height * n, wide=wide) for n, row in enumerate(rows)]
    description = "; ".join(f"{row.column} {row.contrast}: {_words(row)}" for row in rows)
    nothing = svg.line(x(0.0), _TOP, x(0.0), bottom, "chance")
    return svg.canvas("ratios", width, bottom + 52, f"{result.measure} by column", description, axis, nothing, *drawn)


def _row(row: Ratio, x: svg.Scale, top: float, *, wide: bool) -> Html:
    assert row.estimate is not None
    low, value, high = (x(math.log(end)) for end in (row.estimate.low, row.estimate.value, row.estimate.high))
    y = top + (_ROW / 2 if wide else _ROW)
    key = ComparedModel.FEDERATED
    name = f"{row.column} {row.contrast}"
    label = svg.text(0, y + 4, name) if wide else svg.text(0, y - 10, name)
    return join([label, svg.line(low, y, high, y, f"whisker {key}"), svg.mark(key, value, y, f"{name}: {_words(row)}")])


def _words(row: Ratio) -> str:
    estimate = row.estimate
    assert estimate is not None
    return f"{figure_of(estimate.value)} ({figure_of(estimate.low)} to {figure_of(estimate.high)})"


def _ticks(low: float, high: float) -> list[float]:
    """Return places of a logarithmic axis, fine ones where it is short."""
    steps = FINE if high - low < math.log(6) else STEPS
    return [math.log(step) for step in steps if low <= math.log(step) <= high]
