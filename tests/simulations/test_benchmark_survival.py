"""The benchmark of survival tells what privacy costs beside a pooled Cox model, at a size that a test can bear."""

import json
import sys

import pytest

from simulations.benchmarks import kaplan_meier, survival


def test_each_row_has_the_federation_and_its_anchors(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survival, "EPSILONS", (None, 3.0))
    assert survival.main(["--sets", "actg175,unheard", "--splits", "1", "--patients", "400"]) == 0
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert [(row["set"], row["patients"], row["hospitals"], row["epsilon"]) for row in rows] == [
        ("actg175", 400, 4, None),
        ("actg175", 400, 4, 3.0),
    ]
    assert all(0.5 < row[key] < 0.8 for row in rows for key in ("c_index", "cox", "alone"))
    assert "unheard: expected one of" in printed.err


def test_a_set_of_a_package_that_is_not_there_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "SurvSet.data", None)
    assert survival.main(["--sets", "rott2"]) == 0
    assert capsys.readouterr().err == "rott2: expected the package SurvSet, found none; pip install SurvSet\n"


def test_the_benchmark_of_released_risks_tells_how_often_intervals_hold(capsys: pytest.CaptureFixture[str]) -> None:
    kaplan_meier.main(["--simulations", "5"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == len(kaplan_meier.CASES)
    assert all(0.6 <= row["held"] <= 1 and 0 < row["width"] < 0.8 for row in rows)
