"""The journal's chain: salted, so that a quoted hash says nothing; journals without salt still hold."""

import hashlib
import json
from pathlib import Path

import pytest

from configs import journal as journal_module
from configs.errors import JournalError
from configs.journal import GENESIS, Journal, read, verify
from configs.records.run_journal import Round
from configs.schema import canonical_json


def unsalted(path: Path, count: int) -> list[str]:
    """A journal as the former release wrote it; its hashes."""
    previous, lines, hashes = GENESIS, [], []
    for number in range(1, count + 1):
        body = {
            "sequence": number,
            "time": f"2026-01-01T00:00:0{number}.000+00:00",
            "kind": "round",
            "facts": {"round": number},
            "previous": previous,
        }
        previous = hashlib.sha256(canonical_json(body).encode()).hexdigest()
        lines.append(canonical_json({**body, "hash": previous}) + "\n")
        hashes.append(previous)
    path.write_text("".join(lines))
    return hashes


def test_equal_records_of_two_journals_have_nothing_in_common_that_a_hash_could_be_guessed_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(journal_module.datetime):  # type: ignore[misc,name-defined]
        @classmethod
        def now(cls, tz: object = None) -> "Clock":
            return cls(2026, 1, 1)

    monkeypatch.setattr(journal_module, "datetime", Clock)
    heads = {Journal(tmp_path / f"{n}.jsonl", durable=False).append("refused", why="line 77") for n in range(50)}
    assert len(heads) == 50
    salts = {record.salt for n in range(50) for record in read(tmp_path / f"{n}.jsonl")}
    assert len(salts) == 50
    assert {len(salt) for salt in salts} == {32}


def test_a_changed_or_removed_salt_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).append("round", round=1)
    whole = json.loads(path.read_text())
    for change in ({"salt": "0" * 32}, {"salt": ""}):
        path.write_text(canonical_json(whole | change) + "\n")
        with pytest.raises(JournalError, match="record 1: expected a hash that fits its content, found another"):
            verify(path)
    path.write_text(canonical_json({key: value for key, value in whole.items() if key != "salt"}) + "\n")
    with pytest.raises(JournalError, match="record 1: expected a hash that fits its content, found another"):
        verify(path)


def test_a_journal_without_salt_holds_and_goes_on_with_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    hashes = unsalted(path, 3)
    journal = Journal(path)
    assert (journal.sequence, journal.head) == (3, hashes[-1])
    last = journal.append("round", round=4)
    assert verify(path) == last
    assert [bool(record.salt) for record in read(path)] == [False, False, False, True]


def test_a_journal_knows_every_hash_that_it_has_had(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    hashes = unsalted(path, 2)
    journal, other = Journal(path), Journal(path)
    hashes += [journal.append("round"), other.append("round"), journal.append("round")]
    assert journal.sequence == 5
    assert [journal.hash_at(number) for number in range(6)] == [GENESIS, *hashes]
    assert [Journal(path).hash_at(number) for number in range(6)] == [GENESIS, *hashes]


@pytest.mark.parametrize("tail", [b'{"sequence": 3', b"\xff", b"{}"])
def test_half_a_record_is_cut_off_and_the_journal_says_so(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.append("first")
    journal.append("second")
    with path.open("ab") as file:
        file.write(tail)
    Journal(path).append("third")
    kinds = [(record.kind, dict(record.facts)) for record in read(path)]
    assert kinds == [("first", {}), ("second", {}), ("recovered", {"torn_bytes": len(tail)}), ("third", {})]


@pytest.mark.parametrize("line", [b"no JSON", b"[1]", b'{"sequence": 1}', b"[" * 100_000])
def test_what_is_no_record_is_named_by_its_place(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).append("first")
    with path.open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(JournalError, match="record 2: expected one JSON record, found something else"):
        verify(path)


def test_a_record_with_another_type_of_fact_is_refused_with_its_place_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).append("round", round="first")
    (record,) = read(path)
    with pytest.raises(JournalError, match=r"record 1 \(round\): .*round.*; keep the journal"):
        record.of(Round)
