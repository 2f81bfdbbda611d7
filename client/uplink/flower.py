"""Flower's internals at the hospital: its fleet API and its client, with bounds.

Its methods take plain values, not protobuf requests. No other file of client/ imports a private name of Flower but
through strategies/exchange/flower.py, which both sides share; tests/client/uplink/test_flowers_fleet.py pins the
behaviour used of each.
"""

import re
import ssl
import time
from collections.abc import Callable, Sequence

import httpx
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.error import FlowerError
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, pull_objects
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufClientInterceptor, ProtobufRequestContext
from flwr.supernode.fleet_http_client import FleetHttpClient

from client.uplink.bulk import Bulk
from client.uplink.proxy import Proxy
from configs.pieces import MEDIA_TYPE
from configs.wire import PROTOCOL_HEADER, RELEASE_HEADER
from strategies.exchange.flower import Head, Node, PushObjectRequest

__all__ = [
    "FLEET_HTTP_PUBLIC_KEY_HEADER",
    "FLEET_HTTP_SIGNATURE_HEADER",
    "TIMESTAMP_HEADER",
    "ProtobufCall",
    "ProtobufRequestContext",
    "public_key_to_bytes",
    "sign_message",
]
MAX_RESPONSE_BYTES = 16_000_000  # one object travels in pieces of 5 MB
REQUEST_TIMEOUT_S, RESPONSE_TIMEOUT_S = 30.0, 120.0
KEPT_S = 50.0  # an idle connection; the gateway keeps it for 75
PULL_TIMEOUT_S = 600.0  # of a whole message
ACTIVATION_FAILED = 2004  # Flower's code: another process holds this identity, or has not been given up yet
RUN_ENDED = 2007  # Flower's code
_PROTOCOL, _RELEASE = re.compile(r"[1-9][0-9]{0,2}"), re.compile(r"[0-9A-Za-z.+-]{1,40}")


class MissingPartsError(Exception):
    """A message did not arrive whole."""


def error_code(text: str) -> int | None:
    """Return the code of Flower's error in an answer's text, None where there is none."""
    error = FlowerError.from_json(text)
    return None if error is None else int(error.code)


def pull_all(ids: list[str], pull: Callable[[str], bytes]) -> None:
    """Let `pull` fetch each part, several at a time, again where one is not there yet.

    Raises:
        MissingPartsError: some never came. Exception: what `pull` raises.
    """
    try:
        pull_objects(
            ids, pull, max_time=PULL_TIMEOUT_S, max_tries_per_object=None, initial_backoff=0.02, backoff_cap=1.0
        )
    except ObjectPullError:
        raise MissingPartsError from None


