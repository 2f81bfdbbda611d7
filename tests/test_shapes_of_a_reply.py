"""A train reply on its whole way, in one process: how often it changes its shape, and how often its form is checked.

It leaves the trainer as arrays, travels as one envelope from the worker to the coordinator, inside Flower's records
between the machines, and is held against its form where trust ends: at the worker's exit, before the node seals it, and
where the coordinator takes the seal off.
"""

import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from client.node import Node
from client.worker import Worker, _answered
from configs import wire
from configs.errors import WireError
from configs.frame import Frame
from strategies.exchange import messages
from strategies.exchange.arrays import to_record
from strategies.exchange.flower import identify, taken_apart
from strategies.exchange.objects import Parts
from strategies.models.registry import study_parameters
from strategies.releases.registry import arrays_of
from tests import builders
from tests.client.ports import FakeUplink, StandIn
from tests.client.test_node import Lille
from tests.consortium import Consortium

CONVERSIONS = (
    messages.envelope,
    messages.content,
    messages.records_of,
    messages.to_frame,
    messages.from_frame,
    messages.opened,
    to_record,
)
FORM = "train reply"


class InProcess:
    """The real worker without a process: what passes the pipe is bytes."""

    alone, fence = True, ""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def ask(self, request: Frame, max_bytes: int) -> tuple[Frame, Frame]:
        assert max_bytes > 0
        status, reply = _answered(self.worker, request)
        return status, Frame.decode(b"".join(reply.encode()))


class Watch:
    """Notes each conversion that is not part of another, and each check of a reply's form."""

    def __init__(self) -> None:
        self.conversions: list[str] = []
        self.checks: list[str] = []
        self._codes: dict[CodeType, str] = {function.__code__: function.__name__ for function in CONVERSIONS}
        self._depth = 0

    def __enter__(self) -> "Watch":
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if event not in ("call", "return"):
            return
        if frame.f_code is wire.check.__code__ and event == "call" and frame.f_locals["form"] == FORM:
            self.checks.append(_outermost(frame))
        if frame.f_code not in self._codes or not _is_of_a_reply(frame.f_locals):
            return
        if event == "return":
            self._depth -= 1
            return
        if not self._depth:
            self.conversions.append(self._codes[frame.f_code])
        self._depth += 1


def _is_of_a_reply(given: dict[str, Any]) -> bool:
    """Whether a conversion is of a train reply; one that is told no form may be of it."""
    return bool(given.get("form", getattr(given.get("frame"), "form", FORM)) == FORM)


def _outermost(frame: FrameType | None) -> str:
    """The innermost caller outside strategies/exchange."""
    while frame is not None and ("/exchange/" in frame.f_code.co_filename or "/configs/" in frame.f_code.co_filename):
        frame = frame.f_back
    assert frame is not None
    return Path(frame.f_code.co_filename).name


@pytest.mark.parametrize("hidden", [[4], [400, 700]], ids=["inside its seal", "beside its seal"])
def test_a_train_reply_changes_shape_three_times_and_is_checked_three_times(tmp_path: Path, hidden: list[int]) -> None:
    data = tmp_path / "patients.csv"
    rows = np.random.default_rng(0).integers(20, 90, 100)
    data.write_text("\n".join(["age,sex,disease", *(f"{age},female,{int(age > 60)}" for age in rows)]))
    datasets = {"heart": {"connector": "csv", "path": str(data), "identity": "heart"}}
    consortium = Consortium(tmp_path)
    config = consortium.hospital("lille", datasets=datasets, policy={"require_approval": False, "max_epsilon": 4.0})
    study = builders.study(name="heart", cohort={"lille": 100}, model={"name": "mlp", "hidden": hidden})
    worker, uplink = StandIn(InProcess(Worker(config, seeded=True))), FakeUplink()
    node = Node(config, worker, lambda: uplink)
    node.books.records.start()
    lille = Lille(config, node, uplink, worker, consortium.pki.load_signing_key())
    lille.propose(study)
    node.answering.answer(uplink, uplink.arriving.get())  # type: ignore[arg-type]
    lille.answer(study, "hello reply")
    lille.train(study)
    asked = uplink.arriving.get()
    with Watch() as watch:
        node.answering.answer(uplink, asked)  # type: ignore[arg-type]
        records = arrived(uplink.answers.get_nowait())
        said, packed = messages.unseal(records, node.books.key.public)
        assert (packed is None) == (len(hidden) == 2)
        _, opened = messages.opened(FORM, records, packed, arrays_of(FORM, study))
        update = messages.read(FORM, opened, study_parameters(study)).arrays
    assert list(update) == list(study_parameters(study))
    assert said.study == study.sha256
    assert watch.conversions == ["envelope", "records_of", "opened"]
    assert watch.checks == ["egress.py", "answering.py", "test_shapes_of_a_reply.py"]


def arrived(records: Any) -> Any:
    """The content of a message that went through Flower's objects."""
    identify(node_id=1)
    with taken_apart([Message(records, dst_node_id=1, message_type="train")]) as ((head,), objects):
        parts = Parts(10**8)
        for object_id in list(objects):
            parts.add(object_id, objects.pop(object_id).deflate())
    return parts.message(head.tree.object_id).content


def test_what_was_unsealed_is_checked_again_where_something_was_put_in_its_place() -> None:
    specs = {"bias": ((2,), "float32")}
    frame = messages.envelope(FORM, {}, {"bias": np.zeros(2, np.float32)}, specs)
    packed = b"".join(frame.encode())
    _, records = messages.opened(FORM, RecordDict(), packed, specs)
    first = messages.read(FORM, records, specs)
    first.arrays.clear()  # a caller's own
    assert list(messages.read(FORM, records, specs).arrays) == ["bias"]
    with pytest.raises(WireError):
        messages.read("hello reply", records)
    with pytest.raises(WireError):
        messages.read(FORM, records, {"bias": ((3,), "float32")})
    records[wire.ARRAYS] = to_record({"bias": np.full(2, np.inf, np.float32)})
    with pytest.raises(WireError, match="finite"):
        messages.read(FORM, records, specs)
    _, records = messages.opened(FORM, RecordDict(), packed, specs)
    records.clear()
    with pytest.raises(WireError):
        messages.read(FORM, records, specs)
