"""The coefficients of a linear model in the words of clinicians: odds ratios per step, against the reference.

A step of a number is public: a tenth of its range, rounded up to 1, 2 or 5 times a power of ten. A value of a category
is compared with the first. A number with a curve has no single ratio.

>>> public_step(20.0, 90.0), public_step(0.0, 4.0), public_step(100.0, 400.0)
(10.0, 0.5, 50.0)
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.records.effects import CurvePoint, Effect, Effects
from configs.schema import Feature, Study
from strategies.data.curve import shape
from strategies.models.registry import architecture_of
from strategies.tasks.base import Objective
from strategies.tasks.registry import objective_of

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Contrast:
    """Two patients who differ in one column alone. weights: (inputs,), by which their model inputs differ."""

    column: str
    words: str
    weights: Floats


def public_step(low: float, high: float) -> float:
    """Return the step of a number: a tenth of its range, rounded up to 1, 2 or 5 times a power of ten."""
    tenth = (high - low) / 10
    power = 10.0 ** math.floor(math.log10(tenth))
    return next(step for digit in (1, 2, 5, 10) if (step := power * digit) >= tenth * (1 - 1e-9))


def contrasts(study: Study) -> list[Contrast]:
    """Return what each coefficient of a linear model compares, in the order of the inputs.

    Curves are left out, and what an encoder makes of an image: nobody could read the ratio of one of its numbers.
    """
    columns = [feature for feature in study.features if not (feature.curve or feature.is_record)]
    return [contrast for feature in columns for contrast in _of(feature, study.inputs)]


def curved(study: Study) -> tuple[str, ...]:
    """Return the columns whose effect is a curve."""
    return tuple(feature.name for feature in study.predictors if feature.curve)


def _of(feature: Feature, inputs: tuple[str, ...]) -> Iterator[Contrast]:
    for name, (words, size) in zip(feature.inputs, _words(feature), strict=True):
        weights = np.zeros(len(inputs))
        weights[inputs.index(name)] = size
        yield Contrast(feature.name, words, weights)


def _words(feature: Feature) -> Iterator[tuple[str, float]]:
    """Yield what each of a column's inputs compares, and by how much the input differs."""
    if feature.type == "number":
        assert feature.minimum is not None
        assert feature.maximum is not None
        step = public_step(feature.minimum, feature.maximum)
        unit = f" {feature.unit}" if feature.unit else ""
        yield f"per {step:g}{unit}", 2.0 * step / (feature.maximum - feature.minimum)
        reference = "the middle of the range"
    else:
        reference = feature.values[0]
        for value in feature.values[1:]:
            yield f"{value} against {reference}", 1.0
    if feature.missing:
        yield f"unknown against {reference}", 1.0


def coefficients(study: Study, model: Mapping[str, NDArray[np.floating]]) -> Floats | None:
    """Return the coefficients of a model's columns, (inputs,); None of a model that is not linear in them."""
    layers = architecture_of(study).linear_layers
    if layers is None or len(layers) != 1 or layers[0][0] != 1 or study.scaling == "site":
        return None
    weights = np.asarray(next(array for array in model.values() if array.ndim == 2), np.float64)
    return np.asarray(weights[0, : len(study.inputs)])


def effects(study: Study, model: Mapping[str, NDArray[np.floating]]) -> Effects | None:
    """Return what the shared model's coefficients say, without an interval; None where they say nothing simple."""
    objective, weights = objective_of(study), coefficients(study, model)
    if weights is None or objective.measure is None:
        return None
    rows = tuple(
        Effect(contrast.column, contrast.words, effect_of(objective, float(contrast.weights @ weights)))
        for contrast in contrasts(study)
    )
    of = objective.measure.of.format(target=study.task.target, event=getattr(study.task, "event", ""))
    curves = {feature.name: _curve(objective, study, feature, weights) for feature in study.predictors if feature.curve}
    if not rows and not curves:
        return None
    return Effects(objective.measure.name, of, rows, curved(study), curves)


def _curve(objective: Objective, study: Study, feature: Feature, weights: Floats) -> tuple[CurvePoint, ...]:
    """Return a fitted curve at its knots, against the lowest of them."""
    first = study.inputs.index(feature.inputs[0])
    points = shape(weights[first : first + len(feature.knots) - 1], feature)
    return tuple(CurvePoint(at, effect_of(objective, moved - points[0][1])) for at, moved in points)


def effect_of(objective: Objective, moved: float) -> float | None:
    """Return what so much change in a linear model's output comes to; None beyond what a number can hold."""
    value = objective.effect(moved)
    return value if math.isfinite(value) else None
