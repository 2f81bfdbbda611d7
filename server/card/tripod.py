"""tripod.md: what TRIPOD+AI asks a paper on a prediction model to report, filled as far as the run knows it.

The 27 items are those of Collins et al. 2024, BMJ 385:e078378, in words of our own; sub-items stand together. What a
run cannot know, such as ethics or funding, is left to the authors, and so is every judgement.

>>> [item.number for item in ITEMS] == list(range(1, 28))
True
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from configs.records.estimate import Estimate
from configs.records.models import ComparedModel
from configs.records.result import FeatureInWords
from server.report.sections.registry import sections_of
from server.result import sentences
from server.result.finished import Run
from server.result.markdown import md
from server.result.spread import Spread
from server.result.wording import (
    capital,
    figure,
    guarantee,
    headline_of,
    hospitals,
    interval,
    main_interval,
    metric_of,
    objective_of_run,
    plural,
    share,
)

AUTHORS = "**To be written by the authors.**"
Facts = Callable[[Run], Iterable[str]]


@dataclass(frozen=True)
class Item:
    """One item: what is asked, the facts of a run, and what only authors can add; empty where facts are all."""

    number: int
    part: str
    title: str
    facts: Facts
    authors: str


def render(run: Run) -> str:
    """Return the whole checklist as Markdown."""
    lines = [
        f"# TRIPOD+AI checklist: {md(run.study)}",
        "The items of TRIPOD+AI (Collins et al. 2024, BMJ 385:e078378) for a paper on this model. Facts come from the "
        f"study file and from metrics.json; what they cannot say reads: {AUTHORS}",
        *([f"**{line}**" for line in _alerts(run)]),
    ]
    part = ""
    for item in ITEMS:
        if item.part != part:
            part = item.part
            lines.append(f"## {part}")
        lines.append("\n".join([f"### {item.number}. {item.title}", "", *_entries(item, run)]))
    return "\n\n".join(lines) + "\n"


def _entries(item: Item, run: Run) -> Iterator[str]:
    for fact in item.facts(run):
        yield f"- {fact}"
    if item.authors:
        yield f"- {AUTHORS} {item.authors}"


def _alerts(run: Run) -> Iterator[str]:
    for section in sections_of(run):
        yield from map(md, section.alerts(run))


def _none(_run: Run) -> Iterable[str]:
    return ()


def _title(run: Run) -> Iterable[str]:
    kind = "evaluated by simulation on one machine" if run.simulated else "trained across hospitals"
    yield md(f"A prediction model of {run.target or 'the target'}, {kind}, at {hospitals(len(run.sites))}.")


def _abstract(run: Run) -> Iterable[str]:
    yield md(sentences.verdict(run))


def _objectives(run: Run) -> Iterable[str]:
    if run.purpose:
        yield md(f"{capital(run.purpose).rstrip('.')}.")
    tested = "no evaluation" if run.untested else "its evaluation on patients who were kept aside at the same hospitals"
    yield f"Development of a model, and {tested}."


def _sources(run: Run) -> Iterable[str]:
    where = "one machine held every hospital's copy" if run.simulated else "patients' data stayed at each hospital"
    yield md(f"Data of {hospitals(len(run.sites))}; {where}.")
    if run.started:
        yield f"The run began on {md(run.started[:10])}."


def _participants(run: Run) -> Iterable[str]:
    yield md(f"{capital(hospitals(len(run.sites)))} in the study: {_names([site.name for site in run.sites])}.")


def _preparation(run: Run) -> Iterable[str]:
    yield "Numbers are scaled from public ranges that were agreed beforehand; what lies beyond is moved to the edge."
    moved = sum(count for site in run.sites for count in site.values_clipped.values())
    if run.total("patients_train") is not None:
        yield f"Values moved to the edge of their range: {moved:,}."


def _outcome(run: Run) -> Iterable[str]:
    kind = objective_of_run(run)
    unit = f" ({md(run.target_unit)})" if run.target_unit else ""
    yield f"{capital(kind.prediction) if kind else 'A prediction of'} the column {md(run.target)}{unit}."


def _predictors(run: Run) -> Iterable[str]:
    yield f"{plural(len(run.features), 'column')}, chosen and with ranges or values fixed before training:"
    yield from (_predictor(name, feature) for name, feature in run.features.items())


def _predictor(name: str, feature: FeatureInWords) -> str:
    values = feature.bounds or ", ".join(map(str, feature.values))
    unit = f" {feature.unit}" if feature.unit else ""
    return md(f"{name}: {feature.type}{f', {values}{unit}' if values else ''}.")


def _size(run: Run) -> Iterable[str]:
    train, test = run.total("patients_train"), run.total("patients_test")
    if train is None:
        announced = sum(site.patients for site in run.sites)
        yield f"Announced: {announced:,} patients." if announced else "No number of patients left the hospitals."
    else:
        yield f"{train:,} patients to train on and {test or 0:,} to test on."
    if observed := _observed(run):
        yield f"Share of test patients with the outcome: {interval(observed)}."


def _observed(run: Run) -> Estimate | None:
    model = run.model(run.shared)
    return model.outcome.calibrated.observed if model and model.outcome else None


def _missing(_run: Run) -> Iterable[str]:
    yield (
        "A column that the study lets be unknown has an input that says so, and stands at its range's middle or at no "
        "category; a row with any other unknown value does not count. Nothing is imputed from patients."
    )


def _methods(run: Run) -> Iterable[str]:
    size = f", {plural(run.parameters, 'parameter')}" if run.parameters is not None else ""
    yield md(f"Model: {run.model_name or 'not recorded'}{size}; combined by {run.strategy or 'an unknown strategy'}.")
    yield f"{run.rounds_completed:,} of {plural(run.rounds_planned, 'round')}; seed {run.seed}."
    yield md(f"Differential privacy: {guarantee(run.privacy)}.") if run.private else "No differential privacy."
    if run.model(ComparedModel.POOLED):
        yield "Compared with models of each hospital alone and of all data in one place, without privacy."
    if not run.untested and not run.unmeasured:
        how = "intervals that include the noise" if run.noisy else "95 % bootstrap intervals over test patients"
        yield f"Main measure: {headline_of(run).label}, with {how}; differences between models are paired."


def _imbalance(_run: Run) -> Iterable[str]:
    yield "No patient is weighted or resampled by outcome, and probabilities are not recalibrated."


def _fairness(run: Run) -> Iterable[str]:
    if len(run.sites) > 1:
        yield "Performance is given for each hospital; of subgroups of patients, see item 23."


def _output(run: Run) -> Iterable[str]:
    kind = objective_of_run(run)
    what = kind.prediction if kind else "a prediction of"
    yield f"The model gives {what} {md(run.target or 'the target')} for one patient."
    model = run.model(run.shared)
    if model and model.outcome and model.outcome.thresholds:
        stated = ", ".join(share(entry.threshold) for entry in model.outcome.thresholds)
        yield f"Thresholds at which it is judged: {stated}."


def _separation(run: Run) -> Iterable[str]:
    if run.untested:
        yield "No patients were kept aside: nothing here is an evaluation."
    else:
        yield "Test patients were kept aside at each hospital before training, which never reads them."
        yield "They are of the same hospitals: this is no external evaluation."


def _open(run: Run) -> Iterable[str]:
    versions = ", ".join(f"{md(name)} {md(release)}" for name, release in run.versions.items())
    yield f"Protocol: the study file, SHA-256 {md(run.study_sha256) or 'not recorded'}."
    again = " The same file and seed give the same model." if run.simulated else ""
    yield f"Code: {versions or 'not recorded'}.{again}"


def _flow(run: Run) -> Iterable[str]:
    yield md(sentences.rounds(run))
    if run.rounds_completed:
        yield from map(md, sentences.away(run))
    sizes = Spread.of(site.patients for site in run.contributors if site.patients)
    if sizes and sizes.count > 1:
        yield f"Patients of a hospital: {sizes.least:,.0f} to {sizes.greatest:,.0f}, median {sizes.median:,.0f}."


def _development(run: Run) -> Iterable[str]:
    yield f"Trained at {md(sentences.contributors(run))}; outcome of the run: {md(run.outcome)}."


def _specification(run: Run) -> Iterable[str]:
    yield f"All weights are in model.safetensors, SHA-256 {md(run.model_sha256) or 'not recorded'}."
    if run.private and not run.seeded:
        yield "The weights are a differentially private release: publishing them costs no patient anything more."


def _performance(run: Run) -> Iterable[str]:
    model = run.model(run.shared)
    if model is None or run.untested:
        yield "Not measured."
        return
    yield f"{headline_of(run).label}, all test patients: {md(main_interval(run, model.main))}."
    for name, estimate in model.metrics.items():
        if name != run.metric:
            meant = metric_of(run, name)
            yield f"{meant.label}: {interval(estimate, bounded=meant.is_bounded)}."
    if model.outcome:
        whole = model.outcome.calibrated
        yield f"Mean predicted less observed: {interval(whole.in_the_large)}."
        yield f"Calibration slope: {interval(whole.slope)}."
    spread = Spread.of(e.value for e in model.per_site.values() if e)
    if spread and spread.count > 1:
        ends = f"{figure(spread.least)} to {figure(spread.greatest)}, median {figure(spread.median)}"
        yield f"Over {hospitals(spread.count)}, {headline_of(run).label} is from {ends}."
    for name in sorted(run.releases):
        yield f"Released beside the training, and shown in the report: {md(name)}."


def _limits(run: Run) -> Iterable[str]:
    if run.simulated:
        yield "A simulation: its noise can be repeated from the seed, and protects no patient."
    if run.noisy:
        yield "Figures come from noisy counts in bins of predicted probability."
    if run.private and (cost := sentences.privacy_cost(run)) is not None:
        yield f"Privacy costs {figure(max(cost, 0.0))} of {headline_of(run).label} here."
    if not run.complete:
        yield "The study is incomplete: the model is unfinished."


def _usability(run: Run) -> Iterable[str]:
    if run.features:
        yield "A prediction needs every column of item 9; values beyond a public range count as its edge."


def _names(names: Sequence[str], most: int = 20) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


_METHODS, _RESULTS = "Methods", "Results"
ITEMS = (
    Item(1, "Title and abstract", "A title that names model, population and outcome", _title, "The title."),
    Item(2, "Title and abstract", "A structured abstract", _abstract, "The abstract (TRIPOD+AI for abstracts)."),
    Item(
        *(3, "Introduction", "Why the model is needed, for whom, and which inequalities are known", _none),
        "Clinical context, intended users and patients, known health inequalities.",
    ),
    Item(4, "Introduction", "What the study aims at", _objectives, ""),
    Item(
        *(5, _METHODS, "Where the data come from, and of which time", _sources),
        "Kind of data, why they represent the patients meant, first and last date.",
    ),
    Item(
        *(6, _METHODS, "Setting, who is eligible, which treatments were given", _participants),
        "Kind and place of the hospitals, criteria of eligibility, treatments.",
    ),
    Item(7, _METHODS, "How data were prepared and checked", _preparation, "Checks made at the hospitals, by group."),
    Item(
        *(8, _METHODS, "The outcome, its time, and who assessed it", _outcome),
        "Definition, horizon, who assessed it and what they knew.",
    ),
    Item(9, _METHODS, "The predictors and how they are measured", _predictors, "Why these, and how they are measured."),
    Item(10, _METHODS, "How many patients, and why so many", _size, "The calculation of the size."),
    Item(11, _METHODS, "What happens to missing values", _missing, "Why values are missing."),
    Item(12, _METHODS, "How the model was built and judged", _methods, "Why this kind of model."),
    Item(13, _METHODS, "What was done about rare outcomes", _imbalance, ""),
    Item(14, _METHODS, "What was done about fairness", _fairness, "Approach and reasons."),
    Item(15, _METHODS, "What the model puts out", _output, "Why these thresholds."),
    Item(
        16, _METHODS, "How training and evaluation data differ", _separation, "Differences in setting or definitions."
    ),
    Item(17, _METHODS, "Ethical approval", _none, "Committee, number, consent or its waiver."),
    Item(
        *(18, "Open science", "Funding, interests, protocol, registration, data, code", _open),
        "Funding, interests, registration, access to data.",
    ),
    Item(19, "Patients and the public", "How they were involved", _none, "Their part, or that they had none."),
    Item(20, _RESULTS, "Patients and hospitals that took part", _flow, "Characteristics by setting; follow-up."),
    Item(21, _RESULTS, "Patients and events in each analysis", _development, "Number of events in training."),
    Item(22, _RESULTS, "The full model, so that others can use it", _specification, ""),
    Item(23, _RESULTS, "How well it does, also by group and place", _performance, "Figures of key subgroups."),
    Item(24, _RESULTS, "Whether the model was updated", _none, "Updating, if there was any."),
    Item(25, "Discussion", "What the results mean", _none, "Interpretation, fairness included, beside other studies."),
    Item(26, "Discussion", "Limits and their consequences", _limits, "Bias, uncertainty, who is not represented."),
    Item(
        *(27, "Discussion", "Use in care: poor inputs, users' skill, next steps", _usability),
        "How poor or missing inputs are handled in care, what users must know, next steps.",
    ),
)
