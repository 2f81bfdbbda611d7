"""Held requests, released by an event, by a timeout, or when the client hangs up."""

import asyncio
import contextlib
from collections.abc import Iterator

from server.bodies import GoneError, Receive

HOLDS_EACH = 2  # for one key: a node asks anew before its former request is known to be cut


class Hold:
    """One request that is held."""

    def __init__(self, receive: Receive, hold_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + hold_s
        self._event, self._released = asyncio.Event(), False
        self._gone = self._loop.create_task(_until_gone(receive))

    def wake(self, *, release: bool = False) -> None:
        """Let it look again; with `release` it is answered whatever it finds."""
        self._released |= release
        self._event.set()

    async def woken(self) -> bool:
        """Wait; whether to look again, False where the time is over or it was released.

        Raises:
            GoneError: the client hung up.
        """
        if self._released:
            return False
        waiter = self._loop.create_task(self._event.wait())
        remaining_s = self._deadline - self._loop.time()
        done, _ = await asyncio.wait({waiter, self._gone}, timeout=remaining_s, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if self._gone in done:
            raise GoneError
        self._event.clear()
        return bool(done) and not self._released

    def end(self) -> None:
        """Stop watching the connection."""
        self._gone.cancel()


class Waiting:
    """The held requests, by what they wait for. Used in the loop's thread alone."""

    def __init__(self) -> None:
        self._holds: dict[int, list[Hold]] = {}

    @contextlib.contextmanager
    def waiting(self, key: int, receive: Receive, hold_s: float) -> Iterator[Hold]:
        """Hold a request; where too many are held for this key, the oldest is answered."""
        holds = self._holds.setdefault(key, [])
        while len(holds) >= HOLDS_EACH:
            holds.pop(0).wake(release=True)
        hold = Hold(receive, hold_s)
        holds.append(hold)
        try:
            yield hold
        finally:
            hold.end()
            if hold in holds:
                holds.remove(hold)
            if not holds and self._holds.get(key) is holds:
                del self._holds[key]

    def held(self) -> list[int]:
        """Return the keys for which requests are held."""
        return list(self._holds)

    def wake(self, key: int, *, release: bool = False) -> None:
        """Let all that are held for this key look again; with `release` they are answered whatever they find."""
        for hold in self._holds.get(key, []):
            hold.wake(release=release)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
