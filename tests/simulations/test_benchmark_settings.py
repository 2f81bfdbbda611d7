"""The benchmark of settings: rows for each epsilon, by the real path, on a tiny case."""

import json
from typing import Any

import pytest

from simulations.benchmarks import settings


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return list(settings.rows(share=0.8, hospitals=3, worlds=1))


def test_a_row_is_one_share_hospitals_epsilon_and_settings(rows: list[dict[str, Any]]) -> None:
    assert [(row["epsilon"], row["settings"]) for row in rows] == [
        (epsilon, name) for epsilon in (None, 3.0, 1.0) for name in ("auto", "preset")
    ]
    names = {"share", "hospitals", "epsilon", "auroc_loss", "calibration", "balanced_accuracy"}
    assert all(row.keys() > names for row in rows)
    assert json.loads(json.dumps(rows)) == rows


def test_copied_settings_call_everybody_ill_where_the_outcome_is_frequent_and_those_of_auto_do_not(
    rows: list[dict[str, Any]],
) -> None:
    auto, copied = (
        next(r for r in rows if (r["epsilon"], r["settings"]) == (3.0, name)) for name in ("auto", "preset")
    )
    assert abs(auto["calibration"]) < 0.05 < copied["calibration"]
    assert auto["auroc_loss"] < copied["auroc_loss"]
    assert copied["balanced_accuracy"] == pytest.approx(0.5, abs=0.01)


def test_without_privacy_auto_converges(rows: list[dict[str, Any]]) -> None:
    assert abs(rows[0]["auroc_loss"]) < 0.005
