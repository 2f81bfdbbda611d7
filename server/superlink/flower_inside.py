"""Flower's internals at the coordinator: the SuperLink's two APIs and its handlers.

What both sides need of messages lies in strategies/exchange/flower.py. Private names of Flower are imported here alone
in server/; tests/server/test_flower_inside.py pins the behaviour used of each.

>>> is_chunk(ArrayChunk(b"")), is_chunk(b"")
(True, False)
"""

import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message
from flwr.app.message.arraychunk import ArrayChunk
from flwr.cli.build import build_fab_from_files
from flwr.common.serde import run_from_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushAppMessagesRequest,
    PushTaskOutputRequest,
)
from flwr.supercore.constant import TASK_TOKEN_HEADER, TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient

from configs.errors import RunError, WireError
from strategies.exchange.flower import SUPERLINK_NODE_ID, Head, Node, PullObjectRequest, PushObjectRequest, identify

if TYPE_CHECKING:  # with SQLAlchemy, which a run's process does not need: see `__getattr__`
    from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore

__all__ = ["TASK_TOKEN_HEADER", "InMemoryObjectStore", "build_fab_from_files"]
BASE_URL = "http://superlink"
LARGEST_PART = 5_242_880  # of a message, as Flower cuts it
BROKEN = "query.broken"  # the type of a message that stands for a reply that cannot be read


def __getattr__(name: str) -> Any:
    """Return Flower's store of message parts, loaded where somebody asks for it: in the SuperLink's process."""
    if name != "InMemoryObjectStore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore

    return InMemoryObjectStore


# The SuperLink's APIs, for the other processes


def over_socket(client: Any, socket: Path, *, timeout_s: float = 30.0) -> Any:
    """Let one of Flower's HTTP clients speak over a Unix socket; it offers no parameter for that."""
    client._client.close()
    client._client = httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=timeout_s)
    return client


def _version() -> RuntimeVersionHttpInterceptor:
    return RuntimeVersionHttpInterceptor(component_name="coordinator")


def is_chunk(item: object) -> bool:
    """Return whether an object of a message is a part of an array, which does not travel with its message."""
    return isinstance(item, ArrayChunk)


class Control:
    """The SuperLink's control API."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @classmethod
    def at_socket(cls, socket: Path) -> "Control":
        """Return the API at a Unix socket."""
        return cls(over_socket(ControlHttpClient(BASE_URL, interceptors=[_version()]), socket))

    @classmethod
    def at(cls, address: str, root_certificates: bytes) -> "Control":
        """Return the API of a SuperLink that speaks TLS at HOST:PORT."""
        return cls(
            ControlHttpClient.from_server_address(
                address, insecure=False, root_certificates=root_certificates, interceptors=[_version()]
            )
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def nodes(self) -> Sequence[Any]:
        """Return every registered node: `node_id`, `public_key` (PEM), `status`, `last_activated_at`."""
        return list(self._client.ListNodes(ListNodesRequest()).nodes_info)

    def register(self, public_key: bytes) -> int:
        """Register a node's public key and return the node's id."""
        return int(self._client.RegisterNode(RegisterNodeRequest(public_key=public_key)).node_id)

    def start_run(self, bundle: bytes, bundle_sha256: str, override: Mapping[str, str]) -> int:
        """Start a run and return its id, 0 where the SuperLink refuses the bundle."""
        request = StartRunRequest(fab=Fab(hash_str=bundle_sha256, content=bundle))
        for name, value in override.items():
            request.override_config[name].string = value
        return int(self._client.StartRun(request).run_id)

    def status(self, run_id: int) -> Any:
        """Return how a run goes: its `status`, and its `sub_status` once it is finished."""
        return self._client.ListRuns(ListRunsRequest(run_id=run_id)).run_dict[run_id].status

    def stop_run(self, run_id: int) -> None:
        """Stop a run that is still under way."""
        with suppress(httpx.HTTPStatusError):
            self._client.StopRun(StopRunRequest(run_id=run_id))


def claim_task(socket: Path) -> tuple[int, str]:
    """Claim the oldest task, as Flower's SuperExec would; return its run and its token, which stays in this process."""
    with over_socket(RuntimeHttpClient(BASE_URL, interceptors=[_version()]), socket) as client:
        claimed = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
    return claimed.task.run_id, claimed.token


