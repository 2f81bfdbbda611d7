"""The dialect of a text file in columns: what a hospital's programs write where the standard has commas and UTF-8.

`dialect: french` is what a French Excel saves: semicolons, decimal commas, thousands apart by spaces, and UTF-8 where
the file says so by its first bytes, else Windows-1252. Each of it may be said anew beside `like: french`.

>>> section = Section({"dialect": {"like": "french", "skip_lines": 2}}, "", [])
>>> dialect = DialectKey().read(Place(section, "dialect", section.take("dialect"), {}))
>>> dialect.separator, dialect.encoding, dialect.skip_lines, DialectKey().write(dialect)
(';', 'excel', 2, {'like': 'french', 'skip_lines': 2})
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from configs.keys.declare import declaration_of, key, read_keys, write_keys
from configs.keys.values import Around, Choice, Integer, Place, Value
from configs.schema.mapping import Sign
from configs.sections import Section

STANDARD, FRENCH, TABS = "standard", "french", "tabs"
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
QUOTES = {"double": '"', "single": "'", "none": ""}
ESCAPES = {"none": "", "backslash": "\\"}
COMMENTS = {"none": "", "hash": "#", "percent": "%", "slashes": "//", "dashes": "--", "semicolon": ";"}
EXCEL = "excel"  # as Excel reads a file: UTF-8 where its first bytes say so, else Windows-1252
ENCODINGS = {
    "utf-8": "utf-8",
    EXCEL: EXCEL,
    "cp1252": "cp1252",
    "windows-1252": "cp1252",
    "latin-1": "cp1252",
    "iso-8859-15": "iso8859-15",
    "macroman": "mac-roman",
    "cp850": "cp850",
    "utf-16": "utf-16",
}
MAX_LINES = 1000
_LIKE: Mapping[str, Mapping[str, Any]] = {
    STANDARD: {},
    FRENCH: {"separator": ";", "encoding": EXCEL},
    TABS: {"separator": "\t"},
}
_NUMBERS = {FRENCH: (",", " ")}
_ELSE = {"separator": ",", "encoding": "utf-8", "quote": '"', "escape": "", "comment": ""}


def _as(name: str) -> dict[str, Any]:
    """Return the defaults of a sign: what the dialect that this one is like says."""

    def default(_section: Section, around: Around) -> str:
        return str(_LIKE[around["like"]].get(name, _ELSE[name]))

    def written(dialect: Any) -> bool:
        return bool(getattr(dialect, name) != _LIKE[dialect.like].get(name, _ELSE[name]))

    checks: Callable[[Any], object] = written
    return {"default": default, "init": _ELSE[name], "written": checks}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a text file in columns is written. `like` names a usual one, which each key may change."""

    like: str = key(
        Choice((STANDARD, FRENCH, TABS)),
        "a usual dialect to begin with; french: semicolons, decimal commas, spaces between thousands, encoding excel",
        default=STANDARD,
        written=lambda dialect: dialect.like != STANDARD,
    )
    separator: str = key(Sign(SEPARATORS), "the sign between cells", unsaid="comma, or like's", **_as("separator"))
    encoding: str = key(
        Sign(ENCODINGS),
        "how letters are written; excel: UTF-8 where the file's first bytes say so, else cp1252",
        unsaid="utf-8, or like's",
        **_as("encoding"),
    )
    quote: str = key(Sign(QUOTES), "the sign around cells that hold a separator", unsaid="double", **_as("quote"))
    escape: str = key(
        Sign(ESCAPES),
        "the sign that takes the next one's meaning away, also before a quotation mark; with it \\N is unknown",
        unsaid="none: a quotation mark within a quotation is doubled",
        **_as("escape"),
    )
    comment: str = key(Sign(COMMENTS), "how a line begins that is no row", unsaid="none", **_as("comment"))
    skip_lines: int = key(
        Integer(0, MAX_LINES),
        "how many lines stand above the header, as a title; a line `sep=;` counts or not, as you like",
        default=0,
        written=lambda dialect: dialect.skip_lines,
    )
    header_lines: int = key(
        Integer(1, MAX_LINES),
        "how many lines the header has: names in the first, the others, as units, are passed over",
        default=1,
        written=lambda dialect: dialect.header_lines != 1,
    )

    def check(self, section: Section, _around: Around) -> None:
        """Note one sign with two meanings."""
        if self.quote and self.quote == self.comment[:1]:
            section.problem("comment", "another sign than quote's", self.comment, "correct one of the two")
        if self.comment == self.separator:
            section.problem("comment", "another sign than the separator", self.comment, "correct one of the two")

    @property
    def decimal(self) -> str:
        """Return the sign before decimals, where site.yaml does not say it itself."""
        return _NUMBERS.get(self.like, (".", ""))[0]

    @property
    def thousands(self) -> str:
        """Return the sign between thousands, empty where there is none."""
        return _NUMBERS.get(self.like, (".", ""))[1]

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in write_keys(declaration_of(Dialect), self).items())


class DialectKey(Value):
    """A dialect: a usual one's name, or a mapping."""

    expected = f"a mapping with separator, encoding, ..., or one of {STANDARD}, {FRENCH}, {TABS}"

    def read(self, at: Place) -> Dialect:
        """Return the dialect, the standard one in place of a mistake."""
        if isinstance(at.found, str):
            like = Choice((STANDARD, FRENCH, TABS)).read(at)
            section = Section({"like": like}, at.section.path, [])
        else:
            section = at.section.section(at.key, self.expected)
        dialect: Dialect = read_keys(declaration_of(Dialect), section, {})
        return dialect

    def write(self, value: Any) -> dict[str, Any]:
        """Return the mapping, without what is as in the dialect that it is like."""
        return write_keys(declaration_of(Dialect), value)

    @property
    def schema(self) -> dict[str, Any]:
        """Return a name, or the mapping."""
        return {"anyOf": [{"enum": [STANDARD, FRENCH, TABS]}, declaration_of(Dialect).schema]}

    @property
    def children(self) -> Any:
        """Return the mapping's keys."""
        return declaration_of(Dialect).children
