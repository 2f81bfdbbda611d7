"""The interface of the uplink as the node sees it: requests, arrivals and failures.

It carries messages and nothing else: what a message means, and whether it may be answered, is decided elsewhere.
client/uplink/fleet.py is the one over a network; tests give the node another.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flwr.app import Message, RecordDict

from client.uplink.line import Line
from configs.errors import ArchipelError
from configs.frame import MappedFile


class UnreachableError(ArchipelError):
    """The coordinator cannot be reached now; trying again later may help."""


class RefusedError(ArchipelError):
    """The coordinator does not accept this hospital; a person must do something."""


class NoPathError(RefusedError):
    """The door does not know a path that the coordinator serves."""


class EndedError(ArchipelError):
    """The run that a message belongs to has ended; there is nothing to answer."""


class OccupiedError(ArchipelError):
    """Another process is connected under this hospital's identity, or one that stopped has not been given up yet."""


@dataclass(frozen=True)
class Incoming:
    """A message without its content's meaning. `message` is Flower's, which a reply must quote."""

    run_id: int
    type: str
    records: RecordDict
    message: Message


class Uplink(Protocol):
    """One connection, from `connect` to `close`."""

    @property
    def protocol(self) -> int:
        """Return the newest protocol that the coordinator has said it talks on this connection; 1 where none."""

    @property
    def release(self) -> str:
        """Return the coordinator's release of Archipel, empty where it named none."""

    @property
    def line(self) -> Line:
        """Return how long the way to the coordinator lets a request wait."""

    def connect(self, previous: int | None = None) -> int:
        """Sign on and return the node's id.

        Args:
            previous: the id of a process of this very machine that is known to be dead.

        Raises:
            UnreachableError, RefusedError, OccupiedError.
        """

    def interrupt(self) -> None:
        """End a request that is held; callable from another thread or a signal handler."""

    def receive(self) -> Incoming | None:
        """Return the next message, if there is one.

        Raises:
            UnreachableError, RefusedError, EndedError.
            WireError: the message is larger than this hospital allows, is no message, or never arrived whole.
        """

    def bundle(self, run_id: int) -> tuple[bytes, bool]:
        """Return the run's bundle, and whether its settings are overridden beside it."""

    def fetch(self, run: str, message: str, size: int, folder: Path) -> MappedFile:
        """Return a large message of which only the seal has come, in a file without a name in this folder.

        Raises:
            UnreachableError, RefusedError, EndedError.
            WireError: it is larger than this hospital allows, or not as long as it says.
        """

    def store(self, run: str, message: str, path: Path) -> int:
        """Send a large reply's content before its seal, and return its size.

        Raises:
            UnreachableError, RefusedError, EndedError, WireError.
        """

    def reply(self, incoming: Incoming, records: RecordDict) -> None:
        """Send the answer to a message.

        Raises:
            EndedError. UnreachableError, RefusedError: it may not have arrived whole; the coordinator will ask again.
        """

    def close(self) -> bool:
        """Sign off, close the connection, and return whether the coordinator answered."""
