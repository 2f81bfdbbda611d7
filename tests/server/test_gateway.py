"""The door under attack: real TLS, real sockets; behind it a double of the SuperLink, or the real one."""

import asyncio
import contextlib
import dataclasses
import datetime
import http.client
import os
import random
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import ActivateNodeRequest, ActivateNodeResponse, PullMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import PullObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from flwr.supercore.task_identity import TaskIdentity

from client.enrol import CERTIFICATE, NODE_KEY, enrol, load_node_key
from client.uplink.base import RefusedError
from client.uplink.fleet import Fleet
from client.uplink.reach import NOT_ADMITTED
from client.uplink.tls import trust
from configs import wire
from configs.load import load_study
from configs.pieces import HOLD_PATH, REPLY_PATH
from configs.site import SiteConfig
from server.bundle import build_bundle
from server.gateway import answers, limits, strict_http
from server.gateway import authorise as authorising
from server.gateway.answers import live
from server.gateway.forward import make_gateway
from server.gateway.paths import FORWARDED, KEY_HEADER, PATHS, PROTOBUF
from server.gateway.strict_http import make_server, tls_context
from server.membership import Admitted, Member, Membership
from server.pki import Pki, public_pem
from server.signatures import AHEAD_S, with_signed_bodies
from server.superlink.client import SuperLinkClient

PULL, PUSH, ACTIVATE = "/v1/fleet/pull-messages", "/v1/fleet/push-object", "/v1/fleet/activate-node"
ROOT = Path(__file__).resolve().parents[2]
PRESET = ROOT / "configs" / "presets" / "heart_disease.yaml"


@dataclass(frozen=True)
class Hospital:
    """A hospital's keys and the certificate that it has, or pretends to have."""

    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: Path
    key_file: Path

    @property
    def public_key(self) -> bytes:
        return public_pem(self.key.public_key())

    def headers(self, **changes: str) -> dict[str, str]:
        """What Flower's node sends with every request."""
        stamp = datetime.datetime.now(datetime.UTC).isoformat()
        return {
            "content-type": PROTOBUF_MEDIA_TYPE,
            "accept": PROTOBUF_MEDIA_TYPE,
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key_to_bytes(self.key.public_key())).decode(),
            TIMESTAMP_HEADER: stamp,
            FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(self.key, stamp.encode())).decode(),
        } | changes


@dataclass(frozen=True)
class Consortium:
    """An authority, and hospitals that it has certified."""

    folder: Path
    pki: Pki

    def hospital(self, name: str) -> Hospital:
        site = SiteConfig(self.folder / name, name, "127.0.0.1:1")
        certificate = site.keys / CERTIFICATE
        if not certificate.exists():
            site.folder.mkdir()
            _, request = enrol(site)
            certificate.write_text(self.pki.sign(request, name, None)[0])
        return Hospital(name, load_node_key(site), certificate, site.keys / NODE_KEY)

    def expired(self, hospital: Hospital, since_s: float = 60.0) -> Hospital:
        """The same with a certificate that ended some seconds ago, or will."""
        root = x509.load_pem_x509_certificate(self.pki.ca_certificate.read_bytes())
        signer = load_pem_private_key((self.pki.folder / "ca.key").read_bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        end = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=since_s)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hospital.name)]))
            .issuer_name(root.subject)
            .public_key(hospital.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(end - datetime.timedelta(days=1))
            .not_valid_after(end)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(signer, hashes.SHA384())
        )
        path = hospital.certificate.with_name(f"until{since_s}.crt")
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return dataclasses.replace(hospital, certificate=path)

    def trust(self, hospital: Hospital | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.pki.ca_certificate)
        if hospital is not None:
            context.load_cert_chain(hospital.certificate, hospital.key_file)
        return context


def make_consortium(folder: Path) -> Consortium:
    pki = Pki(folder / "pki")
    pki.create("Test", ["127.0.0.1", "localhost"], None)
    return Consortium(folder, pki)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def talk(connection: ssl.SSLSocket, request: bytes, timeout_s: float = 10.0) -> Answer | None:
    """Send bytes as they are; the answer, None if the connection ended without."""
    connection.settimeout(timeout_s)
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        connection.sendall(request)
    return listen(connection, request.split(b" ")[0].decode())


def listen(connection: ssl.SSLSocket, method: str) -> Answer | None:
    response = http.client.HTTPResponse(connection, method=method)
    try:
        response.begin()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    except (ConnectionError, http.client.BadStatusLine, ssl.SSLEOFError):
        return None
    finally:
        response.close()


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join([line, "Host: door", *headers, "", ""]).encode()


def lines(hospital: Hospital, **changes: str) -> list[str]:
    return [f"{name}: {value}" for name, value in hospital.headers(**changes).items()]


