"""Budget never comes back: records that contradict each other stop training until a person adds to what is spent."""

import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from client.admission import Admissions
from client.audit import Audit
from client.cli import main
from client.enrol import load_signing_key
from client.ledger import Ledger
from client.reconcile import spent_by
from client.records import reasons_in
from configs import wire
from configs.frame import Frame
from configs.journal import GENESIS, read
from configs.schema import canonical_json
from configs.seal import Signed
from strategies.privacy.accounting import epsilon
from tests.builders import plain
from tests.client.ward import CAP, Ward, copied, spent, study_of, trained_ward, ward

FIRST, SECOND = study_of(1, epsilon_=2.5), study_of(2, epsilon_=2.5)


@pytest.fixture
def lille(tmp_path: Path) -> Ward:
    return trained_ward(tmp_path / "consortium", FIRST, rounds=2)


def refuses_everything(hospital: Ward) -> bool:
    """Whether proposals, rounds of the running study and of another one are all refused for the same reason."""
    codes = {hospital.propose(FIRST), hospital.propose(SECOND), hospital.train(FIRST, 3, nudge=9)}
    return codes | {hospital.train(SECOND, 1)} == {wire.UNSETTLED}


def settled(hospital: Ward, *flags: str) -> None:
    hospital.stop()
    assert main(["-C", str(hospital.folder), "settle", *flags, "--yes"]) == 0
    assert reasons_in(hospital.config) == []
    hospital.start()


def test_a_hospital_that_only_restarts_goes_on(lille: Ward) -> None:
    lille.start()
    assert lille.train(FIRST, 3) == 0
    lille.start()
    assert lille.train(FIRST, 4) == 0
    assert reasons_in(lille.config) == []
    assert main(["-C", str(lille.folder), "settle"]) == 0  # nothing to settle


DELETIONS = {
    "the ledger": ["ledger.sqlite"],
    "the ledger and the outbox": ["ledger.sqlite", "outbox"],
    "the journal": ["journal.jsonl"],
    "the ledger and the journal": ["ledger.sqlite", "journal.jsonl"],
    "all but the keys": ["ledger.sqlite", "journal.jsonl", "outbox", "admissions.sqlite"],
}


@pytest.mark.parametrize("names", DELETIONS.values(), ids=DELETIONS)
def test_what_was_deleted_stops_all_training_until_a_person_settles_it_and_nothing_comes_back(
    lille: Ward, names: list[str]
) -> None:
    before = spent(lille)
    lille.stop()
    for name in names:
        path = lille.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    lille.start()
    assert refuses_everything(lille)
    assert refuses_everything(lille.start())
    settled(lille)
    assert spent(lille) >= before
    for number in (1, 2, 3, 4):
        lille.train(FIRST, number, nudge=1)
        lille.train(SECOND, number)
    assert before <= lille.coordinator.epsilon <= CAP.epsilon


RESTORED = {
    "the whole folder": None,
    "the ledger": ["ledger.sqlite"],
    "the journal": ["journal.jsonl"],
    "the ledger and the journal": ["ledger.sqlite", "journal.jsonl"],
}


@pytest.mark.parametrize("names", RESTORED.values(), ids=RESTORED)
@pytest.mark.parametrize("running", [False, True])
def test_last_weeks_backup_stops_all_training(
    lille: Ward, tmp_path: Path, names: list[str] | None, running: bool
) -> None:
    backup = copied(lille.folder, tmp_path / "backup")
    assert lille.train(FIRST, 3) == 0
    before = spent(lille)
    if not running:
        lille.stop()
    for name in names or [path.name for path in lille.folder.iterdir()]:
        path = lille.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        source = backup / name
        if source.exists():
            shutil.copytree(source, path) if source.is_dir() else shutil.copyfile(source, path)
    if not running:
        assert refuses_everything(lille.start())
    elif names == ["ledger.sqlite"]:
        assert refuses_everything(lille)
    settled(lille) if not running else None
    assert running or spent(lille) >= before


