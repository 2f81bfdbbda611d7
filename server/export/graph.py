"""A study's model as a graph: raw columns come in, predictions come out.

Columns become inputs by `columns_of` and outputs predictions by the task's own `predict`, both recorded. The layers
between are those of strategies/exact/layers.py with the same rounding, so that scores are the same to the last digits.
"""

import math
from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from configs.errors import RunError
from configs.schema import Feature, Study
from server.export.recording import Graph, Recorded
from strategies.data.table import columns_of
from strategies.exact.layers import bits_of
from strategies.learning import Learning, learning_of
from strategies.models.base import LinearLayers

Arrays = Mapping[str, NDArray[np.float32]]


def recorded(study: Study, arrays: Arrays) -> tuple[Graph, Recorded]:
    """Return the graph of a study's model, and its predictions: (rows, as `Objective.predicted` names them).

    Raises:
        RunError: the model is no linear stack, its inputs are scaled at each hospital, or its task uses what no graph
            can hold.
    """
    learning = learning_of(study)
    if (layers := learning.linear_layers) is None:
        raise RunError(
            f"export: expected a model of linear layers for ONNX, found {study.model.name}; export as safetensors"
        )
    if study.scaling == "site":
        raise RunError(
            "export: expected inputs in public ranges for ONNX, found scaling: site, by each hospital's own patients; "
            "export as safetensors"
        )
    graph = Graph()
    try:
        return graph, _prediction(graph, study, learning, layers, arrays)
    except (AttributeError, TypeError) as error:  # a method that no recorded array has
        raise RunError(f"export: expected arithmetic that a graph can hold, found other ({error})") from None


def _prediction(graph: Graph, study: Study, learning: Learning, layers: LinearLayers, arrays: Arrays) -> Recorded:
    features = _inputs(graph, study)
    return learning.objective.predict(_outputs(learning, layers, arrays, features))  # type: ignore[arg-type, return-value]


def _inputs(graph: Graph, study: Study) -> Recorded:
    """Return the model's inputs of the features: (rows, inputs), as hospitals make them of the same cells."""
    numbers = {f.name: _number(graph, f) for f in study.predictors if f.type == "number"}
    categories = {f.name: _codes(graph, f) for f in study.predictors if f.type == "category"}
    columns, _ = columns_of(numbers, categories, study.predictors, centred=study.scaling == "centred")  # type: ignore[arg-type]
    return np.stack(columns, axis=1).astype(np.float32)  # type: ignore[return-value]


def _number(graph: Graph, feature: Feature) -> Recorded:
    """Return a raw number, NaN where it is unknown: no finite number, or a code for that."""
    values = graph.input(feature.name, "double")
    codes = [float(code) for code in feature.missing if _is_number(code)]
    known = np.where(np.isinf(values), np.nan, values)
    for code in codes:
        known = np.where(values == code, np.nan, known)
    return known  # type: ignore[return-value]


def _is_number(code: str) -> bool:
    try:
        return math.isfinite(float(code))
    except ValueError:
        return False


def _codes(graph: Graph, feature: Feature) -> Recorded:
    """Return each word's position in the public values, -1 for any other word."""
    words, codes = graph.input(feature.name, "string"), graph.constant(-1, "int64")
    for position, word in enumerate(feature.values):
        codes = np.where(words == word, position, codes)  # type: ignore[assignment]
    return codes


def _outputs(learning: Learning, layers: LinearLayers, arrays: Arrays, features: Recorded) -> Recorded:
    """Return the model's outputs of each row; where the task adds inputs, of each row once for each of them."""
    added = len(learning.objective.added_inputs)
    if not added:
        return _stack(layers, learning, arrays, features.astype(np.float64))
    blank = np.zeros_like(features[:, :1])
    each = []
    for chosen in range(added):
        marks = [blank + float(place == chosen) for place in range(added)]
        row = np.concatenate([features, *marks], axis=1).astype(np.float64)
        each.append(_stack(layers, learning, arrays, row))  # type: ignore[arg-type]
    together = np.stack(each, axis=1)
    return together.reshape(-1, layers[-1][0])  # type: ignore[return-value]


def _stack(layers: LinearLayers, learning: Learning, arrays: Arrays, x: Recorded) -> Recorded:
    """Return what linear layers with a ReLU between two make of rows: (rows, inputs) -> (rows, outputs).

    Each layer's weights and what it reads are rounded as strategies/exact/layers.py rounds them: to `bits_of` digits
    below the largest of the layer or of the row, the bias's 1 among them.
    """
    top = math.ldexp(1.0, bits_of(layers) - 1)
    names = list(learning.parameters)
    for number, (weight, bias) in enumerate(zip(names[::2], names[1::2], strict=True)):
        parameters = np.concatenate([arrays[weight], arrays[bias][:, None]], axis=1).astype(np.float64)
        largest = np.abs(parameters).max()
        unit = top / 2.0 ** math.floor(math.log2(largest)) if largest else top
        parameters = np.rint(parameters * unit) / unit
        read = np.maximum(x, 0.0) if number else x
        step = top / _power_below(np.maximum(np.abs(read).max(axis=1, keepdims=True), 1.0))
        x = (np.rint(read * step) / step).times(parameters[:, :-1].T) + parameters[:, -1]
    return x


def _power_below(values: Recorded) -> Recorded:
    """Return the largest power of two that is at most each value, of values from 1 on."""
    exponent = np.floor(values.__exact__("logarithm") / math.log(2.0))
    power = cast(Recorded, np.power(values * 0.0 + 2.0, exponent))
    power = cast(Recorded, np.where(power > values, power / 2.0, power))
    return cast(Recorded, np.where(power * 2.0 <= values, power * 2.0, power))
