"""Charts of the model's quality: by hospital, by round, and calibration."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from configs.records.estimate import Estimate
from configs.records.models import ComparedModel
from configs.records.result import Bin
from server.charts import svg
from server.charts.markup import Html, el, join
from server.charts.strip import Strip
from server.result.finished import Run
from server.result.wording import (
    capital,
    cut,
    figure,
    headline_of,
    interval,
    main_unit,
    model_name,
    plural,
    series,
    share,
    shared_first,
    undefined,
)
from strategies.tasks.outcome_figures import wilson

PANEL = 12  # hospitals in one drawing: then the axis is drawn again
SPACE, GAP = 17.0, 18.0  # between the models of a hospital, between hospitals


@dataclass(frozen=True)
class Row:
    """One hospital, or all test patients: a figure for each model of series()."""

    name: str
    patients: int | None
    estimates: tuple[Estimate | None, ...]
    whole: bool = False

    @property
    def note(self) -> str:
        """Return words for the number of test patients that judged it."""
        return "" if self.patients is None else plural(self.patients, "test patient")


def forest(run: Run) -> list[Html]:
    """Draw the main metric with its interval, by hospital and model: dots with whiskers, PANEL hospitals a drawing."""
    rows, keys = forest_rows(run), series(run)
    if not keys:
        return []
    bounds = _forest_bounds(run, rows)
    panels = [rows[start : start + PANEL] for start in range(0, len(rows), PANEL)]
    return [svg.both(partial(_panel, run, f"forest-{n}", panel, bounds)) for n, panel in enumerate(panels, 1)]


def forest_rows(run: Run) -> list[Row]:
    """Return a row of all test patients first, then hospitals from the most test patients to the fewest."""
    models = [model for key in series(run) if (model := run.model(key)) is not None]
    sites = sorted(run.sites, key=lambda site: (-(site.patients_test or 0), site.name))
    whole = Row("all together", run.total("patients_test"), tuple(model.main for model in models), whole=True)
    return [whole, *(Row(s.name, s.patients_test, tuple(m.per_site.get(s.name) for m in models)) for s in sites)]


def strip_bounds(run: Run) -> tuple[float, float]:
    """Return the ends of the axis for hospitals' figures without their intervals."""
    values = [value for row in quality_strips(run) for _, value in row.values]
    return _bounds(run, min(values, default=0.0), max(values, default=1.0))


def whole_forest(run: Run) -> Html:
    """Draw all hospitals in one chart, as a file for a paper."""
    rows = forest_rows(run)
    return _panel(run, "forest", rows, _forest_bounds(run, rows), svg.WIDE)


def quality_strips(run: Run) -> list[Strip]:
    """Return a row for each model, the shared one first: the main metric of each hospital that has one."""
    rows = []
    for key in shared_first(run):
        model = run.model(key)
        if model is not None:
            values = tuple((site, e.value) for site, e in sorted(model.per_site.items()) if e)
            rows.append(Strip(model_name(run, key), key, values, model.main.value if model.main else None))
    return rows


def _forest_bounds(run: Run, rows: Sequence[Row]) -> tuple[float, float]:
    estimates = [estimate for row in rows for estimate in row.estimates if estimate]
    return _bounds(run, min((f.low for f in estimates), default=0.0), max((f.high for f in estimates), default=1.0))


def _bounds(run: Run, low: float, high: float) -> tuple[float, float]:
    if (chance := headline_of(run).chance) is not None:  # chance and perfection are always in sight
        return max(0.0, math.floor(min(low, chance) * 10) / 10), 1.0
    return svg.widened(min(low, 0.0), high, 1e-6)


def _panel(run: Run, key: str, rows: Sequence[Row], bounds: tuple[float, float], width: int) -> Html:
    wide = width == svg.WIDE
    x = svg.Scale(bounds, (190.0, width - 150.0) if wide else (10.0, width - 52.0))
    edges, parts, y = [], [], 24.0
    for row in rows:
        edge, drawn, height = _row(run, x, y, width, row)
        edges.append(edge)
        parts.append(drawn)
        y += height
    values = svg.ticks(*bounds, 8 if wide else 5)
    label = capital(headline_of(run).label) + (f" ({main_unit(run)})" if main_unit(run) else "") + _direction(run)
    described = (
        f"Rows: {', '.join(r.name for r in rows)}. Models: {', '.join(model_name(run, k) for k in series(run))}."
    )
    return svg.canvas(
        key,
        width,
        y + 44,
        f"{label} by hospital",
        described,
        *edges,
        svg.axis_x(x, 20, y - 4, label, values, svg.number(values)),
        _chance(x, y - 4, chance) if (chance := headline_of(run).chance) is not None else None,
        *parts,
    )


