"""The coordinator's client of the SuperLink: nodes allowed, nodes connected, and runs."""

import fcntl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from configs.errors import RunError
from server.superlink.flower_inside import Control, claim_task
from server.superlink.grid import SuperLinkGrid


@dataclass(frozen=True, slots=True)
class Node:
    """A registered node. `public_key` is in PEM, as Flower keeps it; `since` is when its process last connected."""

    node_id: int
    public_key: bytes
    online: bool
    since: str


class SuperLinkClient:
    """The SuperLink behind a socket.

    Args:
        spool: a folder for large replies on their way; without one they are held in memory.
    """

    def __init__(self, socket: Path, spool: Path | None = None) -> None:
        self._socket, self._spool, self._control = socket, spool, Control.at_socket(socket)

    def close(self) -> None:
        """Close the connection."""
        self._control.close()

    def await_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until the SuperLink answers.

        Raises:
            RunError: it does not in time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self.nodes()
                return
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise RunError(
                        "expected Flower's SuperLink to start, it did not; the coordinator's log says why"
                    ) from None
                time.sleep(0.1)

    def nodes(self) -> dict[int, Node]:
        """Return every registered node by id."""
        return {
            node.node_id: Node(node.node_id, bytes(node.public_key), node.status == "online", node.last_activated_at)
            for node in self._control.nodes()
        }

    def admit(self, public_key: bytes) -> int:
        """Register a node's public key and return its id."""
        return self._control.register(public_key)

    @contextmanager
    def run(
        self, bundle: bytes, bundle_sha256: str, override: Mapping[str, str] | None = None
    ) -> Iterator[SuperLinkGrid]:
        """Yield the grid of a new run of a bundle; the run is stopped when the block ends with an error.

        Raises:
            RunError: the SuperLink refuses the bundle.
        """
        with self._socket.with_suffix(".starting").open("a") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)  # the oldest task is given to any process that asks
            run_id = self._control.start_run(bundle, bundle_sha256, override or {})
            if not run_id:
                raise RunError("expected the SuperLink to start a run, it refused the bundle")
            claimed, token = claim_task(self._socket)
            if claimed != run_id:
                raise RunError("expected the SuperLink's task to be the run just started, it is another's")
            grid = SuperLinkGrid(self._socket, token, self._spool)
        try:
            yield grid
            grid.finish("completed")
        except BaseException:
            grid.finish("failed")
            self._control.stop_run(run_id)
            raise
        finally:
            grid.close()
