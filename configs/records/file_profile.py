"""What `archipel data` says of a researcher's own file: what its columns look like.

>>> FileColumn(name="age", looks_like="number", distinct=60, unknown=1, low=20.0, high=90.0).values
()
"""

from dataclasses import dataclass
from typing import Annotated

from configs.records.data_page import DataFinding
from configs.records.fields import OMIT


@dataclass(frozen=True, kw_only=True)
class FileColumn:
    """One column. Of one that looks like ids or text no cell is told."""

    name: Annotated[str, "The column."]
    looks_like: Annotated[str, "number, category, date, id, text or nothing."]
    distinct: Annotated[int, "Different cells, the empty one not counted."]
    unknown: Annotated[int, "Rows where it is empty, or a word for unknown."]
    low: Annotated[float | None, "The smallest number; null of other columns."] = None
    high: Annotated[float | None, "The largest number."] = None
    values: Annotated[tuple[str, ...], "A category's words, the most frequent first.", OMIT] = ()


@dataclass(frozen=True, kw_only=True)
class FileProfile:
    """What `archipel data --json` prints of a file without a study."""

    file: Annotated[str, "The file."]
    source: Annotated[str, "How a study or site.yaml names it, its dialect included."]
    rows: Annotated[int, "Rows with anything in them."]
    columns: Annotated[tuple[FileColumn, ...], "The columns."]
    findings: Annotated[tuple[DataFinding, ...], "What to look at."]
