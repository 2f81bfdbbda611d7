"""The hospitals that are connected, and how long the others have been away.

>>> from types import SimpleNamespace
>>> clock = iter([0.0, 90.0])
>>> attendance = Attendance(clock=lambda: next(clock))
>>> gone = SimpleNamespace(node_id=7, online=False, since="2026-01-01T00:00:00+00:00")
>>> attendance.note({"lille": gone})["lille"].offline_s, attendance.note({"lille": gone})["lille"].offline_s
(0.0, 90.0)
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

NEVER_CONNECTED = "not connected"


@dataclass(frozen=True, slots=True)
class Connection:
    """A hospital's node: `since` is when its process last connected, `lost` when its connection was lost (UTC).

    `offline_s` is for how long there has been none, as this process saw it: 0 while there is one.
    """

    node_id: int
    online: bool = True
    since: str = ""
    offline_s: float = 0.0
    lost: str = ""

    @property
    def absence(self) -> str:
        """Say that it is not connected; empty while it is."""
        return "" if self.online else f"not connected since {self.lost}" if self.lost else NEVER_CONNECTED


class Registered(Protocol):
    """The part of server/superlink/client.py's nodes that is used here."""

    @property
    def node_id(self) -> int:
        """Return Flower's number of the node."""

    @property
    def online(self) -> bool:
        """Return whether it is connected."""

    @property
    def since(self) -> str:
        """Return when its process last connected, empty for never."""


class Attendance:
    """Remembers, on this machine's clock, since when each hospital has had no connection."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._clock, self._now = clock, now
        self._lost: dict[str, tuple[float, str]] = {}  # hospital -> when it was first seen without a connection

    def note(self, nodes: Mapping[str, Registered]) -> dict[str, Connection]:
        """Record which hospitals are connected now.

        Args:
            nodes: hospital -> its node.
        """
        moment = self._clock()
        for site, node in nodes.items():
            if node.online:
                self._lost.pop(site, None)
            elif site not in self._lost:
                self._lost[site] = moment, self._now().strftime("%Y-%m-%d %H:%M UTC") if node.since else ""
        return {site: self._connection(node, moment, self._lost.get(site)) for site, node in nodes.items()}

    @staticmethod
    def _connection(node: Registered, moment: float, lost: tuple[float, str] | None) -> Connection:
        if lost is None:
            return Connection(node.node_id, online=True, since=node.since)
        return Connection(node.node_id, online=False, since=node.since, offline_s=moment - lost[0], lost=lost[1])
