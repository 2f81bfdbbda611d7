"""Terminal tables of a run, a plan or a comparison."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from configs.errors import RecordError
from configs.records.estimate import Estimate
from configs.records.fields import read
from configs.records.models import TABULATED, ComparedModel
from configs.records.result import Guarantee, ModelResult, StatisticsResult, TrainingResult
from configs.schema import PER_PATIENT
from configs.schema.privacy import is_budgeted
from configs.shown import DIGITS
from server.result.finished import Run
from server.result.flaws import alerts
from server.result.read import load_result
from server.result.wording import metric_named
from simulations.counting_tables import COUNTED, absent_of, print_statistics
from strategies.tasks.base import Objective
from strategies.tasks.registry import OBJECTIVES

if TYPE_CHECKING:  # PyTorch, which a comparison and a finished run's table do without
    from simulations.planning import StudyPlan
    from simulations.worth.answer import Worth

Metrics = TrainingResult | StatisticsResult
UNDEFINED = "undefined"
LARGE = 1e5  # figures beyond are in short form
WITHOUT_HOME = (ComparedModel.FEDERATED, ComparedModel.WITHOUT_PRIVACY)  # lack what each hospital has of its own
UNLIMITED = 1000  # columns, where a table's own width is asked for


def print_run(run: Path) -> int:
    """Print the run's table and where its files are; return 1 for an incomplete study."""
    metrics = load_result(run)
    if isinstance(metrics, StatisticsResult):
        print_statistics(metrics)
    else:
        print_table(metrics)
    _console().print(f"report  {_short(run / 'report.html')}", highlight=False, soft_wrap=True)
    return 0 if metrics.outcome == "COMPLETE" else 1


def print_table(metrics: TrainingResult) -> None:
    """Print what each hospital and the whole have of it, and how the run ended."""
    console = _console()
    table = _run_table(metrics, wide=not _any_large(metrics))
    fits = console.measure(table, options=console.options.update(max_width=UNLIMITED)).maximum <= console.width
    console.print(table if fits else _run_table(metrics, wide=False))
    for line in _footnotes(metrics):
        console.print(line, style="dim", highlight=False)
    said = [entry.warning for entry in (metrics.patients, metrics.tuned) if entry and entry.warning]
    for line in (*_worse(metrics), *_flaws_of(metrics), *said):
        console.print(line, style="bold", highlight=False, soft_wrap=True)
    for site, why in absent_of(metrics).items():
        console.print(f"{site} is no part of the shared model: {why}", highlight=False, soft_wrap=True)
    for line in (*_rehearsed(metrics), *_left_out(metrics)):
        console.print(line, highlight=False, soft_wrap=True)
    sent = _size(_total(metrics, "bytes_sent"))
    done = f"{metrics.outcome} after {metrics.rounds_completed} rounds, {metrics.seconds or 0.0:.1f} s, {sent} sent"
    console.print(f"\n{done} by {_senders(metrics)}")
    if metrics.why:
        console.print(metrics.why)


def _flaws_of(metrics: TrainingResult) -> list[str]:
    """Return what the report's headline warns of; nothing of a file that no report can be made of."""
    with suppress(RecordError):
        return list(alerts(Run.of(metrics)))
    return []


def _rehearsed(metrics: TrainingResult) -> Iterable[str]:
    """Yield what a deployment would show of the shared model, where its hospitals would release anything."""
    if metrics.rehearsed is not None:
        noisy = metrics.rehearsed.metrics.get(metrics.primary_metric or "auroc")
        figure = "no figure: too few test patients for so much noise" if noisy is None else _estimate(noisy)
        yield f"a deployment would show, from noisy histograms: {figure}"


def _left_out(metrics: TrainingResult) -> Iterable[str]:
    """Yield the figure of each hospital with the model of all the others."""
    for site, entry in sorted(metrics.left_out.items()):
        figure = entry.metrics.get(metrics.primary_metric or "auroc")
        shown = "undefined" if figure is None else _estimate(figure)
        yield f"{site} left out: {shown} on its {entry.patients:,} patients, by the model of all the others"