class FleetClient(FleetHttpClient):
    """Flower's client, reading no more of an answer than an answer can have, and on the way that `proxy_to` found.

    Flower's own connection reads the environment by itself, ends with what it finds there in its error, and lets a
    connection go after 5 s: each look for a message would be a TLS handshake. So it is not made at all. httpx offers no
    parameter for how its connections read. Each method raises httpx's errors, and ValueError where an answer is none.
    """

    def __init__(
        self, address: str, signer: ProtobufClientInterceptor, trust: ssl.SSLContext, proxy: Proxy | None
    ) -> None:
        """Connect to nothing yet."""
        self.protocol, self.release = 1, ""
        self._base_url = f"https://{address}"
        self._interceptors = (RuntimeVersionHttpInterceptor(component_name="SuperNode"), signer)
        self._retry_invoker = None
        tunnel = None
        if proxy is not None:
            host = f"[{proxy.host}]" if ":" in proxy.host else proxy.host
            tunnel = httpx.Proxy(f"{proxy.scheme}://{host}:{proxy.port}", auth=proxy.account)
        self._client = httpx.Client(
            verify=trust,
            proxy=tunnel,
            trust_env=False,
            timeout=REQUEST_TIMEOUT_S,
            follow_redirects=False,  # only the enrolled coordinator may answer
            limits=httpx.Limits(keepalive_expiry=KEPT_S),
        )
        for transport in (self._client._transport, *filter(None, self._client._mounts.values())):
            pool = transport._pool  # type: ignore[attr-defined]
            pool._network_backend = Bulk(pool._network_backend)

    # Flower's fleet API

    def activate(self, public_key: bytes, heartbeat_s: float) -> int:
        """Sign the node of this key on, and return its id."""
        request = ActivateNodeRequest(public_key=public_key, heartbeat_interval=heartbeat_s)
        return int(self.ActivateNode(request).node_id)

    def deactivate(self, node_id: int) -> None:
        """Sign a node off."""
        self.DeactivateNode(DeactivateNodeRequest(node_id=node_id))

    def beat(self, node_id: int, heartbeat_s: float) -> None:
        """Say that the node lives."""
        self.SendNodeHeartbeat(SendNodeHeartbeatRequest(node=Node(node_id=node_id), heartbeat_interval=heartbeat_s))

    def pull(self, node_id: int) -> Head | None:
        """Return the next message's head, if there is one.

        Raises:
            ValueError: a message has come without its tree of parts.
        """
        pulled = self.PullMessages(PullMessagesRequest(node=Node(node_id=node_id)))
        if not pulled.messages_list:
            return None
        if len(pulled.message_object_trees) != len(pulled.messages_list):
            raise ValueError("expected a message with its list of parts, found one without")
        return Head(pulled.messages_list[0], pulled.message_object_trees[0])

    def part(self, node_id: int, run_id: int, object_id: str) -> bytes:
        """Return one part of a message; `pull_all` knows what else this raises."""
        return make_pull_object_fn_protobuf(self.PullObject, Node(node_id=node_id), run_id)(object_id)

    def confirm(self, node_id: int, run_id: int, message_id: str) -> None:
        """Say that a message has come."""
        node = Node(node_id=node_id)
        make_confirm_message_received_fn_protobuf(self.ConfirmMessageReceived, node, run_id)(message_id)

    def bundle(self, node_id: int, run_id: int) -> tuple[bytes, bool]:
        """Return a run's bundle, and whether its settings are overridden beside it."""
        node = Node(node_id=node_id)
        run = self.GetRun(GetRunRequest(node=node, run_id=run_id)).run
        bundle = self.GetFab(GetFabRequest(node=node, hash_str=run.fab_hash, run_id=run_id)).fab.content
        return bytes(bundle), bool(run.override_config)

    def announce(self, node_id: int, head: Head) -> tuple[str, set[str]]:
        """Send a reply's head; return the session, and the ids of the parts that are wanted."""
        request = PushMessagesRequest(
            node=Node(node_id=node_id),
            messages_list=[head.header],
            message_object_trees=[head.tree],
            clientapp_runtime_list=[0.0],
        )
        pushed = self.PushMessages(request)
        return str(pushed.session_id), set(pushed.objects_to_push)

    def push(self, request: PushObjectRequest) -> bool:
        """Send one part of a reply, and return whether it is stored."""
        return bool(self.PushObject(request).stored)

    # Archipel's own paths

    def exchange(
        self,
        path: str,
        body: bytes | Sequence[bytes],
        timeout: httpx.Timeout,
        into: Callable[[bytes], object] | None = None,
    ) -> bytes:
        """Ask one of the paths that are Archipel's own, and return the answer's body, unless `into` takes its pieces.

        Raises:
            httpx.HTTPStatusError: it is not 200. httpx.TransportError: there is none.
        """
        pieces = [body] if isinstance(body, bytes) else body
        headers = {"content-type": MEDIA_TYPE, "accept": MEDIA_TYPE, "content-length": str(sum(map(len, pieces)))}
        url = self._base_url + path
        request = self._client.build_request("POST", url, content=pieces, headers=headers, timeout=timeout)
        response = self._send(ProtobufRequestContext(path, PullMessagesRequest(), request), into=into)
        response.raise_for_status()
        return response.content

    def _send(
        self,
        context: ProtobufRequestContext,
        *,
        stream: bool = False,
        into: Callable[[bytes], object] | None = None,
    ) -> httpx.Response:
        assert not stream  # no request of the fleet's is
        call: ProtobufCall = lambda current: self._bounded(current.request, into)  # noqa: E731
        for interceptor in reversed(self._interceptors):
            call = _around(interceptor.intercept, call)
        return call(context)

    def _bounded(self, request: httpx.Request, into: Callable[[bytes], object] | None) -> httpx.Response:
        """Send one request, and read no more of its answer than an answer can have, for no longer than it may take."""
        deadline = time.monotonic() + RESPONSE_TIMEOUT_S
        response = self._client.send(request, stream=True)
        try:
            body, total = bytearray(), 0
            take = body.extend if into is None or response.status_code != httpx.codes.OK else into
            for chunk in response.iter_raw():
                take(chunk)
                total += len(chunk)
                if total > MAX_RESPONSE_BYTES or time.monotonic() > deadline:
                    raise httpx.RemoteProtocolError("the answer does not end")
        finally:
            response.close()
        self._note_release(response)
        headers = [(k, v) for k, v in response.headers.multi_items() if k not in ("content-encoding", "content-length")]
        return httpx.Response(response.status_code, headers=headers, content=bytes(body), request=response.request)

    def _note_release(self, response: httpx.Response) -> None:
        """Note which protocol and release the coordinator says it has; any other answer says nothing of it."""
        if response.status_code == httpx.codes.OK:
            protocol, release = response.headers.get(PROTOCOL_HEADER, "1"), response.headers.get(RELEASE_HEADER, "")
            self.protocol = int(protocol) if _PROTOCOL.fullmatch(protocol) else 1
            self.release = release if _RELEASE.fullmatch(release) else ""


def _around(
    intercept: Callable[[ProtobufRequestContext, ProtobufCall], httpx.Response], call_next: ProtobufCall
) -> ProtobufCall:
    return lambda context: intercept(context, call_next)
