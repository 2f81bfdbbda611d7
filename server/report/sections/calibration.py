"""The section `calibration`: predicted and observed shares, and every measure that was asked for."""

from collections.abc import Iterable, Mapping

from configs.records.estimate import Estimate
from configs.records.models import ComparedModel
from configs.records.outcome import Calibrated
from server.charts import quality, svg
from server.charts.figure import Figure, ends_of
from server.charts.markup import Html, el
from server.charts.strip import Strip, strips
from server.report.parts import Section, drawing, each, legend, models_legend, table
from server.result import sentences
from server.result.finished import Run
from server.result.flaws import alerts
from server.result.spread import MANY, Spread
from server.result.wording import (
    UNDEFINED_NOISY,
    has_calibration,
    hospitals,
    interval,
    metric_of,
    model_name,
    share,
    shared_first,
    signed,
)

ALL = "all together"
DOWN = "\N{DOWNWARDS ARROW}"


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
    return [el("div", shown, _bins(run), class_="pair"), *_by_hospital(run), measures]


def _bins(run: Run) -> Html:
    model = run.model(run.shared)
    bins = [entry for entry in model.calibration if entry.count] if model else []
    rows = [[share(entry.predicted), share(entry.observed), f"{entry.count:,}"] for entry in bins]
    return table(["Predicted", "Observed", "Patients"], rows, "Group by group", 2)


def _calibrated(run: Run) -> Mapping[str, Calibrated]:
    """Return the shared model's calibration, all together first."""
    model = run.model(run.shared)
    if model is None or model.outcome is None:
        return {}
    return {ALL: model.outcome.calibrated, **model.outcome.calibrated_by_site}


def _by_hospital(run: Run) -> Iterable[Html | None]:
    """Yield calibration in the large at each hospital: of many a chart of the spread, and each on demand."""
    entries = _calibrated(run)
    sites = len(entries) - 1
    if sites > MANY:
        values = {site: entry.in_the_large.value for site, entry in entries.items() if entry.in_the_large}
        whole = values.pop(ALL, None)
        ends = svg.widened(min([-0.1, *values.values()]), max([0.1, *values.values()]), 0.1)
        row = Strip("together" if not run.private else "with privacy", run.shared, tuple(sorted(values.items())), whole)
        drawn = strips("calibration-strip", "Mean predicted less observed", [row], ends, 0.0)
        about = f"A dot is one of {sites:,} hospitals; left of 0 the risk is understated there, right of it overstated."
        yield drawing("Calibration by hospital", about, drawn) if drawn else None
    if sites > 0:
        yield each("Calibration by hospital", _calibration_table(run, entries), sites)


def _calibration_table(run: Run, entries: Mapping[str, Calibrated]) -> Html:
    rows = [
        [site, _difference(entry.in_the_large), interval(entry.slope), interval(entry.observed)]
        for site, entry in entries.items()
    ]
    why = UNDEFINED_NOISY if run.noisy else "undefined: too few test patients, or perfectly ordered ones"
    title = f"Calibration with 95 % intervals (best: 0 and a slope of 1); {why}"
    return table(["Hospital", "Predicted less observed", "Slope", "Observed share"], rows, title, 3, whole=True)


def _difference(estimate: Estimate | None) -> str:
    """Return a difference with its interval, each with a true sign."""
    if estimate is None:
        return "undefined"
    return f"{signed(estimate.value)} ({signed(estimate.low)} to {signed(estimate.high)})"


def _figures(run: Run) -> Iterable[Figure]:
    model = run.model(run.shared)
    if model is not None and model.calibration:
        bins = model.calibration
        rows = tuple((b.low, b.high, b.predicted, b.observed, *(b.interval or (None, None)), b.count) for b in bins)
        headings = ("from", "to", "predicted", "observed", "observed low", "observed high", "patients")
        pooled = run.model(ComparedModel.POOLED)
        keys = [run.shared, *([ComparedModel.POOLED] if pooled and pooled.calibration else [])]
        drawn = quality.calibration_file(run)
        yield Figure("calibration", "Predicted and observed", headings, rows, drawn, models_legend(run, keys))
    if entries := _calibrated(run):
        names = ("in_the_large", "slope", "observed")
        every = ("hospital", *(f"{name}{end}" for name in names for end in ("", "_low", "_high")))
        sites = tuple(
            (site, *(cell for name in names for cell in ends_of(getattr(entry, name))))
            for site, entry in entries.items()
        )
        yield Figure("calibration_by_hospital", "Calibration by hospital", every, sites)


def _card(run: Run) -> Iterable[str]:
    entries = _calibrated(run)
    if not entries:
        return
    whole = entries[ALL]
    yield f"Mean predicted less observed {_difference(whole.in_the_large)}, slope {interval(whole.slope)}."
    spread = Spread.of(e.in_the_large.value for site, e in entries.items() if site != ALL and e.in_the_large)
    if spread and spread.count > 1:
        ends = f"{signed(spread.least)} to {signed(spread.greatest)}, median {signed(spread.median)}"
        yield f"Over {hospitals(spread.count)}, mean predicted less observed is from {ends}."


def _measures(run: Run) -> Html | None:
    """Return a table of every metric that was asked for, of every model."""
    models = [(key, model) for key in shared_first(run) if (model := run.model(key)) is not None]
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
    why = f"; {UNDEFINED_NOISY}" if run.noisy and any(None in model.metrics.values() for _, model in models) else ""
    return table(headings, rows, f"Every measure, on all test patients ({DOWN} lower is better){why}", len(models))


SECTION = Section(
    "calibration",
    "Calibration",
    "Can its probabilities be trusted?",
    _calibration_reading,
    _calibration_about,
    _calibration,
    place=40,
    shows=lambda run: not run.unmeasured,
    alerts=alerts,
    card=_card,
    figures=_figures,
)
