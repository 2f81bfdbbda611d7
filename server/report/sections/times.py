"""The section `times`: mean predicted risk over time, against the observed one, of studies of times to an event."""

from collections.abc import Iterable

from configs.records.models import ComparedModel
from configs.records.result import SurvivalPoint
from server.charts.figure import Figure
from server.charts.markup import Html
from server.charts.risks import points_of, risks, risks_file
from server.report.parts import Section, drawing, folded, legend, models_legend, table
from server.result.finished import Run
from server.result.wording import NONE, share


def _causes(run: Run) -> list[str]:
    model = run.model(run.shared)
    return list(dict.fromkeys(point.cause for point in (model.survival or ()))) if model else []


def _keys(run: Run) -> list[str]:
    causes = _causes(run)
    keys = [run.shared, ComparedModel.POOLED, ComparedModel.POOLED_COX]
    return [key for key in keys if causes and points_of(run, key, causes[0])]


def _reading(run: Run) -> str:
    last = points_of(run, run.shared, _causes(run)[0])[-1]
    if last.predicted is None or last.observed is None:
        return "The run recorded no risks."
    by = f"{last.time:g} {run.target_unit}".strip()
    return f"By {by} the model expects the event in {share(last.predicted)} of test patients; {_observed(last)} had it."


def _observed(point: SurvivalPoint) -> str:
    if point.observed is None or point.low is None or point.high is None:
        return "an unknown share"
    return f"{share(point.observed)} ({share(point.low)} to {share(point.high)})"


def _about(_run: Run) -> str:
    return (
        "Patients lost from sight count up to then: the observed risk is that of Kaplan and Meier, of several causes "
        "that of Aalen and Johansen. Where the curve leaves the dots' intervals, do not believe risks as they are."
    )


def _body(run: Run) -> Iterable[Html | None]:
    causes, keys = _causes(run), _keys(run)
    about = "A curve is the mean predicted risk, a dot the observed one with its 95 % interval, on all test patients."
    title = f"Risk of {causes[0]!r} by time" if len(causes) > 1 else "Risk by time"
    yield drawing(title, about, legend(run, keys), risks(run, causes, keys))
    rows = [
        (cause, f"{point.time:g}", share(point.predicted) if point.predicted is not None else NONE, _observed(point))
        for cause in causes
        for point in points_of(run, run.shared, cause)
    ]
    headings = ["Event", f"By ({run.target_unit})" if run.target_unit else "By", "Predicted", "Observed"]
    yield folded("The same as a table", table(headings, rows, "Risk by time, predicted and observed", 3))


def _figures(run: Run) -> Iterable[Figure]:
    causes, keys = _causes(run), _keys(run)
    rows = tuple(
        (key, p.cause, p.time, p.predicted, p.observed, p.low, p.high)
        for key in keys
        for cause in causes
        for p in points_of(run, key, cause)
    )
    headings = ("model", "event", "time", "predicted", "observed", "observed low", "observed high")
    yield Figure("risks", "Risk by time", headings, rows, risks_file(run, causes, keys), models_legend(run, keys))


def _card(run: Run) -> Iterable[str]:
    if _causes(run):
        yield _reading(run)


SECTION = Section(
    "times",
    "Over time",
    "How do risks grow over time?",
    _reading,
    _about,
    _body,
    place=45,
    shows=lambda run: bool(_causes(run)),
    card=_card,
    figures=_figures,
)
