"""Hospitals that are admitted by their signatures alone, and strangers who have no certificate either."""

import contextlib
import socket
import ssl
from pathlib import Path

import pytest

from server.gateway import strict_http
from server.membership import Admitted
from server.signatures import holds
from tests.server.test_gateway import (  # noqa: F401 - the fixtures are used by name
    PULL,
    Consortium,
    Door,
    consortium,
    eventually,
    head,
    lines,
    opened,
    status,
    talk,
)

STRANGERS = "127.0.0.2"  # another address of loopback


def from_elsewhere(door: Door) -> ssl.SSLSocket:
    """A connection without a certificate from the strangers' address."""
    raw = socket.create_connection(("127.0.0.1", door.port), timeout=60, source_address=(STRANGERS, 0))
    return door.consortium.trust(None).wrap_socket(raw, server_hostname="127.0.0.1")


def test_strangers_without_a_certificate_take_no_connection_of_a_hospital_without_one(
    consortium: Consortium,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(strict_http, "MAX_CONNECTIONS_EACH", 3)
    brest = consortium.hospital("brest")
    request = head(f"POST {PULL} HTTP/1.1", *lines(brest), "Content-Length: 0")
    with opened(consortium, tmp_path, certificate_required=False) as door, contextlib.ExitStack() as stack:
        door.admitted[brest.public_key] = Admitted("brest", certificate_required=False)
        for _ in range(3):
            stranger = stack.enter_context(from_elsewhere(door))
            assert status(talk(stranger, head("GET /health HTTP/1.1"))) == 200
        assert status(door.ask(None, request)) == 200
        fourth = stack.enter_context(from_elsewhere(door))
        fourth.settimeout(10)
        with contextlib.suppress(OSError):
            assert talk(fourth, head("GET /health HTTP/1.1")) is None
        assert eventually(lambda: status(door.ask(None, request)) == 200)


def test_who_only_knows_a_hospitals_public_key_spends_none_of_its_requests(
    consortium: Consortium,  # noqa: F811
    tmp_path: Path,
) -> None:
    brest = consortium.hospital("brest")
    signed = head(f"POST {PULL} HTTP/1.1", *lines(brest), "Content-Length: 0")
    forged = [
        line if not line.lower().startswith("flwr-signature") else "flwr-signature: AAAA" for line in lines(brest)
    ]
    unsigned = head(f"POST {PULL} HTTP/1.1", *forged, "Content-Length: 0")
    assert forged != list(lines(brest))
    with opened(consortium, tmp_path, certificate_required=False, requests_per_second=0.01) as door:
        door.admitted[brest.public_key] = Admitted("brest", certificate_required=False)
        with from_elsewhere(door) as stranger:
            assert [status(talk(stranger, unsigned)) for _ in range(2)] == [200, 429]  # the SuperLink refuses it
        assert status(door.ask(None, signed)) == 200
        assert status(door.ask(None, signed)) == 429  # its own account


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("odd", [b"", b"AAAA", b"\xff", b"=", b"a" * 1000, b"bm90IGEga2V5"])
def test_a_signature_holds_as_a_whole_or_not_at_all(
    consortium: Consortium,  # noqa: F811
    part: int,
    odd: bytes,
) -> None:
    headers = {name.lower(): value.encode() for name, value in consortium.hospital("brest").headers().items()}
    parts = [headers["flwr-public-key"], headers["flwr-timestamp"], headers["flwr-signature"]]
    assert holds(*parts)
    parts[part] = odd
    assert not holds(*parts)
