"""Registries of kinds (tasks, models, connectors, releases, ...), by the name in a study.

A kind is one object with a `name`. The product's own kinds are given when a registry is made; any other is added with
`register`, before the first study is read. Mistakes of a kind are raised then, not in the middle of a study.

>>> from types import SimpleNamespace
>>> tasks = Registry("task type", ("encode", "loss"), [SimpleNamespace(name="binary", encode=None, loss=None)])
>>> tasks["binary"].name, tasks.names
('binary', ('binary',))
>>> tasks["survival"]
Traceback (most recent call last):
    ...
configs.errors.KindError: task type: expected one of binary, found 'survival'; correct it, or install what brings it
>>> tasks.register(SimpleNamespace(name="survival", encode=None))
Traceback (most recent call last):
    ...
configs.errors.KindError: task type 'survival' (types.SimpleNamespace): expected encode and loss, found no loss; add it
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from configs.errors import KindError
from configs.shown import guarded, short


class Named(Protocol):
    """Anything that a study can name."""

    @property
    def name(self) -> str:
        """Return the name by which a file or message says it."""


Kind = TypeVar("Kind", bound=Named)


@dataclass(frozen=True)
class Family(Generic[Kind]):
    """Kinds whose names are given elsewhere, by what somebody installs: the models of study kits, say.

    Args:
        name: what stands for such a name in a message for people, such as KIT/MODEL; it is no kind's name.
        pattern: what such names look like.
        of: returns the kind of a name.
    """

    name: str
    pattern: re.Pattern[str]
    of: Callable[[str], Kind]


class Registry(Generic[Kind]):
    """The kinds of one thing, by name, in the order in which they were registered."""

    def __init__(self, thing: str, parts: Iterable[str] = (), kinds: Iterable[Kind] = ()) -> None:
        """Hold the given kinds.

        Args:
            thing: what the kinds are kinds of, in the words of an error message.
            parts: attributes that each kind must have.

        Raises:
            KindError: as `register`.
        """
        self.thing, self.parts = thing, tuple(parts)
        self._kinds: dict[str, Kind] = {}
        self._families: dict[str, Family[Kind]] = {}
        for kind in kinds:
            self.register(kind)

    def register(self, kind: Kind) -> Kind:
        """Add a kind and return it; the very same one a second time changes nothing.

        Raises:
            KindError: another kind has its name, or one of its parts is missing.
        """
        missing = [part for part in self.parts if _is_missing(kind, part)]
        if missing:
            parts = " and ".join(self.parts)
            raise KindError(f"{self._describe(kind)}: expected {parts}, found no {' and no '.join(missing)}; add it")
        present = self._kinds.setdefault(kind.name, kind)
        if present is not kind:
            raise KindError(
                f"{self._describe(kind)}: expected a name of its own, "
                f"found {self._describe(present)} under the same one; rename one of the two"
            )
        return kind

    def register_with(self, kind: Kind, keys: Named, declared: "Registry[Any]") -> None:
        """Add a kind, and to another registry the keys by which files name it.

        Raises:
            KindError: as `register`; or the keys have another name.
        """
        if keys.name != kind.name:
            raise KindError(f"{self.thing} {kind.name!r}: expected keys of that name, found {keys.name!r}; correct one")
        declared.register(keys)
        self.register(kind)

    def register_family(self, family: Family[Kind]) -> None:
        """Add kinds by what their names look like, after those that have names of their own."""
        self._families[family.name] = family

    def family_of(self, name: object) -> Family[Kind] | None:
        """Return the family that a name belongs to, or that is called so."""
        if name in self._kinds or not isinstance(name, str):
            return None
        fitting = (family for family in self._families.values() if family.pattern.fullmatch(name))
        return self._families.get(name) or next(fitting, None)

    def __getitem__(self, name: str) -> Kind:
        """Return the kind of that name.

        Raises:
            KindError: there is none; the message names those there are.
        """
        if (family := self.family_of(name)) is not None:
            return family.of(name)
        try:
            return self._kinds[name]
        except KeyError:
            names, word = ", ".join(self.shown), guarded(short(str(name)))
            text = f"{self.thing}: expected one of {names}, found {word!r}; correct it, or install what brings it"
            raise KindError(text) from None

    def __contains__(self, name: object) -> bool:
        return name in self._kinds or (name not in self._families and self.family_of(name) is not None)

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._kinds.values())

    @property
    def names(self) -> tuple[str, ...]:
        """Return the registered names, in order."""
        return tuple(self._kinds)

    @property
    def shown(self) -> tuple[str, ...]:
        """Return the same, and what stands for the names of families."""
        return (*self._kinds, *self._families)

    def _describe(self, kind: Kind) -> str:
        # The file's own class, so that two kinds of one name can both be found.
        maker = kind if isinstance(kind, type) else type(kind)
        return f"{self.thing} {kind.name!r} ({maker.__module__}.{maker.__qualname__})"


def _is_missing(kind: object, part: str) -> bool:
    """Return whether a kind has no such part, or only the abstract one of its base class."""
    return not hasattr(kind, part) or getattr(getattr(kind, part), "__isabstractmethod__", False)
