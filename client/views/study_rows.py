"""The page that a person reads before deciding on a study: rows of a title and a text.

Texts of others stand in them quoted and on lines of their own, so that none can be taken for one of ours.
"""

import math
from dataclasses import dataclass

from client.ledger import Ledger
from client.views.kit_pages import study_row
from client.views.mapped import mapping_lines
from configs.errors import PrivacyError
from configs.schema import PER_PATIENT, DataSource, Feature, Record, Study
from configs.shown import mixed_scripts, quoted_lines, shown
from configs.site import SiteConfig
from strategies.data.columns import cells_of
from strategies.models.registry import count_of, personal_parameters, shared_parameters
from strategies.privacy.accounting import epsilon
from strategies.privacy.modes.registry import mode_of, statistics_plan
from strategies.privacy.plan import Budget
from strategies.releases.base import Release
from strategies.releases.registry import MODEL_UPDATE, RELEASES
from strategies.releases.score_histogram import in_words, states_of
from strategies.releases.statistics import standard_deviation
from strategies.tasks.registry import objective_of


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that is said about a study."""

    title: str
    text: str


def rows_of(config: SiteConfig, study: Study) -> list[Row]:
    """Return a study's description, for the people who decide about it."""
    alike = _alike(study)
    rows = [
        ("purpose", "\n".join(quoted_lines(study.purpose))),
        ("reads", _columns(study)),
        *([("look alike", alike)] if alike else []),
        ("announced", _announced(config, study)),
        ("patient", _patient(study)),
        ("never reads", _unread(config, study)),
        ("from", _source(config, study)),
        *([("written here", mapped)] if (mapped := _mapped(config, study)) else []),
        *(_training(config, study) if MODEL_UPDATE.is_asked(study) else _statistics(study)),
        ("privacy", _privacy(config, study)),
        ("budget", _budget(config, study)),
    ]
    return [Row(*row) for row in rows]


def _training(config: SiteConfig, study: Study) -> list[tuple[str, str]]:
    hospitals = "hospital" if study.training.quorum == 1 else "hospitals"
    outcome = " and ".join(shown(column.name) + _contents(column) for column in study.task.columns)
    return [
        ("learns", f"{study.task.type} {outcome} with a {study.model.name} model{_share(study)}{_remark(study)}"),
        *study_row(config, study),
        ("rounds", f"{study.training.rounds}, with at least {study.training.quorum} {hospitals} in each"),
        *([("only tests", _testers(config, study))] if study.evaluation.test_only else []),
        ("leaves", _leaving(config, study) if study.trains_at(config.site) else _tested(config, study)),
    ]


def _testers(config: SiteConfig, study: Study) -> str:
    """Say which hospitals train nothing."""
    others = [shown(site) for site in study.evaluation.test_only if site != config.site]
    here = (
        [] if study.trains_at(config.site) else ["THIS HOSPITAL: it trains nothing, all its patients are test patients"]
    )
    return "; ".join([*here, *([f"{', '.join(others)}"] if others else [])])


def _tested(config: SiteConfig, study: Study) -> str:
    """Say what leaves a hospital that only tests."""
    return f"no update of the model; once, this hospital's name and the study's digest. {_figures(config, study)}"


def _share(study: Study) -> str:
    """Return the outcome share that the study announces, and from where it is known."""
    if study.task.outcome_share is None:
        return ""
    source = study.task.outcome_share_source
    return f"; announced: {study.task.outcome_share:g} of all patients have the outcome ({source or 'source not said'})"


def _statistics(study: Study) -> list[tuple[str, str]]:
    """Return what a study that trains nothing asks, and what would leave."""
    columns, cells = len(study.counted), cells_of(study)
    noise = standard_deviation(statistics_plan(study))
    return [
        ("learns", "nothing: no model is trained; patients are counted, so that a study can be planned"),
        (
            "counts",
            f"how many patients have each value of each column above ({study.task.bins} equal parts of a "
            "number's range), and of how many it is unknown",
        ),
        (
            "leaves",
            f"once, {cells} noisy counts of {columns} columns ({4 * cells:,} bytes): one patient changes one "
            f"count of each column by 1, noise of standard deviation {noise:.1f} patients is added to each; "
            "once, this hospital's name and the study's digest. No row, no exact count.",
        ),
    ]


def _columns(study: Study) -> str:
    """Return a line for each column that is read: name, unit, range or values, and codes, as the study says them."""
    columns = [_column(feature) for feature in study.features]
    extra = [f"{shown(column.name)}: the outcome{_contents(column)}" for column in study.task.columns]
    extra += [f"{shown(study.patient_id)}: who the patient is"] if study.patient_id else []
    if study.evaluation.split_column:
        extra.append(f"{shown(study.evaluation.split_column)}: who is a test patient")
    return "\n".join([*columns, *extra])


