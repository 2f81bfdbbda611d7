"""What a hospital's node takes from Flower's inside: each private name exists and does what is relied on.

An upgrade of Flower that breaks one fails here first; tests/strategies/exchange/test_flower.py holds what both sides
share.
"""

import inspect
import json
import ssl
from importlib import metadata

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fab_pb2 import Fab, GetFabResponse
from flwr.proto.fleet_pb2 import ActivateNodeResponse, PullMessagesResponse, PushMessagesResponse
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    PullObjectResponse,
    PushObjectResponse,
)
from flwr.proto.run_pb2 import GetRunResponse, Run
from flwr.supercore.error import FlowerError
from flwr.supernode.fleet_http_client import FleetHttpClient

from client.uplink import flower
from client.uplink.flower import FleetClient
from client.uplink.signer import Signer
from strategies.exchange.flower import Head, ObjectTree, ProtoMessage, PushObjectRequest

HEAD = Head(ProtoMessage(), ObjectTree(object_id="ab"))


class Answers(httpx.MockTransport):
    """Answers each of Flower's paths, and keeps what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.requests: list[httpx.Request] = []
        super().__init__(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(200, stream=httpx.ByteStream(self.answers[request.url.path]))


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def client(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> FleetClient:
    signer = Signer(ec.generate_private_key(ec.SECP384R1()))
    made = FleetClient("coordinator.example:443", signer, ssl.create_default_context(), None)
    made.close()
    monkeypatch.setattr(made, "_client", httpx.Client(transport=answers))
    return made


def test_flower_is_the_release_that_this_was_written_against() -> None:
    assert metadata.version("flwr") == "1.41.0", "read this test's failures, then client/uplink and the server's anew"


def test_flowers_client_has_the_fields_that_ours_sets_in_its_place() -> None:
    made = FleetHttpClient("https://127.0.0.1:1")
    assert set(vars(made)) == {"_base_url", "_interceptors", "_retry_invoker", "_client"}
    made.close()
    assert list(inspect.signature(FleetHttpClient._send).parameters) == ["self", "context", "stream"]


def test_each_request_of_the_fleet_goes_to_its_path_and_its_answer_is_read(
    client: FleetClient, answers: Answers
) -> None:
    answers.answers = {
        "/v1/fleet/activate-node": ActivateNodeResponse(node_id=7).SerializeToString(),
        "/v1/fleet/deactivate-node": b"",
        "/v1/fleet/send-node-heartbeat": b"",
        "/v1/fleet/pull-messages": PullMessagesResponse(
            messages_list=[HEAD.header], message_object_trees=[HEAD.tree]
        ).SerializeToString(),
        "/v1/fleet/pull-object": PullObjectResponse(
            object_found=True, object_available=True, object_content=b"part"
        ).SerializeToString(),
        "/v1/fleet/confirm-message-received": ConfirmMessageReceivedResponse().SerializeToString(),
        "/v1/fleet/get-run": GetRunResponse(run=Run(fab_hash="ab")).SerializeToString(),
        "/v1/fleet/get-fab": GetFabResponse(fab=Fab(content=b"bundle")).SerializeToString(),
        "/v1/fleet/push-messages": PushMessagesResponse(
            objects_to_push=["ab"], session_id="session"
        ).SerializeToString(),
        "/v1/fleet/push-object": PushObjectResponse(stored=True).SerializeToString(),
    }
    assert client.activate(b"key", 20.0) == 7
    client.deactivate(7)
    client.beat(7, 20.0)
    assert client.pull(7) == HEAD
    assert client.part(7, 8, "ab") == b"part"
    client.confirm(7, 8, "message")
    assert client.bundle(7, 8) == (b"bundle", False)
    assert client.announce(7, HEAD) == ("session", {"ab"})
    assert client.push(PushObjectRequest(object_id="ab"))
    assert {request.url.path for request in answers.requests} == set(answers.answers)
    confirmed = next(request for request in answers.requests if request.url.path.endswith("received"))
    assert ConfirmMessageReceivedRequest.FromString(confirmed.read()).message_object_id == "message"


def test_each_request_names_flowers_release_the_key_and_a_signed_time(client: FleetClient, answers: Answers) -> None:
    answers.answers = {"/v1/fleet/deactivate-node": b"", "/v1/archipel/own": b"answer"}
    client.deactivate(7)
    assert client.exchange("/v1/archipel/own", b"body", httpx.Timeout(1.0)) == b"answer"
    for request in answers.requests:
        for header in (
            flower.TIMESTAMP_HEADER,
            flower.FLEET_HTTP_PUBLIC_KEY_HEADER,
            flower.FLEET_HTTP_SIGNATURE_HEADER,
        ):
            assert request.headers[header]
        assert "1.41.0" in str(request.headers)


def test_an_answer_that_is_none_of_flowers_is_a_value_error(client: FleetClient, answers: Answers) -> None:
    answers.answers = {"/v1/fleet/activate-node": b"\xff" * 50}
    with pytest.raises(ValueError):  # noqa: PT011 - whatever its words are
        client.activate(b"key", 20.0)


def test_a_message_without_its_tree_is_a_value_error(client: FleetClient, answers: Answers) -> None:
    answers.answers = {"/v1/fleet/pull-messages": PullMessagesResponse(messages_list=[HEAD.header]).SerializeToString()}
    with pytest.raises(ValueError, match="list of parts"):
        client.pull(7)


@pytest.mark.parametrize("found", [False, True], ids=["not there", "never available"])
def test_parts_that_never_come_are_missing(
    client: FleetClient, answers: Answers, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flower, "PULL_TIMEOUT_S", 0.2)
    answers.answers = {"/v1/fleet/pull-object": PullObjectResponse(object_found=found).SerializeToString()}
    with pytest.raises(flower.MissingPartsError):
        flower.pull_all(["ab"], lambda name: client.part(7, 8, name))


def test_what_fetching_a_part_raises_ends_the_pull() -> None:
    def refuse(name: str) -> bytes:
        raise PermissionError(name)

    with pytest.raises(PermissionError):
        flower.pull_all(["ab"], refuse)


def test_flowers_errors_have_the_codes_that_are_explained() -> None:
    for code in (flower.ACTIVATION_FAILED, flower.RUN_ENDED):
        assert flower.error_code(json.dumps(FlowerError(code, "why").to_json("why"))) == code
    assert flower.error_code("<html>") is None