def _senders(metrics: TrainingResult) -> str:
    """Return which hospitals sent anything: all, or how many."""
    senders, of = sum(bool(site.bytes_sent) for site in metrics.sites), len(metrics.sites)
    return "all hospitals" if senders == of else f"{senders} of {of} hospitals"


def _contributors(metrics: Metrics) -> str:
    """Return words for how many hospitals the shared model is made of, and of how many where some are missing."""
    of = len(metrics.sites)
    absent = sum(site.site in absent_of(metrics) for site in metrics.sites)
    return f"{of - absent} of {of}" if absent else str(of)


def _total(metrics: Metrics, name: str) -> int:
    return sum(getattr(site, name) or 0 for site in metrics.sites)


def _shown(metrics: TrainingResult) -> list[tuple[ComparedModel, ModelResult]]:
    """Return the models that have a column of their own, in the order of the columns."""
    models = ((key, metrics.models.get(key)) for key in TABULATED if _is_own(metrics, key))
    return [(key, model) for key, model in models if model is not None]


def _run_table(metrics: TrainingResult, *, wide: bool) -> Table:
    """Return a line a hospital, or two in a narrow terminal."""
    name, models = _figure(metrics), _shown(metrics)
    title = f"{metrics.study}: {metric_named(name).label} on test patients, 95 % interval"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1) if wide else (0, 1, 0, 0))
    table.add_column("hospital", no_wrap=True)
    last = ("patients", "epsilon", "sent")[: 3 if wide else 2]
    for title in (*(key.column.replace(", ", ",\n") for key, _ in models), *last):
        table.add_column(title, justify="right", no_wrap=True)
    for site in metrics.sites:
        cells = [_estimate(model.per_site.get(site.site), wide=wide) for _, model in models]
        patients = f"{site.patients_train}+{site.patients_test}"
        table.add_row(site.site, *cells, *(patients, _epsilon(site.epsilon), _size(site.bytes_sent or 0))[: len(last)])
    table.add_section()
    whole = [_estimate(model.metrics.get(name), wide=wide) for _, model in models]
    patients = f"{_total(metrics, 'patients_train')}+{_total(metrics, 'patients_test')}"
    table.add_row("all together", *whole, *(patients, "-", _size(_total(metrics, "bytes_sent")))[: len(last)])
    return table


def _guarantee(metrics: Metrics) -> Guarantee:
    return read(Guarantee, metrics.privacy, "privacy")


def _is_private(metrics: Metrics) -> bool:
    return is_budgeted(_guarantee(metrics).mode)


def _is_own(metrics: TrainingResult, key: ComparedModel) -> bool:
    """Return False for the federated model without privacy: it is the one without privacy, and one column is enough."""
    return _is_private(metrics) or key is not ComparedModel.FEDERATED


def _epsilon(spent: float | None) -> str:
    return "-" if spent is None else f"{spent:.2f}"


def _footnotes(metrics: TrainingResult) -> list[str]:
    alone = "alone, all together: mean of the hospitals' own models on all test patients."
    fitted = "alone and pooled: fitted to convergence, without privacy."
    notes = [f"patients: training + test. {alone if metrics.models.get(ComparedModel.LOCAL_ONLY) else ''}".rstrip()]
    notes += [fitted] if metrics.models.get(ComparedModel.POOLED) else []
    if metrics.models.get(ComparedModel.PERSONALISED):
        notes.append("personalised, all together: each patient predicted by the own hospital's model.")
    if cox := metrics.models.get(ComparedModel.POOLED_COX):
        notes.append(
            f"{ComparedModel.POOLED_COX.column}, all together: {_estimate(cox.metrics.get(_figure(metrics)))}."
        )
    if _is_private(metrics):
        privacy = _guarantee(metrics)
        limits = privacy.limits or "each hospital protects its own patients"
        about = f"per {privacy.unit}, {privacy.adjacency}"
        notes.append(f"epsilon {about}, for the whole study, delta {privacy.delta:g}; {limits}.")
    if (histogram_epsilon := metrics.privacy.get("evaluation_epsilon")) is not None:
        covered = f"epsilon covers training and a noisy histogram of scores (epsilon {histogram_epsilon:g} by itself)."
        notes.append(f"{covered}{_exact(metrics)}")
    return notes + [f"undefined: {reason}" for reason in _undefined(metrics)]


