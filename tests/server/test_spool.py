"""Large parts of messages in files: found again, gone with what they belong to, and bounded in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.task_identity import TaskIdentity

from configs.frame import MappedFile
from server.superlink.spool import LARGE_BYTES, SpooledParts, zeros
from server.superlink.store import SpooledStore
from strategies.exchange.arrays import to_record
from strategies.federated.mean import Sums, add, mean_of

RUN = 1


@pytest.fixture
def message() -> Message:
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = RUN, 1, 1
    values = np.random.default_rng(0).normal(size=3_000_000).astype(np.float32)
    return Message(RecordDict({"arrays": to_record({"w": values})}), dst_node_id=1, message_type="train")


def put(store: SpooledStore, message: Message) -> dict[str, bytes]:
    contents = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}
    store.preregister(RUN, get_object_tree(message))
    for name, content in contents.items():
        store.put(name, content)
    return contents


def test_a_store_gives_every_part_back_and_holds_no_large_one_in_memory(tmp_path: Path, message: Message) -> None:
    store = SpooledStore(tmp_path / "parts", kept_bytes=0)
    contents = put(store, message)
    assert {name: store.get(name) for name in contents} == contents
    held = [entry.content for entry in store.store.values() if isinstance(entry.content, bytes)]
    assert max(map(len, held)) < LARGE_BYTES
    assert len(list((tmp_path / "parts").iterdir())) == sum(len(c) >= LARGE_BYTES for c in contents.values()) > 0


def test_few_parts_stay_in_memory_which_is_quicker(tmp_path: Path, message: Message) -> None:
    store = SpooledStore(tmp_path / "parts", kept_bytes=7_000_000)
    contents = put(store, message)  # 12 MB, in chunks of 5.2, 5.2 and 1.5
    assert {name: store.get(name) for name in contents} == contents
    assert len(list((tmp_path / "parts").iterdir())) == 1


def test_a_part_that_was_announced_and_has_not_come_is_empty(tmp_path: Path, message: Message) -> None:
    store = SpooledStore(tmp_path / "parts", kept_bytes=0)
    store.preregister(RUN, get_object_tree(message))
    assert {store.get(name) for name in get_all_nested_objects(message)} == {b""}
    assert store.get("ab" * 32) is None


@pytest.mark.parametrize("how", ["delete", "delete_objects_in_run", "clear"])
def test_files_go_with_their_message(tmp_path: Path, message: Message, how: str) -> None:
    store = SpooledStore(tmp_path / "parts", kept_bytes=0)
    put(store, message)
    given: dict[str, list[Any]] = {"delete": [message.object_id], "delete_objects_in_run": [RUN], "clear": []}
    getattr(store, how)(*given[how])
    assert list((tmp_path / "parts").iterdir()) == []


def test_what_a_killed_process_left_is_deleted(tmp_path: Path, message: Message) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "7").write_bytes(b"left")
    SpooledStore(tmp_path / "parts", kept_bytes=0)
    assert list((tmp_path / "parts").iterdir()) == []


def test_the_folder_is_its_owners_alone(tmp_path: Path) -> None:
    SpooledStore(tmp_path / "parts", kept_bytes=0)
    assert (tmp_path / "parts").stat().st_mode & 0o077 == 0


def test_a_large_array_is_mapped_from_its_file(tmp_path: Path, message: Message) -> None:
    parts = SpooledParts(10**9, tmp_path)
    for name, part in get_all_nested_objects(message).items():
        parts.add(name, part.deflate())
    data = memoryview(parts.message(message.object_id).content.array_records["arrays"]["w"].data)
    assert isinstance(data.obj, MappedFile)
    assert data.readonly


def test_sums_in_a_file_are_those_in_memory(tmp_path: Path) -> None:
    models = [np.random.default_rng(n).normal(size=(700, 1000)).astype(np.float32) for n in range(3)]
    filed: Sums = {}
    held: Sums = {}
    for model in models:
        filed, held = add(filed, {"w": model}, lambda shape: zeros(shape, tmp_path, 0)), add(held, {"w": model})
    whole = sum((m.astype(np.float64) for m in models), np.zeros((700, 1000)))
    assert filed["w"].tobytes() == held["w"].tobytes() == whole.tobytes()
    assert mean_of(filed, 3)["w"].tobytes() == (held["w"] / 3).astype(np.float32).tobytes()
    assert list(tmp_path.iterdir()) == []
