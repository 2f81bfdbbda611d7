"""Made-up patients: announced sizes, public ranges, and the truth that was asked for."""

from dataclasses import replace

import numpy as np
import pytest

from configs.errors import ConfigError
from simulations.worth.synthetic import Assumed, draw, expected_auroc
from tests.builders import same_bits, study

FEATURES = {
    "age": {"type": "number", "range": [20, 90]},
    "chol": {"type": "number", "range": [100, 400], "missing": [0]},
    "pain": {"type": "category", "values": ["typical", "atypical", "none"]},
}
HERE = study(features=FEATURES, cohort={"brest": 600, "lille": 1000}, evaluation={"test_fraction": 0.34})


def test_hospitals_have_their_announced_training_patients() -> None:
    assert {site: patients.count for site, patients in draw(HERE, Assumed(), 0).train.items()} == {
        "brest": 396,
        "lille": 660,
    }


def test_every_input_lies_in_its_public_range() -> None:
    world = draw(HERE, Assumed(), 0)
    assert world.test.x.shape == (4000, len(HERE.inputs))
    for name, column in zip(HERE.inputs, world.test.x.T, strict=True):
        assert -1 <= column.min() < column.max() <= 1, name
        if name not in ("age", "chol"):
            assert set(np.unique(column)) == {0.0, 1.0}


def test_an_expected_auroc_is_the_chance_that_a_drawn_patient_with_the_outcome_scores_above_one_without() -> None:
    rng = np.random.default_rng(0)
    p, score = rng.random(40), rng.integers(0, 9, 40).astype(float)
    chances, scores = np.stack([1 - p, p], 1), np.stack([-score, score], 1)
    pairs = [(p[i] * (1 - p[j]), score[i], score[j]) for i in range(40) for j in range(40)]
    expected = sum(w * ((a > b) + (a == b) / 2) for w, a, b in pairs) / sum(w for w, _, _ in pairs)
    assert expected_auroc(scores, chances) == pytest.approx(expected)


@pytest.mark.parametrize("signal", [0.6, 0.85, 0.97])
@pytest.mark.parametrize("outcomes", [0.05, 0.5])
def test_the_perfect_model_reaches_the_assumed_auroc_at_the_assumed_share_of_outcomes(
    signal: float, outcomes: float
) -> None:
    world = draw(HERE, Assumed(signal, outcomes), 1)
    assert world.auroc_of(world.best) == pytest.approx(signal, abs=0.002)
    assert world.chances[:, 1].mean() == pytest.approx(outcomes, abs=0.002)


def test_training_patients_outcomes_follow_the_same_truth() -> None:
    large = replace(HERE, cohort=tuple(replace(m, patients=20_000) for m in HERE.cohort))
    world = draw(large, Assumed(outcomes=0.3), 2)
    assert np.mean([patients.y.mean() for patients in world.train.values()]) == pytest.approx(0.3, abs=0.02)


def test_several_classes_are_equally_frequent_and_as_predictable_as_assumed() -> None:
    three = study(task={"type": "multiclass", "classes": ["a", "b", "c"]}, features=FEATURES)
    world = draw(three, Assumed(signal=0.8), 0)
    assert world.auroc_of(world.best) == pytest.approx(0.8, abs=0.002)
    np.testing.assert_allclose(world.chances.mean(axis=0), 1 / 3, atol=0.002)
    assert set(np.concatenate([p.y for p in world.train.values()])) == {0.0, 1.0, 2.0}


def test_hospitals_that_do_not_differ_have_the_same_shares_and_others_have_not() -> None:
    large = replace(HERE, cohort=tuple(replace(m, patients=20_000) for m in HERE.cohort))

    def apart(differences: float) -> float:
        brest, lille = draw(large, Assumed(differences=differences), 0).train.values()
        return float(np.abs(brest.x.mean(axis=0) - lille.x.mean(axis=0)).max())

    assert apart(0.0) < 0.02 < apart(1.0)


def test_a_world_is_repeatable_and_another_seed_makes_another() -> None:
    one, again, other = (draw(HERE, Assumed(), seed).train["brest"] for seed in (3, 3, 4))
    assert same_bits({"x": one.x, "y": one.y}, {"x": again.x, "y": again.y})
    assert not same_bits({"x": one.x}, {"x": other.x})


@pytest.mark.parametrize(
    "values", [{"signal": 0.5}, {"signal": 1.0}, {"outcomes": 0.0}, {"differences": -1.0}, {"signal": float("nan")}]
)
def test_an_assumption_that_no_world_has_is_told(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"{next(iter(values))}: expected .* to .*, got"):
        Assumed(**values)
