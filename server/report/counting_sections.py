"""The report of a study of statistics: who the patients are, how they are spread, and how sure that is.

Every figure is from counts with noise; whiskers are 95 % intervals, which the noise is all of.

>>> [section.key for section in SECTIONS]
['patients', 'spread', 'unknown', 'privacy', 'left', 'check']
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from configs.records.result import CountedColumn, Estimate, PatientCounts, ReleasedStatistics
from server.charts import svg
from server.charts.markup import Html, el, join
from server.report import sections
from server.report.sections import Section, drawing, folded, table
from server.result import sentences
from server.result.finished import Run
from server.result.wording import (
    NONE,
    capital,
    count,
    cut,
    epsilon,
    guarantee,
    guarantee_in_plain_words,
    hospitals,
    listed,
    number_word,
    plural,
    share,
    short,
    small,
)
from strategies.releases.column_figures import hidden_below

Rows = dict[str, PatientCounts]  # hospital, or all together
ALL = "all together"
HIDDEN = "hidden by the noise"
DRAWN, COLUMNS = 9, 60  # hospitals, and columns, that have room in drawings; all are in the table
ROW, HEAD = 19.0, 26.0  # heights: of a value, of what stands above a line of panels
ANCHORS = {0.0: None, 1.0: "end"}  # of ticks at a panel's edges, so that those of its neighbours keep clear
WIDE_PANELS, NARROW_PANELS = 5, 2  # side by side


# In words


def verdict(run: Run) -> str:
    """The whole report in one sentence."""
    found = run.statistics
    if found is None:
        return "The study ended without enough hospitals; there are no statistics to show."
    who = capital(hospitals(len(found.sites)))
    counted = f"{who} count about {_count(found.together.patients)} patients"
    return f"{counted}{_of_them(run, found, found.together.outcome)}."


def _of_them(run: Run, found: ReleasedStatistics, outcome: Estimate | None) -> str:
    if not found.outcome:
        return ""
    name = _outcome_name(run, found)
    return f"; how many have {name}, the noise hides" if outcome is None else f"; {_share(outcome)} have {name}"


def _outcome_name(run: Run, found: ReleasedStatistics) -> str:
    return f"{run.target} = {found.outcome}"


def key_figures(run: Run) -> list[tuple[str, str, str]]:
    """The headline: how many patients, and how many of them have the outcome."""
    found = run.statistics
    if found is None:
        return [("Hospitals", f"{len(run.sites):,}", ""), ("Statistics", NONE, "none were released")]
    patients = found.together.patients
    first = ("Patients, about", f"{patients.value:,.0f}", f"{_range(patients)}, 95 % interval")
    if not found.outcome:
        return [first, ("Columns", f"{len(found.columns):,}", f"at {hospitals(len(found.sites))}")]
    outcome, name = found.together.outcome, _outcome_name(run, found)
    if outcome is None:
        return [first, (name, NONE, HIDDEN)]
    spread = f"{_shares(outcome)}, 95 % interval"
    return [first, (name, share(outcome.value), spread)]


def _count(found: Estimate) -> str:
    return f"{found.value:,.0f} ({_range(found)})"


def _range(found: Estimate) -> str:
    return f"{found.low:,.0f} to {found.high:,.0f}"


def _share(found: Estimate | None) -> str:
    return HIDDEN if found is None else f"{share(found.value)} ({_shares(found)})"


def _shares(found: Estimate) -> str:
    return f"{100 * found.low:.0f} to {share(found.high)}"


def _cell(found: Estimate | None) -> str:
    """A share in a table, where there is little room."""
    return "hidden" if found is None else _share(found)


def _rows(run: Run) -> Rows:
    """All together, then the hospitals from the most patients to the fewest."""
    found = run.statistics
    if found is None:
        return {}
    sites = sorted(found.sites.items(), key=lambda item: (-item[1].patients.value, item[0]))
    return {ALL: found.together, **dict(sites)} if len(sites) > 1 else dict(sites)


# Who are the patients?


def _patients_reading(run: Run) -> str:
    found = run.statistics
    if found is None:
        return "No statistics were released to the study."
    announced = {site.name: site.patients_announced for site in run.sites}
    limit = hidden_below(found.noise)  # as the plan has it, so that both say the same of a hospital
    hidden = [name for name, seen in found.sites.items() if (announced.get(name) or seen.patients.value) <= limit]
    if not hidden:
        return (
            f"At {'the hospital' if len(found.sites) == 1 else 'every hospital'}, patients are seen through the noise."
        )
    return f"Too small to be seen through so much noise: {listed(hidden, of=len(found.sites))}."


def _is_hidden(figures: PatientCounts) -> bool:
    """Whether there is no share to draw."""
    return all(share is None for counts in figures.columns.values() for share in counts.shares)


def _patients_about(run: Run) -> str:
    found = run.statistics
    if found is None:
        return ""
    return (
        f"Every count carries noise of standard deviation {found.noise:,.1f} patients. Intervals say where a "
        "hospital's own exact figure lies, 95 times in 100; nobody but the hospital knows it."
    )


def _patients(run: Run) -> Iterable[Html | None]:
    found = run.statistics
    if found is None:
        return [_missing(run)]
    announced = {site.name: site.patients_announced for site in run.sites}
    rows = []
    for name, figures in _rows(run).items():
        cells = [name, count(_announced(announced, found) if name == ALL else announced.get(name))]
        cells.append(_count(figures.patients))
        rows.append([*cells, *([_cell(figures.outcome)] if found.outcome else [])])
    outcome = [_outcome_name(run, found)] if found.outcome else []
    headings = ["Hospital", "Announced", "Patients", *outcome]
    title = "Patients, with 95 % intervals"
    return [
        _outcome_drawing(run, found),
        table(headings, rows, title, len(headings) - 1, whole=len(rows) > 1),
        _missing(run),
    ]


def _announced(announced: Mapping[str, int | None], found: ReleasedStatistics) -> int | None:
    """Announced patients of the hospitals that released their counts; None where one of them announced none."""
    known = [size for site in found.sites if (size := announced.get(site)) is not None]
    return sum(known) if len(known) == len(found.sites) else None


def _missing(run: Run) -> Html | None:
    """Hospitals of the study that released nothing, and why."""
    reasons = [[site, why or "not recorded"] for site, why in sorted(run.away.items())]
    return table(["Hospital", "Reason"], reasons, "Who released nothing, and why") if reasons else None


def _outcome_drawing(run: Run, found: ReleasedStatistics) -> Html | None:
    if not found.outcome:
        return None
    name = _outcome_name(run, found)
    about = f"Of the patients whose {run.target} is known. A dot is the share, its whisker the 95 % interval."
    return drawing(f"Share with {name}", about, svg.both(partial(_outcomes, run, name)))


def _outcomes(run: Run, name: str, width: int) -> Html:
    wide, rows = width == svg.WIDE, _rows(run)
    step, left = (28.0, 190.0) if wide else (40.0, 10.0)
    x = svg.Scale((0.0, 1.0), (left, width - (180.0 if wide else 16.0)))
    bottom = 8 + step * len(rows)
    parts = [_outcome(x, 8 + step * n, step, width, site, figures) for n, (site, figures) in enumerate(rows.items())]
    return svg.canvas(
        "outcomes",
        width,
        bottom + 46,
        f"Share with {name}, by hospital",
        "; ".join(f"{site}: {_share(figures.outcome)}" for site, figures in rows.items()),
        svg.rect(0, 8, width, step, "band", rx=4) if ALL in rows else None,
        svg.axis_x(x, 8, bottom, f"Share with {name}", [0.0, 0.25, 0.5, 0.75, 1.0], share),
        *parts,
    )


def _outcome(x: svg.Scale, top: float, step: float, width: int, site: str, figures: PatientCounts) -> Html:
    wide, found = width == svg.WIDE, figures.outcome
    y = top + (step / 2 if wide else 29.0)
    name = el("text", el("title", site), cut(site, 24), x=8, y=top + (step / 2 + 5 if wide else 15), class_="t strong")
    note = svg.text(width - 8, top + (step / 2 + 5 if wide else 15), _share(found), "t", "end")
    if found is None:
        return join([name, note])
    whisker = svg.line(x(found.low), y, x(found.high), y, "whisker federated")
    return join([name, note, whisker, svg.mark("federated", x(found.value), y, f"{site}: {_share(found)}")])


# How are they spread?


def _spread_reading(run: Run) -> str:
    found = run.statistics
    if found is None:
        return "There is nothing to show."
    apart = found.differing
    if len(found.sites) < 2:
        return f"{capital(number_word(len(found.columns)))} columns, each with the patients of whom it is unknown."
    if not apart:
        return "No two hospitals surely differ in any column: what differs may be noise."
    names = f"{len(apart):,} of {len(found.columns):,} columns" if len(apart) > 3 else listed(apart)
    return f"Hospitals surely differ in {names}; elsewhere what differs may be noise."


def _spread_about(run: Run) -> str:
    return (
        "A bar is the share of a hospital's patients, its whisker the 95 % interval: of twenty, one misses. Where a "
        "whisker reaches 0, there may be nobody. Values beyond a column's public range are in its first or last bin."
    )


def _spread(run: Run) -> Iterable[Html | None]:
    found = run.statistics
    if found is None:
        return []
    rows = _rows(run)
    seen = {name: figures for name, figures in rows.items() if not _is_hidden(figures)}
    shown = dict(list(seen.items())[: DRAWN + 1])
    return [
        *(_column(n, column, shown) for n, column in enumerate(found.columns[:COLUMNS], 1) if shown),
        el("p", note, class_="note") if (note := _left_out(found, rows, seen, shown)) else None,
        folded("Every count as a table", _table(found, rows)),
    ]


def _left_out(found: ReleasedStatistics, rows: Rows, seen: Rows, shown: Rows) -> str:
    """What is not drawn, and why."""
    hidden, further = [name for name in rows if name not in seen], len(seen) - len(shown)
    parts = [f"{listed(hidden)}, {HIDDEN}"] if hidden else []
    parts += [f"{plural(further, 'hospital')} smaller than those above"] if further else []
    parts += [f"{plural(len(found.columns) - COLUMNS, 'further column')}"] if len(found.columns) > COLUMNS else []
    return f"Not drawn: {'; '.join(parts)}. The table has every count." if parts else ""


def _column(number: int, column: CountedColumn, rows: Rows) -> Html:
    about = f"in {column.unit}" if column.unit else ""
    return drawing(column.name, about, svg.both(partial(_panels, f"column-{number}", column, rows)))


def _panels(key: str, column: CountedColumn, rows: Rows, width: int) -> Html:
    """Panels side by side, a line of them after the other; the values stand at the left of each line."""
    wide = width == svg.WIDE
    across, left = (WIDE_PANELS, 150.0) if wide else (NARROW_PANELS, 124.0)
    each = (width - left) / across
    most = _top(column, rows)
    tall = HEAD + ROW * len(column.labels) + 24
    names, lines, parts = list(rows), -(-len(rows) // across), []
    for line in range(lines):
        parts.append(_labels(column, line * tall + HEAD, left, 20 if wide else 16))
        for place, name in enumerate(names[line * across : (line + 1) * across]):
            x = svg.Scale((0.0, most), (left + place * each + 2, left + (place + 1) * each - 16))
            parts.append(_panel(column, name, rows[name], x, line * tall))
    described = "; ".join(f"{name}: {_described(column, figures)}" for name, figures in rows.items())
    return svg.canvas(key, width, lines * tall, f"{column.name} by hospital", described, *parts)


def _top(column: CountedColumn, rows: Rows) -> float:
    """Where the axis ends: beyond every bar, and beyond most whiskers."""
    known = [s for figures in rows.values() for s in figures.columns[column.name].shares if s is not None]
    return min(1.0, max([s.value for s in known] + [0.5]) * 1.25)


def _described(column: CountedColumn, figures: PatientCounts) -> str:
    shares = figures.columns[column.name].shares
    return ", ".join(f"{label} {_share(s)}" for label, s in zip(column.labels, shares, strict=True))


def _labels(column: CountedColumn, top: float, left: float, room: int) -> Html:
    return join(
        [
            el(
                "text",
                el("title", label),
                cut(label, room),
                x=left - 10,
                y=top + ROW * n + 14,
                class_="t",
                text_anchor="end",
            )
            for n, label in enumerate(column.labels)
        ]
    )


def _panel(column: CountedColumn, name: str, figures: PatientCounts, x: svg.Scale, top: float) -> Html:
    first, counts = top + HEAD, figures.columns[column.name]
    bottom = first + ROW * len(column.labels)
    room = int((x.pixels[1] - x.pixels[0]) / 7.2)
    title = el("text", el("title", name), cut(name, room), x=x.pixels[0], y=top + 15, class_="t strong")
    end = 0.5 if x.domain[1] < 1.0 else 1.0  # two labels have room, three have not
    parts: list[Html] = [
        title,
        *(svg.line(x(v), first, x(v), bottom, "grid") for v in (0.0, 0.5, end)),
        *(svg.text(x(v), bottom + 15, share(v), "t", ANCHORS.get(v, "middle")) for v in (0.0, end)),
    ]
    for n, found in enumerate(counts.shares):
        if found is not None:
            hint = f"{name}, {column.labels[n]}: {_share(found)}"
            parts.append(_bar(found, x, first + ROW * n, hint, last=n == len(column.labels) - 1))
    return join(parts)


def _bar(found: Estimate, x: svg.Scale, top: float, hint: str, *, last: bool) -> Html:
    """One share: the unknown has a colour of its own."""
    middle = top + ROW / 2
    bar = svg.rect(x(0), top + 3, x(found.value) - x(0), ROW - 6, "bar unknown" if last else "bar share", hint, rx=1.5)
    return join([bar, svg.line(x(found.low), middle, x(found.high), middle, "whisker count")])


def _table(found: ReleasedStatistics, rows: Rows) -> Html:
    lines = [
        [column.name, label, *(_count(figures.columns[column.name].counts[n]) for figures in rows.values())]
        for column in found.columns
        for n, label in enumerate(column.labels)
    ]
    return table(["Column", "Value", *rows], lines, "Patients, with 95 % intervals", len(rows))


# How much is unknown?


def _unknown_reading(run: Run) -> str:
    found = run.statistics
    known = {} if found is None else {c.name: found.together.columns[c.name].shares[-1] for c in found.columns}
    seen = {name: share for name, share in known.items() if share is not None}
    if not seen:
        return "The noise hides how much is unknown."
    name = max(seen, key=lambda name: seen[name].value)
    return f"Most is unknown of {name}: {_share(seen[name])} of all patients."


def _unknown_about(run: Run) -> str:
    return (
        "The share of patients of whom a column says nothing, or a code that the study lists for it. Of a patient with "
        "many rows a column is unknown if no row has it."
    )


def _unknown(run: Run) -> Iterable[Html | None]:
    found, rows = run.statistics, _rows(run)
    if found is None:
        return []
    lines = [
        [column.name, *(_cell(figures.columns[column.name].shares[-1]) for figures in rows.values())]
        for column in found.columns
    ]
    return [table(["Column", *rows], lines, "Share of patients of whom it is unknown, with 95 % intervals", len(rows))]


# The rest, as of any study


def _privacy_about(run: Run) -> str:
    return (
        "Each hospital adds noise before anything leaves, and sends its counts once: asked again, it sends the same. "
        "Epsilon measures what a patient may lose by it: 0 is nothing."
    )


def _privacy(run: Run) -> Iterable[Html | None]:
    asked = "Asked for, and not kept: " if sentences.overspent(run) else None
    plain = el("small", guarantee_in_plain_words(run.privacy))
    headings = ["Hospital", "Noise multiplier", "Noise in each count", "Epsilon spent", "Delta"]
    noise = f"{run.statistics.noise:,.1f}" if run.statistics else NONE
    rows = [[s.name, short(s.noise_multiplier), noise, epsilon(s.epsilon), small(s.delta)] for s in run.took_part]
    return [
        el("blockquote", asked, guarantee(run.privacy), ".", plain),
        table(headings, rows, "The release of each hospital", 4),
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


def _check_about(run: Run) -> str:
    return "A digest is a fingerprint: if a single character of the study changes, so does the digest."


_LEFT = next(section for section in sections.SECTIONS if section.key == "left")
SECTIONS: Sequence[Section] = (
    Section("patients", "Patients", "Who are the patients?", _patients_reading, _patients_about, _patients),
    Section("spread", "Columns", "How are they spread?", _spread_reading, _spread_about, _spread),
    Section("unknown", "Unknown", "How much is unknown?", _unknown_reading, _unknown_about, _unknown),
    Section("privacy", "Privacy", "How are patients protected?", sentences.privacy, _privacy_about, _privacy),
    _LEFT,
    Section("check", "Checks", "How can this be checked?", _check_reading, _check_about, _check),
)
