"""What a node stands between, as a test wants it: an uplink without a network, and a worker whose answers change."""

import queue
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import RecordDict

from client.releases import RELEASE
from client.uplink.base import Incoming
from client.uplink.line import Line
from client.worker_process import WorkerPort
from configs import wire
from configs.frame import Frame, MappedFile


@dataclass
class FakeUplink:
    """What is put in arrives, what is answered comes out."""

    arriving: "queue.Queue[Incoming | Exception]" = field(default_factory=queue.Queue)
    answers: "queue.Queue[RecordDict]" = field(default_factory=queue.Queue)
    bundles: dict[int, tuple[bytes, bool]] = field(default_factory=dict)
    heard: bool = True
    protocol: int = wire.PROTOCOL_MAX
    release: str = RELEASE
    line: Line = field(default_factory=Line)
    receiving: Callable[[], object] = lambda: None  # called at each look
    stored: list[bytes] = field(default_factory=list)  # replies' contents that were sent apart

    def connect(self, previous: int | None = None) -> int:
        return 7 if previous is None else previous + 1

    def interrupt(self) -> None:
        pass

    def receive(self) -> Incoming | None:
        self.receiving()
        try:
            arrived = self.arriving.get(timeout=0.05)
        except queue.Empty:
            return None
        if isinstance(arrived, Exception):
            raise arrived
        return arrived

    def bundle(self, run_id: int) -> tuple[bytes, bool]:
        return self.bundles[run_id]

    def fetch(self, run: str, message: str, size: int, folder: Path) -> MappedFile:
        raise NotImplementedError

    def store(self, run: str, message: str, path: Path) -> int:
        self.stored.append(path.read_bytes())
        return len(self.stored[-1])

    def reply(self, incoming: Incoming, records: RecordDict) -> None:
        self.answers.put(records)

    def close(self) -> bool:
        return self.heard


@dataclass
class StandIn:
    """A worker, unless a test says what it answers `instead`."""

    worker: WorkerPort
    instead: Callable[[Frame, int], tuple[Frame, Frame]] | None = None

    @property
    def alone(self) -> bool:
        return self.worker.alone

    @property
    def fence(self) -> str:
        return self.worker.fence

    def start(self) -> None:
        self.worker.start()

    def ask(self, request: Frame, max_bytes: int) -> tuple[Frame, Frame]:
        return (self.instead or self.worker.ask)(request, max_bytes)

    def stop(self) -> None:
        self.worker.stop()
