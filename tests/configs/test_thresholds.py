"""The thresholds of an evaluation, and AUPRC: what is left out changes no digest."""

from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.load import study_from
from configs.strict_yaml import read_yaml

PRESET = Path(__file__).resolve().parents[2] / "configs" / "presets" / "heart_disease.yaml"


def document(**evaluation: Any) -> dict[str, Any]:
    made: dict[str, Any] = read_yaml(PRESET)
    made["evaluation"] |= evaluation
    return made


def test_a_study_that_states_none_has_no_such_key_and_its_usual_metrics() -> None:
    plain = study_from(document())
    assert "thresholds" not in plain.canonical
    assert "auprc" not in plain.canonical
    assert plain.evaluation.thresholds == ()


def test_those_that_are_stated_are_sorted_and_part_of_the_digest() -> None:
    stated = study_from(document(thresholds=[0.5, 0.1], metrics=["auroc", "auprc"]))
    assert stated.evaluation.thresholds == (0.1, 0.5)
    assert stated.evaluation.metrics == ("auroc", "auprc")
    assert stated.sha256 != study_from(document()).sha256


@pytest.mark.parametrize(
    "wrong", [[], [0.5, 0.5], [0.0], [1], ["half"], 0.5, [True], [0.1 + n / 100 for n in range(11)]]
)
def test_what_is_no_list_of_probabilities_is_an_error_that_says_what_to_do(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.thresholds: expected a list of 1 to 10 distinct probabilities"):
        study_from(document(thresholds=wrong))


def test_only_a_binary_task_has_them() -> None:
    made = document(thresholds=[0.5])
    made["task"] = {"type": "regression", "target": "chol", "range": [100, 400]}
    del made["features"]["chol"]
    made["evaluation"] = {"test_fraction": 0.3, "thresholds": [0.5]}
    with pytest.raises(ConfigError, match=r"evaluation\.thresholds: expected none for a task that is not binary"):
        study_from(made)
