"""Charts of risks over time: what models predict on average, and what was observed."""

from collections.abc import Sequence

from configs.records.result import SurvivalPoint
from server.charts import svg
from server.charts.markup import Html, join
from server.result.finished import Run
from server.result.wording import share


def risks(run: Run, causes: Sequence[str], keys: Sequence[str]) -> Html:
    """Draw the first cause's risk by time: a curve for each model, a dot with its 95 % interval for the observed."""
    return svg.both(lambda width: _risks(run, causes[0], keys, width))


def risks_file(run: Run, causes: Sequence[str], keys: Sequence[str]) -> Html:
    """Draw the same as a file for a paper."""
    return _risks(run, causes[0], keys, svg.WIDE)


def points_of(run: Run, key: str, cause: str) -> list[SurvivalPoint]:
    """Return a model's risks of one cause, by time."""
    model = run.model(key)
    return [point for point in (model.survival or ()) if point.cause == cause] if model else []


def _risks(run: Run, cause: str, keys: Sequence[str], width: int) -> Html:
    wide = width == svg.WIDE
    height, start, end = (300.0, 44.0, width - 30.0) if wide else (260.0, 40.0, width - 20.0)
    curves = {key: points_of(run, key, cause) for key in keys}
    observed = curves[keys[0]]
    most = max([0.01, *(p.high or 0.0 for p in observed), *(p.predicted or 0.0 for c in curves.values() for p in c)])
    x, y = svg.Scale((0.0, observed[-1].time), (start, end)), svg.Scale((0.0, most * 1.05), (height, 34.0))
    times, values = svg.ticks(0.0, observed[-1].time, 7 if wide else 4), svg.ticks(0.0, most * 1.05, 5)
    unit = f" ({run.target_unit})" if run.target_unit else ""
    last = observed[-1]
    return svg.canvas(
        "risks",
        width,
        height + 46,
        "Risk by time, predicted and observed",
        f"by {last.time:g}{unit} predicted {_said(last.predicted)}, observed {_said(last.observed)}",
        svg.axis_y(y, start, end, "Share of patients with the event", values, svg.number(values)),
        svg.axis_x(x, height, height, f"Time{unit}", times, svg.number(times)),
        *(svg.path([(x(0), y(0)), *_places(curve, x, y)], f"curve {key}") for key, curve in curves.items()),
        *(_observed(point, x, y) for point in observed if point.observed is not None),
    )


def _places(curve: Sequence[SurvivalPoint], x: svg.Scale, y: svg.Scale) -> list[tuple[float, float]]:
    return [(x(point.time), y(point.predicted)) for point in curve if point.predicted is not None]


def _observed(point: SurvivalPoint, x: svg.Scale, y: svg.Scale) -> Html:
    assert point.observed is not None
    low, high = (point.observed if end is None else end for end in (point.low, point.high))
    hint = f"by {point.time:g}: {share(point.observed)} ({share(low)} to {share(high)})"
    whisker = svg.line(x(point.time), y(low), x(point.time), y(high), "whisker local_only")
    return join([whisker, svg.mark("local_only", x(point.time), y(point.observed), hint)])


def _said(value: float | None) -> str:
    return "nothing" if value is None else share(value)