@pytest.mark.parametrize("flags", [[], ["--all"]], ids=["settled", "settled with the whole cap"])
def test_a_backup_that_is_settled_before_the_coordinator_is_heard_does_not_hide_what_left_since(
    lille: Ward, tmp_path: Path, flags: list[str]
) -> None:
    backup = copied(lille.folder, tmp_path / "backup")
    for number in (3, 4):
        assert lille.train(FIRST, number) == 0
    lille.stop()
    copied(backup, lille.folder)
    (lille.folder / "ledger.sqlite").unlink()  # an older one, or none: a person is asked to settle
    assert reasons_in(lille.config)
    settled(lille, *flags)
    booked = spent(lille)
    assert refuses_everything(lille)
    settled(lille)
    assert booked <= spent(lille)
    assert lille.coordinator.epsilon <= spent(lille)
    assert lille.propose(SECOND) != wire.UNSETTLED  # the record that was settled is behind now
    for number in (1, 2, 3, 4):
        lille.train(FIRST, number, nudge=1)
        lille.train(SECOND, number)
    assert lille.coordinator.epsilon <= CAP.epsilon


def test_records_of_a_copy_that_were_settled_stay_behind_however_old(lille: Ward, tmp_path: Path) -> None:
    backup, given = copied(lille.folder, tmp_path / "backup"), [lille.coordinator.statement]
    for number in (3, 4):
        assert lille.train(FIRST, number) == 0
        given.append(lille.coordinator.statement)
    lille.stop()
    copied(backup, lille.folder)
    assert refuses_everything(lille.start())
    settled(lille)
    for statement in given:
        lille.coordinator.statement = statement
        assert lille.propose(FIRST) != wire.UNSETTLED
    assert lille.start().propose(SECOND) != wire.UNSETTLED
    assert reasons_in(lille.config) == []


def test_of_a_folder_and_its_copy_the_one_that_is_behind_is_refused_and_the_other_goes_on(
    lille: Ward, tmp_path: Path
) -> None:
    lille.stop()
    other = Ward(copied(lille.folder, tmp_path / "clone"), lille.coordinator, lille.studies)
    assert lille.start().train(FIRST, 3) == 0
    lille.stop()
    assert refuses_everything(other.start())
    other.stop()
    assert lille.start().train(FIRST, 4) == 0
    assert refuses_everything(other.start())


def test_a_copy_that_trained_stops_the_folder_that_it_was_made_of(lille: Ward, tmp_path: Path) -> None:
    lille.stop()
    other = Ward(copied(lille.folder, tmp_path / "clone"), lille.coordinator, lille.studies)
    for _ in range(5):
        lille.start().stop()  # its journal is longer than the copy's
    assert other.start().train(FIRST, 3) == 0
    other.stop()
    assert refuses_everything(lille.start())
    assert "a copy of this folder is in use elsewhere" in reasons_in(lille.config)[0]


def test_after_a_person_settled_the_copy_the_first_folder_is_refused_until_it_is_settled_too(
    lille: Ward, tmp_path: Path
) -> None:
    lille.stop()
    other = Ward(copied(lille.folder, tmp_path / "clone"), lille.coordinator, lille.studies)
    assert lille.start().train(FIRST, 3) == 0
    lille.stop()
    assert refuses_everything(other.start())
    settled(other)
    assert other.train(FIRST, 4) != wire.UNSETTLED
    other.stop()
    assert refuses_everything(lille.start())
    settled(lille)
    assert lille.propose(FIRST) == 0
    lille.stop()
    assert refuses_everything(other.start())
    assert lille.coordinator.epsilon <= CAP.epsilon


def test_both_of_two_copies_are_counted_where_each_released_unseen_by_the_other(lille: Ward, tmp_path: Path) -> None:
    lille.stop()
    other = Ward(copied(lille.folder, tmp_path / "clone"), lille.coordinator, lille.studies)
    assert lille.start().train(FIRST, 3) == 0
    lille.stop()
    lille.coordinator.given = lambda signed: None  # a message that was under way as the other one began
    assert other.start().train(FIRST, 3, nudge=1) == 0
    other.stop()
    lille.coordinator.given = lambda signed: signed
    assert refuses_everything(lille.start())
    settled(lille)
    assert spent(lille) >= lille.coordinator.epsilon > 0


def test_a_changed_ledger_row_is_seen_at_the_next_start(lille: Ward) -> None:
    lille.stop()
    with closing(sqlite3.connect(lille.folder / "ledger.sqlite", isolation_level=None)) as connection:
        connection.execute("UPDATE releases SET noise_multiplier = 1e6")
    before = lille.coordinator.epsilon
    assert refuses_everything(lille.start())
    settled(lille)
    assert spent(lille) >= before


