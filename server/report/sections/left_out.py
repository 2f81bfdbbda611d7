"""The section `left_out`: how good a model of all other hospitals is at one that took no part."""

from collections.abc import Iterable

from server.charts.markup import Html
from server.report.parts import Section, short_or_folded, table
from server.result.finished import Run
from server.result.markdown import md
from server.result.wording import capital, count, headline_of, interval, main_interval, metric_of, plural


def _reading(run: Run) -> str:
    figures = {site: entry.metrics.get(run.metric) for site, entry in run.left_out.items()}
    known = {site: figure for site, figure in figures.items() if figure is not None}
    label = headline_of(run).label
    if not known:
        return f"{capital(label)} is undefined at every hospital that was left out."
    ordered = sorted(known, key=lambda site: known[site].value, reverse=headline_of(run).lower_is_better)
    worst, best = ordered[0], ordered[-1]
    if worst == best:
        return f"At {worst}, which was left out, {label} is {main_interval(run, known[worst])}."
    span = f"from {main_interval(run, known[worst])} at {worst} to {main_interval(run, known[best])} at {best}"
    return f"At a hospital that was left out of the training, {label} is {span}."


def _about(_run: Run) -> str:
    return (
        "For each hospital a model was trained by all the others, as the study says, and judged on all its patients, "
        "of whom it has seen none. This is what a hospital that takes no part can expect."
    )


def _body(run: Run) -> Iterable[Html | None]:
    names = list(dict.fromkeys(name for entry in run.left_out.values() for name in entry.metrics))
    metrics = [metric_of(run, name) for name in names]
    has_gap = any(entry.in_the_large for entry in run.left_out.values())
    rows = [
        [
            site,
            count(entry.patients),
            *(interval(entry.metrics.get(m.name), bounded=m.is_bounded) for m in metrics),
            *([interval(entry.in_the_large, bounded=False)] if has_gap else []),
        ]
        for site, entry in sorted(run.left_out.items())
    ]
    title = f"{plural(len(rows), 'hospital')}, each left out in turn; 95 % intervals over its patients"
    heads = ["Left out", "Patients", *(metric.label for metric in metrics), *(["Predicted less observed"] * has_gap)]
    drawn = table(heads, rows, title, len(heads) - 1)
    return [short_or_folded("Every hospital as a table", drawn, len(rows))]


def _card(run: Run) -> Iterable[str]:
    yield md(_reading(run))


SECTION = Section(
    "left-out",
    "Left out",
    "How good is it where it was not trained?",
    _reading,
    _about,
    _body,
    place=47,
    shows=lambda run: bool(run.left_out),
    card=_card,
)
