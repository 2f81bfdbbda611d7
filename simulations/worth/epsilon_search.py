"""The search for the cheapest epsilon that reaches a wish."""

import math
from collections.abc import Sequence

PRECISION = 1.3  # two epsilons this near are one


class Bisection:
    """Which epsilon to try next: a ladder's neighbouring rungs first, then the middle of the gap between two.

    >>> search = Bisection([0.5, 1.0, 3.0, 8.0], start=3.0)
    >>> while (epsilon := search.next()) is not None:
    ...     search.seen(epsilon, reaches=epsilon >= 1.5)
    >>> search.reached
    1.5
    """

    def __init__(self, ladder: Sequence[float], start: float) -> None:
        self._ladder, self._start = ladder, start
        self.reached: float | None = None
        self._failed: float | None = None
        self.highest = start

    def seen(self, epsilon: float, *, reaches: bool) -> None:
        """Note what came out."""
        self.highest = max(self.highest, epsilon)
        if reaches:
            self.reached = epsilon
        else:
            self._failed = epsilon

    def next(self) -> float | None:
        """Return the next epsilon, None where there is nothing left to learn."""
        if self.reached is None:
            return next((e for e in self._ladder if e > (self._failed or 0.0) and e >= self._start), None)
        if self._failed is None:
            return max((e for e in self._ladder if e < self.reached), default=None)
        middle = float(f"{math.sqrt(self.reached * self._failed):.2g}")
        return middle if self.reached / self._failed > PRECISION and self._failed < middle < self.reached else None
