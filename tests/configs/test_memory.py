"""Memory that is let go of: given back at once, or kept for the next step."""

import subprocess
import sys

import pytest

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
