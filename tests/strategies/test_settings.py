"""The rule behind `training: auto`: public facts in, settings out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import ConfigError
from configs.schema import Feature, Study
from simulations.complete import finished
from strategies.data.source import Table
from strategies.data.table import encode
from strategies.learning import learning_of
from strategies.settings import CLIP_SHARE, NOISE_TIME, noise_of, row_norm, settings_of
from strategies.tasks.registry import objective_of
from tests import builders

SEX = Feature("sex", "category", values=("female", "male"))
PAIN = Feature("pain", "category", values=("none", "some", "much"), missing=("9",))
AGE = Feature("age", "number", minimum=20.0, maximum=90.0)


def chosen(study: Study) -> dict[str, Any]:
    return {setting.key: setting.value for setting in settings_of(study)}


def learning_time(study: Study) -> float:
    settings = chosen(study)
    return float(settings["rounds"] * settings["local"]["learning_rate"])


def test_the_row_norm_is_that_of_rows_whose_values_are_as_assumed() -> None:
    rng, rows = np.random.default_rng(0), 20_000
    ages = np.clip(55 + 35 * rng.normal(np.sqrt(0.03), 0.4, rows), 20, 90)
    made = Table(
        {"age": ages},
        {"sex": rng.integers(0, 2, rows), "pain": np.where(rng.random(rows) < 0.05, -1, rng.integers(0, 3, rows))},
        {"disease": np.zeros(rows)},
        np.arange(rows),
        tuple(map(str, range(rows))),
    )
    x = encode(made, (AGE, SEX, PAIN), objective_of(builders.study()), centred=True).x
    assert row_norm((AGE, SEX, PAIN)) == pytest.approx(np.sqrt(1 + (x**2).sum(axis=1).mean()), rel=0.02)


def test_a_curve_makes_rows_longer() -> None:
    assert row_norm((replace(AGE, curve=6),)) > row_norm((AGE,))


def test_less_noise_is_a_longer_learning_time() -> None:
    times = [learning_time(builders.study(privacy={"epsilon": epsilon})) for epsilon in (0.5, 1.0, 3.0, 8.0)]
    assert times == sorted(times)
    assert times[0] < times[-1]
    many = builders.study(cohort={"brest": 600, "lille": 1000, "lyon": 800})
    assert learning_time(many) > learning_time(builders.study())
    assert noise_of(many) == pytest.approx(noise_of(builders.study()) / 10)


def test_noise_adds_up_to_the_same_size_whatever_epsilon() -> None:
    for epsilon in (0.5, 1.0):
        study = builders.study(privacy={"epsilon": epsilon})
        steepness = 0.25 * row_norm(study.features) ** 2
        assert learning_time(study) * noise_of(study) * steepness == pytest.approx(NOISE_TIME, rel=0.05)


def test_no_step_is_longer_than_any_loss_allows() -> None:
    for study in (builders.study(privacy={"epsilon": 50.0}), builders.plain()):
        settings = chosen(study)
        assert settings["local"]["learning_rate"] * 0.25 * row_norm(study.features) ** 2 < 4.2
        assert settings["rounds"] <= 100


def test_the_clip_norm_is_a_share_of_the_row_norm_and_of_nothing_else() -> None:
    one, other = builders.study(), builders.study(privacy={"epsilon": 0.5, "delta": 1e-6}, cohort={"brest": 900})
    assert chosen(one)["clip_norm"] == chosen(other)["clip_norm"]
    assert chosen(one)["clip_norm"] == pytest.approx(CLIP_SHARE * row_norm(one.features), rel=0.05)


def test_only_a_study_with_categories_is_centred_and_only_an_announced_share_begins_there() -> None:
    assert chosen(builders.study())["scaling"] == "centred"
    numbers = builders.study(features={"age": {"type": "number", "range": [20, 90]}})
    assert not {"scaling", "init"} & chosen(numbers).keys()
    announced = builders.study(task={"outcome_share": 0.2})
    assert chosen(announced)["init"] == "share"


def test_a_study_without_privacy_may_announce_no_size() -> None:
    sites = {"brest": {"connector": "csv", "path": "brest.csv"}}
    settings = chosen(builders.plain(cohort=None, training={"quorum": 1}, simulation={"sites": sites}))
    assert settings["weights"] == "uniform"
    assert "clip_norm" not in settings


SURVIVAL = {"type": "survival", "time": "days", "event": "died", "intervals": [0, 90, 180, 365]}


def test_hazards_begin_where_the_announced_share_has_an_event_in_the_end() -> None:
    for causes in ({}, {"causes": ["cancer", "other"]}):
        task = SURVIVAL | causes | {"outcome_share": 0.3}
        study = builders.study(
            task=task, evaluation={"metrics": ["c_index"]}, model={"name": "logistic", "init": "share"}
        )
        learning = learning_of(study)
        risks = learning.objective.predict(np.repeat(learning.initial(0)["0.bias"][None].astype(float), 3, axis=0))
        assert risks[0].reshape(-1, 3)[:, -1].sum() == pytest.approx(0.3, abs=1e-6)


def test_a_survival_study_without_a_share_is_not_completed() -> None:
    study = builders.study(task=SURVIVAL, evaluation={"metrics": ["c_index"]})
    with pytest.raises(ConfigError, match=r"task\.outcome_share: expected the share of patients with an event"):
        settings_of(study)


def test_a_study_without_hospitals_is_not_completed() -> None:
    with pytest.raises(ConfigError, match="cohort: expected each hospital's announced patients for training: auto"):
        settings_of(replace(builders.plain(), cohort=(), simulation=()))


@pytest.mark.parametrize(
    "task",
    [
        {"type": "multiclass", "target": "stage", "classes": ["i", "ii", "iii"]},
        {"type": "counts", "target": "visits", "range": [0, 20]},
        {"type": "regression", "target": "pressure", "range": [80, 200]},
    ],
    ids=lambda task: task["type"],
)
def test_every_task_has_settings(task: dict[str, Any]) -> None:
    document = builders.study().to_dict() | {"task": task, "training": "auto", "evaluation": {"test_fraction": 0.0}}
    document["model"] = {"name": "logistic" if task["type"] == "multiclass" else "linear"}
    study = finished(document, Path("study.yaml")).study
    assert not study.is_unfinished
    assert "init" not in {setting.key for setting in settings_of(study)}


def test_every_setting_says_why() -> None:
    assert all(setting.why for setting in settings_of(builders.study()))
