"""Conversion of frozen dataclasses to JSON values and back.

A reader collects every mistake with its place. A field's type is its form in the file, `Annotated` with its meaning.
`OMIT` leaves a field that holds its default out of the file; `LATER` marks one that a file may lack; `Within` bounds a
number. Reading takes None, the default or the type's empty value where a key is absent or null, and skips unknown keys,
so that files of a newer release can be read. A class may define `present_form`, which brings the form of an earlier
release to the present one, and `flaws`, which yields a place and what was expected there where its fields contradict
each other.

>>> @dataclass(frozen=True)
... class Point:
...     round: Annotated[int, "Number of the round."]
...     value: Annotated[float | None, "The metric after it."]
>>> read(Point, {"round": 3, "value": 0.5, "later": 1}), plain(Point(3, None))
(Point(round=3, value=0.5), {'round': 3, 'value': None})
>>> read(Point, {"value": "high"}, "curve[0]")
Traceback (most recent call last):
    ...
configs.errors.RecordError: curve[0].round: expected a value, found nothing
curve[0].value: expected a finite number, found text
"""

import math
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from configs.errors import RecordError

Record = TypeVar("Record")
LARGEST = 1e100  # of a number; what is beyond is no figure of anything
MOST = 1 << 53  # of a whole number: JSON readers agree up to here


@dataclass(frozen=True)
class Within:
    """Bounds of a number, both included."""

    low: float
    high: float


OMIT = object()  # marks a field that is not written where it holds its default
LATER = object()  # marks a field that a file may lack: reading takes the empty value of its type
_EMPTY: Mapping[Any, Any] = {str: "", int: 0, float: 0.0, bool: False, tuple: (), Mapping: {}}


@dataclass(frozen=True)
class Field:
    """One field of a record: its name, its type in the file, its meaning, and how it is read and written."""

    name: str
    form: Any
    meaning: str
    default: Any  # what reading takes where the key is absent or null; MISSING where it must be there
    omitted: bool
    bounds: Within | None


@cache
def fields_of(kind: type) -> tuple[Field, ...]:
    """Return a dataclass's fields in the order of the file."""
    hints = get_type_hints(kind, include_extras=True)
    return tuple(_field(entry, hints[entry.name]) for entry in fields(kind))


def _field(entry: Any, hint: Any) -> Field:
    form, marks = (hint.__origin__, hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())
    default = entry.default if entry.default_factory is MISSING else entry.default_factory()
    if default is MISSING and _takes_none(form):
        default = None
    elif default is MISSING and LATER in marks:
        default = _EMPTY[get_origin(form) or form]
    return Field(
        name=entry.name,
        form=form,
        meaning=next((mark for mark in marks if isinstance(mark, str)), ""),
        default=default,
        omitted=OMIT in marks,
        bounds=next((mark for mark in marks if isinstance(mark, Within)), None),
    )


def plain(value: Any) -> Any:
    """Return a record as JSON values: objects in the order of its fields, without those that are omitted."""
    if is_dataclass(value) and not isinstance(value, type):
        entries = ((entry, getattr(value, entry.name)) for entry in fields_of(type(value)))
        return {e.name: plain(content) for e, content in entries if not (e.omitted and content == e.default)}
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, tuple | list) else value


def read(kind: type[Record], document: Any, path: str = "", *, clean: Callable[[str], str] = str) -> Record:
    """Return a record from JSON values.

    Args:
        path: where the values stand in their file, for the mistakes.
        clean: what is done to every text and name.

    Raises:
        RecordError: with every mistake, each with its place, what was expected and what was found.
    """
    reader = _Reader(clean)
    record = reader.record(kind, document, path)
    if reader.problems:
        raise RecordError(reader.problems)
    return record  # type: ignore[no-any-return]


