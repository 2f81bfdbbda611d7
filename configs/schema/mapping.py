"""The mapping of a study to one hospital's data: its columns, words, missing codes, numbers, units and dates.

A study is the same for all hospitals. Beside `connector` and `path` a source says how this hospital writes what the
study names; client/connectors/mapping.py applies it, row by row. Study's names stand on the left of every key.

>>> from configs.keys.declare import declaration_of, read_keys
>>> section = Section({"columns": {"age": "AGE_PAT"}, "units": {"chol": {"from": "mmol/L", "to": "mg/dl"}}}, "", [])
>>> mapping = read_keys(declaration_of(SiteMapping), section, {})
>>> mapping.columns, section.problems
((('age', 'AGE_PAT'),), ['units.chol.times: expected a factor other than 0, found nothing; add it'])
"""

import datetime
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from configs.keys.declare import Entries, Part, key
from configs.keys.values import COLUMN, COLUMN_NAME, LINE, Around, Choice, Place, Value, Words, is_number
from configs.sections import Section, is_scalar
from configs.shown import flaw_of, short

ISO = "ISO"  # YYYY-MM-DD, with or without a time
DATE_PARTS = re.compile(r"YYYY|MM|DD|HH|mm|ss")
DURATIONS = ("days", "hours", "weeks", "months", "years", "whole years")
UNKNOWN_WORD = ""
Pairs = tuple[tuple[str, str], ...]


class _Word(Value):
    """A word as a cell has it; null is an unknown one."""

    expected = "a word, or null for unknown"

    def read(self, at: Place) -> str:
        """Return the word."""
        if at.found is None:
            return UNKNOWN_WORD
        word = str(at.found).lower() if isinstance(at.found, bool) else str(at.found)
        if not is_scalar(at.found) or flaw_of(word) or not COLUMN_NAME.fullmatch(word):
            at.problem(self.expected, "write local: study's, as H: male")
        return word

    def write(self, value: str) -> str | None:
        """Return the word, or null."""
        return value or None

    @property
    def schema(self) -> dict[str, Any]:
        """Return any scalar."""
        return {"type": ["string", "number", "boolean", "null"]}


@dataclass(frozen=True)
class Sign(Value):
    """One sign, which a file may write by its name: `comma` is `,`."""

    names: Mapping[str, str]

    @property
    def expected(self) -> str:  # type: ignore[override]
        """Return the names."""
        return f"one of {', '.join(self.names)}"

    def read(self, at: Place) -> str:
        """Return the sign, the first one in place of a mistake."""
        sign = self.names.get(at.found, at.found) if isinstance(at.found, str) else None
        if sign in self.names.values():
            return str(sign)
        at.problem(self.expected, "choose one" if at.found is not None else "add it")
        return next(iter(self.names.values()))

    def write(self, value: str) -> str:
        """Return the sign's name."""
        return next(name for name, sign in self.names.items() if sign == value)

    @property
    def schema(self) -> dict[str, Any]:
        """Return names and signs."""
        return {"enum": [*self.names, *self.names.values()]}


class _Factor(Value):
    """A finite number that is not 0."""

    expected = "a factor other than 0"

    def read(self, at: Place) -> float:
        """Return the factor, 1 in place of a mistake."""
        if is_number(at.found) and at.found != 0:
            return float(at.found)
        at.problem(self.expected, "add it" if at.found is None else "correct it")
        return 1.0

    @property
    def schema(self) -> dict[str, Any]:
        """Return any number but 0."""
        return {"type": "number", "not": {"const": 0}}


class _Summand(Value):
    """A finite number."""

    expected = "a number"

    def read(self, at: Place) -> float:
        """Return the number, 0 in place of a mistake."""
        if is_number(at.found):
            return float(at.found)
        at.problem(self.expected, "correct it")
        return 0.0

    @property
    def schema(self) -> dict[str, Any]:
        """Return a number."""
        return {"type": "number", "minimum": -sys.float_info.max, "maximum": sys.float_info.max}


