"""What a hospital keeps: keys, approvals, policy, the journal and the outbox."""

import dataclasses
import os
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from client import audit as audit_module
from client.admission import MAX_WAITING, Admissions
from client.audit import Audit
from client.cli import main
from client.enrol import (
    CERTIFICATE,
    NODE_KEY,
    SIGNING_KEY,
    enrol,
    join,
    load_node_key,
    load_signing_key,
    load_welcome,
)
from configs.errors import AdmissionError, ConfigError, JournalError, RunError
from configs.frame import Frame
from configs.journal import read
from configs.papers import to_json
from configs.records.site_journal import Received, Repeated
from configs.site import SiteConfig, load_site
from server import pki
from server.pki import check_request
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


def test_enrol_again_is_the_same_request_with_the_same_fingerprint_while_the_keys_are(lille: SiteConfig) -> None:
    path = lille.folder / "request.json"
    before = path.read_bytes()
    _, request = enrol(lille)
    assert (path.read_bytes(), to_json(request)) == (before, before)
    for spoilt in (b"", before.replace(b"lille", b"lyons"), before.replace(request.signing_key.encode(), b"ab" * 32)):
        path.write_bytes(spoilt)
        assert enrol(lille)[1].statement != b""
        assert check_request(enrol(lille)[1], "request")
    (lille.keys / NODE_KEY).unlink()
    _, anew = enrol(lille)
    assert anew.fingerprint != request.fingerprint
    assert check_request(anew, "request").public_numbers() == load_node_key(lille).public_key().public_numbers()


DAMAGED = {
    "ca_certificate": "expected the authority that signed the certificate",
    "certificate": "it was not made for this hospital's key",
    "coordinator_key": "expected 64 hexadecimal digits",
}


@pytest.mark.parametrize("field", DAMAGED)
@pytest.mark.parametrize("value", ["zz", "", "é", "ab" * 31])
def test_a_damaged_welcome_is_refused_and_nothing_is_kept(lille: SiteConfig, field: str, value: str) -> None:
    kept = (lille.welcome.read_bytes(), (lille.keys / CERTIFICATE).read_bytes())
    paper = lille.folder / "odd.json"
    damage: dict[str, Any] = {field: value}
    paper.write_bytes(to_json(dataclasses.replace(load_welcome(lille), **damage)))
    with pytest.raises(ConfigError, match=f"{field}: {DAMAGED[field]}"):
        join(lille, paper)
    assert (lille.welcome.read_bytes(), (lille.keys / CERTIFICATE).read_bytes()) == kept


def test_a_welcome_with_another_consortiums_authority_is_refused(lille: SiteConfig, tmp_path: Path) -> None:
    other = Consortium(tmp_path / "other").pki.ca_certificate.read_text()
    paper = lille.folder / "odd.json"
    paper.write_bytes(to_json(dataclasses.replace(load_welcome(lille), ca_certificate=other)))
    with pytest.raises(ConfigError, match="expected the authority that signed the certificate"):
        join(lille, paper)


@pytest.mark.parametrize(
    ("backdated_days", "days", "said"),
    [(3, -1, "it expired on .*; send request.json again"), (-3, 9, "it is valid from .*; set this machine's clock")],
    ids=["over", "not yet"],
)
def test_a_welcome_that_does_not_hold_today_does_not_replace_one_that_does(
    consortium: Consortium,
    lille: SiteConfig,
    monkeypatch: pytest.MonkeyPatch,
    backdated_days: int,
    days: int,
    said: str,
) -> None:
    kept = (lille.keys / CERTIFICATE).read_bytes()
    monkeypatch.setattr(pki, "_BACKDATED", timedelta(days=backdated_days))
    monkeypatch.setattr(pki, "SITE_DAYS", days)
    certificate, _ = consortium.pki.sign(enrol(lille)[1], "request", None)
    paper = lille.folder / "odd.json"
    paper.write_bytes(to_json(consortium.welcome("lille", certificate)))
    with pytest.raises(ConfigError, match=f"certificate: {said}"):
        join(lille, paper)
    assert (lille.keys / CERTIFICATE).read_bytes() == kept


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
    admissions.decide(STUDY.sha256[:20].upper(), "approved")
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
    admissions._connection.execute("BEGIN")
    admissions._connection.executemany(
        "INSERT INTO studies (sha256, name, canonical, state) VALUES (?, ?, ?, 'waiting')", rows
    )
    admissions._connection.execute("COMMIT")
    with pytest.raises(RunError, match="waiting studies"):
        admissions.propose(STUDY.sha256, STUDY.name, STUDY.canonical)


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
    audit_of(lille).note(Received(message="m1", run="", study="", round=1))
    assert audit_of(lille).seen("m1")
    assert not audit_of(lille).seen("m2")


def test_a_changed_message_in_the_outbox_is_named(lille: SiteConfig) -> None:
    audit = audit_of(lille)
    keep(audit, "aaaaaaaa")
    path = lille.outbox / "aaaaaaaa.frame"
    path.write_bytes(path.read_bytes()[:-1] + b"\x09")
    with pytest.raises(JournalError, match=r"aaaaaaaa.frame: its bytes are not those that the journal names"):
        audit.verify()


def test_the_journal_is_read_once_however_many_messages_left(
    lille: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = audit_of(lille)
    for number in range(20):
        keep(audit, f"message{number:02}")
    reads: list[object] = []
    monkeypatch.setattr(audit_module, "read", lambda *given, **named: reads.append(given) or read(*given, **named))
    assert audit.verify() == 20
    assert len(reads) == 1


def test_a_message_that_the_journal_names_twice_is_named(lille: SiteConfig) -> None:
    audit = audit_of(lille)
    for _ in range(2):
        keep(audit, "aaaaaaaa")
    with pytest.raises(JournalError, match="record 2: aaaaaaaa had left before"):
        audit.verify()


def journal_with(lille: SiteConfig, records: int = 5) -> list[bytes]:
    audit = audit_of(lille)
    for number in range(records):
        audit.note(Repeated(message=f"m{number}"))
    return lille.journal.read_bytes().splitlines(keepends=True)


def test_a_changed_record_is_named(lille: SiteConfig) -> None:
    lines = journal_with(lille)
    lines[2] = lines[2].replace(b'"m2"', b'"m9"')
    lille.journal.write_bytes(b"".join(lines))
    with pytest.raises(JournalError, match="record 3: expected a hash that fits its content, found another"):
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
    with pytest.raises(JournalError, match="record 1: expected a signature by this journal's key, found another"):
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
