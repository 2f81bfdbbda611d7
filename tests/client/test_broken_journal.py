"""A hospital's journal that was changed, cut or overwritten: what people are told, and how it goes on."""

import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from client.audit import Audit
from client.broken import salvaged
from client.cli import main
from client.doctor import _records
from client.enrol import load_signing_key
from client.findings import WRONG
from client.records import reasons_in
from client.settle import settlement
from configs import wire
from configs.errors import JournalError
from configs.journal import read
from configs.records.site_journal import Compared
from tests.client.ward import CAP, Ward, spent, study_of, trained_ward

FIRST, SECOND = study_of(1, epsilon_=2.5), study_of(2, epsilon_=2.5)
Lines = list[bytes]


@pytest.fixture
def lille(tmp_path: Path) -> Ward:
    hospital = trained_ward(tmp_path / "consortium", FIRST, rounds=2)
    hospital.stop()
    return hospital


def changed(at: int) -> Callable[[Lines], Lines]:
    return lambda lines: [*lines[:at], lines[at].replace(b'"kind":"', b'"kind":"x'), *lines[at:][1:]]


def wiped(lines: Lines) -> Lines:
    """A block of a disk that came back as zeros."""
    whole = b"\n".join(lines)
    middle = len(whole) // 2
    return (whole[:middle] + bytes(400) + whole[middle + 400 :]).split(b"\n")


BROKEN: dict[str, Callable[[Lines], Lines]] = {
    "the first record changed": changed(0),
    "one in the middle changed": changed(5),
    "the last one changed": changed(-1),
    "one cut out": lambda lines: [*lines[:4], *lines[5:]],
    "the first cut out": lambda lines: lines[1:],
    "two swapped": lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]],
    "one twice": lambda lines: [*lines[:4], lines[3], *lines[4:]],
    "a line of nonsense": lambda lines: [*lines[:4], b"oops", *lines[4:]],
    "an empty line": lambda lines: [*lines[:4], b"", *lines[4:]],
    "no JSON object": lambda lines: [*lines, b"[]"],
    "too deep": lambda lines: [*lines, b"[" * 100_000],
    "zeros": wiped,
    "all nonsense": lambda lines: [b"oops"],
}


def broken(hospital: Ward, how: str) -> bytes:
    journal = hospital.folder / "journal.jsonl"
    lines = BROKEN[how](journal.read_bytes().rstrip(b"\n").split(b"\n"))
    journal.write_bytes(b"\n".join(lines) + b"\n")
    return journal.read_bytes()


def settled(hospital: Ward, *flags: str) -> None:
    hospital.stop()
    assert main(["-C", str(hospital.folder), "settle", *flags, "--yes"]) == 0


