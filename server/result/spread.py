"""The spread of a figure over many hospitals: least, quartiles, greatest.

>>> Spread.of([0.5, 0.7, 0.6, 0.9, 0.8])
Spread(count=5, least=0.5, lower=0.6, median=0.7, upper=0.8, greatest=0.9)
>>> Spread.of([]) is None
True
"""

from collections.abc import Iterable
from dataclasses import dataclass

MANY = 12  # hospitals that a page can show one by one; of more it shows the spread, and each on demand


@dataclass(frozen=True)
class Spread:
    """Five numbers of as many hospitals as have the figure."""

    count: int
    least: float
    lower: float
    median: float
    upper: float
    greatest: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        """Return the spread of the values that there are, None where there is none."""
        ordered = sorted(value for value in values if value is not None)
        if not ordered:
            return None
        return cls(len(ordered), *(_quantile(ordered, part / 4) for part in range(5)))


def _quantile(ordered: list[float], part: float) -> float:
    """Return the quantile by linear interpolation between the values (Hyndman and Fan 1996, type 7)."""
    place = part * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
