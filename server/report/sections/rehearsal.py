"""The section `rehearsal`: what a deployment of a simulated study would show, beside the exact figures.

Between machines only what hospitals release is seen, with its noise. A simulation knows both.
"""

from collections.abc import Iterable

from configs.records.result import Estimate
from server.charts.markup import Html
from server.report.parts import Section, short_or_folded, table
from server.result.finished import Run
from server.result.markdown import md
from server.result.wording import UNDEFINED_NOISY, headline_of, interval, main_interval, metric_of


def _figures(run: Run) -> tuple[Estimate | None, Estimate | None]:
    """Return the exact and the noisy figure of the main metric, all hospitals together."""
    exact, noisy = run.model(run.shared), run.rehearsed
    return exact.main if exact else None, noisy.main if noisy else None


def _reading(run: Run) -> str:
    exact, noisy = _figures(run)
    label = headline_of(run).label
    if noisy is None:
        return f"A deployment would show no {label}: there are too few test patients for so much noise."
    return f"A deployment would show {label} {main_interval(run, noisy)}; exactly it is {main_interval(run, exact)}."


def _about(_run: Run) -> str:
    return (
        "Hospitals release noisy histograms of scores, and nothing else of their test patients. These are the very "
        "histograms that they would send; their intervals include the noise."
    )


def _rows(run: Run) -> Iterable[list[str]]:
    exact, noisy = run.model(run.shared), run.rehearsed
    if exact is None or noisy is None:
        return
    for name, estimate in noisy.metrics.items():
        metric = metric_of(run, name)
        if estimate is not None:
            pair = (interval(figure, bounded=metric.is_bounded) for figure in (exact.metrics.get(name), estimate))
            yield [f"all together, {metric.label}", *pair]
    bounded = headline_of(run).is_bounded
    for site in sorted(noisy.per_site):
        pair = (interval(model.per_site.get(site), bounded=bounded) for model in (exact, noisy))
        yield [site, *pair]


def _body(run: Run) -> Iterable[Html | None]:
    title = f"Exact figures and those that a deployment would show; {UNDEFINED_NOISY}"
    rows = list(_rows(run))
    drawn = table(["Hospital", "Exact", "As released"], rows, title, 2)
    return [short_or_folded("Every hospital as a table", drawn, len(rows))]


def _card(run: Run) -> Iterable[str]:
    yield md(_reading(run))


SECTION = Section(
    "rehearsal",
    "Rehearsal",
    "What would a deployment show?",
    _reading,
    _about,
    _body,
    place=46,
    shows=lambda run: run.simulated and run.rehearsed is not None,
    card=_card,
)
