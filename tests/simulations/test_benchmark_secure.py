"""The benchmark of secure sums prints its rows, and the coordinator holds no model of each hospital."""

import json

import pytest

from simulations.benchmarks import secure


def test_each_number_of_hospitals_has_a_row_and_the_coordinator_holds_one_sum(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert secure.main(["--parameters", "50000", "--repetitions", "1"]) == 0
    *rows, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["hospitals"] for row in rows] == [4, 10, 50]
    assert all(row["mask_ms_per_million"] > 0 < row["noise_ms_per_million"] for row in rows)
    assert last["coordinator_models"] < 3
