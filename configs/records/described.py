"""Who the patients are: the columns that are counted, and a simulation's exact counts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from configs.records.fields import LATER, OMIT


@dataclass(frozen=True)
class CountedColumn:
    """A column of which statistics were released."""

    name: Annotated[str, "The column's name."]
    type: Annotated[str, "The column's type.", LATER]
    unit: Annotated[str | None, "The unit of its numbers."]
    labels: Annotated[tuple[str, ...], "Its values or bins in words, the unknown last."]
    edges: Annotated[tuple[float, ...], "Ends of a number's bins; empty for a category.", LATER]

    def flaws(self) -> Iterator[tuple[str, str]]:
        """Yield what was expected where labels and edges do not fit together."""
        if len(self.labels) < 2 or len(self.edges) not in (0, len(self.labels)):
            yield "", "labels, and as many edges where there are any"


@dataclass(frozen=True)
class DescribedPatients:
    """Exact counts of a simulation's patients, training and test; between machines no such thing leaves."""

    columns: Annotated[tuple[CountedColumn, ...], "Columns, in the order of the counts."]
    counts: Annotated[Mapping[str, tuple[int, ...]], "Hospital: patients in each cell, column after column."]
    outcome: Annotated[str | None, "Value of the last column that is the outcome; null where there is none."]
    telltale: Annotated[tuple[str, ...], "Columns that say the outcome alone: it may be one in disguise.", OMIT] = ()

    @property
    def warning(self) -> str:
        """Return what to look at where columns say the outcome alone, empty where none does."""
        names = ", ".join(self.telltale)
        verb = "says" if len(self.telltale) == 1 else "say"
        advice = "see whether it is the outcome in disguise, or was written down after it; leave it out"
        return f"{names} {verb} the outcome alone: {advice}" if names else ""

    def flaws(self) -> Iterator[tuple[str, str]]:
        """Yield what was expected where a hospital's counts do not fit the columns."""
        cells = sum(len(column.labels) for column in self.columns)
        for site, counts in self.counts.items():
            if len(counts) != cells:
                yield f"counts.{site}", f"{cells} counts, one for each label"
