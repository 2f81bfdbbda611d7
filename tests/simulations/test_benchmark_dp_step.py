"""The benchmark of a private step runs, and prints the rows that it promises."""

import json

import pytest
import torch

from simulations.benchmarks import dp_step


def test_a_quick_run_prints_both_ratios_of_each_case(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        dp_step.main(["--quick", "--cases", "logistic", "cnn", "mlp_end_to_end"])
    finally:
        torch.set_num_threads(threads)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(r["case"], r["batch"]) for r in rows] == [
        *(("logistic", 32), ("logistic", 2048)),
        *(("cnn", 32), ("mlp_end_to_end", 32)),
    ]
    assert all(r.keys() == {"case", "batch", "ratio_plain", "ratio_opacus"} and r["ratio_opacus"] > 0 for r in rows)
