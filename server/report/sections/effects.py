"""The section `effects`: what a linear model's coefficients say, column by column, where no interval was released."""

from collections.abc import Iterable

from configs.records.effects import CurvePoint, Effects
from configs.records.inference import Ratios
from server.charts.markup import Html, el
from server.report.parts import Section, table
from server.result.finished import Run
from server.result.markdown import grid, md
from server.result.wording import capital, enumerated, figure_of

NO_INTERVAL = "shrunken, no interval"


def curves(names: tuple[str, ...]) -> str:
    """Return a sentence about columns that have no single ratio; an empty text where there are none."""
    if not names:
        return ""
    verb, what = ("is a curve", "it has") if len(names) == 1 else ("are curves", "they have")
    return f"{enumerated(names)} {verb}: {what} no single figure."


def _shows(run: Run) -> bool:
    told = (result for result in run.releases.values() if isinstance(result, Ratios))
    effects = run.effects
    return effects is not None and bool(effects.rows or effects.curves) and all(result.undefined for result in told)


def _reading(run: Run) -> str:
    return f"{capital(_effects(run).measure)}s of the shared model, {NO_INTERVAL}."


def _about(run: Run) -> str:
    why = "cut gradients, noise and few rounds pull" if run.private else "few rounds pull"
    return (
        f"What one step in a column changes in {_effects(run).of}, the other columns being equal. These are the shared "
        f"model's own coefficients: {why} them towards no effect, and nothing here says how certain they are. "
        "Intervals need a study that asks for releases.inference."
    )


def _rows(run: Run) -> list[list[str]]:
    return [[row.column, row.contrast, figure_of(row.value)] for row in _effects(run).rows]


def _heading(run: Run) -> str:
    return f"{capital(_effects(run).measure)} ({NO_INTERVAL})"


def _body(run: Run) -> Iterable[Html | None]:
    note, measure = curves(_effects(run).curved), capital(_effects(run).measure)
    yield table(["Column", "Step", _heading(run)], _rows(run), f"{measure} by column", 1) if _rows(run) else None
    yield el("p", note, class_="note") if note else None
    for column, points in _effects(run).curves.items():
        yield table([column, _heading(run)], _points(points), f"{measure} along the curve of {column}", 1)


def _points(points: tuple[CurvePoint, ...]) -> list[list[str]]:
    """Return a row for each knot; the first is what the others are compared with."""
    return [[f"{point.at:.6g}", figure_of(point.value) if n else "the reference"] for n, point in enumerate(points)]


def _card(run: Run) -> Iterable[str]:
    if _shows(run):
        yield md(f"{_about(run)} {curves(_effects(run).curved)}".strip())
        yield grid(["Column", "Step", md(_heading(run))], [[md(cell) for cell in row] for row in _rows(run)])
        for column, points in _effects(run).curves.items():
            yield grid([md(column), md(_heading(run))], [[md(cell) for cell in row] for row in _points(points)])


def _effects(run: Run) -> Effects:
    return run.effects or Effects("ratio", "the outcome", (), (), {})


SECTION = Section(
    "effects", "Ratios", "What does each column do?", _reading, _about, _body, place=45, shows=_shows, card=_card
)