def test_a_ledger_written_anew_with_a_chain_that_holds_is_seen(lille: Ward) -> None:
    lille.stop()
    (lille.folder / "ledger.sqlite").unlink()
    with closing(Ledger.open(lille.folder / "ledger.sqlite")) as forged:
        assert forged.flaw == ""
    assert refuses_everything(lille.start())


def test_settling_takes_nothing_away_and_says_so_before_it_does_it(
    lille: Ward, capsys: pytest.CaptureFixture[str]
) -> None:
    lille.stop()
    (lille.folder / "ledger.sqlite").unlink()
    assert main(["-C", str(lille.folder), "settle"]) == 1
    shown = capsys.readouterr().out
    assert "ledger.sqlite holds 0 releases, the journal lists 2" in shown
    assert "heart: 0 releases in the ledger, 2 with the journal's" in shown
    assert "settle --yes" in shown
    assert not (lille.folder / "ledger.sqlite").exists()
    settled(lille)
    record = [r for r in read(lille.folder / "journal.jsonl") if r.kind == "settled"][-1]
    assert record.facts["by"]
    assert len(record.facts["added"]) == 2
    assert lille.train(FIRST, 3) == 0  # what was known is booked as what it was: the study goes on


def test_settling_with_all_leaves_nothing_to_spend(lille: Ward) -> None:
    lille.stop()
    (lille.folder / "ledger.sqlite").unlink()
    settled(lille, "--all")
    assert spent(lille) == pytest.approx(CAP.epsilon, rel=0.01)
    assert lille.train(FIRST, 3) == 101
    assert lille.train(SECOND, 1) in (101, 110)


# Folders of the former release


def as_the_former_release_wrote_it(hospital: Ward) -> None:
    """Leave the journal without salt, and without what this release writes to it of bookings."""
    hospital.stop()
    path, previous, lines = hospital.folder / "journal.jsonl", GENESIS, []
    key = load_signing_key(hospital.config)
    kept = [record for record in read(path) if record.kind not in ("booked", "compared")]
    for number, record in enumerate(kept, 1):
        body = {"sequence": number, "time": record.time, "kind": record.kind, "facts": record.facts}
        digest = hashlib.sha256(canonical_json(body | {"previous": previous}).encode()).hexdigest()
        signature = key.sign(bytes.fromhex(digest))
        lines.append(canonical_json(body | {"previous": previous, "hash": digest, "signature": signature}) + "\n")
        previous = digest
    path.write_text("".join(lines))
    hospital.coordinator.statement = None


def test_a_folder_of_the_former_release_goes_on_and_is_compared_from_then_on(lille: Ward) -> None:
    as_the_former_release_wrote_it(lille)
    for number in range(3):  # as crashes of the former release left them
        shutil.copyfile(next((lille.folder / "outbox").glob("*.frame")), lille.folder / "outbox" / f"{number}.frame")
    assert lille.start().train(FIRST, 3) == 0
    assert Audit(lille.config, load_signing_key(lille.config)).verify() > 0
    booked = [record.facts for record in read(lille.folder / "journal.jsonl") if record.kind == "booked"]
    assert [facts["rows"] for facts in booked] == [2, 3]
    assert lille.start().train(FIRST, 4) == 0


def test_a_ledger_that_was_deleted_under_the_former_release_is_missed_at_the_first_start_and_booked_by_plan(
    lille: Ward,
) -> None:
    before = spent(lille)
    as_the_former_release_wrote_it(lille)
    (lille.folder / "ledger.sqlite").unlink()
    assert refuses_everything(lille.start())
    assert "2 releases left that ledger.sqlite does not hold" in reasons_in(lille.config)[0]
    settled(lille)
    assert spent(lille) == pytest.approx(before)
    assert lille.train(FIRST, 1, nudge=1) == wire.BEGUN
    assert lille.train(FIRST, 3) == 0


def test_where_plans_are_not_known_any_more_the_whole_budget_is_spent(lille: Ward) -> None:
    as_the_former_release_wrote_it(lille)
    (lille.folder / "ledger.sqlite").unlink()
    (lille.folder / "admissions.sqlite").unlink()
    settled(lille.start())
    assert spent(lille) == pytest.approx(CAP.epsilon, rel=0.01)


