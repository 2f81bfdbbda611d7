"""A made-up OMOP CDM 5.4 with the tables and columns that a query of ours reads, as plain Python rows.

Nobody's data: every patient comes out of a generator of pseudo-random numbers. Death within a year of a first heart
failure depends on age, creatinine, haemoglobin, blood pressure, atrial fibrillation, diabetes and earlier stays, so
that a model has something to find.

>>> {name: len(rows) for name, rows in made_cdm("nord").items() if name in ("person", "death")}
{'person': 500, 'death': 209}
"""

import datetime
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

KEYS = {"id": "bigint", "concept": "integer", "date": "date", "number": "numeric"}
COLUMNS = {  # of each table, in the order of a row, and what each is
    "person": {"person_id": "id", "gender_concept_id": "concept", "year_of_birth": "concept"}
    | {"race_concept_id": "concept", "ethnicity_concept_id": "concept", "location_id": "id"},
    "observation_period": {"person_id": "id", "observation_period_start_date": "date"}
    | {"observation_period_end_date": "date"},
    "condition_occurrence": {"condition_occurrence_id": "id", "person_id": "id", "condition_concept_id": "concept"}
    | {"condition_start_date": "date"},
    "drug_exposure": {"drug_exposure_id": "id", "person_id": "id", "drug_concept_id": "concept"}
    | {"drug_exposure_start_date": "date"},
    "visit_occurrence": {"visit_occurrence_id": "id", "person_id": "id", "visit_concept_id": "concept"}
    | {"visit_start_date": "date"},
    "measurement": {"measurement_id": "id", "person_id": "id", "measurement_concept_id": "concept"}
    | {"measurement_date": "date", "value_as_number": "number", "value_as_concept_id": "concept"}
    | {"unit_concept_id": "concept"},
    "observation": {"observation_id": "id", "person_id": "id", "observation_concept_id": "concept"}
    | {"observation_date": "date", "value_as_number": "number", "value_as_concept_id": "concept"}
    | {"unit_concept_id": "concept"},
    "death": {"person_id": "id", "death_date": "date", "cause_concept_id": "concept"},
    "concept_ancestor": {"ancestor_concept_id": "concept", "descendant_concept_id": "concept"},
    "cohort": {"cohort_definition_id": "concept", "subject_id": "id", "cohort_start_date": "date"},
}
Rows = list[tuple[Any, ...]]
Cdm = dict[str, Rows]

MALE, FEMALE, INPATIENT, FUROSEMIDE = 8507, 8532, 9201, 956874
HEART_FAILURE, LEFT_HEART_FAILURE = 316139, 439846
ATRIAL_FIBRILLATION, DIABETES, DIABETES_WITH_NEPHROPATHY = 313217, 201826, 443731
CREATININE, HAEMOGLOBIN, SYSTOLIC = 3016723, 3000963, 3004249
MG_DL, UMOL_L, G_DL, G_L, MMHG = 8840, 8749, 8713, 8636, 8876
BELOW = ((HEART_FAILURE, LEFT_HEART_FAILURE), (DIABETES, DIABETES_WITH_NEPHROPATHY))


@dataclass(frozen=True)
class Hospital:
    """A hospital's size, its seed, the share that it measures in other units, and how much sicker its patients are."""

    persons: int
    seed: int
    other_units: float
    sicker: float


HOSPITALS = {
    "nord": Hospital(500, 11, 0.1, 0.2),
    "sud": Hospital(420, 12, 0.6, 0.0),
    "ouest": Hospital(360, 13, 0.3, -0.2),
}


def empty_cdm() -> Cdm:
    """Return the tables without a row."""
    return {name: [] for name in COLUMNS}


def made_cdm(hospital: str) -> Cdm:
    """Return one hospital's tables, always the same."""
    return _Maker(HOSPITALS[hospital]).cdm


