r"""Sections of a file as frozen dataclasses that declare their keys.

A section is read, written and described by its fields.

>>> from configs.keys.values import Integer, Number
>>> @dataclass(frozen=True)
... class Local:
...     rounds: int = key(Integer(1, 9), "how often")
...     rate: float = key(Number("a rate from 0 to 1", 0.0, 1.0), default=0.5)
>>> section = Section({"rounds": 3, "rat": 0.1}, "local", [])
>>> local = read_keys(declaration_of(Local), section, {})
>>> local, section.problems
(Local(rounds=3, rate=0.5), ["local.rat: unknown key; did you mean 'rate'?"])
>>> write_keys(declaration_of(Local), local)
{'rounds': 3, 'rate': 0.5}

A section with `type`, `name`, `mode` or `connector` is one of several declarations: see configs/keys/one_of.py.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from configs.keys.values import Around, Place, Value
from configs.sections import Section, in_words
from configs.shown import short

REQUIRED: Any = type("Required", (), {"__repr__": lambda _: "REQUIRED"})()  # in the place of a default
Check = Callable[[Any, Section, Around], None]


@dataclass(frozen=True)
class Key:
    """One key of a section.

    Args:
        fills: the fields of the dataclass that it fills; the one of its own name unless given.
        default: what holds where the key is absent, or a function of the section and of what the file said before.
        unsaid: the default in words, where it is no plain value.
        about: what the key is, in a sentence without its full stop.
        written: of the dataclass, whether the key is in the canonical form; where None, if it holds anything.
        refused: why the key may not stand here, with `{found}` for its value; its fields keep the class's own defaults.
    """

    name: str
    value: Value
    fills: tuple[str, ...] = ()
    default: Any = REQUIRED
    unsaid: str = ""
    about: str = ""
    written: Callable[[Any], object] | None = None
    refused: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the names of the fields that the key fills."""
        return self.fills or (self.name,)

    def read(self, section: Section, around: Around) -> dict[str, Any]:
        """Return the fields that the key fills; what is wrong with it is noted in `section`."""
        entry = section.take(self.name)
        if self.refused:
            if entry is not None:
                section.note(self.name, self.refused.replace("{found}", short(in_words(entry))))
            return {}
        if entry is None and self.default is not REQUIRED:
            value = self.default(section, around) if callable(self.default) else self.default
        else:
            value = self.value.read(Place(section, self.name, entry, around))
        return {self.fields[0]: value} if len(self.fields) == 1 else dict(zip(self.fields, value, strict=True))

    def write(self, made: Any, get: Callable[[Any, str], Any] = getattr) -> dict[str, Any]:
        """Return the key with its plain value, or nothing where it is not in the canonical form."""
        if self.refused:
            return {}
        values = tuple(get(made, name) for name in self.fields)
        value = values[0] if len(values) == 1 else values
        is_written = value not in (None, (), (None, None)) if self.written is None else self.written(made)
        return {self.name: self.value.write(value)} if is_written else {}


def key(
    value: Value,
    about: str = "",
    *,
    default: Any = REQUIRED,
    init: Any = REQUIRED,
    name: str = "",
    fills: tuple[str, ...] = (),
    unsaid: str = "",
    written: Callable[[Any], object] | None = None,
) -> Any:
    """Declare a dataclass's field as a key of its section; see `Key`.

    Args:
        init: the field's default where the dataclass is made by hand, if it is another one than the key's.
        name: the key's name, if it is not the field's.
        fills: further fields that the key fills.
    """
    declared = Key(name, value, fills, default, unsaid, about, written)
    initial = default if init is REQUIRED else init
    metadata = {"key": declared}
    return field(metadata=metadata) if initial is REQUIRED else field(default=initial, metadata=metadata)


@dataclass(frozen=True)
class Declaration:
    """The keys of one section, in the order in which they are read and written, and what is made of them.

    Args:
        check: notes what no key can see alone; it gets what was made, its section, and what the file said before.
        get: returns a field of what was made.
    """

    makes: Callable[..., Any]
    keys: tuple[Key, ...]
    check: Check | None = None
    get: Callable[[Any, str], Any] = getattr

    def but(
        self, *, refused: Mapping[str, str] | None = None, check: Check | None = None, **changes: Mapping[str, Any]
    ) -> "Declaration":
        """Return the same declaration with changed keys, keys that are refused, or another check.

        Raises:
            KeyError: there is no key of such a name.
        """
        self._require({*(refused or {}), *changes})
        keys = tuple(
            replace(key, **{"refused": (refused or {}).get(key.name, key.refused), **changes.get(key.name, {})})
            for key in self.keys
        )
        return replace(self, keys=keys, check=check or self.check)

    def without(self, *names: str) -> "Declaration":
        """Return the same declaration without some keys, which are unknown then.

        Raises:
            KeyError: there is no key of such a name.
        """
        self._require(set(names))
        return replace(self, keys=tuple(key for key in self.keys if key.name not in names))

    def _require(self, names: set[str]) -> None:
        if odd := names - {key.name for key in self.keys}:
            raise KeyError(f"no key of the section is named {', '.join(sorted(odd))}")

    @property
    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of such a section."""
        keys = [key for key in self.keys if not key.refused]
        return {
            "type": "object",
            "properties": {key.name: described(key) for key in keys},
            "required": [key.name for key in keys if key.default is REQUIRED],
            "additionalProperties": False,
        }

    @property
    def children(self) -> tuple[tuple[str, Key], ...]:
        """Return the keys that may stand there."""
        return tuple(("", key) for key in self.keys if not key.refused)


def described(key: Key) -> dict[str, Any]:
    """Return a key's JSON Schema: null says what an absent key says."""
    schema = key.value.schema
    if key.default is not REQUIRED and "null" not in schema.get("type", ()):
        schema = {"anyOf": [schema, {"type": "null"}]}
    return schema | ({"description": key.about} if key.about else {})


