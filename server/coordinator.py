"""The coordinator's main process.

It keeps Flower's SuperLink, the gateway and the herald alive, and conducts studies one by one. Everything that must
outlive a crash is in the folder (members, runs, checkpoints, journals); the SuperLink's own state is in memory and is
built anew. Each part is a process that ends when this one does, however it does. Two studies at once never race: both
are proposed to their hospitals, and whichever is ready first is conducted first.
"""

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import httpx
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from configs import wire
from configs.coordinator import CoordinatorConfig
from configs.errors import RunError
from configs.journal import Journal
from configs.lock import only_one
from configs.parts import start as start_part
from configs.records.coordinator_journal import (
    Conducting,
    Connected,
    Disconnected,
    Ended,
    Held,
    Interrupted,
    Restarted,
    Resumed,
    Stopped,
)
from configs.records.kinds import Kind
from server import continuity
from server.ends import owe_end
from server.files import private_folder
from server.membership import ENDED, Membership
from server.pki import Pki
from server.shelf import FOLDER as SHELF
from server.shelf import clear as clear_shelf
from server.sockets import SUPERLINK_SOCKET
from server.superlink.client import Node, SuperLinkClient

log = logging.getLogger("archipel.coordinator")
TICK_S, MEMBERS_S, NODES_S = 0.2, 1.0, 3.0
MAX_ATTEMPTS = 5
PARTS = "parts"