class Task:
    """The ServerApp's task of a run: the runtime API with its token, kept alive until it is finished."""

    def __init__(self, socket: Path, token: str) -> None:
        client = RuntimeHttpClient(
            BASE_URL,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
                RuntimeTokenHttpInterceptor(token=token),
            ],
            retry_invoker=make_simple_http_retry_invoker(),
        )
        self._client = over_socket(client, socket)
        task = self._client.PullTaskInput(PullTaskInputRequest())
        self._ids = {"task_id": task.task_id, "run_id": task.run.run_id, "node_id": task.context.node_id}
        self.run, self.node = run_from_proto(task.run), Node(node_id=SUPERLINK_NODE_ID)
        self.identify()
        self._heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(self._client))
        self._heartbeat.start()

    def identify(self) -> None:
        """Let messages made from now on be this run's."""
        identify(**self._ids)

    def finish(self, sub_status: str) -> None:
        """Tell the SuperLink how the run ended."""
        self._heartbeat.stop()
        self._client.PushTaskOutput(PushTaskOutputRequest(sub_status=sub_status, details=""))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def push(self, request: PushObjectRequest) -> None:
        """Send an object.

        Raises:
            RunError: the SuperLink does not keep it.
        """
        if not self._client.PushObject(request).stored:
            raise RunError("expected the SuperLink to keep a message, it did not")

    def pull(self, object_id: str) -> bytes | None:
        """Return an object's bytes, None while they have not come.

        Raises:
            KeyError: the object was not announced.
        """
        request = PullObjectRequest(node=self.node, run_id=self.run.run_id, object_id=object_id)
        response = self._client.PullObject(request)
        if not response.object_found:
            raise KeyError(object_id)
        return response.object_content if response.object_available else None

    def confirm(self, message_id: str) -> None:
        """Let the SuperLink forget a reply."""
        request = ConfirmMessageReceivedRequest(node=self.node, run_id=self.run.run_id, message_object_id=message_id)
        self._client.ConfirmMessageReceived(request)

    def error(self, message_id: str, code: int, reason: str) -> Message:
        """Return a message that stands for the reply to a message."""
        metadata = Metadata(
            run_id=self.run.run_id,
            message_id="",
            src_node_id=self.node.node_id,
            dst_node_id=self.node.node_id,
            message_type=BROKEN,
            group_id="",
            ttl=0,
            reply_to_message_id=message_id,
            created_at=time.time(),
        )
        return make_message(metadata=metadata, error=Error(code=code, reason=reason))


# The SuperLink's own half. It is imported where it is used: a process that only speaks to the SuperLink starts sooner.


def superlink_app(store: "Callable[[], InMemoryObjectStore]") -> Any:
    """Return the stock SuperLink's application, which keeps its state in memory and its messages in `store()`."""
    from flwr.supercore.object_store import object_store_factory
    from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
    from flwr.superlink.config_loader import SuperLinkLifespanConfig
    from flwr.superlink.main import create_app

    object_store_factory.InMemoryObjectStore = store  # type: ignore[attr-defined, assignment]
    config = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host="",
        port=0,
        insecure=True,  # a Unix socket: the gateway speaks TLS to the world
        certificates=None,
        superexec_auth_secret=None,
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type="grpc-rere",
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=":flwr-in-memory:",
        isolation="process",  # no SuperExec: the coordinator runs its ServerApp itself
        runtime_dependency_install=False,
    )
    return create_app(config, SuperLinkLifespan)


@dataclass(frozen=True, slots=True)
class Stored:
    """The SuperLink's answer to messages: their ids, the objects that it lacks, the session to send these in."""

    ids: Sequence[str]
    missing: Sequence[str]
    session: str


