"""What a hospital keeps: keys, approvals, policy, the journal and the outbox."""

import dataclasses
import os
import stat
from pathlib import Path

import pytest

from client.admission import MAX_WAITING, Admissions
from client.audit import Audit
from client.cli import main
from client.egress import DECISIONS, SENTENCES, code_of
from client.enrol import NODE_KEY, SIGNING_KEY, enrol, join, load_signing_key, load_welcome
from client.policy import Allow, Deny, Request, decide, require
from configs.deployment import Policy, SiteConfig, load_site
from configs.errors import AdmissionError, ConfigError, JournalError, PolicyError, RunError
from configs.frame import Frame
from configs.papers import to_json
from tests.builders import study
from tests.consortium import Consortium

STUDY = study()
FRAME = Frame("train reply", {}, {"bias": b"\x01\x02\x03\x04"})


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return Consortium(tmp_path)


@pytest.fixture
def lille(consortium: Consortium) -> SiteConfig:
    return consortium.hospital("lille")


def audit_of(config: SiteConfig) -> Audit:
    return Audit(config, load_signing_key(config))


def keep(audit: Audit, message: str, number: int = 1) -> None:
    audit.keep(FRAME, message, study="ab" * 32, round=number, answers=f"asked-{message}", content=f"content-{number}")


# Keys and papers


def test_keys_are_the_owners_alone_and_are_never_replaced(lille: SiteConfig) -> None:
    before = {name: (lille.keys / name).read_bytes() for name in (NODE_KEY, SIGNING_KEY)}
    assert all(stat.S_IMODE((lille.keys / name).stat().st_mode) == 0o600 for name in before)
    assert stat.S_IMODE(lille.keys.stat().st_mode) == 0o700
    enrol(lille)
    assert {name: (lille.keys / name).read_bytes() for name in before} == before


def test_no_paper_holds_a_private_key(lille: SiteConfig) -> None:
    for path in (lille.folder / "request.json", lille.folder / "paper.json", lille.welcome):
        assert "PRIVATE" not in path.read_text()


def test_another_hospitals_welcome_is_refused(consortium: Consortium, lille: SiteConfig) -> None:
    lyon = consortium.hospital("lyon")
    kept = lille.welcome.read_bytes()
    with pytest.raises(ConfigError, match="expected lille, found 'lyon'"):
        join(lille, lyon.folder / "paper.json")
    assert lille.welcome.read_bytes() == kept


def test_a_welcome_for_other_keys_or_another_door_is_refused(consortium: Consortium, lille: SiteConfig) -> None:
    lyon = consortium.hospital("lyon")
    paper = lille.folder / "odd.json"
    paper.write_bytes(to_json(dataclasses.replace(load_welcome(lyon), site="lille", coordinator="evil.example:8443")))
    with pytest.raises(ConfigError, match="2 problems"):
        join(lille, paper)


def test_a_hospital_that_did_not_join_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("site: brest\ncoordinator: localhost:1\n")
    with pytest.raises(RunError, match="archipel-site enrol"):
        load_welcome(load_site(tmp_path))


# Approvals and policy


def admissions_of(tmp_path: Path) -> Admissions:
    return Admissions.open(tmp_path / "admissions.sqlite")


def test_a_study_waits_until_a_person_decides_and_a_changed_one_waits_anew(tmp_path: Path) -> None:
    admissions = admissions_of(tmp_path)
    admissions.propose(STUDY.sha256, STUDY.name, STUDY.canonical)
    with pytest.raises(AdmissionError) as waiting:
        admissions.approved(STUDY.sha256)
    assert waiting.value.waiting
    admissions.decide(STUDY.sha256[:8].upper(), "approved")
    assert admissions.approved(STUDY.sha256).sha256 == STUDY.sha256
    changed = study(seed=1)
    with pytest.raises(AdmissionError):
        admissions.approved(changed.sha256)
    assert admissions.propose(changed.sha256, changed.name, changed.canonical).state == "waiting"


def test_a_refused_study_is_refused_for_good_and_proposing_it_again_changes_nothing(tmp_path: Path) -> None:
    admissions = admissions_of(tmp_path)
    admissions.propose(STUDY.sha256, STUDY.name, STUDY.canonical)
    admissions.decide(STUDY.sha256, "refused", "no")
    assert admissions.propose(STUDY.sha256, STUDY.name, STUDY.canonical).state == "refused"
    with pytest.raises(AdmissionError) as refused:
        admissions.approved(STUDY.sha256)
    assert not refused.value.waiting
    assert admissions.all()[0].why == "no"


@pytest.mark.parametrize("digest", ["", STUDY.sha256[:7], "zz" * 8, "%", "0" * 64])
def test_a_digest_must_name_one_study(tmp_path: Path, digest: str) -> None:
    admissions = admissions_of(tmp_path)
    admissions.propose(STUDY.sha256, STUDY.name, STUDY.canonical)
    with pytest.raises(RunError, match="found 0"):
        admissions.decide(digest, "approved")


