"""The benchmark of curves tells both sides of a row, at a size that a test can bear."""

import json

import pytest

from simulations.benchmarks import curves


def test_each_row_has_the_straight_model_and_the_curved_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "EPSILONS", (3.0,))
    curves.main(["--patients", "100", "--draws", "1"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["truth"], row["patients"], row["epsilon"]) for row in rows] == [
        ("curved", 100, 3.0),
        ("straight", 100, 3.0),
    ]
    curved, straight = rows
    assert curved["straight"] + 0.05 < curved["curve"] < curved["best"]
    assert abs(straight["gain"]) < 0.03