def test_a_study_without_privacy_needs_no_booking(lille: Ward) -> None:
    assert lille.node is not None
    with closing(Admissions.open(lille.config.admissions)) as admissions:
        study = plain(name="heart", cohort={"lille": 100})
        admissions.propose(study.sha256, study.name, study.canonical)
    lille.node.books.audit.keep(
        Frame("train reply", {}, {}), "ab" * 16, study=study.sha256, round=1, answers="", content=""
    )
    lille.stop()
    assert reasons_in(lille.config) == []


# Crashes


def test_one_message_that_a_crash_left_in_the_outbox_is_no_contradiction_and_more_of_them_are(lille: Ward) -> None:
    outbox = lille.folder / "outbox"
    frame = next(outbox.glob("*.frame"))
    for number in range(3):  # one at each start
        shutil.copyfile(frame, outbox / f"{number:032}.frame")
        assert lille.start().propose(FIRST) == 0
    shutil.copyfile(frame, outbox / f"{8:032}.frame")
    shutil.copyfile(frame, outbox / f"{9:032}.frame")
    assert refuses_everything(lille.start())
    assert "the outbox holds 2 messages that the journal does not name" in reasons_in(lille.config)[0]
    settled(lille)
    assert spent(lille) == pytest.approx(CAP.epsilon, rel=0.01)


# What the coordinator gives back


def test_an_instruction_that_was_answered_is_answered_again_whatever_waits_for_a_person(lille: Ward) -> None:
    lille.stop()
    (lille.folder / "ledger.sqlite").unlink()
    lille.start()
    left = dict(lille.coordinator.left)
    assert lille.train(FIRST, 2) == 0
    assert lille.coordinator.left == left


FORGERIES: dict[str, Callable[[Signed], Signed]] = {
    "truncated": lambda signed: Signed(signed.statement[:-10], signed.signature),
    "another number": lambda signed: Signed(signed.statement.replace('"sequence":', '"sequence":9'), signed.signature),
    "another signature": lambda signed: Signed(signed.statement, "00" * 64),
    "no JSON": lambda signed: Signed("é", "zz"),
    "nothing": lambda signed: Signed("", ""),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_what_this_hospital_did_not_sign_is_ignored_and_noted(lille: Ward, forge: Callable[[Signed], Signed]) -> None:
    lille.coordinator.given = lambda signed: forge(signed) if signed else None
    assert lille.train(FIRST, 3) == 0
    assert [r for r in read(lille.folder / "journal.jsonl") if r.kind == "ignored"]


def test_another_hospitals_record_is_ignored(lille: Ward, tmp_path: Path) -> None:
    other = ward(tmp_path / "others")
    other.start().propose(FIRST)
    for number in (1, 2, 3, 4):
        other.train(FIRST, number)
    lille.coordinator.given = lambda signed: other.coordinator.statement
    assert lille.train(FIRST, 3) == 0


def test_a_record_that_is_behind_or_missing_never_stops_a_hospital(lille: Ward) -> None:
    statements = [lille.coordinator.statement]
    for number in (3, 4):
        assert lille.train(FIRST, number) == 0
        statements.append(lille.coordinator.statement)
    for statement in (*statements, None, *reversed(statements)):
        lille.coordinator.given = lambda signed, given=statement: given  # type: ignore[misc]
        assert lille.propose(FIRST) == 0
        lille.start()
        assert lille.propose(FIRST) == 0


def test_a_record_from_before_a_person_settled_never_stops_the_settled_folder(lille: Ward, tmp_path: Path) -> None:
    backup = copied(lille.folder, tmp_path / "backup")
    statements = []
    for number in (3, 4):
        assert lille.train(FIRST, number) == 0
        statements.append(lille.coordinator.statement)
    lille.stop()
    copied(backup, lille.folder)
    assert lille.start().propose(FIRST) == wire.UNSETTLED
    settled(lille)
    for statement in statements:  # a coordinator that was put back, too
        lille.coordinator.given = lambda signed, given=statement: given  # type: ignore[misc]
        assert lille.propose(FIRST) == 0


def test_what_the_coordinator_is_told_follows_from_bookings_alone_and_names_no_identity(lille: Ward) -> None:
    assert lille.coordinator.statement is not None
    assert "heart" not in lille.coordinator.statement.statement
    assert lille.node is not None
    with closing(Ledger.open(lille.folder / "ledger.sqlite")) as ledger:
        (only,) = spent_by(ledger.releases(), lille.node.books.records._name).values()
    assert only.count == 2
    assert epsilon(list(lille.coordinator.left.values()), CAP.delta) == pytest.approx(spent(lille))