@pytest.mark.parametrize("how", BROKEN)
def test_who_starts_the_node_is_told_what_was_expected_and_found_and_what_to_run(
    lille: Ward, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = broken(lille, how)
    settle = f"archipel-site -C {lille.folder} settle"
    for command in (["start"], ["journal", "verify"], ["outbox"]):
        capsys.readouterr()
        assert main(["-C", str(lille.folder), *command]) == 2
        shown = capsys.readouterr().err
        assert re.search(r"journal\.jsonl: record [0-9]+: expected .*, found ", shown)
        assert "Nothing trains here until a person has looked" in shown
        assert shown.rstrip().endswith(f"Stop the node, and run: {settle}")
    assert main(["-C", str(lille.folder), "ledger"]) == 0
    shown = capsys.readouterr().out
    assert "WARNING  nothing trains here" in shown
    assert settle in shown
    (finding,) = _records(lille.config)
    assert (finding.verdict, finding.todo) == (WRONG, settle)
    assert (lille.folder / "journal.jsonl").read_bytes() == before  # as it was, for whoever looks


LEDGERS = [
    *((how, "whole") for how in BROKEN),
    *((how, "deleted") for how in ("one in the middle changed", "zeros", "all nonsense")),
    *((how, "emptied") for how in ("the last one changed", "all nonsense")),
]


@pytest.mark.parametrize(("how", "ledger"), LEDGERS)
def test_settle_keeps_the_broken_file_and_gives_no_budget_back(
    lille: Ward, how: str, ledger: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before, found = spent(lille), broken(lille, how)
    if ledger == "deleted":
        (lille.folder / "ledger.sqlite").unlink()
    elif ledger == "emptied":
        with closing(sqlite3.connect(lille.folder / "ledger.sqlite")) as connection:
            connection.execute("DELETE FROM releases")
            connection.commit()
    assert main(["-C", str(lille.folder), "settle"]) == 1
    assert "nothing is changed yet" in capsys.readouterr().out
    assert (lille.folder / "journal.jsonl").read_bytes() == found
    settled(lille)
    (kept,) = lille.folder.glob("journal.jsonl.before-settle-*")
    assert kept.read_bytes() == found
    if ledger == "whole":
        assert spent(lille) >= before
    assert main(["-C", str(lille.folder), "journal", "verify"]) == 0
    (record,) = read(lille.folder / "journal.jsonl")
    assert (record.kind, record.facts["former"]) == ("settled", kept.name)
    capsys.readouterr()
    assert main(["-C", str(lille.folder), "outbox"]) == 0
    assert kept.name in capsys.readouterr().out
    assert reasons_in(lille.config) == []
    lille.start()
    assert lille.propose(SECOND) == wire.UNSETTLED  # the coordinator's record lists what this journal does not
    settled(lille)
    lille.start()
    assert spent(lille) >= before
    for number in (1, 2, 3, 4):
        lille.train(FIRST, number, nudge=1)
        lille.train(SECOND, number)
    assert lille.coordinator.epsilon <= CAP.epsilon


def test_a_forged_record_is_seen_by_whoever_settles(lille: Ward) -> None:
    journal = lille.folder / "journal.jsonl"
    *others, last = journal.read_bytes().rstrip(b"\n").split(b"\n")
    forged = {**json.loads(last), "signature": "00" * 64}
    journal.write_bytes(b"\n".join([*others, json.dumps(forged).encode()]) + b"\n")
    found = settlement(lille.config, load_signing_key(lille.config), everything=False)
    assert "expected a signature by this journal's key, found another; it was forged" in found.reasons[0]
    settled(lille)
    assert lille.start().propose(SECOND) == wire.UNSETTLED


ODD = {
    "no facts": {"kind": "booked"},
    "no releases": {"kind": "booked", "facts": {"rows": 1, "ledger": "x"}},
    "rows that are none": {"kind": "booked", "facts": {"rows": 9, "ledger": "x", "releases": [[1], None, "row", []]}},
    "an unknown kind": {
        "kind": "booked",
        "facts": {"rows": 9, "ledger": "", "releases": [["heart", "s", 1, 0, "x", 1.0, 0.1, 1, None, None]]},
    },
    "no noise": {
        "kind": "booked",
        "facts": {"rows": 9, "ledger": "", "releases": [["heart", "s", 1, 0, "gaussian", 0.0, 1.0, 1, None, None]]},
    },
    "noise that is no number": {
        "kind": "booked",
        "facts": {
            "rows": 9,
            "ledger": "",
            "releases": [["heart", "s", 1, 0, "gaussian", float("nan"), 1.0, 1, None, None]],
        },
    },
    "a message of nothing": {"kind": "sent", "facts": {}},
    "settled": {"kind": "settled", "facts": {"settled": 9, "rows": 0, "ledger": "", "releases": [], "orphans": []}},
    "compared": {"kind": "compared", "facts": {"rows": 0, "ledger": "", "orphans": []}},
}


@pytest.mark.parametrize("what", ODD)
def test_behind_a_break_nothing_is_believed_but_what_adds(lille: Ward, what: str) -> None:
    key = load_signing_key(lille.config)
    whole, _ = salvaged(lille.config, key)
    with (lille.folder / "journal.jsonl").open("ab") as file:
        file.write(b"oops\n" + json.dumps(ODD[what]).encode() + b"\n")
    traces, flaw = salvaged(lille.config, key)
    assert flaw
    assert (traces.listed, traces.left, traces.settled) == (whole.listed, whole.left, whole.settled)
    before = spent(lille)
    settled(lille)
    assert spent(lille) >= before


def test_bookings_behind_a_break_count_where_the_ledger_is_gone(lille: Ward) -> None:
    before = spent(lille)
    broken(lille, "the first record changed")
    (lille.folder / "ledger.sqlite").unlink()
    shutil.rmtree(lille.folder / "outbox")
    settled(lille)
    assert spent(lille) >= before


def test_a_journal_that_breaks_while_the_node_runs_stops_it_with_the_same_words(lille: Ward) -> None:
    audit = Audit(lille.config, load_signing_key(lille.config))
    with (lille.folder / "journal.jsonl").open("ab") as file:
        file.write(b"oops\n")
    with pytest.raises(JournalError, match=r"expected one JSON record, found something else.* settle$"):
        audit.note(Compared(rows=0, ledger="", orphans=()))
