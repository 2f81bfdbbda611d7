"""The query of an OMOP source: one SELECT, made of declared keys alone.

A row is an index date of a person, and every value of it is made of that person's records alone: partitions and groups
are by person and index date, and nothing is ranked across persons. Among records of one day the highest id is the last.
A number is an exact decimal of eight places, so that every data base gives the same. Concepts, days and factors are
numbers; names of columns and schemas are quoted here.

>>> index = Index(concepts=(201826,), table="condition_occurrence")
>>> print(write_query("postgresql", "cdm", index, [("age", Column("age"))]))
WITH events AS (
  SELECT t.person_id, t.condition_start_date AS index_date FROM "cdm".condition_occurrence t
  WHERE t.condition_concept_id IN (201826)
), cohort AS (
  SELECT e.person_id, MIN(e.index_date) AS index_date FROM events e GROUP BY e.person_id
)
SELECT
  EXTRACT(YEAR FROM k.index_date) - p.year_of_birth AS "age"
FROM cohort k
JOIN "cdm".person p ON p.person_id = k.person_id
ORDER BY k.person_id, k.index_date
"""

# ruff: noqa: S608 - what stands in a query is numbers, names of CDM 5.4, and names that are quoted here
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

TABLES = {  # of CDM 5.4: the columns of the record's id, date and concept
    "condition_occurrence": ("condition_occurrence_id", "condition_start_date", "condition_concept_id"),
    "drug_exposure": ("drug_exposure_id", "drug_exposure_start_date", "drug_concept_id"),
    "procedure_occurrence": ("procedure_occurrence_id", "procedure_date", "procedure_concept_id"),
    "device_exposure": ("device_exposure_id", "device_exposure_start_date", "device_concept_id"),
    "measurement": ("measurement_id", "measurement_date", "measurement_concept_id"),
    "observation": ("observation_id", "observation_date", "observation_concept_id"),
    "visit_occurrence": ("visit_occurrence_id", "visit_start_date", "visit_concept_id"),
}
_DEATH = ("person_id", "death_date", "cause_concept_id")
PERSON = {  # what a column takes of the person table; age as FeatureExtraction has it, by the years alone
    "id": "p.person_id",
    "age": "{year} - p.year_of_birth",
    "gender": "p.gender_concept_id",
    "race": "p.race_concept_id",
    "ethnicity": "p.ethnicity_concept_id",
    "location": "p.location_id",
}
NUMBERS_OF = ("last", "first", "mean", "min", "max")  # takes that need a value
_AGGREGATES = {"mean": "AVG", "min": "MIN", "max": "MAX", "count": "COUNT", "any": "COUNT"}
LARGEST = 99_999_999_999  # a value beyond is unknown: no cast fails because of a row
NUMBER, FACTOR, EXACT = "DECIMAL(20, 8)", "DECIMAL(18, 8)", "DECIMAL(28, 8)"


@dataclass(frozen=True, slots=True)
class Column:
    """How a column is made: of the person, or of the records of a table that have these concepts, in a window."""

    person: str = ""
    table: str = ""
    concepts: tuple[int, ...] = ()
    descendants: bool = False
    window: tuple[int | None, int] = (None, -1)
    take: str = "any"
    value: str = "number"
    unit_concepts: tuple[tuple[int, float], ...] = ()

    def __str__(self) -> str:
        first, last = self.window
        when = f"any time prior, to day {last}" if first is None else f"day {first} to {last}"
        return f"person, {self.person}" if self.person else f"{self.table}, {when}, {self.take}"


@dataclass(frozen=True, slots=True)
class Index:
    """Who counts, and from which date on: a cohort that was made before, or a person's records of some concepts."""

    cohort: int | None = None
    table: str = ""
    concepts: tuple[int, ...] = ()
    descendants: bool = False
    take: str = "first"
    observed: int = 0


@dataclass(frozen=True, slots=True)
class Database:
    """How a kind of data base writes a name, a day some days later, and a year."""

    name: str
    later: str
    year: str
    upper: bool = False

    def quoted(self, name: str) -> str:
        """Return a name, or two with a point between, in quotation marks."""
        return ".".join(self.name.format(part.upper() if self.upper else part) for part in name.split("."))


DATABASES = {
    "postgresql": Database('"{}"', "({} + ({}))", "EXTRACT(YEAR FROM {})"),
    "sql_server": Database("[{}]", "DATEADD(day, {1}, {0})", "YEAR({})"),
    "oracle": Database('"{}"', "({} + ({}))", "EXTRACT(YEAR FROM {})", upper=True),
}


def write_query(database: str, schema: str, index: Index, columns: Sequence[tuple[str, Column]]) -> str:
    """Return the query of an index and named columns, the same text for the same keys."""
    writer = _Writer(DATABASES[database], schema)
    parts = [writer.events(index), writer.cohort(index)]
    shown, joins = [], []
    for number, (name, column) in enumerate(columns, 1):
        part = f"c{number}"
        if column.person:
            value = PERSON[column.person].format(year=writer.base.year.format("k.index_date"))
        else:
            parts.append(f"{part} AS (  -- {name}: {column}\n{writer.values(column)}\n)")
            joins.append(f"LEFT JOIN {part} ON {part}.person_id = k.person_id AND {part}.index_date = k.index_date")
            value = _shown(part, column.take)
        shown.append(f"  {value} AS {writer.alias(name)}")
    return "\n".join(
        [
            f"WITH {', '.join(parts)}",
            "SELECT",
            ",\n".join(shown),
            "FROM cohort k",
            f"JOIN {writer.table('person')} p ON p.person_id = k.person_id",
            *joins,
            *writer.observed(index),
            "ORDER BY k.person_id, k.index_date",
        ]
    )


