"""The accounting benchmark prints rows whose differences are those that the product promises."""

import json

import pytest

from simulations.benchmarks import accounting


def test_two_hundred_distinct_rounds_are_answered_in_under_a_second_and_in_bounded_memory() -> None:
    """In a process of its own, imports done: a fifth of a second and 0.1 GB where it was measured."""
    found = min((accounting._run("ours", quick=False) for _ in range(3)), key=lambda run: run["seconds"])
    assert found["seconds"] < 1.0
    assert found["memory_mb"] < 500


def test_each_row_has_the_four_accountants_in_their_known_order(capsys: pytest.CaptureFixture[str]) -> None:
    accounting.main(["--quick"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    compared = [row for row in rows if row["case"] == "epsilon"]
    assert len(compared) == 2
    assert all(0 <= row["ours_above"] < 1e-3 < row["prv_above"] < 0.02 < row["rdp_above"] for row in compared)
    sides = {row["side"]: row for row in rows if "side" in row}
    assert 0 <= sides["ours"]["epsilon"] - sides["dp-accounting"]["epsilon"] < 1e-3
