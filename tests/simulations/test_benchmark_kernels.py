"""The benchmark of kernels: one digest whatever the kernel and the threads, and a sentence where one cannot run."""

import json
import subprocess

import pytest

from simulations.benchmarks import kernels


def test_every_kernel_and_number_of_threads_trains_the_same_bits(capsys: pytest.CaptureFixture[str]) -> None:
    kernels.main(["--quick", "--kernels", "Haswell", "SkylakeX"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    ran = {row["kernel"] for row in rows if "digest" in row}
    assert {row["kernel"] for row in rows} == {"Haswell", "SkylakeX"}
    assert all("skipped" in row for row in rows if row["kernel"] not in ran)
    assert len({row["digest"] for row in rows if "digest" in row}) == 1 or not ran
    for kernel in ran:
        own = [row for row in rows if row["kernel"] == kernel]
        assert [row["threads"] for row in own if "digest" in row] == [1, 2]
        assert [(row["case"], row["batch"]) for row in own if "case" in row] == list(kernels.CASES)
        assert all(row["ratio_plain"] > 0 and row["ratio_opacus"] > 0 for row in own if "case" in row)


def test_a_kernel_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """An OpenBLAS that was built without a kernel runs another one in its place."""

    class Done:
        returncode, stdout, stderr = 0, '{"runs": "Haswell"}\n', ""

    monkeypatch.setattr(subprocess, "run", lambda *_, **__: Done())
    assert list(kernels._rows("Zen", quick=True)) == [{"skipped": "NumPy's OpenBLAS runs Haswell in its place"}]
    Done.returncode = -4
    assert list(kernels._rows("SkylakeX", quick=True)) == [
        {"skipped": "the processor lacks its instructions (signal 4)"}
    ]
