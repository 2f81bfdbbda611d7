"""The parts of an incomplete reply that the SuperLink has received.

Its sender may be hostile.
"""

import time

from configs.errors import WireError
from strategies.exchange.flower import Head, iterate_object_tree
from strategies.exchange.objects import Parts

MAX_OBJECTS = 100_000  # of one reply


class BrokenError(Exception):
    """A reply that will never be whole, or is no message."""


class Arriving:
    """A reply on its way: which of its parts are here."""

    def __init__(self, head: Head, parts: Parts) -> None:
        self.head, self.parts = head, parts
        self.missing: dict[str, None] = {}
        self.early: dict[str, bytes] = {}  # parts that came with it
        self.moved, self.count = time.monotonic(), 0
        for node in iterate_object_tree(head.tree):
            self.count += 1
            if self.count > MAX_OBJECTS:
                break
            self.missing[node.object_id] = None

    def add(self, object_id: str, content: bytes) -> None:
        """Take a part.

        Raises:
            BrokenError: the parts are too many or too large.
        """
        self.moved = time.monotonic()
        try:
            if self.count > MAX_OBJECTS:
                raise WireError("message: too many parts")
            self.parts.add(object_id, content)
        except WireError:
            raise BrokenError("it is larger than a reply can be") from None
        del self.missing[object_id]
