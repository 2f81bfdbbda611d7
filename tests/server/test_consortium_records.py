"""What a consortium keeps: its authority, its members, the queue."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from client.enrol import enrol
from configs.errors import ConfigError, RunError
from configs.papers import Request, Welcome, from_json, to_json
from configs.site import load_site
from server.membership import Member, Membership
from server.pki import Pki, check_request
from tests.consortium import Consortium


@pytest.fixture
def members(tmp_path: Path) -> Membership:
    return Membership.open(tmp_path / "coordinator.sqlite")


def member(site: str, key: bytes = b"", signing: str = "") -> Member:
    return Member(site, key or f"key of {site}".encode(), signing or f"signing of {site}", "2030-01-01T00:00:00+00:00")


def request_of(folder: Path, site: str = "lille") -> Request:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "site.yaml").write_text(f"site: {site}\ncoordinator: localhost:8443\n")
    return enrol(load_site(folder))[1]


def test_the_doors_certificate_holds_for_its_names_and_a_hospitals_for_clients_alone(tmp_path: Path) -> None:
    consortium = Consortium(tmp_path)
    lille = consortium.hospital("lille")
    root = x509.load_pem_x509_certificate(consortium.pki.ca_certificate.read_bytes())
    server = x509.load_pem_x509_certificate((consortium.pki.folder / "server.crt").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    site = x509.load_pem_x509_certificate((lille.keys / "site.crt").read_bytes())
    usage = site.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    site.verify_directly_issued_by(root)
    assert not site.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert PolicyBuilder().store(Store([root])) is not None


def test_a_second_authority_is_refused(tmp_path: Path) -> None:
    consortium = Consortium(tmp_path)
    before = consortium.pki.ca_certificate.read_bytes()
    with pytest.raises(ConfigError, match="not replaced"):
        consortium.pki.create("Other", ["localhost"], None)
    assert consortium.pki.ca_certificate.read_bytes() == before


def test_the_root_key_is_encrypted_and_signs_with_its_passphrase_alone(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")
    pki.create("Demo", ["localhost"], b"correct horse")
    assert b"ENCRYPTED" in (pki.folder / "ca.key").read_bytes()
    request = request_of(tmp_path / "lille")
    for wrong in (None, b"wrong"):
        with pytest.raises(ConfigError, match="passphrase is missing or wrong"):
            pki.sign(request, "request", wrong)
    assert "BEGIN CERTIFICATE" in pki.sign(request, "request", b"correct horse")[0]


@pytest.mark.parametrize("name", ["ca.key", "signing.key", "server.key"])
def test_keys_are_the_owners_alone(tmp_path: Path, name: str) -> None:
    assert (Consortium(tmp_path).pki.folder / name).stat().st_mode & 0o077 == 0


def test_a_request_that_was_changed_on_the_way_is_refused(tmp_path: Path) -> None:
    good, other = request_of(tmp_path / "a"), request_of(tmp_path / "b", "lyon")
    check_request(good, "good")
    forged = [
        Request("lyon", good.signing_request, good.signing_key, good.proof),
        Request(good.site, other.signing_request, good.signing_key, good.proof),
        Request(good.site, good.signing_request, other.signing_key, good.proof),
        Request(good.site, good.signing_request, other.signing_key, other.proof),
        Request(good.site, "no request", good.signing_key, good.proof),
    ]
    for request in forged:
        with pytest.raises(ConfigError, match="signed by its own keys"):
            check_request(request, "forged")


def test_a_new_certificate_of_the_door_is_of_the_same_authority(tmp_path: Path) -> None:
    pki = Consortium(tmp_path).pki
    pki.renew_server(["coord.example.org"], None)
    root = x509.load_pem_x509_certificate(pki.ca_certificate.read_bytes())
    server = x509.load_pem_x509_certificate((pki.folder / "server.crt").read_bytes())
    server.verify_directly_issued_by(root)
    assert isinstance(server.public_key(), ec.EllipticCurvePublicKey)


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"x" * 200_000, b'{"site": 1}', b"\xff"])
def test_a_paper_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError):
        from_json(Request, data, "paper")
    with pytest.raises(ConfigError):
        from_json(Welcome, data, "paper")


def test_a_paper_comes_back_as_it_was(tmp_path: Path) -> None:
    request = request_of(tmp_path)
    assert from_json(Request, to_json(request), "paper") == request


# Members


def test_a_revoked_hospital_opens_nothing_until_it_is_admitted_again(members: Membership) -> None:
    members.admit(member("lille"))
    assert members.lookup(b"key of lille")
    members.revoke("lille")
    assert members.lookup(b"key of lille") is None
    assert members.members() == {}
    members.admit(member("lille"))
    assert members.lookup(b"key of lille")


def test_a_hospital_cannot_take_anothers_keys(members: Membership) -> None:
    members.admit(member("lille"))
    for stolen in (member("lyon", b"key of lille"), member("lyon", signing="signing of lille")):
        with pytest.raises(RunError, match="another hospital's"):
            members.admit(stolen)


def test_revoking_a_stranger_says_so(members: Membership) -> None:
    with pytest.raises(RunError, match="expected an admitted hospital"):
        members.revoke("nowhere")


def test_another_process_sees_a_revocation_at_once(members: Membership, tmp_path: Path) -> None:
    members.admit(member("lille"))
    other = Membership.open(tmp_path / "coordinator.sqlite")
    members.revoke("lille")
    assert other.lookup(b"key of lille") is None


# The queue


def conducted(members: Membership, name: str) -> None:
    """A run whose hospitals have answered, and that is conducted now."""
    members.submit(name)
    members.set_ready(name, ["lille", "lyon"])
    assert members.next_run() == name


def test_a_run_whose_hospitals_have_answered_is_conducted_before_one_that_still_waits(members: Membership) -> None:
    for name in ("first", "second", "third"):
        members.submit(name)
    assert members.unready() == ["first", "second", "third"]
    assert members.next_run() is None
    members.set_ready("third", ["lille", "lyon"])
    members.set_ready("second", ["lille"])
    assert members.unready() == ["first"]
    assert [members.next_run(), members.next_run(), members.next_run()] == ["third", "second", None]
    assert members.ready("third") == ["lille", "lyon"]
    members.submit("third")  # its hospitals were not there after all
    assert members.unready() == ["first", "third"]
    assert members.ready("third") == []


def test_a_database_of_an_earlier_release_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.execute(
            "CREATE TABLE runs (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, state TEXT NOT NULL CHECK (state IN"
            " ('QUEUED', 'WAITING', 'RUNNING', 'STOPPING', 'COMPLETE', 'INCOMPLETE')), why TEXT NOT NULL DEFAULT '',"
            " attempt INTEGER NOT NULL DEFAULT 0)"
        )
        old.execute("INSERT INTO runs (name, state) VALUES ('heart', 'RUNNING')")
        old.commit()
    for _ in range(2):
        members = Membership.open(path)
        assert [run.name for run in members.runs()] == ["heart"]
        members.close()
    members = Membership.open(path)
    assert members.take_up() == ["heart"]
    assert members.unready() == ["heart"]
    members.close()


def test_a_run_that_was_asked_to_stop_stays_so_until_it_ends(members: Membership) -> None:
    conducted(members, "run")
    assert members.ask_to_stop("run")
    members.set_state("run", "RUNNING")
    assert members.run("run").state == "STOPPING"  # type: ignore[union-attr]
    assert members.stopped("run") == []  # its process says so itself
    members.set_state("run", "INCOMPLETE", "stopped")
    assert members.run("run").state == "INCOMPLETE"  # type: ignore[union-attr]
    assert not members.ask_to_stop("run")


def test_a_run_that_is_stopped_while_it_waits_ends_at_once(members: Membership) -> None:
    members.submit("run")
    members.set_state("run", "WAITING")
    assert members.ask_to_stop("run")
    assert members.stopped("another") == ["run"]
    assert members.unready() == []


def test_a_queued_run_that_is_stopped_never_starts(members: Membership) -> None:
    members.submit("run")
    assert members.ask_to_stop("run")
    assert members.next_run() is None


def left_behind(members: Membership) -> None:
    """Runs as a coordinator that was killed leaves them."""
    for name in ("left", "stopping", "ended"):
        conducted(members, name)
    members.submit("queued")
    members.ask_to_stop("stopping")
    members.set_state("ended", "COMPLETE")


def states(members: Membership) -> dict[str, str]:
    return {run.name: run.state for run in members.runs()}


def test_runs_that_a_process_left_behind_go_on_and_those_asked_to_stop_end(members: Membership) -> None:
    left_behind(members)
    assert members.stopped() == ["stopping"]
    assert members.take_up() == ["left"]
    expected = {"left": "QUEUED", "stopping": "INCOMPLETE", "ended": "COMPLETE", "queued": "QUEUED"}
    assert states(members) == expected
    assert members.unready() == ["left", "queued"]  # both are proposed anew


def test_where_runs_are_held_none_starts_before_a_person_says_so(members: Membership) -> None:
    left_behind(members)
    members.stopped()
    assert sorted(members.hold("restored")) == ["left", "queued"]
    assert members.next_run() is None
    held = members.run("queued")
    assert held is not None
    assert (held.state, held.why) == ("INCOMPLETE", "restored; go on with: archipel-coordinator resume")
    members.submit("queued")
    assert members.unready() == ["queued"]


def test_attempts_count_from_the_last_round_on(members: Membership) -> None:
    for _ in range(4):
        conducted(members, "run")
    assert members.run("run").attempt == 4  # type: ignore[union-attr]
    members.set_state("run", "RUNNING")
    assert members.run("run").attempt == 0  # type: ignore[union-attr]


def test_an_epsilon_is_kept_when_a_later_word_has_none(members: Membership) -> None:
    members.set_presence("run", "lille", "takes part", "1.2345")
    members.set_presence("run", "lille", "no reply in time")
    assert members.presence("run") == {"lille": ("no reply in time", "1.2345")}
