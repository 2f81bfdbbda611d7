"""Files that a run of release 0.1.0 wrote: today's records read them, and write the same text again."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from configs.errors import RecordError
from configs.records.fields import plain
from configs.records.result import read_result

WRITTEN = Path(__file__).with_name("written")
RUNS = sorted(path.parent.name for path in WRITTEN.glob("*/metrics.json"))


def document(run: str) -> Any:
    return json.loads((WRITTEN / run / "metrics.json").read_text("utf-8"))


@pytest.mark.parametrize("run", RUNS)
def test_metrics_of_a_former_release_are_read_and_written_byte_for_byte(run: str) -> None:
    text = (WRITTEN / run / "metrics.json").read_text("utf-8")
    assert json.dumps(plain(read_result(json.loads(text))), indent=1, allow_nan=False) + "\n" == text


def test_keys_of_a_newer_release_are_skipped() -> None:
    newer = document("simulated_plain") | {"later": {"a": 1}}
    newer["sites"][0]["later"] = "b"
    assert read_result(newer) == read_result(document("simulated_plain"))


def test_every_mistake_of_a_file_is_named_with_its_place() -> None:
    broken = document("simulated_private")
    del broken["outcome"]
    broken["sites"][1]["steps"] = 1.5
    broken["models"]["federated"]["per_site"]["hungary"]["low"] = "low"
    broken["rounds"][0]["contributed"] = 3
    with pytest.raises(RecordError) as caught:
        read_result(broken)
    assert caught.value.problems == (
        "outcome: expected a value, found nothing",
        "rounds[0].contributed: expected an object, found a number",
        "sites[1].steps: expected a whole number from 0 to 9007199254740992, found another number",
        "models.federated.per_site.hungary.low: expected a finite number, found text",
    )


@pytest.mark.parametrize("value", [True, "1", float("inf"), float("nan"), 1e200, [1.0]])
def test_what_is_no_finite_number_is_no_epsilon(value: object) -> None:
    broken = document("simulated_private")
    broken["sites"][0]["epsilon"] = value
    with pytest.raises(RecordError, match=re.escape("sites[0].epsilon: expected a finite number, found ")):
        read_result(broken)
