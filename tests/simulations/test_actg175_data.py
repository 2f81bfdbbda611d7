"""The made hospitals of ACTG 175 are what the source gives, and every patient is in one of them."""

from pathlib import Path

import pytest

from simulations.data.actg175 import rebuild


def test_the_files_are_what_the_source_gives(capsys: pytest.CaptureFixture[str]) -> None:
    assert rebuild.main(["--check"]) == 0
    assert capsys.readouterr().out == "4 files are what the source gives\n"
    rows = [len((rebuild.FOLDER / f"{name}.csv").read_text().splitlines()) - 1 for name in rebuild.HOSPITALS]
    assert rows == [667, 577, 515, 380]
    assert sum(rows) == 2139


def test_another_source_is_refused_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ACTG175.csv").write_text("pidnum,age\n1,2\n")
    assert rebuild.main(["--source", str(tmp_path / "ACTG175.csv")]) == 2
    assert "ACTG175.csv: expected SHA-256 56fba31f" in capsys.readouterr().err
