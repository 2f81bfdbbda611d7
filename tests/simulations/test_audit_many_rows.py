"""Patients with very many rows: the audit's work does not grow with them, and faults that only they show are found."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from client.patients import Split
from client.site import Site
from simulations.audit.auditor import PARTS, audit_patients
from simulations.audit.recording import longest, shortened
from simulations.audit.subject import Subject
from simulations.audit.verdict import STATISTICAL_CHECKS, Audit
from strategies.data.table import TablePatients
from strategies.privacy.engines.select import private_engine
from tests import builders
from tests.simulations.sabotage import (
    BRIEF,
    CHEAP,
    HEALTHY,
    SITE,
    Engine,
    SameSeedEachRound,
    audited_study,
    failed,
    study,
)

ROWS, MANY = 2_000, 1_000  # of each patient; more than a fault below sets in at
EFFORT = replace(BRIEF, rows=200, all_rows=120_000, planted_rows=4_000)


def people(rows: int = ROWS) -> TablePatients:
    return builders.patients(3, inputs=20, rows_each=rows, seed=1)


def audited(subject: Subject, *only: str, rows: int = ROWS) -> Audit:
    return audit_patients(study(1.0), {SITE: people(rows)}, subject, seed=0, effort=EFFORT, only=only or PARTS)


class Counted:
    """The product's engine, with the rows that go through each step written down."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, model: Any, plan: Any, gaussian: Any, name: Any = "auto") -> Any:
        rows, made = self.rows, private_engine(model, plan, gaussian, name)

        class Counting:
            def noisy_gradient(self, x: Tensor, *rest: Any, **more: Any) -> Tensor:
                rows.append(len(x))
                return made.noisy_gradient(x, *rest, **more)

            def close(self) -> None:
                made.close()

        return Counting()


def test_an_audit_goes_through_no_more_rows_than_its_effort_allows_and_once_at_least_through_all() -> None:
    counted = Counted()
    audit = audited(Subject(engine=counted), rows=20_000)
    assert failed(audit) == set()
    fits, planted = 2 * EFFORT.all_rows, 4 * EFFORT.planted_rows
    assert sum(counted.rows) <= len(counted.rows) * (EFFORT.rows + EFFORT.canaries) + fits + planted
    assert max(counted.rows) >= 20_000  # of one patient


def test_patients_with_few_rows_are_audited_with_all_of_them() -> None:
    counted = Counted()
    (part,) = audited(Subject(engine=counted), "residual", rows=60).parts
    assert max(counted.rows) == 3 * 60
    assert not any("all rows" in check.name for check in part.checks)


def test_there_are_no_more_checks_by_chance_than_the_level_allows_for() -> None:
    by_chance = [check for part in audited(Subject()).parts for check in part.checks if 0 < check.p < 1]
    assert any("all rows" in check.name for check in by_chance)
    assert len(by_chance) <= STATISTICAL_CHECKS


class QuietForMany(Engine):
    """Half the noise for a batch of many rows."""

    def noisy_gradient(self, x: Tensor, y: Tensor, patients: Tensor, *, patients_in_batch: int) -> Tensor:
        self.factor = 0.5 if len(x) > MANY else 1.0
        return super().noisy_gradient(x, y, patients, patients_in_batch=patients_in_batch)

    def noise(self, size: int) -> Tensor:
        return super().noise(size) * self.factor


class ClipsInPortions(Engine):
    """The rows of a large batch are clipped portion by portion."""

    def patients(self, rows: Tensor, patients: Tensor, count: int) -> Tensor:
        portion = torch.arange(len(patients)) // MANY
        key = patients * (1 + len(patients) // MANY) + portion
        return super().patients(rows, key, int(key.max()) + 1 if len(key) else count)


class LosesRows(Site):
    """Trains with the first rows of a patient who has many."""

    def __init__(self, name: str, study: Any, people: Any, *rest: Any, **more: Any) -> None:
        if isinstance(people, Split):
            people = replace(people, train=shortened(people.train, 3 * MANY))
        else:
            people = shortened(people, 3 * MANY)
        super().__init__(name, study, people, *rest, **more)


@pytest.mark.parametrize(
    ("subject", "part"),
    [
        (Subject(engine=QuietForMany), "residual"),
        (Subject(engine=ClipsInPortions), "sensitivity"),
        (Subject(site=LosesRows), "sampler"),
    ],
)
def test_a_fault_that_only_many_rows_show_is_found(subject: Subject, part: str) -> None:
    assert failed(audited(subject, part)) == {part}


@pytest.mark.parametrize("name", HEALTHY)
def test_what_is_whole_passes_with_many_rows(name: str) -> None:
    assert failed(audited(HEALTHY[name])) == set()


def test_of_a_large_model_with_many_steps_some_coordinates_are_kept_and_show_a_seed_used_twice() -> None:
    few = replace(CHEAP, values=4_000)  # of about 1,600 parameters, the canaries' among them, in 15 steps
    whole, same = (
        audited_study(study(1.0), subject, 0, few, "residual")
        for subject in (Subject(), Subject(site=SameSeedEachRound))
    )
    assert failed(whole) == set()
    assert failed(same) == {"residual"}


def test_shortened_patients_all_stay_with_their_first_rows() -> None:
    several = builders.patients(4, rows_each=[1, 50, 3, 20])
    some = shortened(several, 24)
    assert np.diff(some.starts).tolist() == [1, 10, 3, 10]
    np.testing.assert_array_equal(some.x[1:11], several.x[1:11])
    np.testing.assert_array_equal(some.x[14:], several.x[54:64])
    assert shortened(several, 74) is several
    assert np.diff(shortened(several, 2).starts).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(("rows", "lengths"), [(100, [1, 50, 3, 20]), (70, [50, 20]), (55, [50]), (30, [30])])
def test_the_longest_patients_come_whole_but_for_one_who_has_too_many(rows: int, lengths: list[int]) -> None:
    assert np.diff(longest(builders.patients(4, rows_each=[1, 50, 3, 20]), rows).starts).tolist() == lengths
