r"""One mapping of a configuration file: typed reads that note every mistake instead of raising.

>>> problems: list[str] = []
>>> section = Section({"rounds": "often", "sead": 1}, "training", problems)
>>> section.integer("rounds", 1, 9), section.finish()
(1, None)
>>> print(*problems, sep="\n")
training.rounds: expected an integer from 1 to 9, found 'often'; correct it
training.sead: unknown key; valid: rounds
"""

import difflib
import math
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

from configs.shown import flaw_of, guarded, short
from configs.strict_yaml import AFTER_SCHEME

PATH = "a file's path"  # the one text of a file that is this machine's own
COLUMN_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,128}")
# Words of the field for what no study says, as it follows from what it says.
_DERIVED = dict.fromkeys(
    ("noise_multiplier", "sigma"),
    "the noise follows from epsilon, delta and the steps: remove it, archipel plan shows it",
) | {"sampling_rate": "the rate is batch_size over a hospital's training patients: say batch_size, at most all of them"}
Choice = TypeVar("Choice", bound=str)


class Section:
    """One mapping of the file: typed reads that note problems instead of raising, and a list of unused keys."""

    def __init__(self, values: Mapping[Any, Any], path: str, problems: list[str]) -> None:
        self.values, self.path, self.problems = {str(key): value for key, value in values.items()}, path, problems
        self.known: set[str] = set()

    def problem(self, key: str, expected: str, found: Any, advice: str) -> None:
        """Note that a key's value is not what it should be."""
        shown = "nothing" if found is None else repr(found) if is_scalar(found) or _is_brief(found) else kind_of(found)
        shown = AFTER_SCHEME.sub("://...", shown)  # an address may hold a password
        self.note(key, f"expected {expected}, found {short(shown)}; {advice}")

    def note(self, key: str, text: str) -> None:
        """Note a problem in words."""
        line = f"{short(self._full(key))}: {text}"
        self.problems.append(guarded(line).replace("\n", "\\n"))  # a terminal will show it

    def _full(self, key: str) -> str:
        return ".".join(part for part in (self.path, key) if part)

    def take(self, key: str) -> Any:
        """The value as it is, None where there is none; the key counts as known."""
        self.known.add(key)
        return self.values.get(key)

    def section(self, key: str, expected: str, required: bool = True) -> "Section":
        """The mapping under a key, an empty one where it is missing."""
        found = self.take(key)
        if not isinstance(found, Mapping) and (required or found is not None):
            self.problem(key, expected, found, "add it" if found is None else "write it as key: value")
        child = Section(found if isinstance(found, Mapping) else {}, self._full(key), self.problems)
        if not isinstance(found, Mapping):
            child.problems = []  # its missing keys would only repeat the one problem above
        return child

    def text(self, key: str, expected: str = "text", pattern: re.Pattern[str] | None = None, limit: int = 2000) -> str:
        """A text that is there, not blank, and fits."""
        found = self.take(key)
        good = isinstance(found, str) and 0 < len(found.strip()) <= limit
        if not good or (pattern and not pattern.fullmatch(found)):
            self.problem(key, expected, found, "add it" if found is None else "correct it")
            return ""
        if pattern in (None, COLUMN_NAME) and expected != PATH and (flaw := flaw_of(found, lines=key == "purpose")):
            self.note(key, f"{flaw}; correct it")
            return ""
        return cast(str, found)

    def optional_text(self, key: str, expected: str = "text") -> str | None:
        """A text, or None where there is none."""
        return None if self.take(key) is None else self.text(key, expected, COLUMN_NAME)

    def choice(self, key: str, choices: Iterable[Choice], default: Choice | None = None) -> Choice:
        """One of some words."""
        options = list(choices)
        found = self.take(key)
        if found is None and default is not None:
            return default
        if found in options and isinstance(found, str):
            return cast(Choice, found)
        near = difflib.get_close_matches(str(found), options, 1)
        advice = f"did you mean {near[0]!r}?" if near else "choose one" if found is not None else "add it"
        self.problem(key, f"one of {', '.join(options)}", found, advice)
        return options[0]

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number in [low, high]."""
        found = self.take(key)
        if found is None and default is not None:
            return default
        if isinstance(found, int) and not isinstance(found, bool) and low <= found <= high:
            return found
        self.problem(key, f"an integer from {low} to {high}", found, "correct it" if found is not None else "add it")
        return low

    def number(
        self, key: str, expected: str, low: float, high: float, *, above: bool = False, default: float | None = None
    ) -> float:
        """A finite number in [low, high], or in (low, high] with `above`."""
        found = self.take(key)
        if found is None and default is not None:
            return default
        if _is_number(found) and (low < found if above else low <= found) and found <= high:
            return float(found)
        self.problem(key, expected, found, "correct it" if found is not None else "add it")
        return math.nan

    def words(self, key: str, expected: str) -> tuple[str, ...]:
        """A list of distinct words; numbers and booleans are taken as they are written."""
        found = self.take(key)
        if found is None:
            return ()
        if isinstance(found, list) and found and all(is_scalar(item) and item is not None for item in found):
            words = tuple(_word(item) for item in found)
            flaw = next(filter(None, map(flaw_of, words)), "")
            if flaw:
                self.note(key, f"{flaw}; correct it")
                return ()
            if len(set(words)) == len(words) and all(COLUMN_NAME.fullmatch(word) for word in words):
                return words
        self.problem(key, expected, found, "list them once each: [a, b]")
        return ()

    def range(self, key: str, required: bool) -> tuple[float | None, float | None]:
        """[low, high], or two None."""
        found = self.take(key)
        if found is None and not required:
            return None, None
        if isinstance(found, list) and len(found) == 2 and all(map(_is_number, found)) and found[0] < found[1]:
            return float(found[0]), float(found[1])
        comma = isinstance(found, list) and len(found) in (3, 4) and all(map(_is_number, found))
        todo = "write decimals with a point" if comma else "give the public range, agreed beforehand"
        self.problem(key, "[low, high] with low < high", found, todo)
        return None, None

    def finish(self) -> None:
        """Note every key that nobody asked for."""
        for key in self.values:
            if key not in self.known:
                near = difflib.get_close_matches(str(key), sorted(self.known), 1)
                advice = f"did you mean {near[0]!r}?" if near else f"valid: {', '.join(sorted(self.known))}"
                advice = _DERIVED.get(str(key), advice)
                if str(key).isdigit() and self.values[key] is None:
                    advice = "is it the end of a number with a decimal comma? Write 3.0, with a point"
                self.note(short(str(key)), f"unknown key; {advice}")


def is_scalar(value: Any) -> bool:
    """Whether it is one YAML value, no list and no mapping."""
    return value is None or isinstance(value, str | int | float | bool)


def _is_brief(value: Any) -> bool:
    """Whether it is a list of a few plain values, which says more than that it is a list."""
    return isinstance(value, list) and 0 < len(value) <= 8 and all(map(is_scalar, value)) and len(repr(value)) <= 60


def _is_number(value: Any) -> bool:
    # Compared, as an integer of 400 digits is no float. No comparison holds for NaN.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def kind_of(value: Any) -> str:
    """Return what a YAML value is, in words."""
    names = {list: "a list", dict: "a mapping", str: "text", bool: "a truth value", int: "a number", float: "a number"}
    return "nothing" if value is None else names.get(type(value), f"a {type(value).__name__}")