@functools.cache
def _of_class(section: type) -> Declaration:
    keys = []
    for each in sorted(dataclasses.fields(section), key=lambda each: bool(each.kw_only)):  # a base class's come last
        if "key" in each.metadata:
            declared = each.metadata["key"]
            keys.append(replace(declared, name=declared.name or each.name, fills=(each.name, *declared.fills)))
    check = getattr(section, "check", None)
    return Declaration(section, tuple(keys), check)


def declaration_of(section: "type | Declaration") -> Declaration:
    """Return what a section's dataclass declares; its method `check(section, around)`, if any, is the check."""
    return section if isinstance(section, Declaration) else _of_class(section)


def read_keys(
    declaration: Declaration, section: Section, around: Around, given: Mapping[str, Any] | None = None
) -> Any:
    """Return what a declaration makes of a section; whatever is wrong with it is noted there.

    Args:
        given: fields that no key fills.
    """
    values: dict[str, Any] = dict(given or {})
    for key in declaration.keys:
        values |= key.read(section, {**around, **values})
    instance = declaration.makes(**values)
    if declaration.check is not None:
        declaration.check(instance, section, around)
    section.finish()
    return instance


def write_keys(declaration: Declaration, made: Any) -> dict[str, Any]:
    """Return a section as YAML and JSON have it, defaults written out."""
    return {name: plain for key in declaration.keys for name, plain in key.write(made, declaration.get).items()}


@dataclass(frozen=True)
class Part(Value):
    """A section within a section.

    Args:
        label: the field that holds the name of the key it stands under.
    """

    section: type | Declaration
    expected: str = "a mapping"
    required: bool = True
    label: str = ""

    def read(self, at: Place) -> Any:
        """Return what the section's declaration makes of it."""
        child = at.section.section(at.key, self.expected, required=self.required)
        labels = {self.label: at.key} if self.label else {}
        return read_keys(declaration_of(self.section), child, at.around, labels)

    def write(self, value: Any) -> dict[str, Any]:
        """Return the section as a mapping."""
        return write_keys(declaration_of(self.section), value)

    @property
    def schema(self) -> dict[str, Any]:
        """Return the section's JSON Schema."""
        return declaration_of(self.section).schema

    @property
    def children(self) -> tuple[tuple[str, Key], ...]:
        """Return the section's keys."""
        return declaration_of(self.section).children


@dataclass(frozen=True)
class Entries(Value):
    """A mapping of names that the file chooses: hospitals, columns, studies.

    Args:
        of: what stands under each name.
        names: what a name must be, and what to note of one that is not.
        build: makes one member of a name and its value; `split` takes it apart again.
        member: what is named, in capitals: HOSPITAL.
        least: what to note where there is none.
    """

    of: Value
    names: Callable[[str], str]
    expected: str = "a mapping"
    required: bool = True
    build: Callable[[str, Any], Any] = lambda _, value: value
    split: Callable[[Any], tuple[str, Any]] = lambda member: (member.name, member)
    member: str = "NAME"
    least: str = ""
    ordered: bool = True

    def read(self, at: Place) -> tuple[Any, ...]:
        """Return the members, sorted by name where they are `ordered`."""
        child = at.section.section(at.key, self.expected, required=self.required)
        members = []
        for name in child.values:
            if flaw := self.names(name):
                child.note(short(name), flaw)
            members.append((name, self.build(name, self.of.read(Place(child, name, child.take(name), at.around)))))
        if self.least and not members and isinstance(at.found, Mapping):
            child.note("", self.least)
        return tuple(member for _, member in (sorted(members, key=lambda pair: pair[0]) if self.ordered else members))

    def write(self, value: Any) -> dict[str, Any]:
        """Return the mapping of names to what stands under them."""
        return {name: self.of.write(member) for name, member in map(self.split, value)}

    @property
    def schema(self) -> dict[str, Any]:
        """Return the schema of an object with equal properties."""
        least = {"minProperties": 1} if self.least else {}
        return {"type": "object", "additionalProperties": self.of.schema} | least

    @property
    def children(self) -> tuple[tuple[str, Key], ...]:
        """Return one key with a name that the file chooses."""
        return (("", Key(self.member, self.of, about="each of them")),)
