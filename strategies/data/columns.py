"""The layout of a study's statistics: one histogram for each column, and its cells' names.

>>> from configs.schema import Feature
>>> age, sex = Feature("age", "number", 20.0, 90.0), Feature("sex", "category", values=("f", "m"))
>>> Histogram(age, bins=7).labels[0], Histogram(sex).labels
('20 to 30', ('f', 'm', 'unknown'))
"""

import itertools
from dataclasses import dataclass

import numpy as np

from configs.schema import Feature, Study

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Histogram:
    """One column's cells: its values or its bins in order, then the unknown."""

    column: Feature
    bins: int = 0

    @property
    def cells(self) -> int:
        """Return how many counts it has."""
        return (len(self.column.values) or self.bins) + 1

    @property
    def edges(self) -> tuple[float, ...]:
        """Return where the bins of a number begin and end; nothing for a category."""
        if self.column.values or self.column.minimum is None or self.column.maximum is None:
            return ()
        return tuple(float(edge) for edge in np.linspace(self.column.minimum, self.column.maximum, self.bins + 1))

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the cells' names for people, in their order."""
        edges = self.edges
        between = tuple(f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges))
        return (*(self.column.values or between), UNKNOWN)


def layout_of(study: Study) -> tuple[Histogram, ...]:
    """Return a study's histograms in the order of their cells: the features, then the target."""
    return tuple(Histogram(column, 0 if column.values else study.task.bins) for column in study.counted)


def cells_of(study: Study) -> int:
    """Return how many counts a hospital's statistics are: of each column its values or bins, and the unknown."""
    return sum(histogram.cells for histogram in layout_of(study))
