"""Ratios and the frame of an inference mean the same whether inputs are centred or not."""

import numpy as np

from strategies.data.source import Table
from strategies.data.table import encoded
from strategies.effects import effects
from strategies.releases.information import frame_of
from tests import builders

FEATURES = {
    "age": {"type": "number", "range": [20, 90], "missing": [0]},
    "pain": {"type": "category", "values": ["none", "some", "much"], "missing": [9]},
}
PUBLIC, CENTRED = builders.study(features=FEATURES), builders.study(features=FEATURES, scaling="centred")


def test_centred_inputs_leave_each_ratio_as_it_is() -> None:
    weights = np.arange(1.0, 6.0)[None] / 10
    model = {"0.weight": weights, "0.bias": np.zeros(1)}
    told = effects(CENTRED, model)
    assert told is not None
    assert told == effects(PUBLIC, model)


def test_the_frame_of_an_inference_is_about_the_same_centre() -> None:
    table = Table(
        {"age": np.array([20.0, np.nan, 90.0])},
        {"pain": np.array([0, 2, -1])},
        {"disease": np.zeros(3)},
        np.arange(3),
        ("0", "1", "2"),
    )
    public, centred = (encoded(table, study).x - frame_of(study).centre for study in (PUBLIC, CENTRED))
    np.testing.assert_allclose(centred, public, atol=1e-6)
