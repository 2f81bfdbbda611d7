"""The audit finds faults that wait until weights move, drift, pair up, leave the grid, or concern the evaluation."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from simulations.audit.auditor import PARTS
from simulations.audit.evaluation import Evaluations, evaluation_checks, exact_histogram, rounded_gaussian
from simulations.audit.moving import RowGradients
from simulations.audit.recording import clip_each, joined, patient_gradients
from simulations.audit.residuals import pairs_check, public_step
from simulations.audit.subject import Subject
from simulations.audit.verdict import LEVEL, STATISTICAL_CHECKS
from simulations.benchmarks.audit_power import FAULTS, accusations, at_most, patients_of, study_of
from strategies.learning import learning_of
from strategies.privacy.grid import on_grid
from strategies.releases.score_histogram import counts
from tests import builders
from tests.simulations.sabotage import BRIEF, HEALTHY, Sabotage, audited, audited_study, failed, study
from tests.simulations.sabotage_moving import EVALUATION_NOISE, EVALUATIONS, MORE, asking, evaluating, healthy_histogram


def ids(sabotage: Sabotage) -> str:
    return sabotage.name


def test_there_are_at_least_forty_more() -> None:
    assert len({sabotage.name for sabotage in MORE + EVALUATIONS}) >= 60


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
@pytest.mark.parametrize("sabotage", MORE, ids=ids)
def test_a_sabotage_is_found_by_the_part_it_concerns(sabotage: Sabotage, epsilon: float) -> None:
    audit = audited(sabotage.subject, epsilon, 0, sabotage.effort, sabotage.part)
    assert failed(audit) == {sabotage.part}


@pytest.mark.parametrize("sabotage", EVALUATIONS, ids=ids)
def test_a_sabotaged_evaluation_is_found(sabotage: Sabotage) -> None:
    audit = audited_study(asking(1.0), sabotage.subject, 0, EVALUATION_NOISE, sabotage.part)
    assert failed(audit) == {sabotage.part}
    assert any("evaluation" in check.name for part in audit.parts for check in part.failed)


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("subject", [Subject(), evaluating(healthy_histogram)], ids=["the product", "by hand"])
def test_a_healthy_study_with_an_evaluation_passes(subject: Subject, seed: int | None) -> None:
    audit = audited_study(asking(1.0), subject, seed, EVALUATION_NOISE, "residual", "sensitivity")
    assert failed(audit) == set()
    assert sum("evaluation" in check.name for part in audit.parts for check in part.checks) > 6
    by_chance = [check for part in audit.parts for check in part.checks if 0 < check.p < 1]
    assert len(by_chance) <= STATISTICAL_CHECKS


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize(
    "local",
    [
        {"epochs": 1, "batch_size": 12, "learning_rate": 0.05, "optimizer": "adam"},
        {"epochs": 2, "batch_size": 20, "learning_rate": 0.2, "momentum": 0.9},
        {"epochs": 1, "batch_size": "full", "learning_rate": 1.0},
        {"epochs": 1, "batch_size": 12, "learning_rate": 30.0},
    ],
    ids=["adam", "momentum", "full batches", "a rate that diverges"],
)
def test_whatever_the_settings_what_is_whole_passes(local: dict[str, object], name: str) -> None:
    audit = audited_study(study(3.0, local=local), HEALTHY[name], 0, BRIEF, *PARTS[:3])
    assert failed(audit) == set()


# The reference and its laws


@pytest.mark.parametrize("model", ["mlp", "logistic"])
def test_gradients_of_single_rows_are_those_of_plain_autograd(model: str) -> None:
    more = {"hidden": [5], "init": "random"} if model == "mlp" else {}
    task = learning_of(builders.study(model={"name": model, **more}))
    people = joined(builders.patients(23))
    start = {name: np.random.default_rng(1).normal(size=array.shape) for name, array in task.initial(0).items()}
    flat = np.concatenate([array.astype(np.float32).ravel() for array in start.values()])
    found = RowGradients(task).of_patients(flat, people, np.arange(people.count))
    expected = patient_gradients(task, {n: a.astype(np.float32) for n, a in start.items()}, people)
    np.testing.assert_allclose(np.stack([*found]), np.stack([*expected]), rtol=1e-9, atol=1e-12)


def test_a_gradient_that_is_not_finite_counts_as_zeros() -> None:
    (found,) = clip_each([np.array([np.inf, 1.0])], 1.0)
    assert found.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("deviation", [1e-6, 0.3, 1.0, 1.999, 2.0, 5e5])
def test_the_public_step_is_the_one_that_the_product_rounds_to(deviation: float) -> None:
    rng = np.random.default_rng(0)
    released = on_grid(rng.normal(0, deviation, 500), deviation, 1.0) / public_step(deviation)
    assert (released == np.rint(released)).all()
    assert (released % 2 == 1).any(), "a coarser step would do too"


def test_the_correlation_of_pairs_has_the_law_that_it_is_judged_by() -> None:
    rng = np.random.default_rng(4)
    found = [pairs_check("pairs", rng.normal(size=(30, 8))).p for _ in range(400)]
    assert np.mean(np.array(found) < 0.05) <= 0.09
    assert min(found) > LEVEL


@pytest.mark.parametrize("deviation", [0.4, 1.0, 3.0, 20.0])
def test_healthy_noise_of_evaluations_passes_at_every_deviation(deviation: float) -> None:
    rng = np.random.default_rng(7)
    for _ in range(25):
        seen = Evaluations(np.rint(rng.normal(0, deviation, (60, 12))), deviation, True)
        assert [check.name for check in evaluation_checks(seen) if not check.passed] == []


@pytest.mark.parametrize("deviation", [0.05, 0.5, 4.0])
def test_a_rounded_gaussians_chances_add_up_to_one(deviation: float) -> None:
    values, chances = rounded_gaussian(deviation)
    assert chances.sum() == pytest.approx(1.0, abs=1e-12)
    assert abs(float(chances @ values)) < 1e-12


def test_the_exact_histogram_is_the_products_where_no_score_is_near_an_edge() -> None:
    whole = asking(1.0)
    task, people = learning_of(whole), joined(builders.patients(50, inputs=20, seed=1))
    model = {n: np.random.default_rng(2).normal(size=a.shape).astype(np.float32) for n, a in task.initial(0).items()}
    expected, clear = exact_histogram(task, model, people, 6)
    scores = task.predict(model, people.x)[:, 1]
    found = counts(scores, people.y, starts=people.starts, bins=6).ravel()
    assert clear.mean() > 0.5
    assert (found[clear] == expected[clear]).all()
    assert found.sum() == expected.sum() == people.count


# How often


def test_healthy_audits_are_not_accused() -> None:
    study_, people = study_of(), patients_of()
    assert accusations(study_, people, Subject(), range(20)) == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_the_benchmark_is_noticed(fault: str) -> None:
    make: Callable[[], Subject] = FAULTS[fault]
    assert accusations(study_of(), patients_of(), make(), range(2)) == 2


def test_the_bound_on_a_rate_is_clopper_and_pearsons() -> None:
    assert at_most(0, 3_000) == pytest.approx(1 - 0.05 ** (1 / 3_000))
    assert at_most(3, 100) == pytest.approx(0.0757, abs=1e-3)


def test_a_larger_effort_is_no_other_audit() -> None:
    effort = replace(BRIEF, moving_steps=BRIEF.moving_steps + 5)
    assert failed(audited_study(study(1.0), Subject(), 0, effort, "residual")) == set()
