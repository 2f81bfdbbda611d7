"""A curved column: what a model reads of it, by its public range alone, and what it is good for."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.schema import Feature, Study, Task
from server.card.model_card import _feature
from simulations.memory import train
from simulations.worth.synthetic import Assumed, draw
from strategies.data.curve import bends, largest_square, shape
from strategies.data.source import Table
from strategies.data.table import TablePatients, encode
from strategies.effects import effects
from strategies.learning import learning_of
from strategies.privacy.modes.registry import mode_of
from strategies.releases.plausible import Plausibility
from strategies.tasks.classification import auroc
from strategies.tasks.registry import objective
from tests.builders import plain, study

AGE = Feature("age", "number", minimum=20.0, maximum=90.0, curve=6, missing=("?",))
AGED: dict[str, Any] = {"age": {"type": "number", "range": [20, 90]}}
CURVED: dict[str, Any] = {"age": AGED["age"] | {"curve": 6}}


def read(ages: list[float], feature: Feature = AGE) -> TablePatients:
    patients = np.arange(len(ages))
    table = Table({"age": np.array(ages)}, {}, {"ill": np.zeros(len(ages))}, patients, tuple(map(str, patients)))
    return encode(table, (feature,), objective(Task("binary", "ill")))


def test_a_curved_column_is_the_straight_one_its_bends_and_the_unknown() -> None:
    assert AGE.inputs == (
        *("age", "age bends at 34", "age bends at 48", "age bends at 62", "age bends at 76"),
        "age unknown",
    )
    x = read([20.0, 55.0, np.nan]).x
    assert x[:, 0].tolist() == [-1.0, 0.0, 0.0]
    assert x[:2, 1:5].all()
    assert x[2].tolist() == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("knots", [3, 6, 20])
def test_straight_column_bends_and_bias_draw_every_broken_line_over_the_knots(knots: int) -> None:
    values = np.linspace(-1, 1, 301)
    inputs = np.stack([np.ones(301), values, *bends(values, knots)], axis=1)
    hats = np.maximum(0, 1 - np.abs(values[:, None] - np.linspace(-1, 1, knots)) * (knots - 1) / 2)
    weights, *_ = np.linalg.lstsq(inputs, hats, rcond=None)
    np.testing.assert_allclose(inputs @ weights, hats, atol=1e-9)
    assert np.linalg.matrix_rank(inputs) == knots


@given(st.integers(3, 20), st.floats(-1, 1))
def test_no_row_is_longer_than_the_public_bound(knots: int, value: float) -> None:
    feature = Feature("age", "number", minimum=-1.0, maximum=1.0, curve=knots)
    assert float((read([value], feature).x ** 2).sum()) <= largest_square(feature) + 1e-6


def test_a_bend_has_no_mean_and_no_slope_over_the_range() -> None:
    values = (np.arange(20_000) + 0.5) / 10_000 - 1
    for bend in bends(values, 6):
        assert abs(bend.mean()) < 1e-6
        assert abs((bend * values).mean()) < 1e-6


def test_a_values_inputs_are_continuous_at_a_knot_and_clipped_beyond_the_range() -> None:
    x = read([34 - 1e-6, 34 + 1e-6, 90, 1e9]).x
    np.testing.assert_allclose(x[0], x[1], atol=1e-6)
    assert x[2].tolist() == x[3].tolist()


def test_a_fitted_curve_is_told_at_its_knots_in_the_columns_unit() -> None:
    weights = np.array([0.5, 0.0, -1.0, 0.0, 2.0])
    x = read([20, 34, 48, 62, 76, 90]).x[:, :5].astype(float)
    at, effects = zip(*shape(weights, AGE), strict=True)
    assert at == (20, 34, 48, 62, 76, 90)
    np.testing.assert_allclose(effects, x @ weights, atol=1e-6)


def test_a_study_without_a_curve_keeps_its_digest_and_one_with_a_curve_says_so() -> None:
    straight = study(features=AGED)
    assert "curve" not in straight.canonical
    assert study(features={"age": AGED["age"] | {"curve": None}}).sha256 == straight.sha256
    assert study(features=CURVED).to_dict()["features"]["age"]["curve"] == 6


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (CURVED["age"] | {"curve": 2}, "features.age.curve: expected an integer from 3 to 20, found 2"),
        ({"type": "category", "values": ["f", "m"], "curve": 6}, "expected none for a category, found 6"),
    ],
)
def test_a_curve_that_is_none_is_refused_with_its_key(column: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        study(features={"age": column})


def test_a_curve_is_refused_where_nothing_is_trained() -> None:
    sections: dict[str, Any] = dict.fromkeys(("model", "training", "evaluation"))
    privacy = {"mode": "local", "epsilon": 1.0, "delta": 1e-5}
    with pytest.raises(ConfigError, match="curve: expected nothing, as no model is trained"):
        study(task={"type": "statistics"}, features=CURVED, privacy=privacy, **sections)


def test_the_plausibility_bound_covers_the_longest_honest_update() -> None:
    local = {"epochs": None, "steps": 1, "batch_size": "full", "learning_rate": 1.0}
    bent = plain(features=CURVED, training={"local": local})
    task = learning_of(bent)
    start = task.initial(0)
    reach = Plausibility(bent, start).bound("lille")
    x = read([20.0, 90.0]).x[:, :5]
    residual = task.residual(np.full((1, 1), 30.0), np.zeros(1, np.float32))  # sure of the wrong
    moved = float(np.abs(residual).max() * np.sqrt((x**2).sum(axis=1).max() + 1))
    assert 0.95 * reach < moved <= reach


def test_made_up_patients_of_a_curved_study_have_curved_effects() -> None:
    bent = study(features=CURVED, cohort={"lille": 400})
    world = draw(bent, Assumed(signal=0.75), seed=3)
    assert world.train["lille"].x.shape[1] == 5
    straight = np.linalg.lstsq(
        np.c_[world.test.x[:, :1], np.ones(len(world.test.x))], np.log(world.best[:, 1] / world.best[:, 0]), rcond=None
    )
    assert straight[1] > 1.0  # what a straight line leaves of the true log odds


def test_the_card_says_which_columns_are_curves() -> None:
    from configs.records.result import FeatureInWords

    assert _feature("age", FeatureInWords("number", "years", (20.0, 90.0), (), 6))[1] == "number, as a curve of 6 knots"


def _hospitals(of: Study) -> tuple[dict[str, TablePatients], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return patients who are ill when young or old, by hospital, and further patients with their outcomes."""
    rng = np.random.default_rng(1)

    def some(count: int) -> tuple[TablePatients, np.ndarray[Any, Any]]:
        ages = rng.uniform(20, 90, count)
        ill = (rng.random(count) < 1 / (1 + np.exp(1.5 - ((ages - 55) / 15) ** 2))).astype(np.float64)
        patients = np.arange(count)
        table = Table({"age": ages}, {}, {"disease": ill}, patients, tuple(map(str, patients)))
        return encode(table, of.features, objective(of.task)), ill

    train_patients = {site: some(300)[0] for site in of.sites}
    test, ill = some(2000)
    return train_patients, test.x, ill