class Behind:
    """A SuperLink's double: the same interface, and it remembers what came."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.received = self.broken = 0
        self.answer = ActivateNodeResponse(node_id=7).SerializeToString()
        self.headers = [
            (b"content-type", PROTOBUF_MEDIA_TYPE.encode()),
            (b"x-inside", b"/srv"),
            (b"set-cookie", b"a=b"),
        ]
        self.wait_s = 0.0
        self.pieces = 0  # of a million bytes each, in place of the answer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await live(receive, send, None)
        self.requests.append((f"{scope['method']} {scope['raw_path'].decode()}", _decoded(scope["headers"])))
        more = True
        while more:
            event = await receive()
            if event["type"] != "http.request":
                self.broken += 1
                return
            self.received += len(event["body"])
            more = event["more_body"]
        if self.wait_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.wait_s):
                    if (await receive())["type"] == "http.disconnect":
                        self.broken += 1
                        return
        await self._reply(send)

    async def _reply(self, send: Any) -> None:
        headers = self.headers
        if not self.pieces:
            headers = [*headers, (b"content-length", str(len(self.answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(self.pieces):
            await send({"type": "http.response.body", "body": bytes(1_000_000), "more_body": True})
        await send({"type": "http.response.body", "body": b"" if self.pieces else self.answer, "more_body": False})


def _decoded(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers}


@contextlib.contextmanager
def running(server: Any) -> Iterator[Any]:
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@dataclass
class Door:
    """A gateway in a thread, before a double. `admitted` is what the coordinator's membership would say."""

    consortium: Consortium
    behind: Behind
    port: int
    server: Any
    gateway: Any
    admitted: dict[bytes, Admitted] = field(default_factory=dict)

    def connect(self, hospital: Hospital | None, **options: Any) -> ssl.SSLSocket:
        context = self.consortium.trust(hospital)
        for name, value in options.items():
            setattr(context, name, value)
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        try:
            return context.wrap_socket(raw, server_hostname="127.0.0.1")
        except BaseException:
            raw.close()
            raise

    def ask(self, hospital: Hospital | None, request: bytes) -> Answer | None:
        """One request on a connection of its own; None where no answer comes."""
        try:
            with self.connect(hospital) as connection:
                return talk(connection, request)
        except (ssl.SSLError, ConnectionError):
            return None

    def post(
        self, hospital: Hospital, path: str = PULL, body: bytes = b"", as_whom: Hospital | None = None
    ) -> Answer | None:
        claimed = (as_whom or hospital).headers() | {"Content-Length": str(len(body))}
        return self.ask(hospital, head(f"POST {path} HTTP/1.1", *[f"{k}: {v}" for k, v in claimed.items()]) + body)


def status(answer: Answer | None) -> int:
    return answer.status if answer else 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def opened(consortium: Consortium, folder: Path, certificate_required: bool = True, **limited: Any) -> Iterator[Door]:
    """A door before a double of the SuperLink."""
    admitted = {consortium.hospital(name).public_key: Admitted(name) for name in ("lille", "lyon")}
    options = {"max_request_bytes": 6_000_000, "requests_per_second": 1e6} | limited
    gateway = make_gateway(folder / "superlink.sock", admitted.get, **options)
    behind, port = Behind(), free_port()
    context = tls_context(consortium.pki.folder, certificate_required=certificate_required)
    server = make_server(gateway, ("127.0.0.1", port), context, gateway.recheck)
    inside = make_server(with_signed_bodies(behind), folder / "superlink.sock")
    with running(inside), running(server):
        yield Door(consortium, behind, port, server, gateway, admitted)


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return make_consortium(tmp_path_factory.mktemp("consortium"))


@pytest.fixture(scope="module")
def lille(consortium: Consortium) -> Hospital:
    return consortium.hospital("lille")


@pytest.fixture(scope="module")
def lyon(consortium: Consortium) -> Hospital:
    return consortium.hospital("lyon")


