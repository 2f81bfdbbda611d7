"""The process that forks one child for each patient, and this process's half of it.

It is forked before a patient is read, holds no patient and runs no line of a kit: only its children do, and each of
them sees what the zygote saw and one patient. Patients' rows and the children's answers do not pass through it: it is
handed the ends of two pipes, forks a child that keeps them, and closes them. Nor does it learn how a child ended.

A zygote that ends takes with it what cannot be had again here: this process has seen patients by then. The worker ends
too, and the node starts another.

>>> class Reversed:
...     def load(self, shared): ...
...     def answer(self, patient): return patient[::-1]
>>> with Zygote(lambda described: Reversed()) as zygote:
...     zygote.prepare(b"")
...     zygote.ask(b"abc", 3, until=time.monotonic() + 10.0), zygote.ask(b"abc", 4, until=time.monotonic() + 10.0)
(b'cba', None)
"""

import contextlib
import fcntl
import gc
import os
import select
import signal
import struct
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, Protocol

from client.children.limits import ANSWER, MEMORY_BYTES, ROWS, address_space_bytes, can_confine, confine
from client.isolation import die_with_parent
from configs.errors import RunError
from configs.frame import Buffer

_PREPARE, _LOAD, _FORK, _END = b"prepare", b"load", b"fork", b"end"
_LENGTH = struct.Struct("<Q")
_AT_ONCE = 1 << 20
_MINDED = 4096  # descriptors that libraries have at most: below this each is led nowhere, above closed
_ENDED = "the process that forks children has ended; the worker has to be started anew"


class Work(Protocol):
    """What the children do: code of the installation, which may run a kit's in `answer` alone."""

    def load(self, shared: bytes) -> None:
        """Take what all children get, such as the model's parameters. Called in the zygote: no kit may run here."""

    def answer(self, patient: bytes) -> bytes:
        """Return what a child says of one patient. Called in a child."""


Prepare = Callable[[bytes], Work]


class Zygote:
    """The process that forks children, as its owner uses it.

    Args:
        prepare: makes the work from a few bytes that describe it. Called in the zygote: no kit may run there.
        seconds: of processor time that a child may take at most, whatever the clock says.
        ended: makes what is raised once the zygote has ended.
    """

    def __init__(
        self, prepare: Prepare, *, seconds: float = 3600.0, ended: Callable[[str], BaseException] = RunError
    ) -> None:
        if not can_confine():
            raise RunError("kits in children of their own: expected Linux on x86_64 or aarch64, found another machine")
        self._ended, self.lock = ended, threading.RLock()  # for its owner's threads, where there are several
        self._line, theirs = Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            with contextlib.suppress(BaseException):
                self._line.close()
                _serve(theirs, prepare, seconds)
            os._exit(0)
        theirs.close()

    def __enter__(self) -> "Zygote":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the zygote, and with it any child."""
        self._line.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def prepare(self, described: bytes) -> None:
        """Make the children's work ready: what takes long is loaded once, in the zygote.

        Raises:
            RunError: it cannot be made ready; or the zygote has ended.
        """
        failure = self._said(_PREPARE, described)
        if failure:
            raise RunError(f"the work of children cannot be made ready: {failure.decode()}")

    def load(self, shared: Buffer) -> None:
        """Give what all children get from now on.

        Raises:
            RunError: the zygote has ended.
        """
        self._said(_LOAD, shared)

    def ask(self, patient: Buffer | None, size: int, *, until: float) -> bytes | None:
        """Return what a child says of one patient: exactly `size` bytes, or None whatever else it does.

        None is also what comes of a child that is late, killed, or stumbles. It is dead when this returns.

        Args:
            patient: what the child reads; None for a child that ends at once, of nobody.
            size: of the answer, in bytes.
            until: when it is killed, by time.monotonic().

        Raises:
            RunError: the zygote has ended.
        """
        rows, to_child = os.pipe()
        from_child, answer = os.pipe()
        try:
            self._tell(_FORK)
            for descriptor in (rows, answer):
                self._hand(descriptor)
            os.close(rows)
            os.close(answer)  # a child that ends is then seen
            rows = answer = -1
            content = b"" if patient is None else patient
            received = _exchange(to_child, from_child, content, size, until)
        finally:
            for descriptor in (rows, answer, to_child, from_child):
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        self._said(_END)
        return received if len(received) == size and patient is not None else None

    def _hand(self, descriptor: int) -> None:
        try:
            send_handle(self._line, descriptor, self.pid)
        except OSError:
            raise self._ended(_ENDED) from None

    def _tell(self, *parts: Buffer) -> None:
        try:
            for part in parts:
                self._line.send_bytes(part)
        except OSError:
            raise self._ended(_ENDED) from None

    def _said(self, *parts: Buffer) -> bytes:
        self._tell(*parts)
        try:
            return self._line.recv_bytes()
        except (OSError, EOFError):
            raise self._ended(_ENDED) from None


def _exchange(to_child: int, from_child: int, content: Buffer, size: int, until: float) -> bytes:
    """Write a patient, read the answer: up to one byte more than it may have, until its end or the time given."""
    for descriptor in (to_child, from_child):
        os.set_blocking(descriptor, False)
    left, received = memoryview(_LENGTH.pack(len(memoryview(content))) + bytes(content)), bytearray()
    poll = select.poll()
    poll.register(from_child, select.POLLIN)
    poll.register(to_child, select.POLLOUT)
    while len(received) <= size and (wait_s := until - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(1000 * wait_s):
            try:
                if descriptor == from_child:
                    some = os.read(from_child, min(_AT_ONCE, size + 1 - len(received)))
                    if not some:
                        return bytes(received)
                    received += some
                else:
                    left = left[os.write(to_child, left[:_AT_ONCE]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                left = left[:0]
            if descriptor == to_child and not left:
                poll.unregister(to_child)
    return bytes(received)


# The other process


def _serve(line: Connection, prepare: Prepare, seconds: float) -> None:
    """Do what the owner says, until it closes the line or ends."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # how a child ended is never learnt: the next one could read it here
    _let_go_of_all_but(line.fileno())
    work: Any = None
    address_space = 0
    child = -1  # a descriptor: a number of a process could be another's by then
    while True:
        order = line.recv_bytes()
        if order == _PREPARE:
            work, failure = _prepared(prepare, line.recv_bytes())
            address_space = address_space_bytes() + MEMORY_BYTES
            line.send_bytes(failure)
        elif order == _LOAD:
            work.load(line.recv_bytes())
            line.send_bytes(b"")
        elif order == _FORK:
            ends = recv_handle(line), recv_handle(line)
            number = os.fork()
            if number == 0:
                _live(work, ends, seconds, address_space)
            with contextlib.suppress(ProcessLookupError):
                child = os.pidfd_open(number)
            for descriptor in ends:
                os.close(descriptor)
        elif order == _END:
            if child >= 0:
                _end(child)
            child = -1
            line.send_bytes(b"")