def _chance(x: svg.Scale, bottom: float, chance: float) -> Html:
    """Draw where a guess would be."""
    word = svg.text(x(chance), 11, f"{chance:g} is chance", "t", "middle")
    return join([svg.line(x(chance), 16, x(chance), bottom, "chance"), word])


def _direction(run: Run) -> str:
    return ", lower is better" if headline_of(run).lower_is_better else ", higher is better"


def _row(run: Run, x: svg.Scale, top: float, width: int, row: Row) -> tuple[Html, Html, float]:
    """Return a hospital's row: what lies under the grid, its models, its height. On a phone its name is above."""
    wide, has_estimates = width == svg.WIDE, any(row.estimates)
    first = top + (14.0 if wide else 34.0)
    height = first - top + SPACE * (len(row.estimates) - 1 if has_estimates else 1) + GAP
    edge = (
        svg.rect(0, top - 4, width, height, "band", rx=4) if row.whole else svg.line(0, top - 4, width, top - 4, "rule")
    )
    name = cut(row.name, 24 if wide else 28)
    parts = [
        el("text", el("title", row.name), name, x=8, y=top + 16, class_="t strong" if row.whole else "t strong halo")
    ]
    parts.append(svg.text(8, top + 32, row.note) if wide else svg.text(width - 8, top + 16, row.note, anchor="end"))
    if has_estimates:
        parts += [_whisker(run, x, first + SPACE * n, width, n, row) for n in range(len(row.estimates))]
    else:
        parts += _undefined(run, first + 2, width)
    return edge, join(parts), height


def _undefined(run: Run, y: float, width: int) -> list[Html]:
    """Return a text on why there is no figure, in the figure's place."""
    if width == svg.WIDE:
        return [svg.text(width - 8, y, undefined(run), "t quiet halo", "end")]
    first, _, rest = undefined(run).partition(" patients ")
    words = [f"{first} patients", rest] if rest else [first]
    return [svg.text(8, y + 17 * n, line, "t quiet halo") for n, line in enumerate(words)]


def _whisker(run: Run, x: svg.Scale, y: float, width: int, number: int, row: Row) -> Html:
    key, bounded, estimate = series(run)[number], headline_of(run).is_bounded, row.estimates[number]
    end = width - 8
    if estimate is None:
        return svg.text(end, y + 4, "undefined", "t quiet halo", "end")
    values = interval(estimate, bounded=bounded)
    hint = f"{row.name}, {model_name(run, key)}: {values}"
    shown = values.replace(" to ", "\N{EN DASH}") if width == svg.WIDE else figure(estimate.value, bounded=bounded)
    return join(
        [
            svg.line(x(estimate.low), y, x(estimate.high), y, f"whisker {key}"),
            svg.mark(key, x(estimate.value), y, hint),
            svg.text(end, y + 4, shown, "t strong" if key == run.shared else "t", "end"),
        ]
    )


def convergence(run: Run) -> Html | None:
    """Draw the main metric on all test patients after each round; shaded, the final model's interval."""
    keys = [key for key in series(run) if run.convergence.get(key)]
    return svg.both(lambda width: _convergence(run, keys, width)) if keys else None


def convergence_file(run: Run) -> Html:
    """Draw the curves as a file for a paper."""
    return _convergence(run, [key for key in series(run) if run.convergence.get(key)], svg.WIDE)


def _convergence(run: Run, keys: Sequence[str], width: int) -> Html:
    wide, bounded = width == svg.WIDE, headline_of(run).is_bounded
    ends = _ends(run, keys)
    model = run.model(run.shared)
    final = model.main if model else None
    values = [value for key in keys for _, value in run.convergence[key]] + [value for _, value in ends.values()]
    values += [final.low, final.high] if final else []
    limits = (-math.inf, math.inf) if headline_of(run).chance is None else (0.0, 1.0)
    bounds = svg.widened(min(values), max(values), 0.1 if bounded else 1e-6, *limits)
    height, start, end = (300.0, 44.0, width - 50.0) if wide else (260.0, 40.0, width - 42.0)
    last = max(run.rounds_planned, *(run.convergence[key][-1][0] for key in keys))
    x, y = svg.Scale((1.0, float(max(2, last))), (start, end)), svg.Scale(bounds, (height, 34.0))
    numbers, rounds = svg.ticks(*bounds, svg.STEPS), round_ticks(last, 8 if wide else 5)
    label = f"{capital(headline_of(run).label)}{f' ({main_unit(run)})' if main_unit(run) else ''}, all test patients"
    return svg.canvas(
        "convergence",
        width,
        height + 46,
        f"{label}, by round",
        "; ".join(f"{model_name(run, k)} ends at {figure(v, bounded=bounded)}" for k, (_, v) in ends.items()),
        svg.rect(start, y(final.high), end - start, y(final.low) - y(final.high), "band") if final else None,
        svg.axis_y(y, start, end, label, numbers, svg.number(numbers)),
        svg.axis_x(x, height, height, "Round", rounds, svg.number(rounds)),
        *(svg.line(start, y(v), end, y(v), f"level {key}") for key, (_, v) in ends.items() if key not in keys),
        *(_curve(run, key, x, y) for key in keys),
        *_end_labels(run, ends, x, y),
    )


