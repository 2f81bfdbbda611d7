"""The parts of a message, put together: what Flower's own assembly makes of them, bounded, and without keeping them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.constant import HEAD_BODY_DIVIDER
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity

from configs.errors import WireError
from server.superlink.spool import SpooledParts
from strategies.exchange.arrays import Arrays, from_record, to_record
from strategies.exchange.objects import Parts

CHUNK = 5 * 1024 * 1024  # Flower's
MODELS: dict[str, Arrays] = {
    "small": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(1, np.float32)},
    "empty": {"w": np.zeros((0, 3), np.float32)},
    "of several chunks": {
        "w": np.random.default_rng(0).normal(size=(1500, 1000)).astype(np.float32),
        "b": np.ones(7, np.float32),
        "v": np.random.default_rng(1).normal(size=400_001).astype(np.float32),
    },
    "of equal chunks": {"w": np.zeros(4_000_000, np.float32), "v": np.zeros(4_000_000, np.float32)},
    "that shares a chunk": {
        "w": np.concatenate([np.ones(3_000_000), np.zeros(CHUNK // 2)]).astype(np.float32),
        "v": np.concatenate([np.ones(1_400_000), np.zeros(CHUNK // 2)]).astype(np.float32),
    },
}


@pytest.fixture(autouse=True)
def identity() -> None:
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1


def message_of(model: Arrays) -> Message:
    records = RecordDict({"arrays": to_record(model), "config": ConfigRecord({"round": 1})})
    return Message(records, dst_node_id=1, message_type="train")


def deflated(message: Message) -> dict[str, bytes]:
    return {name: part.deflate() for name, part in get_all_nested_objects(message).items()}


def parts_of(kind: str, folder: Path, max_bytes: int = 10**9) -> Parts:
    return Parts(max_bytes) if kind == "in memory" else SpooledParts(max_bytes, folder)


@pytest.mark.parametrize("kind", ["in memory", "in a file"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("backwards", [False, True])
def test_a_message_comes_back_bit_for_bit(kind: str, name: str, backwards: bool, tmp_path: Path) -> None:
    model, message = MODELS[name], message_of(MODELS[name])
    parts = parts_of(kind, tmp_path)
    arrived = deflated(message).items()
    for part, content in reversed(arrived) if backwards else arrived:
        parts.add(part, content)
    made = parts.message(message.object_id)
    back = from_record(made.content.array_records["arrays"], {n: (a.shape, "float32") for n, a in model.items()})
    assert {n: a.tobytes() for n, a in back.items()} == {n: a.tobytes() for n, a in model.items()}
    assert dict(made.content.config_records["config"]) == {"round": 1}
    assert list(tmp_path.iterdir()) == []  # the file has no name


def test_a_message_is_what_flower_makes_of_the_same_parts() -> None:
    message = message_of(MODELS["of several chunks"])
    parts = Parts(10**9)
    for part, content in deflated(message).items():
        parts.add(part, content)
    theirs = inflatable_utils.inflate_object_from_contents(message.object_id, deflated(message))
    assert isinstance(theirs, Message)
    for name, array in parts.message(message.object_id).content.array_records["arrays"].items():
        other = theirs.content.array_records["arrays"][name]
        assert (array.dtype, array.shape, array.stype) == (other.dtype, other.shape, other.stype)
        assert bytes(array.data) == other.data


def test_a_message_can_be_sent_on_and_keeps_its_id() -> None:
    """What was put together is Flower's own kind of message: its parts have the same hashes."""
    message = message_of(MODELS["of several chunks"])
    parts = Parts(10**9)
    for part, content in deflated(message).items():
        parts.add(part, content)
    made = parts.message(message.object_id)
    assert made.content.array_records["arrays"].object_id == message.content.array_records["arrays"].object_id


@pytest.mark.parametrize("kind", ["in memory", "in a file"])
def test_parts_that_are_too_large_together_are_refused(kind: str, tmp_path: Path) -> None:
    message = message_of(MODELS["of several chunks"])
    parts = parts_of(kind, tmp_path, 5_900_000)
    first, second, *_ = [content for content in deflated(message).values() if len(content) > 700_000]
    parts.add("first", first)
    with pytest.raises(WireError, match="expected at most 5900000 bytes"):
        parts.add("second", second)


@pytest.mark.parametrize("kind", ["in memory", "in a file"])
def test_a_chunk_that_is_named_a_million_times_is_refused_before_room_is_made(kind: str, tmp_path: Path) -> None:
    """A few megabytes that say they are five terabytes."""
    message = message_of({"w": np.ones(1_000_000, np.float32)})
    contents = deflated(message)
    for part, content in contents.items():
        if content.startswith(b"Array "):
            head, _, body = content.partition(b"\0")
            said = json.loads(body) | {"arraychunk_ids": [0] * 1_000_000}
            text = json.dumps(said).encode()
            contents[part] = b" ".join([*head.split(b" ")[:2], str(len(text)).encode()]) + b"\0" + text
    parts = parts_of(kind, tmp_path)
    for part, content in contents.items():
        parts.add(part, content)
    with pytest.raises(WireError, match="found larger ones"):
        parts.message(message.object_id)


BROKEN: dict[str, Callable[[dict[str, bytes]], dict[str, bytes]]] = {
    "no part at all": lambda contents: {},
    "a part that never came": lambda contents: dict(list(contents.items())[1:]),
    "a part that is something else": lambda contents: {**contents, next(iter(contents)): b"nonsense"},
    "no message": lambda contents: {list(contents)[-1]: contents[next(iter(contents))]},
    "an array without a description": lambda contents: {
        part: b"Array  2\0{}" if content.startswith(b"Array ") else content for part, content in contents.items()
    },
    "an array that counts wrongly": lambda contents: {
        part: content.replace(b'"arraychunk_ids": [0]', b'"arraychunk_ids": [9]') for part, content in contents.items()
    },
}


@pytest.mark.parametrize("kind", ["in memory", "in a file"])
@pytest.mark.parametrize("what", BROKEN)
def test_parts_that_make_no_message_are_refused_in_one_sentence(what: str, kind: str, tmp_path: Path) -> None:
    message = message_of({"w": np.ones(1_000_000, np.float32)})
    parts = parts_of(kind, tmp_path)
    for part, content in BROKEN[what](deflated(message)).items():
        parts.add(part, content)
    with pytest.raises(WireError, match=r"expected Flower's (objects|message), found (something else|another object)"):
        parts.message(message.object_id)


def test_flower_is_the_release_that_this_file_was_written_against() -> None:
    """How its parts begin and end, and what its constructor takes."""
    assert HEAD_BODY_DIVIDER == b"\x00"
    contents = deflated(message_of(MODELS["small"]))
    assert {content.split(b" ")[0] for content in contents.values()} == {
        *(b"Message", b"RecordDict", b"ArrayRecord", b"ConfigRecord", b"Array", b"ArrayChunk")
    }
