"""The benchmark of very many patients measures what it says, at a size that a test can bear."""

import json

import pytest

from simulations.benchmarks import many_patients


def test_each_command_is_measured_and_the_model_is_there_before_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    many_patients.main(["--patients", "2000", "--only", "simulate", "baselines"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["command"] for row in rows] == ["simulate", "baselines"]
    for row in rows:
        assert row["rc"] == 0
        assert 50 < row["peak_mb"] < 2000
        assert 0 < row["model_s"] <= row["seconds"]
