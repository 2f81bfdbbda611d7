"""Made-up CDMs full of edges, and what a column of OMOP's means in plain Python, one person at a time."""

import datetime
import random
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any

from configs.schema.omop_query import TABLES, Column, Index
from simulations.data.omop_made_up.cdm import COLUMNS, Cdm, empty_cdm

CONCEPTS = (101, 102, 103)
BELOW = {101: (101, 102), 103: (103,)}
UNITS = (None, 0, 8840, 8749, 9999)
VALUES: tuple[Any, ...] = (None, 0, 1, "2.50", "0.1234567", -3, 7, "99999999999", "100000000000", "NaN")
FIRST_DAY = datetime.date(2020, 1, 1)


def edgy_cdm(persons: int, seed: int) -> Cdm:
    """Persons with many records on few days, so that windows' ends and ties are hit; some have none of a table."""
    draw, cdm = random.Random(seed), empty_cdm()
    cdm["concept_ancestor"] = [(above, each) for above, below in BELOW.items() for each in below]
    for person in range(1, persons + 1):
        start = FIRST_DAY - datetime.timedelta(draw.randrange(0, 20))
        cdm["person"].append(
            (person, draw.choice((8507, 8532)), draw.randrange(1930, 1990), 8527, 0, draw.choice((1, None)))
        )
        cdm["observation_period"].append((person, start, FIRST_DAY + datetime.timedelta(draw.randrange(0, 30))))
        if draw.random() < 0.5:
            cdm["death"].append((person, day(draw), draw.choice((None, 0, 101))))
        for _ in range(draw.randrange(0, 3)):
            cdm["cohort"].append((draw.choice((17, 18)), person, day(draw)))
        for table in ("condition_occurrence", "drug_exposure", "visit_occurrence"):
            for _ in range(draw.choice((0, 1, 4))):
                cdm[table].append((len(cdm[table]), person, draw.choice(CONCEPTS), day(draw)))
        for table in ("measurement", "observation"):
            for _ in range(draw.choice((0, 3, 8))):
                value = (draw.choice(VALUES), draw.choice((None, 0, 4001, 4002)), draw.choice(UNITS))
                cdm[table].append((len(cdm[table]), person, draw.choice(CONCEPTS), day(draw), *value))
    for rows in cdm.values():
        draw.shuffle(rows)
    return cdm


def day(draw: random.Random) -> datetime.date:
    """One of few days around the first."""
    return FIRST_DAY + datetime.timedelta(draw.randrange(-6, 7))


def truth(cdm: Cdm, index: Index, columns: list[tuple[str, Column]]) -> list[tuple[str, ...]]:
    """Each index date's values as text, in the order of persons and dates."""
    found = []
    for row in sorted(cdm["person"]):
        person = dict(zip(COLUMNS["person"], row, strict=True))
        for date in _dates(cdm, index, row[0]):
            found.append(tuple(_text(_value(cdm, column, person, date)) for _, column in columns))
    return found


def _records(cdm: Cdm, table: str, person: int) -> list[dict[str, Any]]:
    place = [*COLUMNS[table]].index("subject_id" if table == "cohort" else "person_id")
    return [dict(zip(COLUMNS[table], row, strict=True)) for row in cdm[table] if row[place] == person]


def _among(concept: int | None, of: Column | Index) -> bool:
    wanted = {each for above in of.concepts for each in BELOW.get(above, ())} if of.descendants else {*of.concepts}
    return concept in wanted


def _dates(cdm: Cdm, index: Index, person: int) -> list[datetime.date]:
    if index.cohort is not None:
        rows = [row for row in _records(cdm, "cohort", person) if row["cohort_definition_id"] == index.cohort]
        dates = sorted({row["cohort_start_date"] for row in rows})
    else:
        _, date, concept = TABLES[index.table]
        dates = sorted({row[date] for row in _records(cdm, index.table, person) if _among(row[concept], index)})
    dates = dates if index.take == "every" else dates[:1] if index.take == "first" else dates[-1:]
    if not index.observed:
        return dates
    return [
        each
        for each in dates
        if any(
            row["observation_period_start_date"] <= each - datetime.timedelta(index.observed)
            and row["observation_period_end_date"] >= each
            for row in _records(cdm, "observation_period", person)
        )
    ]


def _value(cdm: Cdm, column: Column, person: dict[str, Any], date: datetime.date) -> Any:
    if column.person:
        return date.year - person["year_of_birth"] if column.person == "age" else person[_OF_PERSON[column.person]]
    number, day_of, concept = TABLES.get(column.table, ("person_id", "death_date", "cause_concept_id"))
    first, last = column.window
    rows = [
        row
        for row in _records(cdm, column.table, person["person_id"])
        if (not column.concepts or _among(row[concept], column))
        and (first is None or (row[day_of] - date).days >= first)
        and (row[day_of] - date).days <= last
    ]
    if column.take in ("count", "any"):
        return len(rows) if column.take == "count" else int(bool(rows))
    values = [(row[day_of], row[number], _number(row, column)) for row in rows]
    known = sorted(each for each in values if each[2] is not None)
    if not known:
        return None
    numbers = [value for _, _, value in known]
    takes = {"first": numbers[0], "last": numbers[-1], "min": min(numbers), "max": max(numbers)}
    return takes[column.take] if column.take in takes else sum(numbers, Fraction()) / len(numbers)


_OF_PERSON = {"id": "person_id", "gender": "gender_concept_id", "race": "race_concept_id"}
_OF_PERSON |= {"ethnicity": "ethnicity_concept_id", "location": "location_id"}


def _number(row: dict[str, Any], column: Column) -> Any:
    if column.value == "concept":
        return row["value_as_concept_id"] or None
    factor = dict(column.unit_concepts).get(row["unit_concept_id"] or 0)
    if factor is None or row["value_as_number"] in (None, "NaN"):
        return None
    value = Fraction(str(row["value_as_number"]))
    return value * Fraction(repr(factor)) if abs(value) <= 99_999_999_999 else None


def _text(value: Any) -> str:
    if not isinstance(value, Fraction):
        return "" if value is None else str(value)
    places = Decimal("1e-8")
    exact = (Decimal(value.numerator) / Decimal(value.denominator)).quantize(places, ROUND_HALF_UP)
    return f"{exact:f}".rstrip("0").rstrip(".") if exact else "0"