@dataclass(frozen=True, slots=True)
class UnitChange:
    """A number's unit here and in the study: value in `after` = value in `before` * times + plus."""

    name: str
    before: str = key(LINE, "the unit in the hospital's data", name="from")
    after: str = key(LINE, "the study's unit", name="to")
    times: float = key(_Factor(), "the factor, which depends on the substance: it is always written")
    plus: float = key(_Summand(), "what is added after the factor", default=0.0)

    def check(self, section: Section, _around: Around) -> None:
        """Note a change that changes nothing, or one unit that would become another number of itself."""
        if self.before and self.before == self.after and (self.times, self.plus) != (1.0, 0.0):
            section.problem("to", f"another unit than {self.before!r}", self.after, "correct it, or write times: 1")

    def convert(self, value: float) -> float:
        """Return a value in the study's unit.

        >>> UnitChange("chol", "mmol/L", "mg/dl", 38.5).convert(5.0)
        192.5
        """
        return value * self.times + self.plus

    def __str__(self) -> str:
        plus = f" {'+' if self.plus > 0 else '-'} {abs(self.plus):g}" if self.plus else ""
        return f"{self.before} times {self.times:.10g}{plus} is {self.after}"


class DateForm(Value):
    """The form of a date: DD/MM/YYYY, YYYY-MM-DD HH:mm, YYYY alone, or ISO."""

    expected = "a date's form, as DD/MM/YYYY or YYYY-MM-DD HH:mm"

    def read(self, at: Place) -> str:
        """Return the form, ISO in place of a mistake."""
        if at.found == ISO:
            return ISO
        parts = DATE_PARTS.findall(at.found) if isinstance(at.found, str) else []
        rest = DATE_PARTS.sub("", at.found) if parts else ""
        apart = len(set(parts)) == len(parts) and "YYYY" in parts and ("MM" in parts or "DD" not in parts)
        if apart and len(at.found) <= 40 and not re.search(r"\w", rest.replace("T", "").replace("Z", "")):
            return str(at.found)
        at.problem(self.expected, "write the year with four digits (YYYY), minutes as mm" if parts else "correct it")
        return ISO

    @property
    def schema(self) -> dict[str, Any]:
        """Return a string with a year."""
        return {"type": "string", "pattern": "YYYY|^ISO$", "maxLength": 40}


class _DateForms(Value):
    """One form for both dates, or `{from: YYYY, to: DD/MM/YYYY}`."""

    expected = DateForm.expected
    _ends = ("from", "to")

    def read(self, at: Place) -> tuple[str, str]:
        """Return the form of each of the two dates."""
        if not isinstance(at.found, Mapping):
            form = DateForm().read(at)
            return form, form
        child = at.section.section(at.key, self.expected)
        entries = [(end, child.take(end)) for end in self._ends]
        start, end = (
            DateForm().read(Place(child, name, ISO if entry is None else entry, at.around)) for name, entry in entries
        )
        child.finish()
        return start, end

    def write(self, value: tuple[str, str]) -> Any:
        """Return one form, or both."""
        return value[0] if value[0] == value[1] else dict(zip(self._ends, value, strict=True))

    @property
    def schema(self) -> dict[str, Any]:
        """Return a form, or one for each end."""
        ends = {"type": "object", "properties": dict.fromkeys(self._ends, DateForm().schema)}
        return {"anyOf": [DateForm().schema, {**ends, "additionalProperties": False}]}


def day_of(text: str) -> datetime.datetime | None:
    """Return the public day that a text is, YYYY-MM-DD; None where it is a column's name."""
    try:
        return datetime.datetime.strptime(text, "%Y-%m-%d") if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else None
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Dates:
    """A study's number that is the time between two dates: columns of the hospital's, or one of them a public day."""

    name: str
    start: str = key(COLUMN, "the hospital's column with the first date, or a public day YYYY-MM-DD", name="from")
    end: str = key(COLUMN, "the hospital's column with the second date, or a public day YYYY-MM-DD", name="to")
    forms: tuple[str, str] = key(
        _DateForms(),
        "how dates are written, as DD/MM/YYYY HH:mm, for both or {from, to}; a year alone is its 1 July",
        default=(ISO, ISO),
        unsaid="ISO: YYYY-MM-DD, with or without a time",
        name="format",
    )
    unit: str = key(
        Choice(DURATIONS),
        "what is counted from the first date to the second; whole years are birthdays",
        default="days",
    )

    def check(self, section: Section, _around: Around) -> None:
        """Note two public days, which no patient's number can come of."""
        if self.start and self.end and not self.columns:
            section.note("to", "expected a column, found a second public day; name the column with the date")

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the hospital's columns, without public days."""
        return tuple(dict.fromkeys(text for text in (self.start, self.end) if text and day_of(text) is None))

    def __str__(self) -> str:
        forms = self.forms[0] if self.forms[0] == self.forms[1] else " and ".join(self.forms)
        return f"{self.unit} from {self.start} to {self.end}, dates as {forms}"


