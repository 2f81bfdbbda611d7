"""Sections of several kinds, chosen by one key: `type`, `name`, `mode`, `connector`.

>>> from dataclasses import dataclass
>>> from configs.keys.declare import key
>>> from configs.keys.values import Integer
>>> @dataclass(frozen=True)
... class Tree:
...     name: str
...     depth: int = key(Integer(1, 9), default=3)
>>> models = OneOf(Sections("model", [Kind("tree", Tree)]), "name")
>>> section = Section({"name": "tree", "deapth": 2}, "model", [])
>>> models.read_mapping(section, {}), section.problems
(Tree(name='tree', depth=3), ["model.deapth: unknown key; did you mean 'depth'?"])
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from configs.errors import KindError
from configs.keys.declare import REQUIRED, Declaration, Key, declaration_of, read_keys, write_keys
from configs.keys.values import Around, Choice, Place, Value, nearest
from configs.kinds import Registry
from configs.sections import Section


class HasSection(Protocol):
    """A kind that a file can name, with the keys that it brings."""

    @property
    def name(self) -> str:
        """Return the name by which a file says it."""

    @property
    def section(self) -> type | Declaration:
        """Return a frozen dataclass with keys, or what it declares."""


@dataclass(frozen=True)
class Kind:
    """A kind that is no more than the declaration of its section."""

    name: str
    section: type | Declaration


Kinds = TypeVar("Kinds", bound=HasSection)


class Sections(Registry[Kinds]):
    """The kinds of one section, by name. A kind without a section that can be read is refused when it is registered."""

    def __init__(self, thing: str, kinds: Iterable[Kinds] = (), parts: Iterable[str] = ()) -> None:
        super().__init__(thing, ("section", *parts), kinds)

    def register(self, kind: Kinds) -> Kinds:
        """Add a kind and return it.

        Raises:
            KindError: as `Registry.register`; or its section is no dataclass.
        """
        section = getattr(kind, "section", Declaration)
        if not isinstance(section, Declaration) and not dataclasses.is_dataclass(section):
            raise KindError(f"{self.thing} {kind.name!r}: expected a dataclass as its section, found {section!r}")
        return super().register(kind)


@dataclass(frozen=True)
class OneOf(Value):
    """A section that is one of a registry's kinds, named by its key `tag`. A kind has a `name` and a `section`.

    Args:
        default: the kind where none is named.
        label: the field that holds the name of the key it stands under.
        strays: whether a key of another kind is answered with that kind's name, and not as an unknown key.
        changes: declarations that hold here in the place of a kind's own.
        refused: names that no kind has, and what to note of each.
    """

    kinds: Registry[Any]
    tag: str
    expected: str = "a mapping"
    required: bool = True
    default: str | None = None
    label: str = ""
    strays: bool = False
    changes: Mapping[str, Declaration] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def declaration(self, name: str) -> Declaration:
        """Return the declaration of the kind of that name."""
        return self.changes.get(name) or declaration_of(self.kinds[name].section)

    @property
    def declarations(self) -> Iterator[tuple[str, Declaration]]:
        """Yield each kind's name and declaration."""
        return ((name, self.declaration(name)) for name in self.kinds.shown)

    @property
    def children(self) -> tuple[tuple[str, Key], ...]:
        """Return the tag, and the keys of each kind."""
        default = REQUIRED if self.default is None else self.default
        tag = Key(self.tag, Choice(self.kinds.shown), default=default, about="which kind it is")
        rows = [(name, key) for name, kind in self.declarations for _, key in kind.children]
        shared = [key for _, key in rows if [other for _, other in rows].count(key) == len(self.kinds.shown)]
        kinds = (("" if key in shared else f"{self.tag}: {name}", key) for name, key in rows)
        return (("", tag), *kinds)

    def read(self, at: Place) -> Any:
        """Return what the kind's declaration makes of the section."""
        labels = {self.label: at.key} if self.label else {}
        return self.read_mapping(at.section.section(at.key, self.expected, required=self.required), at.around, labels)

    def read_mapping(self, section: Section, around: Around, given: Mapping[str, Any] | None = None) -> Any:
        """Return what the kind makes of the section; of an unknown kind no key is judged.

        Args:
            given: fields that no key fills.
        """
        entry = section.take(self.tag)
        entry = self.default if entry is None else entry
        name = entry if isinstance(entry, str) else ""
        if name not in self.kinds:
            advice = "choose one" if entry is not None else "add it"
            question = nearest(entry, self.kinds.names, advice)
            if name in self.refused:
                section.note(self.tag, self.refused[name])
            else:
                section.problem(self.tag, f"one of {', '.join(self.kinds.shown)}", entry, question)
            name = next((kind for kind in self.kinds.names if question == f"did you mean {kind!r}?"), "")
        if not name:
            section.known.update(key.name for _, kind in self.declarations for key in kind.keys)
            section.finish()
            section, name = section.silent(), self.kinds.names[0]
        elif self.strays:
            self._note_strays(section, name)
        declaration = self.declaration(name)
        tag = {self.tag: name} if self._holds_tag(declaration) else {}
        return read_keys(declaration, section, around, {**tag, **(given or {})})

    def _note_strays(self, section: Section, name: str) -> None:
        names = {key.name for key in self.declaration(name).keys}
        for other, declaration in self.declarations:
            for key in declaration.keys:
                if key.name not in names | section.known and section.take(key.name) is not None:
                    advice = f"remove it, or write {self.tag}: {other}"
                    section.note(key.name, f"expected nothing with {self.tag}: {name}, found a value; {advice}")

    def _holds_tag(self, declaration: Declaration) -> bool:
        kind = declaration.makes
        return dataclasses.is_dataclass(kind) and self.tag in {f.name for f in dataclasses.fields(kind) if f.init}

    def write(self, value: Any) -> dict[str, Any]:
        """Return the section as a mapping, its kind's name first."""
        name = getattr(value, self.tag)
        return {self.tag: name} | write_keys(self.declaration(name), value)

    @property
    def schema(self) -> dict[str, Any]:
        """Return an object of which each kind says more, so that an editor speaks of the kind that was meant."""
        return self.schema_with({})

    def schema_with(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        """Return the same with further properties, which any kind has."""
        names = [*self.kinds.shown, *([] if self.default is None else [None])]
        return {
            "type": "object",
            "properties": {self.tag: self._one_of_names(names)},
            "required": [] if self.default else [self.tag],
            "allOf": [self._schema(name, kind, properties) for name, kind in self.declarations],
        }

    def _one_of_names(self, names: Sequence[str | None]) -> dict[str, Any]:
        families = [self.kinds.family_of(name) for name in names]
        patterns = [{"type": "string", "pattern": f"^(?:{f.pattern.pattern})$"} for f in families if f is not None]
        enum = {"enum": [name for name, family in zip(names, families, strict=True) if family is None]}
        return {"anyOf": [enum, *patterns]} if patterns else enum

    def _schema(self, name: str, declaration: Declaration, properties: Mapping[str, Any]) -> dict[str, Any]:
        schema = declaration.schema
        allowed = {self.tag: True, **schema["properties"], **properties}
        if name == self.default:
            return {"if": {"properties": {self.tag: {"enum": [name, None]}}}, "then": schema | {"properties": allowed}}
        family = self.kinds.family_of(name)
        meant = {"const": name} if family is None else {"pattern": f"^(?:{family.pattern.pattern})$"}
        condition = {"properties": {self.tag: meant}, "required": [self.tag]}
        return {"if": condition, "then": schema | {"properties": allowed}}