@pytest.fixture(scope="module")
def shared_door(consortium: Consortium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with opened(consortium, tmp_path_factory.mktemp("door")) as door:
        yield door


@pytest.fixture
def door(shared_door: Door, consortium: Consortium) -> Door:
    """The door as new: nothing was asked yet, everybody is admitted."""
    fresh = Behind()
    shared_door.behind.__dict__.update(fresh.__dict__)
    shared_door.admitted.update({consortium.hospital(name).public_key: Admitted(name) for name in ("lille", "lyon")})
    return shared_door


def eventually(holds: Callable[[], bool], within_s: float = 60.0) -> bool:
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


# Who may come in


def test_the_names_of_flower_are_those_of_the_installed_release() -> None:
    ours = {path.decode() for path in PATHS} - {HOLD_PATH, REPLY_PATH}
    theirs = {path for method, path in PROTOBUF_REQUEST_TYPES if path.startswith("/v1/fleet/")}
    assert KEY_HEADER.decode() == FLEET_HTTP_PUBLIC_KEY_HEADER
    assert {FLEET_HTTP_SIGNATURE_HEADER, TIMESTAMP_HEADER} < {name.decode() for name in FORWARDED}
    assert PROTOBUF.decode() == PROTOBUF_MEDIA_TYPE
    assert theirs - ours == {"/v1/fleet/register-node", "/v1/fleet/unregister-node"}
    assert ours <= theirs


def test_an_admitted_hospital_is_answered_with_a_date_and_no_name_of_a_server(door: Door, lille: Hospital) -> None:
    answer = door.post(lille, body=b"abc")
    assert answer is not None
    assert (answer.status, answer.body) == (200, door.behind.answer)
    assert set(answer.headers) == {"date", "content-type", "content-length"}


def test_only_the_headers_that_flower_needs_are_forwarded(door: Door, lille: Hospital) -> None:
    extra = [
        "User-Agent: x",
        "X-Forwarded-For: 1.2.3.4",
        "flwr-task-token: t",
        "Authorization: Bearer x",
        "Cookie: a=b",
    ]
    answer = door.ask(lille, head(f"POST {PULL} HTTP/1.1", *lines(lille), *extra, "Content-Length: 0"))
    assert status(answer) == 200
    [(request, headers)] = door.behind.requests
    expected = {
        "host",
        "content-type",
        "accept",
        "content-length",
        "flwr-public-key",
        "flwr-signature",
        "flwr-timestamp",
    }
    assert request == f"POST {PULL}"
    assert set(headers) == expected
    assert headers["host"] == "superlink"


RELEASE = f"ok, archipel {metadata.version('archipel')} with flwr {metadata.version('flwr')}".encode()


def test_the_health_path_says_which_release_runs_and_nothing_else(door: Door, lille: Hospital) -> None:
    answer = door.ask(lille, head("GET /health HTTP/1.1"))
    assert answer is not None
    assert (answer.status, answer.body) == (200, RELEASE)
    assert "date" in answer.headers
    assert door.behind.requests == []


def test_the_health_path_says_no_to_a_certificate_that_is_not_admitted_or_no_longer(
    door: Door, consortium: Consortium, lille: Hospital
) -> None:
    del door.admitted[lille.public_key]
    for hospital in (lille, consortium.hospital("nantes")):
        answer = door.ask(hospital, head("GET /health HTTP/1.1"))
        assert answer is not None
        assert (answer.status, answer.body.startswith(NOT_ADMITTED.encode())) == (403, True)


def test_nobody_comes_in_without_a_certificate(door: Door, lille: Hospital) -> None:
    assert door.ask(None, head("GET /health HTTP/1.1")) is None
    assert door.ask(None, head(f"POST {PULL} HTTP/1.1", *lines(lille), "Content-Length: 0")) is None
    assert door.behind.requests == []


def test_another_authoritys_certificate_is_refused(door: Door, lille: Hospital, tmp_path: Path) -> None:
    stranger = make_consortium(tmp_path).hospital("lille")
    assert door.ask(stranger, head("GET /health HTTP/1.1")) is None
    assert door.post(stranger, as_whom=lille) is None
    assert door.behind.requests == []


def test_an_expired_certificate_is_refused(door: Door, consortium: Consortium, lille: Hospital) -> None:
    assert door.post(consortium.expired(lille)) is None
    assert door.behind.requests == []


def test_a_certificate_that_expires_ends_an_open_connection(
    door: Door, consortium: Consortium, lille: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = consortium.expired(lille, since_s=-3600.0)
    request = head(f"POST {PULL} HTTP/1.1", *lines(lille), "Content-Length: 0")
    with door.connect(soon) as connection:
        assert status(talk(connection, request)) == 200
        later = SimpleNamespace(**vars(time) | {"time": lambda: time.time() + 3600.0})
        monkeypatch.setattr(authorising, "time", later)
        assert status(talk(connection, request)) == 403


def test_the_doors_own_certificate_opens_nothing(door: Door, consortium: Consortium, lille: Hospital) -> None:
    pki = consortium.pki.folder
    posing = dataclasses.replace(lille, certificate=pki / "server.crt", key_file=pki / "server.key")
    assert door.ask(posing, head("GET /health HTTP/1.1")) is None


def test_a_certified_hospital_that_is_not_admitted_is_refused(door: Door, consortium: Consortium) -> None:
    assert status(door.post(consortium.hospital("nantes"))) == 403
    assert door.behind.requests == []


def test_a_revocation_ends_an_open_connection(door: Door, lille: Hospital) -> None:
    request = head(f"POST {PULL} HTTP/1.1", *lines(lille), "Content-Length: 0")
    with door.connect(lille) as connection:
        assert status(talk(connection, request)) == 200
        del door.admitted[lille.public_key]
        answer = talk(connection, request)
        assert answer is not None
        assert answer.status == 403
        assert answer.headers["connection"] == "close"
        assert "date" in answer.headers
        assert connection.recv(1) == b""
    assert len(door.behind.requests) == 1


def test_a_hospitals_certificate_does_not_open_anothers_key(door: Door, lille: Hospital, lyon: Hospital) -> None:
    assert status(door.post(lille, as_whom=lyon)) == 403
    assert door.behind.requests == []


@pytest.mark.parametrize("key", [None, "", "x", "é", "QUJD", "A" * 5000])
def test_a_key_that_is_none_is_refused(door: Door, lille: Hospital, key: str | None) -> None:
    claimed = lille.headers()
    del claimed[FLEET_HTTP_PUBLIC_KEY_HEADER]
    if key is not None:
        claimed[FLEET_HTTP_PUBLIC_KEY_HEADER] = key
    written = [f"{name}: {value}" for name, value in claimed.items()]
    assert status(door.ask(lille, head(f"POST {PULL} HTTP/1.1", *written, "Content-Length: 0"))) in (400, 403)
    assert door.behind.requests == []


def test_tls_1_2_is_refused(door: Door, lille: Hospital) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with pytest.raises(ssl.SSLError, match=r"(?i)protocol"):
            door.connect(lille, maximum_version=ssl.TLSVersion.TLSv1_2)


def test_the_one_hospital_admitted_without_a_certificate_is_the_only_one(
    consortium: Consortium, lille: Hospital, lyon: Hospital, tmp_path: Path
) -> None:
    brest = consortium.hospital("brest")
    with opened(consortium, tmp_path, certificate_required=False) as door:
        door.admitted[brest.public_key] = Admitted("brest", certificate_required=False)

        def without(hospital: Hospital) -> int:
            return status(door.ask(None, head(f"POST {PULL} HTTP/1.1", *lines(hospital), "Content-Length: 0")))

        assert [without(brest), without(lille), without(consortium.hospital("nantes"))] == [200, 403, 403]
        assert status(door.post(brest)) == 200
        assert status(door.post(lille, as_whom=brest)) == 403
        assert status(door.post(lyon)) == 200
        assert door.ask(make_consortium(tmp_path).hospital("lille"), head("GET /health HTTP/1.1")) is None
        told = [door.ask(who, head("GET /health HTTP/1.1")) for who in (None, lille)]
        assert [answer.body for answer in told if answer] == [b"ok", RELEASE]  # strangers are not told the release


def test_a_lookup_that_fails_lets_nobody_in(
    door: Door, lille: Hospital, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(key: bytes) -> Admitted | None:
        raise RuntimeError("/srv/secret")

    monkeypatch.setattr(door.gateway, "_lookup", broken)
    answer = door.post(lille)
    assert answer is not None
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert door.behind.requests == []


# What may be asked

INSIDE = [
    "/v1/control/start-run",
    "/v1/control/register-node",
    "/v1/runtime/acquire-task",
    "/v1/fleet/register-node",
    "/v1/fleet/unregister-node",
    "/docs",
    "/openapi.json",
    "/",
    "/v1/fleet/",
    "/health/",
    "/v1/fleet/../control/start-run",
    "/v1/fleet/pull-messages/../../control/start-run",
    "/v1/fleet/%2e%2e/control/start-run",
    "/v1/fleet%2f..%2fcontrol/start-run",
    "/v1/%66leet/pull-messages",
    "/v1/fleet/pull%2Dmessages",
    "//v1/control/start-run",
    "//v1/fleet/pull-messages",
    "/v1//fleet/pull-messages",
    "/v1/fleet/./pull-messages",
    "/v1/fleet/pull-messages/",
    "/v1/fleet/pull-messages;a=b",
    "/v1/fleet/pull-messages%00",
    "/v1/fleet/pull-messages#a",
    "/v1/fleet/pull-messages?",
    "/v1/fleet/pull-messages?a=b",
    "/V1/fleet/pull-messages",
    "/v1/fleet/Pull-Messages",
    "/v1/fleet\\pull-messages",
    "http://superlink/v1/control/start-run",
    "http://door/v1/fleet/pull-messages",
    "https://door/v1/fleet/pull-messages",
    "*",
    "superlink:80",
]


@pytest.mark.parametrize("target", INSIDE)
def test_nothing_but_the_listed_paths_exists(door: Door, lille: Hospital, target: str) -> None:
    answer = door.ask(lille, head(f"POST {target} HTTP/1.1", *lines(lille), "Content-Length: 0"))
    assert answer is not None
    assert answer.status == 404
    assert "date" in answer.headers
    assert door.behind.requests == []


@pytest.mark.parametrize(
    "line",
    [f"{m} {PULL}" for m in ("GET", "PUT", "HEAD", "OPTIONS", "post")]
    + ["POST /health", "HEAD /health", "GET /health?", "GET /health?a", "GET /Health", "CONNECT superlink:80"],
)
def test_no_other_method_exists(door: Door, lille: Hospital, line: str) -> None:
    answer = door.ask(lille, head(f"{line} HTTP/1.1", *lines(lille), "Content-Length: 0"))
    assert status(answer) == 404
    assert door.behind.requests == []


AMBIGUOUS = {
    "length and chunks": ["Content-Length: 5", "Transfer-Encoding: chunked"],
    "chunks and length": ["Transfer-Encoding: chunked", "Content-Length: 5"],
    "two lengths": ["Content-Length: 0", "Content-Length: 5"],
    "two hosts": ["Host: other", "Content-Length: 0"],
    "a folded header": ["X-Folded: a\r\n b", "Content-Length: 0"],
    "a folded encoding": ["Transfer-Encoding:\r\n chunked"],
    "a bare line feed": ["X-Bare: a\nContent-Length: 0"],
    "another encoding": ["Transfer-Encoding: gzip, chunked"],
    "a space before the colon": ["Transfer-Encoding : chunked", "Content-Length: 0"],
    "a negative length": ["Content-Length: -1"],
    "a length in words": ["Content-Length: five"],
    "an upgrade": ["Connection: upgrade", "Upgrade: websocket", "Content-Length: 0"],
    "http 2 by upgrade": ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "Content-Length: 0"],
    "two keys": [f"{FLEET_HTTP_PUBLIC_KEY_HEADER}: QUJD", "Content-Length: 0"],
    "two signatures": [f"{FLEET_HTTP_SIGNATURE_HEADER}: QUJD", "Content-Length: 0"],
    "two types": ["Content-Type: text/plain", "Content-Length: 0"],
}


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_what_two_readers_could_read_in_two_ways_is_refused(door: Door, lille: Hospital, kind: str) -> None:
    request = head(f"POST {PULL} HTTP/1.1", *lines(lille), *AMBIGUOUS[kind])
    smuggled = head("POST /v1/control/start-run HTTP/1.1", "Content-Length: 0")
    with door.connect(lille) as connection:
        answer = talk(connection, request + b"0\r\n\r\n" + smuggled)
        assert status(answer) in (400, 501)
        assert answer is not None
        assert "date" in answer.headers
        assert connection.recv(1) == b""
    assert door.behind.requests == []


def test_http_1_0_and_another_media_type_are_refused(door: Door, lille: Hospital) -> None:
    assert status(door.ask(lille, head(f"POST {PULL} HTTP/1.0", *lines(lille), "Content-Length: 0"))) == 400
    plain = lines(lille, **{"content-type": "text/plain"})
    assert status(door.ask(lille, head(f"POST {PULL} HTTP/1.1", *plain, "Content-Length: 0"))) == 415
    assert door.behind.requests == []


def test_pipelined_requests_are_answered_in_order(door: Door, lille: Hospital) -> None:
    good = head(f"POST {PULL} HTTP/1.1", *lines(lille), "Content-Length: 0")
    with door.connect(lille) as connection:
        connection.sendall(good + good + head("POST /v1/control/start-run HTTP/1.1", "Content-Length: 0") + good)
        assert [status(listen_one(connection)) for _ in range(3)] == [200, 200, 404]
        assert connection.recv(1) == b""
    assert len(door.behind.requests) == 2


def listen_one(connection: ssl.SSLSocket) -> Answer:
    """An answer read byte by byte, so that none of the next is taken."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += connection.recv(1) or pytest.fail(f"the connection ended: {data!r}")
    first, *rest = data.decode().splitlines()
    headers = dict(line.lower().split(": ", 1) for line in rest if line)
    body = b""
    while len(body) < int(headers["content-length"]):
        body += connection.recv(1)
    return Answer(int(first.split()[1]), headers, body)


# How much and how long


def test_a_body_announced_too_large_is_refused_before_it_is_forwarded(door: Door, lille: Hospital) -> None:
    answer = door.post(lille, PUSH, bytes(6_000_001))
    assert status(answer) == 413
    assert door.behind.requests == []


def test_an_endless_body_in_chunks_is_refused_and_not_kept(door: Door, lille: Hospital) -> None:
    request = head(f"POST {PUSH} HTTP/1.1", *lines(lille), "Transfer-Encoding: chunked")
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    with door.connect(lille) as connection:
        answer = talk(connection, request + chunk * 100)
    assert status(answer) == 413
    assert door.behind.received <= 6_000_000
    assert eventually(lambda: door.behind.broken == 1)


@pytest.mark.parametrize("chunked", [False, True])
def test_the_largest_body_arrives_whole(door: Door, lille: Hospital, chunked: bool) -> None:
    how = "Transfer-Encoding: chunked" if chunked else "Content-Length: 6000000"
    body = b"%x\r\n" % 6_000_000 + bytes(6_000_000) + b"\r\n0\r\n\r\n" if chunked else bytes(6_000_000)
    assert status(door.ask(lille, head(f"POST {PUSH} HTTP/1.1", *lines(lille), how) + body)) == 200
    assert door.behind.received == 6_000_000


def test_a_large_answer_arrives_whole(door: Door, lille: Hospital) -> None:
    door.behind.pieces = 20
    answer = door.post(lille)
    assert answer is not None
    assert len(answer.body) == 20_000_000


def test_a_body_cut_short_is_given_up(door: Door, lille: Hospital) -> None:
    with door.connect(lille) as connection:
        connection.sendall(head(f"POST {PUSH} HTTP/1.1", *lines(lille), "Content-Length: 1000") + b"abc")
        assert eventually(lambda: door.behind.received == 3)
    assert eventually(lambda: door.behind.broken == 1)
    assert settled(door)


def test_whoever_hangs_up_is_not_waited_for(door: Door, lille: Hospital) -> None:
    door.behind.wait_s = 30.0
    with door.connect(lille) as connection:
        connection.sendall(head(f"POST {PULL} HTTP/1.1", *lines(lille), "Content-Length: 0"))
        assert eventually(lambda: len(door.behind.requests) == 1)
    assert eventually(lambda: door.behind.broken == 1)
    assert settled(door)


def settled(door: Door) -> bool:
    """No task, connection or request is left over."""
    state = door.server.server_state
    return eventually(
        lambda: not state.tasks and not state.connections and not any(door.gateway._rates._in_flight.values())
    )


def test_a_body_that_never_ends_is_given_up(
    consortium: Consortium, lille: Hospital, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "LINGER_S", 0.2)
    with opened(consortium, tmp_path, request_timeout_s=0.5) as door:
        with door.connect(lille) as connection:
            answer = talk(connection, head(f"POST {PUSH} HTTP/1.1", *lines(lille), "Content-Length: 1000") + b"abc")
            assert status(answer) == 408
            assert connection.recv(1) == b""
        assert settled(door)
        assert door.behind.broken == 1


def test_a_superlink_that_does_not_answer_is_not_waited_for(
    consortium: Consortium, lille: Hospital, tmp_path: Path
) -> None:
    with opened(consortium, tmp_path, request_timeout_s=0.5) as door:
        door.behind.wait_s = 30.0
        assert status(door.post(lille)) == 503
        assert settled(door)
        assert eventually(lambda: door.behind.broken == 1)


def test_headers_that_never_end_are_given_up(door: Door, lille: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_http, "HEAD_TIMEOUT_S", 0.5)
    with door.connect(lille) as connection, door.connect(lille) as silent:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 60:
                connection.sendall(b"POST /" if time.monotonic() == began else b"X")
                time.sleep(0.05)
        assert 0.3 < time.monotonic() - began < 30
        silent.settimeout(60)
        with contextlib.suppress(ConnectionError):
            assert silent.recv(1) == b""
    assert settled(door)


def test_headers_that_never_end_are_given_up_on_a_used_connection(
    door: Door, lille: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strict_http, "HEAD_TIMEOUT_S", 0.5)
    with door.connect(lille) as connection:
        assert status(talk(connection, head("GET /health HTTP/1.1"))) == 200
        connection.sendall(b"GET /hea")
        connection.settimeout(3)
        with contextlib.suppress(ConnectionError):
            assert connection.recv(1) == b""
    assert settled(door)


def test_large_headers_are_refused(door: Door, lille: Hospital) -> None:
    assert status(door.ask(lille, head("GET /health HTTP/1.1", *["X-A: " + "a" * 1000] * 20))) in (0, 400)
    assert status(door.ask(lille, head("GET /" + "a" * 20_000 + " HTTP/1.1"))) in (0, 400)


def test_the_rate_is_each_hospitals_own(
    consortium: Consortium, lille: Hospital, lyon: Hospital, tmp_path: Path
) -> None:
    with opened(consortium, tmp_path, requests_per_second=0.2) as door:
        assert status(door.post(lille)) == 200
        assert status(door.post(lille)) == 429
        assert status(door.post(lyon)) == 200
        assert eventually(lambda: status(door.post(lille)) == 200, 30.0)


def test_what_is_in_flight_is_bounded_for_each_hospital(
    door: Door, lille: Hospital, lyon: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_IN_FLIGHT", 2)
    door.behind.wait_s = 1.0
    request = head(f"POST {PULL} HTTP/1.1", *lines(lille), "Content-Length: 0")
    with door.connect(lille) as one, door.connect(lille) as two:
        one.sendall(request)
        two.sendall(request)
        assert eventually(lambda: len(door.behind.requests) == 2)
        refused = door.post(lille)
        assert refused is not None
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert status(door.post(lyon)) == 200
    assert settled(door)


def test_connections_are_bounded_for_each_hospital(
    door: Door, lille: Hospital, lyon: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strict_http, "MAX_CONNECTIONS_EACH", 2)
    with door.connect(lille), door.connect(lille):
        assert eventually(lambda: len(door.server.server_state.connections) == 2)
        assert door.ask(lille, head("GET /health HTTP/1.1")) is None
        assert status(door.ask(lyon, head("GET /health HTTP/1.1"))) == 200
    assert settled(door)
    assert status(door.ask(lille, head("GET /health HTTP/1.1"))) == 200


def test_a_superlink_that_is_down_is_503_and_one_that_breaks_off_502(
    consortium: Consortium, lille: Hospital, tmp_path: Path
) -> None:
    gateway = make_gateway(
        tmp_path / "none.sock", lambda _: Admitted("lille"), max_request_bytes=9, requests_per_second=9
    )
    port = free_port()
    server = make_server(gateway, ("127.0.0.1", port), tls_context(consortium.pki.folder))
    with running(server):
        door = Door(consortium, Behind(), port, server, gateway)
        answer = door.post(lille)
        assert answer is not None
        assert (answer.status, "date" in answer.headers) == (503, True)
        assert str(tmp_path).encode() not in answer.body
        with nonsense(tmp_path / "none.sock"):
            assert status(door.post(lille)) == 502
        assert settled(door)


@contextlib.contextmanager
def nonsense(path: Path) -> Iterator[None]:
    """Something that answers, but not in HTTP."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(b"nonsense\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join(5)


def test_refusals_are_logged_with_the_site_and_not_without_end(
    door: Door, consortium: Consortium, caplog: pytest.LogCaptureFixture
) -> None:
    rennes = consortium.hospital("rennes")
    with caplog.at_level("WARNING", "archipel.gateway"):
        for _ in range(20):
            door.post(rennes, body=b"secret-body")
    told = [record.getMessage() for record in caplog.records if record.name == "archipel.gateway"]
    assert len(told) == 1
    assert "rennes: refused (403)" in told[0]
    assert "secret-body" not in caplog.text


# Before the real SuperLink


class OldFleet(Fleet):
    """A node of the release before, which does not hear what the coordinator says that it talks."""

    protocol = 1


@dataclass
class Federation:
    """A real SuperLink and a real gateway, in processes of their own."""

    consortium: Consortium
    folder: Path
    port: int
    members: Membership
    link: SuperLinkClient
    superlink: "subprocess.Popen[bytes]"
    gateway: "subprocess.Popen[bytes]"
    nodes: dict[str, int] = field(default_factory=dict)
    started_s: float = field(default_factory=time.time)

    def admit(self, hospital: Hospital, **options: Any) -> None:
        self.members.admit(
            Member(hospital.name, hospital.public_key, hospital.name * 2, "2099-01-01T00:00:00+00:00", **options)
        )
        if hospital.name not in self.nodes:
            self.nodes[hospital.name] = self.link.admit(hospital.public_key)

    def fleet(self, hospital: Hospital, kind: type[Fleet] = Fleet, *, certificate: bool = True) -> Fleet:
        context = trust(
            self.consortium.pki.ca_certificate.read_text(),
            certificate=str(hospital.certificate) if certificate else None,
            key=str(hospital.key_file) if certificate else None,
            extra_ca=None,
        )
        address, own = f"127.0.0.1:{self.port}", not certificate
        return kind(address, context, hospital.key, max_message_bytes=10**8, sign_requests=own)

    def client(self, hospital: Hospital | None) -> httpx.Client:
        return httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}",
            verify=self.consortium.trust(hospital),
            timeout=60,
            trust_env=False,
        )

    def alive(self) -> bool:
        return self.superlink.poll() is None and self.gateway.poll() is None


