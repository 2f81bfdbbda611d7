"""The section `quality`: the main metric at each hospital, of the compared models."""

from collections.abc import Iterable

from configs.records.models import ComparedModel
from server.charts import quality
from server.charts.markup import Html, el
from server.charts.quality import forest_rows
from server.report.parts import Section, drawing, folded, legend, table
from server.result import comparisons
from server.result.finished import Run
from server.result.wording import (
    capital,
    count,
    headline_of,
    hospitals,
    interval,
    model_name,
    series,
    undefined,
)


def _quality_about(run: Run) -> str:
    meant = headline_of(run)
    about = f"{meant.label} says {meant.about}." if meant.about else ""
    if run.noisy:
        return (
            f"{about} Computed from noisy histograms of scores, which {hospitals(len(run.noisy.sites))} of "
            f"{len(run.sites):,} released. Whiskers are 95 % intervals, the noise included: where they are long, there "
            "were few test patients for so much noise."
        )
    return f"{about} Whiskers are 95 % intervals: where they are long, there were few test patients to judge by."


def _quality(run: Run) -> Iterable[Html | None]:
    drawings, keys = quality.forest(run), series(run)
    if not drawings:
        return []
    name = capital(headline_of(run).label)
    noise = ", the noise included" if run.noisy else ""
    about = f"A dot is the figure on test patients, its whisker the 95 % interval{noise}."
    return [
        drawing(f"{name} by hospital", about, legend(run, keys), *drawings),
        el("p", _alone_note(run), class_="note") if ComparedModel.LOCAL_ONLY in keys else None,
        folded("The same as a table", _quality_table(run)),
    ]


def _alone_note(_run: Run) -> str:
    return (
        "At a hospital, “alone” is its own model on its own test patients. In the first row it is the mean of "
        "the hospitals' own models, each judged on all test patients. Models of one hospital alone, and of all data in "
        "one place, are fitted to convergence without privacy."
    )


def _quality_table(run: Run) -> Html:
    bounded, keys = headline_of(run).is_bounded, series(run)
    rows = [
        [row.name, count(row.patients), *(interval(estimate, bounded=bounded) for estimate in row.estimates)]
        for row in forest_rows(run)
    ]
    title = f"{capital(headline_of(run).label)} with 95 % intervals; {undefined(run)}"
    return table(
        ["Hospital", "Test patients", *(model_name(run, key) for key in keys)], rows, title, len(keys) + 1, whole=True
    )


SECTION = Section(
    "quality",
    "Quality",
    "How good is it at each hospital?",
    comparisons.quality,
    _quality_about,
    _quality,
    place=20,
    shows=lambda run: not run.unmeasured,
)
