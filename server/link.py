"""The coordinator's end of the SuperLink: who may connect, runs, and a Flower `Grid` that does not sleep.

Flower's own `HttpGrid` waits three seconds between two looks for replies; this one looks quickly while replies come and
more slowly while they do not. The only file, with server/superlink.py, that knows Flower's control and runtime APIs.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from flwr.app import Message
from flwr.common.serde import run_from_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PullTaskInputRequest, PushTaskOutputRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from configs.errors import RunError

BASE_URL = "http://superlink"
QUICK_S, SLOW_S, SLOWER = 0.02, 0.5, 1.3  # intervals between two looks for replies, and how they grow


@dataclass(frozen=True, slots=True)
class Node:
    """A registered node. `public_key` is in PEM, as Flower keeps it; `since` is when its process last connected."""

    node_id: int
    public_key: bytes
    online: bool
    since: str


def over_socket(client: Any, socket: Path, *, timeout_s: float = 30.0) -> Any:
    """Let one of Flower's HTTP clients speak over a Unix socket; it offers no parameter for that."""
    client._client.close()
    client._client = httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=timeout_s)
    return client


class Link:
    """The SuperLink behind a socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
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

    def expel(self, node_id: int) -> None:
        """Forget a node: its next request is refused."""
        self._control.UnregisterNode(UnregisterNodeRequest(node_id=node_id))

    @contextmanager
    def run(self, bundle: bytes, bundle_sha256: str, override: Mapping[str, str] | None = None) -> Iterator["LinkGrid"]:
        """A run of a bundle, and its grid; the run is stopped when the block ends with an error."""
        request = StartRunRequest(fab=Fab(hash_str=bundle_sha256, content=bundle))
        for name, value in (override or {}).items():
            request.override_config[name].string = value
        run_id = self._control.StartRun(request).run_id
        if not run_id:
            raise RunError("expected the SuperLink to start a run, it refused the bundle")
        grid = self._acquire(run_id)
        try:
            yield grid
            grid.finish("completed")
        except BaseException:
            grid.finish("failed")
            self._control.StopRun(StopRunRequest(run_id=run_id))
            raise
        finally:
            grid.close()

    def _acquire(self, run_id: int) -> "LinkGrid":
        """Claim the run's task, as Flower's SuperExec would; its token never leaves this process."""
        version = RuntimeVersionHttpInterceptor(component_name="coordinator")
        with over_socket(RuntimeHttpClient(BASE_URL, interceptors=[version]), self._socket) as client:
            claimed = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
        if claimed.task.run_id != run_id:
            raise RunError("expected the SuperLink's task to be the run just started, it is another's")
        return LinkGrid(self._socket, claimed.token)


class LinkGrid(HttpGrid):
    """A Flower Grid over the SuperLink's socket, with an interval that adapts."""

    def __init__(self, socket: Path, token: str) -> None:
        super().__init__("superlink", insecure=True, token=token)
        self._client = over_socket(
            RuntimeHttpClient(
                BASE_URL,
                interceptors=[
                    RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
                    RuntimeTokenHttpInterceptor(token=token),
                ],
                retry_invoker=self._retry_invoker,
            ),
            socket,
        )
        given = self._client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, given.run.run_id
        TaskIdentity.node_id = given.context.node_id
        self.set_run(run_from_proto(given.run))
        self._heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(self._client))
        self._heartbeat.start()

    def finish(self, sub_status: str) -> None:
        """Tell the SuperLink how the run ended."""
        self._heartbeat.stop()
        assert self._client is not None
        self._client.PushTaskOutput(PushTaskOutputRequest(sub_status=sub_status, details=""))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send, and gather replies until all are there or the time is over."""
        waiting = {message_id for message_id in self.push_messages(list(messages)) if message_id}
        deadline = time.monotonic() + (timeout if timeout is not None else float("inf"))
        gathered: list[Message] = []
        interval = QUICK_S
        while waiting and time.monotonic() < deadline:
            replies = list(self.pull_messages(waiting))
            waiting -= {reply.metadata.reply_to_message_id for reply in replies}
            gathered += replies
            interval = QUICK_S if replies else min(interval * SLOWER, SLOW_S)
            if waiting:
                time.sleep(interval)
        return gathered
