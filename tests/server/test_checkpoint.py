"""A checkpoint is whole or it is an error; one that was whole stays so, whatever happens to the next."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save

from configs.errors import CheckpointError
from configs.files import write_atomically
from configs.wire import ARITHMETIC
from server.checkpoint import MANIFEST, Checkpoint, Checkpoints, write_tensors
from tests.builders import same_bits

STUDY = "ab" * 32


def checkpoint(number: int, *, size: int = 4) -> Checkpoint:
    rng = np.random.default_rng(number)
    model = {"0.weight": rng.normal(size=(2, size)).astype(np.float32), "0.bias": np.full(2, number, np.float32)}
    optimizer: dict[str, NDArray[Any]] = {
        "m_t/0.weight": rng.normal(size=(2, size)),
        "momentum/0001": rng.normal(size=3).astype(np.float32),
    }
    return Checkpoint(number, model, optimizer, {"0.bias": np.full(2, 1 / 3)}, averaged=number)


def same(a: Checkpoint | None, b: Checkpoint) -> bool:
    if a is None or (a.round, a.averaged) != (b.round, b.averaged):
        return False
    groups = ((a.model, b.model), (a.optimizer, b.optimizer), (a.average, b.average))
    return all(same_bits(x, y) for x, y in groups)


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", STUDY, durable=False)


def names(store: Checkpoints) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


def manifest(store: Checkpoints) -> Path:
    return store.folder / MANIFEST


def tensors(store: Checkpoints, number: int) -> Path:
    return store.folder / f"round-{number:06d}.safetensors"


def rewrite(store: Checkpoints, **changes: object) -> None:
    manifest(store).write_text(json.dumps(json.loads(manifest(store).read_text()) | changes))


def test_before_the_first_round_there_is_none(store: Checkpoints) -> None:
    assert store.load() is None


def test_what_was_saved_is_loaded_to_the_last_bit_and_type(store: Checkpoints) -> None:
    store.save(checkpoint(3))
    assert same(store.load(), checkpoint(3))


def test_a_parameter_without_dimensions_keeps_its_shape(store: Checkpoints) -> None:
    store.save(Checkpoint(1, {"temperature": np.array(2.5, np.float32)}, {}, {}))
    loaded = store.load()
    assert loaded is not None
    assert loaded.model["temperature"].shape == ()


def test_the_newest_round_is_loaded(store: Checkpoints) -> None:
    for number in (1, 2, 3):
        store.save(checkpoint(number))
    assert same(store.load(), checkpoint(3))


def test_two_rounds_stay_on_disk(store: Checkpoints) -> None:
    for number in (1, 2, 3, 4):
        store.save(checkpoint(number))
    assert names(store) == [MANIFEST, "round-000003.safetensors", "round-000004.safetensors"]


def test_a_run_restored_from_a_backup_keeps_its_rounds_beside_later_ones_of_before(store: Checkpoints) -> None:
    for number in (1, 2, 3):
        store.save(checkpoint(number))
    backup = {path: path.read_bytes() for path in store.folder.iterdir()}
    for number in range(4, 12):
        store.save(checkpoint(number))
    for path, content in backup.items():
        path.write_bytes(content)
    store.save(checkpoint(4))
    assert same(store.load(), checkpoint(4))


@pytest.mark.parametrize("left", [0, 1, 50, -1], ids=["empty", "one byte", "fifty bytes", "one byte short"])
def test_a_truncated_tensor_file_is_an_error(store: Checkpoints, left: int) -> None:
    store.save(checkpoint(1))
    content = tensors(store, 1).read_bytes()
    tensors(store, 1).write_bytes(content[:left])
    with pytest.raises(CheckpointError, match="truncated or changed"):
        store.load()


@given(position=st.integers(0, 10**6), change=st.integers(1, 255))
def test_a_changed_byte_anywhere_in_the_tensors_is_an_error(
    tmp_path_factory: pytest.TempPathFactory, position: int, change: int
) -> None:
    store = Checkpoints(tmp_path_factory.mktemp("flip"), STUDY, durable=False)
    store.save(checkpoint(1))
    content = bytearray(tensors(store, 1).read_bytes())
    content[position % len(content)] ^= change
    tensors(store, 1).write_bytes(content)
    with pytest.raises(CheckpointError, match="truncated or changed"):
        store.load()


def test_a_checkpoint_of_another_study_is_an_error(store: Checkpoints) -> None:
    store.save(checkpoint(1))
    with pytest.raises(CheckpointError, match="a changed study is a new run"):
        Checkpoints(store.folder, "cd" * 32).load()


@pytest.mark.parametrize("arithmetic", [None, 1, 3])
def test_a_checkpoint_of_another_arithmetic_is_an_error(store: Checkpoints, arithmetic: int | None) -> None:
    store.save(checkpoint(1))
    kept = json.loads(manifest(store).read_bytes())
    assert kept.pop("arithmetic") == ARITHMETIC == 2
    manifest(store).write_text(json.dumps(kept if arithmetic is None else kept | {"arithmetic": arithmetic}))
    with pytest.raises(CheckpointError, match=f"found one begun with arithmetic {arithmetic or 1}: .*start a new run"):
        store.load()
    assert same(store.load(any_arithmetic=True), checkpoint(1))


def test_tensors_without_a_manifest_are_no_checkpoint(store: Checkpoints) -> None:
    store.save(checkpoint(1))
    manifest(store).unlink()
    assert store.load() is None


def test_a_manifest_without_its_tensors_is_an_error(store: Checkpoints) -> None:
    store.save(checkpoint(1))
    tensors(store, 1).unlink()
    with pytest.raises(CheckpointError, match="found them unreadable"):
        store.load()


GARBAGE = {
    "nothing": b"",
    "not JSON": b"{round: 1}",
    "not text": b"\xff\xfe\x00\x01",
    "a list": b"[1, 2]",
    "a number": b"3",
    "null": b"null",
    "half": b'{"averaged":1,"file":"round-0',
    "no fields": b"{}",
    "brackets": b"[" * 100_000,
    "a very long number": b'{"round":' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_a_manifest_of_garbage_is_an_error(store: Checkpoints, content: bytes) -> None:
    store.save(checkpoint(1))
    manifest(store).write_bytes(content)
    with pytest.raises(CheckpointError, match="found them unreadable"):
        store.load()


@pytest.mark.parametrize(
    "changes",
    [
        {"round": float("inf")},
        {"round": float("nan")},
        {"round": None},
        {"round": "three"},
        {"round": [3]},
        {"averaged": {}},
        {"file": 5},
        {"file": ""},
        {"file": "\0"},
        {"file": "x" * 5000},
        {"file": ".."},
        {"sha256": None},
        {"sha256": 7},
        {"study_sha256": 7},
    ],
    ids=str,
)
def test_a_manifest_with_an_odd_value_is_an_error(store: Checkpoints, changes: dict[str, object]) -> None:
    store.save(checkpoint(1))
    rewrite(store, **changes)
    with pytest.raises(CheckpointError):
        store.load()


def test_a_manifest_cannot_name_a_file_outside_its_folder(store: Checkpoints) -> None:
    store.save(checkpoint(1))
    outside = store.folder.parent / "outside.safetensors"
    outside.write_bytes(tensors(store, 1).read_bytes())
    rewrite(store, file="../outside.safetensors")
    with pytest.raises(CheckpointError):
        store.load()


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=60).map(lambda b: len(b).to_bytes(8, "little") + b)))
def test_a_tensor_file_of_garbage_with_the_right_hash_is_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    store = Checkpoints(tmp_path_factory.mktemp("garbage"), STUDY, durable=False)
    store.save(checkpoint(1))
    tensors(store, 1).write_bytes(content)
    rewrite(store, sha256=hashlib.sha256(content).hexdigest())
    try:
        loaded = store.load()
    except CheckpointError:
        return
    assert loaded is not None
    assert not loaded.model  # a valid file of nothing, at most


def failing(times: int, real: Callable[..., object]) -> Callable[..., object]:
    """The same function, which finds the disk full at its nth call."""
    calls = iter(range(times))

    def call(*args: object, **kwargs: object) -> object:
        if next(calls, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, **kwargs)

    return call


@pytest.mark.parametrize("good_calls", [0, 1])
@pytest.mark.parametrize("what", ["open", "replace", "fsync"])
def test_when_the_disk_is_full_the_checkpoint_before_is_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, good_calls: int
) -> None:
    """Each save opens, flushes and renames twice: first the tensors, then the manifest."""
    store = Checkpoints(tmp_path, STUDY)
    store.save(checkpoint(1))
    store.save(checkpoint(2))
    before = [name for name in names(store) if name != "round-000003.safetensors"]
    target, name = (os, "fsync") if what == "fsync" else (Path, what)
    with monkeypatch.context() as broken:
        broken.setattr(target, name, failing(good_calls, getattr(target, name)))
        with pytest.raises(OSError, match="No space left"):
            store.save(checkpoint(3))
    assert same(store.load(), checkpoint(2))
    assert [name for name in names(store) if name != "round-000003.safetensors"] == before
    store.save(checkpoint(3))  # once there is room again
    assert same(store.load(), checkpoint(3))


def test_when_a_file_may_not_grow_the_checkpoint_before_is_intact(store: Checkpoints) -> None:
    """The kernel's own refusal, in a process of its own: a file of more than 20,000 bytes cannot be written."""
    script = textwrap.dedent("""
        import resource, signal, sys
        from pathlib import Path
        import numpy as np
        from server.checkpoint import Checkpoint, Checkpoints

        store = Checkpoints(Path(sys.argv[1]), "ab" * 32)
        store.save(Checkpoint(1, {"w": np.ones(8, np.float32)}, {}, {}))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            store.save(Checkpoint(2, {"w": np.ones(80_000, np.float32)}, {}, {}))
        except OSError as error:
            print("refused", error.errno)
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(store.folder)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == f"refused {errno.EFBIG}\n", done.stderr
    loaded = store.load()
    assert loaded is not None
    assert loaded.round == 1
    assert names(store) == [MANIFEST, "round-000001.safetensors"]


def test_the_manifest_is_written_after_the_tensors(store: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    def write(path: Path, *content: Any, **options: Any) -> None:
        written.append(path.name)
        write_atomically(path, *content, **options)

    monkeypatch.setattr("server.checkpoint.write_atomically", write)
    store.save(checkpoint(1))
    assert written == ["round-000001.safetensors", MANIFEST]


def test_tensors_are_written_as_the_library_writes_them(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    tensors: dict[str, Any] = {
        "model:é": generator.normal(size=(3, 5)).astype(np.float32),
        "sum": generator.normal(size=1_200_003),
        "one": np.ones((), np.float32),
        "none": np.zeros((0, 3), np.float32),
    }
    digest = write_tensors(tmp_path / "a.safetensors", tensors)
    assert (tmp_path / "a.safetensors").read_bytes() == save(tensors)
    assert digest == hashlib.sha256(save(tensors)).hexdigest()


def test_a_file_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    seen: list[bytes] = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda s, t: (seen.append(path.read_bytes()), replace(s, t)))
    write_atomically(path, b"new")
    assert seen == [b"old"]
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