@dataclass(frozen=True)
class _Missing(Value):
    """Codes for unknown: a list for every column but the patient's id, or a mapping of columns to lists."""

    expected: str = "a list of codes, or a mapping of column: [codes]"
    _codes = Words("a list of codes that stand for unknown")

    def read(self, at: Place) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Return the codes by column; those of every column stand under the empty name."""
        if isinstance(at.found, Mapping):
            return _by_column(self._codes, self.expected).read(at)
        codes = self._codes.read(at)
        return (("", codes),) if codes else ()

    def write(self, value: Any) -> Any:
        """Return the list, or the lists by column."""
        written = {name: list(codes) for name, codes in value}
        return written.get("", written)

    @property
    def schema(self) -> dict[str, Any]:
        """Return a list, or an object of lists."""
        return {"anyOf": [self._codes.schema, {"type": "object", "additionalProperties": self._codes.schema}]}


def _name_flaw(name: str) -> str:
    return "" if COLUMN_NAME.fullmatch(name) else "expected a column of the study; correct it"


def _word_flaw(word: str) -> str:
    return "" if COLUMN_NAME.fullmatch(word) else "expected a word of the hospital's data; correct it"


def _pair(name: str, value: Any) -> tuple[str, Any]:
    return name, value


def _same(pair: tuple[str, Any]) -> tuple[str, Any]:
    return pair


def _by_column(of: Value, expected: str) -> Entries:
    return Entries(of, _name_flaw, expected, build=_pair, split=_same, member="COLUMN")


_WORDS = Entries(_Word(), _word_flaw, "a mapping of local word: study's word", build=_pair, split=_same, member="WORD")
DECIMALS = {"point": ".", "comma": ","}
THOUSANDS = {"none": "", "space": " ", "point": ".", "comma": ",", "apostrophe": "'"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteMapping:
    """How one hospital writes what a study names. Without any key its data are written as the study says."""

    columns: Pairs = key(
        _by_column(COLUMN, "a mapping of study's column: local column"),
        "the hospital's name of a study's column",
        default=(),
    )
    words: tuple[tuple[str, Pairs], ...] = key(
        _by_column(_WORDS, "a mapping of column: {local word: study's word}"),
        "by the study's column, what the hospital's words are in the study; null is unknown",
        default=(),
    )
    missing: tuple[tuple[str, tuple[str, ...]], ...] = key(
        _Missing(), "codes for unknown, of every column but the patient's id, or by the study's column", default=()
    )
    units: tuple[UnitChange, ...] = key(
        Entries(Part(UnitChange, "a mapping with from, to and times", label="name"), _name_flaw, member="COLUMN"),
        "by the study's column, the hospital's unit and the factor to the study's",
        default=(),
    )
    dates: tuple[Dates, ...] = key(
        Entries(Part(Dates, "a mapping with from and to", label="name"), _name_flaw, member="COLUMN"),
        "a study's number as the time between two of the hospital's dates",
        default=(),
    )
    decimal: str | None = key(Sign(DECIMALS), "the sign before decimals", default=None, unsaid="point")
    thousands: str | None = key(
        Sign(THOUSANDS), "the sign between thousands; any kind of space is space", default=None, unsaid="none"
    )

    def check(self, section: Section, _around: Around) -> None:
        """Note what two keys say of one column or of one sign."""
        dated = {dates.name for dates in self.dates}
        for key_name, names in (
            ("columns", [name for name, _ in self.columns]),
            ("units", [change.name for change in self.units]),
            ("words", [name for name, _ in self.words]),
        ):
            for name in sorted(dated.intersection(names)):
                section.note(f"{key_name}.{short(name)}", "expected nothing, as dates gives this column; keep one")
        if self.thousands_sign == self.decimal_sign:
            section.problem("thousands", "another sign than decimal's", self.thousands_sign, "correct one of the two")

    @property
    def decimal_sign(self) -> str:
        """Return the sign before decimals."""
        return self.decimal or "."

    @property
    def thousands_sign(self) -> str:
        """Return the sign between thousands, empty where there is none."""
        return self.thousands or ""

    @property
    def mapped_names(self) -> Iterator[tuple[str, str]]:
        """Yield each key of the mapping and a study's column that it names."""
        yield from (("columns", name) for name, _ in self.columns)
        yield from (("words", name) for name, _ in self.words)
        yield from (("missing", name) for name, _ in self.missing if name)
        yield from (("units", change.name) for change in self.units)
        yield from (("dates", dates.name) for dates in self.dates)
