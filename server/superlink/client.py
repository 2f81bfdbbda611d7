"""The coordinator's end of the SuperLink: which nodes may connect, which are connected, and runs."""

import fcntl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, StartRunRequest, StopRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient

from configs.errors import RunError
from server.superlink.grid import BASE_URL, SuperLinkGrid, over_socket


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
        self._socket, self._spool = socket, spool
        self._control = over_socket(
            ControlHttpClient(BASE_URL, interceptors=[RuntimeVersionHttpInterceptor(component_name="coordinator")]),
            socket,
        )

    def close(self) -> None:
        """Let go of the connection."""
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
                        "expected Flower's SuperLink to start, it did not; its lines above say why"
                    ) from None
                time.sleep(0.1)

    def nodes(self) -> dict[int, Node]:
        """Every registered node by id."""
        listed = self._control.ListNodes(ListNodesRequest()).nodes_info
        return {
            n.node_id: Node(n.node_id, bytes(n.public_key), n.status == "online", n.last_activated_at) for n in listed
        }

    def admit(self, public_key: bytes) -> int:
        """Register a node's public key and return its id."""
        return int(self._control.RegisterNode(RegisterNodeRequest(public_key=public_key)).node_id)

    @contextmanager
    def run(
        self, bundle: bytes, bundle_sha256: str, override: Mapping[str, str] | None = None
    ) -> Iterator[SuperLinkGrid]:
        """A run of a bundle, and its grid; the run is stopped when the block ends with an error."""
        request = StartRunRequest(fab=Fab(hash_str=bundle_sha256, content=bundle))
        for name, value in (override or {}).items():
            request.override_config[name].string = value
        with self._socket.with_suffix(".starting").open("a") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)  # whoever asks for a task is given the oldest, be it another process's
            run_id = self._control.StartRun(request).run_id
            if not run_id:
                raise RunError("expected the SuperLink to start a run, it refused the bundle")
            grid = self._acquire(run_id)
        try:
            yield grid
            grid.finish("completed")
        except BaseException:
            grid.finish("failed")
            with suppress(httpx.HTTPStatusError):  # it has ended by that
                self._control.StopRun(StopRunRequest(run_id=run_id))
            raise
        finally:
            grid.close()

    def _acquire(self, run_id: int) -> SuperLinkGrid:
        """Claim the run's task, as Flower's SuperExec would; its token never leaves this process."""
        version = RuntimeVersionHttpInterceptor(component_name="coordinator")
        with over_socket(RuntimeHttpClient(BASE_URL, interceptors=[version]), self._socket) as client:
            claimed = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
        if claimed.task.run_id != run_id:
            raise RunError("expected the SuperLink's task to be the run just started, it is another's")
        return SuperLinkGrid(self._socket, claimed.token, self._spool)