def _contents(column: Feature) -> str:
    """Return a target's values or range, and its unit."""
    of = f" ({', '.join(map(shown, column.values))})" if column.values else ""
    if column.minimum is not None and column.maximum is not None:
        of = f" ({column.minimum:g} to {column.maximum:g})"
    return f"{of}{f' in {shown(column.unit)}' if column.unit else ''}"


def _alike(study: Study) -> str:
    """Return a warning about names and values that mix letters of several alphabets: they may look like others."""
    words = [study.patient_id or ""]
    for feature in (*study.task.columns, *study.features):
        words += [feature.name, feature.unit or "", *feature.values, *feature.missing]
    mixtures = [f"{shown(word)} mixes {scripts} letters" for word in words if (scripts := mixed_scripts(word))]
    more = f" and {len(mixtures) - 5} more" if len(mixtures) > 5 else ""
    return f"WARNING {', '.join(mixtures[:5])}{more}: compare with your file, letter by letter" if mixtures else ""


def _announced(config: SiteConfig, study: Study) -> str:
    sizes = {member.site: member.patients for member in study.cohort}
    if not sizes:
        return "no size of any hospital"
    count = sizes.get(config.site)
    patients = f"{count:,} patients here" if count is not None else "THIS HOSPITAL IS NOT IN THE STUDY"
    return f"{patients}; {sum(sizes.values()):,} in {len(sizes)} hospital{'' if len(sizes) == 1 else 's'}"


def _patient(study: Study) -> str:
    """Say what counts as one patient, the unit of every epsilon."""
    if study.patient_id is None:
        return "ONE ROW COUNTS AS ONE PATIENT (patient_id: null): who has several rows spends several times the epsilon"
    alike = f", written alike by {', '.join(study.normalise)}" if study.normalise else ""
    return f"all rows of one {shown(study.patient_id)}{alike}"


def _unread(config: SiteConfig, study: Study) -> str:
    dataset = config.dataset(study.name)
    return dataset.source.unread if dataset is not None else DataSource.unread


def _column(feature: Feature) -> str:
    unit = f" in {shown(feature.unit)}" if feature.unit else ""
    if isinstance(feature, Record):
        return f"{shown(feature.name)}: {_record(feature)}"
    if feature.type == "number":
        what = f"a number from {feature.minimum:g} to {feature.maximum:g}{unit}"
        what += f", whose effect is a curve of {len(feature.knots)} public knots" if feature.knots else ""
    else:
        what = f"one of {', '.join(map(shown, feature.values))}{unit}"
    codes = f"; unknown where {', '.join(map(shown, feature.missing))}" if feature.missing else ""
    return f"{shown(feature.name)}: {what}{codes}"


def _record(column: Record) -> str:
    size = " x ".join(map(str, column.size))
    window = "their own range" if column.low is None else f"the range {column.low:g} to {column.high:g}"
    what = f"paths of {column.type} records below root, read by {column.reader} as {column.channels} x {size} numbers"
    made = f"; {column.encoder} makes {column.encoded} numbers of each" if column.encoder else ""
    return f"{what}, scaled by {window}{made}"


def _source(config: SiteConfig, study: Study) -> str:
    dataset = config.dataset(study.name)
    if dataset is None:
        return f"NO DATA SET: site.yaml names none for {study.name}; without one the study cannot run here"
    return f"{dataset.source} (budget of the data set {dataset.identity!r})"


def _mapped(config: SiteConfig, study: Study) -> str:
    """Return how site.yaml maps the study to the data here, a line a column; nothing where it does not."""
    dataset = config.dataset(study.name)
    return "" if dataset is None else "\n".join(mapping_lines(dataset.source, study))


def _leaving(config: SiteConfig, study: Study) -> str:
    numbers = count_of(shared_parameters(study))
    size = 4 * numbers
    return (
        f"in each round {numbers} numbers of the trained model ({size:,} bytes, and some hundreds of packing), in all "
        f"at most {numbers * study.training.rounds:,} numbers; once, this hospital's name and the study's digest. "
        f"{_stays(study)}{_others(config, study)}{_figures(config, study)}"
    )


def _remark(study: Study) -> str:
    remark = objective_of(study).remark
    return f"; {remark}" if remark else ""


def _stays(study: Study) -> str:
    """Say what of the model stays here, where there is such."""
    kept = count_of(personal_parameters(study))
    own = study.training.personalise
    after = "After the end a model of this hospital's own is made of the last one, on its patients: it stays here. "
    stay = "1 number of the model stays" if kept == 1 else f"{kept} numbers of the model stay"
    return (f"{stay} here, in the folder personal. " if kept else "") + (after if own else "")