def test_where_effects_bend_a_private_curve_wins_over_a_straight_line() -> None:
    scores = {}
    local = {"epochs": 1, "batch_size": "full", "learning_rate": 4.0}
    for name, features in (("straight", AGED), ("curve", CURVED)):
        of = study(features=features, cohort={"lille": 300, "lyon": 300}, training={"rounds": 20, "local": local})
        assert mode_of(of).keys.noised_here
        train_patients, x, ill = _hospitals(of)
        model = train(of, train_patients).model
        scores[name] = float(auroc(ill, learning_of(of).predict(model, x), np.ones((1, len(ill))))[0])
    assert scores["straight"] < 0.6
    assert scores["curve"] > 0.75


def test_a_fitted_curve_is_shown_against_the_lowest_value_of_the_range() -> None:
    bent = study(features=CURVED | {"sex": {"type": "category", "values": ["f", "m"]}})
    weights = np.array([[0.5, 0.0, -1.0, 0.0, 2.0, 0.3]], np.float32)
    shown = effects(bent, {"0.weight": weights, "0.bias": np.zeros(1, np.float32)})
    assert shown is not None
    assert [row.contrast for row in shown.rows] == ["m against f"]
    (points,) = shown.curves.values()
    outputs = read([20, 34, 48, 62, 76, 90]).x[:, :5].astype(float) @ weights[0, :5].astype(float)
    np.testing.assert_allclose([point.value or 0.0 for point in points], np.exp(outputs - outputs[0]), rtol=1e-5)
    assert [point.at for point in points] == [20, 34, 48, 62, 76, 90]
