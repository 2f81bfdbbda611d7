"""A hospital without such a release in its plan: its reply is refused like any other that no honest one sends."""

from typing import Any

import numpy as np
import pytest

from configs.errors import ImplausibleError
from configs.schema import Study
from simulations.planning import plan_study
from strategies.releases.registry import RELEASES
from tests.builders import study

ONLY: dict[str, Any] = {"test_fraction": 0.25, "release": {"epsilon": 1.0}, "test_only": ["lyon"]}
SURVIVAL: dict[str, Any] = {"type": "survival", "time": "t", "event": "died", "intervals": [0, 10, 20]}


@pytest.fixture(scope="module")
def asking() -> Study:
    return study(
        evaluation=ONLY, releases={"inference": {"epsilon": 0.5}, "subgroups": {"epsilon": 1.0, "by": ["age"]}}
    )


@pytest.mark.parametrize("name", ["inference", "subgroups", "kaplan_meier"])
def test_a_reply_of_a_hospital_that_only_tests_or_announced_nothing_ends_no_run(name: str, asking: Study) -> None:
    only = {"test_fraction": 0.25, "test_only": ["lyon"]}
    of_times = study(task=SURVIVAL, evaluation=only, releases={"kaplan_meier": {"epsilon": 1.0}})
    chosen, kind = of_times if name == "kaplan_meier" else asking, RELEASES[name]
    ((array, (shape, _)),) = kind.arrays(chosen).items()
    judge = kind.judge(chosen, {}, lambda _: {})
    judge.require("lille", {array: np.zeros(shape, np.float32)})
    for site in ("lyon", "elsewhere"):
        with pytest.raises(ImplausibleError, match=rf"{name} reply: expected none, as this hospital has no"):
            judge.require(site, {array: np.zeros(shape, np.float32)})


def test_a_plan_is_made_where_a_hospital_only_tests(asking: Study) -> None:
    assert any("120 training patients are too few" in note for note in plan_study(asking).notes)
