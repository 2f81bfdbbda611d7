"""What a proxy that ends TLS can do with the requests of a hospital that has no certificate: nothing but lose them."""

import dataclasses
import sqlite3
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from client.uplink.signer import Signer
from configs.pieces import HOLD_PATH, REPLY_PATH
from configs.requests import REQUEST_HEADER, SIGNED_FROM
from server import signatures
from server.gateway.__main__ import note_signs
from server.membership import Admitted, Member, Membership, Talk
from server.refusals import Refusal
from server.signatures import HEADER, SignedRequests
from tests.server.test_gateway import (  # noqa: F401 - the fixtures are used by name
    ACTIVATE,
    PULL,
    PUSH,
    Answer,
    Consortium,
    Door,
    Hospital,
    consortium,
    opened,
    status,
)

NOW = 1_900_000_000.0


@dataclass
class Captured:
    """A request as whoever opened it has it, to be changed and sent on."""

    path: str
    headers: dict[str, str]
    body: bytes = b""
    method: str = "POST"
    more: list[str] = field(default_factory=list)

    def sent(self, door: Door) -> int:
        named = [f"{name}: {value}" for name, value in self.headers.items()] + self.more
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: door", *named, f"Content-Length: {len(self.body)}"]
        return status(door.ask(None, "\r\n".join([*lines, "", ""]).encode() + self.body))

    def but(self, **changes: str) -> "Captured":
        """The same with other parts of its header: time, nonce, body, signature."""
        names = ("time", "nonce", "body", "signature")
        parts = dict(zip(names, self.headers[REQUEST_HEADER].split(";"), strict=True)) | changes
        value = ";".join(parts[name] for name in names)
        return dataclasses.replace(self, headers=self.headers | {REQUEST_HEADER: value})

    def without(self, *names: str) -> "Captured":
        return dataclasses.replace(self, headers={k: v for k, v in self.headers.items() if k not in names})


def made(hospital: Hospital, path: str = PULL, body: bytes = b"body", *, off_s: float = 0.0) -> Captured:
    """What a hospital's node sends, its clock so far off."""
    signer, request = Signer(hospital.key, whole=True), httpx.Request("POST", f"https://door{path}", content=body)
    headers = hospital.headers() | {REQUEST_HEADER: signer._signed(request, time.time() + off_s)}
    return Captured(path, headers, body)


def other_form(request: Captured) -> Captured:
    """The same signature in its other form: (r, n - s) holds wherever (r, s) does."""
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
    r, s = decode_dss_signature(b64decode(request.headers[REQUEST_HEADER].split(";")[3]))
    return request.but(signature=b64encode(encode_dss_signature(r, order - s)).decode())


