"""The utility benchmark: every epsilon against every reference, from the measurements that heart_utility makes."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from simulations.benchmarks import heart_utility, utility
from simulations.benchmarks.heart_utility import Row, Scores

Measured = tuple[Scores, float]
ASKED: dict[str, Any] = {"noise_seeds": 1, "epsilons": (3.0, 0.05)}
REFERENCES = ["federated_without_privacy", "clipping_alone", "pooled", "local_only", "best_local"]


@pytest.fixture(scope="module")
def measured() -> Measured:
    return heart_utility.scored(range(2), **ASKED)


@pytest.fixture
def rows(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    monkeypatch.setattr(utility, "scored", lambda *_: measured)
    return list(utility.rows(range(2), **ASKED))


def test_each_reference_and_each_epsilon_has_a_row(rows: list[Row]) -> None:
    assert [(row["system"], row["epsilon"]) for row in rows] == [
        *((name, None) for name in REFERENCES),
        ("federated", 3.0),
        ("federated", 0.05),
    ]
    for row in rows[5:]:
        assert {key for key in row if key.startswith("against_")} == {f"against_{name}" for name in REFERENCES}
        assert row["epsilon"] - 0.001 < row["epsilon_spent"] <= row["epsilon"]


def test_a_difference_is_paired_split_by_split(rows: list[Row], measured: Measured) -> None:
    aurocs = measured[0].auroc
    paired = np.array(aurocs["federated", 3.0]) - np.array(aurocs["local_only", None])
    found = rows[5]["against_local_only"]
    assert found["difference"] == pytest.approx(paired.mean(), abs=1e-4)
    reach = 12.706 * abs(paired[0] - paired[1]) / 2  # Student's t with one degree of freedom, from a table
    assert found["difference_high"] - found["difference"] == pytest.approx(reach, rel=1e-3, abs=2e-4)


def test_a_tiny_epsilon_costs_much_and_a_larger_one_little(rows: list[Row]) -> None:
    large, tiny = (row["against_federated_without_privacy"]["difference"] for row in rows[5:])
    assert tiny < -0.03 < large


def test_both_commands_tell_the_same_of_the_same_measurements(
    rows: list[Row], measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heart_utility, "scored", lambda *_: measured)
    others = [row for row in heart_utility.rows(range(2), **ASKED) if row.get("system") == "federated"]
    for row, other in zip(rows[5:], others, strict=True):
        assert other["auroc"] == row["auroc"]
        assert other["difference"] == row["against_federated_without_privacy"]["difference"]


def test_the_command_prints_one_json_line_a_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows(seeds: Sequence[int], noise_seeds: int) -> list[Row]:
        return [{"seeds": list(seeds), "noise_seeds": noise_seeds}, {"more": None}]

    monkeypatch.setattr(utility, "rows", rows)
    assert utility.main(["--splits", "2", "--first-seed", "7"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found == [{"seeds": [7, 8], "noise_seeds": 1}, {"more": None}]


def test_a_number_of_splits_that_makes_no_sense_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        utility.main(["--splits", "1"])
    assert stopped.value.code == 2
    assert "--splits" in capsys.readouterr().err
