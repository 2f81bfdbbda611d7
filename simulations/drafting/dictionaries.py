"""Data dictionaries: what public documentation says of each column.

A dictionary is recognised by its header alone: REDCap's own, or a CSV file whose every column is one of KEYS, `name`
and `type` among them; or a YAML file, a mapping of names. A file with any other column is taken for data, of which only
the header is read (headers.py).
"""

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from configs.errors import RunError
from configs.strict_yaml import read_yaml
from simulations.drafting.variables import CATEGORY, NUMBER, Variable

KEYS = ("name", "type", "label", "unit", "min", "max", "range", "values", "missing")
ALSO = {
    **{"variable": "name", "column": "name", "field": "name", "units": "unit", "minimum": "min", "maximum": "max"},
    **{"low": "min", "high": "max", "choices": "values", "codes": "values", "description": "label", "text": "label"},
}
REDCAP = {
    "variable / field name": "name",
    "field type": "type",
    "field label": "label",
    "choices, calculations, or slider labels": "values",
    "text validation type or show slider number": "validation",
    "text validation min": "min",
    "text validation max": "max",
    "field note": "unit",
    "identifier?": "identifier",
}
MAX_BYTES = 10_000_000
_TYPES = {
    **dict.fromkeys(("number", "numeric", "integer", "int", "float", "decimal", "real", "continuous"), NUMBER),
    **dict.fromkeys(("category", "categorical", "factor", "enum", "boolean", "bool", "binary", "radio"), CATEGORY),
    **dict.fromkeys(("dropdown", "yesno", "truefalse", "ordinal", "nominal"), CATEGORY),
    **dict.fromkeys(("date", "datetime", "time", "timestamp"), "date"),
    **dict.fromkeys(("text", "string", "notes", "file", "descriptive", "free text"), "text"),
    **dict.fromkeys(("id", "identifier"), "id"),
}
_OF_NO_USE = {
    "date": "a date: site.yaml makes a number of two dates (dates)",
    "text": "free text: no study reads it",
    "id": "it says who the patient is",
}
_FIXED = {"yesno": ("0", "1"), "truefalse": ("0", "1"), "boolean": ("false", "true"), "bool": ("false", "true")}
_FORMER = re.compile(r"number|integer|float")  # REDCap's validations of text fields that hold numbers


def keys_of(header: list[str]) -> dict[int, str] | None:
    """Return the key of each column of a dictionary by its position; None of a file that is none."""
    names = [name.strip().casefold() for name in header]
    if {"variable / field name", "field type"} <= set(names):
        return {place: REDCAP[name] for place, name in enumerate(names) if name in REDCAP}
    keys = [ALSO.get(name, name) for name in names]
    is_dictionary = {"name", "type"} <= set(keys) <= set(KEYS) and len(set(keys)) == len(keys) > 2
    return dict(enumerate(keys)) if is_dictionary else None


def of_table(path: Path, keys: Mapping[int, str], delimiter: str) -> list[Variable]:
    """Return the variables of a dictionary that is a CSV file.

    Raises:
        RunError: it cannot be read.
    """
    try:
        data = path.read_bytes()[:MAX_BYTES]
        rows = list(csv.reader(io.StringIO(_text(data), newline=""), delimiter=delimiter))
    except (OSError, csv.Error) as error:
        raise RunError(f"{path}: cannot be read as a data dictionary: {error}; export it again") from None
    is_redcap = "identifier" in keys.values() or "validation" in keys.values()
    variables: list[Variable] = []
    for row in rows[1:]:
        entry = {key: row[place].strip() for place, key in keys.items() if place < len(row)}
        if entry.get("name"):
            variables += _expanded(entry, path.name, is_first=is_redcap and not variables)
    return variables


