"""A Flower `Grid` that calls the ClientApp in this process, or in a few worker processes.

No sockets, no serialisation, no start-up: what is left of a round is the hospitals' own work. The ServerApp and the
ClientApp cannot tell it from a SuperLink. Replies come back in the order of their messages; nothing may depend on it.
"""

import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from configs.errors import RunError
from simulations.rounds import Addressed, Rounds, are_of_one_round
from strategies.exchange.flower import SUPERLINK_NODE_ID, Run, identify, name_message

PARTITION = "partition-id"  # the key under which Flower's simulation tells a node which hospital it is
RUN_ID = 1
FIRST_NODE_ID = 1000
MakeApp = Callable[[], ClientApp]
MakeRounds = Callable[[], Rounds | None]


class InProcessGrid(Grid):
    """`hospitals` nodes around one ClientApp. Use as a context manager where `workers` is above 1.

    Args:
        make_rounds: makes what answers the train messages of several hospitals at once, with the replies of the app.
    """

    def __init__(
        self, make_app: MakeApp, hospitals: int, *, workers: int = 1, make_rounds: MakeRounds | None = None
    ) -> None:
        identify(node_id=SUPERLINK_NODE_ID, run_id=RUN_ID, task_id=1)
        self._run = Run.create_empty(RUN_ID)
        self._hospitals = hospitals
        self._workers = min(workers, hospitals)
        self._pool: ProcessPoolExecutor | None = None
        if self._workers > 1:
            self._pool = ProcessPoolExecutor(
                self._workers,
                mp_context=get_context("spawn"),
                initializer=_start_worker,
                initargs=(make_app, make_rounds),
            )
        else:
            self._answerer = _Answerer(make_app(), make_rounds() if make_rounds else None)
        self._contexts: dict[int, Context] = {}
        self._replies: dict[str, Message] = {}

    def __enter__(self) -> "InProcessGrid":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def set_run(self, run: Run) -> None:
        """Work for another run."""
        self._run = run

    @property
    def run(self) -> Run:
        """Return the run that messages belong to."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Return a message to one node."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return one node a hospital, in the order of the study's hospitals."""
        return range(FIRST_NODE_ID, FIRST_NODE_ID + self._hospitals)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Work through the messages now; replies wait to be pulled."""
        replies = self.send_and_receive(messages)
        self._replies |= {reply.metadata.reply_to_message_id: reply for reply in replies}
        return [reply.metadata.reply_to_message_id for reply in replies]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Yield the replies to these messages, each once."""
        return [self._replies.pop(key) for key in message_ids if key in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Return every message's reply. The time-out has no meaning here: a hospital in this process always answers."""
        del timeout  # Flower's interface
        outgoing = list(messages)
        for message in outgoing:
            name_message(message, uuid.uuid4().hex)
        addressed = [(message, self._context(message)) for message in outgoing]
        if self._pool is None:
            return self._answerer.answer(addressed)
        chunk = max(1, len(outgoing) // (4 * self._workers))
        chunks = [addressed[start : start + chunk] for start in range(0, len(addressed), chunk)]
        try:
            return [reply for replies in self._pool.map(_work, chunks) for reply in replies]
        except BrokenProcessPool:
            raise RunError(
                "a worker process ended before its work was done (killed, or out of memory); "
                "resume with fewer --workers"
            ) from None

    def _context(self, message: Message) -> Context:
        node = message.metadata.dst_node_id
        if node not in self._contexts:
            self._contexts[node] = Context(
                run_id=self._run.run_id,
                node_id=node,
                node_config={PARTITION: node - FIRST_NODE_ID},
                state=RecordDict(),
                run_config={},
            )
        return self._contexts[node]


class _Answerer:
    """The ClientApp, and what answers several of a round's messages at once, if there is anything."""

    def __init__(self, app: ClientApp, rounds: Rounds | None) -> None:
        self._app, self._rounds = app, rounds

    def answer(self, addressed: Sequence[Addressed]) -> list[Message]:
        if self._rounds is not None and are_of_one_round([message for message, _ in addressed]):
            return self._rounds.answer(addressed)
        return [self._app(message, context) for message, context in addressed]


_answerers: list[_Answerer] = []


def _start_worker(make_app: MakeApp, make_rounds: MakeRounds | None) -> None:
    identify(node_id=SUPERLINK_NODE_ID, run_id=RUN_ID, task_id=1)
    _answerers.append(_Answerer(make_app(), make_rounds() if make_rounds else None))


def _work(addressed: Sequence[Addressed]) -> list[Message]:
    return _answerers[0].answer(addressed)