class Handlers:
    """Flower's own handlers on the state of a SuperLink in this process."""

    def __init__(self, app: Any) -> None:
        self._app = app

    @property
    def _state(self) -> Any:
        return self._app.state.linkstate_factory.state()

    # A hospital's node

    def authenticate(self, scope: Mapping[str, Any], node: int) -> None:
        """Check a node's signature, as Flower does.

        Raises:
            HTTPException: 401.
        """
        from flwr.superlink.routers.fleet.node_auth import Request, authenticate_node  # type: ignore[attr-defined]

        request = Request({**scope, "app": self._app, "state": {}})
        request.state.protobuf_request = PullMessagesRequest(node=Node(node_id=node))
        authenticate_node(request)

    def is_online(self, node: int) -> bool:
        """Return whether a node has neither signed off nor been silent for too long."""
        return any(info.status == "online" for info in self._state.get_node_info(node_ids=[node]))

    def expect(self, node: int, interval_s: float) -> None:
        """Count a node as connected; it is given up when it is silent for twice the interval."""
        self._state.acknowledge_node_heartbeat(node, interval_s)

    def next_message(self, node: int) -> Head | None:
        """Take the next message for a node."""
        from flwr.superlink.servicer.fleet import fleet_handlers

        state = self._state
        pulled = fleet_handlers.pull_messages(PullMessagesRequest(node=Node(node_id=node)), state, state.object_store)
        return Head(pulled.messages_list[0], pulled.message_object_trees[0]) if pulled.messages_list else None

    def is_running(self, run_id: int) -> bool:
        """Return whether a run has begun and not ended."""
        from flwr.common.constant import Status
        from flwr.server.superlink.utils import check_abort

        return not check_abort(run_id, [Status.PENDING, Status.STARTING, Status.FINISHED], self._state)

    def take_reply(self, node: int, head: Head, parts: Mapping[str, bytes]) -> None:
        """Store a node's reply with all of its objects.

        Raises:
            WireError: an object is missing, or is another than announced.
        """
        from flwr.superlink.servicer.fleet import fleet_handlers

        sender, state = Node(node_id=node), self._state
        request = PushMessagesRequest(
            node=sender, messages_list=[head.header], message_object_trees=[head.tree], clientapp_runtime_list=[0.0]
        )
        pushed = fleet_handlers.push_messages(request, state)
        for object_id in pushed.objects_to_push:
            if object_id not in parts:
                raise WireError("reply: expected all of its parts, found some missing")
            part = PushObjectRequest(
                node=sender,
                run_id=head.header.metadata.run_id,
                object_id=object_id,
                object_content=parts[object_id],
                session_id=pushed.session_id,
            )
            if not fleet_handlers.push_object(part, state).stored:
                raise WireError("reply: expected the parts that were announced, found others")

    # The process that conducts a run

    def task(self, scope: MutableMapping[str, Any]) -> Any:
        """Return the task that a request's token belongs to.

        Raises:
            FlowerError: it carries none.
        """
        from flwr.supercore.dependencies.task import authenticate_task
        from flwr.superlink.routers.fleet.node_auth import Request  # type: ignore[attr-defined]

        request = Request(scope)
        return authenticate_task(request, request.headers.get(TASK_TOKEN_HEADER), self._state)

    def store(self, task: Any, heads: Sequence[Head]) -> Stored:
        """Store messages for nodes, without their objects."""
        from flwr.superlink.servicer.runtime import runtime_handlers

        headers, trees = [head.header for head in heads], [head.tree for head in heads]
        request = PushAppMessagesRequest(messages_list=headers, message_object_trees=trees)
        pushed = runtime_handlers.push_messages(request, self._state, task)
        return Stored(list(pushed.message_ids), list(pushed.objects_to_push), pushed.session_id)

    def store_object(self, task: Any, session: str, object_id: str, content: bytes) -> bool:
        """Store an object of these messages; return whether it was kept."""
        return bool(self._state.store_object(task.run_id, session, object_id, content))

    def replies(self, task: Any, message_ids: Sequence[str]) -> list[Head]:
        """Take the replies to messages that have come."""
        from flwr.superlink.servicer.runtime import runtime_handlers

        pulled = runtime_handlers.pull_messages(PullAppMessagesRequest(message_ids=message_ids), self._state, task)
        return [Head(*both) for both in zip(pulled.messages_list, pulled.message_object_trees, strict=True)]

    # What is kept

    def content(self, run_id: int, object_id: str) -> bytes | None:
        """Return an object's bytes, empty while they have not come, None where it was not announced."""
        content: bytes | None = self._state.get_object(run_id, object_id)
        return content

    def forget(self, message_id: str) -> None:
        """Delete a message with the objects that no other message has."""
        self._state.object_store.delete(message_id)


def answer_to(error: Exception) -> tuple[int, str] | None:
    """Return the status and the JSON text that Flower answers to one of its own errors; None for another error."""
    import json

    from flwr.supercore.error import FlowerError
    from flwr.supercore.error.catalog import API_ERROR_MAP
    from flwr.superlink.routers.fleet.node_auth import HTTPException  # type: ignore[attr-defined]

    if isinstance(error, FlowerError) and error.code in API_ERROR_MAP:
        spec = API_ERROR_MAP[error.code]
        return spec.http_status_code, json.dumps(error.to_json(spec.public_message))
    if isinstance(error, HTTPException):
        return error.status_code, json.dumps({"detail": str(error.detail)})
    return None