class _Reader:
    """Reads values of one document and collects what is wrong with them."""

    def __init__(self, clean: Callable[[str], str]) -> None:
        self._clean, self.problems = clean, list[str]()

    def record(self, kind: Any, value: Any, path: str) -> Any:
        if not isinstance(value, Mapping):
            return self._refuse(path, "an object", value)
        if hasattr(kind, "present_form"):
            value = kind.present_form(value)
        before = len(self.problems)
        entries = {entry.name: self._entry(entry, value.get(entry.name), path) for entry in fields_of(kind)}
        if len(self.problems) > before:
            return None
        record = kind(**entries)
        for place, expected in record.flaws() if hasattr(record, "flaws") else ():
            self._refuse(f"{path}.{place}".strip("."), expected, value)
        return record

    def _entry(self, entry: Field, value: Any, path: str) -> Any:
        if self._is_plain(entry.form, value, entry.bounds):  # most fields; their place is never needed
            return value
        place = f"{path}.{entry.name}".lstrip(".")
        if value is None:
            return self._refuse(place, "a value", value) if entry.default is MISSING else entry.default
        return self._value(entry.form, value, place, entry.bounds)

    def _is_plain(self, form: Any, value: Any, bounds: Within | None) -> bool:
        """Return whether a value is surely of its form and is taken as it is."""
        if form is str:
            return type(value) is str and self._clean is str
        return form is int and type(value) is int and bounds is None and 0 <= value <= MOST

    def _value(self, form: Any, value: Any, path: str, bounds: Within | None) -> Any:
        origin, arguments = get_origin(form), get_args(form)
        if form is Any or (value is None and _takes_none(form)):
            return value
        if origin in (Union, types.UnionType):
            (inner,) = (argument for argument in arguments if argument is not types.NoneType)
            return self._value(inner, value, path, bounds)
        if origin is tuple:
            return self._list(arguments, value, path, bounds)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return self._mapping(arguments[1], value, path, bounds)
        if is_dataclass(form):
            return self.record(form, value, path)
        return self._scalar(form, value, path, bounds)

    def _list(self, forms: tuple[Any, ...], value: Any, path: str, bounds: Within | None) -> Any:
        if not isinstance(value, list | tuple):
            return self._refuse(path, "a list", value)
        if forms[-1] is not Ellipsis and len(value) != len(forms):
            return self._refuse(path, f"{len(forms)} entries", value)
        each = [forms[0]] * len(value) if forms[-1] is Ellipsis else forms
        entries = enumerate(zip(each, value, strict=True))
        return tuple(self._value(form, entry, f"{path}[{number}]", bounds) for number, (form, entry) in entries)

    def _mapping(self, form: Any, value: Any, path: str, bounds: Within | None) -> Any:
        if not isinstance(value, Mapping):
            return self._refuse(path, "an object", value)
        if self._clean is str and all(self._is_plain(form, entry, bounds) for entry in value.values()):
            return dict(value)
        names = {key: self._clean(key) for key in value}
        return {names[key]: self._value(form, value[key], f"{path}.{names[key][:60]}", bounds) for key in value}

    def _scalar(self, form: Any, value: Any, path: str, bounds: Within | None) -> Any:
        if form is str:
            return self._clean(value) if isinstance(value, str) else self._refuse(path, "text", value)
        if form is bool:
            return value if isinstance(value, bool) else self._refuse(path, "true or false", value)
        whole = form is int
        limits = bounds or (Within(0, MOST) if whole else Within(-math.inf, math.inf))
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST
        if is_number and limits.low <= value <= limits.high and (not whole or value == int(value)):
            return form(value)
        if whole and is_number:
            return self._refuse(path, f"a whole number from {limits.low:g} to {limits.high:.0f}", value)
        return self._refuse(path, "a finite number" if bounds is None else f"{limits.low:g} to {limits.high:g}", value)

    def _refuse(self, path: str, expected: str, value: Any) -> None:
        self.problems.append(f"{path or 'top'}: expected {expected}, found {_kind_of(value)}")


def _takes_none(form: Any) -> bool:
    return types.NoneType in get_args(form)


def _kind_of(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number"}
    return "nothing" if value is None else kinds.get(type(value), "another number")