def _shown(part: str, take: str) -> str:
    """Return a column's value in a row, where a person without a record has none, or 0."""
    if take == "any":
        return f"CASE WHEN {part}.value > 0 THEN 1 ELSE 0 END"
    return f"COALESCE({part}.value, 0)" if take == "count" else f"{part}.value"


@dataclass(frozen=True, slots=True)
class _Writer:
    base: Database
    schema: str

    def table(self, name: str) -> str:
        """Return a table of the CDM, with its schema."""
        return f"{self.base.quoted(self.schema)}.{name}"

    def alias(self, name: str) -> str:
        """Return a column's name in quotation marks, which no name ends."""
        mark = self.base.name[-1]
        return self.base.name.format(name.replace(mark, 2 * mark))

    def events(self, index: Index) -> str:
        """Return the dates of all who may count."""
        if index.cohort is not None:
            table = index.table or "cohort"
            place = self.base.quoted(table) if "." in table else f"{self.base.quoted(self.schema)}.{table}"
            chosen = f"SELECT t.subject_id AS person_id, t.cohort_start_date AS index_date FROM {place} t"
            which = f"t.cohort_definition_id = {index.cohort:d}"
        else:
            _, date, concept = TABLES[index.table]
            chosen = f"SELECT t.person_id, t.{date} AS index_date FROM {self.table(index.table)} t"
            which = self.among(f"t.{concept}", index.concepts, descendants=index.descendants)
        return f"events AS (\n  {chosen}\n  WHERE {which}\n)"

    def cohort(self, index: Index) -> str:
        """Return those of a person's dates that count."""
        if index.take == "every":
            return "cohort AS (\n  SELECT DISTINCT e.person_id, e.index_date FROM events e\n)"
        end = "MIN" if index.take == "first" else "MAX"
        dates = f"SELECT e.person_id, {end}(e.index_date) AS index_date FROM events e GROUP BY e.person_id"
        return f"cohort AS (\n  {dates}\n)"

    def observed(self, index: Index) -> list[str]:
        """Return the lines that keep those who were observed long enough before, none where that is not asked."""
        if not index.observed:
            return []
        since = self.base.later.format("k.index_date", -index.observed)
        return [
            f"WHERE EXISTS (\n  SELECT 1 FROM {self.table('observation_period')} o WHERE o.person_id = k.person_id",
            f"  AND o.observation_period_start_date <= {since} AND o.observation_period_end_date >= k.index_date\n)",
        ]

    def values(self, column: Column) -> str:
        """Return a column's value of each person and index date that has one."""
        number, date, concept = TABLES.get(column.table, _DEATH)
        conditions = (
            [self.among(f"t.{concept}", column.concepts, descendants=column.descendants)] if column.concepts else []
        )
        first, last = column.window
        if first is not None:
            conditions.append(f"t.{date} >= {self.base.later.format('k.index_date', first)}")
        conditions.append(f"t.{date} <= {self.base.later.format('k.index_date', last)}")
        value, known = _value(column)
        rows = f"FROM cohort k JOIN {self.table(column.table)} t ON t.person_id = k.person_id"
        where = "WHERE " + "\n  AND ".join([*conditions, *known])
        if column.take in _AGGREGATES:
            taken = f"{_AGGREGATES[column.take]}({value})"
            taken = f"CAST({taken} AS {EXACT})" if column.take in NUMBERS_OF else taken
            return (
                f"  SELECT k.person_id, k.index_date, {taken} AS value\n  {rows}\n  {where}\n"
                "  GROUP BY k.person_id, k.index_date"
            )
        order = "DESC" if column.take == "last" else "ASC"
        cast = f"CAST({value} AS {EXACT})" if column.value == "number" else value
        return (
            "  SELECT r.person_id, r.index_date, r.value FROM (\n"
            f"  SELECT k.person_id, k.index_date, {cast} AS value,\n"
            "    ROW_NUMBER() OVER (\n"
            f"      PARTITION BY k.person_id, k.index_date ORDER BY t.{date} {order}, t.{number} {order}) AS place\n"
            f"  {rows}\n  {where}\n  ) r WHERE r.place = 1"
        )

    def among(self, concept: str, concepts: Sequence[int], *, descendants: bool) -> str:
        """Return the condition that a record has one of these concepts, or one below them."""
        ids = ", ".join(f"{number:d}" for number in concepts)
        if not descendants:
            return f"{concept} IN ({ids})"
        return (
            f"{concept} IN (\n    SELECT a.descendant_concept_id FROM {self.table('concept_ancestor')} a\n"
            f"    WHERE a.ancestor_concept_id IN ({ids}))"
        )


def _value(column: Column) -> tuple[str, list[str]]:
    """Return the value of a record in SQL, and the conditions that it is known."""
    if column.take in ("count", "any"):
        return "*", []
    if column.value == "concept":
        return "t.value_as_concept_id", ["t.value_as_concept_id > 0"]
    units = ", ".join(f"{unit:d}" for unit, _ in column.unit_concepts)
    cases = "".join(f"\n      WHEN {unit:d} THEN {_times(factor)}" for unit, factor in column.unit_concepts)
    small = f"ABS(t.value_as_number) <= {LARGEST}"
    value = f"CASE WHEN {small}\n      THEN CASE COALESCE(t.unit_concept_id, 0){cases} END END"
    return value, [f"COALESCE(t.unit_concept_id, 0) IN ({units})", small]


def _times(factor: float) -> str:
    number = f"CAST(t.value_as_number AS {NUMBER})"
    return number if factor == 1 else f"{number} * CAST({Decimal(repr(factor)):f} AS {FACTOR})"
