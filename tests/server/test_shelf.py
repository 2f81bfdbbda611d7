"""Large messages as files: a hospital gets what it was offered, sends what is awaited, and reaches nothing else."""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from client.uplink.apart import Scratch, fetch, store
from client.uplink.base import EndedError, UnreachableError
from client.uplink.fleet import Fleet
from configs.errors import WireError
from configs.frame import Frame, MappedFile
from configs.pieces import FETCH_PATH, STORE_PATH, WINDOW, join, split
from server.gateway.forward import MAX_WINDOWS_EACH
from server.shelf import BATCH, FOLDER, Shelf, Storing, append, clear, read, serve
from tests.server.test_gateway import Federation, Hospital, consortium, eventually, federation, fleet, lille, lyon

__all__ = ["consortium", "federation", "fleet", "lille", "lyon"]  # fixtures
RUN, MESSAGE, CONTENT = "run-1", "0" * 31 + "a", "ab" * 32
LARGE = os.urandom(2 * WINDOW + 12_345)


def asked(run: str = RUN, message: str = MESSAGE, start: object = 0, **more: object) -> bytes:
    return json.dumps({"run": run, "message": message, "start": start, **more}).encode()


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(tmp_path, RUN)
    made.offer(CONTENT, [LARGE[:10], LARGE[10:]], "lille", MESSAGE, most=len(LARGE))
    yield made
    made.clear()
    assert list(tmp_path.rglob("*.*")) == []


def test_a_message_comes_in_windows_and_goes_back(shelf: Shelf, tmp_path: Path) -> None:
    windows = [read(tmp_path, "lille", RUN, MESSAGE, start) for start in range(0, len(LARGE), WINDOW)]
    assert b"".join(window or b"" for window in windows) == LARGE
    size = 0
    while size < len(LARGE):
        size = append(tmp_path, "lille", RUN, MESSAGE, size, LARGE[size : size + WINDOW]) or 0
    assert bytes(shelf.taken("lille", MESSAGE)) == LARGE
    assert read(tmp_path, "lille", RUN, MESSAGE, 0) is None  # it was answered


def test_what_is_taken_is_not_changed_by_a_hospital_that_goes_on_sending(tmp_path: Path) -> None:
    shelf, over, names = Shelf(tmp_path, RUN), threading.Event(), [f"{n:032x}" for n in range(300)]
    asked_for = iter(names)
    current = [next(asked_for)]

    def send() -> None:
        while not over.is_set():
            append(tmp_path, "lille", RUN, current[0], 0, b"x")

    def offer(name: str) -> None:
        shelf.offer(CONTENT, [b"model"], "lille", name, most=len(LARGE))
        append(tmp_path, "lille", RUN, name, 0, LARGE[:WINDOW])

    offer(current[0])
    senders = [threading.Thread(target=send) for _ in range(MAX_WINDOWS_EACH)]
    for sender in senders:
        sender.start()
    changed = []
    try:
        for name in names:
            current[0] = name
            offer(name) if name != names[0] else None
            with contextlib.suppress(WireError):  # it is none where the last window was cut
                taken = shelf.taken("lille", name)
                changed.append(taken.size() != len(taken))  # a page that is gone would end the process that reads
    finally:
        over.set()
        for sender in senders:
            sender.join(60)
    assert changed
    assert not any(changed)
    assert list(tmp_path.rglob("*.in")) == []


def test_equal_contents_lie_there_once(shelf: Shelf, tmp_path: Path) -> None:
    shelf.offer(CONTENT, [b"not written again"], "lyon", "b" * 32, most=9)
    assert read(tmp_path, "lyon", RUN, "b" * 32, 0) == LARGE[:WINDOW]
    (one,) = {path.stat().st_ino for path in tmp_path.rglob("*.out")}
    assert one == next(tmp_path.rglob(CONTENT)).stat().st_ino


@pytest.mark.parametrize(
    ("site", "run", "message"),
    [
        ("lyon", RUN, MESSAGE),
        ("lille", "run-2", MESSAGE),
        ("lille", RUN, "0" * 32),
        ("..", RUN, MESSAGE),
        ("lille", "../" + RUN, MESSAGE),
        ("lille\ud800", RUN, MESSAGE),
    ],
)
def test_what_another_was_offered_is_not_there(shelf: Shelf, tmp_path: Path, site: str, run: str, message: str) -> None:
    assert serve(tmp_path, site, "fetch", join([asked(run, message)])) is None
    assert serve(tmp_path, site, "store", join([asked(run, message), b"x"])) is None
    with pytest.raises(WireError, match="found none"):
        shelf.taken("lille", MESSAGE)


