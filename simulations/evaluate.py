"""What models are worth on test patients. A simulation owns every hospital's copy of the data, so figures are exact.

"All test patients together" pools the test patients of every hospital. A local-only model is judged there too: it is
what that hospital could offer alone, to any patient. Scoring each patient with the own hospital's model instead would
credit every hospital with its share of diseased patients (from 38 % to 98 % in the demo), which is no skill.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from configs.schema import METRICS, Study
from strategies.arrays import Arrays
from strategies.tasks.metrics import Estimate, calibration, estimate, estimate_mean
from strategies.tasks.table import Encoded, concatenate
from strategies.tasks.tabular import TabularTask

TestOf = Mapping[str, Encoded]


def headline(study: Study) -> str:
    """The metric that tables and curves show: AUROC, or the mean absolute error of a regression."""
    return METRICS[study.task.type][0]


def evaluate(study: Study, task: TabularTask, model: Arrays, test: TestOf) -> dict[str, Any]:
    """One shared model: on all test patients together, and at each hospital."""
    return _scores(study, task, [model], test, dict.fromkeys(test, model))


def evaluate_local(study: Study, task: TabularTask, models: Mapping[str, Arrays], test: TestOf) -> dict[str, Any]:
    """Each hospital's own model: the mean over models on all test patients, and each at home."""
    return _scores(study, task, list(models.values()), test, models)


def curve_value(study: Study, task: TabularTask, model: Arrays, pooled: Encoded) -> float | None:
    """The headline metric on all test patients, without an interval: one point of the convergence curve."""
    found = _estimate(study, task, headline(study), [model], pooled, resamples=0)
    return found.value if found else None


def _scores(
    study: Study, task: TabularTask, models: Sequence[Arrays], test: TestOf, at_home: Mapping[str, Arrays]
) -> dict[str, Any]:
    pooled, main = concatenate(list(test.values())), headline(study)
    asked = dict.fromkeys((main, *study.evaluation.metrics))
    metrics = {name: _dict(_estimate(study, task, name, models, pooled)) for name in asked}
    scores: dict[str, Any] = {
        "auroc": metrics.get("auroc"),
        "per_site": {site: _dict(_estimate(study, task, main, [at_home[site]], test[site])) for site in test},
        "metrics": metrics,
    }
    if study.task.type == "binary" and len(models) == 1 and len(pooled.y):
        predicted = task.predict(models[0], pooled.x)
        scores["calibration"] = calibration(np.asarray(pooled.y, np.float64), predicted)
    return scores


def _estimate(
    study: Study, task: TabularTask, metric: str, models: Sequence[Arrays], patients: Encoded, resamples: int = 1000
) -> Estimate | None:
    if not len(patients.y):
        return None
    y = task.in_unit(patients.y)
    predictions = [task.predict(model, patients.x) for model in models]
    if len(predictions) == 1:
        return estimate(metric, y, predictions[0], patients.patients, seed=study.seed, resamples=resamples)
    return estimate_mean(metric, y, predictions, patients.patients, seed=study.seed)


def _dict(found: Estimate | None) -> dict[str, float] | None:
    return found.to_dict() if found else None
