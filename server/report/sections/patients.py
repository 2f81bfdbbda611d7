"""The section `patients`: Table 1, who the patients are."""

from collections.abc import Iterable

from server.charts.figure import Figure
from server.charts.markup import Html, el
from server.report.parts import Section, table
from server.result.finished import Run
from server.result.markdown import grid, md
from server.result.table_one import TableOne, table_one
from server.result.wording import capital, hospitals

HEADINGS = ("Column", "Value", "All together", "Least", "Median", "Most")
ONLY_HERE = "Simulation only: these are exact counts, which no hospital releases; small ones are not to be published."


def _table(run: Run) -> TableOne:
    described = table_one(run)
    assert described is not None
    return described


def _reading(run: Run) -> str:
    described = _table(run)
    about = "About " if described.noise else ""
    return f"{about}{described.patients:,} patients of {hospitals(described.hospitals)}."


def _about(run: Run) -> str:
    described = _table(run)
    spread = "Least, median and most are over the hospitals. A mean is that of bins, so it is near the exact one."
    if not described.noise:
        return f"{ONLY_HERE} {spread}"
    return (
        f"From the study of statistics {described.source[:12]}: every count carries noise of standard deviation "
        f"{described.noise:,.1f} patients, and each share a 95 % interval. {spread}"
    )


def _alerts(run: Run) -> Iterable[str]:
    if run.patients and run.patients.telltale:
        yield f"{capital(run.patients.warning)}."


def _body(run: Run) -> Iterable[Html | None]:
    described = _table(run)
    yield table(list(HEADINGS), [line.cells() for line in described.lines], "Table 1: the patients", 4)
    if not described.noise:
        yield el("p", ONLY_HERE, class_="note")


def _card(run: Run) -> Iterable[str]:
    described = _table(run)
    yield md(f"{_reading(run)} {_about(run)}")
    yield grid(HEADINGS, [[md(cell) for cell in line.cells()] for line in described.lines])


def _figures(run: Run) -> Iterable[Figure]:
    described = _table(run)
    sites = sorted({site for line in described.lines for site in line.sites})
    rows = tuple(
        (line.column, line.what, line.whole, *(line.sites.get(site) for site in sites)) for line in described.lines
    )
    yield Figure("table_1", "Table 1: the patients", ("column", "value", "all together", *sites), rows)


SECTION = Section(
    "patients",
    "Patients",
    "Who are the patients?",
    _reading,
    _about,
    _body,
    place=10,
    shows=lambda run: table_one(run) is not None,
    alerts=_alerts,
    card=_card,
    figures=_figures,
)
