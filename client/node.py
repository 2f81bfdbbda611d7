"""The hospital's node: the process that talks to the coordinator and never reads a patient.

It receives a message, checks it, admits it, lets the worker work, checks the reply and sends it; and it writes all of
that down. This process talks to the coordinator and never sees a patient; the worker sees patients and talks to nobody
(but to data bases, where site.yaml lists some). Here it stays in touch with the coordinator; what becomes of a message
stands in client/answering.py.
"""

import contextlib
import logging
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable

from client.answering import Answering
from client.books import Books
from client.enrol import load_welcome
from client.fence import no_dumps
from client.identities import forgotten
from client.node_state import NodeState
from client.pace import Pace
from client.uplink.base import EndedError, OccupiedError, RefusedError, UnreachableError, Uplink
from client.uplink.hospital import open_fleet
from client.uplink.line import keep
from client.worker_process import WorkerPort, WorkerProcess
from configs.errors import WireError
from configs.lock import only_one
from configs.memory import return_large_blocks
from configs.records.site_journal import Refused, Started, Stopped, Worker
from configs.site import SiteConfig

log = logging.getLogger("archipel.node")
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 60.0
HELD_S = 1.0  # a look that lasts longer was held by the coordinator
TOUCH_S = 60.0  # of contact between two notes of it
FULL_DISK_S = 1.0  # between looks while nothing can be written down


class Node:
    """One hospital's node."""

    def __init__(
        self, config: SiteConfig, worker: WorkerPort | None = None, uplink: Callable[[], Uplink] | None = None
    ) -> None:
        """Open the hospital's books.

        Args:
            worker: another than the process that sees patients.
            uplink: makes a connection to the coordinator, each time that one is needed; other than over a network.

        Raises:
            RunError: this hospital has not joined, or one of its files cannot be opened.
        """
        self.config, self._welcome, self.books = config, load_welcome(config), Books.open(config)
        self.worker: WorkerPort = worker or WorkerProcess(config)
        self.answering = Answering(config, self._welcome.coordinator_key, self.books, self.worker)
        self._uplink: Callable[[], Uplink] = uplink or (lambda: open_fleet(config, self._welcome))
        self._touched, self._touch_s = time.monotonic(), 0.0
        self._over = threading.Event()
        self._connection: Uplink | None = None

    def stop(self) -> None:
        """End after what is under way; callable from another thread or a signal handler."""
        self._over.set()
        if self._connection is not None:
            self._connection.interrupt()

    @property
    def stopping(self) -> bool:
        """Return whether it was asked to end."""
        return self._over.is_set()

    def run(self) -> None:
        """Serve until `stop`. Whatever happens to the network, it tries again.

        Raises:
            RunError: another node runs in this folder, or the worker cannot be started.
        """
        config, audit, worker = self.config, self.books.audit, self.worker
        with only_one(config.lock, "another node runs in this folder; stop it first", config.sha256):
            audit.note(Started(version=self._welcome.version, site=config.site, site_yaml=config.sha256))
            self.books.records.start()
            worker.start()
            if not worker.alone:
                log.warning("the kernel does not let the worker leave the network; see: archipel-site check")
            audit.note(Worker(alone=worker.alone, reaches=tuple(config.worker_network), fence=worker.fence))
            try:
                self.answering.over.catch_up()
                self._serve_for_ever()
            finally:
                worker.stop()
                audit.note(Stopped())

    def _serve_for_ever(self) -> None:
        pause = FIRST_RETRY_S
        while not self._over.is_set():
            uplink = self._connection = self._uplink()
            connected = time.monotonic()
            try:
                self._connect(uplink)
                pause = FIRST_RETRY_S
                self._serve(uplink)
            except OccupiedError as error:
                log.warning("%s; trying again", error)
                pause = min(pause, 5.0)
            except (UnreachableError, RefusedError) as error:
                log.warning("%s; trying again in %.0f s", error, pause)
            finally:
                if uplink.close():
                    NodeState(self.config).forget()
            if time.monotonic() - connected > 2 * LAST_RETRY_S:
                pause = FIRST_RETRY_S
            self._over.wait(pause)
            pause = min(2 * pause, LAST_RETRY_S)

    def _connect(self, uplink: Uplink) -> None:
        state = NodeState(self.config)
        state.write(uplink.connect(state.previous()))
        log.info("connected to %s as %s", self._welcome.coordinator, self.config.site)

    def _serve(self, uplink: Uplink) -> None:
        """Look for messages: at once after one, more seldom the longer there was none."""
        pace = Pace(time.monotonic())
        while not self._over.is_set():
            try:
                self._look(uplink, pace)
            except (OSError, sqlite3.Error) as error:  # a full disk: what cannot be written down is not answered
                room = f"make room in {self.config.folder}"
                log.error("nothing is answered, because it cannot be written down: %s; %s", error, room)
                self._over.wait(FULL_DISK_S)

    def _look(self, uplink: Uplink, pace: Pace) -> None:
        """Look for one message, and answer it or wait."""
        began = time.monotonic()
        try:
            incoming = uplink.receive()
        except EndedError:
            return
        except WireError as error:
            self.books.audit.note(Refused(message="", why=str(error)))
            log.warning("%s", error)
            return
        self._stay_in_touch()
        if incoming is None:
            if (now := time.monotonic()) - began < HELD_S:  # the request was not held
                self._over.wait(pace.wait_s(now))
            elif uplink.line.cut_after_s:
                keep(self.config.folder, uplink.line)
            return
        pace.came()
        with contextlib.suppress(EndedError):
            self.answering.answer(uplink, incoming)
        del incoming
        pace.answered(time.monotonic())

    def _stay_in_touch(self) -> None:
        """Count the time in which the coordinator could have proposed studies; time without contact does not count."""
        now = time.monotonic()
        self._touch_s += min(now - self._touched, TOUCH_S)
        self._touched = now
        if self._touch_s >= TOUCH_S:
            self.books.admissions.passed(self._touch_s)
            self._touch_s = 0.0


def start(config: SiteConfig, worker: WorkerPort | None = None) -> None:
    """Serve until a signal (SIGTERM, SIGINT) ends it; what is under way is finished first.

    Raises:
        RunError: this hospital has not joined, or a node runs already.
    """
    return_large_blocks()
    for lost in forgotten(config):
        log.warning("%s; %s", lost, lost.todo)
    node = Node(config, worker)
    no_dumps()
    for name in config.secrets:  # what is read by name in this process, or handed on, holds no data base's password
        os.environ.pop(name, None)

    def end(*_: object) -> None:
        if node.stopping:
            os._exit(1)  # asked twice: the worker ends with this process, what it had booked counts as spent
        node.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    node.run()
