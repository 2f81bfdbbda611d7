"""Evaluation of models on test patients, exact and unreleased.

A simulation owns every hospital's copy of the data, so figures are exact. "All test patients together" pools the test
patients of every hospital. A local-only model is judged there too: it is what that hospital could offer alone, to any
patient. Scoring each patient with the own hospital's model instead would credit every hospital with its share of
diseased patients (from 38 % to 98 % in the demo), which is no skill.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from configs.records.result import Estimate, ModelResult
from configs.schema import Study
from strategies.data.base import TrainablePatients, concatenate
from strategies.exchange.arrays import Arrays
from strategies.learning import Learning
from strategies.tasks.metrics import Metric, estimate, estimates
from strategies.tasks.registry import objective_of

TestOf = Mapping[str, TrainablePatients]


def headline(study: Study) -> Metric:
    """Return the metric that tables and curves show."""
    return objective_of(study).metrics[0]


def evaluate(study: Study, task: Learning, model: Arrays, test: TestOf) -> ModelResult:
    """Judge one shared model on all test patients together, and at each hospital."""
    return _scores(study, task, [model], test, dict.fromkeys(test, model))


def evaluate_local(study: Study, task: Learning, models: Mapping[str, Arrays], test: TestOf) -> ModelResult:
    """Judge each hospital's own model: the mean over models on all test patients, and each at home."""
    return _scores(study, task, list(models.values()), test, models)


def curve_value(study: Study, task: Learning, model: Arrays, pooled: TrainablePatients) -> float | None:
    """Return the headline metric on all test patients, without an interval: one point of the convergence curve."""
    if not pooled.rows:
        return None
    y, predicted = task.objective.in_unit(pooled.outcomes), task.predictions(model, pooled)
    point = estimate(headline(study), y, predicted, pooled.owners, resamples=0)
    return point.value if point else None


def _scores(
    study: Study, task: Learning, models: Sequence[Arrays], test: TestOf, at_home: Mapping[str, Arrays]
) -> ModelResult:
    pooled, main = concatenate(list(test.values())), headline(study)
    predictions = [task.predictions(model, pooled) for model in models]
    reported = task.objective.metrics_of([main.name, *study.evaluation.metrics])
    metrics = _estimates(study, task, reported, predictions, pooled)
    per_site = {site: _at_home(study, task, main, at_home[site], test[site]) for site in test}
    if not pooled.rows:
        return ModelResult(metrics.get("auroc"), per_site, metrics)
    y = task.objective.in_unit(pooled.outcomes)
    bins = task.objective.bins(y, predictions[0]) if len(models) == 1 else None
    guess = task.objective.guess(y)
    return ModelResult(metrics.get("auroc"), per_site, metrics, guess, bins)


def _at_home(
    study: Study, task: Learning, metric: Metric, model: Arrays, patients: TrainablePatients
) -> Estimate | None:
    return _estimates(study, task, [metric], [task.predictions(model, patients)], patients)[metric.name]


def _estimates(
    study: Study,
    task: Learning,
    metrics: Sequence[Metric],
    predictions: Sequence[NDArray[np.float64]],
    of: TrainablePatients,
) -> dict[str, Estimate | None]:
    """Return each metric with its interval, None where it is undefined."""
    return estimates(metrics, task.objective.in_unit(of.outcomes), predictions, of.owners, seed=study.seed)