def _ends(run: Run, keys: Sequence[str]) -> dict[str, tuple[int, float]]:
    """Return where each curve ends; and the level of the hospitals alone, which is what a curve should pass."""
    ends = {key: run.convergence[key][-1] for key in keys}
    alone = run.model(ComparedModel.LOCAL_ONLY)
    if alone and alone.main and len(run.sites) > 1 and ComparedModel.LOCAL_ONLY not in ends:
        ends[ComparedModel.LOCAL_ONLY] = (max(2, run.rounds_planned), alone.main.value)
    return ends


def _end_labels(run: Run, ends: Mapping[str, tuple[int, float]], x: svg.Scale, y: svg.Scale) -> list[Html]:
    """Return the last figure at each curve's end; those that end at one round keep clear of each other."""
    bounded, labels = headline_of(run).is_bounded, []
    for last in {number for number, _ in ends.values()}:
        last_values = {key: value for key, (number, value) in ends.items() if number == last}
        places = svg.spread([y(value) for value in last_values.values()], 15.0, y.pixels[1], y.pixels[0])
        labels += [
            svg.text(x(last) + 10, place + 4, figure(value, bounded=bounded), f"t end {key}")
            for (key, value), place in zip(last_values.items(), places, strict=True)
        ]
    return labels


def round_ticks(last: int, most: int) -> list[float]:
    """Round 1, round numbers, and the last round."""
    inner = [t for t in svg.ticks(0.0, float(last), most) if t == int(t) and t > 1 and last - t >= last / most / 2]
    return [1.0, *inner, *([float(last)] if last > 1 else [])]


def _curve(run: Run, key: str, x: svg.Scale, y: svg.Scale) -> Html:
    points = svg.thinned(run.convergence[key])
    places = [(x(number), y(value)) for number, value in points]
    name, bounded = model_name(run, key), headline_of(run).is_bounded
    marks = points if len(points) <= 40 else points[-1:]
    return join(
        [
            svg.path(places, f"curve {key}") if len(places) > 1 else None,
            *(
                svg.mark(key, x(number), y(value), f"{name}, round {number}: {figure(value, bounded=bounded)}", 3.0)
                for number, value in marks
            ),
        ]
    )


def calibration(run: Run) -> Html | None:
    """Return a chart of predicted against observed shares, a dot for each bin, its area the number of patients."""
    model = run.model(run.shared)
    return svg.both(lambda width: _calibration(run, min(width, svg.SQUARE))) if model and model.calibration else None


def calibration_file(run: Run) -> Html:
    """Draw the calibration as a file for a paper."""
    return _calibration(run, svg.SQUARE)


def _calibration(run: Run, width: int) -> Html:
    start, top, end, bottom = 52.0, 34.0, width - 20.0, width - 38.0
    x, y = svg.Scale((0.0, 1.0), (start, end)), svg.Scale((0.0, 1.0), (bottom, top))
    values = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    shared, pooled = run.model(run.shared), run.model(ComparedModel.POOLED)
    bins = [group for group in shared.calibration if group.count] if shared else []
    faint = [group for group in pooled.calibration if group.count] if pooled else []
    most = max((group.count for group in [*bins, *faint]), default=1)
    return svg.canvas(
        "calibration",
        width,
        bottom + 46,
        "Observed share of patients with the outcome, by predicted probability",
        "; ".join(f"{share(b.predicted)} predicted, {share(b.observed)} of {b.count} observed" for b in bins),
        svg.axis_y(y, start, end, "Observed share with the outcome", values, share),
        svg.axis_x(x, top, bottom, "Predicted probability", values, share),
        svg.line(x(0), y(0), x(1), y(1), "ideal"),
        *(_bin(group, x, y, most, ComparedModel.POOLED) for group in faint),
        *(_bin(group, x, y, most, run.shared) for group in bins),
    )


def _bin(group: Bin, x: svg.Scale, y: svg.Scale, most: int, key: str) -> Html:
    radius = 3.0 + 10.0 * math.sqrt(group.count / most)
    low, high = group.interval or wilson(group.observed * group.count, group.count)
    hint = f"{share(group.predicted)} predicted, {share(group.observed)} of {plural(group.count, 'patient')} observed"
    place = x(group.predicted)
    whisker = svg.line(place, y(low), place, y(high), f"whisker {key}") if key != ComparedModel.POOLED else None
    return el("g", whisker, svg.mark(key, place, y(group.observed), hint, radius), class_="bin")
