"""What a child may do that runs a kit's code for one patient: compute, read one pipe and write another.

The kernel holds it. The list below names every system call that is left: none of them takes a path, starts a process or
a thread, reaches another process, or keeps anything in the kernel once the child is dead. So there is no file, lock,
time stamp, queue, key or shared memory through which one child could leave a word for the next.

What stays open is told in configs/decisions/0058: how warm a processor's caches are. The clock does stay readable;
slots.py sees to it that it says nothing of other patients. The clocks of other processes, how long the worker computed,
cannot be read.
"""

import fcntl
import mmap
import os
import platform
import resource
import sys

from client.fence import ALLOW, AT_LEAST, DENY, EQUAL, LOAD, PROCESSORS, RETURN, install, no_dumps
from client.isolation import die_with_parent

ROWS, ANSWER = 3, 4  # the two descriptors that a child's work reads and writes; 0, 1 and 2 are /dev/null
_ABOVE = 64  # where a descriptor is in nobody's way
MEMORY_BYTES = 2 << 30  # that a child may take beyond what it began with
NEEDED = {  # numbers: x86_64, aarch64
    **{"read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "close": (3, 57), "lseek": (8, 62)},
    **{"mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "mremap": (25, 216)},
    **{"madvise": (28, 233), "futex": (202, 98), "membarrier": (324, 283), "rseq": (334, 293)},
    **{"rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132)},
    **{"restart_syscall": (219, 128), "set_robust_list": (273, 99), "sched_yield": (24, 124), "getcpu": (309, 168)},
    **{"sched_getaffinity": (204, 123), "getpid": (39, 172), "gettid": (186, 178), "uname": (63, 160)},
    **{"clock_gettime": (228, 113), "clock_getres": (229, 114), "gettimeofday": (96, 169)},
    **{"nanosleep": (35, 101), "clock_nanosleep": (230, 115), "getrusage": (98, 165), "getrandom": (318, 278)},
    **{"exit": (60, 93), "exit_group": (231, 94)},
}
_OF_CLOCKS, _CLOCKS = {"clock_gettime", "clock_getres", "clock_nanosleep"}, 16  # below: those of all, and one's own


def can_confine() -> bool:
    """Return whether this machine's kernel and processor are of those that `confine` knows."""
    return sys.platform == "linux" and sys.byteorder == "little" and platform.machine() in PROCESSORS


def address_space_bytes() -> int:
    """Return how much this process has mapped, found by halving: behind the fence no process reads its own /proc."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    least, most = 0, 1 << 46
    while most - least > mmap.PAGESIZE:
        middle = (least + most) // 2
        resource.setrlimit(resource.RLIMIT_AS, (middle, before[1]))
        try:
            mmap.mmap(-1, mmap.PAGESIZE).close()
            most = middle
        except OSError:
            least = middle
    resource.setrlimit(resource.RLIMIT_AS, before)
    return most


def confine(rows: int, answer: int, *, seconds: float, address_space: int) -> None:
    """Leave this process, just forked, nothing but computing on what comes through `rows`, for good.

    Args:
        rows: descriptor from which the patient is read; it becomes number 3.
        answer: descriptor to which the answer is written; it becomes number 4.
        seconds: of processor time after which the kernel ends it.
        address_space: bytes that it may have mapped.

    Raises:
        OSError: the kernel does not hold it; nothing of a kit may run then.
    """
    die_with_parent()
    _keep_alone(rows, answer)
    for limit, value in (
        (resource.RLIMIT_AS, address_space),
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, ANSWER + 1),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        resource.setrlimit(limit, (value, value))
    no_dumps()
    if not install(_program()):
        raise OSError("expected a kernel with seccomp, found none; a kit cannot run apart from others here")


def _keep_alone(rows: int, answer: int) -> None:
    """Close every descriptor but these two and /dev/null."""
    rows, answer = (fcntl.fcntl(descriptor, fcntl.F_DUPFD, _ABOVE) for descriptor in (rows, answer))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for place, descriptor in enumerate((nowhere, nowhere, nowhere, rows, answer)):
        os.dup2(descriptor, place)
    os.closerange(ANSWER + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    sys.stdout = sys.stderr = os.fdopen(1, "w")


def _program() -> list[tuple[int, int, int, int]]:
    """Return the filter: the calls that are needed, and no other (EPERM); no clock of another process.

    The kernel takes minus a number for the clock of that process: how long the worker computed tells who came before.
    """
    abi = PROCESSORS[platform.machine()][0]
    numbers = [(name in _OF_CLOCKS, pair[platform.machine() == "aarch64"]) for name, pair in NEEDED.items()]
    deny = len(numbers) + 3
    clock, allow = deny + 1, deny + 3
    code = [(LOAD, 0, 0, 4), (EQUAL, 0, deny - 2, abi), (LOAD, 0, 0, 0)]
    for place, (of_clock, number) in enumerate(numbers, start=len(code)):
        code.append((EQUAL, (clock if of_clock else allow) - place - 1, 0, number))
    code += [(RETURN, 0, 0, DENY), (LOAD, 0, 0, 16), (AT_LEAST, 1, 0, _CLOCKS)]
    return [*code, (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, DENY)]
