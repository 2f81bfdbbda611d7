"""Mistakes in a file's structure: a section that is not indented or indented too far, a misspelt key, a lost colon.

Each of them would be noted many times: as a section that is missing, and as keys that are unknown. So they are found
first, by the keys that are declared, each noted once, and put right in memory, so that the rest of the file is judged
as it was meant. The file itself is refused all the same. A key that is declared where it stands is never moved.

>>> from configs.keys.values import Integer
>>> local = Key("local", _Example())
>>> document = {"local": None, "rounds": 3}
>>> slips(document, [("", local)], Marks(document))
['local: expected its keys indented below it, found rounds at its own level; indent them']
>>> document
{'local': {'rounds': 3}}
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from configs.errors import Problem
from configs.keys.declare import Key
from configs.keys.values import Integer, Number, Truth, Value
from configs.marks import Marks
from configs.shown import guarded, short
from configs.strict_yaml import AFTER_SCHEME, read_scalar

NEAR = 0.75  # how alike a misspelt key is to the one that is missing
MOST = 20  # slips in a file
Children = Iterable[tuple[str, Key]]
_LOST_COLON = re.compile(r"([A-Za-z_][\w-]*)(?: +|:)(\S.*)")


class _Example(Value):
    expected = "a mapping"

    @property
    def children(self) -> tuple[tuple[str, Key], ...]:
        return (("", Key("rounds", Integer(1, 9))),)


class _Allowed:
    """The keys that a section may have: by name, and those whose names the file chooses."""

    def __init__(self, children: Children) -> None:
        self.named: dict[str, list[Value]] = {}
        self.open: list[Value] = []
        for _, key in children:
            if key.name.isupper():
                self.open.append(key.value)
            else:
                self.named.setdefault(key.name, []).append(key.value)

    def below(self, name: str) -> "_Allowed":
        """Return what a key's own section may have."""
        return _Allowed(child for value in self.named.get(name, self.open) for child in value.children)

    def fits(self, name: str, value: Any) -> bool:
        """Return whether a key may stand here: it is declared, or looks like one of those that the file names."""
        return name in self.named or any(_looks_like(value, member) for member in self.open)


def _looks_like(value: Any, member: Value) -> bool:
    names = {key.name for _, key in member.children}
    if names:
        return isinstance(value, Mapping) and bool(names & set(value))
    return not isinstance(value, Mapping | list) if isinstance(member, Integer | Number | Truth) else True


@dataclass(frozen=True)
class _Level:
    """One mapping of the file, with what may stand in it and the mappings around it, the nearest first."""

    values: dict[Any, Any]
    allowed: _Allowed
    path: str = ""
    around: "tuple[_Level, ...]" = ()

    @property
    def name(self) -> str:
        """Return where its keys stand, for people."""
        return f"in {short(self.path)}" if self.path else "at the top of the file"

    def full(self, key: Any) -> str:
        """Return a key's path."""
        return short(AFTER_SCHEME.sub("://...", ".".join(part for part in (self.path, str(key)) if part)))

    def lacks(self, name: str) -> bool:
        """Return whether a key that is declared by name is not there."""
        return name in self.allowed.named and name not in self.values


def slips(document: Any, children: Children, marks: Marks) -> list[str]:
    """Return the mistakes of a document's structure, and put them right in it."""
    problems: list[str] = []
    if not isinstance(document, dict):
        return problems
    top = _Level(document, _Allowed(children))
    while len(problems) < MOST and (problem := _first(top, marks)):
        problems.append(problem)
    return problems


def _first(level: _Level, marks: Marks) -> str:
    """Return the first mistake, put right; empty where there is none."""
    for key in list(level.values):
        name, value = str(key), level.values[key]
        if not level.allowed.fits(name, value):
            where = marks.where(level.values, name)
            for mend in (_lost_colon, _too_deep, _not_indented, _too_shallow, _misspelt):
                if text := mend(level, key, marks):
                    return Problem(guarded(text), where)
        if isinstance(value, dict):
            below = _Level(value, level.allowed.below(name), level.full(key), (level, *level.around))
            if problem := _first(below, marks):
                return problem
    return ""


def _lost_colon(level: _Level, key: Any, marks: Marks) -> str:
    match = _LOST_COLON.fullmatch(str(key))
    if match is None or level.values[key] is not None or not level.lacks(match.group(1)):
        return ""
    name = match.group(1)
    marks.move(key, level.values, level.values, name)
    level.values[name] = read_scalar(match.group(2))
    return f"{level.full(name)}: expected a colon and a space after it, found none; write {name}: and its value"


def _too_deep(level: _Level, key: Any, marks: Marks) -> str:
    for outer in level.around:
        if outer.lacks(str(key)):
            marks.move(key, level.values, outer.values)
            _take_in(level, outer, key, level.values, marks)
            return f"{outer.full(key)}: expected {outer.name}, found {level.name}; indent it less"
    return ""


def _not_indented(level: _Level, key: Any, marks: Marks) -> str:
    keys = list(level.values)
    for owner in reversed(keys[: keys.index(key)]):
        if level.values[owner] is None and level.allowed.below(str(owner)).fits(str(key), level.values[key]):
            taken = _take_in(level, level, owner, dict.fromkeys(keys[keys.index(key) :]), marks)
            text = f"expected its keys indented below it, found {_listed(taken)} at its own level"
            return f"{level.full(owner)}: {text}; indent them"
    return ""


def _too_shallow(level: _Level, key: Any, marks: Marks) -> str:
    keys = list(level.values)
    place = keys.index(key)
    for owner in reversed(keys[:place]):
        section = level.values[owner]
        if not isinstance(section, dict):
            continue
        inner = _Level(section, level.allowed.below(str(owner)), level.full(owner))
        if not inner.lacks(str(key)):
            continue
        taken = []
        for name in keys[place:]:
            if level.allowed.fits(str(name), level.values[name]) or not inner.lacks(str(name)):
                break
            marks.move(name, level.values, section)
            taken.append(short(str(name)))
        return f"{inner.full(key)}: expected {inner.name}, found {_listed(taken)} {level.name}; indent it more"
    return ""


def _take_in(level: _Level, outer: _Level, owner: Any, names: Mapping[Any, Any], marks: Marks) -> list[str]:
    """Move the keys of a level that are an empty section's own into it, up to the first that is not."""
    if outer.values[owner] is not None:
        return []
    below, taken = outer.allowed.below(str(owner)), []
    body: dict[Any, Any] = {}
    for key in list(names):
        known = level.allowed.fits(str(key), level.values[key])
        if known or not below.fits(str(key), level.values[key]):
            if level is outer:
                break
            continue
        marks.move(key, level.values, body)
        taken.append(short(str(key)))
    if taken:
        outer.values[owner] = body
    return taken


def _misspelt(level: _Level, key: Any, marks: Marks) -> str:
    missing = [name for name in level.allowed.named if name not in level.values]
    near = difflib.get_close_matches(str(key), missing, 1, NEAR)
    if not near:
        return ""
    text = f"{level.full(key)}: unknown key; did you mean {near[0]!r}?"
    marks.move(key, level.values, level.values, near[0])
    return text


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:3])} and others" if len(names) > 3 else ", ".join(names)