HOSTILE = {
    "a path": join([asked(message="../../../etc/passwd")]),
    "a long name": join([asked(message="a" * 33)]),
    "upper case": join([asked(message="A" * 32)]),
    "a null": join([asked(message="a" * 31 + "\0")]),
    "before the beginning": join([asked(start=-1)]),
    "beyond the end of all": join([asked(start=2**40)]),
    "no number": join([asked(start="0")]),
    "a truth": join([asked(start=True)]),
    "another field": join([asked(more=1)]),
    "nothing": b"",
    "no pieces": b"{}",
    "three pieces": join([asked(), b"", b""]),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("path", ["fetch", "store"])
def test_what_is_no_request_is_refused(shelf: Shelf, tmp_path: Path, path: str, what: str) -> None:
    with pytest.raises((WireError, ValueError)):
        serve(tmp_path, "lille", path, HOSTILE[what])


def test_a_reply_cannot_be_larger_than_announced_or_have_holes(shelf: Shelf, tmp_path: Path) -> None:
    assert append(tmp_path, "lille", RUN, MESSAGE, 5, b"x") == 0  # it goes on where it ends, nowhere else
    assert append(tmp_path, "lille", RUN, MESSAGE, 0, LARGE) == len(LARGE)
    with pytest.raises(WireError, match="expected at most"):
        append(tmp_path, "lille", RUN, MESSAGE, len(LARGE), b"x")
    assert append(tmp_path, "lille", RUN, MESSAGE, 7, b"x") == len(LARGE)
    assert append(tmp_path, "lille", RUN, MESSAGE, 0, b"anew") == 4
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.in")) == 4


def test_a_link_in_the_place_of_a_reply_is_not_followed(shelf: Shelf, tmp_path: Path) -> None:
    (most,) = tmp_path.rglob("*.most")
    target = tmp_path / "target"
    target.write_bytes(b"")
    most.with_suffix(".in").symlink_to(target)
    assert append(tmp_path, "lille", RUN, MESSAGE, 0, b"x") is None
    assert target.read_bytes() == b""
    target.unlink()


def test_nothing_is_left_of_a_run_or_of_all(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / FOLDER, RUN)
    shelf.offer(CONTENT, [b"x"], "lille", MESSAGE, most=9)
    Shelf(tmp_path / FOLDER, RUN)  # begun anew after it was killed
    assert list((tmp_path / FOLDER).rglob("*.out")) == []
    shelf.offer(CONTENT, [b"x"], "lille", MESSAGE, most=9)
    clear(tmp_path / FOLDER)
    assert not (tmp_path / FOLDER).exists()


# Through a real door


@pytest.fixture
def offered(federation: Federation, tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(federation.folder / FOLDER, RUN)
    shelf.offer(CONTENT, [LARGE], "lille", MESSAGE, most=len(LARGE))
    yield shelf
    shelf.clear()


def test_a_large_message_passes_the_door_both_ways(fleet: Fleet, offered: Shelf, tmp_path: Path) -> None:
    fetched = fleet.fetch(RUN, MESSAGE, len(LARGE), tmp_path)
    assert bytes(fetched) == LARGE
    assert list(tmp_path.iterdir()) == []  # a file without a name
    path = tmp_path / "reply.frame"
    path.write_bytes(LARGE[::-1])
    assert fleet.store(RUN, MESSAGE, path) == len(LARGE)
    assert bytes(offered.taken("lille", MESSAGE)) == LARGE[::-1]
    with pytest.raises(EndedError):
        fleet.fetch(RUN, MESSAGE, len(LARGE), tmp_path)
    with pytest.raises(EndedError):
        fleet.store(RUN, MESSAGE, path)


def test_another_hospital_gets_nothing_of_it(
    federation: Federation, lyon: Hospital, offered: Shelf, tmp_path: Path
) -> None:
    for path, body in ((FETCH_PATH, join([asked()])), (STORE_PATH, join([asked(), b"x"]))):
        with federation.client(lyon) as client:
            assert client.post(path, content=body, headers=lyon.headers()).status_code == 410
            assert client.post(path, content=b"\xff" * 9, headers=lyon.headers()).status_code == 400
    with pytest.raises(WireError):
        offered.taken("lille", MESSAGE)


def test_what_a_hospital_lets_the_door_hold_is_bounded(federation: Federation, lille: Hospital, offered: Shelf) -> None:
    with federation.client(lille) as client:
        large = client.post(STORE_PATH, content=bytes(WINDOW + 20_000), headers=lille.headers())
        assert large.status_code == 413
    over = threading.Event()

    def slow() -> Iterator[bytes]:
        yield b"\0"
        while not over.wait(0.2):  # a client that was refused reads so only when it writes again
            yield b"\0"

    def ask(content: Any) -> int:
        with federation.client(lille) as client, contextlib.suppress(httpx.TransportError):
            return client.post(STORE_PATH, content=content, headers=lille.headers()).status_code
        return 0

    def hold() -> None:
        while not over.is_set():  # one that was refused itself, beside the request below, tries again
            ask(slow())

    threads = [threading.Thread(target=hold) for _ in range(MAX_WINDOWS_EACH)]
    for thread in threads:
        thread.start()

    def refused() -> bool:
        return ask(join([asked(), b"x"])) == 429

    assert eventually(refused, 90)
    over.set()
    for thread in threads:
        thread.join()
    assert eventually(lambda: not refused(), 90)


@pytest.mark.parametrize("size", [len(LARGE) - 1, len(LARGE) + 1, 10**9])
def test_a_message_of_another_size_than_its_seal_says_is_refused(
    fleet: Fleet, offered: Shelf, tmp_path: Path, size: int
) -> None:
    with pytest.raises(WireError):
        fleet.fetch(RUN, MESSAGE, size, tmp_path)


def test_a_cut_costs_one_window(tmp_path: Path) -> None:
    shelf, asks, monkey = Shelf(tmp_path / "shelf", RUN), [], iter([0, 1, 0, 0, 1, 1, 0, *[0] * 99])
    shelf.offer(CONTENT, [LARGE], "lille", MESSAGE, most=len(LARGE))

    def ask(path: str, body: Sequence[bytes], into: Callable[[bytes], Any] | None = None) -> bytes:
        asks.append(path)
        answer = serve(tmp_path / "shelf", "lille", path.rpartition("/")[2], b"".join(body))
        if next(monkey):  # the answer is lost: what was sent has arrived
            raise UnreachableError("cut")
        assert answer is not None
        return answer if into is None else bytes(into(answer) or b"")

    assert bytes(fetch(ask, UnreachableError, RUN, MESSAGE, len(LARGE), tmp_path)) == LARGE
    path = tmp_path / "reply"
    path.write_bytes(LARGE)
    assert store(ask, UnreachableError, RUN, MESSAGE, path) == len(LARGE)
    assert bytes(shelf.taken("lille", MESSAGE)) == LARGE
    assert len(asks) <= 11
    shelf.clear()


def test_a_message_is_written_over_the_one_before_once_nothing_refers_to_that(tmp_path: Path) -> None:
    other, short = os.urandom(len(LARGE)), os.urandom(WINDOW + 7)
    content, scratch, opened = {"a": LARGE, "b": other, "c": short}, Scratch(), list[int]()

    def fetched(name: str) -> MappedFile:
        def ask(path: str, body: Sequence[bytes], into: Callable[[bytes], object] | None = None) -> bytes:
            start = json.loads(split(b"".join(body), 2)[0])["start"]
            assert into is not None
            into(content[name][start : start + WINDOW])
            return b""

        mapped = fetch(ask, UnreachableError, RUN, MESSAGE, len(content[name]), tmp_path, scratch)
        assert scratch._file is not None
        opened.append(os.fstat(scratch._file.fileno()).st_ino)
        return mapped

    first = fetched("a")
    part = memoryview(first)[5:100]
    del first
    second = fetched("b")
    assert bytes(part) == LARGE[5:100], "what is still looked at was written over"
    assert bytes(second) == other
    assert opened[0] != opened[1]
    del second
    third = fetched("c")
    assert bytes(third) == short
    assert opened[1] == opened[2]
    scratch.close()


def test_a_message_that_broke_off_leaves_nothing_in_the_next_one(tmp_path: Path) -> None:
    scratch = Scratch()

    def nothing(path: str, body: Sequence[bytes], into: Callable[[bytes], object] | None = None) -> bytes:
        return b""

    def whole(path: str, body: Sequence[bytes], into: Callable[[bytes], object] | None = None) -> bytes:
        assert into is not None
        into(b"x" * 10)
        return b""

    fetch(whole, UnreachableError, RUN, MESSAGE, 10, tmp_path, scratch)
    with pytest.raises(WireError):
        fetch(nothing, UnreachableError, RUN, MESSAGE, 20, tmp_path, scratch)
    assert bytes(fetch(whole, UnreachableError, RUN, MESSAGE, 10, tmp_path, scratch)) == b"x" * 10
    scratch.close()


@pytest.mark.parametrize("first", [1, 100_000, WINDOW - 1])
def test_a_window_that_breaks_off_goes_on_where_it_was_cut(tmp_path: Path, first: int) -> None:
    shelf, asked_for, cut = Shelf(tmp_path / "shelf", RUN), [], [True]
    shelf.offer(CONTENT, [LARGE], "lille", MESSAGE, most=len(LARGE))

    def ask(path: str, body: Sequence[bytes], into: Callable[[bytes], object] | None = None) -> bytes:
        asked_for.append(json.loads(split(b"".join(body), 2)[0])["start"])
        answer = serve(tmp_path / "shelf", "lille", "fetch", b"".join(body)) or b""
        assert into is not None
        into(answer[:first] if cut else answer)
        if cut:
            cut.clear()
            raise UnreachableError("cut")
        return b""

    assert bytes(fetch(ask, UnreachableError, RUN, MESSAGE, len(LARGE), tmp_path)) == LARGE
    assert asked_for[:2] == [0, first]
    shelf.clear()


@pytest.mark.parametrize("piece", [1, 3, 1000, BATCH - 1, BATCH, WINDOW + 1000])
def test_a_window_is_written_as_it_comes_in_pieces_of_any_size(shelf: Shelf, tmp_path: Path, piece: int) -> None:
    window = LARGE[: 5_000 if piece < 1000 else WINDOW]
    storing, body, most = Storing(tmp_path, "lille"), join([asked(), window]), 0
    for start in range(0, len(body), piece):
        if storing.take(body[start : start + piece]):
            storing.write()
        most = max(most, sum(map(len, storing._batch)))
    assert storing.end() == str(len(window)).encode()
    assert most < BATCH + piece  # so much is held
    assert bytes(shelf.taken("lille", MESSAGE)) == window


@pytest.mark.parametrize("short", [1, 1000])
@pytest.mark.parametrize("change", ["short", "long", "no head"])
def test_a_window_that_is_not_as_long_as_it_says_is_no_request(
    shelf: Shelf, tmp_path: Path, change: str, short: int
) -> None:
    body = join([asked(), LARGE[:10_000]])
    changed = {"short": body[:-short], "long": body + b"x" * short, "no head": body[:short][:90]}[change]
    for piece in (100, len(changed)):
        storing = Storing(tmp_path, "lille")
        for start in range(0, len(changed), piece):
            storing.take(changed[start : start + piece])
        with pytest.raises(WireError):
            storing.end()
    with pytest.raises(WireError, match="found none"):
        shelf.taken("lille", MESSAGE)  # nothing was written


def test_a_window_at_another_place_is_let_pass_and_changes_nothing(shelf: Shelf, tmp_path: Path) -> None:
    assert append(tmp_path, "lille", RUN, MESSAGE, 0, b"begun") == 5
    storing = Storing(tmp_path, "lille")
    body = join([asked(start=6), LARGE[: 3 * BATCH]])
    for start in range(0, len(body), BATCH):
        if storing.take(body[start : start + BATCH]):
            storing.write()
    assert storing.end() == b"5"
    assert bytes(shelf.taken("lille", MESSAGE)) == b"begun"


@pytest.mark.parametrize("answer", [b"", b"-1", b"x", b"9" * 30, b"1e3"])
def test_a_door_that_lies_about_what_it_has_does_not_hold_the_node(tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "reply"
    path.write_bytes(b"abc")
    with pytest.raises(WireError):
        store(lambda path, body, into=None: answer, UnreachableError, RUN, MESSAGE, path)
    with pytest.raises(WireError, match="did not"):
        store(lambda path, body, into=None: b"1", UnreachableError, RUN, MESSAGE, path)


def test_a_frame_is_read_from_its_file_or_refused(tmp_path: Path) -> None:
    frame = Frame("train", {"round": 1}, {"w": b"1234"})
    data = b"".join(frame.encode())
    path = tmp_path / "frame"
    for content in (data, data[:-1], data + b"x"):
        path.write_bytes(content)
        with path.open("rb") as file:
            mapped = MappedFile(file.fileno(), 0, prot=1)
        if content == data:
            assert Frame.mapped(mapped).sha256 == frame.sha256
        else:
            with pytest.raises(WireError):
                Frame.mapped(mapped)
