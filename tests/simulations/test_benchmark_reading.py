"""The benchmark of reading prints a row for each store, with both sides."""

import json

import pytest

from simulations.benchmarks import reading


def test_each_store_has_a_row_with_seconds_and_memory_of_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    assert reading.main(["--rows", "300", "--repetitions", "1", "--stores", "parquet"]) == 0
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (row["store"], row["rows"], row["columns"]) == ("parquet", 300, 40)
    assert row["seconds_ours"] > 0 < row["seconds_pandas"]
    assert {"seconds_ratio", "busy_s_ratio", "peak_mb_ratio"} <= row.keys()
