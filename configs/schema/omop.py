"""A source in the OMOP Common Data Model 5.4: patients by an index date, and columns defined by concepts and windows.

What is asked for is one SQL text, made of these keys alone (configs/schema/omop_query.py); `archipel-site review` shows
it whole. Windows are days relative to the index date, as OHDSI's FeatureExtraction writes them: [-365, -1], and
[any, -1] for any time prior. The mapping's keys (`columns`, `words`, ...) hold for the columns that `define` names.

>>> from configs.keys.declare import read_keys
>>> entry = {"table": "measurement", "concepts": [3016723, "1 OR 1=1"], "window": [-1, -365], "take": "last"}
>>> section = Section({"define": {"creatinine": entry}}, "", [])
>>> _ = read_keys(Declaration(dict, (DEFINE,)), section, {})
>>> print("\\n".join(section.problems))
define.creatinine.concepts: expected a list of distinct concept ids, found [3016723, '1 OR 1=1']; write whole numbers
define.creatinine.window: expected [first, last] days from the index date, or [any, last], found [-1, -365]; correct it
define.creatinine.unit_concepts: expected a factor for each unit's concept, found nothing; add it, as {8840: 1}
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from configs.keys.declare import Declaration, Entries, Key, Part, key
from configs.keys.one_of import Kind
from configs.keys.values import COLUMN_NAME, Around, Choice, Integer, Place, Text, Truth, Value, is_number
from configs.schema.omop_query import DATABASES, NUMBERS_OF, PERSON, TABLES, Column, Index, write_query
from configs.schema.source import MAX_QUERY_TIMEOUT_S, QUERY_TIMEOUT_S, SOURCES, AskedSource, VariableName
from configs.sections import Section

ANY = "any"
MAX_CONCEPT, MAX_DAYS = 2**31 - 1, 100_000
MAX_FACTOR, DECIMALS = 10**9, 8
NAME = Text(
    "a name of letters, digits and _, or two with a point between",
    re.compile(r"[A-Za-z_]\w{0,62}(\.[A-Za-z_]\w{0,62})?", re.ASCII),
)


class Concepts(Value):
    """A list of distinct concept ids."""

    expected = "a list of distinct concept ids"

    def read(self, at: Place) -> tuple[int, ...]:
        """Return the ids in the file's order; they are whole numbers alone, as they become a part of a query."""
        ids = at.found if isinstance(at.found, list) else []
        if ids and all(map(_is_concept, ids)) and len(set(ids)) == len(ids):
            return tuple(ids)
        at.problem(self.expected, "add it" if at.found is None else "write whole numbers")
        return ()

    def write(self, value: Any) -> list[int]:
        """Return the ids as a list."""
        return list(value)

    @property
    def schema(self) -> dict[str, Any]:
        """Return a list of positive integers."""
        items = {"type": "integer", "minimum": 1, "maximum": MAX_CONCEPT}
        return {"type": "array", "items": items, "minItems": 1, "uniqueItems": True}


class Window(Value):
    """Days relative to the index date, both ends included; the first may be `any`."""

    expected = "[first, last] days from the index date, or [any, last]"

    def read(self, at: Place) -> tuple[int | None, int]:
        """Return the first day, None for any time before, and the last."""
        match at.found:
            case [first, last] if _is_day(last) and (first == ANY or (_is_day(first) and first <= last)):
                return None if first == ANY else first, last
        at.problem(self.expected, "add it, as [-365, -1]" if at.found is None else "correct it")
        return None, -1

    def write(self, value: Any) -> list[int | str]:
        """Return the two ends as a list."""
        return [ANY if value[0] is None else value[0], value[1]]

    @property
    def schema(self) -> dict[str, Any]:
        """Return a list of two ends."""
        first = {"anyOf": [{"type": "integer"}, {"const": ANY}]}
        return {"type": "array", "prefixItems": [first, {"type": "integer"}], "minItems": 2, "maxItems": 2}


