"""Notes on how a hospital's rows were read: counts and line numbers, never a value.

They are for people in the hospital. Nothing here decides anything, and nothing here leaves: `archipel-site review
--data` shows it, the simulator too. What an odd cell means is in client/connectors/checks.py.

>>> notes = Notes(rows=4, patients=3, left_out=1, counted=3)
>>> notes.column("age", "number").odd(np.array([False, True, False, False]), np.array([2, 3, 4, 5]))
>>> print("\\n".join(notes.lines()))
4 rows, 3 patients, of 3 rows that count
1 row left out: without an outcome, a patient id or a side of the split that can be read
age: 1 of 4 rows is no number that can be read (line 3)
"""

from array import array
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from client.connectors.clues import Clue

SHOWN = 3  # line numbers that are named
MOST, MANY = 0.5, 0.1  # shares of the rows
_ODD = {  # what is wrong with a cell that could not be read, by the column's kind
    "number": "no number that can be read",
    "category": "no value that the study lists",
    "outcome": "no outcome that the study lists; left out",
    "patient id": "without a patient id; left out",
    "split": "neither train nor test; left out",
    "record": "no record that can be read; it is unknown",
    "mask": "without a mask that can be read; left out",
}


@dataclass
class ColumnNotes:
    """Cells of one column, counted in rows. `unknown`: empty, or a code for unknown; `outside`: beyond the range."""

    name: str
    kind: str
    unknown: int = 0
    unread: int = 0
    outside: int = 0
    limits: int = 0  # of those unread, the ones that begin with < or >, as a laboratory writes what it cannot measure
    where: tuple[int, ...] = ()
    clues: tuple[Clue, ...] = ()  # of a thorough reading
    why: dict[str, int] = field(default_factory=dict)  # of records that could not be read: how many, for each reason
    resized: int = 0  # images of another size than the study's

    def note_records(self, why: Mapping[str, int], resized: int) -> None:
        """Count records that could not be read, each reason in words, and images that were brought to another size."""
        self.why, self.resized = {**why}, resized
        self.unread += sum(why.values())

    def odd(self, cells: NDArray[np.bool_], numbers: NDArray[np.int64]) -> None:
        """Count cells that could not be read; both (rows,)."""
        positions = np.flatnonzero(cells)
        self.unread += len(positions)
        self.where = (*self.where, *numbers[positions[:SHOWN]].tolist())[:SHOWN]

    def share_outside(self, rows: int) -> float:
        """Share of the rows beyond the public range."""
        return self.outside / rows if rows else 0.0


