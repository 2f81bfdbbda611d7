"""Evaluation of models on test patients, exact and unreleased.

A simulation owns every hospital's copy of the data, so figures are exact. "All test patients together" pools the test
patients of every hospital. A local-only model is judged there too: it is what that hospital could offer alone, to any
patient. Scoring each patient with the own hospital's model instead credits every hospital with its share of
diseased patients (from 38 % to 98 % in the demo), which is no skill: personalised models alone are judged so, as no
patient would ever be given another hospital's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from configs.records.outcome import Difference
from configs.records.result import ModelResult
from configs.schema import Study
from strategies.data.base import TrainablePatients, concatenate
from strategies.exchange.arrays import Arrays
from strategies.learning import Learning
from strategies.tasks.metrics import Floats, Metric, estimate, interval, resampled
from strategies.tasks.outcome_figures import Rows, outcome_figures
from strategies.tasks.registry import objective_of

TestOf = Mapping[str, TrainablePatients]
Predict = Callable[[TrainablePatients], Floats]


def headline(study: Study) -> Metric:
    """Return the metric that tables and curves show: where hospitals release scores, one that those give."""
    kind = objective_of(study)
    return kind.metrics_of([kind.figures[0]])[0] if study.evaluation.release else kind.metrics[0]


@dataclass(frozen=True)
class Judged:
    """A model's figures, and the resamples behind those of the primary metric: (1 + resamples,), the value first."""

    result: ModelResult
    whole: Floats | None
    per_site: Mapping[str, Floats | None]


def evaluate(study: Study, task: Learning, model: Arrays, test: TestOf) -> Judged:
    """Judge one shared model on all test patients together, and at each hospital."""
    return evaluate_predictions(study, task, partial(task.predictions, model), test)


def evaluate_predictions(study: Study, task: Learning, predict: Predict, test: TestOf) -> Judged:
    """Judge one way to predict on all test patients together, and at each hospital."""
    return _judged(study, task, [predict], test, dict.fromkeys(test, predict))


def evaluate_local(study: Study, task: Learning, models: Mapping[str, Arrays], test: TestOf) -> Judged:
    """Judge each hospital's own model: the mean over models on all test patients, and each at home."""
    at_home = {site: partial(task.predictions, model) for site, model in models.items()}
    return _judged(study, task, list(at_home.values()), test, at_home)


def evaluate_at_home(study: Study, task: Learning, models: Mapping[str, Arrays], test: TestOf) -> Judged:
    """Judge each hospital's own model at home, and over everybody, each patient predicted by the own hospital's."""
    at_home = {site: partial(task.predictions, model) for site, model in models.items()}

    def everybody(_pooled: TrainablePatients) -> Floats:
        return np.concatenate([at_home[site](patients) for site, patients in test.items()])

    return _judged(study, task, [everybody], test, at_home)


def compared(shared: Judged, other: Judged) -> ModelResult:
    """Return another model's figures with the shared one's differences from it, on the same resamples of patients."""
    sites = {site: interval(_less(values, other.per_site.get(site))) for site, values in shared.per_site.items()}
    difference = Difference(interval(_less(shared.whole, other.whole)), sites)
    return replace(other.result, difference=difference)


def _less(values: Floats | None, others: Floats | None) -> Floats | None:
    return None if values is None or others is None else values - others


def curve_value(study: Study, task: Learning, model: Arrays, pooled: TrainablePatients) -> float | None:
    """Return the headline metric on all test patients, without an interval: one point of the convergence curve."""
    if not pooled.rows:
        return None
    y, predicted = task.objective.in_unit(pooled.outcomes), task.predictions(model, pooled)
    point = estimate(headline(study), y, predicted, pooled.owners, resamples=0)
    return point.value if point else None


def _judged(
    study: Study, task: Learning, models: Sequence[Predict], test: TestOf, at_home: Mapping[str, Predict]
) -> Judged:
    pooled, main, seed = concatenate(list(test.values())), headline(study), study.seed
    predictions = [predict(pooled) for predict in models]
    own = {site: at_home[site](patients) for site, patients in test.items() if site in at_home}
    asked = task.objective.metrics_of([main.name, *study.evaluation.metrics, *task.objective.always])
    y = task.objective.in_unit(pooled.outcomes)
    whole = resampled(asked, y, predictions, pooled.owners, seed=seed)
    per_site = {
        site: resampled([main], task.objective.in_unit(p.outcomes), [own[site]], p.owners, seed=seed).get(main.name)
        if site in own
        else None  # it has no model of its own: it only tests
        for site, p in test.items()
    }
    metrics = {metric.name: interval(whole.get(metric.name)) for metric in asked}
    intervals = {site: interval(values) for site, values in per_site.items()}
    result = ModelResult(metrics.get("auroc"), intervals, metrics, c_index=metrics.get("c_index"))
    if pooled.rows:
        bins = task.objective.bins(y, predictions[0]) if len(models) == 1 else None
        curves = task.objective.curves(y, np.asarray(np.mean(predictions, axis=0)))
        result = replace(result, guess=task.objective.guess(y), calibration=bins, survival=curves)
    outcome = task.objective.outcome
    if pooled.rows and outcome is not None and len(models) == 1:
        rows = _rows(pooled, predictions[0], outcome)
        sites = {site: _rows(test[site], own[site], outcome) for site in own if test[site].rows}
        result = replace(result, outcome=outcome_figures(rows, sites, study.evaluation.thresholds, seed=seed))
    return Judged(result, whole.get(main.name), per_site)


def _rows(patients: TrainablePatients, predicted: Floats, outcome: int) -> Rows:
    return np.asarray(patients.outcomes, np.float64), predicted[:, outcome], patients.owners
