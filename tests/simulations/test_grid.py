"""The in-process grid speaks Flower's interface; what it takes from Flower's inside is still there."""

import gc
from importlib import metadata

import pytest
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.task_identity import TaskIdentity

from configs.errors import RunError
from simulations.engines import run_engine
from simulations.grid import FIRST_NODE_ID, PARTITION, InProcessGrid
from simulations.hospitals import Hospitals
from tests.builders import patients, study


def make_echo() -> ClientApp:
    """A ClientApp that answers with the partition it runs for."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: object) -> Message:
        partition = context.node_config[PARTITION]  # type: ignore[attr-defined]
        reply = RecordDict(dict(message.content.items()))
        assert message.metadata.dst_node_id == FIRST_NODE_ID + partition
        return Message(reply, reply_to=message)

    return app


def make_dying() -> ClientApp:
    """A ClientApp whose process ends without a word."""
    import os

    app = ClientApp()

    @app.train()
    def train(message: Message, context: object) -> Message:
        os._exit(9)

    return app


def messages(grid: InProcessGrid) -> list[Message]:
    return [grid.create_message(RecordDict(), "train", node, "1") for node in grid.get_node_ids()]


def test_it_is_a_grid_of_the_pinned_flower() -> None:
    assert issubclass(InProcessGrid, Grid)
    assert metadata.version("flwr") == "1.41.0", "re-read simulations/grid.py: TaskIdentity is Flower's inside"
    assert {"run_id", "task_id", "node_id"} <= set(dir(type(TaskIdentity)))


@pytest.mark.parametrize("workers", [1, 2])
def test_every_message_gets_the_reply_of_its_own_node(workers: int) -> None:
    with InProcessGrid(make_echo, 3, workers=workers) as grid:
        sent = messages(grid)
        replies = grid.send_and_receive(sent)
    assert [r.metadata.reply_to_message_id for r in replies] == [m.metadata.message_id for m in sent]
    assert [r.metadata.src_node_id for r in replies] == [FIRST_NODE_ID, FIRST_NODE_ID + 1, FIRST_NODE_ID + 2]


def test_a_pulled_reply_is_handed_over_once() -> None:
    with InProcessGrid(make_echo, 2) as grid:
        ids = list(grid.push_messages(messages(grid)))
        assert len(list(grid.pull_messages(ids))) == 2
        assert list(grid.pull_messages(ids)) == []


def test_a_worker_that_dies_is_told_and_not_waited_for() -> None:
    with InProcessGrid(make_dying, 2, workers=2) as grid, pytest.raises(RunError, match="a worker process ended"):
        grid.send_and_receive(messages(grid))


def test_a_run_leaves_the_collection_of_garbage_as_it_found_it() -> None:
    before, during = (gc.get_threshold(), gc.get_freeze_count()), []

    def make_server(done: object) -> ServerApp:
        app = ServerApp()

        @app.main()
        def main(grid: Grid, context: object) -> None:
            during.append((gc.get_threshold(), gc.get_freeze_count()))

        return app

    with pytest.raises(RunError, match="ended without a result"):
        run_engine("inprocess", Hospitals(study(), lambda site: patients(20)), make_server)
    assert during[0][0] > before[0]
    assert during[0][1] > before[1]
    assert (gc.get_threshold(), gc.get_freeze_count()) == before