def test_a_coordinator_cannot_fill_the_disk_with_proposals(tmp_path: Path) -> None:
    admissions = admissions_of(tmp_path)
    rows = [(f"{n:064x}", "s", "{}") for n in range(MAX_WAITING)]
    admissions._connection.executemany(
        "INSERT INTO studies (sha256, name, canonical, state) VALUES (?, ?, ?, 'waiting')", rows
    )
    with pytest.raises(RunError, match="waiting studies"):
        admissions.propose(STUDY.sha256, STUDY.name, STUDY.canonical)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (Request(True, False, 0.0, 0.0), 112),
        (Request(False, True, 0.0, 0.0), 113),
        (Request(True, True, 6.0, 8.01), 114),
        (Request(True, True, 0.0, 3.0, 201_000_000), 115),
        (Request(True, True, 0.0, 3.0, 100, 49), 116),
    ],
)
def test_each_denial_has_a_code_a_reason_that_stays_and_a_sentence_that_leaves(request_: Request, code: int) -> None:
    verdict = decide(request_, Policy())
    assert isinstance(verdict, Deny)
    assert verdict.code == code
    with pytest.raises(PolicyError) as denied:
        require(request_, Policy())
    assert code_of(denied.value) == (code, DECISIONS[code])
    assert verdict.reason not in SENTENCES.values()


def test_what_fits_exactly_is_allowed() -> None:
    assert decide(Request(True, True, 5.0, 8.0, 200_000_000, 50), Policy()) == Allow()


# The journal and the outbox


def test_a_message_that_left_can_be_opened_and_the_journal_holds(lille: SiteConfig) -> None:
    audit = audit_of(lille)
    keep(audit, "aaaaaaaa")
    assert audit_of(lille).show("aaaaaa") == FRAME
    assert audit_of(lille).verify() == 1
    assert stat.S_IMODE((lille.outbox / "aaaaaaaa.frame").stat().st_mode) == 0o600


def test_the_same_instruction_gets_the_same_bytes_after_a_restart(lille: SiteConfig) -> None:
    audit = audit_of(lille)
    assert audit.answer_to("ab" * 32, "content-1") is None
    keep(audit, "aaaaaaaa")
    assert audit_of(lille).answer_to("ab" * 32, "content-1") == FRAME
    assert audit_of(lille).answer_to("ab" * 32, "content-2") is None
    assert audit_of(lille).answer_to("cd" * 32, "content-1") is None


def test_the_outbox_says_how_long_each_message_is(lille: SiteConfig, capsys: pytest.CaptureFixture[str]) -> None:
    audit = audit_of(lille)
    keep(audit, "aaaaaaaa")
    audit.keep(Frame("refusal", {"code": 110}), "bbbbbbbb", study="ab" * 32, round=0, answers="", content="")
    assert main(["-C", str(lille.folder), "outbox"]) == 0
    for line, message in zip(capsys.readouterr().out.splitlines(), ("aaaaaaaa", "bbbbbbbb"), strict=True):
        assert f" {(lille.outbox / f'{message}.frame').stat().st_size} bytes" in line


def test_an_instruction_is_seen_after_a_restart(lille: SiteConfig) -> None:
    audit_of(lille).note("received", message="m1")
    assert audit_of(lille).seen("m1")
    assert not audit_of(lille).seen("m2")


def test_a_changed_message_in_the_outbox_is_named(lille: SiteConfig) -> None:
    audit = audit_of(lille)
    keep(audit, "aaaaaaaa")
    path = lille.outbox / "aaaaaaaa.frame"
    path.write_bytes(path.read_bytes()[:-1] + b"\x09")
    with pytest.raises(JournalError, match=r"aaaaaaaa.frame: its bytes are not those that the journal names"):
        audit.verify()


def journal_with(lille: SiteConfig, records: int = 5) -> list[bytes]:
    audit = audit_of(lille)
    for number in range(records):
        audit.note("round", round=number)
    return lille.journal.read_bytes().splitlines(keepends=True)


def test_a_changed_record_is_named(lille: SiteConfig) -> None:
    lines = journal_with(lille)
    lines[2] = lines[2].replace(b'"round":2', b'"round":9')
    lille.journal.write_bytes(b"".join(lines))
    with pytest.raises(JournalError, match="record 3: its hash does not fit"):
        audit_of(lille)


def test_a_record_cut_out_and_one_moved_are_named(lille: SiteConfig) -> None:
    lines = journal_with(lille)
    for bad in ([*lines[:1], *lines[2:]], [lines[0], lines[2], lines[1], *lines[3:]]):
        lille.journal.write_bytes(b"".join(bad))
        with pytest.raises(JournalError, match="record 2: expected sequence 2"):
            audit_of(lille)


def test_a_chain_written_anew_by_another_key_is_named(consortium: Consortium, lille: SiteConfig) -> None:
    forger = consortium.hospital("lyon")
    journal_with(forger)
    lille.journal.write_bytes(forger.journal.read_bytes())
    with pytest.raises(JournalError, match="record 1: it is not signed by this journal's key"):
        audit_of(lille).verify()


def test_nothing_is_left_of_a_message_that_cannot_be_kept(lille: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    audit = audit_of(lille)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        keep(audit, "aaaaaaaa")
    monkeypatch.undo()
    assert list(lille.outbox.iterdir()) == []
    assert audit_of(lille).outgoing() == [] if lille.journal.exists() else True