@pytest.fixture(scope="module")
def door(consortium: Consortium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:  # noqa: F811
    """A door that has been open for a while, and two hospitals without certificates."""
    signed = SignedRequests(clock=lambda: time.time() - 60)
    signed._clock = time.time
    with opened(consortium, tmp_path_factory.mktemp("signed"), certificate_required=False, signed=signed) as door:
        for name in ("brest", "metz"):
            door.admitted[consortium.hospital(name).public_key] = Admitted(name, certificate_required=False)
        yield door


@pytest.fixture
def brest(door: Door, consortium: Consortium) -> Hospital:  # noqa: F811
    """A hospital whose node was seen to sign, and nothing of it reached the SuperLink yet."""
    hospital = consortium.hospital("brest")
    assert made(hospital).sent(door) == 200
    door.behind.requests.clear()
    return hospital


@pytest.fixture
def metz(consortium: Consortium) -> Hospital:  # noqa: F811
    return consortium.hospital("metz")


Attack = Callable[[Captured, Captured], Captured]  # a request that never arrived, another hospital's -> what is sent
ATTACKS: dict[str, tuple[Attack, int]] = {
    "another body": (lambda own, _: dataclasses.replace(own, body=b"evil"), 403),
    "a longer body": (lambda own, _: dataclasses.replace(own, body=own.body + b" "), 403),
    "no body": (lambda own, _: dataclasses.replace(own, body=b""), 403),
    "another body and its hash": (lambda own, _: dataclasses.replace(own, body=b"").but(body="0" * 64), 403),
    "another path": (lambda own, _: dataclasses.replace(own, path="/v1/fleet/deactivate-node"), 403),
    "a held request's path": (lambda own, _: dataclasses.replace(own, path=HOLD_PATH), 403),
    "a whole reply's path": (lambda own, _: dataclasses.replace(own, path=REPLY_PATH), 403),
    "another method": (lambda own, _: dataclasses.replace(own, method="GET"), 404),
    "a later time": (lambda own, _: own.but(time=str(int(own.headers[REQUEST_HEADER][:13]) + 1)), 403),
    "another nonce": (lambda own, _: own.but(nonce="ab" * 16), 403),
    "a nonce of 1 MB": (lambda own, _: own.but(nonce="ab" * 500_000), 400),
    "a nonce of 900 bytes": (lambda own, _: own.but(nonce="ab" * 350), 403),
    "no nonce": (lambda own, _: own.but(nonce=""), 403),
    "a nonce in capitals": (lambda own, _: own.but(nonce=own.headers[REQUEST_HEADER][14:46].upper() + ""), 403),
    "a time of 1000 digits": (lambda own, _: own.but(time="9" * 700), 403),
    "a negative time": (lambda own, _: own.but(time="-1"), 403),
    "an empty signature": (lambda own, _: own.but(signature=""), 403),
    "no signature": (lambda own, _: own.but(signature="AAAA"), 403),
    "no base64": (lambda own, _: own.but(signature="A=A="), 403),
    "no header (downgrade)": (lambda own, _: own.without(REQUEST_HEADER), 403),
    "an empty header": (lambda own, _: dataclasses.replace(own, headers=own.headers | {REQUEST_HEADER: "x"}), 403),
    "the header twice": (
        lambda own, _: dataclasses.replace(own, more=[f"{REQUEST_HEADER}: {own.headers[REQUEST_HEADER]}"]),
        400,
    ),
    "another hospital's header": (
        lambda own, other: dataclasses.replace(
            own, headers=own.headers | {REQUEST_HEADER: other.headers[REQUEST_HEADER]}
        ),
        403,
    ),
    "another hospital's name on it": (
        lambda own, other: dataclasses.replace(
            other, headers=other.headers | {REQUEST_HEADER: own.headers[REQUEST_HEADER]}
        ),
        403,
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_request_that_was_changed_on_its_way_is_not_served(
    door: Door, brest: Hospital, metz: Hospital, attack: str
) -> None:
    change, expected = ATTACKS[attack]
    own, other = made(brest), made(metz)
    found = change(own, other).sent(door)
    assert found == expected or (attack == "a nonce of 1 MB" and found == 0)  # cut off in the midst of it
    assert door.behind.requests == []
    assert made(brest).sent(door) == 200  # the hospital itself goes on


@pytest.mark.parametrize("path", [PULL, PUSH, ACTIVATE, HOLD_PATH, REPLY_PATH])
def test_a_request_is_served_once(door: Door, brest: Hospital, path: str) -> None:
    request = made(brest, path, b"x" * 3_000_000 if path == PUSH else b"body")
    assert [request.sent(door) for _ in range(3)] == [200, 425, 425]
    assert other_form(request).sent(door) == 425
    assert dataclasses.replace(request, body=b"evil").sent(door) == 425
    assert len(door.behind.requests) == 1


def test_requests_that_overtake_each_other_are_served_once_each(door: Door, brest: Hospital) -> None:
    requests = [made(brest, off_s=-off_s) for off_s in (0, 2, 1, 50, 0, -2)]
    assert [request.sent(door) for request in requests] == [200] * 6
    assert [request.sent(door) for request in requests] == [425] * 6


@pytest.mark.parametrize(("off_s", "expected"), [(-55, 200), (-65, 401), (-1e6, 401), (2, 200), (8, 401), (1e6, 401)])
def test_a_request_holds_for_a_minute(door: Door, brest: Hospital, off_s: float, expected: int) -> None:
    assert made(brest, off_s=off_s).sent(door) == expected
    assert len(door.behind.requests) == (expected == 200)


def test_a_node_of_an_older_release_is_served_until_a_newer_one_was_seen(
    door: Door,
    metz: Hospital,
    consortium: Consortium,  # noqa: F811
) -> None:
    nancy = consortium.hospital("nancy")
    door.admitted[nancy.public_key] = Admitted("nancy", certificate_required=False)
    old = [Captured(PULL, nancy.headers(), b"body") for _ in range(3)]
    assert [request.sent(door) for request in old[:2]] == [200, 200]
    assert made(nancy).sent(door) == 200
    assert [request.sent(door) for request in old] == [403, 403, 403]
    door.admitted[nancy.public_key] = Admitted("nancy", certificate_required=False, signs=True)
    assert old[2].sent(door) == 403


def test_who_captured_requests_spends_none_of_the_hospitals(consortium: Consortium, tmp_path: Path) -> None:  # noqa: F811
    brest = consortium.hospital("brest")
    signed = SignedRequests(clock=lambda: time.time() - 60)
    signed._clock = time.time
    with opened(
        consortium, tmp_path, certificate_required=False, requests_per_second=0.4, signed=signed
    ) as door:  # two requests, and then one each two and a half seconds
        door.admitted[brest.public_key] = Admitted("brest", certificate_required=False)
        first = made(brest)
        assert first.sent(door) == 200
        assert {first.sent(door) for _ in range(10)} == {425}
        assert {dataclasses.replace(made(brest), path=PUSH).sent(door) for _ in range(10)} == {403}
        assert made(brest).sent(door) in (200, 429)


# Time and memory, without a door


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Node:
    """A node's signatures at a time, without a network."""

    def __init__(self, name: str) -> None:
        self.site, self._key = name, ec.generate_private_key(ec.SECP256R1())
        self._signer = Signer(self._key, whole=True)
        self.public = self._signer._public.encode()

    def header(self, at_s: float) -> bytes:
        request = httpx.Request("POST", f"https://door{PULL}", content=b"body")
        return self._signer._signed(request, at_s).encode()

    def asks(self, signed: SignedRequests, header: bytes | None) -> int:
        headers = {HEADER: header} if header is not None else {}
        try:
            signed.accept(Admitted(self.site, certificate_required=False), headers, self.public, "POST", PULL)
        except Refusal as refusal:
            return refusal.status if refusal.who == self.site else 0
        return 200


def test_what_is_remembered_is_bounded_and_what_was_forgotten_does_not_pass_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signatures, "REMEMBERED", 8)
    clock, node, other = Clock(), Node("brest"), Node("metz")
    signed = SignedRequests(clock=clock)
    clock.now += 30
    headers = [node.header(clock.now - 1 + i / 100) for i in range(40)]
    quiet = other.header(clock.now - 2)
    assert {node.asks(signed, header) for header in headers} == {200}
    assert {node.asks(signed, header) for header in headers} == {425}
    assert [len(served._known) for served in signed._served.values()] == [8]
    assert node.asks(signed, node.header(clock.now - 1.5)) == 425  # older than what is forgotten: to be signed anew
    assert other.asks(signed, quiet) == 200  # another hospital's are its own


def test_no_request_passes_again_at_a_door_that_was_restarted() -> None:
    clock, node = Clock(), Node("brest")
    before = SignedRequests(clock=clock)
    clock.now += 30
    served = [node.header(clock.now + off_s) for off_s in (-40, -10, 0, 4)]
    assert [node.asks(before, header) for header in served] == [425, 200, 200, 200]
    after = SignedRequests(clock=clock)
    for _ in range(70):
        assert {node.asks(after, header) for header in served} <= {425, 401}
        clock.now += 1
    assert node.asks(after, node.header(clock.now)) == 200


@pytest.mark.parametrize("jump_s", [-7200, -30, 3, 30, 7200])
def test_a_coordinators_clock_that_jumps_lets_nothing_pass_twice(jump_s: float) -> None:
    clock, node = Clock(), Node("brest")
    signed = SignedRequests(clock=clock)
    clock.now += 30
    served = [node.header(clock.now + off_s) for off_s in (-10, 0, 4)]
    assert {node.asks(signed, header) for header in served} == {200}
    for jump in (jump_s, -jump_s):
        clock.now += jump
        assert {node.asks(signed, header) for header in served} <= {425, 401}
        fresh = node.header(clock.now)
        first = 200 if clock.now > NOW + 5 else 425  # before the door began, nothing passes
        assert [node.asks(signed, fresh) for _ in range(2)] == [first, 425]
        served.append(fresh)
    clock.now += 1
    assert node.asks(signed, node.header(clock.now)) == 200


def test_that_a_node_signs_is_told_once_and_not_before_its_signature_holds() -> None:
    clock, node, told = Clock(), Node("brest"), list[str]()
    signed = SignedRequests(told.append, clock)
    clock.now += 30
    forged = node.header(clock.now)[:-8] + b"AAAAAAA="
    assert node.asks(signed, forged) == 403
    assert node.asks(signed, None) == 200  # nothing was learned from it
    assert told == []
    assert [node.asks(signed, node.header(clock.now)) for _ in range(3)] == [200] * 3
    assert told == ["brest"]


# What is kept of it


def member(name: str = "brest", key: bytes = b"PEM") -> Member:
    return Member(name, key, name * 2, "2099-01-01T00:00:00+00:00", without_certificate=True)


@pytest.mark.parametrize("how", ["seen at the door", "said by its node"])
def test_that_a_node_signs_outlives_every_process_until_its_hospital_is_admitted_anew(tmp_path: Path, how: str) -> None:
    members = Membership.open(tmp_path / "coordinator.sqlite")
    members.admit(member())
    members.admit(member("metz", b"other"))
    for protocol in (1, SIGNED_FROM - 1):
        members.set_talk("brest", Talk(protocol))
        assert members.lookup(b"PEM") == Admitted("brest", certificate_required=False)
    if how == "seen at the door":
        members.set_signs("brest")
    else:
        members.set_talk("brest", Talk(SIGNED_FROM))
    members.close()
    members = Membership.open(tmp_path / "coordinator.sqlite")
    assert members.lookup(b"PEM") == Admitted("brest", certificate_required=False, signs=True)
    assert members.lookup(b"other") == Admitted("metz", certificate_required=False)
    members.admit(member())
    assert members.lookup(b"PEM") == Admitted("brest", certificate_required=False)
    members.close()


def test_a_database_that_cannot_be_written_refuses_nobody(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    clock, node = Clock(), Node("brest")
    members = Membership.open(tmp_path / "coordinator.sqlite")
    signed = SignedRequests(lambda site: note_signs(members, site), clock)
    clock.now += 30
    members._connection.execute("PRAGMA query_only = ON")
    header = node.header(clock.now)
    with caplog.at_level("ERROR", "archipel.gateway"):
        assert [node.asks(signed, header), node.asks(signed, header), node.asks(signed, None)] == [200, 425, 403]
    assert "brest signs its requests cannot be written down" in caplog.text
    members.close()


def test_a_coordinators_database_of_an_earlier_release_opens(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE members (site TEXT PRIMARY KEY, public_key BLOB NOT NULL UNIQUE,"
            " signing_key TEXT NOT NULL UNIQUE, expires TEXT NOT NULL, without_certificate INTEGER NOT NULL DEFAULT 0,"
            " revoked INTEGER NOT NULL DEFAULT 0, admitted TEXT NOT NULL DEFAULT '')"
        )
        connection.execute("INSERT INTO members (site, public_key, signing_key, expires) VALUES ('a', 'k', 's', 'e')")
        connection.execute("UPDATE members SET public_key = CAST('k' AS BLOB), without_certificate = 1")
    connection.close()
    members = Membership.open(path)
    assert members.lookup(b"k") == Admitted("a", certificate_required=False)
    members.set_signs("a")
    assert members.lookup(b"k") == Admitted("a", certificate_required=False, signs=True)
    members.close()
