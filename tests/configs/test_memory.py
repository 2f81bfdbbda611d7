"""Memory that is let go of: given back at once, or kept for the next step."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from configs.memory import KEPT_ROOM_BYTES, Room

STEPS = """
import resource, sys
from configs import memory
getattr(memory, sys.argv[1])()
def step():  # as a step of training: blocks of 4 MB, 120 MB in all, written to and let go of
    return len([b"x" * 4_000_000 for _ in range(30)])
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
before = faults()
for _ in range(4):
    step()
print(faults() - before)
"""


def faults_of_four_steps(setting: str) -> int:
    return int(subprocess.check_output([sys.executable, "-c", STEPS, setting], text=True))


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of the GNU C library")
def test_a_process_that_trains_asks_the_kernel_once_and_one_that_carries_messages_each_time() -> None:
    pages = 4 * 120_000_000 // 4096
    assert faults_of_four_steps("keep_freed_blocks") < pages // 20
    assert faults_of_four_steps("return_large_blocks") > pages // 2


@pytest.mark.parametrize("holder", ["view", "slice", "array", "read only"])
def test_room_is_not_given_again_while_anything_refers_to_it(holder: str) -> None:
    room = Room()
    first = room.of(1_000_000)
    first[:] = b"a" * len(first)
    holders: dict[str, Callable[[memoryview], Any]] = {
        "view": lambda view: view,
        "slice": lambda view: view[500:600],
        "array": lambda view: np.frombuffer(view, np.float32)[10:20],
        "read only": lambda view: view.toreadonly(),
    }
    held = holders[holder](first)
    block = first.obj
    del first
    other = room.of(1_000_000)
    other[:] = b"b" * len(other)
    assert other.obj is not block
    assert set(bytes(held)) == {ord("a")}
    del held
    assert room.of(900_000).obj is block


def test_room_keeps_no_more_than_so_much_and_nothing_that_is_larger() -> None:
    room = Room()
    views = [room.of(10_000_000) for _ in range(10)]
    assert sum(map(len, room._kept)) <= KEPT_ROOM_BYTES
    del views
    large = room.of(KEPT_ROOM_BYTES + 1)
    assert all(block is not large.obj for block in room._kept)
    assert len(room.of(1_000_000)) == 1_000_000
    assert room.of(1_000_000).obj is not room.of(10_000_000).obj  # a small one does not take a large one's place
