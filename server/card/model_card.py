"""model_card.md: what the model is for, what it saw, what protects its patients, how good it is.

The form is that of Mitchell et al. 2019, "Model cards for model reporting".

Every text of the run passes `md`, so that none of it can become a heading, a link, a table or HTML.
"""

import re
from collections.abc import Iterable, Sequence

from configs.records.estimate import Estimate
from configs.records.result import FeatureInWords
from server.charts.quality import forest_rows
from server.report.released.registry import has_groups
from server.report.sections.registry import sections_of
from server.result import sentences
from server.result.finished import Run, Site
from server.result.markdown import bullets, each_hospital, grid, md
from server.result.wording import (
    NONE,
    PLAN,
    capital,
    count,
    covered,
    guarantee,
    guarantee_in_plain_words,
    headline_of,
    interval,
    main_interval,
    metric_of,
    model_name,
    objective_of_run,
    plan_of,
    plural,
    series,
    shared_first,
    undefined,
)


def render(run: Run) -> str:
    """Return the whole card."""
    sections: dict[str, Iterable[str]] = {
        "What it predicts": _predicts(run),
        "Intended use": _use(run),
        "Data": _data(run),
        "Training": _training(run),
        "Privacy": _privacy(run),
        "Performance": _performance(run),
    }
    parts = [f"# Model card: {md(run.study)}", *_summary(run)]
    for section in sections_of(run):
        if paragraphs := list(section.card(run)):
            sections[md(section.short)] = paragraphs
    sections |= {"Limits": _limits(run), "Digests": _digests(run)}
    for title, texts in sections.items():
        parts += [f"## {title}", *texts]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(run: Run) -> Iterable[str]:
    yield md(capital(run.purpose)) + ("" if run.purpose.endswith(".") else ".") if run.purpose else ""
    yield f"**{md(sentences.verdict(run))}**"
    if not run.complete:
        yield f"Outcome: {md(run.outcome)}. {md(capital(run.why))}".strip()
    if run.rounds_completed:
        yield md(" ".join(sentences.away(run)))
    for section in sections_of(run):
        yield from (f"**{md(line)}**" for line in section.alerts(run))


def _predicts(run: Run) -> Iterable[str]:
    kind = objective_of_run(run)
    target = f"`{md(run.target)}`" if re.fullmatch(r"[\w.-]+", run.target) else md(run.target)
    unit = f" ({md(run.target_unit)})" if run.target_unit else ""
    what = f"For one patient, {kind.prediction if kind else 'a prediction of'} {target or 'the target'}{unit}"
    yield f"{what}, from the {plural(len(run.features), 'column')} below." if run.features else f"{what}."


def _use(_run: Run) -> Iterable[str]:
    yield bullets(
        [
            "For research on the stated purpose, and to decide whether a clinical study of this model is worthwhile.",
            "Not a medical device. Not for decisions about a single patient.",
            "Not for hospitals, patients or measuring methods unlike those below before it was checked there.",
        ]
    )


def _data(run: Run) -> Iterable[str]:
    rows = [
        [md(site.name), count(site.patients_train), count(site.patients_test), _clipped(site)]
        for site in run.contributors
    ]
    yield f"Patients of {sentences.contributors(run)}. Values outside a public range were moved to its edge."
    yield each_hospital(["Hospital", "Training patients", "Test patients", "Values moved"], rows)
    if run.features:
        yield "Columns, with public ranges and values: agreed beforehand, never measured on patients."
        yield grid(
            ["Column", "Kind", "Range or values", "Unit"], [_feature(*column) for column in run.features.items()]
        )


def _clipped(site: Site) -> str:
    if site.patients_train is None:  # between machines only the hospital knows
        return NONE
    return ", ".join(f"{md(name)} {count:,}" for name, count in site.values_clipped.items() if count) or "none"


def _feature(name: str, feature: FeatureInWords) -> list[str]:
    values = (md(feature.bounds) if feature.reader else feature.bounds) or ", ".join(
        md(value) for value in feature.values
    )
    curve = f", as a curve of {feature.curve} knots" if feature.curve else ""
    return [md(name), md(feature.type) + curve, values, md(feature.unit)]


_PERSONAL = (
    "Each hospital of the study has an intercept of its own, which stays there. This model has the public one that all "
    "began with: it ranks patients, and elsewhere its probabilities want a recalibration."
)