def _end(child: int) -> None:
    """Kill a child and wait until nothing of it is left."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(child, signal.SIGKILL)
    select.select([child], [], [])
    os.close(child)


def _prepared(prepare: Prepare, described: bytes) -> tuple[Work | None, bytes]:
    try:
        work = prepare(described)
    except Exception as error:
        return None, f"{type(error).__name__}: {error}".encode()
    gc.collect()
    gc.freeze()  # what the children share with this process stays shared
    return work, b""


def _let_go_of_all_but(kept: int) -> None:
    """Lead what this process was born with nowhere, the owner's requests and answers among it.

    A library that was loaded before may close descriptors of its own in each process that is forked, and end it where
    they are closed already (Arrow does): so each of them stays open until a child closes it.
    """
    nowhere, limit = os.open(os.devnull, os.O_RDWR), os.sysconf("SC_OPEN_MAX")
    for descriptor in range(min(_MINDED, limit)):  # behind the fence /proc does not say which are open
        if descriptor not in (2, kept, nowhere):
            with contextlib.suppress(OSError):
                os.dup2(nowhere, descriptor, inheritable=fcntl.fcntl(descriptor, fcntl.F_GETFD) == 0)
    os.closerange(_MINDED, max(_MINDED, kept))  # in one call of the kernel: containers allow a thousand million
    os.closerange(max(_MINDED, kept + 1), limit)


def _live(work: Work, ends: tuple[int, int], seconds: float, address_space: int) -> None:
    """Answer for one patient, and end, whatever happens."""
    try:
        confine(*ends, seconds=seconds, address_space=address_space)
        length = _LENGTH.unpack(_read(_LENGTH.size))[0]
        if length:
            answer = memoryview(work.answer(_read(length)))
            while answer:
                answer = answer[os.write(ANSWER, answer) :]
    finally:
        os._exit(0)


def _read(count: int) -> bytes:
    content = bytearray()
    while len(content) < count:
        some = os.read(ROWS, min(_AT_ONCE, count - len(content)))
        if not some:
            raise EOFError
        content += some
    return bytes(content)
