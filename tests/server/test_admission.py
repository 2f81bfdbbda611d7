"""Who may be admitted under which name: a request comes by mail, from anybody."""

import json
from pathlib import Path

import pytest

from client.enrol import enrol
from configs import journal as journals
from configs.coordinator import load_coordinator
from configs.errors import ConfigError
from configs.papers import Request, Welcome, from_json, to_json
from configs.site import load_site
from server.cli import main
from server.membership import Membership
from strategies.exchange.keys import SigningKey
from tests.consortium import Consortium

Output = pytest.CaptureFixture[str]


def type_(folder: Path, *words: str) -> int:
    return main(["-C", str(folder), *words])


@pytest.fixture
def centre(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("ARCHIPEL_CA_PASSPHRASE", raising=False)
    folder = tmp_path / "consortium"
    assert type_(folder, "init", "--name", "Heart", "--names", "localhost") == 0
    return folder


def request_of(folder: Path, site: str = "lille") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "site.yaml").write_text(f"site: {site}\ncoordinator: localhost:8443\n")
    return enrol(load_site(folder))[0]


def named(path: Path, site: str) -> Path:
    """A hostile request: of this name, with keys of its own and its own good proof."""
    request, key = from_json(Request, path.read_bytes(), "x"), SigningKey.generate()
    unsigned = Request(site, request.signing_request, key.public, "")
    path.write_bytes(to_json(Request(site, request.signing_request, key.public, key.sign(unsigned.statement))))
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and "sqlite" not in p.name}


NAMES = [
    *("", " ", "coordinator", "Lille", "LILLE", "CHU Lille", "lille ", " lille", "lille\n", "lille/..", "/lille", "."),
    *("..", "../lille", "../../elsewhere/planted", "/tmp/planted", "a/b", "a.b", "lille.json", "-lille", "_lille"),
    *(
        "l\u0456lle",
        "lille\u202e",
        "li\u200blle",
        "lille\x00",
        "lille\x1b[2J",
        "lille\u0301",
        "\uff4cille",
        "~",
        "~root",
    ),
    *("lille;ls", "lille|x", "$HOME", "lille\ttab", "lille\r", "x" * 64, "é", "con:", "a\\b", "%2e%2e", "lille\u2028"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_request_whose_name_is_no_hospitals_is_refused_and_writes_nothing(
    centre: Path, tmp_path: Path, capsys: Output, name: str
) -> None:
    request = named(request_of(tmp_path / "hospital"), name)
    before = files(tmp_path)
    capsys.readouterr()
    assert type_(centre, "admit", str(request)) == 2
    said = capsys.readouterr()
    assert "site: expected a hospital's name of a-z, 0-9, - and _, not 'coordinator', found" in said.err
    assert all(c.isprintable() for line in said.err.splitlines() for c in line)
    assert files(tmp_path) == before
    assert Membership.open(load_coordinator(centre).database).sites() == []


@pytest.mark.parametrize("name", ["", "../x", "coordinator", "Lille"])
@pytest.mark.parametrize("kind", [Request, Welcome])
def test_neither_paper_is_read_with_such_a_name(tmp_path: Path, kind: type, name: str) -> None:
    consortium = Consortium(tmp_path)
    site = consortium.hospital()
    path = site.folder / ("request.json" if kind is Request else "paper.json")
    values = json.loads(path.read_bytes()) | {"site": name}
    with pytest.raises(ConfigError, match="site: expected a hospital's name"):
        from_json(kind, json.dumps(values).encode(), "paper")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("coordinator", "evil\x1b[2J:1"),
        ("coordinator", "a b:1"),
        ("version", "0.1\x1b]0;x\x07"),
        ("flwr", "1.41 \u202e"),
        ("coordinator_key", "AB" * 32),
    ],
)
def test_what_a_welcome_says_is_of_its_form_before_it_is_shown(tmp_path: Path, field: str, value: str) -> None:
    consortium = Consortium(tmp_path)
    values = json.loads((consortium.hospital().folder / "paper.json").read_bytes()) | {field: value}
    with pytest.raises(ConfigError, match=f"{field}: expected") as caught:
        from_json(Welcome, json.dumps(values).encode(), "paper")
    assert "\x1b" not in str(caught.value)
    assert "\u202e" not in str(caught.value)


