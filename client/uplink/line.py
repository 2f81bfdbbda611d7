"""Long polling of the coordinator: how long a request may be held on this connection.

Proxies and firewalls cut connections on which nothing passes for a while, some with a word, some without. A cut is no
error: the node asks again at once, and after two in a row it lets itself be held for less time than the way allows.

>>> line = Line()
>>> line.hold_s, line.cut(12.0), line.cut(11.0), line.hold_s
(50.0, True, True, 8.8)
"""

import contextlib
import json
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from configs.errors import WireError
from configs.pieces import MAX_HOLD_S, MAX_INLINE, join, split
from strategies.exchange.flower import Head, parse_head

SLACK_S = 15.0  # beyond the hold, until a silent connection counts as cut
SHORTEST_CUT_S = 0.5  # what ends sooner was not waiting: the coordinator is away
SHORTEST_HOLD_S = 2.0
SHORTER, LONGER, PROBED = 0.8, 1.5, 200  # a hold after cuts; and after so many whole ones it is tried longer again
STATE = "line.json"
_INTERRUPTED = (None, None)


class Line:
    """The time for which requests may be held on this connection, and the request that is held."""

    def __init__(self) -> None:
        self.hold_s, self.taken = MAX_HOLD_S, ""  # the id of the last message that arrived whole
        self.cut_after_s = 0.0  # where the way was seen to be cut, 0 where it was not
        self._cuts: list[float] = []
        self._whole = 0
        self._answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._over = False
        self._thread: threading.Thread | None = None
        self.is_held = False

    def interrupt(self) -> None:
        """Let `held` return; callable from another thread or a signal handler."""
        self._over = True
        self._answers.put(_INTERRUPTED)

    def held(self, ask: Callable[[], bytes], unreachable: type[Exception]) -> bytes:
        """Return the answer to a request that is held; nothing where there was none, where it was cut or interrupted.

        The request runs in a thread of its own, which is left alone when it is interrupted: nothing else ends a read.

        Raises:
            Exception: what `ask` raises, but for an `unreachable` after a while, which is a cut.
        """
        if self._over:
            return b""
        answers = self._answers

        def run() -> None:
            try:
                answers.put((ask(), None))
            except BaseException as error:  # handed over
                answers.put((None, error))

        began = time.monotonic()
        self.is_held = True
        self._thread = threading.Thread(target=run, daemon=True, name="held")
        self._thread.start()
        try:
            answer, error = answers.get()
        finally:
            self.is_held = False
        elapsed = time.monotonic() - began
        if isinstance(error, unreachable) and self.cut(elapsed):
            return b""
        if error is not None:
            raise error
        if not answer and elapsed > 0.9 * self.hold_s:
            self._was_whole()
        return bytes(answer or b"")

    def ended(self, within_s: float) -> None:
        """Wait a little for a request that was interrupted: the coordinator answers it once the node signed off."""
        if self._thread is not None:
            self._thread.join(within_s)

    def cut(self, elapsed_s: float) -> bool:
        """Note that a request ended without an answer; whether it had waited long enough to be a cut."""
        if elapsed_s < SHORTEST_CUT_S:
            return False
        self._cuts = [*self._cuts, elapsed_s][-2:]
        self._whole = 0
        if len(self._cuts) == 2:
            self.cut_after_s = min(*self._cuts, self.hold_s)
            self.hold_s = round(max(SHORTEST_HOLD_S, min(self.hold_s, SHORTER * self.cut_after_s)), 1)
            self._cuts = []
        return True

    def _was_whole(self) -> None:
        self._cuts, self._whole = [], self._whole + 1
        if self._whole >= PROBED and self.hold_s < MAX_HOLD_S:
            self._whole, self.hold_s = 0, min(MAX_HOLD_S, LONGER * self.hold_s)


def keep(folder: Path, line: Line) -> None:
    """Write down for `check` what the way lets through."""
    with contextlib.suppress(OSError):
        (folder / STATE).write_text(json.dumps({"hold_s": line.hold_s, "cut_after_s": line.cut_after_s}))


def kept(folder: Path) -> tuple[float, float]:
    """Return how long requests are held here and after how long they were seen cut (0: never)."""
    try:
        state = json.loads((folder / STATE).read_bytes())
        return float(state["hold_s"]), float(state["cut_after_s"])
    except (OSError, ValueError, KeyError, TypeError):
        return MAX_HOLD_S, 0.0


def asked(node: int, hold_s: float, taken: str) -> bytes:
    """Return the request for the next message."""
    return json.dumps({"node": node, "hold_s": float(hold_s), "taken": taken}).encode()


def answered(node: int, taken: str, pieces: list[bytes]) -> bytes:
    """Return the request that carries a whole reply."""
    return join([json.dumps({"node": node, "taken": taken}).encode(), *pieces])


def received(answer: bytes) -> tuple[Head, list[tuple[str, bytes]]]:
    """Return a message's head, and its parts where they came with it.

    Raises:
        WireError: the answer holds no message.
    """
    try:
        pieces = split(answer)
        if len(pieces) < 2 or len(pieces) % 2:
            raise ValueError
        head = parse_head(pieces[0], pieces[1])
        names = [piece.decode("ascii") for piece in pieces[2::2]]
    except (ValueError, WireError):
        raise WireError("message: expected Flower's objects, found something else") from None
    return head, list(zip(names, pieces[3::2], strict=True))


def inline(head: Head, objects: Mapping[str, Any]) -> list[bytes] | None:
    """Return a reply with its parts where they are small, None where they are not."""
    total, pieces = 0, [head.header.SerializeToString(), head.tree.SerializeToString()]
    for object_id, item in objects.items():
        content = item.deflate()
        total += len(content)
        if total > MAX_INLINE or len(pieces) > 500:
            return None
        pieces += [object_id.encode("ascii"), content]
    return pieces