def of_yaml(path: Path) -> list[Variable]:
    """Return the variables of a dictionary that is a YAML file: a mapping of names, each a mapping of KEYS.

    Raises:
        ConfigError: it is no YAML. RunError: it is no such mapping.
    """
    document = read_yaml(path)
    entries = document if isinstance(document, Mapping) else {}
    variables: list[Variable] = []
    for name, entry in entries.items():
        if not isinstance(entry, Mapping):
            raise RunError(f"{path}: {name}: expected a mapping of {', '.join(KEYS)}, found something else; correct it")
        cells = {ALSO.get(str(key), str(key)): value for key, value in entry.items()}
        if strange := sorted(set(cells) - set(KEYS)):
            raise RunError(f"{path}: {name}: expected keys of {', '.join(KEYS)}, found {strange[0]!r}; remove it")
        variables += _expanded({**{key: _cell(value) for key, value in cells.items()}, "name": str(name)}, path.name)
    if not variables:
        raise RunError(f"{path}: expected a mapping of columns, found nothing; write name: {{type: ..., ...}}")
    return variables


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return " | ".join(f"{key}, {meaning}" for key, meaning in value.items())
    return " | ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def _expanded(entry: Mapping[str, str], source: str, *, is_first: bool = False) -> Iterator[Variable]:
    """Yield an entry's variables: a field of check boxes is a column for each box.

    Args:
        is_first: the first field of a REDCap project is its record's id.
    """
    kind = entry.get("type", "").casefold()
    if kind == "checkbox":
        for code, meaning in _choices(entry.get("values", "")):
            label = f"{_plain(entry.get('label', ''))}: {meaning}"
            yield Variable(f"{entry['name']}___{code.lower()}", CATEGORY, label, values=("0", "1"), source=source)
    elif kind != "descriptive":
        yield _variable(entry, kind, source, is_first=is_first)


def _variable(entry: Mapping[str, str], kind: str, source: str, *, is_first: bool) -> Variable:
    validation = entry.get("validation", "").casefold()
    kind = _with_validation(kind, validation)
    type_ = _TYPES.get(kind, "")
    choices = _choices(entry.get("values", "")) if type_ in ("", CATEGORY) else []
    type_ = type_ or (CATEGORY if choices else "")
    low, high = _ends(entry)
    is_id = is_first or type_ == "id"
    reason = _OF_NO_USE.get("id" if is_id else type_, "")
    if not reason and entry.get("identifier", "").casefold() in ("y", "yes"):
        reason = "the dictionary marks it as identifying"
    return Variable(
        entry["name"],
        type_,
        _plain(entry.get("label", "")),
        _plain(entry.get("unit", "")) if type_ == NUMBER else "",
        low if type_ == NUMBER else None,
        high if type_ == NUMBER else None,
        _FIXED.get(kind) or tuple(code for code, _ in choices),
        tuple(meaning for _, meaning in choices),
        tuple(re.split(r"\s*[|,;]\s*", missing)) if (missing := entry.get("missing", "")) else (),
        reason,
        is_id,
        source,
    )


def _with_validation(kind: str, validation: str) -> str:
    """Return what a REDCap field holds: text with a validation is a number or a date; so are calculations, sliders."""
    if kind in ("calc", "slider") or (kind == "text" and _FORMER.match(validation)):
        return "number"
    return "date" if kind == "text" and validation.startswith(("date", "time")) else kind


def _choices(text: str) -> list[tuple[str, str]]:
    """Return codes and meanings: `1, Male | 2, Female`, `M=male; F=female`, or the words alone."""
    parts = [part.strip() for part in re.split(r"[|\n]" if re.search(r"[|\n]", text) else r"[;,]", text)]
    pairs = [re.split(r"\s*[,=:]\s*", part, maxsplit=1) for part in parts if part]
    return [(pair[0].strip(), _plain(pair[1]) if len(pair) > 1 else "") for pair in pairs]


def _ends(entry: Mapping[str, str]) -> tuple[float | None, float | None]:
    ends = re.split(r"\s*(?:\||;|,|\bto\b|\.\.)\s*", entry.get("range", "").strip("[] "))
    low, high = ends if len(ends) == 2 else (entry.get("min", ""), entry.get("max", ""))
    return _number(low), _number(high)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _plain(text: str) -> str:
    """Return a text on one line, without the tags that REDCap allows in labels."""
    return " ".join(re.sub(r"<[^>]{0,200}>", " ", text).split())


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")