def _undefined(metrics: TrainingResult) -> Iterator[str]:
    """Yield each reason why a hospital has no figure."""
    models = {key: model for key, model in metrics.models.items() if model}
    empty = {(key, site) for key, model in models.items() for site, value in model.per_site.items() if value is None}
    untrained = {(ComparedModel.LOCAL_ONLY, site.site) for site in metrics.sites if not site.patients_train}
    if empty and not any(site.patients_test for site in metrics.sites):
        yield "the study keeps no test patients (test_fraction: 0)."
        return
    if empty & untrained:
        yield "a hospital that trained on nobody has no model of its own."
    if empty - untrained:
        yield f"{metric_named(_figure(metrics)).needs}."


def _exact(metrics: TrainingResult) -> str:
    """Say whether the figures are the histogram's, or the simulator's own."""
    shown = metrics.models.get(ComparedModel.FEDERATED)
    return " Figures here are exact: who simulates has the data." if shown and shown.noisy is None else ""


def print_plan(plan: "StudyPlan") -> None:
    """Print each hospital's noise, steps, epsilon and verdict; then epsilon against rounds; then bytes and time."""
    console = _console()
    table = Table(title=f"{plan.study}: plan, before any data is read", title_justify="left", box=box.SIMPLE_HEAD)
    for title in ("hospital", "training patients", "batch", "steps", "noise multiplier", "epsilon"):
        table.add_column(title, justify="left" if title == "hospital" else "right")
    for site in plan.sites:
        table.add_row(
            site.site,
            f"{site.patients}",
            f"{site.batch:.0f} ({site.sampling_rate:.0%})",
            f"{site.steps}",
            "-" if site.noise_multiplier is None else f"{site.noise_multiplier:.4f}",
            "-" if site.epsilon is None else f"{site.epsilon:.3f}",
        )
    console.print(table)
    for site in plan.sites:
        console.print(f"{site.site}: {site.verdict}", highlight=False)
    console.print()
    if plan.curve:
        _print_curve(console, plan)
    for line in (*plan.notes, *plan.warnings):
        console.print(line, highlight=False)


