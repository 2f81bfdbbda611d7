"""Charts of thresholds: the decision curve and the ROC curve."""

from collections.abc import Iterable
from functools import partial

from configs.records.outcome import NetBenefit, RocPoint
from server.charts import svg
from server.charts.figure import Figure
from server.charts.markup import Html
from server.result.finished import Run
from server.result.wording import share

LEAST = 0.0005  # of net benefit: what is less is no difference
DEEPEST = 0.4  # below zero, of the axis' height above it


def points(run: Run) -> tuple[NetBenefit, ...]:
    """Return the shared model's decision curve."""
    model = run.model(run.shared)
    return model.outcome.decision if model and model.outcome else ()


def roc_points(run: Run) -> tuple[RocPoint, ...]:
    """Return the shared model's ROC curve."""
    model = run.model(run.shared)
    return model.outcome.roc if model and model.outcome else ()


def useful(run: Run) -> tuple[float, float] | None:
    """Return the first and the last threshold at which the model has more net benefit than treating all or none."""
    better = [p.threshold for p in points(run) if p.model > max(0.0, p.everybody) + LEAST]
    return (better[0], better[-1]) if better else None


def curve(run: Run) -> Html | None:
    """Draw the decision curve; nothing where the run has none."""
    return svg.both(partial(_curve, run)) if len(points(run)) > 1 else None


def _curve(run: Run, width: int) -> Html:
    wide, curve_points = width == svg.WIDE, points(run)
    height, start, end = (300.0, 52.0, width - 30.0) if wide else (250.0, 46.0, width - 14.0)
    top = max(max(p.model, p.everybody) for p in curve_points)
    bounds = svg.widened(-DEEPEST * max(top, 0.05), top, 0.05)
    x, y = svg.Scale((0.0, 1.0), (start, end)), svg.Scale(bounds, (height, 34.0))
    values, shares = svg.ticks(*bounds, svg.STEPS), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    lowest = [(p.threshold, p.everybody) for p in curve_points if p.everybody >= bounds[0]]
    return svg.canvas(
        "decision",
        width,
        height + 46,
        "Net benefit of treating by the model, everybody and nobody, by threshold",
        "; ".join(f"{share(p.threshold)}: {p.model:.3f}" for p in curve_points[:: max(1, len(curve_points) // 8)]),
        svg.axis_y(y, start, end, "Net benefit per patient", values, svg.number(values)),
        svg.axis_x(x, height, height, "Threshold", shares, share),
        svg.line(x(0.0), y(0.0), x(1.0), y(0.0), "curve nobody"),
        svg.path([(x(a), y(b)) for a, b in lowest], "curve everybody") if len(lowest) > 1 else None,
        svg.path([(x(p.threshold), y(p.model)) for p in curve_points if p.model >= bounds[0]], f"curve {run.shared}"),
    )


def roc(run: Run, width: int = svg.SQUARE) -> Html:
    """Draw the ROC curve as a square."""
    start, top, end, bottom = 52.0, 34.0, width - 20.0, width - 38.0
    x, y = svg.Scale((0.0, 1.0), (start, end)), svg.Scale((0.0, 1.0), (bottom, top))
    values = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    places = [(0.0, 0.0), *((1 - p.specificity, p.sensitivity) for p in roc_points(run)), (1.0, 1.0)]
    return svg.canvas(
        "roc",
        width,
        bottom + 46,
        "ROC curve of the shared model, all test patients",
        f"{len(places)} points",
        svg.axis_y(y, start, end, "Sensitivity", values, svg.number(values)),
        svg.axis_x(x, top, bottom, "1 - specificity", values, svg.number(values)),
        svg.line(x(0), y(0), x(1), y(1), "ideal"),
        svg.path([(x(a), y(b)) for a, b in places], f"curve {run.shared}"),
    )


def figures(run: Run) -> Iterable[Figure]:
    """Yield both curves as files."""
    if len(points(run)) > 1:
        rows = tuple((p.threshold, p.model, p.everybody, 0.0) for p in points(run))
        headings = ("threshold", "net benefit by the model", "treating everybody", "treating nobody")
        legend = ((run.shared, "by the model"), ("everybody", "everybody"), ("nobody", "nobody"))
        yield Figure("decision_curve", "Decision curve", headings, rows, _curve(run, svg.WIDE), legend)
    if roc_points(run):
        places = tuple((p.threshold, p.sensitivity, p.specificity) for p in roc_points(run))
        yield Figure("roc", "ROC curve", ("threshold", "sensitivity", "specificity"), places, roc(run))