def _others(config: SiteConfig, study: Study) -> str:
    """Say what leaves beside model and figures, what it costs, and whether the site lets it leave."""
    return "".join(
        f"Moreover, {RELEASES[release.name].sentence(study)}: epsilon {release.keys.epsilon:g} at delta "
        f"{study.privacy.delta:g} {PER_PATIENT}, beside the training's{_permitted(config, RELEASES[release.name])}. "
        for release in study.releases
    )


def _permitted(config: SiteConfig, kind: Release) -> str:
    """Say whether the site lets a release about test patients leave."""
    if not kind.of_test:
        return ""
    noisy = config.policy.metrics == "noisy"
    return f"; site.yaml {'allows' if noisy else 'does NOT allow'} it (policy.metrics: {config.policy.metrics})"


def _figures(config: SiteConfig, study: Study) -> str:
    """Say what leaves about test patients, and what it costs."""
    release = study.evaluation.release
    if release is None:
        return "No row, no other count, no metric." if study.releases else "No row, no count, no metric."
    if config.policy.metrics != "noisy":
        return (
            "No row, no count, no metric: the study asks for a noisy histogram of test patients, which site.yaml does "
            "NOT allow (policy.metrics: none)."
        )
    event = mode_of(study).evaluation(study)
    assert event is not None
    cells = len(states_of(study)) * release.bins
    beside = ", beside the training's" if study.trains_at(config.site) else ""
    return (
        f"Once, after the last round, {cells} noisy counts of this hospital's test patients, by {in_words(study)} and "
        f"by the model's score in {release.bins} bins, which site.yaml allows (policy.metrics: noisy): one patient "
        f"changes one count by 1, noise of standard deviation {event.noise_multiplier:.1f} patients is added to each. "
        f"This costs epsilon {release.epsilon:g} at delta {study.privacy.delta:g} {PER_PATIENT}{beside}."
        " No row, no exact count."
    )


def _privacy(config: SiteConfig, study: Study) -> str:
    mode = mode_of(study)
    if not study.trains_at(config.site) and study.evaluation.release:
        return (
            f"differential privacy in this hospital: epsilon {study.evaluation.release.epsilon:g} at delta "
            f"{study.privacy.delta:g} {PER_PATIENT}, for the one histogram that leaves; this hospital has no part in "
            "the training and pays nothing for it"
        )
    if not mode.keys.leaves:
        return mode.review(study)
    allowed = "which site.yaml allows" if config.policy.allow_privacy_none else "which site.yaml does NOT allow"
    return f"{mode.review(study)}, {allowed} (policy.allow_privacy_none)"


def _budget(config: SiteConfig, study: Study) -> str:
    dataset, policy = config.dataset(study.name), config.policy
    if dataset is None or not study.privacy.keys.budgeted:
        return "none is spent"
    ledger = Ledger.open(config.ledger) if config.ledger.exists() else None
    spent = ledger.spent(dataset.identity, delta=policy.delta) if ledger else 0.0
    return (
        f"epsilon {spent:.2f} of {policy.max_epsilon:g} is spent on this data set ({PER_PATIENT}, all "
        f"studies, delta {policy.delta:g}), {max(0.0, policy.max_epsilon - spent):.2f} is left"
        f"{_foreseen(config, study, dataset.identity, ledger)}; the node refuses what would pass it"
        f"{_two(config, study)}"
    )


def _two(config: SiteConfig, study: Study) -> str:
    """Say why the study's epsilon and the budget's are two numbers for one release."""
    if study.privacy.delta == config.policy.delta:
        return ""
    return (
        f". The study states its epsilon at its own delta, {study.privacy.delta:g}; this budget is counted at "
        f"site.yaml's, {config.policy.delta:g}: a release has an epsilon for each delta, larger at smaller ones"
    )


def _foreseen(config: SiteConfig, study: Study, dataset: str, ledger: Ledger | None) -> str:
    """Say what the study will have cost, at this hospital's own delta."""
    policy = config.policy
    try:
        plan = mode_of(study).plan(study, config.site, figures=policy.metrics == "noisy")
    except PrivacyError as error:
        return f", and the study cannot train here ({error})"
    cap, events = Budget(policy.max_epsilon, policy.delta), plan.events if plan else ()
    after = ledger.foreseen(dataset, study.sha256, events, cap) if ledger else epsilon(events, cap.delta)
    return f", this study would bring it to {after:.2f} spent" if math.isfinite(after) else ", this study does not fit"