@contextlib.contextmanager
def process(*arguments: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """`python -m` something that ends when its standard input is closed."""
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [sys.executable, "-m", *arguments], stdin=subprocess.PIPE, stdout=out, stderr=out, cwd=ROOT
        ) as child,
    ):
        try:
            yield child
        finally:
            assert child.stdin is not None
            child.stdin.close()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                raise


def await_listener(where: int | Path, child: "subprocess.Popen[bytes]", log: Path) -> None:
    def reached() -> bool:
        assert child.poll() is None, log.read_text()
        with socket.socket(socket.AF_UNIX if isinstance(where, Path) else socket.AF_INET) as probe:
            return probe.connect_ex(str(where) if isinstance(where, Path) else ("127.0.0.1", where)) == 0

    assert eventually(reached, 30), log.read_text()


@pytest.fixture(scope="module")
def federation(consortium: Consortium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder, port = consortium.folder, free_port()
    (folder / "coordinator.yaml").write_text(
        f"name: Test\nnames: [127.0.0.1]\nlisten: 127.0.0.1:{port}\nrequests_per_second: 100000\n"
    )
    (folder / "sockets").mkdir(mode=0o700)
    sock = folder / "sockets" / "superlink.sock"
    with contextlib.ExitStack() as stack:
        superlink = stack.enter_context(
            process("server.superlink", str(sock), str(folder / "parts"), log=folder / "superlink.log")
        )
        members = Membership.open(folder / "coordinator.sqlite")
        stack.callback(members.close)
        gateway = stack.enter_context(process("server.gateway", str(folder), log=folder / "gateway.log"))
        await_listener(sock, superlink, folder / "superlink.log")
        link = SuperLinkClient(sock)
        stack.callback(link.close)
        link.await_ready()
        await_listener(port, gateway, folder / "gateway.log")
        made = Federation(consortium, folder, port, members, link, superlink, gateway)
        for name in ("lille", "lyon"):
            made.admit(consortium.hospital(name))
        yield made
        assert made.alive()


@pytest.fixture
def fleet(federation: Federation, lille: Hospital) -> Iterator[Fleet]:
    made = federation.fleet(lille)
    made.connect()
    yield made
    made.close()


@pytest.fixture(scope="module")
def recorded(federation: Federation, lille: Hospital) -> Iterator[list[tuple[str, bytes]]]:
    """Every request of a real exchange through the door: activation, a message with its objects, an answer.

    Its run goes on, so that nothing is refused only because it is over.
    """
    with exchanged(federation, lille) as requests:
        yield [(request.url.path, request.content) for request in requests]


@contextlib.contextmanager
def exchanged(federation: Federation, hospital: Hospital, *, certificate: bool = True) -> Iterator[list[httpx.Request]]:
    requests: list[httpx.Request] = []

    def note(request: httpx.Request) -> None:
        request.read()  # what is streamed is gone once it was sent
        requests.append(request)

    fleets = [federation.fleet(hospital, kind, certificate=certificate) for kind in (OldFleet, Fleet)]
    for fleet in fleets:
        fleet._client._client.event_hooks["request"].append(note)
        fleet.line.hold_s = 0.1
    node = fleet.connect()
    fleets[0]._node = fleet._node
    fleet._client.SendNodeHeartbeat(SendNodeHeartbeatRequest(node=Node(node_id=node), heartbeat_interval=30))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Flower's use of pathspec
        bundle = build_bundle(load_study(PRESET))
    with federation.link.run(*bundle) as grid:
        for fleet in fleets:
            TaskIdentity.node_id = 1
            message = Message(RecordDict({"config": ConfigRecord({"round": 1})}), node, MessageType.TRAIN)
            [sent] = grid.push_messages([message])
            incoming = fleet.receive()
            assert incoming is not None
            assert incoming.records["config"]["round"] == 1
            fleet.bundle(incoming.run_id)
            TaskIdentity.node_id = node
            fleet.reply(incoming, RecordDict({"config": ConfigRecord({"loss": 0.5, "blob": bytes(2000)})}))
            [reply] = grid.pull_messages([sent])
            assert reply.content["config"]["loss"] == 0.5
            fleet._client.close() if fleet is not fleets[-1] else fleet.close()
        yield requests


def test_without_a_certificate_every_request_is_signed_whole_and_a_copy_of_none_is_served(
    federation: Federation, consortium: Consortium
) -> None:
    brest = consortium.hospital("brest")
    federation.admit(brest, without_certificate=True)

    def statuses(requests: list[httpx.Request], spoil: bytes = b"") -> set[int]:
        with federation.client(None) as client:
            return {client.post(r.url.path, content=r.content + spoil, headers=resent(r)).status_code for r in requests}

    def resent(request: httpx.Request) -> list[tuple[str, str]]:
        return [(name, value) for name, value in request.headers.items() if name not in ("host", "content-length")]

    def reached() -> bool:
        with contextlib.suppress(httpx.TransportError), federation.client(None) as client:
            return client.get("/health").status_code == 200
        return False

    assert eventually(reached)
    # A clock that is corrected is up to three seconds behind; what was signed before the door was there is not taken.
    assert eventually(lambda: federation.started_s < time.time() - AHEAD_S - 3, 20)
    with exchanged(federation, brest, certificate=False) as requests:
        assert {request.url.path for request in requests} == {path.decode() for path in PATHS}
        admitted = federation.members.lookup(brest.public_key)
        assert admitted == Admitted("brest", certificate_required=False, signs=True)
        assert statuses(requests) == {425}
        assert statuses(requests, b"another body") == {425}
        stripped = [httpx.Request("POST", request.url, headers=brest.headers()) for request in requests]
        assert statuses(stripped) == {403}
    late = federation.fleet(brest, certificate=False)
    late._signer._offset_s = -120.0  # its clock; Flower alone would take it
    begin = time.monotonic()
    late.connect()
    took_s = time.monotonic() - begin
    assert -3 - took_s < late._signer._offset_s < 0.5  # whole seconds of a date that is made each second, and the way
    late.close()
    federation.members.revoke("brest")
    assert eventually(lambda: not reached())


def test_a_message_and_its_answer_pass_the_door(recorded: list[tuple[str, bytes]]) -> None:
    assert {path for path, _ in recorded} == {path.decode() for path in PATHS}


def test_a_node_learns_through_the_door_what_the_coordinator_talks(federation: Federation, lyon: Hospital) -> None:
    fleet = federation.fleet(lyon)
    assert (fleet.protocol, fleet.release) == (1, "")
    fleet.connect()
    assert (fleet.protocol, fleet.release) == (wire.PROTOCOL_MAX, metadata.version("archipel"))
    fleet.close()


def test_a_hospital_that_quotes_anothers_node_is_refused_by_the_superlink(
    federation: Federation, lille: Hospital, lyon: Hospital
) -> None:
    ours, theirs = (Node(node_id=federation.nodes[name]) for name in ("lille", "lyon"))
    with federation.client(lille) as client:

        def pull(node: Node) -> int:
            body = PullMessagesRequest(node=node).SerializeToString()
            return client.post(PULL, content=body, headers=lille.headers()).status_code

        body = PullObjectRequest(node=theirs, run_id=1, object_id="a" * 64).SerializeToString()
        stolen = client.post("/v1/fleet/pull-object", content=body, headers=lille.headers()).status_code
        claim = ActivateNodeRequest(public_key=lyon.public_key, heartbeat_interval=30).SerializeToString()
        claimed = client.post(ACTIVATE, content=claim, headers=lille.headers()).status_code
        assert (pull(theirs), stolen, claimed) == (401, 401, 401)
        assert pull(ours) == 200


def test_a_signature_by_anothers_key_is_refused_by_the_superlink(
    federation: Federation, lille: Hospital, lyon: Hospital
) -> None:
    body = PullMessagesRequest(node=Node(node_id=federation.nodes["lille"])).SerializeToString()
    signed = {name: lyon.headers()[name] for name in (TIMESTAMP_HEADER, FLEET_HTTP_SIGNATURE_HEADER)}
    stamps = lyon.headers()
    signed = {name: stamps[name] for name in signed}
    with federation.client(lille) as client:
        assert client.post(PULL, content=body, headers=lille.headers() | signed).status_code == 401


def test_the_database_revokes_on_an_open_connection(federation: Federation, consortium: Consortium) -> None:
    nice = consortium.hospital("nice")
    federation.admit(nice)
    body = PullMessagesRequest(node=Node(node_id=federation.nodes["nice"])).SerializeToString()
    with federation.client(nice) as client:
        assert client.post(PULL, content=body, headers=nice.headers()).status_code == 200
        federation.members.revoke("nice")
        refused = client.post(PULL, content=body, headers=nice.headers())
        assert (refused.status_code, refused.headers["connection"]) == (403, "close")
    fleet = federation.fleet(nice)
    with contextlib.closing(fleet), pytest.raises(RefusedError, match="does not accept"):
        fleet.connect()


def test_the_database_lets_one_hospital_in_without_a_certificate_while_it_is_admitted_so(
    federation: Federation, consortium: Consortium, lille: Hospital
) -> None:
    metz = consortium.hospital("metz")

    def post(hospital: Hospital) -> int:
        body = PullMessagesRequest(node=Node(node_id=federation.nodes[hospital.name])).SerializeToString()
        with contextlib.suppress(httpx.TransportError), federation.client(None) as client:
            return client.post(PULL, content=body, headers=hospital.headers()).status_code
        return 0

    assert post(lille) == 0
    federation.admit(metz, without_certificate=True)
    assert eventually(lambda: post(metz) == 200)
    assert post(lille) == 403
    federation.members.revoke("metz")
    assert eventually(lambda: post(metz) == 0)


def descriptors(child: "subprocess.Popen[bytes]") -> int:
    return len(list(Path(f"/proc/{child.pid}/fd").iterdir()))


def memory_bytes(child: "subprocess.Popen[bytes]", which: str = "VmHWM") -> int:
    found = re.search(rf"{which}:\s+(\d+) kB", Path(f"/proc/{child.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_the_doors_memory_does_not_grow_with_what_passes(federation: Federation, lille: Hospital) -> None:
    def push() -> None:
        with federation.client(lille) as client:
            for _ in range(3):
                client.post(PUSH, content=os.urandom(15_000_000), headers=lille.headers())

    before = memory_bytes(federation.gateway)
    threads = [threading.Thread(target=push) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memory_bytes(federation.gateway) - before < 20_000_000


def mutated(body: bytes, dice: random.Random) -> bytes:
    """A real request with something wrong: bytes flipped, cut out, doubled, put in, or lengths that lie."""
    data = bytearray(body)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        at = dice.randrange(len(data) + 1)
        kind = dice.randrange(5)
        if kind == 0 and at < len(data):
            data[at] = dice.randrange(256)
        elif kind == 1:
            del data[at : at + dice.choice((1, 2, 8, 64))]
        elif kind == 2:
            data[at:at] = data[dice.randrange(len(data) + 1) :][:32]
        elif kind == 3:
            data[at:at] = dice.randbytes(dice.choice((1, 4, 32)))
        elif at < len(data):
            data[at:at] = b"\xff" * dice.choice((1, 4, 9)) + b"\x01"
    return bytes(data)


_LEAKS = re.compile(rb"Traceback|File \"|\.py|/home|/tmp|/work|/usr|site-packages|sqlite|Exception")


_FLOWERS = (200, 400, 401, 403, 404, 409, 412, 500)  # the SuperLink's own; the door's would say that it broke


def fuzz(
    federation: Federation, hospital: Hospital, recorded: list[tuple[str, bytes]], seed: int, count: int
) -> list[str]:
    """What came back that should not have, of so many mutated requests."""
    dice, problems = random.Random(seed), []
    connection = http.client.HTTPSConnection(
        "127.0.0.1", federation.port, context=federation.consortium.trust(hospital), timeout=120
    )
    with contextlib.closing(connection):
        headers = hospital.headers()
        for _ in range(count):
            path, body = dice.choice(recorded)
            body = mutated(body, dice)
            connection.request("POST", path, body=body, headers=headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status not in _FLOWERS or (answer.status >= 400 and _LEAKS.search(text)):
                problems.append(f"{path} {body.hex()[:200]}: {answer.status} {text[:200]!r}")
    return problems


@pytest.mark.slow
def test_ten_thousand_mutated_requests_break_nothing_and_learn_nothing(
    federation: Federation, recorded: list[tuple[str, bytes]], lille: Hospital
) -> None:
    small = [(path, body) for path, body in recorded if len(body) < 10_000]
    problems = fuzz(federation, lille, small, 4, 500)  # warm
    parts = (federation.superlink, federation.gateway)
    held, resident = [descriptors(part) for part in parts], memory_bytes(federation.gateway, "VmRSS")
    threads = [
        threading.Thread(target=lambda seed=seed: problems.extend(fuzz(federation, lille, small, seed, 2500)))
        for seed in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert federation.alive()
    assert eventually(lambda: all(descriptors(p) <= few + 4 for p, few in zip(parts, held, strict=True)), 10)
    assert memory_bytes(federation.gateway, "VmRSS") - resident < 10_000_000
    fleet = federation.fleet(lille)
    with contextlib.closing(fleet):
        assert fleet.connect(previous=federation.nodes["lille"]) == federation.nodes["lille"]
        fleet.line.hold_s = 0.1
        assert fleet.receive() is None
    assert b"Traceback" not in (federation.folder / "gateway.log").read_bytes()


def test_the_sockets_and_the_keys_are_the_owners_alone(federation: Federation) -> None:
    assert (federation.folder / "sockets").stat().st_mode & 0o777 == 0o700
    assert (federation.folder / "pki" / "server.key").stat().st_mode & 0o777 == 0o600


def test_the_door_ends_with_its_owner(consortium: Consortium, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "pki").symlink_to(consortium.pki.folder)
    (tmp_path / "coordinator.yaml").write_text(f"name: Test\nnames: [127.0.0.1]\nlisten: 127.0.0.1:{port}\n")
    with process("server.gateway", str(tmp_path), log=tmp_path / "log") as child:
        await_listener(port, child, tmp_path / "log")
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(5) == 0


def test_a_folder_without_a_configuration_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "server.gateway", str(tmp_path)], cwd=ROOT, capture_output=True, timeout=120, check=False
    )
    assert ended.returncode == 2
    assert b"coordinator.yaml" in ended.stderr
    assert b"Traceback" not in ended.stderr
