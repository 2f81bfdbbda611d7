"""The section `quality`: the main metric at each hospital, of the compared models."""

from collections.abc import Iterable

from configs.records.models import ComparedModel
from server.charts import quality, strip
from server.charts.figure import Figure, ends_of
from server.charts.markup import Html, el
from server.charts.quality import forest_rows
from server.report.parts import Section, drawing, each, folded, legend, models_legend, spread_table, table
from server.result import comparisons
from server.result.finished import Run
from server.result.spread import MANY
from server.result.wording import (
    capital,
    count,
    figure,
    headline_of,
    hospitals,
    interval,
    model_name,
    series,
    shared_first,
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
    forest = drawing(f"{name} by hospital", about, legend(run, keys), *drawings)
    many = _many(run, name) if len(run.sites) > MANY else []
    return [
        *many,
        each(f"{name} by hospital", forest, len(run.sites)),
        el("p", _alone_note(run), class_="note") if ComparedModel.LOCAL_ONLY in keys else None,
        el("p", _PERSONAL_NOTE, class_="note") if ComparedModel.PERSONALISED in keys else None,
        folded("The same as a table", _quality_table(run)),
    ]


def _many(run: Run, name: str) -> list[Html | None]:
    """Return the spread over more hospitals than a page can show one by one."""
    rows, ends = quality.quality_strips(run), quality.strip_bounds(run)
    chart = strip.strips("quality-strip", name, rows, ends, headline_of(run).chance)
    about = "A small dot is a hospital, the bar the middle half of them, its line the median, the mark all together."
    return [drawing(f"{name} of {len(run.sites):,} hospitals", about, chart) if chart else None, _spread(run)]


def _spread(run: Run) -> Html:
    bounded = headline_of(run).is_bounded
    rows = [
        (row.name, [value for _, value in row.values], lambda value: figure(value, bounded=bounded))
        for row in quality.quality_strips(run)
    ]
    return spread_table(f"{capital(headline_of(run).label)} over the hospitals", rows)


_PERSONAL_NOTE = (
    "“Together, then each hospital's own” is what each hospital makes of the last model for itself, on its own "
    "training patients or with its own intercept; it stays there. In the first row each patient is predicted by "
    "the own hospital's, which knows that hospital's share of outcomes too: compare hospital by hospital."
)


def _alone_note(_run: Run) -> str:
    return (
        "At a hospital, “alone” is its own model on its own test patients. In the first row it is the mean of "
        "the hospitals' own models, each judged on all test patients. Models of one hospital alone, and of all data in "
        "one place, are fitted to convergence without privacy."
    )


def _quality_table(run: Run) -> Html:
    """Return every figure; the shared model's stands first, so that a phone shows it."""
    bounded, keys = headline_of(run).is_bounded, shared_first(run)
    order = [series(run).index(key) for key in keys]
    rows = [
        [row.name, *(interval(row.estimates[n], bounded=bounded) for n in order), count(row.patients)]
        for row in forest_rows(run)
    ]
    title = f"{capital(headline_of(run).label)} with 95 % intervals; {undefined(run)}"
    names = [model_name(run, key) for key in keys]
    return table(["Hospital", *names, "Test patients"], rows, title, len(keys) + 1, whole=True)


def _figures(run: Run) -> Iterable[Figure]:
    keys = series(run)
    if not keys:
        return
    names = [f"{model_name(run, key)}{end}" for key in keys for end in ("", ", low", ", high")]
    rows = [(row.name, row.patients, *(end for e in row.estimates for end in ends_of(e))) for row in forest_rows(run)]
    headings = ("hospital", "test patients", *names)
    title = f"{capital(headline_of(run).label)} by hospital"
    yield Figure("forest", title, headings, tuple(rows), quality.whole_forest(run), models_legend(run, keys))


SECTION = Section(
    "quality",
    "Quality",
    "How good is it at each hospital?",
    comparisons.quality,
    _quality_about,
    _quality,
    place=20,
    shows=lambda run: not run.unmeasured,
    figures=_figures,
)
