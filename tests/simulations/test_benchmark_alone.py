"""The benchmark of the engine alone runs, on a network that is tiny."""

import json
from typing import Any

import pytest

from configs.schema import UNet
from simulations.benchmarks import alone


def test_a_row_says_what_each_way_costs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = alone.Case(UNet("unet", width=4, depth=1), (1, 8, 8), 2, maps=True, ways=("plain", "alone", "book_keeping"))

    def child(_name: str, way: str, **_: Any) -> tuple[float, float]:
        return alone._measured(tiny, way, 1)

    monkeypatch.setitem(alone.CASES, "unet", tiny)
    monkeypatch.setattr(alone, "_child", child)
    alone.main(["--quick", "--cases", "unet"])
    row = json.loads(capsys.readouterr().out)
    assert (row["case"], row["batch"]) == ("unet", 2)
    assert row["plain_ms"] > 0
    assert row["alone"] > 0
    assert set(row["memory"]) == set(tiny.ways)