def _training(run: Run) -> Iterable[str]:
    size = f", {plural(run.parameters, 'parameter')}" if run.parameters is not None else ""
    yield bullets(
        [
            f"Model: {md(run.model_name) or 'not recorded'}{size}",
            *([_PERSONAL] if run.personal else []),
            f"Combined by: {md(run.strategy) or 'not recorded'}",
            f"Rounds: {run.rounds_completed:,} of {run.rounds_planned:,}. {md(sentences.rounds(run))}",
            f"Engine: {md(run.engine) or 'not recorded'}{' (a simulation on one machine)' if run.simulated else ''}",
            f"Seed: {'not recorded' if run.seed is None else run.seed}",
        ]
    )


def _privacy(run: Run) -> Iterable[str]:
    if not run.private:
        yield "**None.** The hospitals' updates carry no noise, and the model may tell facts about single patients."
        return
    caveat = "Asked for, and not kept: " if sentences.overspent(run) else ""
    yield f"**{caveat}{md(guarantee(run.privacy))}.**"
    yield md(guarantee_in_plain_words(run.privacy))
    yield each_hospital(list(PLAN), [[md(site.name), *plan_of(site)] for site in run.took_part])
    yield md(sentences.privacy(run))
    if run.seeded:
        yield "This run's noise can be repeated from the seed: it rehearses the guarantee and does not give it."


def _performance(run: Run) -> Iterable[str]:
    keys = shared_first(run)
    if not keys:
        yield "Not recorded."
        return
    meant = headline_of(run)
    how = (
        "95 % intervals that include the noise of what hospitals released" if run.noisy else "95 % bootstrap intervals"
    )
    yield f"{meant.label} on test patients with {how}, {_direction(run)}."
    headings, order = [capital(model_name(run, key)) for key in keys], [series(run).index(key) for key in keys]
    rows = [
        [md(row.name), *(_cell(run, row.estimates[n]) for n in order), count(row.patients)] for row in forest_rows(run)
    ]
    yield each_hospital(["Hospital", *headings, "Test patients"], rows, first=1)
    measures = _measures(run, keys)
    if measures:
        yield "Every measure, on all test patients:"
        yield grid(["Measure", *headings], measures)


def _direction(run: Run) -> str:
    return "lower is better" if headline_of(run).lower_is_better else "higher is better"


def _cell(run: Run, estimate: Estimate | None) -> str:
    return main_interval(run, estimate) if estimate else undefined(run)


def _measures(run: Run, keys: Sequence[str]) -> list[list[str]]:
    models = [model for key in keys if (model := run.model(key)) is not None]
    names = dict.fromkeys(name for model in models for name in model.metrics)
    return [
        [
            md(metric_of(run, name).label),
            *(interval(model.metrics.get(name), bounded=metric_of(run, name).is_bounded) for model in models),
        ]
        for name in names
    ]


def _limits(run: Run) -> Iterable[str]:
    trained, others = "the hospitals that trained it", "the hospitals of the study, also of those that did not train it"
    where = others if run.away else trained
    judged = [
        f"Judged on test patients of {where}, and nowhere else.",
        "Intervals say how figures vary with the choice of test patients, not with the choice of hospitals.",
    ]
    limits = [
        *(["Judged on nobody: the study keeps no test patients."] if run.untested else judged),
        *([] if has_groups(run) else ["Figures of groups (by sex, age or origin) were not computed."]),
    ]
    if run.private:
        limits += [
            covered(run),
            "A patient known to two hospitals spends privacy at both.",
        ]
    if run.simulated:
        limits.append("A simulation: one machine held every hospital's data.")
    if not run.complete:
        limits.append("The study is incomplete: this model is unfinished.")
    lacking = [site for site in run.sites if not _judged(run, site)]
    if lacking and run.model(run.shared):
        names = ", ".join(md(site.name) for site in lacking[:10])
        more = f" and {len(lacking) - 10:,} more" if len(lacking) > 10 else ""
        limits.append(f"No figure exists for {names}{more} ({undefined(run)}).")
    if run.noisy:
        limits.append("Figures are of scores put into bins, as hospitals released them; within one nobody is ordered.")
    yield bullets(limits)


def _judged(run: Run, site: Site) -> bool:
    model = run.model(run.shared)
    return model is not None and model.per_site.get(site.name) is not None


def _digests(run: Run) -> Iterable[str]:
    releases = ", ".join(f"{md(name)} {md(release)}" for name, release in run.versions.items())
    yield bullets(
        [
            f"Study (SHA-256): {md(run.study_sha256) or 'not recorded'}",
            f"Model (SHA-256): {md(run.model_sha256) or 'not recorded'}",
            f"Releases: {releases or 'not recorded'}",
        ]
    )
