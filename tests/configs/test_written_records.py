"""Files that a run of release 0.1.0 wrote: today's records read them, and write the same text again."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from configs.errors import JournalError, RecordError
from configs.journal import Journal, Record, read, verify
from configs.records import coordinator_journal, page, run_journal, site_journal
from configs.records.audit import AuditResult
from configs.records.fields import fields_of, plain
from configs.records.fields import read as read_record
from configs.records.result import StatisticsResult, TrainingResult, read_result

WRITTEN = Path(__file__).with_name("written")
ALL_KINDS = [kind for module in (site_journal, run_journal, coordinator_journal) for kind in module.KINDS.values()]
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


def test_an_audit_of_a_former_release_is_read_and_written_byte_for_byte() -> None:
    text = (WRITTEN / "simulated_private" / "audit.json").read_text("utf-8")
    assert json.dumps(plain(read_record(AuditResult, json.loads(text))), indent=1) + "\n" == text


def test_the_page_of_records_is_that_of_the_code() -> None:
    """Write it anew with `python -m configs.records`."""
    assert Path(page.__file__).with_name("RECORDS.md").read_text("utf-8") == page.render()


@pytest.mark.parametrize("kind", [TrainingResult, StatisticsResult, AuditResult, *ALL_KINDS])
def test_every_field_says_what_it_means(kind: type) -> None:
    assert [entry.name for entry in fields_of(kind) if not entry.meaning.endswith(".")] == []


JOURNALS = [
    pytest.param(WRITTEN / "site_journal.jsonl", site_journal, id="hospital"),
    pytest.param(WRITTEN / "coordinator_journal.jsonl", coordinator_journal, id="coordinator"),
    *(pytest.param(WRITTEN / run / "journal.jsonl", run_journal, id=run) for run in RUNS),
]


@pytest.mark.parametrize(("path", "module"), JOURNALS)
def test_every_record_of_a_former_journal_is_read_and_says_the_same_facts_again(path: Path, module: Any) -> None:
    assert verify(path)
    for record in read(path):
        facts = {key: value for key, value in record.facts.items() if module is run_journal or key != "number"}
        typed = record.of(module.KINDS[record.kind])
        assert typed is not None
        assert typed.to_facts() == facts, record.kind


@pytest.mark.parametrize("module", [coordinator_journal, run_journal, site_journal])
def test_each_kind_of_record_has_one_class_that_says_who_it_is(module: Any) -> None:
    classes = [kind for kind in vars(module).values() if isinstance(kind, type) and "kind" in vars(kind)]
    written = {kind for kind in classes if kind is not module.Kind and kind.__name__ != "Exchanged"}
    assert set(module.KINDS.values()) == written
    assert all(kind.__doc__ for kind in written)


def test_a_record_that_lacks_a_fact_is_named_with_what_to_do() -> None:
    record = Record(7, "2026-01-01T00:00:00", "booked", {"rows": "many", "ledger": "ab"}, "", "")
    with pytest.raises(JournalError, match=r"record 7 \(booked\): rows: expected a finite number") as caught:
        record.of(site_journal.Booked)
    assert "releases: expected a value, found nothing; keep the journal" in str(caught.value)


def test_an_optional_fact_that_is_absent_is_not_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write(site_journal.Approved(study="ab", by="policy"))
    (record,) = read(journal.path)
    assert record.facts == {"study": "ab", "by": "policy"}
