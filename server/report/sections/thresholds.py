"""The section `thresholds`: what follows for patients where those of at least some probability are called ill."""

from collections.abc import Iterable

from configs.records.outcome import AtThreshold
from server.charts import decision
from server.charts.figure import Figure, ends_of
from server.charts.markup import Html, el
from server.report.parts import Section, drawing, legend_of, table
from server.result.finished import Run
from server.result.markdown import grid, md
from server.result.wording import UNDEFINED_NOISY, enumerated, interval, share

MEASURES = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "Positive predictive value",
    "npv": "Negative predictive value",
    "flagged": "Called ill, of all",
    "net_benefit": "Net benefit",
}


def entries(run: Run) -> tuple[AtThreshold, ...]:
    """Return the shared model's figures at each stated threshold."""
    model = run.model(run.shared)
    return model.outcome.thresholds if model and model.outcome else ()


def _reading(run: Run) -> str:
    parts = []
    if entries(run) and not any(entry.sensitivity and entry.specificity for entry in entries(run)):
        return f"What follows at {enumerated([share(entry.threshold) for entry in entries(run)])} is undefined."
    for entry in entries(run):
        sensitivity, specificity = entry.sensitivity, entry.specificity
        if sensitivity is None or specificity is None:
            parts.append(f"at {share(entry.threshold)} that is undefined")
        else:
            ill, others = share(sensitivity.value), share(specificity.value)
            parts.append(f"from {share(entry.threshold)} on finds {ill} of them and spares {others} of the others")
    return f"To call patients ill {'; '.join(parts)}." if parts else "The run recorded no figures at a threshold."


def _about(run: Run) -> str:
    edges = ""
    if run.noisy:
        edges = (
            f" Hospitals released counts in {run.noisy.bins or 'a few'} bins of probability: only a threshold between "
            "two bins has figures, and only where the noise leaves patients enough."
        )
    return (
        "A threshold is the probability from which on a patient is called ill. Net benefit is the share of true alarms "
        "less that of false ones, weighed by the threshold's odds (Vickers and Elkin 2006): of two ways to decide, the "
        f"one with more is better. It needs probabilities that are right.{edges}"
    )


def _body(run: Run) -> Iterable[Html | None]:
    rows = [[share(entry.threshold), *(interval(getattr(entry, name)) for name in MEASURES)] for entry in entries(run)]
    yield _turned(rows)
    if run.noisy:
        yield el("p", f"Undefined: {UNDEFINED_NOISY}; AUPRC is not defined from noisy bins.", class_="note")
    drawn = decision.curve(run)
    if drawn is not None:
        about = "The model is of use where its line is above both others."
        named = {run.shared: "by the model", "everybody": "everybody", "nobody": "nobody"}
        yield drawing("Net benefit of treating, by threshold", about, legend_of(named), drawn)


def _turned(rows: list[list[str]]) -> Html:
    """Return the table with a column for each threshold: a phone shows the first ones."""
    lines = [[label, *(row[n] for row in rows)] for n, label in enumerate(MEASURES.values(), 1)]
    headings = ["Called ill from", *(row[0] for row in rows)]
    return table(headings, lines, "At each stated threshold, all test patients, with 95 % intervals", len(rows))


def _card(run: Run) -> Iterable[str]:
    yield "Of all test patients, where those of at least this probability are called ill, with 95 % intervals:"
    headings = ["Measure", *(share(entry.threshold) for entry in entries(run))]
    yield grid(
        headings,
        [[md(label), *(interval(getattr(entry, name)) for entry in entries(run))] for name, label in MEASURES.items()],
    )
    if useful := decision.useful(run):
        ends = " to ".join(map(share, useful))
        yield f"Treating by the model has more net benefit than treating all or none at thresholds from {ends}."


def _figures(run: Run) -> Iterable[Figure]:
    headings = ("threshold", *(f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")))
    rows = tuple(
        (entry.threshold, *(cell for name in MEASURES for cell in ends_of(getattr(entry, name))))
        for entry in entries(run)
    )
    yield Figure("thresholds", "Figures at each stated threshold", headings, rows)
    yield from decision.figures(run)


SECTION = Section(
    "thresholds",
    "Thresholds",
    "What follows for patients?",
    _reading,
    _about,
    _body,
    place=44,
    shows=lambda run: bool(entries(run)),
    card=_card,
    figures=_figures,
)