@dataclass
class Notes:
    """Rows and patients of one reading. `rows` have anything in them; those that were left out are among them."""

    unit: str = "line"
    rows: int = 0
    patients: int = 0
    empty: int = 0  # rows with nothing in them
    torn: int = 0  # lines with another number of cells, or a broken quotation
    within: int = 0  # lines within a quotation that look like rows, or quotations that a row breaks off
    multiline: bool = False  # the former: whatever is in a quotation is one cell
    headers: int = 0  # the header again
    left_out: int = 0
    foreign: int = 0  # cells with bytes that are no UTF-8
    encoding: str = ""  # that such bytes are likely in, as site.yaml names it
    read_as: str = "utf-8"  # the encoding that site.yaml says
    twice_encoded: int = 0  # cells that were UTF-8 and were read as Windows-1252 once
    beyond: int = 0  # rows of a patient beyond the most that count
    both_sides: int = 0  # patients with rows on both sides of the split
    counted: int = 0  # rows that count
    equal: int = 0  # of these, rows that say word for word what another says
    spelled: int = 0  # ids that would be another's if they were written alike
    like_ids: dict[str, set[str]] = field(
        default_factory=dict
    )  # columns with the name of an id where a row is a patient
    ids: Collection[str] = ()  # of the patients, where the study names their column; never shown
    rows_are_patients: bool = False
    thorough: bool = False  # equal rows are looked for too, which takes time and memory
    columns: dict[str, ColumnNotes] = field(default_factory=dict)
    numbers: "array[int]" = field(default_factory=partial(array, "q"))  # of each row's line; from 1 on where empty
    remarks: list[str] = field(default_factory=list)  # on what site.yaml says of the data, whole sentences
    torn_where: list[int] = field(default_factory=list)
    within_where: list[int] = field(default_factory=list)
    foreign_where: list[int] = field(default_factory=list)

    def column(self, name: str, kind: str) -> ColumnNotes:
        """Return the counts of one column."""
        return self.columns.setdefault(name, ColumnNotes(name, kind))

    def numbers_of(self, rows: int) -> NDArray[np.int64]:
        """Return (rows,) the numbers by which people find the rows."""
        return np.array(self.numbers, np.int64) if self.numbers else np.arange(1, rows + 1)

    def like(self, name: str) -> set[str]:
        """Return the different values of a column with the name of an id; they are counted and never shown."""
        return self.like_ids.setdefault(name, set())

    def remark(self, text: str, cells: NDArray[np.bool_]) -> None:
        """Add a sentence about some cells, with their rows' numbers; `cells` (rows,)."""
        positions = np.flatnonzero(cells)
        numbers = self.numbers_of(len(cells))[positions[:SHOWN]].tolist()
        self.remarks.append(f"{text}{_where(self.unit, numbers, len(positions))}")

    def note_torn(self, number: int) -> None:
        """Count a line that is no record."""
        self.torn += 1
        if len(self.torn_where) < SHOWN:
            self.torn_where.append(number)

    def note_within(self, number: int, count: int) -> None:
        """Count lines within a quotation that begins in line `number`."""
        self.within += count
        if len(self.within_where) < SHOWN:
            self.within_where.append(number)

    def note_foreign(self, number: int) -> None:
        """Count a cell with bytes that are no UTF-8."""
        self.foreign += 1
        if len(self.foreign_where) < SHOWN:
            self.foreign_where.append(number)

    def lines(self) -> Iterator[str]:
        """Write every finding as a sentence, the size first."""
        yield f"{self.rows:,} rows, {self.patients:,} patients, of {_rows(self.counted)} that count"
        yield from self.oddities()
        if 0 < self.equal <= MANY * self.counted:
            yield f"{_rows(self.equal)} equal to another, word for word"
        if self.rows_are_patients:
            yield "one row counts as one patient: the study names no column of ids"
        for column in self.columns.values():
            yield from self._shares(column)

    def oddities(self) -> Iterator[str]:
        """Write what a person should look at before a study trains: all but usual shares of unknown or outside."""
        yield from (text for text, _ in self.of_rows())
        for column in self.columns.values():
            yield from self.of_column(column)

    def of_rows(self) -> Iterator[tuple[str, str]]:
        """Write what is odd about rows and patients, each with what to do where its sentence does not say it."""
        look = "look at these lines in the export"
        if not self.patients:
            yield (
                "no patient at all: only noise would leave",
                "see whether the path and the filter of the export are right",
            )
        yield from ((text, "") for text in self.remarks)
        if self.empty:
            text = f"{_rows(self.empty)} with nothing in {'it' if self.empty == 1 else 'them'}: no patient's"
            yield text, "nothing, if a spreadsheet left them"
        if self.torn:
            where = _where(self.unit, self.torn_where, self.torn)
            yield f"{_rows(self.torn)} left out: another number of cells, or a broken quotation{where}", look
        if self.within:
            yield self._of_quotations(_where(self.unit, self.within_where, len(self.within_where))), ""
        yield from ((text, "") for text in self._of_encoding())
        if self.headers:
            yield f"{_rows(self.headers)} left out: the header again", "nothing, if several exports were joined"
        if self.left_out:
            reason = "without an outcome, a patient id or a side of the split that can be read"
            yield f"{_rows(self.left_out)} left out: {reason}", "see the columns below"
        if self.beyond:
            text = f"{_rows(self.beyond)} left out: beyond the most rows that count of one patient"
            yield text, "see whether one id stands for many patients"
        if self.both_sides:
            text = f"{self.both_sides:,} patients have rows on both sides of the split: they are in the test, whole"
            yield text, "write one side for each patient"
        yield from self._of_patients()

    def _of_encoding(self) -> Iterator[str]:
        if self.foreign:
            where = _where(self.unit, self.foreign_where, self.foreign)
            encoding = self.encoding or "cp1252"
            yield (
                f"{_cells(self.foreign)} no text in {self.read_as.upper()}{where}, {encoding} it seems: write "
                f"dialect: {{encoding: {encoding}}} beside path, or words with accents are unknown"
            )
        if self.twice_encoded:
            yield (
                f"{_cells(self.twice_encoded)} written in UTF-8 and read as Windows-1252 once, it seems: "
                + ("export again, and open the file as UTF-8" if self.read_as == "utf-8" else "write encoding: utf-8")
            )

    def _of_quotations(self, where: str) -> str:
        """Write what quotations were met with that hold lines which look like rows."""
        again = 'export again with every " in a cell doubled'
        if self.multiline:
            return (
                f"{self.within:,} LINES INSIDE A QUOTATION LOOK LIKE ROWS{where}: they are no patients', as site.yaml "
                f"says multiline: true; where a quotation mark was never closed, {again}"
            )
        return (
            f"of these, {self.within:,} with a quotation that a row breaks off{where}: {again}; where the line that "
            "looks like a row is text, write multiline: true beside path in site.yaml"
        )

    def _of_patients(self) -> Iterator[tuple[str, str]]:
        """Write what speaks against the number of patients: each of them has a clip, and an epsilon, of their own."""
        for name, ids in self.like_ids.items():
            if len(ids) < self.rows:
                text = (
                    f"ONE ROW COUNTS AS ONE PATIENT, but column {name!r} has {len(ids):,} different values in "
                    f"{self.rows:,} rows: a patient of several rows spends several times the epsilon"
                )
                yield text, f"refuse the study, and ask the consortium to write patient_id: {name}"
        if self.equal > MANY * self.counted:
            text = f"{_rows(self.equal)} equal to another, word for word: an export twice, or a patient twice?"
            yield text, "look for rows that were joined or exported twice"
        if self.spelled:
            text = (
                f"{self.spelled:,} patient ids differ from another only in zeros, case or invisible characters: "
                "patient_id: {column, normalise: [nfkc, case, zeros]} in the study would make them one"
            )
            yield text, "correct the export, or ask the consortium to write that line"

    def of_column(self, column: ColumnNotes) -> Iterator[str]:
        """Write what is odd about one column."""
        yield from self.unread_of(column)
        if column.share_outside(self.rows) > MOST:
            yield f"{column.name}: MOST VALUES LIE OUTSIDE the study's range: is it another unit?"
        if self.all_unknown(column):
            yield f"{column.name}: UNKNOWN OF ALL: is it another column?"

    def unread_of(self, column: ColumnNotes) -> Iterator[str]:
        """Write how many cells of a column could not be read, and where."""
        if column.unread:
            verb = "is" if column.unread == 1 else "are"
            where = _where(self.unit, column.where, column.unread)
            yield f"{column.name}: {column.unread:,} of {_rows(self.rows)} {verb} {_ODD[column.kind]}{where}"
        for why, records in column.why.items():
            yield f"{column.name}: of these {records:,}: {why}"
        if column.limits:
            count = f"{column.limits:,} cell{' begins' if column.limits == 1 else 's begin'}"
            yield (
                f"{column.name}: of these {count} with < or >, beyond what is measured: unknown, never that number; "
                "give it a value in words beside path, or export the limit itself, where it should count"
            )

    def all_unknown(self, column: ColumnNotes) -> bool:
        """Return whether a column says nothing of anybody."""
        return bool(self.rows) and column.unknown + column.unread == self.rows

    def _shares(self, column: ColumnNotes) -> Iterator[str]:
        if column.outside:
            yield f"{column.name}: {_share(column.outside, self.rows)} outside its range, moved to the edge"
        if column.unknown:
            yield f"{column.name}: {_share(column.unknown, self.rows)} unknown"
        if column.resized:
            yield f"{column.name}: {_share(column.resized, self.rows)} of another size, brought to the study's"


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _share(count: int, rows: int) -> str:
    """Return a share of the rows in percent; 0 % and 100 % say none and all."""
    percent = 100 * count / max(1, rows)
    if 0 < percent < 1:
        return "under 1 %"
    return "over 99 %" if 99 < percent < 100 else f"{percent:.0f} %"


def _cells(count: int) -> str:
    return f"{count:,} cell{' is' if count == 1 else 's are'}"


def _where(unit: str, numbers: "list[int] | tuple[int, ...]", count: int) -> str:
    shown = ", ".join(map(str, numbers[:SHOWN]))
    more = f" and {count - SHOWN} more" if count > SHOWN else ""
    return f" ({unit}{'s' if count > 1 else ''} {shown}{more})" if shown else ""
