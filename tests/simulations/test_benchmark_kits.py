"""The benchmark of kits runs, and compares like with like."""

import pytest

from client.children.limits import can_confine
from simulations.benchmarks import kits


@pytest.mark.skipif(not can_confine(), reason="needs seccomp")
def test_the_benchmark_compares_equal_sums() -> None:
    (row,) = kits.rows(["mlp"], 2)
    assert row["sum_is_equal"]
    assert row["parameters"] == 32 * 64 + 64 + 64 + 1
    assert row["more_ms"] == pytest.approx(row["forked_ms"] - row["alone_ms"], abs=0.2)
