r"""The values of keys: text, numbers, choices.

Each value reads, writes and describes itself. A value that is not as expected is noted in its section, never raised; a
stand-in takes its place, so that the rest of the file is read too.

>>> section = Section({"rounds": "often"}, "training", [])
>>> Integer(1, 9).read(Place(section, "rounds", section.take("rounds"), {})), section.problems
(1, ["training.rounds: expected an integer from 1 to 9, found 'often'; correct it"])
>>> Integer(1, 9).schema
{'type': 'integer', 'minimum': 1, 'maximum': 9}
"""

import difflib
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from configs.sections import Section, is_scalar
from configs.shown import flaw_of

COLUMN_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,128}")
SITE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
TODO = "TODO"  # what a draft has in the place of what nobody documented (archipel new)
Around = Mapping[str, Any]  # what the file said before, by field: `cohort`, `task`, ...; and `folder`, where it lies


@dataclass(frozen=True, slots=True)
class Place:
    """A key of a section, as a file has it: `found` is its plain value, None where there is none."""

    section: Section
    key: str
    found: Any
    around: Around

    def problem(self, expected: str, todo: str, **instead: Any) -> None:
        """Note that the value is not what it should be; `found=` shows something in the value's place."""
        self.section.problem(self.key, expected, instead.get("found", self.found), todo)

    def note(self, text: str) -> None:
        """Note a problem in words."""
        self.section.note(self.key, text)


class Value:
    """A value that may stand under a key."""

    expected: str  # in the words of an error: "expected ..., found ..."

    def read(self, at: Place) -> Any:
        """Return the value that was found, or note what was expected and return a stand-in."""
        raise NotImplementedError

    def write(self, value: Any) -> Any:
        """Return the value as YAML and JSON have it."""
        return value

    @property
    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of what may stand there."""
        raise NotImplementedError

    @property
    def children(self) -> tuple[tuple[str, Any], ...]:
        """Return the keys below, each with the kind of section that has it, in the words of the file: `name: mlp`."""
        return ()


@dataclass(frozen=True)
class Text(Value):
    """A text that is there, not blank, and fits.

    `shown` texts are read by people on a terminal: see `configs.shown.flaw_of`.
    """

    expected: str = "text"
    pattern: re.Pattern[str] | None = None
    limit: int = 2000
    shown: bool = True
    lines: bool = False

    def read(self, at: Place) -> str:
        """Return the text, an empty one in place of a mistake."""
        good = isinstance(at.found, str) and 0 < len(at.found.strip()) <= self.limit and at.found != TODO
        if not good or (self.pattern and not self.pattern.fullmatch(at.found)):
            at.problem(self.expected, _todo(at.found))
        elif self.shown and (flaw := flaw_of(at.found, lines=self.lines)):
            at.note(f"{flaw}; correct it")
        else:
            return str(at.found)
        return ""

    @property
    def schema(self) -> dict[str, Any]:
        """Return a string with its bounds."""
        pattern = {"pattern": f"^(?:{self.pattern.pattern})$"} if self.pattern else {}
        return {"type": "string", "minLength": 1, "maxLength": self.limit} | pattern


COLUMN = Text("a column's name", COLUMN_NAME)
LINE = Text("text", COLUMN_NAME)


@dataclass(frozen=True)
class Choice(Value):
    """One of some words."""

    words: tuple[str, ...]

    @property
    def expected(self) -> str:  # type: ignore[override]
        """Return the words."""
        return f"one of {', '.join(self.words)}"

    def read(self, at: Place) -> str:
        """Return the word, the first one in place of a mistake; the nearest one is named."""
        if isinstance(at.found, str) and at.found in self.words:
            return at.found
        at.problem(self.expected, nearest(at.found, self.words, _todo(at.found, "choose one")))
        return self.words[0]

    @property
    def schema(self) -> dict[str, Any]:
        """Return the words as an enumeration."""
        return {"enum": list(self.words)}


@dataclass(frozen=True)
class Integer(Value):
    """A whole number in [low, high]."""

    low: int
    high: int

    @property
    def expected(self) -> str:  # type: ignore[override]
        """Return the bounds in words."""
        return f"an integer from {self.low} to {self.high}"

    def read(self, at: Place) -> int:
        """Return the number, the lowest one in place of a mistake."""
        if isinstance(at.found, int) and not isinstance(at.found, bool) and self.low <= at.found <= self.high:
            return at.found
        at.problem(self.expected, _todo(at.found))
        return self.low

    @property
    def schema(self) -> dict[str, Any]:
        """Return an integer with its bounds."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True)
