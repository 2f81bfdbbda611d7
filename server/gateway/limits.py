"""Rate limits of hospitals' requests, and the log of refusals.

>>> rates = Rates(per_second=1.0)
>>> for _ in range(3):
...     with rates.admit("lille"):
...         pass
>>> with rates.admit("lille"):
...     pass
Traceback (most recent call last):
server.refusals.Refusal: expected fewer requests at a time, found more; try again later
"""

import contextlib
import logging
import time
from collections.abc import Iterator

from configs.shown import printable
from server.gateway.paths import Scope
from server.refusals import Refusal

BURST_S = 3.0  # a hospital may spend the requests of so many seconds at once
MAX_BUCKETS = 10_000  # of hospitals and of addresses that name one without its signature
MAX_IN_FLIGHT = 32  # of one hospital; Flower's node pushes and pulls at most eight objects at a time

log = logging.getLogger("archipel.gateway")


class Rates:
    """A token bucket (requests) and a number in flight for every hospital."""

    def __init__(self, per_second: float) -> None:
        self._per_second, self._burst = per_second, max(per_second * BURST_S, 1.0)
        self._buckets: dict[str, tuple[float, float]] = {}  # hospital -> requests left, at which time
        self._in_flight: dict[str, int] = {}

    @contextlib.contextmanager
    def admit(self, site: str) -> Iterator[None]:
        """Count one request while it is served.

        Raises:
            Refusal: 429, there are too many at once.
        """
        count = self._in_flight.get(site, 0)
        if count >= MAX_IN_FLIGHT or not self._take(site):
            raise Refusal(429, "expected fewer requests at a time, found more; try again later", site)
        self._in_flight[site] = count + 1
        try:
            yield
        except Refusal as refusal:
            refusal.who = site
            raise
        finally:
            self._in_flight[site] -= 1

    def _take(self, site: str) -> bool:
        now = time.monotonic()
        if len(self._buckets) > MAX_BUCKETS:  # a bucket that rested for so long is full again
            self._buckets = {name: bucket for name, bucket in self._buckets.items() if now - bucket[1] < BURST_S}
        tokens, then = self._buckets.get(site, (self._burst, now))
        tokens = min(self._burst, tokens + (now - then) * self._per_second)
        self._buckets[site] = (tokens - 1 if tokens >= 1 else tokens, now)
        return tokens >= 1


class Refusals:
    """Log refused requests: one line for each kind and hospital in ten seconds, however many there are."""

    def __init__(self, every_s: float = 10.0, most: int = 1000) -> None:
        self._every_s, self._most = every_s, most
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def note(self, refusal: Refusal, scope: Scope) -> None:
        """Log a refusal, or count it where a line of its kind was just written."""
        client = scope.get("client")
        name = printable(refusal.who, 64) or (str(client[0]) if client else "a stranger")
        key, now = (name, refusal.why), time.monotonic()
        since, unlogged = self._seen.get(key, (-self._every_s, 0))
        if now - since < self._every_s:
            self._seen[key] = (since, unlogged + 1)
            return
        if len(self._seen) >= self._most:
            self._seen.clear()
        self._seen[key] = (now, 0)
        more = f" (+{unlogged})" if unlogged else ""
        log.warning("%s: refused (%d): %s%s", name, refusal.status, refusal.why, more)
