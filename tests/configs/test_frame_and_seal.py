"""Frames and seals: the same message is the same bytes; what is not what was signed is refused."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import SealError, WireError
from configs.frame import MAX_HEADER_BYTES, Frame
from configs.seal import CLOCK_TOLERANCE_S, Statement

FIELDS = st.dictionaries(st.text(max_size=8), st.one_of(st.text(max_size=8), st.integers(-9, 9)), max_size=3)
ARRAYS = st.dictionaries(st.text(max_size=8), st.binary(max_size=40), max_size=3)
SAID = Statement("coordinator", "lille", "run-1", 3, "ab" * 32, "m1", "cd" * 32, "", 1000, "ef" * 32, "")


@given(st.text(max_size=8), FIELDS, ARRAYS)
def test_a_frame_comes_back_as_it_was(form: str, fields: dict[str, str | int], arrays: dict[str, bytes]) -> None:
    frame = Frame(form, fields, arrays)
    data = b"".join(frame.encode())
    again = Frame.decode(data)
    assert again == frame
    assert again.sha256 == frame.sha256


@given(st.binary(max_size=200))
def test_whatever_bytes_come_a_frame_is_read_or_refused(data: bytes) -> None:
    try:
        Frame.decode(data)
    except WireError:
        return


@given(ARRAYS, st.data())
def test_a_cut_or_prolonged_frame_is_refused(arrays: dict[str, bytes], data: st.DataObject) -> None:
    good = b"".join(Frame("train reply", {}, arrays).encode())
    cut = data.draw(st.integers(0, len(good) - 1))
    for bad in (good[:cut], good + b"x"):
        with pytest.raises(WireError):
            Frame.decode(bad)


def test_nothing_of_an_announced_giant_is_read() -> None:
    asked: list[int] = []
    stream = b"".join(Frame("train", {}, {}).encode())
    header = stream[4:].replace(b'"arrays":[]', b'"arrays":[["bias",10000000000]]')
    giant = len(header).to_bytes(4, "big") + header
    position = 0

    def take(count: int) -> bytes:
        nonlocal position
        asked.append(count)
        position += count
        return giant[position - count : position]

    with pytest.raises(WireError, match="announced"):
        Frame.read(take, 1_000_000)
    assert max(asked) < 1000


@pytest.mark.parametrize("arrays", ['{"ab":0}', "[[1,0]]", "[[null,0]]"])
def test_a_message_has_one_encoding_and_its_arrays_have_names(arrays: str) -> None:
    header = f'{{"arrays":{arrays},"fields":{{}},"form":"train"}}'.encode()
    with pytest.raises(WireError, match="found something else"):
        Frame.decode(len(header).to_bytes(4, "big") + header)


def test_a_header_without_end_is_not_read() -> None:
    with pytest.raises(WireError, match="header"):
        Frame.decode((MAX_HEADER_BYTES + 1).to_bytes(4, "big") + b"{}")


def test_a_field_of_another_type_does_not_pass() -> None:
    header = b'{"arrays":[],"fields":{"auroc":0.91},"form":"train reply"}'
    with pytest.raises(WireError):
        Frame.decode(len(header).to_bytes(4, "big") + header)


OTHERS = ("sender", "to", "run", "round", "study", "content", "answers")


@pytest.mark.parametrize("change", [{name: 4 if name == "round" else "another"} for name in OTHERS], ids=OTHERS)
def test_a_statement_about_another_message_is_refused(change: dict[str, object]) -> None:
    known = {"run": "run-1", "round": 3, "study": "ab" * 32, "content": "cd" * 32, "answers": ""}
    SAID.require(sender="coordinator", to="lille", now=1000.0, **known)  # type: ignore[arg-type]
    with pytest.raises(SealError):
        dataclasses.replace(SAID, **change).require(sender="coordinator", to="lille", **known)  # type: ignore[arg-type]


def test_a_message_that_was_held_back_is_refused() -> None:
    SAID.require(sender="coordinator", to="lille", now=1000.0 + CLOCK_TOLERANCE_S)
    with pytest.raises(SealError, match="expired"):
        SAID.require(sender="coordinator", to="lille", now=1001.0 + CLOCK_TOLERANCE_S)


@given(st.text(max_size=400))
def test_whatever_text_comes_a_statement_is_read_or_refused(text: str) -> None:
    with pytest.raises(SealError):
        Statement.parse(text)


@pytest.mark.parametrize("epsilon", ["1.2", "-1.0000", "patient 7", "1.23456", "nan"])
def test_an_epsilon_is_four_decimals_and_hides_no_text(epsilon: str) -> None:
    with pytest.raises(SealError):
        Statement.parse(dataclasses.replace(SAID, epsilon=epsilon).text)


def test_a_statement_in_another_spelling_is_refused() -> None:
    assert Statement.parse(SAID.text) == SAID
    with pytest.raises(SealError):
        Statement.parse(SAID.text.replace(",", ", "))
