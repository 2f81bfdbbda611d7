"""A way to the coordinator that carries a short question and no message is told from one that carries both."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.uplink.reach import cut_after, reach
from tests.proxy import FaultyWire, Proxy
from tests.server.test_gateway import Door, make_consortium, opened


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("door")
    with opened(make_consortium(folder), folder) as door:
        yield door


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


WIRES = {  # how it fails, after how many bytes, in which direction; how that is told
    "reset": ("reset", 5_000, "both", "cut"),
    "reset later": ("reset", 40_000, "up", "cut"),
    "reset on the way back": ("reset", 6_000, "down", "cut"),
    "closed": ("close", 5_000, "both", "cut"),
    "closed later": ("close", 40_000, "up", "cut"),
    "silent": ("silent", 5_000, "both", "silent"),
    "silent on the way back": ("silent", 6_000, "down", "silent"),
}


@pytest.mark.parametrize(("how", "after", "towards", "told"), WIRES.values(), ids=WIRES)
def test_a_wire_that_fails_after_some_bytes_answers_the_short_question_and_is_seen(
    how: str, after: int, towards: str, told: str, door: Door
) -> None:
    context = door.consortium.trust(door.consortium.hospital("lille"))
    with FaultyWire(door.port, how, after, towards) as wire:
        assert reach(f"127.0.0.1:{wire.port}", context).step == "arrived"
        cut = cut_after(f"127.0.0.1:{wire.port}", context, timeout_s=2.0)
    assert cut is not None
    assert cut[1] == told
    assert cut[0] < 80_000


def test_a_wire_that_carries_what_it_is_given_is_not_accused(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    for hospital in (door.consortium.hospital("lille"), door.consortium.hospital("lyon")):
        context = door.consortium.trust(hospital)
        assert cut_after(f"127.0.0.1:{door.port}", context) is None
        with FaultyWire(door.port, "reset", 10**9) as wire:
            assert cut_after(f"127.0.0.1:{wire.port}", context) is None
        with Proxy("node:s3cret") as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://node:s3cret@127.0.0.1:{proxy.port}")
            assert cut_after(f"127.0.0.1:{door.port}", context) is None
            assert proxy.asked == [f"127.0.0.1:{door.port}"]
            monkeypatch.delenv("HTTPS_PROXY")


def test_a_coordinator_that_answers_once_a_connection_is_not_accused(tmp_path: Path) -> None:
    from tests.client.test_doctor import door as short
    from tests.consortium import Consortium

    own = Consortium(tmp_path / "consortium")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(own.pki.ca_certificate)
    for protocol in ("HTTP/1.0", "HTTP/1.1"):
        with short(own.pki, protocol=protocol) as port:
            assert cut_after(f"127.0.0.1:{port}", context) is None
