r"""One mapping of a configuration file, read with all mistakes noted.

It raises nothing, and names the keys that were not read.

>>> problems: list[str] = []
>>> section = Section({"rounds": "often", "sead": 1}, "training", problems)
>>> section.problem("rounds", "an integer from 1 to 9", section.take("rounds"), "correct it")
>>> section.finish()
>>> print(*problems, sep="\n")
training.rounds: expected an integer from 1 to 9, found 'often'; correct it
training.sead: unknown key; valid: rounds
"""

import difflib
from collections.abc import Mapping
from typing import Any

from configs.errors import Problem
from configs.marks import Marks
from configs.shown import guarded, short
from configs.strict_yaml import AFTER_SCHEME

# Words of the field for what no study says, as it follows from what it says.
_DERIVED = dict.fromkeys(
    ("noise_multiplier", "sigma"),
    "the noise follows from epsilon, delta and the steps: remove it, archipel plan shows it",
) | {
    "loss": "it follows from task.type and is one of each patient alone, which Cox's is not: remove it",
    "sampling_rate": "the rate is batch_size over a hospital's training patients: say batch_size, at most all of them",
}


class Section:
    """One mapping of the file: notes problems instead of raising, and remembers which keys were read."""

    def __init__(
        self, values: Mapping[Any, Any], path: str, problems: list[str], marks: Marks | None = None, at: str = ""
    ) -> None:
        self._source, self._marks, self._at = values, marks, at
        self.values, self.path, self.problems = {str(key): value for key, value in values.items()}, path, problems
        self.known: set[str] = set()
        self.top = self

    def problem(self, key: str, expected: str, found: Any, advice: str) -> None:
        """Note that a key's value is not what it should be."""
        self.note(key, f"expected {expected}, found {short(in_words(found))}; {advice}")

    def note(self, key: str, text: str) -> None:
        """Note a problem in words."""
        name = AFTER_SCHEME.sub("://...", self._full(key))  # an address may hold a password
        line = guarded(f"{short(name)}: {text}").replace("\n", "\\n")  # a terminal will show it
        self.problems.append(Problem(line, self._where(key)))

    def _where(self, key: str) -> str:
        """Return the line and the column of a key, those of the section where it has none."""
        return (self._marks.where(self._source, key) or self._at) if self._marks else ""

    def _full(self, key: str) -> str:
        return ".".join(part for part in (self.path, key) if part)

    def take(self, key: str) -> Any:
        """Return the value as it is, None where there is none; the key counts as known."""
        self.known.add(key)
        return self.values.get(key)

    def section(self, key: str, expected: str, *, required: bool = True) -> "Section":
        """Return the mapping under a key, an empty one where it is missing."""
        value = self.take(key)
        if not isinstance(value, Mapping) and (required or value is not None):
            self.problem(key, expected, value, "add it" if value is None else "write it as key: value")
        values = value if isinstance(value, Mapping) else {}
        child = Section(values, self._full(key), self.problems, self._marks, self._where(key))
        child.top = self.top
        if not isinstance(value, Mapping) and (required or value is not None):
            child.problems = []  # its missing keys would only repeat the one problem above
        return child

    def silent(self) -> "Section":
        """Return an empty mapping at the same place, with problems that are dropped."""
        twin = Section({}, self.path, [])
        twin.top = Section(self.top.values, "", [])
        return twin

    def finish(self) -> None:
        """Note every key that was not read."""
        for key in self.values:
            if key not in self.known:
                near = difflib.get_close_matches(str(key), sorted(self.known), 1)
                advice = f"did you mean {near[0]!r}?" if near else f"valid: {', '.join(sorted(self.known))}"
                advice = _DERIVED.get(str(key), advice)
                if str(key).isdigit() and self.values[key] is None:
                    advice = "is it the end of a number with a decimal comma? Write 3.0, with a point"
                self.note(short(str(key)), f"unknown key; {advice}")


def in_words(value: Any) -> str:
    """Return a plain value as a message shows it: what is long by its kind, of an address the scheme alone."""
    words = "nothing" if value is None else repr(value) if is_scalar(value) or _is_brief(value) else kind_of(value)
    return AFTER_SCHEME.sub("://...", words)  # an address may hold a password


def is_scalar(value: Any) -> bool:
    """Return whether it is one YAML value, no list and no mapping."""
    return value is None or isinstance(value, str | int | float | bool)


def _is_brief(value: Any) -> bool:
    """Return whether it is a list of a few plain values, which says more than that it is a list."""
    return isinstance(value, list) and 0 < len(value) <= 8 and all(map(is_scalar, value)) and len(repr(value)) <= 60


def kind_of(value: Any) -> str:
    """Return what a YAML value is, in words."""
    names = {list: "a list", dict: "a mapping", str: "text", bool: "a truth value", int: "a number", float: "a number"}
    return "nothing" if value is None else names.get(type(value), f"a {type(value).__name__}")
