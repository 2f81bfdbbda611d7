"""What Archipel takes from Flower's inside: each private name exists and does what is relied on.

An upgrade of Flower that breaks one fails here first. tests/client/uplink and tests/server hold the same of their side.
"""

import json

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from strategies.exchange import flower


@pytest.fixture(autouse=True)
def identity() -> None:
    flower.identify(node_id=1, run_id=2, task_id=3)


def message() -> Message:
    arrays = ArrayRecord({"w": Array(np.arange(6, dtype=np.float32))})
    records = RecordDict({"arrays": arrays, "config": ConfigRecord({"round": 1})})
    return Message(records, dst_node_id=5, message_type="train")


def test_the_process_says_whose_messages_it_makes() -> None:
    assert (TaskIdentity.node_id, TaskIdentity.run_id, TaskIdentity.task_id) == (1, 2, 3)
    metadata = message().metadata
    assert (metadata.src_node_id, metadata.run_id, metadata.dst_node_id) == (1, 2, 5)


def test_a_message_has_no_id_until_it_is_named_and_a_reply_quotes_it() -> None:
    asked = message()
    assert asked.metadata.message_id == ""
    flower.name_message(asked, "asked")
    assert Message(RecordDict(), reply_to=asked).metadata.reply_to_message_id == "asked"


def test_a_message_is_a_tree_of_objects_by_hash_children_first() -> None:
    sent = message()
    with flower.taken_apart([sent]) as ((head,), objects):
        kinds = [type(item).__name__ for item in objects.values()]
        contents = {name: item.deflate() for name, item in objects.items()}
    assert kinds == ["ArrayChunk", "Array", "ArrayRecord", "ConfigRecord", "RecordDict", "Message"]
    ids = [node.object_id for node in flower.iterate_object_tree(head.tree)]
    assert ids == list(contents)
    assert ids[-1] == head.tree.object_id == sent.metadata.message_id == head.header.metadata.message_id
    assert not flower.message_from_proto(head.header).content
    assert flower.parse_head(head.header.SerializeToString(), head.tree.SerializeToString()) == head


def test_objects_that_two_messages_share_are_there_once() -> None:
    records = message().content
    with flower.taken_apart([Message(records, dst_node_id=n, message_type="train") for n in (5, 6)]) as (
        heads,
        objects,
    ):
        assert len(heads) == 2
        assert [type(item).__name__ for item in objects.values()].count("Message") == 2
        assert len(objects) == 7


def test_an_arrays_object_lists_its_chunks_and_says_its_shape() -> None:
    with flower.taken_apart([message()]) as (_, objects):
        contents = {name: item.deflate() for name, item in objects.items()}
    (part,) = [content for content in contents.values() if content.startswith(b"Array ")]
    (chunk,) = [name for name, content in contents.items() if content.startswith(b"ArrayChunk ")]
    assert flower.children_of(part) == [chunk]
    description = json.loads(part[part.index(b"\0") + 1 :])
    assert description["dtype"] == "float32"
    assert description["shape"] == [6]
    assert description["stype"] == "numpy.ndarray"
    assert description["arraychunk_ids"] == [0]
    assert contents[chunk].partition(b"\0")[2] == message().content.array_records["arrays"]["w"].data


def test_a_message_is_put_together_from_contents_and_given_objects_alike() -> None:
    sent = message()
    with flower.taken_apart([sent]) as ((head,), objects):
        contents = {name: item.deflate() for name, item in objects.items()}
        (array,) = [name for name, item in objects.items() if isinstance(item, Array)]
    given = Array("float32", (6,), "numpy.ndarray", b"instead")
    made = flower.inflate_object_from_contents(head.tree.object_id, contents, objects={array: given})
    assert isinstance(made, Message)
    assert made.content.array_records["arrays"]["w"].data == b"instead"
    assert made.content["config"] == sent.content["config"]


def test_bytes_that_are_none_of_flowers_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="expected a message's header"):
        flower.parse_head(b"\xff\xff", b"")


def test_only_the_wanted_objects_are_sent_and_none_is_kept() -> None:
    sent: list[flower.PushObjectRequest] = []
    sizes: list[int] = []
    session = flower.Session(flower.Node(node_id=7), 8, "session")
    with flower.taken_apart([message()]) as ((head,), objects):
        wanted = {name for name, item in objects.items() if isinstance(item, Array | Message)}
        flower.push_objects(sent.append, session, objects, wanted, sizes.append)
        assert not wanted & set(objects)
    assert {request.object_id for request in sent} == wanted
    assert {(request.node.node_id, request.run_id, request.session_id) for request in sent} == {(7, 8, "session")}
    assert sorted(sizes) == sorted(len(request.object_content) for request in sent)
    assert head.tree.object_id in wanted


def test_arrays_and_records_made_without_a_constructor_are_as_flowers_own() -> None:
    data = Array(np.arange(6, dtype=np.float32)).data
    array = flower.bare_array("float32", (6,), "numpy.ndarray", data)
    assert vars(array) | {"_is_dirty": array.is_dirty} == vars(Array(np.arange(6, dtype=np.float32)))
    record = flower.record_of({"w": array})
    assert record == ArrayRecord({"w": Array("float32", (6,), "numpy.ndarray", data)})
    assert record["w"] is array
    assert record.object_id == ArrayRecord({"w": Array(np.arange(6, dtype=np.float32))}).object_id


def test_an_array_takes_a_read_only_view_in_the_place_of_its_bytes() -> None:
    data = memoryview(bytearray(6_000_000)).toreadonly()
    array = flower.bare_array("uint8", (6_000_000,), "numpy.ndarray", data)
    records = RecordDict({"arrays": flower.record_of({"w": array})})
    with flower.taken_apart([Message(records, dst_node_id=5, message_type="train")]) as (_, objects):
        chunks = [item.deflate() for item in objects.values() if type(item).__name__ == "ArrayChunk"]
    assert b"".join(chunk.partition(b"\0")[2] for chunk in chunks) == bytes(data)
