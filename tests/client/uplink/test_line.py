"""The line to the coordinator: a held request that is cut is no error; the node learns what the way lets through."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client.doctor import _line
from client.findings import NOTE
from client.uplink.base import UnreachableError
from client.uplink.fleet import Fleet
from client.uplink.line import SHORTEST_HOLD_S, Line, keep, kept, received
from configs.errors import WireError
from configs.pieces import HOLD_PATH, MAX_HOLD_S, join
from configs.site import SiteConfig
from tests.client.uplink.test_fleet import Liar, consortium, fleet, liar, lille

__all__ = ["consortium", "fleet", "liar", "lille"]  # fixtures
LOOK = HOLD_PATH.rpartition("/")[2]


class Away(Exception):  # noqa: N818 - a double
    """What the connection raises."""


def ends(after_s: float) -> Callable[[], bytes]:
    """A request that ends so, without an answer."""

    def ask() -> bytes:
        time.sleep(after_s)
        raise Away

    return ask


def test_one_cut_is_forgiven_and_two_in_a_row_make_the_holds_shorter() -> None:
    line = Line()
    assert line.cut(30.0)
    assert (line.hold_s, line.cut_after_s) == (MAX_HOLD_S, 0.0)
    assert line.cut(31.0)
    assert (line.hold_s, line.cut_after_s) == (24.0, 30.0)
    assert line.cut(20.0)
    assert line.hold_s == 24.0


def test_holds_never_become_too_short_and_grow_again() -> None:
    line = Line()
    for _ in range(20):
        line.cut(0.6)
    assert line.hold_s == SHORTEST_HOLD_S
    for _ in range(10_000):
        line._was_whole()
    assert line.hold_s == MAX_HOLD_S


def test_what_ends_at_once_is_no_cut_but_a_coordinator_that_is_away() -> None:
    line = Line()
    with pytest.raises(Away):
        line.held(ends(0.0), Away)
    assert line.held(ends(0.6), Away) == b""
    with pytest.raises(ZeroDivisionError):
        line.held(lambda: bytes(1 // 0), Away)


def test_an_interruption_ends_a_held_request_and_all_that_follow() -> None:
    line, asked, over = Line(), threading.Event(), threading.Event()

    def ask() -> bytes:
        asked.set()
        over.wait(30)
        return b"late"

    threading.Thread(target=lambda: (asked.wait(30), line.interrupt()), daemon=True).start()
    assert line.held(ask, Away) == b""
    assert line.held(ask, Away) == b""
    over.set()
    line.ended(within_s=60)


def talks_2(handler: Any, content: bytes = b"", code: int = 200) -> None:
    handler.send_response(code)
    handler.send_header("archipel-protocol", "2")
    handler.send_header("content-length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def silent_cut(handler: Any) -> None:
    time.sleep(0.7)
    handler.close_connection = True
    handler.connection.close()


def proxys_time_out(handler: Any) -> None:
    time.sleep(0.7)
    talks_2(handler, b"<html>", 504)


@pytest.mark.parametrize("cut", [silent_cut, proxys_time_out])
def test_a_proxy_that_cuts_idle_connections_is_no_error_and_is_told(
    fleet: Fleet, liar: Liar, lille: SiteConfig, cut: Callable[[Any], None]
) -> None:
    liar.answers |= {"pull-messages": talks_2, LOOK: cut}
    assert fleet.receive() is None  # the node hears that it may be held
    assert [fleet.receive() for _ in range(3)] == [None] * 3
    assert 0.5 < fleet.line.cut_after_s < 30
    assert fleet.line.hold_s == SHORTEST_HOLD_S
    keep(lille.folder, fleet.line)
    (finding,) = _line(lille)
    assert finding.verdict == NOTE
    assert "cuts connections that are idle" in finding.text


def test_a_coordinator_that_is_away_is_said_at_once(fleet: Fleet, liar: Liar) -> None:
    liar.answers |= {"pull-messages": talks_2, LOOK: (503, b"")}
    assert fleet.receive() is None
    with pytest.raises(UnreachableError):
        fleet.receive()


def test_a_door_of_the_release_before_is_spoken_to_in_its_own_way(fleet: Fleet, liar: Liar) -> None:
    liar.answers |= {"pull-messages": talks_2, LOOK: (404, b"there is nothing here")}
    for _ in range(3):
        assert fleet.receive() is None
    assert liar.asked.count(LOOK) == 1
    assert fleet.protocol == 1  # so that no large message is sent as a file


NO_MESSAGES = [b"x", join([b"a"]), join([b"a", b"b", b"c"]), join([b"\xff\xff\xff", b"", b"a", b"b"]), b"\0" * 4001]


@pytest.mark.parametrize("answer", [*NO_MESSAGES, join([b"", b"", b"\xff", b"b"])], ids=lambda data: data[:12].hex())
def test_an_answer_that_holds_no_message_is_refused(fleet: Fleet, liar: Liar, answer: bytes) -> None:
    liar.answers |= {"pull-messages": talks_2, LOOK: lambda handler: talks_2(handler, answer)}
    assert fleet.receive() is None
    with pytest.raises(WireError):
        fleet.receive()
    with pytest.raises(WireError):
        received(answer)


def test_a_message_larger_than_the_policy_allows_is_not_kept(fleet: Fleet, liar: Liar) -> None:
    parts = [name for n in range(3) for name in (f"{n:064x}".encode(), bytes(500_000))]
    answer = join([b"", b"", *parts])
    liar.answers |= {"pull-messages": talks_2, LOOK: lambda handler: talks_2(handler, answer)}
    assert fleet.receive() is None
    with pytest.raises(WireError, match="expected at most"):
        fleet.receive()


def test_what_the_line_lets_through_is_kept_or_the_longest(tmp_path: Path) -> None:
    assert kept(tmp_path) == (MAX_HOLD_S, 0.0)
    line = Line()
    line.cut(10.0), line.cut(10.0)
    keep(tmp_path, line)
    assert kept(tmp_path) == (8.0, 10.0)
    (tmp_path / "line.json").write_text("{")
    assert kept(tmp_path) == (MAX_HOLD_S, 0.0)
