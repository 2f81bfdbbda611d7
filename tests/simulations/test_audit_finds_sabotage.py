"""Whatever is broken in what trains, the audit finds it, in the part where it belongs; and what is whole passes."""

from dataclasses import replace

import pytest

from simulations.audit.auditor import PARTS
from simulations.audit.subject import Subject
from simulations.audit.verdict import FALSE_ALARMS, LEVEL, STATISTICAL_CHECKS
from tests.simulations.sabotage import (
    BRIEF,
    HEALTHY,
    SABOTAGES,
    WORK,
    Sabotage,
    audited,
    audited_study,
    failed,
    small_study,
    study,
)


def ids(sabotage: Sabotage) -> str:
    return sabotage.name


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
@pytest.mark.parametrize("sabotage", SABOTAGES, ids=ids)
def test_a_sabotage_is_found_by_the_part_it_concerns(sabotage: Sabotage, epsilon: float) -> None:
    audit = audited(sabotage.subject, epsilon, 0, sabotage.effort, sabotage.part)
    assert failed(audit) == {sabotage.part}
    assert audit.verdict == "FAILED"


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
@pytest.mark.parametrize("name", HEALTHY)
def test_what_is_whole_passes_every_part(name: str, epsilon: float) -> None:
    audit = audited(HEALTHY[name], epsilon)
    assert [part.key for part in audit.parts] == list(PARTS)
    assert failed(audit) == set()


def test_healthy_runs_raise_no_alarm_and_seldom_come_near_one() -> None:
    """Alarms are for p-values that 5,000 audits have once: how often forty have small ones shows more than alarms do.

    Checks of one audit are not independent and some are approximations, so the tail may be a few times as heavy as that
    of a uniform law; were it heavier, one run in a hundred would be accused.
    """
    small = small_study()
    audits = [audited_study(small, Subject(), 1000 + seed, BRIEF) for seed in range(40)]
    assert [audit for audit in audits if failed(audit)] == []
    found = [check.p for audit in audits for part in audit.parts for check in part.checks if 0 < check.p < 1]
    assert len(found) > 2_000
    for level, at_most in ((0.1, 0.15), (0.01, 0.02), (0.001, 0.005), (1e-4, 0.001)):
        assert sum(p < level for p in found) <= at_most * len(found)


def test_an_audit_may_take_its_chance_from_the_operating_system() -> None:
    audit = audited_study(small_study(), Subject(), None, BRIEF)
    assert audit.record.chance == "operating system"
    assert failed(audit) == set()


def test_the_same_seed_gives_the_same_audit() -> None:
    first, second = (audited_study(small_study(), Subject(), 5, BRIEF).parts for _ in range(2))
    assert first == second


def test_there_are_no_more_checks_by_chance_than_the_level_allows_for() -> None:
    audit = audited(Subject(), 1.0, 3)
    by_chance = [check for part in audit.parts for check in part.checks if 0 < check.p < 1]
    assert len(by_chance) <= STATISTICAL_CHECKS
    assert pytest.approx(FALSE_ALARMS) == LEVEL * STATISTICAL_CHECKS


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("strategy", ["fedavg", "fedprox"])
def test_whatever_the_optimizer_and_strategy_what_leaves_is_made_of_noisy_steps(strategy: str, optimizer: str) -> None:
    local = {"epochs": 1, "batch_size": 12, "learning_rate": 0.05, "optimizer": optimizer}
    audit = audited_study(study(8.0, strategy={"name": strategy}, local=local), Subject(), 0, BRIEF, "residual")
    assert failed(audit) == set()


def test_an_audit_of_full_batches_passes() -> None:
    full = {"epochs": 1, "batch_size": "full", "learning_rate": 0.5}
    audit = audited_study(study(3.0, local=full), Subject(), 0, BRIEF)
    assert failed(audit) == set()


@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_the_step_to_which_much_noise_is_rounded_is_no_move_of_a_patient(epsilon: float) -> None:
    full = {"epochs": 1, "batch_size": "full", "learning_rate": 0.5}
    audit = audited_study(study(epsilon, local=full), Subject(), 0, replace(WORK, starts=3), "sensitivity")
    assert failed(audit) == set()


def test_a_claim_beyond_what_canaries_can_show_is_no_pass() -> None:
    (part,) = audited(Subject(), 8.0, 0, WORK, "canaries").parts
    assert part.verdict == "cannot say"
    assert "canaries one run can show" in part.words
