"""The report's sections, in order. Each says one thing in a sentence, then shows it.

>>> [section.key for section in SECTIONS]
['quality', 'learning', 'calibration', 'privacy', 'left', 'rounds', 'check']
"""

import itertools
import statistics
from collections.abc import Iterable, Sequence

from configs.records.models import ComparedModel
from server.charts import quality, rounds_chart
from server.charts.markup import Html, el, join
from server.charts.quality import forest_rows
from server.charts.svg import rect
from server.report.parts import Section, drawing, folded, legend, table
from server.result import sentences
from server.result.finished import Run
from server.result.wording import (
    NONE,
    PLAN,
    capital,
    count,
    covered,
    guarantee,
    guarantee_in_plain_words,
    has_calibration,
    headline_of,
    hospitals,
    interval,
    metric_of,
    model_name,
    plan_of,
    plural,
    series,
    share,
    size,
    small,
    undefined,
)

MOST_REASONS = 20
DOWN = "\N{DOWNWARDS ARROW}"


def _state_legend(states: Iterable[str]) -> Html:
    shown = [(state, name) for state, name in rounds_chart.STATES.items() if state in states]
    return el("ul", *(el("li", _state_sample(state), name) for state, name in shown), class_="legend")


def _state_sample(state: str) -> Html:
    sign = rounds_chart.cross(13, 8, 3.5) if state == "none" else None
    return el("svg", rect(4, 1, 18, 14, f"cell {state}"), sign, viewBox="0 0 26 16", aria_hidden="true")


# How good is it at each hospital?


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


# How fast did it learn?


def _learning_about(run: Run) -> str:
    points = run.convergence.get(run.shared, ())
    if not points:
        return ""
    apart = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(points)]
    every = statistics.mode(apart) if apart else 1
    when = "after every round" if every == 1 else f"every {every:,} rounds, and after the last"
    return f"The shared model is judged {when}, on the test patients of all hospitals."


def _learning(run: Run) -> Iterable[Html | None]:
    drawn = quality.convergence(run)
    if drawn is None:
        return []
    level = ComparedModel.LOCAL_ONLY if run.model(ComparedModel.LOCAL_ONLY) and len(run.sites) > 1 else ""
    keys = [key for key in series(run) if run.convergence.get(key) or key == level]
    about = "The shaded band is the final model's 95 % interval: movement well within it may be chance."
    return [drawing(f"{capital(headline_of(run).label)} by round", about, legend(run, keys), drawn)]


# Can its probabilities be trusted?


def _calibration_about(run: Run) -> str:
    if not has_calibration(run):
        return "Calibration is drawn for yes-or-no outcomes; the figures of this study are in the table."
    return "If the model says 70 %, about 70 of 100 such patients should have the outcome: on the dotted line, they do."


def _calibration_reading(run: Run) -> str:
    if not has_calibration(run):
        return "This study predicts no single probability, so there is no calibration to draw."
    return sentences.calibration(run)


def _calibration(run: Run) -> Iterable[Html | None]:
    drawn, measures = quality.calibration(run), _measures(run)
    if drawn is None:
        return [measures]
    pooled = run.model(ComparedModel.POOLED)
    keys = [run.shared, *([ComparedModel.POOLED] if pooled and pooled.calibration else [])]
    number = "their number as far as the noise shows it" if run.noisy else "their number"
    about = (
        f"A dot is a group of patients, its area {number}, its line the 95 % interval. "
        "Below the dotted line, the risk is overstated."
    )
    shown = drawing("Predicted and observed", about, legend(run, keys), drawn)
    return [el("div", shown, _bins(run), class_="pair"), measures]


def _bins(run: Run) -> Html:
    model = run.model(run.shared)
    bins = [entry for entry in model.calibration if entry.count] if model else []
    rows = [[share(entry.predicted), share(entry.observed), f"{entry.count:,}"] for entry in bins]
    return table(["Predicted", "Observed", "Patients"], rows, "Group by group", 2)


def _measures(run: Run) -> Html | None:
    """Return a table of every metric that was asked for, of every model."""
    models = [(key, model) for key in series(run) if (model := run.model(key)) is not None]
    names = list(dict.fromkeys(name for _, model in models for name in model.metrics))
    if not names:
        return None
    rows = [
        [
            metric_of(run, name).label + (f" {DOWN}" if metric_of(run, name).lower_is_better else ""),
            *(interval(model.metrics.get(name), bounded=metric_of(run, name).is_bounded) for _, model in models),
        ]
        for name in names
    ]
    headings = ["Measure", *(model_name(run, key) for key, _ in models)]
    return table(headings, rows, f"Every measure, on all test patients ({DOWN} lower is better)", len(models))


# How are patients protected?


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
        return table(["Hospital", "Training patients", "Steps"], rows, "The plan at each hospital", 2)
    rows = [[site.name, *plan_of(site)] for site in run.took_part]
    return table(list(PLAN), rows, "The plan at each hospital", 6)


def _privacy_note(run: Run) -> str:
    norm, clipped = run.privacy.clip_norm, "update" if run.privacy.limits else "gradient"
    clip = f"Each {run.privacy.unit}'s {clipped} is clipped to norm {small(norm)}. " if norm else ""
    return f"{clip}{covered(run)} A patient known to two hospitals spends privacy at both."


# What left each hospital?


def _left_about(run: Run) -> str:
    kind = (
        "These are the messages that a deployed study would send: here, one machine played every hospital."
        if run.simulated
        else ""
    )
    return f"A message may hold the fields that are listed, and nothing else. {kind}".strip()


