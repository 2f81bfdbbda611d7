"""The intervals between requests where the coordinator does not hold them open."""

QUICK_S, SLOW_S = 0.03, 15.0  # shortest and longest time between two looks for a message
PATIENCE, EARLY = 0.1, 0.7  # a look every tenth of the time since the last message; the first after this part of a gap


class Pace:
    """The times of the looks for the next message. Each look costs the coordinator some milliseconds.

    Rounds resemble each other: if the last message was not there yet after some time, the first look comes a little
    before that time; then one every tenth of the time that passed. Only what was seen counts, not when the message was
    found: else a node that looked late once would go on to look late.

    >>> pace = Pace(0.0)
    >>> pace.answered(0.0); round(pace.wait_s(0.9), 2); pace.came(); pace.answered(1.5)
    0.09
    >>> round(pace.wait_s(1.5), 2), round(pace.wait_s(2.5), 2), pace.wait_s(1000.0)
    (0.63, 0.1, 15.0)
    """

    def __init__(self, now: float) -> None:
        self._answered, self._empty, self._gap = now, 0.0, 0.0

    def came(self) -> None:
        """Note that a message is here."""
        self._gap = self._empty

    def answered(self, now: float) -> None:
        """Note that it was answered."""
        self._answered, self._empty = now, 0.0

    def wait_s(self, now: float) -> float:
        """Return how long to wait before the next look, where no message is here yet."""
        self._empty = now - self._answered
        due = EARLY * self._gap - self._empty
        return min(max(due, self._empty * PATIENCE, QUICK_S), SLOW_S)
