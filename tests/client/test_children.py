"""What a child that works for one patient can do: real processes on this kernel, each with one deed."""

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.children import zygote as zygote_module
from client.children.limits import can_confine
from client.children.zygote import Zygote
from configs.errors import RunError

pytestmark = pytest.mark.skipif(not can_confine(), reason="needs seccomp")
SIZE = 8
DONE = b"done...."


class Deeds:
    """Work whose patients are code: what a kit could be made to do."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.shared = b""

    def load(self, shared: bytes) -> None:
        self.shared = shared

    def answer(self, patient: bytes) -> bytes:
        import ctypes
        import fcntl
        import signal
        import socket

        names = {"os": os, "time": time, "self": self, "ctypes": ctypes, "fcntl": fcntl, "DONE": DONE}
        names |= {"signal": signal, "socket": socket, "libc": ctypes.CDLL(None, use_errno=True), "call": call}
        exec(patient.decode(), names)
        answer: bytes = names.get("answer", DONE)  # type: ignore[assignment]
        return answer


def call(name: str, *arguments: object) -> None:
    """Make a call of the C library; fail where the kernel refuses."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote(lambda _: Deeds()) as zygote:
        zygote.prepare(b"")
        zygote.load(b"model")
        yield zygote


def said(zygote: Zygote, deed: str, seconds: float = 5.0) -> bytes | None:
    return zygote.ask(deed.encode(), SIZE, until=time.monotonic() + seconds)


