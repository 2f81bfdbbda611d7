"""What a study would read of one source, for the people who own it: counts, shares and lines, no cell's text.

>>> ColumnLook(name="age", kind="number", expected="18 to 100", rows=4, unknown=1, unread=1).read
2
"""

from dataclasses import dataclass
from typing import Annotated

from configs.records.fields import OMIT


@dataclass(frozen=True, kw_only=True)
class ColumnLook:
    """One column as a study reads it, counted in rows."""

    name: Annotated[str, "The study's column."]
    kind: Annotated[str, "What it is: number, category, outcome, patient id or split."]
    unit: Annotated[str, "The study's unit.", OMIT] = ""
    expected: Annotated[str, "The study's range or values.", OMIT] = ""
    rows: Annotated[int, "Rows with anything in them."]
    unknown: Annotated[int, "Cells that are empty or a code for unknown."] = 0
    unread: Annotated[int, "Cells that the study cannot take; unknown too, or left out where it is the outcome."] = 0
    outside: Annotated[int, "Values beyond the range, moved to its edge."] = 0

    @property
    def read(self) -> int:
        """Return the number of cells that are read."""
        return self.rows - self.unknown - self.unread


@dataclass(frozen=True, kw_only=True)
class DataFinding:
    """Something that a person should look at, with what to do."""

    column: Annotated[str, "The column; absent where it is about rows or patients.", OMIT] = ""
    text: Annotated[str, "What was found."]
    todo: Annotated[str, "What to do.", OMIT] = ""
    line: Annotated[str, "A line for the data set's section of site.yaml that mends it.", OMIT] = ""


@dataclass(frozen=True, kw_only=True)
class DataPage:
    """What `archipel-site check --data --json` and `archipel data --json` print: what a study would read."""

    name: Annotated[str, "The study's name."]
    study: Annotated[str, "The study's digest."]
    rows: Annotated[int, "Rows with anything in them."]
    counted: Annotated[int, "Rows that count."]
    patients: Annotated[int, "Patients."]
    train: Annotated[int, "Patients to train on."]
    test: Annotated[int | None, "Patients kept aside for the test; null where the study tests nothing."]
    columns: Annotated[tuple[ColumnLook, ...], "The columns."]
    findings: Annotated[tuple[DataFinding, ...], "What a person should look at."]
