"""Connections that read all that has come: the same bytes as record by record, in fewer steps."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator

import httpcore
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from client.uplink.bulk import AT_ONCE, Bulk
from client.uplink.fleet import Fleet
from server.pki import Pki

SIZES = [0, 1, 16_383, 16_384, 16_385, AT_ONCE, AT_ONCE + 1, 3_000_000]


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    made = Pki(tmp_path_factory.mktemp("pki"))
    made.create("test", ("localhost",), None)
    return made


@pytest.fixture
def served(pki: Pki, request: pytest.FixtureRequest) -> Iterator[tuple[int, ssl.SSLContext, bytes]]:
    """A server that sends so many bytes to whoever says a word, then closes, and what trusts it."""
    data = bytes(range(256)) * (request.param // 256 + 1)
    data = data[: request.param]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.folder / "server.crt", pki.folder / "server.key")
    trusting = ssl.create_default_context(cafile=str(pki.ca_certificate))
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            plain, _ = listening.accept()
            with context.wrap_socket(plain, server_side=True) as tls:
                tls.recv(1)
                tls.sendall(data)
                with contextlib.suppress(OSError):  # it says that this is the end, and the other side hangs up
                    tls.unwrap()

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1], trusting, data
        thread.join(60)
        assert not thread.is_alive()


@pytest.mark.parametrize("served", SIZES, indirect=True)
def test_what_is_read_is_what_was_sent_and_an_end_is_an_end(served: tuple[int, ssl.SSLContext, bytes]) -> None:
    port, trusting, data = served
    stream = Bulk(httpcore.SyncBackend()).connect_tcp("127.0.0.1", port, 30).start_tls(trusting, "localhost", 30)
    stream.write(b"x", 30)
    pieces = []
    while piece := stream.read(65_536, 30):
        pieces.append(piece)
    stream.close()
    assert b"".join(pieces) == data
    assert all(0 < len(piece) <= AT_ONCE for piece in pieces)


def test_a_silent_server_is_a_time_out_also_after_a_whole_record(pki: Pki) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.folder / "server.crt", pki.folder / "server.key")
    trusting = ssl.create_default_context(cafile=str(pki.ca_certificate))
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            plain, _ = listening.accept()
            with context.wrap_socket(plain, server_side=True) as tls:
                tls.sendall(b"x" * 16_384)
                over.wait(60)

        thread = threading.Thread(target=serve)
        thread.start()
        backend = Bulk(httpcore.SyncBackend())
        port = listening.getsockname()[1]
        stream = backend.connect_tcp("127.0.0.1", port, 30).start_tls(trusting, "localhost", 30)
        assert stream.read(65_536, 30) == b"x" * 16_384
        with pytest.raises(httpcore.ReadTimeout):
            stream.read(65_536, 0.05)
        over.set()
        stream.close()
        thread.join(60)


@pytest.mark.parametrize("proxy", [None, "http://proxy.example.org:3128", "https://proxy.example.org:3128"])
def test_every_connection_to_the_coordinator_reads_so(proxy: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    if proxy is not None:
        monkeypatch.setenv("https_proxy", proxy)
    key = ec.generate_private_key(ec.SECP384R1())
    fleet = Fleet("coordinator.example.org:443", ssl.create_default_context(), key, max_message_bytes=1)
    client = fleet._client._client
    pools = [t._pool for t in (client._transport, *client._mounts.values()) if t is not None]  # type: ignore[attr-defined]
    assert len(pools) == (1 if proxy is None else 2)
    assert all(isinstance(pool._network_backend, Bulk) for pool in pools)
    fleet.close()
