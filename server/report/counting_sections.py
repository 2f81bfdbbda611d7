"""The report's sections for a study of statistics.

They say who the patients are, how they are spread, and how sure that is. Every figure is from counts with noise;
whiskers are 95 % intervals, which the noise is all of.

>>> [section.key for section in SECTIONS]
['patients', 'spread', 'unknown', 'privacy', 'left', 'check']
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from configs.records.described import CountedColumn
from configs.records.result import ReleasedStatistics
from server.charts import counts_chart
from server.charts.markup import Html, el
from server.charts.strip import Strip, strips
from server.report.parts import Section, drawing, each, folded, spread_table, table
from server.report.sections import left
from server.result import counting, sentences
from server.result.counting import (
    ALL,
    HIDDEN,
    Rows,
    count_range,
    is_hidden,
    outcome_name,
    rows_of,
    share_cell,
)
from server.result.finished import Run
from server.result.spread import MANY
from server.result.wording import (
    NONE,
    count,
    epsilon,
    guarantee,
    guarantee_in_plain_words,
    listed,
    plural,
    share,
    short,
    small,
)

DRAWN, COLUMNS = 9, 60  # hospitals, and columns, that have room in drawings; all are in the table


# Who are the patients?


def _patients_about(run: Run) -> str:
    released = run.statistics
    if released is None:
        return ""
    return (
        f"Every count carries noise of standard deviation {released.noise:,.1f} patients. Intervals say where a "
        "hospital's own exact figure lies, 95 times in 100; nobody but the hospital knows it."
    )


def _patients(run: Run) -> Iterable[Html | None]:
    released = run.statistics
    if released is None:
        return [_missing(run)]
    announced = {site.name: site.patients_announced for site in run.sites}
    rows = []
    for name, figures in rows_of(run).items():
        cells = [name, count(_announced(announced, released) if name == ALL else announced.get(name))]
        cells.append(count_range(figures.patients))
        rows.append([*cells, *([share_cell(figures.outcome)] if released.outcome else [])])
    outcome = [outcome_name(run, released)] if released.outcome else []
    headings = ["Hospital", "Announced", "Patients", *outcome]
    title = "Patients, with 95 % intervals"
    sites = len(released.sites)
    whole = table(headings, rows, title, len(headings) - 1, whole=len(rows) > 1)
    outcomes = _outcomes(run, released)
    return [
        *(_many(run, released) if sites > MANY else []),
        each("Share with the outcome", outcomes, sites) if outcomes else None,
        each(title, whole, sites),
        _missing(run),
    ]


def _many(run: Run, statistics: ReleasedStatistics) -> list[Html | None]:
    """Return the spread over more hospitals than a page can show one by one."""
    name = outcome_name(run, statistics) if statistics.outcome else ""
    shares = tuple((site, of.outcome.value) for site, of in sorted(statistics.sites.items()) if of.outcome)
    whole = statistics.together.outcome
    row = Strip("hospitals", "federated", shares, whole.value if whole else None)
    drawn = strips("outcome-strip", f"Share with {name}", [row], (0.0, 1.0)) if name else None
    about = "A small dot is a hospital, the bar the middle half of them; noise spreads small hospitals further apart."
    sizes = [of.patients.value for of in statistics.sites.values()]
    rows: list[tuple[str, Sequence[float | None], Callable[[float], str]]] = [
        ("Patients, about", sizes, lambda value: f"{value:,.0f}"),
        *([(f"Share with {name}", [value for _, value in shares], share)] if name else []),
    ]
    return [
        drawing(f"Share with {name}", about, drawn) if drawn else None,
        spread_table(f"Over {len(statistics.sites):,} hospitals", rows),
    ]


def _announced(announced: Mapping[str, int | None], statistics: ReleasedStatistics) -> int | None:
    """Return the announced patients of the hospitals that released counts; None where one announced none."""
    counts = [size for site in statistics.sites if (size := announced.get(site)) is not None]
    return sum(counts) if len(counts) == len(statistics.sites) else None


def _missing(run: Run) -> Html | None:
    """Return the hospitals of the study that released nothing, and why."""
    reasons = [[site, why or "not recorded"] for site, why in sorted(run.away.items())]
    return table(["Hospital", "Reason"], reasons, "Who released nothing, and why") if reasons else None


def _outcomes(run: Run, statistics: ReleasedStatistics) -> Html | None:
    if not statistics.outcome:
        return None
    name = outcome_name(run, statistics)
    about = f"Of the patients whose {run.target} is known. A dot is the share, its whisker the 95 % interval."
    return drawing(f"Share with {name}", about, counts_chart.outcomes(run, name))


# How are they spread?


def _spread_about(_run: Run) -> str:
    return (
        "A bar is the share of a hospital's patients, its whisker the 95 % interval: of twenty, one misses. Where a "
        "whisker reaches 0, there may be nobody. Values beyond a column's public range are in its first or last bin."
    )


def _spread(run: Run) -> Iterable[Html | None]:
    released = run.statistics
    if released is None:
        return []
    rows = rows_of(run)
    visible = {name: figures for name, figures in rows.items() if not is_hidden(figures)}
    shown = dict(list(visible.items())[: DRAWN + 1])
    return [
        *(_column(n, column, shown) for n, column in enumerate(released.columns[:COLUMNS], 1) if shown),
        el("p", note, class_="note") if (note := _left_out(released, rows, visible, shown)) else None,
        folded("Every count as a table", _table(released, rows)),
    ]


def _column(number: int, column: CountedColumn, rows: Rows) -> Html:
    about = f"in {column.unit}" if column.unit else ""
    return drawing(column.name, about, counts_chart.column(number, column, rows))


def _left_out(statistics: ReleasedStatistics, rows: Rows, seen: Rows, shown: Rows) -> str:
    """Return what is not drawn, and why."""
    hidden, further = [name for name in rows if name not in seen], len(seen) - len(shown)
    parts = [f"{listed(hidden)}, {HIDDEN}"] if hidden else []
    parts += [f"{plural(further, 'hospital')} smaller than those above"] if further else []
    parts += (
        [f"{plural(len(statistics.columns) - COLUMNS, 'further column')}"] if len(statistics.columns) > COLUMNS else []
    )
    return f"Not drawn: {'; '.join(parts)}. The table has every count." if parts else ""


def _table(statistics: ReleasedStatistics, rows: Rows) -> Html:
    lines = [
        [column.name, label, *(count_range(figures.columns[column.name].counts[n]) for figures in rows.values())]
        for column in statistics.columns
        for n, label in enumerate(column.labels)
    ]
    return table(["Column", "Value", *rows], lines, "Patients, with 95 % intervals", len(rows))


# How much is unknown?


def _unknown_about(_run: Run) -> str:
    return (
        "The share of patients of whom a column says nothing, or a code that the study lists for it. Of a patient with "
        "many rows a column is unknown if no row has it."
    )


def _unknown(run: Run) -> Iterable[Html | None]:
    released, rows = run.statistics, rows_of(run)
    if released is None:
        return []
    lines = [
        [column.name, *(share_cell(figures.columns[column.name].shares[-1]) for figures in rows.values())]
        for column in released.columns
    ]
    title = "Share of patients of whom it is unknown, with 95 % intervals"
    whole = table(["Column", *rows], lines, title, len(rows))
    if len(released.sites) <= MANY:
        return [whole]
    shares = [
        (c.name, [s.value if (s := of.columns[c.name].shares[-1]) else None for of in released.sites.values()], share)
        for c in released.columns
    ]
    return [spread_table("Share of patients of whom it is unknown", shares), each(title, whole, len(released.sites))]


# The rest, as of any study


def _privacy_about(_run: Run) -> str:
    return (
        "Each hospital adds noise before anything leaves, and sends its counts once: asked again, it sends the same. "
        "Epsilon measures what a patient may lose by it: 0 is nothing."
    )


def _privacy(run: Run) -> Iterable[Html | None]:
    caveat = "Asked for, and not kept: " if sentences.overspent(run) else None
    plain = el("small", guarantee_in_plain_words(run.privacy))
    headings = ["Hospital", "Noise multiplier", "Noise in each count", "Epsilon spent", "Delta"]
    noise = f"{run.statistics.noise:,.1f}" if run.statistics else NONE
    rows = [[s.name, short(s.noise_multiplier), noise, epsilon(s.epsilon), small(s.delta)] for s in run.took_part]
    return [
        el("blockquote", caveat, guarantee(run.privacy), ".", plain),
        each("The release of each hospital", table(headings, rows, "The release of each hospital", 4), len(rows)),
        el("p", _privacy_note(run), class_="note"),
    ]


def _privacy_note(run: Run) -> str:
    columns = plural(len(run.statistics.columns), "column") if run.statistics else "each column"
    return (
        f"A patient is in one count of each of {columns}, however many rows there are of them. The guarantee covers "
        "every figure here. A patient known to two hospitals spends privacy at both."
    )


def _check_reading(run: Run) -> str:
    if run.simulated:
        return "The study file, these releases and this seed give the same counts again, bit by bit."
    return "The digest names exactly which study ran; each hospital can show what it sent."


def _check(run: Run) -> Iterable[Html | None]:
    facts = [
        ("Study digest", el("span", run.study_sha256 or "not recorded", class_="digest")),
        ("Seed", "not recorded" if run.seed is None else f"{run.seed}"),
        ("Engine", run.engine or "not recorded"),
        ("Privacy noise", run.privacy.noise or "not recorded"),
        ("Releases", ", ".join(f"{name} {release}" for name, release in run.versions.items()) or "not recorded"),
    ]
    pairs = [part for name, value in facts for part in (el("dt", name), el("dd", value))]
    command = el("pre", "archipel simulate study.yaml", tabindex="0") if run.simulated else None
    return [command, el("dl", *pairs, class_="facts")]


def _check_about(_run: Run) -> str:
    return "A digest is a fingerprint: if a single character of the study changes, so does the digest."


SECTIONS: Sequence[Section] = (
    Section("patients", "Patients", "Who are the patients?", counting.patients, _patients_about, _patients),
    Section("spread", "Columns", "How are they spread?", counting.spread, _spread_about, _spread),
    Section("unknown", "Unknown", "How much is unknown?", counting.unknown, _unknown_about, _unknown),
    Section("privacy", "Privacy", "How are patients protected?", sentences.privacy, _privacy_about, _privacy),
    left.SECTION,
    Section("check", "Checks", "How can this be checked?", _check_reading, _check_about, _check),
)