def _left(run: Run) -> Iterable[Html | None]:
    drawn = rounds_chart.bytes_sent(run)
    return [
        drawing("Bytes sent by each hospital", "In the whole study, with the number of messages.", drawn)
        if drawn
        else None,
        _left_table(run) if run.left else None,
        el("p", el("b", "What did not leave: "), _stayed(), class_="note") if run.left else None,
    ]


def _left_table(run: Run) -> Html:
    rows = [
        [
            kind.what,
            join([el("code", name) for name in kind.fields]) if kind.fields else NONE,
            count(kind.messages),
            NONE if kind.bytes is None else size(kind.bytes),
        ]
        for kind in run.left
    ]
    return table(["Message", "Exactly these fields", "Messages", "Size"], rows, "What left, field by field", 2)


def _stayed() -> str:
    return (
        "whatever the table does not list. Patients' records, identifiers, dates and measured values stay at the "
        "hospital, and only these fields may pass its one way out."
    )


# Who took part in each round?


def _rounds_about(_run: Run) -> str:
    return "A round counts only if enough hospitals contribute; below that the study stops and says so."


def _rounds(run: Run) -> Iterable[Html | None]:
    drawn = rounds_chart.attendance(run)
    if drawn is None:
        return []
    contributed = {r.round: r.contributed.keys() for r in run.rounds}
    letters = {"A": "all", "S": "some", "N": "none", "F": "future"}
    states = {letters[c] for s in run.sites for c in rounds_chart.states(s.name, contributed, run.rounds_planned, 1)}
    states |= {"some"} if run.rounds_planned > 60 and "none" in states else set()
    about = f"{run.rounds_completed:,} of {plural(run.rounds_planned, 'round')} completed."
    return [drawing("Contributions by round", about, _state_legend(states), drawn), _reasons(run)]


def _reasons(run: Run) -> Html | None:
    """Return a list of why hospitals were missing, as the coordinator wrote it down."""
    missed: dict[tuple[str, str], list[int]] = {}
    for r in run.rounds:
        for site in sorted({s.name for s in run.sites} - r.contributed.keys()):
            why = r.missing.get(site) or run.absent.get(site) or "not recorded"
            missed.setdefault((site, why), []).append(r.round)
    rows = [[site, spans(numbers), why] for (site, why), numbers in missed.items()]
    if not rows:
        return None
    more = f"; the first {MOST_REASONS} of {len(rows):,}" if len(rows) > MOST_REASONS else ""
    return table(["Hospital", "Rounds", "Reason"], rows[:MOST_REASONS], f"Who was missing, and why{more}")


def spans(numbers: Sequence[int], most: int = 6) -> str:
    """Return rounds in a table: stretches of them, and how many more there are.

    >>> spans([1, 2, 3, 7, 9, 10]), spans([1, 3, 5, 7], most=2)
    ('1 to 3, 7, 9 to 10', '1, 3 and 2 more')
    """
    stretches: list[list[int]] = []
    for number in numbers:
        if stretches and number == stretches[-1][-1] + 1:
            stretches[-1].append(number)
        else:
            stretches.append([number])
    shown = [f"{s[0]:,}" if len(s) == 1 else f"{s[0]:,} to {s[-1]:,}" for s in stretches[:most]]
    more = sum(len(stretch) for stretch in stretches[most:])
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


# How can this be checked?


def _check_reading(run: Run) -> str:
    if run.simulated:
        return "The study file, these releases and this seed give the same model again, bit by bit."
    return "The digests name exactly which study ran and which model came of it."


def _check_about(_run: Run) -> str:
    return "A digest is a fingerprint: if a single character of the study or of the model changes, so does the digest."


def _check(run: Run) -> Iterable[Html | None]:
    commands = "archipel simulate study.yaml\nsha256sum model.safetensors"
    facts = [
        ("Study digest", el("span", run.study_sha256 or "not recorded", class_="digest")),
        ("Model digest", el("span", run.model_sha256 or "not recorded", class_="digest")),
        ("Model", _model_facts(run)),
        ("Seed", "not recorded" if run.seed is None else f"{run.seed}"),
        ("Engine", run.engine or "not recorded"),
        ("Privacy noise", run.privacy.noise if run.private else "none"),
        ("Releases", ", ".join(f"{name} {release}" for name, release in run.versions.items()) or "not recorded"),
    ]
    pairs = [part for name, value in facts for part in (el("dt", name), el("dd", value or "not recorded"))]
    return [el("pre", commands, tabindex="0") if run.simulated else None, el("dl", *pairs, class_="facts")]


def _model_facts(run: Run) -> str:
    parts = [run.model_name, plural(run.parameters, "parameter") if run.parameters is not None else ""]
    parts += [f"combined by {run.strategy}" if run.strategy else "", f"from {sentences.contributors(run)}"]
    return ", ".join(part for part in parts if part)


SECTIONS = (
    Section("quality", "Quality", "How good is it at each hospital?", sentences.quality, _quality_about, _quality),
    Section("learning", "Learning", "How fast did it learn?", sentences.convergence, _learning_about, _learning),
    Section(
        "calibration",
        "Calibration",
        "Can its probabilities be trusted?",
        _calibration_reading,
        _calibration_about,
        _calibration,
    ),
    Section("privacy", "Privacy", "How are patients protected?", sentences.privacy, _privacy_about, _privacy),
    Section("left", "What left", "What left each hospital?", sentences.left, _left_about, _left),
    Section("rounds", "Rounds", "Who took part in each round?", sentences.rounds, _rounds_about, _rounds),
    Section("check", "Checks", "How can this be checked?", _check_reading, _check_about, _check),
)