def _print_curve(console: Console, plan: "StudyPlan") -> None:
    table = Table(title="epsilon against rounds, with this noise", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("rounds", justify="right")
    for site in filter(lambda site: site.steps, plan.sites):  # who only tests pays for no round
        table.add_column(site.site, justify="right")
    for rounds, values in plan.curve:
        table.add_row(str(rounds), *(f"{value:.2f}" for value in values))
    console.print(table)


def print_json(plan: "StudyPlan", worth: "Worth | None") -> None:
    """Print the plan, and what it is worth where that was asked, as one JSON object."""
    document = asdict(plan) | ({} if worth is None else {"worth": worth.to_dict()})
    print(json.dumps(document, indent=1, allow_nan=False))


def print_comparison(runs: Sequence[Path]) -> None:
    """Print a comparison with one column for each run."""
    console, metrics = _console(), [load_result(run) for run in runs]
    kinds = [kind for kind in ("models", "statistics") if any(getattr(metric, kind, None) for metric in metrics)]
    table = Table(title="runs side by side", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("run", no_wrap=True)
    for run in runs:
        table.add_column(run.resolve().name, overflow="fold", justify="right")
    for title, (kind, cell) in COMPARED.items():
        if kind in ("", *kinds):
            table.add_row(title, *(cell(m) if not kind or getattr(m, kind, None) else "-" for m in metrics))
    console.print(table)
    if any(map(_is_private, metrics)):
        console.print(f"epsilon: {PER_PATIENT}, at each hospital, for the whole study", style="dim", highlight=False)


def _whole(metrics: TrainingResult, key: ComparedModel) -> str:
    """Return a model's headline figure over all hospitals; a dash where the run has no such model."""
    model = metrics.models.get(key)
    if model is None or not _is_own(metrics, key):
        return "-"
    return _estimate(model.metrics.get(_figure(metrics)))


def _figure(metrics: TrainingResult) -> str:
    """Return the metric that is compared: the study's first, or what hospitals released if the study names none."""
    return metrics.primary_metric or "auroc"


def _spent(metrics: Metrics) -> str:
    spent = [site.epsilon for site in metrics.sites if site.epsilon is not None]
    return f"{max(spent):.2f}" if spent else "-"


# Title -> what a run must have for it, a model or statistics, and the cell.
COMPARED: dict[str, tuple[str, Callable[[Any], str]]] = {
    "study": ("", lambda m: str(m.study)),
    "study digest": ("", lambda m: str(m.study_sha256)[:DIGITS]),
    "strategy": ("models", lambda m: f"{m.strategy}, {m.rounds_completed} rounds"),
    "hospitals": ("", _contributors),
    "seed": ("", lambda m: str(m.seed)),
    "engine": ("", lambda m: str(m.engine)),
    "outcome": ("", lambda m: str(m.outcome)),
    "figure": ("models", lambda m: metric_named(_figure(m)).label),
    **{title: ("models", partial(_whole, key=key)) for key, title in ((key, key.column) for key in TABULATED)},
    **{title: ("statistics", cell) for title, cell in COUNTED.items()},
    "epsilon, at most": ("", _spent),
    "sent by all": ("", lambda m: _size(_total(m, "bytes_sent"))),
    "seconds": ("", lambda m: f"{m.seconds or 0.0:.1f}"),
    "model digest": ("models", lambda m: str(m.model_sha256)[:12]),
}


def _estimate(estimate: Estimate | None, *, wide: bool = True) -> str:
    """Return the value and interval, or the word for none: a rate of so few patients is no rate."""
    if not estimate:
        return UNDEFINED
    value, interval = _figure_of(estimate.value, 3), f"{_figure_of(estimate.low, 2)}-{_figure_of(estimate.high, 2)}"
    return f"{value} ({interval})" if wide else f"{value}\n{interval}"


def _figure_of(value: float, digits: int) -> str:
    """Return a figure with so many decimals; of a model that diverged, in short form."""
    return f"{value:.{digits}f}" if abs(value) < LARGE else f"{value:.3g}"


def _any_large(metrics: TrainingResult) -> bool:
    """Return whether figures are so large that they leave no room for names beside their intervals."""
    models = [model for model in metrics.models.values() if model]
    estimates = [e for model in models for e in (*model.per_site.values(), *model.metrics.values()) if e]
    return any(abs(e.high) >= LARGE for e in estimates)


def _worse(metrics: TrainingResult) -> list[str]:
    """Return the shared models that are no better than what needs no model."""
    lines, task = list[str](), str(metrics.task.get("type"))
    if task not in OBJECTIVES:  # of a kit that is not installed here, or of a file that anybody wrote
        return lines
    kind = OBJECTIVES[task]
    is_judged_at_home = metrics.model and metrics.model.personal and metrics.models.get(ComparedModel.PERSONALISED)
    for key, model in _shown(metrics):
        if is_judged_at_home and key in WITHOUT_HOME:
            continue
        if (estimate := model.metrics.get(_figure(metrics))) is not None:
            flaws = _flaws(kind, model.guess, estimate)
            lines += [f"{key.column}: {flaw}; lower the learning rate, or see what diverges" for flaw in flaws]
    return lines


def _flaws(kind: type[Objective], guess: float | None, estimate: Estimate) -> Iterator[str]:
    """Yield how the headline metric, with its interval, is no better than that of a guess."""
    headline, value = kind.metrics[0], estimate.value
    if guess is not None and headline.is_worse(guess, value):
        yield f"WORSE THAN predicting {kind.guess_in_words} (error {_figure_of(guess, 3)})"
    if headline.chance is not None and headline.is_worse(headline.chance, value):
        yield "WORSE THAN CHANCE"
    if estimate.low == estimate.high == headline.chance:
        yield "THE SAME PREDICTION FOR EVERY PATIENT"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _short(path: Path) -> str:
    folder = Path.cwd()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _console() -> Console:
    return Console(width=None if Console().is_terminal else 140, markup=False, emoji=False)
