"""The benchmark of textures reads pictures from files, and a linear model of fixed features finds the stripes."""

import json

import pytest

from simulations.benchmarks import textures


def test_each_epsilon_has_a_row_and_fixed_features_find_the_stripes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(textures, "EPSILONS", (8.0,))
    textures.main(["--patients", "40", "--draws", "1"])
    speed, row = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert speed["pictures_a_second"] > 0
    assert (row["patients"], row["epsilon"]) == (40, 8.0)
    assert 0.75 < row["auroc"] <= 1.0
