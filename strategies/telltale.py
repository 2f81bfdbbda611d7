"""Columns that say the outcome alone: the outcome in disguise, or something that was written down after it.

Of an outcome in words a column is judged by its area under the ROC curve, a category by each value's share of the
outcome; of a value by the rank correlation. A researcher who simulates and a hospital that looks at its own data have
the rows for it. No value is told.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from configs.schema import Feature, Study
from strategies.data.base import TrainablePatients
from strategies.tasks.classification import area
from strategies.tasks.metrics import MIN_PER_CLASS
from strategies.tasks.registry import objective_of

ALONE = 0.99  # of the area, or of the correlation's size
LEAST = 20  # patients: of fewer, much looks alike by chance
Rows = NDArray[np.float64]


def telltale(study: Study, parts: Iterable[TrainablePatients]) -> tuple[str, ...]:
    """Return the columns that say the outcome alone over all patients of these parts, in the study's order.

    A record that an encoder turns into many numbers is named once, whichever of them say it.
    """
    if study.input_shape is not None:
        return ()  # no column says anything alone
    firsts = [_first(part, len(study.inputs)) for part in parts if part.count]
    if not firsts or any(first is None for first in firsts):
        return ()
    x, y = (np.concatenate(columns) for columns in zip(*[first for first in firsts if first is not None], strict=True))
    values = objective_of(study).in_unit(y)
    if values.ndim != 1 or len(values) < LEAST:
        return ()
    place = {name: number for number, name in enumerate(study.inputs)}
    columns = {f.name: x[:, [place[name] for name in f.inputs]].astype(np.float64) for f in study.predictors}
    return tuple(
        feature.name
        for feature in study.features
        if any(_says(_score(f, columns[f.name], values), values, study) for f in feature.predictors)
    )


def _first(part: TrainablePatients, inputs: int) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return the first row of each patient and its outcome, None where patients are no rows of a table."""
    x, y = part.take(part.starts[:-1])
    return (x, y) if x.ndim == 2 and x.shape[1] == inputs else None


def _score(feature: Feature, columns: Rows, values: Rows) -> Rows:
    """Return one number a patient: the column's own, or of a category the mean outcome of the patient's value."""
    if feature.type == "number":
        return columns[:, 0]
    _, group = np.unique(columns, axis=0, return_inverse=True)
    means = np.bincount(group, weights=values) / np.bincount(group)
    return np.asarray(means[group])


def _says(score: Rows, values: Rows, study: Study) -> bool:
    if study.task.classes:
        return any(_tells_apart(score, values == each) for each in range(len(study.task.classes)))
    first, second = (np.unique(part, return_inverse=True)[1] for part in (score, values))
    return bool(first.any() and second.any() and abs(np.corrcoef(first, second)[0, 1]) >= ALONE)


def _tells_apart(score: Rows, has: NDArray[np.bool_]) -> bool:
    """Return whether patients with something and those without are told apart, in one direction or the other."""
    if min(has.sum(), (~has).sum()) < MIN_PER_CLASS:
        return False
    value = float(area(score, has[None].astype(np.float64), (~has)[None].astype(np.float64))[0])
    return max(value, 1.0 - value) >= ALONE