def test_other_keys_under_a_known_name_need_a_word_of_a_person_who_sees_both_fingerprints(
    centre: Path, tmp_path: Path, capsys: Output
) -> None:
    first, second = request_of(tmp_path / "first"), request_of(tmp_path / "second")
    fingerprints = [from_json(Request, path.read_bytes(), "x").fingerprint for path in (first, second)]
    assert type_(centre, "admit", str(first)) == 0
    welcome = (centre / "welcome" / "lille.json").read_bytes()
    (before,) = Membership.open(load_coordinator(centre).database).sites()
    capsys.readouterr()
    assert type_(centre, "admit", str(second)) == 2
    said = capsys.readouterr().err
    assert all(fingerprint in said for fingerprint in fingerprints)
    assert f"admit {second} --replace" in said
    assert Membership.open(load_coordinator(centre).database).sites() == [before]
    assert (centre / "welcome" / "lille.json").read_bytes() == welcome
    assert type_(centre, "admit", str(second), "--replace") == 0
    said = capsys.readouterr().out
    assert all(fingerprint in said for fingerprint in fingerprints)
    (after,) = Membership.open(load_coordinator(centre).database).sites()
    assert after.signing_key != before.signing_key
    records = [r.facts for r in journals.read(load_coordinator(centre).journal) if r.kind == "admitted"]
    assert [bool(facts["replaced"]) for facts in records] == [False, True]


def test_a_renewal_with_the_same_keys_needs_no_word(centre: Path, tmp_path: Path) -> None:
    request = request_of(tmp_path / "lille")
    assert [type_(centre, "admit", str(request)) for _ in range(2)] == [0, 0]


@pytest.mark.parametrize("keys", ["same", "other"])
def test_a_revoked_hospital_does_not_come_back_in_silence(
    centre: Path, tmp_path: Path, capsys: Output, keys: str
) -> None:
    first = request_of(tmp_path / "first")
    request = first if keys == "same" else request_of(tmp_path / "second")
    assert type_(centre, "admit", str(first)) == 0
    assert type_(centre, "revoke", "lille") == 0
    capsys.readouterr()
    assert type_(centre, "admit", str(request)) == 2
    assert f"was revoked with {'these' if keys == 'same' else 'other'} keys" in capsys.readouterr().err
    assert Membership.open(load_coordinator(centre).database).members() == {}
    assert type_(centre, "admit", str(request), "--replace") == 0
    assert set(Membership.open(load_coordinator(centre).database).members()) == {"lille"}


def test_keys_of_another_hospital_are_refused_even_with_replace(centre: Path, tmp_path: Path, capsys: Output) -> None:
    request = request_of(tmp_path / "lille")
    assert type_(centre, "admit", str(request)) == 0
    site = tmp_path / "lille" / "site.yaml"
    site.write_text(site.read_text().replace("site: lille", "site: lyon"))
    stolen = enrol(load_site(tmp_path / "lille"))[0]
    assert type_(centre, "admit", str(stolen), "--replace") == 2
    assert "its keys are another hospital's (lille)" in capsys.readouterr().err
    assert not (centre / "welcome" / "lyon.json").exists()


def test_whoever_is_a_member_has_a_welcome(centre: Path, tmp_path: Path) -> None:
    (centre / "welcome").write_text("in the way of the folder")
    assert type_(centre, "admit", str(request_of(tmp_path / "lille"))) == 2
    assert Membership.open(load_coordinator(centre).database).sites() == []


def test_no_hospital_is_called_as_the_other_side(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("site: coordinator\ncoordinator: localhost:8443\n")
    with pytest.raises(ConfigError, match="this one is the other side's in every message"):
        load_site(tmp_path)
