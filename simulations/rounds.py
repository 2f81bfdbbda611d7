"""Fits of several hospitals for one round's instructions, computed together.

Everything else is each hospital's own, as the ClientApp has it: the checks of its message, its booking before the first
gradient, what it does where a fit fails, its reply. A hospital that cannot be fitted with others is fitted alone, and
so is everybody where the batch itself fails: one hospital's failure stays its own.
"""

from collections.abc import Callable, Sequence
from typing import Any

from flwr.app import Context, Message, RecordDict

from client.app import Answering, guarded_releasing
from client.egress import REFUSAL
from client.egress import addressed as to_message
from client.site import Site
from configs import wire
from configs.frame import Frame
from simulations.together import Together
from strategies.exchange.arrays import Arrays
from strategies.exchange.messages import Received, read
from strategies.releases.base import Fit
from strategies.releases.registry import MODEL_UPDATE

_AT_ONCE = 256  # hospitals whose bookings are open at once
Addressed = tuple[Message, Context]


class Rounds:
    """Answers train messages, several at a time. `site_of` finds the hospital that a context stands for."""

    def __init__(self, site_of: Callable[[Context], Site], together: Together) -> None:
        self._site_of, self._together = site_of, together
        self._content: RecordDict | None = None  # what was read last: all hospitals of a round are sent the same
        self._received: Received | None = None

    def answer(self, addressed: Sequence[Addressed]) -> list[Message]:
        """Return every message's reply, in the same order."""
        replies: list[Message] = []
        try:
            for start in range(0, len(addressed), _AT_ONCE):
                replies += self._answer(addressed[start : start + _AT_ONCE])
        finally:
            self._content = self._received = None
        return replies

    def _answer(self, addressed: Sequence[Addressed]) -> list[Message]:
        replies: dict[int, Frame] = {}
        trainings = [self._training(message, context) for message, context in addressed]
        requests: dict[int, Fit] = {}

        def go_on(i: int, step: Callable[..., Fit], value: Any) -> None:
            try:
                requests[i] = step(value)
            except StopIteration as end:
                replies[i] = end.value

        for i, training in enumerate(trainings):
            go_on(i, training.send, None)
        while requests:
            fits, requests = requests, {}
            for (i, fit), model in zip(fits.items(), self._fitted(list(fits.values())), strict=True):
                try:
                    trained = self._site_of(addressed[i][1]).work(fit) if model is None else model
                except Exception as error:
                    go_on(i, trainings[i].throw, error)
                else:
                    go_on(i, trainings[i].send, trained)
        return [self._addressed(replies[i], *addressed[i]) for i in range(len(addressed))]

    def _addressed(self, reply: Frame, message: Message, context: Context) -> Message:
        forms = {} if reply.form == REFUSAL else self._site_of(context).forms
        return to_message(reply, message, forms.get(reply.form))

    def _training(self, message: Message, context: Context) -> Answering:
        def received(site: Site) -> Received:
            return self._read(message.content, site)

        return guarded_releasing(MODEL_UPDATE.form, lambda: self._site_of(context), received)

    def _read(self, content: RecordDict, site: Site) -> Received:
        """Read a message once for all hospitals that are sent the very same one."""
        if self._received is None or self._content is not content:
            self._content, self._received = content, read(MODEL_UPDATE.form, content, site.forms[MODEL_UPDATE.form])
        return Received(self._received.fields, dict(self._received.arrays))

    def _fitted(self, fits: Sequence[Fit]) -> list[Arrays | None]:
        try:
            return self._together.fit(fits)
        except Exception:  # fitting each alone shows which hospital's fit fails
            return [None] * len(fits)


def are_of_one_round(messages: Sequence[Message]) -> bool:
    """Return whether these are instructions to train, of several hospitals."""
    return len(messages) > 1 and all(message.metadata.message_type == wire.TRAIN for message in messages)