class Part:
    """A process of the coordinator. It reads nothing from us: it ends when its standard input closes."""

    def __init__(self, folder: Path, module: str, *arguments: str) -> None:
        self._folder, self.module, self._arguments = folder, module, arguments
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        self._process = start_part(
            self.module,
            *self._arguments,
            folder=self._folder,
            stdin=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C in the terminal is the coordinator's to handle
        )

    @property
    def ended(self) -> int | None:
        """Return its exit code, None while it runs or before it started."""
        return self._process.poll() if self._process else None

    def stop(self, patience_s: float = 5.0) -> None:
        """End it."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


class Coordinator:
    """The parts of one folder."""

    def __init__(self, config: CoordinatorConfig, *, nginx: bool = False, hold: bool = False) -> None:
        self._config, self._hold = config, hold
        self._socket = config.sockets / SUPERLINK_SOCKET
        self._members = Membership.open(config.database)
        self._journal = Journal(config.journal, sign=Pki(config.pki).load_signing_key().sign)
        self._superlink = Part(config.folder, "server.superlink", str(self._socket), str(config.folder / PARTS))
        self._gateway = self._part("server.gateway", *(["--auth-only"] if nginx else []))
        self._herald = self._part("server.herald")
        self._conductor: tuple[str, Part] | None = None
        self._link: SuperLinkClient | None = None
        self._online: dict[str, bool] = {}
        self._known: set[bytes] = set()  # keys of members that the SuperLink takes
        self._nodes_looked = 0.0
        self._over = threading.Event()
        self._health = health.HealthServicer()

    def stop(self) -> None:
        """End; a run under way is interrupted, the next start goes on with it."""
        self._over.set()

    def run(self) -> None:
        """Serve until `stop`.

        Raises:
            RunError: another coordinator runs in this folder, or a part cannot be started.
        """
        refusal = "another coordinator runs in this folder; stop it first"
        with only_one(self._config.lock, refusal), self._health_server():
            try:
                self._begin()
                members_looked = 0.0
                while not self._over.wait(TICK_S):
                    self._mind_parts()
                    if time.monotonic() - members_looked > MEMBERS_S:
                        members_looked = time.monotonic()
                        if self._has_new_members() or members_looked - self._nodes_looked > NODES_S:
                            self._mind_members()
                    self._mind_runs()
            finally:
                self._end()

    def _begin(self) -> None:
        self._take_up()
        private_folder(self._config.sockets)
        clear_shelf(self._config.folder / SHELF)
        self._start_superlink()
        self._gateway.start()
        self._mind_members()
        self._herald.start()
        self._set_health(good=True)
        continuity.begin(self._config, self._members, self._journal)
        log.info("listening on %s", self._config.listen)

    def _note(self, record: Kind) -> None:
        continuity.note(self._members, self._journal, record)

    def _take_up(self) -> None:
        """Go on with the runs that were under way; after a restore, or where a person wants it, let them wait."""
        self._members.stopped()
        restored = continuity.difference(self._config, self._members)
        if not (restored or self._hold):
            for run in self._members.take_up():
                self._note(Resumed(run=run, why="the coordinator was started again"))
                log.info("%s goes on from its newest checkpoint", run)
            return
        why = f"this folder seems restored or copied: {restored}" if restored else "the coordinator was started to hold"
        runs = self._members.hold(why)
        self._note(Held(runs=tuple(runs), why=why))
        log.warning("%s; runs that wait for a person: %s", why, ", ".join(runs) or "none")

    def _start_superlink(self) -> None:
        self._socket.unlink(missing_ok=True)
        self._superlink.start()
        if self._link is not None:
            self._link.close()
        self._link = SuperLinkClient(self._socket)
        self._link.await_ready()

    def _end(self) -> None:
        self._set_health(good=False)
        if self._conductor is not None:
            name, part = self._conductor
            part.stop()
            self._members.stopped()
            self._note(Interrupted(run=name))
        self._herald.stop()
        self._gateway.stop()
        self._superlink.stop()
        shutil.rmtree(self._config.sockets, ignore_errors=True)  # it may lie among temporary files
        self._note(Stopped())
        self._members.set_connected({})

    def _mind_parts(self) -> None:
        """Start again what has ended."""
        if (code := self._superlink.ended) is not None:
            log.error("the SuperLink ended (exit code %d); it is started again", code)
            self._note(Restarted(part="superlink", code=code))
            self._set_health(good=False)
            self._take_up_again()
            self._herald.stop()
            self._start_superlink()
            self._mind_members()
            self._herald.start()
            self._set_health(good=True)
        if (code := self._herald.ended) is not None:
            log.error("the herald ended (exit code %d); it is started again", code)
            self._note(Restarted(part="herald", code=code))
            self._over.wait(1.0)
            self._herald.start()
        if (code := self._gateway.ended) is not None:
            log.error("the gateway ended (exit code %d); it is started again", code)
            self._note(Restarted(part="gateway", code=code))
            self._over.wait(1.0)  # a port that is taken stays taken for a while: no tight loop
            self._gateway.start()

    def _has_new_members(self) -> bool:
        """Return whether a hospital was admitted that the SuperLink does not know."""
        return not {member.public_key for member in self._members.members().values()} <= self._known

    def _mind_members(self) -> None:
        """Register the admitted hospitals with the SuperLink, and note which are connected.

        The gateway refuses revoked hospitals at each request. The SuperLink is not told: it would never take the same
        key again, and a hospital that was revoked by mistake could not come back.
        """
        assert self._link is not None
        self._nodes_looked = time.monotonic()
        try:
            nodes = {node.public_key: node for node in self._link.nodes().values()}
            members = {member.public_key: member.site for member in self._members.members().values()}
            for key in set(members) - set(nodes):
                self._link.admit(key)
                log.info("%s may connect", members[key])
            self._known = set(members)
        except httpx.TransportError as error:
            return log.error("the SuperLink does not answer: %s", error)
        self._note_connected(members, nodes)

    def _note_connected(self, members: Mapping[bytes, str], nodes: Mapping[bytes, Node]) -> None:
        online = {site: key in nodes and nodes[key].online for key, site in members.items()}
        for site, is_online in online.items():
            if is_online != self._online.get(site, False):
                self._note(Connected(site=site) if is_online else Disconnected(site=site))
        if online != self._online:
            self._online = online
            self._members.set_connected(online)

    def _mind_runs(self) -> None:
        """Conduct one run at a time, whichever was ready first; end those that were stopped while they waited."""
        for name in self._members.stopped(self._conductor[0] if self._conductor else ""):
            owe_end(self._config, name, "INCOMPLETE", wire.STOPPED)
            self._note(Ended(run=name, outcome="INCOMPLETE", why="stopped by the consortium"))
        if self._conductor is not None:
            name, part = self._conductor
            if (code := part.ended) is None:
                return
            part.stop()
            self._conductor = None
            self._close(name, code)
        elif (name_or_none := self._members.next_run()) is not None:
            self._conductor = name_or_none, self._part("server.conductor", name_or_none)
            self._note(Conducting(run=name_or_none))
            self._conductor[1].start()

    def _take_up_again(self) -> None:
        """Resume the run that lost its SuperLink from its newest checkpoint, a few times at most."""
        if self._conductor is None:
            return
        name, part = self._conductor
        part.stop()
        self._conductor = None
        run = self._members.run(name)
        if run is not None and run.state in ("WAITING", "RUNNING") and run.attempt < MAX_ATTEMPTS:
            self._members.submit(name)
            self._note(Resumed(run=name, why="the SuperLink had ended"))
        else:
            self._close(name, -1)

    def _close(self, name: str, code: int) -> None:
        """Record the outcome of a run after its process has ended."""
        run = self._members.run(name)
        resumed = code == 0 or name in self._members.unready()  # by somebody, before we looked
        if run is None or run.state in ENDED or resumed:
            outcome, why = (run.state, run.why) if run else ("", "")
            self._note(Ended(run=name, outcome=outcome, why=why))
            return
        why = f"its process ended with exit code {code}; the coordinator's log says why"
        owe_end(self._config, name, "INCOMPLETE")
        self._members.set_state(name, "INCOMPLETE", why)
        self._note(Ended(run=name, outcome="INCOMPLETE", why=why))

    def _part(self, module: str, *arguments: str) -> Part:
        folder = self._config.folder
        return Part(folder, module, str(folder), *arguments)

    @contextlib.contextmanager
    def _health_server(self) -> Iterator[None]:
        """Serve grpc.health.v1 for the consortium's own monitoring."""
        from concurrent.futures import ThreadPoolExecutor

        server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        self._set_health(good=False)
        try:
            server.add_insecure_port(self._config.health)
        except RuntimeError:
            raise RunError(
                f"health: expected a free address, {self._config.health} is taken or not of this machine; "
                "change it in coordinator.yaml"
            ) from None
        server.start()
        try:
            yield
        finally:
            server.stop(None)

    def _set_health(self, *, good: bool) -> None:
        status = health_pb2.HealthCheckResponse
        self._health.set("", status.SERVING if good else status.NOT_SERVING)


def start(config: CoordinatorConfig, *, nginx: bool = False, hold: bool = False) -> None:
    """Serve until a signal (SIGTERM, SIGINT) ends it.

    Args:
        hold: let runs that have not ended wait for a person.

    Raises:
        RunError: see `Coordinator.run`.
    """
    os.umask(0o077)
    coordinator = Coordinator(config, nginx=nginx, hold=hold)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: coordinator.stop())
    coordinator.run()
