"""The connection to a coordinator that lies: a TLS server that answers what a test tells it to."""

import contextlib
import http.server
import inspect
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeResponse, PullMessagesResponse
from flwr.proto.message_pb2 import ConfirmMessageReceivedResponse, PullObjectRequest, PullObjectResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

from client.enrol import CERTIFICATE, NODE_KEY, load_node_key
from client.uplink import flower
from client.uplink.base import RefusedError, UnreachableError
from client.uplink.fleet import Fleet
from client.uplink.proxy import Proxy as NamedProxy
from client.uplink.proxy import proxy_to
from client.uplink.tls import trust
from configs import wire
from configs.errors import ArchipelError, RunError, WireError
from configs.site import SiteConfig
from strategies.exchange.arrays import to_record
from tests import builders
from tests.consortium import Consortium
from tests.proxy import Proxy

Answer = tuple[int, bytes] | Callable[["http.server.BaseHTTPRequestHandler"], None]


@dataclass
class Liar:
    """Answers each path with what `answers` holds for it."""

    port: int
    answers: dict[str, Answer | Callable[[bytes], bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return Consortium(tmp_path_factory.mktemp("consortium"))


@pytest.fixture(scope="module")
def lille(consortium: Consortium) -> SiteConfig:
    return consortium.hospital("lille")


@pytest.fixture
def liar(consortium: Consortium) -> Iterator[Liar]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            path = self.path.rpartition("/")[2]
            made.asked.append(path)
            answer: Any = made.answers.get(path, (200, b""))
            if isinstance(answer, tuple):
                self.answer(*answer)
            elif inspect.signature(answer).return_annotation is bytes:
                self.answer(200, answer(body))
            else:
                with contextlib.suppress(OSError):
                    answer(self)

        def answer(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/protobuf")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(consortium.pki.folder / "server.crt", consortium.pki.folder / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    made = Liar(server.server_address[1], {"activate-node": (200, ActivateNodeResponse(node_id=7).SerializeToString())})
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def fleet(liar: Liar, consortium: Consortium, lille: SiteConfig) -> Iterator[Fleet]:
    context = trust(
        consortium.pki.ca_certificate.read_text(),
        certificate=str(lille.keys / CERTIFICATE),
        key=str(lille.keys / NODE_KEY),
        extra_ca=None,
    )
    made = Fleet(f"127.0.0.1:{liar.port}", context, load_node_key(lille), max_message_bytes=1_000_000)
    made.connect()
    yield made
    for thread in threading.enumerate():  # Flower leaves pulls that were given up to themselves, a connection each
        if thread.name.startswith("ThreadPoolExecutor"):
            thread.join(timeout=60)
    made.close()


def offer(liar: Liar, records: RecordDict, spoil: Callable[[str, bytes], bytes] = lambda name, data: data) -> None:
    """Let the liar hold a message, of which it may spoil each object."""
    message = builders.message(records, wire.TRAIN)
    message.metadata.__dict__["_message_id"] = message.object_id
    objects = {name: item.deflate() for name, item in get_all_nested_objects(message).items()}
    tree = get_object_tree(message)
    header = message_to_proto(remove_content_from_message(message))
    pulled = PullMessagesResponse(messages_list=[header], message_object_trees=[tree])

    def piece(body: bytes) -> bytes:
        asked = PullObjectRequest.FromString(body).object_id
        content = spoil(asked, objects[asked])
        answer = PullObjectResponse(object_found=True, object_available=True, object_content=content)
        return bytes(answer.SerializeToString())

    liar.answers["pull-messages"] = (200, pulled.SerializeToString())
    liar.answers["pull-object"] = piece
    liar.answers["confirm-message-received"] = (200, ConfirmMessageReceivedResponse().SerializeToString())


def small() -> RecordDict:
    return RecordDict({"config": ConfigRecord({"round": 1})})


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def fleet_to(port: int, consortium: Consortium, lille: SiteConfig) -> Fleet:
    context = trust(consortium.pki.ca_certificate.read_text(), certificate=None, key=None, extra_ca=None)
    return Fleet(f"127.0.0.1:{port}", context, load_node_key(lille), max_message_bytes=1000)


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize(
    "value",
    [
        "http://user:Geheim#42@proxy.example:3128",
        "http://user:Geheim/42@proxy.example:3128",
        "http://127.0.0.1:99999",
        "garbage:::x",
        "socks5://user:Geheim@127.0.0.1:1080",
    ],
)
def test_a_proxy_that_is_none_ends_the_node_with_a_sentence_and_without_its_password(
    consortium: Consortium, lille: SiteConfig, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    for variable in ("HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, value)
        with pytest.raises(RunError, match=rf"^{variable}: expected .*http://\[NAME:PASSWORD@\]HOST:PORT") as refused:
            fleet_to(1, consortium, lille)
        assert "Geheim" not in str(refused.value)
        assert refused.value.__suppress_context__ or refused.value.__context__ is None
        monkeypatch.delenv(variable)


@pytest.mark.usefixtures("no_proxy")
def test_the_node_takes_the_way_that_check_looks_at(
    liar: Liar, consortium: Consortium, lille: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://no way:here")  # for other addresses than https: nobody reads it
    with Proxy("node:p@ss") as proxy:
        for variable in ("HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(variable, f"http://node:p%40ss@127.0.0.1:{proxy.port}")
            with contextlib.closing(fleet_to(liar.port, consortium, lille)) as through:
                through.connect()
                assert proxy.asked.count(f"127.0.0.1:{liar.port}") == 1
            assert str(proxy_to("127.0.0.1", liar.port)) == f"127.0.0.1:{proxy.port}"
            proxy.asked.clear()
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            with contextlib.closing(fleet_to(liar.port, consortium, lille)) as direct:
                direct.connect()
            assert (proxy.asked, proxy_to("127.0.0.1", liar.port)) == ([], None)
            monkeypatch.delenv("NO_PROXY")
            monkeypatch.delenv(variable)


@pytest.mark.usefixtures("no_proxy")
def test_a_proxys_account_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "node:Geheim@[::1]:3128/")
    found = proxy_to("127.0.0.1", 1)
    assert found == NamedProxy("http", "::1", 3128, ("node", "Geheim"))
    assert "Geheim" not in f"{found} {found!r}"


@pytest.mark.parametrize(
    ("headers", "heard"),
    [
        ({}, (1, "")),
        ({"archipel-protocol": "2", "archipel-release": "0.2.0"}, (2, "0.2.0")),
        ({"archipel-protocol": "0"}, (1, "")),
        ({"archipel-protocol": "-2", "archipel-release": "x" * 41}, (1, "")),
        ({"archipel-protocol": "9" * 5000, "archipel-release": "1.0\t"}, (1, "1.0")),
        ({"archipel-protocol": "2, 3", "archipel-release": "<1>"}, (1, "")),
    ],
)
def test_what_the_coordinator_says_of_its_release_is_bounded(
    fleet: Fleet, liar: Liar, headers: dict[str, str], heard: tuple[int, str]
) -> None:
    def told(handler: Any) -> None:
        handler.send_response(200)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("content-length", "0")
        handler.end_headers()

    liar.answers["pull-messages"] = told
    assert fleet.receive() is None
    assert (fleet.protocol, fleet.release) == heard


def test_an_honest_message_arrives(fleet: Fleet, liar: Liar) -> None:
    offer(liar, small())
    incoming = fleet.receive()
    assert incoming is not None
    assert incoming.records["config"]["round"] == 1
    assert "confirm-message-received" in liar.asked


def test_a_message_larger_than_the_policy_allows_is_not_read(fleet: Fleet, liar: Liar) -> None:
    offer(liar, RecordDict({"arrays": to_record({"w": np.zeros(3_000_000, np.float32)})}))
    with pytest.raises(WireError, match="max_message_mb"):
        fleet.receive()
    assert liar.asked.count("pull-object") < 12  # not the whole of it


def test_an_answer_that_does_not_end_is_given_up_and_not_kept(fleet: Fleet, liar: Liar) -> None:
    def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "application/protobuf")
        handler.send_header("content-length", str(10**10))
        handler.end_headers()
        for _ in range(10_000):
            handler.wfile.write(bytes(1_000_000))

    liar.answers["pull-messages"] = endless
    tracemalloc.start()
    try:
        with pytest.raises(UnreachableError, match="does not end"):
            fleet.receive()
        assert tracemalloc.get_traced_memory()[1] < 60_000_000
    finally:
        tracemalloc.stop()


def test_an_answer_that_drips_is_given_up(fleet: Fleet, liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "1000")
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    monkeypatch.setattr(flower, "RESPONSE_TIMEOUT_S", 0.3)
    liar.answers["pull-messages"] = drip
    began = time.monotonic()
    with pytest.raises(UnreachableError):
        fleet.receive()
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"\xff" * 50),
        (200, b"<html>the hospital's proxy</html>"),
        (
            200,
            PullMessagesResponse(
                messages_list=[message_to_proto(remove_content_from_message(builders.message(small(), wire.TRAIN)))]
            ).SerializeToString(),
        ),
        (302, b""),
        (500, b"x" * 100_000),
        (403, b"\x00" * 100),
        (418, b"{}"),
    ],
    ids=["bytes", "a page", "a message without parts", "elsewhere", "an error", "no", "a teapot"],
)
def test_an_answer_that_is_none_is_an_error_for_people(fleet: Fleet, liar: Liar, answer: tuple[int, bytes]) -> None:
    liar.answers["pull-messages"] = answer
    with pytest.raises(ArchipelError):
        fleet.receive()


def test_nobody_is_followed_elsewhere(fleet: Fleet, liar: Liar) -> None:
    def elsewhere(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(307)
        handler.send_header("location", f"https://127.0.0.1:{liar.port}/other")
        handler.send_header("content-length", "0")
        handler.end_headers()

    liar.answers["pull-messages"] = elsewhere
    with pytest.raises(RefusedError):
        fleet.receive()
    assert "other" not in liar.asked


@pytest.mark.parametrize(
    "spoil",
    [
        lambda name, data: b"",
        lambda name, data: data[: len(data) // 2],
        lambda name, data: bytes(len(data)),
        lambda name, data: data[:-1] + bytes([data[-1] ^ 1]),
    ],
    ids=["nothing", "cut short", "zeros", "a bit"],
)
def test_parts_that_make_no_message_are_refused(fleet: Fleet, liar: Liar, spoil: Callable[[str, bytes], bytes]) -> None:
    offer(liar, small(), spoil)
    with pytest.raises(WireError):
        fleet.receive()


@pytest.mark.parametrize("found", [False, True], ids=["not there", "never available"])
def test_a_message_whose_parts_never_come_is_given_up(
    fleet: Fleet, liar: Liar, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flower, "PULL_TIMEOUT_S", 0.5)
    offer(liar, small())
    liar.answers["pull-object"] = (200, PullObjectResponse(object_found=found).SerializeToString())
    with pytest.raises(WireError, match="did not arrive whole"):
        fleet.receive()
    assert "confirm-message-received" in liar.asked  # or it would be offered for ever


def test_a_coordinator_of_another_authority_is_not_spoken_to(liar: Liar, lille: SiteConfig, tmp_path: Path) -> None:
    other = Consortium(tmp_path / "other")
    context = trust(other.pki.ca_certificate.read_text(), certificate=None, key=None, extra_ca=None)
    fleet = Fleet(f"127.0.0.1:{liar.port}", context, load_node_key(lille), max_message_bytes=1000)
    with contextlib.closing(fleet), pytest.raises(UnreachableError, match=r"CERTIFICATE_VERIFY_FAILED|certificate"):
        fleet.connect()
    assert liar.asked == []
