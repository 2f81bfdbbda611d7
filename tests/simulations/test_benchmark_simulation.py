"""The benchmark of clients per second runs, and prints the rows that it promises."""

import json

import pytest

from simulations.benchmarks import simulation


def test_a_quick_run_prints_a_row_for_each_system_and_their_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    simulation.main(["--quick", "--clients", "4", "--systems", "plain", "inprocess"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    keys = {"system", "clients", "private", "clients_per_second", "startup_seconds", "memory_mb"}
    assert [(r["system"], r["private"]) for r in rows if r.keys() == keys] == [
        ("plain", False),
        ("inprocess", False),
        ("plain", True),
        ("inprocess", True),
    ]
    assert [r["ratio"] for r in rows if "ratio" in r] == ["inprocess/plain", "inprocess/plain"]
    assert all(value > 0 for r in rows for key, value in r.items() if key in ("clients_per_second", "startup_seconds"))