ALLOWED = {
    "compute": "sum(range(1000))",
    "print": "print('a patient is here')",
    "read the clock": "time.time(); time.sleep(0.001)",
    "read its own clocks": "time.process_time(); time.thread_time(); time.monotonic(); time.get_clock_info('time')",
    "draw chance": "os.urandom(8)",
    "take memory": "bytearray(100_000_000)",
    "have what all have": "assert self.shared == b'model'",
    "remember": "assert not self.seen; self.seen.append(b'patient')",
}
FORBIDDEN = {
    "a file, read": "open('/etc/hostname')",
    "a file, written": "open('/dev/shm/word', 'w')",
    "a file, written in the working folder": "open('word', 'w')",
    "a file that was there, looked for": "os.stat('/etc/hostname')",
    "a file's time, set": "os.utime('/tmp')",
    "a file's mode": "os.chmod('/tmp', 0o1777)",
    "a file's owner": "os.chown('/tmp', 0, 0)",
    "a file's mark": "os.setxattr('/tmp', 'user.word', b'1')",
    "a folder, listed": "os.listdir('/')",
    "a folder, made": "os.mkdir('/tmp/word')",
    "a link": "os.symlink('/', '/tmp/word')",
    "a working folder": "os.chdir('/')",
    "a lock": "fcntl.flock(1, fcntl.LOCK_EX)",
    "a lock on bytes": "fcntl.lockf(1, fcntl.LOCK_EX)",
    "a file in memory": "os.memfd_create('word')",
    "another descriptor": "os.dup(3)",
    "a device's settings": "fcntl.ioctl(1, 0x5401, b' ' * 64)",
    "another pipe": "os.pipe()",
    "a pipe's size": "fcntl.fcntl(3, 1031, 4096)",
    "a child": "os.fork()",
    "children, as many as there is room for": "[os.fork() for _ in range(1000)]",
    "a program": "os.execv('/bin/true', ['true'])",
    "a shell": "assert os.system('true') == 0",
    "a thread": "import _thread; _thread.start_new_thread(print, ())",
    "a signal to the zygote": "os.kill(os.getppid(), 9)",
    "a signal to every process": "os.kill(-1, 9)",
    "a signal to the group": "os.killpg(0, 9)",
    "a session": "os.setsid()",
    "a socket": "socket.socket(socket.AF_INET)",
    "an abstract socket": "socket.socket(socket.AF_UNIX).bind(b'\\0word')",
    "a pair of sockets": "socket.socketpair()",
    "shared memory of System V": "call('shmget', 77, 4096, 0o1666)",
    "a queue of System V": "call('msgget', 77, 0o1666)",
    "semaphores of System V": "call('semget', 77, 1, 0o1666)",
    "a queue of POSIX": "call('mq_open', b'/word', 0o102, 0o600, None)",
    "a key": "call('syscall', 248, b'user', b'word', b'1', 1, -4)",
    "a watch": "call('inotify_init')",
    "a timer's descriptor": "call('timerfd_create', 1, 0)",
    "an event's descriptor": "call('eventfd', 0, 0)",
    "a watcher of descriptors": "call('epoll_create', 1)",
    "a ring": "call('syscall', 425, 1, 0)",
    "page faults of one's own": "call('syscall', 323, 0)",
    "a programme in the kernel": "call('syscall', 321, 0, 0, 0)",
    "another's memory": "call('syscall', 310, os.getppid(), 0, 0, 0, 0, 0)",
    "a debugger": "call('ptrace', 16, os.getppid(), 0, 0)",
    "another's descriptor": "call('syscall', 434, os.getppid(), 0)",
    "another's limits": "import resource; resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (4, 4))",
    "one's own limits": "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1))",
    "another's processors": "os.sched_setaffinity(os.getppid(), {0})",
    "another's priority": "os.setpriority(os.PRIO_PROCESS, os.getppid(), 5)",
    "one's own priority": "os.nice(1)",
    "the machine's load": "os.getloadavg()",
    "a namespace": "call('unshare', 0x10000000)",
    "a mount": "call('mount', b'none', b'/tmp', b'tmpfs', 0, None)",
    "a root": "os.chroot('/')",
    "a user": "os.setuid(12345)",
    "the host's name": "socket.sethostname('word')",
    "the clock of the worker": f"time.clock_gettime(({~os.getpid()} << 3) | 2)",
    "the clock of another process": "time.clock_gettime((~1 << 3) | 2)",
    "the clock of another process, its step": "time.clock_getres((~1 << 3) | 2)",
    "the clock, set": "time.clock_settime(time.CLOCK_REALTIME, 0)",
    "accounting": "call('acct', None)",
    "a dump": "import resource; resource.setrlimit(resource.RLIMIT_CORE, (1, 1))",
    "privileges": "call('prctl', 4, 1, 0, 0, 0)",
    "3 GB of memory": "bytearray(3_000_000_000)",
    "an exception": "1 / 0",
    "an end": "os._exit(0)",
    "an exit": "raise SystemExit(1)",
    "an interruption": "raise KeyboardInterrupt",
    "a crash": "ctypes.string_at(0)",
    "an abort": "os.abort()",
    "an answer that is too short": "answer = b'1234567'",
    "an answer that is too long": "answer = bytes(9)",
    "an answer without end": "answer = bytes(1 << 24)",
    "no answer": "answer = b''",
    "an answer of another kind": "answer = 'text'",
    "an answer beforehand": "os.write(4, b'earlier.')",
    "its answer, closed": "os.close(4)",
}
SLOW = {
    "an endless loop": "while True: pass",
    "an endless sleep": "time.sleep(1000)",
    "a loop that nothing interrupts": "[signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]\nwhile True: pass",
}


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_a_child_may(zygote: Zygote, name: str) -> None:
    assert said(zygote, ALLOWED[name]) == DONE


@pytest.mark.parametrize("name", sorted(FORBIDDEN))
def test_a_child_has_no_answer_after(zygote: Zygote, name: str) -> None:
    assert said(zygote, FORBIDDEN[name]) is None
    assert said(zygote, ALLOWED["remember"]) == DONE


@pytest.mark.parametrize("name", sorted(SLOW))
def test_a_child_is_killed_in_time_at(zygote: Zygote, name: str) -> None:
    start = time.monotonic()
    assert said(zygote, SLOW[name], 0.1) is None
    assert time.monotonic() - start < 2.0
    assert said(zygote, ALLOWED["remember"]) == DONE


