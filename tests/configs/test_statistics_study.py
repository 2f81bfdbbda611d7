"""A study file that asks for statistics: what it needs, what makes no sense in it, and that it reads back the same."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.load import load_study, study_from
from tests.builders import counting, study

PRESET = Path(__file__).resolve().parents[2] / "configs" / "presets" / "heart_statistics.yaml"


def problems(**changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as told:
        counting(**changes)
    return [line.strip() for line in str(told.value).splitlines()[1:]] or [str(told.value)]


def test_the_canonical_form_reads_back_as_the_same_study() -> None:
    for chosen in (counting(), load_study(PRESET)):
        again = study_from(json.loads(chosen.canonical))
        assert (again.sha256, again.canonical) == (chosen.sha256, chosen.canonical)


def test_it_holds_nothing_that_only_a_training_needs() -> None:
    document = json.loads(counting().canonical)
    assert not {"model", "evaluation", "scaling"} & set(document)
    assert set(document["training"]) == {"quorum", "round_timeout_s"}
    assert set(document["privacy"]) == {"mode", "epsilon", "delta"}


def test_a_study_that_trains_keeps_the_digest_that_it_had() -> None:
    assert "bins" not in study().canonical
    preset = load_study(PRESET.with_name("heart_disease.yaml"))
    before = replace(preset, privacy=replace(preset.privacy, spare=0))
    assert before.sha256 == "ade4e4f4159a38f8304df013e1ba4aa7623dd2b93a606fbe61c04e30be51f4cc"


def test_quorum_and_bins_have_defaults() -> None:
    chosen = counting(training={}, task={"type": "statistics", "target": "disease"})
    assert (chosen.training.quorum, chosen.task.bins, chosen.task.classes) == (3, 10, ("0", "1"))


def test_every_key_that_makes_no_sense_is_told_at_once() -> None:
    found = problems(
        model={"name": "logistic"},
        evaluation={"test_fraction": 0.3},
        scaling="public",
        training={"rounds": 3, "local": {}, "strategy": {"name": "fedavg"}, "weights": "public", "average_last": 0.5},
        privacy={"mode": "local", "epsilon": 0.5, "delta": 1e-5, "clip_norm": 1.0},
        features={"age": {"type": "number"}},
    )
    paths = [line.split(":")[0] for line in found]
    assert sorted(paths) == sorted(
        [
            *("model", "evaluation", "scaling", "privacy.clip_norm", "features.age.range"),
            *(f"training.{key}" for key in ("rounds", "local", "strategy", "weights", "average_last")),
        ]
    )
    assert all("remove it" in line for line in found if "range" not in line)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": {"type": "statistics"}}, "task.target: expected a column's name, found nothing"),
        ({"task": {"type": "statistics", "target": "age"}}, "task.target: expected a column that is not a feature"),
        ({"task": {"type": "statistics", "target": "d", "bins": 1}}, "task.bins: expected an integer from 2 to 100"),
        (
            {"task": {"type": "statistics", "target": "d", "classes": ["ill"]}},
            "task.classes: expected two values or more",
        ),
        (
            {"task": {"type": "statistics", "target": "d", "classes": ["a", "b"], "range": [0, 1]}},
            "task.range: expected either classes or range",
        ),
        ({"task": {"type": "statistics", "target": "d", "range": [1, 0]}}, "task.range: expected [low, high]"),
        ({"task": {"type": "statistic", "target": "d"}}, "did you mean 'statistics'?"),
        ({"privacy": {"mode": "none"}}, "privacy.mode: expected local, as no exact count of patients leaves"),
        ({"privacy": {"mode": "local", "epsilon": 0.001, "delta": 1e-5}}, "privacy.epsilon: expected 0.01 to 100"),
        ({"privacy": {"mode": "local", "epsilon": 1, "delta": 0.01}}, "delta < 1/patients"),
        ({"training": {"quorum": 4}}, "training.quorum: expected an integer from 1 to 3"),
        ({"training": {"quorums": 2}}, "training.quorums: unknown key; did you mean 'quorum'?"),
        ({"features": {}}, "features: expected at least one column"),
    ],
    ids=lambda value: value.split(":")[0] if isinstance(value, str) else "",
)
def test_a_mistake_is_told_with_its_place(changes: dict[str, Any], said: str) -> None:
    assert any(said in line for line in problems(**changes))


def test_bins_are_for_statistics_alone() -> None:
    with pytest.raises(ConfigError, match=r"task\.bins: unknown key"):
        study(task={"bins": 5})
