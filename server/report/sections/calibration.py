"""The section `calibration`: predicted and observed shares, and every measure that was asked for."""

from collections.abc import Iterable

from configs.records.models import ComparedModel
from server.charts import quality
from server.charts.markup import Html, el
from server.report.parts import Section, drawing, legend, table
from server.result import sentences
from server.result.finished import Run
from server.result.flaws import alerts
from server.result.wording import has_calibration, interval, metric_of, model_name, series, share

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
)