@dataclass
class _Maker:
    of: Hospital
    cdm: Cdm = field(default_factory=empty_cdm)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.of.seed)
        concepts = {concept for pair in BELOW for concept in pair} | {ATRIAL_FIBRILLATION, FUROSEMIDE}
        self.cdm["concept_ancestor"] += [(concept, concept) for concept in sorted(concepts)] + list(BELOW)
        for person in range(1, self.of.persons + 1):
            self.person(person)

    def person(self, person: int) -> None:
        """Add one person with everything that was recorded of them."""
        day = datetime.date(2018, 1, 1) + datetime.timedelta(self.draw.randrange(1500))
        age = min(95, max(35, round(self.draw.gauss(72, 11))))
        gender = self.draw.choice((MALE, FEMALE))
        self.cdm["person"].append((person, gender, day.year - age, 0, 0, 1 + person % 3))
        start = day - datetime.timedelta(self.draw.randrange(200, 3000))
        self.cdm["observation_period"].append((person, start, day + datetime.timedelta(400)))
        risk = (
            -1.75 + self.of.sicker + 0.07 * (age - 72) + self.conditions(person, day) + self.measurements(person, day)
        )
        if self.draw.random() < 0.12:
            return  # without a heart failure: in no cohort
        failure = self.draw.choice((HEART_FAILURE, LEFT_HEART_FAILURE))
        self.add("condition_occurrence", person, failure, day)
        self.add("condition_occurrence", person, failure, day + datetime.timedelta(self.draw.randrange(1, 300)))
        if self.draw.random() < 1 / (1 + math.exp(-risk)):
            self.cdm["death"].append((person, day + datetime.timedelta(self.draw.randrange(1, 365)), 0))
        elif self.draw.random() < 0.1:
            self.cdm["death"].append((person, day + datetime.timedelta(self.draw.randrange(366, 900)), 0))

    def conditions(self, person: int, day: datetime.date) -> float:
        """Add conditions, drugs and stays; return what they add to the risk."""
        risk = 0.0
        for concepts, share, weight in (((ATRIAL_FIBRILLATION,), 0.35, 0.8), ((DIABETES, BELOW[1][1]), 0.3, 0.7)):
            if self.draw.random() < share:
                self.add("condition_occurrence", person, self.draw.choice(concepts), self.before(day, 1, 3000))
                risk += weight
        if self.draw.random() < 0.4:
            self.add("drug_exposure", person, FUROSEMIDE, self.before(day, 1, 500))
        for _ in range(stays := self.draw.choice((0, 0, 1, 1, 2, 4))):
            self.add("visit_occurrence", person, INPATIENT, self.before(day, 1, 365))
        self.add("visit_occurrence", person, INPATIENT, self.before(day, 366, 900))
        return risk + 0.35 * stays

    def measurements(self, person: int, day: datetime.date) -> float:
        """Add measurements before and after the day; return what they add to the risk."""
        creatinine = math.exp(self.draw.gauss(0.15, 0.35))
        haemoglobin, systolic = self.draw.gauss(13, 1.8), self.draw.gauss(130, 20)
        for ago in sorted(
            (self.draw.randrange(1, 600) for _ in range(self.draw.choice((0, 1, 2, 3, 4)))), reverse=True
        ):
            other = self.draw.random() < self.of.other_units
            value, unit = (round(creatinine * 88.4), UMOL_L) if other else (round(creatinine, 2), MG_DL)
            self.measure(person, CREATININE, day - datetime.timedelta(ago), value, unit)
        other = self.draw.random() < self.of.other_units
        value, unit = (round(haemoglobin * 10), G_L) if other else (round(haemoglobin, 1), G_DL)
        self.measure(person, HAEMOGLOBIN, self.before(day, 0, 400), value, unit)
        for _ in range(self.draw.choice((1, 2, 3))):
            self.measure(person, SYSTOLIC, self.before(day, -30, 300), round(self.draw.gauss(systolic, 6)), MMHG)
        self.measure(person, CREATININE, day + datetime.timedelta(5), round(2 * creatinine, 2), MG_DL)  # too late
        return 1.2 * (creatinine - 1.2) - 0.35 * (haemoglobin - 13) - 0.02 * (systolic - 130)

    def before(self, day: datetime.date, least: int, most: int) -> datetime.date:
        """Return a day some days before."""
        return day - datetime.timedelta(self.draw.randrange(least, most))

    def add(self, table: str, person: int, concept: int, day: datetime.date) -> None:
        """Add a record with the next id."""
        self.cdm[table].append((len(self.cdm[table]) + 1, person, concept, day))

    def measure(self, person: int, concept: int, day: datetime.date, value: float, unit: int) -> None:
        """Add a measurement with the next id."""
        rows = self.cdm["measurement"]
        rows.append((len(rows) + 1, person, concept, day, value, None, unit))


def statements(schema: str) -> Iterator[str]:
    """Yield what makes an empty CDM of a schema in PostgreSQL, in the place of one that is there."""
    yield f"drop schema if exists {schema} cascade"
    yield f"create schema {schema}"
    for table, columns in COLUMNS.items():
        yield f"create table {schema}.{table} ({', '.join(f'{name} {KEYS[kind]}' for name, kind in columns.items())})"