class Number(Value):
    """A finite number in [low, high], or in (low, high] with `above`."""

    expected: str
    low: float
    high: float
    above: bool = False

    def read(self, at: Place) -> float:
        """Return the number, NaN in place of a mistake."""
        number = at.found
        if is_number(number) and (self.low < number if self.above else self.low <= number) and number <= self.high:
            return float(number)
        at.problem(self.expected, _todo(at.found))
        return math.nan

    @property
    def schema(self) -> dict[str, Any]:
        """Return a number with its bounds."""
        return {"type": "number", "exclusiveMinimum" if self.above else "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True)
class Truth(Value):
    """A truth value."""

    expected: str = "true or false"

    def read(self, at: Place) -> bool:
        """Return the truth value, false in place of a mistake."""
        if not isinstance(at.found, bool):
            at.problem(self.expected, _todo(at.found))
        return at.found is True

    @property
    def schema(self) -> dict[str, Any]:
        """Return a boolean."""
        return {"type": "boolean"}


@dataclass(frozen=True)
class Words(Value):
    """A list of distinct words; numbers and truth values are taken as they are written.

    Args:
        least: how many there are at least, and `most` at most.
        count: what to say of a list of too few or too many, and `todo` what to do.
    """

    expected: str
    least: int = 1
    most: int | None = None
    count: str = ""
    todo: str = ""

    def read(self, at: Place) -> tuple[str, ...]:
        """Return the words, none of them in place of a mistake."""
        if at.found is None and self.count:
            at.problem(self.count, self.todo)
            return ()
        if isinstance(at.found, list) and at.found and all(is_scalar(item) and item is not None for item in at.found):
            words = tuple(str(item).lower() if isinstance(item, bool) else str(item) for item in at.found)
            flaw = next(filter(None, map(flaw_of, words)), "")
            if flaw:
                at.note(f"{flaw}; correct it")
                return ()
            if len(set(words)) == len(words) and all(COLUMN_NAME.fullmatch(word) for word in words):
                if not self.least <= len(words) <= (self.most or len(words)):
                    at.problem(self.count, self.todo, found=list(words))
                return words
        at.problem(self.expected, "list them once each: [a, b]")
        return ()

    def write(self, value: Any) -> list[str]:
        """Return the words as a list."""
        return list(value)

    @property
    def schema(self) -> dict[str, Any]:
        """Return a list of distinct scalars."""
        most = {"maxItems": self.most} if self.most else {}
        items = {"type": ["string", "number", "boolean"]}
        return {"type": "array", "items": items, "minItems": self.least, "uniqueItems": True} | most


@dataclass(frozen=True)
class Span(Value):
    """A range [low, high] of numbers; it fills two fields."""

    expected: str = "[low, high] with low < high"

    def read(self, at: Place) -> tuple[float | None, float | None]:
        """Return the two ends, two None in place of a mistake."""
        numbers = isinstance(at.found, list) and all(map(is_number, at.found))
        if numbers and len(at.found) == 2 and at.found[0] < at.found[1]:
            return float(at.found[0]), float(at.found[1])
        comma = numbers and len(at.found) in (3, 4)
        todo = "write decimals with a point" if comma else "give the public range, agreed beforehand"
        at.problem(self.expected, todo)
        return None, None

    def write(self, value: Any) -> list[float]:
        """Return the two ends as a list."""
        return list(value)

    @property
    def schema(self) -> dict[str, Any]:
        """Return a list of two numbers."""
        return {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}


def is_number(value: Any) -> bool:
    """Return whether it is a finite number that a float can hold."""
    # Compared, as an integer of 400 digits is no float. No comparison holds for NaN.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def nearest(word: Any, words: tuple[str, ...], otherwise: str) -> str:
    """Return a question for the nearest of some words, or other advice where none is near."""
    near = [] if word is None else difflib.get_close_matches(str(word), words, 1)
    return f"did you mean {near[0]!r}?" if near else otherwise


def _todo(found: Any, otherwise: str = "correct it") -> str:
    """Return what to do about a value: add it, fill it in, or what else there is."""
    return "add it" if found is None else "fill it in" if found == TODO else otherwise