def test_an_answer_counts_though_its_child_goes_on(zygote: Zygote) -> None:
    assert said(zygote, "os.write(4, DONE); time.sleep(1000)", 0.5) == DONE


DESCRIPTORS = """
there = []
for number in range(64):
    try: os.lseek(number, 0, 1)
    except OSError as error:
        if error.errno == 9: continue
    there.append(number)
answer = bytes(there).ljust(8)
"""


def test_a_child_has_its_two_pipes_and_nothing(zygote: Zygote) -> None:
    assert said(zygote, DESCRIPTORS) == bytes([0, 1, 2, 3, 4]).ljust(8)


def test_no_memory_is_shared_between_one_child_and_the_next(zygote: Zygote) -> None:
    def shared(process: object) -> set[str]:
        lines = Path(f"/proc/{process}/maps").read_text().splitlines()
        return {line.split()[-1] for line in lines if line.split()[1] in ("rw-s", "-w-s")}

    assert shared(zygote.pid) <= shared(
        os.getpid()
    )  # libraries of other tests map files of their own; a worker has none


def test_a_child_of_nobody_says_nothing(zygote: Zygote) -> None:
    assert zygote.ask(None, SIZE, until=time.monotonic() + 5.0) is None


def test_large_patients_and_answers_pass() -> None:
    class Echo:
        def load(self, shared: bytes) -> None: ...

        def answer(self, patient: bytes) -> bytes:
            return patient[::-1]

    with Zygote(lambda _: Echo()) as zygote:
        zygote.prepare(b"")
        patient = os.urandom(3_000_000)
        assert zygote.ask(patient, len(patient), until=time.monotonic() + 20.0) == patient[::-1]


def test_work_that_cannot_be_made_ready_says_why() -> None:
    def prepare(described: bytes) -> Deeds:
        raise ImportError(f"no module named {described.decode()!r}")

    with Zygote(prepare) as zygote, pytest.raises(RunError, match="ImportError: no module named 'tifffile'"):
        zygote.prepare(b"tifffile")


def test_a_zygote_that_has_ended_is_an_error() -> None:
    zygote = Zygote(lambda _: Deeds())
    os.kill(zygote.pid, 9)
    with pytest.raises(RunError, match="has ended"):
        zygote.prepare(b"")
    zygote.close()


def test_children_answer_where_a_library_minds_the_descriptors_that_it_opened_before(tmp_path: Path) -> None:
    """Arrow closes a pipe of its own in each process that is forked, and ends one where that pipe is closed already."""
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    from pyarrow import csv

    (tmp_path / "a.csv").write_text("a\n1\n")
    parquet.write_table(csv.read_csv(tmp_path / "a.csv"), tmp_path / "a.parquet")
    assert parquet.read_table(tmp_path / "a.parquet") == arrow.table({"a": [1]})
    with Zygote(lambda _: Deeds()) as zygote:
        zygote.prepare(b"")
        zygote.load(b"")
        assert said(zygote, "sum(range(9))") == DONE


@pytest.mark.parametrize("limit", [1_024, 1_048_576, 1_073_741_816])
def test_what_a_process_was_born_with_is_let_go_of_in_few_calls_however_many_a_machine_allows(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits of a shell, of a service, and of a container."""
    led, closed, nowhere = list[int](), list[range](), 5
    monkeypatch.setattr(os, "sysconf", lambda _: limit)
    monkeypatch.setattr(os, "open", lambda *_: nowhere)
    monkeypatch.setattr(os, "dup2", lambda _, descriptor, **__: led.append(descriptor))
    monkeypatch.setattr(fcntl, "fcntl", lambda *_: 0)
    monkeypatch.setattr(os, "closerange", lambda low, high: closed.append(range(low, high)))
    for kept in (7, 9_000):
        led.clear()
        closed.clear()
        zygote_module._let_go_of_all_but(kept)
        assert len(led) < 5_000
        looked_at = range(min(limit, 20_000))
        there = {number for number in looked_at if number not in led and not any(number in some for some in closed)}
        assert there == {2, nowhere, kept} & set(looked_at)