class UnitConcepts(Value):
    """A mapping of unit concepts to factors; 0 is a measurement without a unit."""

    expected = "a factor for each unit's concept"

    def read(self, at: Place) -> tuple[tuple[int, float], ...]:
        """Return pairs of a concept and its factor."""
        if isinstance(at.found, Mapping) and at.found:
            factors = {_concept_of(name): factor for name, factor in at.found.items()}
            if len(factors) == len(at.found) and None not in factors and all(map(_is_factor, factors.values())):
                return tuple((int(name or 0), float(factor)) for name, factor in factors.items())
        advice = "add it, as {8840: 1}" if at.found is None else f"write factors above 0 of at most {DECIMALS} decimals"
        at.problem(self.expected, advice)
        return ()

    def write(self, value: Any) -> dict[int, float]:
        """Return the mapping."""
        return dict(value)

    @property
    def schema(self) -> dict[str, Any]:
        """Return an object of factors."""
        factor = {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_FACTOR}
        return {"type": "object", "propertyNames": {"pattern": "^[0-9]+$"}, "additionalProperties": factor}


def _is_concept(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_CONCEPT


def _is_day(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_DAYS


def _is_factor(value: Any) -> bool:
    return is_number(value) and 0 < value <= MAX_FACTOR and round(value, DECIMALS) == value


def _concept_of(name: Any) -> int | None:
    text = str(name)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 and int(text) <= MAX_CONCEPT else None


def _check_column(column: Column, section: Section, _around: Around) -> None:
    """Note keys that do not go together."""
    given = {name for name in section.known if section.values.get(name) is not None}
    if ("person" in given) == ("table" in given):
        section.problem("table", "person or table, one of them", sorted(given & {"person", "table"}), "write one")
        return
    if column.person:
        for name in sorted(given - {"person"}):
            section.note(name, "expected nothing beside person, found a value; remove it")
        return
    for name in ("window", "take", *(() if column.table == "death" else ("concepts",))):
        if name not in given:
            section.problem(name, _EXPECTED[name], None, _ADVICE[name])
    numeric = column.take in NUMBERS_OF and column.value == "number"
    if column.take in NUMBERS_OF and column.table not in ("measurement", "observation"):
        section.problem("take", "any or count, as the table has no values", column.take, "choose one")
    elif numeric and "unit_concepts" not in given:
        section.problem("unit_concepts", UnitConcepts.expected, None, "add it, as {8840: 1}")
    elif not numeric and "unit_concepts" in given:
        section.note("unit_concepts", "expected nothing where no number is taken, found a value; remove it")
    if column.value == "concept" and column.take not in ("first", "last"):
        section.problem("take", "first or last of a value that is a concept", column.take, "choose one")


_EXPECTED = {"window": Window.expected, "take": "how several records become one value", "concepts": Concepts.expected}
_ADVICE = {
    "window": "add it, as [-365, -1]",
    "take": "choose last, first, mean, min, max, count or any",
    "concepts": "add it",
}


def _check_index(index: Index, section: Section, _around: Around) -> None:
    if bool(index.cohort) == bool(index.concepts):
        section.problem("cohort", "a cohort's id, or a table's concepts", None, "write cohort, or table and concepts")
    elif index.concepts and index.table not in TABLES:
        section.problem("table", f"one of {', '.join(TABLES)}", index.table or None, "choose one")
    elif index.cohort and index.descendants:
        section.note("descendants", "expected nothing beside cohort, found a value; remove it")


def _written(name: str, when: Callable[[Any], object] = bool) -> Callable[[Any], object]:
    """Return of what was made whether a key is in the canonical form: where its value is one."""
    return lambda made: when(getattr(made, name))


def _of_table(made: Any) -> object:
    return made.table


_CONCEPTS = Key("concepts", Concepts(), default=(), about="concept ids of the standard vocabulary", unsaid="none")
_DESCENDANTS = Key(
    "descendants",
    Truth(),
    default=False,
    about="whether all that is below these concepts counts too",
    written=_written("descendants"),
)
_COLUMN = Declaration(
    Column,
    (
        Key(
            "person",
            Choice(tuple(PERSON)),
            default="",
            about="what the person table has, at the index date",
            unsaid="none",
            written=_written("person"),
        ),
        Key(
            "table",
            Choice((*TABLES, "death")),
            default="",
            about="where the records are",
            unsaid="none",
            written=_of_table,
        ),
        _CONCEPTS,
        _DESCENDANTS,
        Key(
            "window",
            Window(),
            default=(None, -1),
            about="days from the index date, both ends included",
            unsaid="none",
            written=_of_table,
        ),
        Key(
            "take",
            Choice((*NUMBERS_OF, "count", ANY)),
            default=ANY,
            about="how several records become one value; without a record count and any are 0, all others unknown",
            unsaid="none",
            written=_of_table,
        ),
        Key(
            "value",
            Choice(("number", "concept")),
            default="number",
            about="which value of a record is taken",
            written=_written("value", "concept".__eq__),
        ),
        Key(
            "unit_concepts",
            UnitConcepts(),
            default=(),
            about="concepts of units, and their factors to the column's unit; a value in another unit is unknown",
            unsaid="none",
        ),
    ),
    _check_column,
)
_INDEX = Declaration(
    Index,
    (
        Key("cohort", Integer(1, MAX_CONCEPT), default=None, about="the id of a cohort made before", unsaid="none"),
        Key(
            "table",
            NAME,
            default="",
            about="the table of the cohort, or of the records",
            unsaid="cohort",
            written=_of_table,
        ),
        _CONCEPTS,
        _DESCENDANTS,
        Key("take", Choice(("first", "last", "every")), default="first", about="which of a person's dates count"),
        Key(
            "observed",
            Integer(0, MAX_DAYS),
            default=0,
            about="days before it in which the person was observed",
            written=_written("observed"),
        ),
    ),
    _check_index,
)


def _column_flaw(name: str) -> str:
    good = COLUMN_NAME.fullmatch(name) and '"' not in name and len(name.encode()) <= 60
    return "" if good else "expected a column's name of at most 60 bytes without a quotation mark; rename it"


DEFINE = Key(
    "define",
    Entries(
        Part(_COLUMN, "a mapping with person, or table, concepts, window and take"),
        _column_flaw,
        "a mapping of column: {table, concepts, window, take}",
        build=lambda name, column: (name, column),
        split=lambda pair: pair,
        member="COLUMN",
        least="expected columns, found none; add one",
        ordered=False,
    ),
    about="the study's columns, each by a table, concepts, a window and what is taken",
)


@dataclass(frozen=True, slots=True)
class OmopCohort(AskedSource):
    """Patients of a cohort in OMOP CDM 5.4, one row an index date, and columns by concepts and windows."""

    connector = "omop"
    unread = "any other concept, window or column of the data base"
    url_env: str = key(VariableName(), "the NAME of an environment variable that holds the data base's address")
    database: str = key(Choice(tuple(DATABASES)), "the kind of data base")
    schema: str = key(NAME, "the schema of the CDM's tables; with a point: of another data base of the server")
    index: Index = key(
        Part(_INDEX, "a mapping with cohort, or table and concepts"), "who counts, and from which date on"
    )
    define: tuple[tuple[str, Column], ...] = key(DEFINE.value, DEFINE.about)
    query_timeout_s: int = key(Integer(1, MAX_QUERY_TIMEOUT_S), "how long the query may take", default=QUERY_TIMEOUT_S)

    @property
    def query(self) -> str:
        """Return what the data base is asked."""
        return write_query(self.database, self.schema, self.index, self.define)

    def __str__(self) -> str:
        return f"{self.connector}, the data base whose address the variable {self.url_env} holds:\n{self.query}"


SOURCES.register(Kind(OmopCohort.connector, OmopCohort))
