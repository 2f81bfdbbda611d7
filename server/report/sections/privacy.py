"""The section `privacy`: the guarantee, what was spent of it, and the plan at each hospital."""

from collections.abc import Callable, Iterable

from server.charts import rounds_chart
from server.charts.markup import Html, el, join
from server.report.parts import Section, drawing, each, spread_table, table
from server.result import sentences
from server.result.finished import Run
from server.result.spread import MANY
from server.result.wording import (
    PLAN,
    count,
    covered,
    epsilon,
    guarantee,
    guarantee_in_plain_words,
    plan_of,
    short,
    small,
)


def _privacy_about(run: Run) -> str:
    if not run.private:
        return ""
    limits, unit = run.privacy.limits, run.privacy.unit
    noise = f"{limits}." if limits else "Each hospital adds noise before anything leaves."
    return f"{noise} Epsilon measures what a {unit} may lose by it: 0 is nothing, and every round spends some."


def _privacy(run: Run) -> Iterable[Html | None]:
    if not run.private:
        return [_plan(run)]
    caveat = "Asked for, and not kept: " if sentences.overspent(run) else None
    plain = el("small", guarantee_in_plain_words(run.privacy))
    drawn = rounds_chart.spending(run)
    about = "A line for each hospital; the dashed line is what the study allows."
    return [
        el("blockquote", caveat, guarantee(run.privacy), ".", plain),
        drawing("Epsilon spent by round", about, drawn) if drawn else None,
        _plan(run),
        el("p", _privacy_note(run), class_="note"),
    ]


def _plan(run: Run) -> Html:
    """Return what each hospital does in training; without privacy, only what remains of it."""
    if not run.private:
        rows = [[s.name, count(s.patients_train), count(s.steps)] for s in run.took_part]
        whole = table(["Hospital", "Training patients", "Steps"], rows, "The plan at each hospital", 2)
    else:
        rows = [[site.name, *plan_of(site)] for site in run.took_part]
        whole = table(list(PLAN), rows, "The plan at each hospital", 6)
    if len(run.took_part) <= MANY:
        return whole
    return join([_plans(run), each("The plan at each hospital", whole, len(run.took_part))])


def _plans(run: Run) -> Html:
    """Return the spread of the plans of many hospitals."""
    forms: list[tuple[str, str, Callable[[float], str]]] = [
        ("Training patients", "patients_train", lambda value: f"{value:,.0f}"),
        ("Noise multiplier", "noise_multiplier", short),
        ("Sampling rate", "sampling_rate", short),
        ("Steps", "steps", lambda value: f"{value:,.0f}"),
        ("Epsilon spent", "epsilon", epsilon),
    ]
    rows = [(name, [getattr(site, key) for site in run.took_part], form) for name, key, form in forms]
    return spread_table(f"The plans of {len(run.took_part):,} hospitals", rows)


def _privacy_note(run: Run) -> str:
    norm, clipped = run.privacy.clip_norm, "update" if run.privacy.limits else "gradient"
    clip = f"Each {run.privacy.unit}'s {clipped} is clipped to norm {small(norm)}. " if norm else ""
    return f"{clip}{covered(run)} A patient known to two hospitals spends privacy at both."


SECTION = Section(
    "privacy", "Privacy", "How are patients protected?", sentences.privacy, _privacy_about, _privacy, place=80
)
