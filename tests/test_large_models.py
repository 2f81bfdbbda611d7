"""A large model is held once: what each step of a message's way adds to memory, counted by tracemalloc, in models."""

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity

from configs.frame import Frame
from server.checkpoint import Checkpoint, Checkpoints, write_tensors
from server.superlink.spool import SpooledParts, zeros
from strategies.exchange.arrays import Arrays, all_finite, copied, from_record, reads_as_text, to_record
from strategies.exchange.messages import content, from_frame, read, to_frame
from strategies.exchange.objects import Parts
from strategies.federated.mean import add, mean_of, weighted_mean

SPECS = {"w": ((3000, 2000), "float32"), "v": ((2000, 2000), "float32")}
MODEL_BYTES = sum(4 * shape[0] * shape[1] for shape, _ in SPECS.values())
NOTHING, ONCE = 0.35, 1.35  # some pieces of 4 MB are under way


@pytest.fixture(scope="module")
def model() -> Arrays:
    generator = np.random.default_rng(0)
    made = {name: generator.normal(size=shape).astype(np.float32) for name, (shape, _) in SPECS.items()}
    return from_record(to_record(made), SPECS)


@pytest.fixture(scope="module")
def deflated(model: Arrays) -> dict[str, bytes]:
    """The parts of a message with the model; its own id is the last."""
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
    message = Message(RecordDict({"arrays": to_record(model)}), dst_node_id=1, message_type="train")
    return {name: part.deflate() for name, part in get_all_nested_objects(message).items()}


@pytest.fixture(autouse=True)
def traced() -> Iterator[None]:
    tracemalloc.start(1)
    yield
    tracemalloc.stop()


def models(step: Callable[[], object]) -> float:
    """The most that a step held at one time beyond what was there before, in models; its result included."""
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    result = step()
    _, peak = tracemalloc.get_traced_memory()
    del result
    return (peak - before) / MODEL_BYTES


def put_together(parts: Parts, deflated: dict[str, bytes]) -> object:
    for name, part in deflated.items():
        parts.add(name, bytes(bytearray(part)))  # as from the network: nobody else holds it
    return parts.message(list(deflated)[-1]).content


STEPS: dict[str, Callable[[Arrays, Path], object]] = {
    "packing what was unpacked": lambda model, folder: to_record(model),
    "a message to all hospitals": lambda model, folder: content("train reply", {}, model, SPECS),
    "reading it": lambda model, folder: read("train reply", RecordDict({"arrays": to_record(model)}), SPECS),
    "its bytes": lambda model, folder: to_frame("train reply", RecordDict({"arrays": to_record(model)}), SPECS).sha256,
    "looking for values that are not finite": lambda model, folder: all_finite(model.values()),
    "looking for text": lambda model, folder: [reads_as_text(array.data) for array in to_record(model).values()],
    "writing a file": lambda model, folder: write_tensors(folder / "model.safetensors", model),
    "writing a checkpoint": lambda model, folder: Checkpoints(folder, "ab" * 32).save(Checkpoint(1, model, {}, {})),
    "sums for an average": lambda model, folder: add({}, model, lambda shape: zeros(shape, folder, 0)),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_copies_nothing(model: Arrays, tmp_path: Path, step: str) -> None:
    assert models(lambda: STEPS[step](model, tmp_path)) < NOTHING


def test_a_reply_in_a_file_takes_no_memory(deflated: dict[str, bytes], tmp_path: Path) -> None:
    assert models(lambda: put_together(SpooledParts(10**9, tmp_path), deflated)) < NOTHING


def test_a_message_in_memory_is_held_once(deflated: dict[str, bytes]) -> None:
    """And room for its largest array, which fills as the chunks go; Flower's own assembly holds all three times."""
    largest = max(4 * shape[0] * shape[1] for shape, _ in SPECS.values()) / MODEL_BYTES
    assert models(lambda: put_together(Parts(10**9), deflated)) < ONCE + largest


def test_the_mean_of_five_hospitals_is_one_model(model: Arrays, deflated: dict[str, bytes], tmp_path: Path) -> None:
    replies = [put_together(SpooledParts(10**9, tmp_path), deflated)["arrays"] for _ in range(5)]  # type: ignore[index]
    assert models(lambda: weighted_mean(replies, [1.0] * 5)) < ONCE


def test_the_average_of_rounds_is_one_model(model: Arrays, tmp_path: Path) -> None:
    sums = add({}, model, lambda shape: zeros(shape, tmp_path, 0))
    assert models(lambda: mean_of(sums, 3)) < ONCE


def test_a_copy_that_leaves_is_the_only_one(model: Arrays) -> None:
    """What a worker sends: read out of the model once, and not again when it is packed."""
    assert models(lambda: to_record({name: copied(array) for name, array in model.items()})) < ONCE


def test_a_frame_from_a_pipe_is_not_copied(model: Arrays) -> None:
    frame = to_frame("train reply", RecordDict({"arrays": to_record(model)}), SPECS)
    held = Frame(frame.form, frame.fields, {name: bytearray(data) for name, data in frame.arrays.items()})
    assert models(lambda: from_frame("train reply", held, SPECS)) < NOTHING
