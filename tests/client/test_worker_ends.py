"""A worker that ends in the middle of a private release: what leaves is the same as if it had not."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from client.worker_process import WorkerProcess
from strategies.models.registry import study_parameters
from tests import builders
from tests.client.dying_worker import TOLD
from tests.client.test_node import Lille, serving
from tests.consortium import Consortium

WORKER = Path(__file__).with_name("dying_worker.py")
STUDY = builders.study(name="asked", cohort={"lille": 100})
Running = Callable[[str], Lille]


@contextmanager
def node_with(folder: Path, when: str) -> Iterator[Lille]:
    """A running node whose worker dies `when`."""
    data = folder / "patients.csv"
    data.write_text("age,sex,disease\n" + "".join(f"{20 + n},male,{n % 2}\n" for n in range(60)))
    consortium = Consortium(folder)
    config = consortium.hospital(
        "lille",
        datasets={"asked": {"connector": "csv", "path": str(data)}},
        policy={"require_approval": False, "max_epsilon": 4.0},
    )
    worker = WorkerProcess(config, [sys.executable, "-P", "-E", str(WORKER), str(config.folder), when])
    with serving(consortium, config, worker) as lille:
        yield lille


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with ExitStack() as stack:
        yield lambda when: stack.enter_context(node_with(tmp_path, when))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Kinds of the records of a node whose worker lives, after a proposal and a round."""
    with node_with(tmp_path_factory.mktemp("undisturbed"), "never") as lille:
        lille.propose(STUDY)
        lille.answer(STUDY, "hello reply")
        lille.train(STUDY)
        lille.answer(STUDY, "train reply")
        return [record.kind for record in lille.records()]


@pytest.mark.parametrize("when", ["training", "reading", "twice"])
def test_a_worker_that_dies_of_a_row_after_the_booking_leaves_noise_alone_and_one_booking(
    when: str, running: Running, undisturbed: list[str]
) -> None:
    lille = running(when)
    lille.propose(STUDY)
    assert lille.answer(STUDY, "hello reply").fields["site"] == "lille"
    start = builders.random_arrays(study_parameters(STUDY), seed=1)
    lille.train(STUDY, 1, start)
    reply = lille.answer(STUDY, "train reply")
    sent = {name: np.frombuffer(data, np.float32) for name, data in reply.arrays.items()}
    assert all(np.isfinite(array).all() for array in sent.values())
    assert not all(np.array_equal(sent[name], start[name].ravel()) for name in sent)
    assert 0 < lille.spent(STUDY) <= 3.0
    assert [record.kind for record in lille.records()] == undisturbed  # their number is told outside
    (why,) = lille.whys()
    assert why == "noise alone; the node's log says why"
    lille.train(STUDY, 1, start)  # asked again: the same bytes, and nothing is booked
    spent = lille.spent(STUDY)
    assert lille.answer(STUDY, "train reply").sha256 == reply.sha256
    assert lille.spent(STUDY) == spent


def test_a_worker_that_dies_of_nobody_too_is_a_refusal(running: Running) -> None:
    lille = running("always")
    lille.propose(STUDY)
    lille.answer(STUDY, "hello reply")
    lille.train(STUDY)
    assert lille.code(STUDY) == 105
    assert lille.spent(STUDY) > 0


def test_patients_are_read_once_the_proposal_is_answered_and_not_before(
    running: Running, capfd: pytest.CaptureFixture[str]
) -> None:
    lille = running("told")
    lille.propose(STUDY)
    lille.answer(STUDY, "hello reply")
    said, deadline = "", time.monotonic() + 120
    while TOLD not in said and time.monotonic() < deadline:
        time.sleep(0.02)
        said += capfd.readouterr().err
    assert TOLD in said
