"""What the coordinator takes from Flower's inside: each private name exists and does what is relied on.

An upgrade of Flower that breaks one fails here first; tests/strategies/exchange/test_flower.py has what both use.
"""

import asyncio
import contextlib
import inspect
import threading
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.object_store import object_store_factory
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.config_loader import SuperLinkLifespanConfig

from configs.errors import WireError
from configs.load import load_study
from server.bundle import build_bundle
from server.pki import public_pem
from server.sockets import private_socket
from server.superlink import flower_inside as inside
from server.superlink.store import SpooledStore
from strategies.exchange.flower import PushObjectRequest, taken_apart

PRESET = Path(__file__).resolve().parents[2] / "configs" / "presets" / "heart_disease.yaml"
READ_ANEW = "read server/superlink/flower_inside.py anew before raising Flower"


class Served:
    """A SuperLink in this process, on a socket."""

    def __init__(self, folder: Path) -> None:
        self.socket, self.store = folder / "superlink.sock", SpooledStore(folder / "parts")
        self.app = inside.superlink_app(lambda: self.store)
        self.handlers = inside.Handlers(self.app)
        self._server = uvicorn.Server(uvicorn.Config(self.app, log_level="warning", ws="none"))
        self._listener = private_socket(self.socket)
        serving = self._server.serve(sockets=[self._listener])
        self._thread = threading.Thread(target=lambda: asyncio.run(serving), daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self._listener.close()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(object_store_factory, "InMemoryObjectStore", object_store_factory.InMemoryObjectStore)  # type: ignore[attr-defined]
    superlink = Served(tmp_path)
    yield superlink
    superlink.stop()


@pytest.fixture
def control(served: Served) -> Iterator[inside.Control]:
    api = inside.Control.at_socket(served.socket)
    yield api
    api.close()


@pytest.fixture
def task(served: Served, control: inside.Control) -> Iterator[inside.Task]:
    run_id = control.start_run(*build_bundle(load_study(PRESET)), {})
    claimed, token = inside.claim_task(served.socket)
    assert claimed == run_id
    made = inside.Task(served.socket, token)
    made.token = token  # type: ignore[attr-defined]
    yield made
    with contextlib.suppress(RuntimeError):  # it is finished
        made.finish("completed")
    made.close()


def message(size: int = 10, node: int = 5) -> Message:
    return Message(RecordDict({"config": ConfigRecord({"blob": bytes(size)})}), dst_node_id=node, message_type="train")


def test_flower_is_the_release_that_this_was_written_against() -> None:
    assert metadata.version("flwr") == "1.41.0", READ_ANEW


def test_the_superlinks_settings_are_those_that_are_given() -> None:
    source = inspect.getsource(inside.superlink_app)
    settings = set(inspect.signature(SuperLinkLifespanConfig).parameters)
    assert {name for name in settings if f"{name}=" not in source} == set(), READ_ANEW


def test_the_superlink_keeps_messages_in_the_store_that_is_given(served: Served) -> None:
    assert served.app.state.linkstate_factory.state().object_store is served.store, READ_ANEW


def test_a_registered_node_is_listed_and_a_bundle_that_is_none_is_refused(control: inside.Control) -> None:
    key = public_pem(ec.generate_private_key(ec.SECP384R1()).public_key())
    node_id = control.register(key)
    (node,) = control.nodes()
    assert (node.node_id, bytes(node.public_key), node.status) == (node_id, key, "registered")
    with pytest.raises(Exception, match=r"(?i)fab|bundle|500|400"):
        assert control.start_run(b"none", "0" * 64, {})


def test_a_run_has_one_task_which_says_whose_messages_are_made_and_how_it_ended(
    served: Served, control: inside.Control, task: inside.Task
) -> None:
    assert (TaskIdentity.run_id, TaskIdentity.node_id) == (task.run.run_id, task.node.node_id)
    assert served.handlers.is_running(task.run.run_id)
    assert control.status(task.run.run_id).status == "running"
    task.finish("completed")
    assert (control.status(task.run.run_id).status, control.status(task.run.run_id).sub_status) == (
        "finished",
        "completed",
    )
    assert not served.handlers.is_running(task.run.run_id)
    control.stop_run(task.run.run_id)  # it has ended: no error


def test_an_error_stands_for_a_reply(task: inside.Task) -> None:
    error = task.error("asked", 151, "why")
    assert (error.error.code, error.error.reason, error.metadata.reply_to_message_id) == (151, "why", "asked")


def scope_of(task: inside.Task) -> dict[str, Any]:
    headers = [(inside.TASK_TOKEN_HEADER.lower().encode(), task.token.encode())]  # type: ignore[attr-defined]
    return {"type": "http", "headers": headers}


def test_a_message_goes_to_its_node_and_the_reply_comes_back_with_its_objects(
    served: Served, control: inside.Control, task: inside.Task
) -> None:
    handlers = served.handlers
    node = control.register(public_pem(ec.generate_private_key(ec.SECP384R1()).public_key()))
    assert not handlers.is_online(node)
    handlers.expect(node, 30.0)
    assert handlers.is_online(node)
    owner = handlers.task(scope_of(task))
    assert owner.run_id == task.run.run_id
    task.identify()
    sent = message(node=node)
    with taken_apart([sent]) as (heads, objects):
        contents = {name: item.deflate() for name, item in objects.items()}
    stored = handlers.store(owner, heads)
    assert (list(stored.ids), set(stored.missing)) == ([sent.metadata.message_id], set(contents))
    first, *others = contents
    task.push(
        PushObjectRequest(
            node=task.node,
            run_id=task.run.run_id,
            object_id=first,
            object_content=contents[first],
            session_id=stored.session,
        )
    )
    assert all(handlers.store_object(owner, stored.session, name, contents[name]) for name in others)
    assert handlers.content(task.run.run_id, first) == contents[first]
    given = handlers.next_message(node)
    assert given is not None
    assert given.header.metadata.message_id == sent.metadata.message_id
    assert handlers.next_message(node) is None
    handlers.forget(sent.metadata.message_id)
    assert handlers.content(task.run.run_id, sent.metadata.message_id) is None

    TaskIdentity.node_id = node
    reply = Message(RecordDict({"config": ConfigRecord({"loss": 0.5})}), reply_to=sent)
    with taken_apart([reply]) as ((head,), objects):
        parts = {name: item.deflate() for name, item in objects.items()}
    with pytest.raises(WireError, match="some missing"):
        handlers.take_reply(node, head, {})
    with pytest.raises(WireError, match="found others"):
        handlers.take_reply(node, head, dict.fromkeys(parts, b"nonsense"))
    assert task.pull(head.tree.object_id) is None  # announced, not here
    handlers.take_reply(node, head, parts)
    assert task.pull(head.tree.object_id) == parts[head.tree.object_id]
    with pytest.raises(KeyError):
        task.pull("0" * 64)
    (there,) = handlers.replies(owner, [sent.metadata.message_id])
    assert there.header.metadata.reply_to_message_id == sent.metadata.message_id
    task.confirm(there.header.metadata.message_id)
    assert handlers.content(task.run.run_id, head.tree.object_id) is None


def test_a_request_that_is_not_signed_or_has_no_token_gets_flowers_own_answer(served: Served) -> None:
    scope = {"type": "http", "headers": []}
    with pytest.raises(Exception) as node:  # noqa: PT011 - Flower's own
        served.handlers.authenticate(scope, 5)
    with pytest.raises(Exception) as task:  # noqa: PT011
        served.handlers.task(scope)
    answers = [inside.answer_to(error.value) for error in (node, task)]
    assert [answer[0] for answer in answers if answer] == [401, 401]
    assert inside.answer_to(ValueError("other")) is None
