"""Charts of a study of statistics: shares of the outcome and of each column's values.

Each share is drawn by hospital.
"""

from functools import partial

from configs.records.described import CountedColumn
from configs.records.estimate import Estimate
from configs.records.models import ComparedModel
from configs.records.result import PatientCounts
from server.charts import svg
from server.charts.markup import Html, el, join
from server.result.counting import ALL, Rows, rows_of, share_range
from server.result.finished import Run
from server.result.wording import (
    cut,
    share,
)

ROW, HEAD = 19.0, 26.0  # heights: of a value, of what stands above a line of panels
ANCHORS = {0.0: None, 1.0: "end"}  # of ticks at a panel's edges, so that those of its neighbours keep clear
WIDE_PANELS, NARROW_PANELS = 5, 2  # side by side


def outcomes(run: Run, name: str) -> Html:
    """Draw the share of patients with the outcome, a line a hospital."""
    return svg.both(partial(_outcomes, run, name))


def column(number: int, counted: CountedColumn, rows: Rows) -> Html:
    """Draw the shares of a column's values, a panel a hospital."""
    return svg.both(partial(_panels, f"column-{number}", counted, rows))


def _outcomes(run: Run, name: str, width: int) -> Html:
    wide, rows = width == svg.WIDE, rows_of(run)
    step, margin = (28.0, 190.0) if wide else (40.0, 10.0)
    x = svg.Scale((0.0, 1.0), (margin, width - (180.0 if wide else 16.0)))
    bottom = 8 + step * len(rows)
    parts = [_outcome(x, 8 + step * n, step, width, site, figures) for n, (site, figures) in enumerate(rows.items())]
    return svg.canvas(
        "outcomes",
        width,
        bottom + 46,
        f"Share with {name}, by hospital",
        "; ".join(f"{site}: {share_range(figures.outcome)}" for site, figures in rows.items()),
        svg.rect(0, 8, width, step, "band", rx=4) if ALL in rows else None,
        svg.axis_x(x, 8, bottom, f"Share with {name}", [0.0, 0.25, 0.5, 0.75, 1.0], share),
        *parts,
    )


def _outcome(x: svg.Scale, top: float, step: float, width: int, site: str, figures: PatientCounts) -> Html:
    wide, estimate = width == svg.WIDE, figures.outcome
    y = top + (step / 2 if wide else 29.0)
    name = el("text", el("title", site), cut(site, 24), x=8, y=top + (step / 2 + 5 if wide else 15), class_="t strong")
    note = svg.text(width - 8, top + (step / 2 + 5 if wide else 15), share_range(estimate), "t", "end")
    if estimate is None:
        return join([name, note])
    whisker = svg.line(x(estimate.low), y, x(estimate.high), y, "whisker federated")
    return join(
        [
            name,
            note,
            whisker,
            svg.mark(ComparedModel.FEDERATED, x(estimate.value), y, f"{site}: {share_range(estimate)}"),
        ]
    )


def _panels(key: str, column: CountedColumn, rows: Rows, width: int) -> Html:
    """Return panels side by side, a line of them after the other; the values stand at the left of each line."""
    wide = width == svg.WIDE
    across, margin = (WIDE_PANELS, 150.0) if wide else (NARROW_PANELS, 124.0)
    each = (width - margin) / across
    most = _top(column, rows)
    tall = HEAD + ROW * len(column.labels) + 24
    names, lines, parts = list(rows), -(-len(rows) // across), []
    for line in range(lines):
        parts.append(_labels(column, line * tall + HEAD, margin, 20 if wide else 16))
        for place, name in enumerate(names[line * across : (line + 1) * across]):
            x = svg.Scale((0.0, most), (margin + place * each + 2, margin + (place + 1) * each - 16))
            parts.append(_panel(column, name, rows[name], x, line * tall))
    described = "; ".join(f"{name}: {_described(column, figures)}" for name, figures in rows.items())
    return svg.canvas(key, width, lines * tall, f"{column.name} by hospital", described, *parts)


def _top(column: CountedColumn, rows: Rows) -> float:
    """Return where the axis ends: beyond every bar, and beyond most whiskers."""
    shares = [s for figures in rows.values() for s in figures.columns[column.name].shares if s is not None]
    return min(1.0, max([s.value for s in shares] + [0.5]) * 1.25)


def _described(column: CountedColumn, figures: PatientCounts) -> str:
    shares = figures.columns[column.name].shares
    return ", ".join(f"{label} {share_range(s)}" for label, s in zip(column.labels, shares, strict=True))


def _labels(column: CountedColumn, top: float, left: float, room: int) -> Html:
    return join(
        [
            el(
                "text",
                el("title", label),
                cut(label, room),
                x=left - 10,
                y=top + ROW * n + 14,
                class_="t",
                text_anchor="end",
            )
            for n, label in enumerate(column.labels)
        ]
    )


def _panel(column: CountedColumn, name: str, figures: PatientCounts, x: svg.Scale, top: float) -> Html:
    first, counts = top + HEAD, figures.columns[column.name]
    bottom = first + ROW * len(column.labels)
    room = int((x.pixels[1] - x.pixels[0]) / 7.2)
    title = el("text", el("title", name), cut(name, room), x=x.pixels[0], y=top + 15, class_="t strong")
    end = 0.5 if x.domain[1] < 1.0 else 1.0  # two labels have room, three have not
    parts: list[Html] = [
        title,
        *(svg.line(x(v), first, x(v), bottom, "grid") for v in (0.0, 0.5, end)),
        *(svg.text(x(v), bottom + 15, share(v), "t", ANCHORS.get(v, "middle")) for v in (0.0, end)),
    ]
    for n, estimate in enumerate(counts.shares):
        if estimate is not None:
            hint = f"{name}, {column.labels[n]}: {share_range(estimate)}"
            parts.append(_bar(estimate, x, first + ROW * n, hint, last=n == len(column.labels) - 1))
    return join(parts)


def _bar(estimate: Estimate, x: svg.Scale, top: float, hint: str, *, last: bool) -> Html:
    """Return the bar of one share: the unknown has a colour of its own."""
    middle = top + ROW / 2
    bar = svg.rect(
        x(0), top + 3, x(estimate.value) - x(0), ROW - 6, "bar unknown" if last else "bar share", hint, rx=1.5
    )
    return join([bar, svg.line(x(estimate.low), middle, x(estimate.high), middle, "whisker count")])
