"""A hospital decides by its own study, plan and ledger; a message names a round and a model, nothing else."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from client.ledger import Ledger
from client.site import Site
from client.trainer import Trainer
from configs.errors import BudgetError, PrivacyError, RunError, WireError
from configs.schema import CohortMember, Study
from strategies.privacy.accounting import epsilon
from strategies.privacy.modes.local import plan_for
from strategies.releases.base import Fit
from tests.builders import DIVERGING, flat, patients, plain, random_arrays, same_bits, study

SAMPLED = {"local": {"batch_size": 20, "learning_rate": 0.5}}


def site(chosen: Study, *, count: int = 100, ledger: Ledger | None = None, seeded: bool = True, **people: Any) -> Site:
    return Site("lille", chosen, patients(count, **people), ledger or Ledger.in_memory(), seeded=seeded)


def spent(one: Site) -> float:
    return one.ledger.spent("lille", delta=1e-5)


def start_of(one: Site, seed: int = 0) -> dict[str, np.ndarray]:
    return random_arrays(one.parameters, seed)


def test_the_plan_is_the_studys_for_the_announced_size_whatever_the_data_hold() -> None:
    chosen = study(training=SAMPLED)
    plans = [site(chosen, count=count).plan for count in (30, 100, 500)]
    assert plans[0] == plans[1] == plans[2] == plan_for(chosen, "lille", 100)


def test_a_study_without_privacy_has_no_plan_and_books_nothing() -> None:
    one = site(plain())
    one.fit(1, start_of(one))
    assert one.plan is None
    assert spent(one) == 0.0


@pytest.mark.parametrize("training", [{}, SAMPLED], ids=["full batches", "sampled"])
def test_every_round_is_booked_and_the_study_ends_within_its_budget(training: dict[str, Any]) -> None:
    one = site(study(training=training))
    assert one.plan is not None
    for number in (1, 2, 3):
        one.fit(number, start_of(one, number))
        assert spent(one) == epsilon([one.plan.round_event] * number, 1e-5)
    assert 2.99 < spent(one) <= 3.0


@pytest.mark.parametrize("number", [0, -1, 4, 10**9])
def test_a_round_that_the_study_does_not_have_is_refused_and_nothing_is_booked(number: int) -> None:
    one = site(study())
    with pytest.raises(WireError, match="expected a round from 1 to 3"):
        one.fit(number, start_of(one))
    assert spent(one) == 0.0


def test_asking_again_and_again_ends_at_the_budget_and_not_beyond() -> None:
    one = site(study(), seeded=False)
    for _ in range(3):
        one.fit(1, start_of(one))
    with pytest.raises(BudgetError):
        one.fit(1, start_of(one))
    assert 2.99 < spent(one) <= 3.0


def test_a_seeded_round_asked_again_with_the_same_model_is_the_same_release() -> None:
    one = site(study())
    first, again = one.fit(1, start_of(one)), one.fit(1, start_of(one))
    assert same_bits(first, again)
    assert spent(one) == epsilon([plan_for(study(), "lille", 100).round_event], 1e-5)


@pytest.mark.parametrize("change", ["model", "round", "patients"])
def test_a_seeded_round_from_anything_else_is_another_release(change: str) -> None:
    ledger = Ledger.in_memory()
    one = site(study(), ledger=ledger)
    one.fit(1, start_of(one))
    other = site(study(), ledger=ledger, seed=9) if change == "patients" else one
    other.fit(2 if change == "round" else 1, start_of(one, 1 if change == "model" else 0))
    assert spent(one) == epsilon([plan_for(study(), "lille", 100).round_event] * 2, 1e-5)


def test_an_unseeded_round_has_other_noise_every_time() -> None:
    one = site(study(), seeded=False)
    assert not same_bits(one.fit(1, start_of(one)), one.fit(1, start_of(one)))


def test_the_noise_at_a_hospital_is_that_of_its_plan() -> None:
    """From one start with one step the models differ by lr * noise * clip / expected, and the data's part is fixed."""
    one = site(study(training={"rounds": 100}), seeded=False, inputs=2)
    assert one.plan is not None
    drawn = np.stack([flat(one.fit(1, start_of(one))) for _ in range(100)])
    promised = 0.5 * one.plan.noise_multiplier * 1.0 / 100.0
    assert float(drawn.std(axis=0).mean()) == pytest.approx(promised, rel=0.15)


def test_without_privacy_a_deployed_hospital_repeats_its_simulation() -> None:
    chosen = plain(training=SAMPLED)
    deployed, simulated = site(chosen, seeded=False), site(chosen, seeded=True)
    assert same_bits(deployed.fit(2, start_of(deployed)), simulated.fit(2, start_of(simulated)))


def test_the_gradient_is_never_computed_when_the_ledger_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    one = site(study(), seeded=False)
    for number in (1, 2, 3):
        one.fit(number, start_of(one))
    monkeypatch.setattr(Trainer, "fit", lambda *args, **kwargs: pytest.fail("trained"))
    with pytest.raises(BudgetError):
        one.fit(1, start_of(one))


def test_a_round_that_fails_on_patients_and_on_nobody_stays_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    one = site(study())

    def out_of_memory(*args: object, **kwargs: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Trainer, "fit", out_of_memory)
    with pytest.raises(RunError, match="no release could be made, not even of nobody: MemoryError"):
        one.fit(1, start_of(one))
    assert spent(one) == epsilon([plan_for(study(), "lille", 100).round_event], 1e-5)


def test_a_round_that_fails_on_patients_alone_is_the_start_and_noise_and_no_patients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of two hospitals with other patients the same bits: their noise is seeded, and of nobody but the noise."""
    fit, sent = Trainer.fit, []

    def fails_on_patients(self: Trainer, wanted: Fit) -> Any:
        if wanted.patients.count:
            raise MemoryError
        return fit(self, wanted)

    monkeypatch.setattr(Trainer, "fit", fails_on_patients)
    for seed in (1, 2):
        one = site(study(), seed=seed)
        start = start_of(one)
        sent.append(one.fit(1, start, loaded=start.clear))
    assert same_bits(*sent)
    assert not same_bits(sent[0], start_of(one))


def test_a_batch_larger_than_the_hospital_is_refused_before_anything_is_booked() -> None:
    chosen = study(training={"local": {"batch_size": 20, "learning_rate": 0.5}})
    one = site(replace(chosen, cohort=(CohortMember("lille", 10),)))
    with pytest.raises(PrivacyError, match="batch_size"):
        one.fit(1, start_of(one))
    assert spent(one) == 0.0


@pytest.mark.parametrize("batch_size", [16, "full"])
def test_a_hospital_outside_the_cohort_does_not_train_on_the_number_that_it_counted(batch_size: int | str) -> None:
    chosen = study(cohort={"brest": 60}, training={"local": {"batch_size": batch_size, "learning_rate": 0.5}})
    one = site(chosen, count=97)
    with pytest.raises(PrivacyError, match="cohort: expected lille with its announced patients, found none") as told:
        one.fit(1, start_of(one))
    assert "97" not in str(told.value)
    assert spent(one) == 0.0


@pytest.mark.parametrize("count", [40, 160])
def test_a_private_round_has_the_steps_of_the_announced_size_whatever_was_counted(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    taken: list[int] = []

    def fit(self: Trainer, wanted: Fit) -> Any:
        taken.append(wanted.steps)
        return wanted.start

    monkeypatch.setattr(Trainer, "fit", fit)
    one = site(study(training=SAMPLED), count=count)
    one.fit(1, start_of(one))
    assert taken == [5]  # of 20 in 100


def test_a_model_that_diverged_is_refused_and_has_spent_its_round() -> None:
    one = site(study(training=DIVERGING))
    with pytest.raises(RunError, match="not finite, nothing is sent"):
        one.fit(1, start_of(one))
    assert spent(one) > 0


@pytest.mark.parametrize("seeded", [True, False], ids=["seeded", "from the system"])
def test_no_refusal_tells_whether_a_patient_is_there(seeded: bool) -> None:
    """A finite model under which one patient alone would overflow: with and without that patient a model leaves."""
    for there in (True, False):
        one = site(study(model={"name": "mlp", "hidden": [4]}), seeded=seeded, count=100, inputs=2)
        one.train.x[:] = 0.1
        one.train.x[0] = 1.0 if there else 0.1
        start = {name: np.zeros_like(array) for name, array in start_of(one).items()}
        start["0.weight"][0] = (3e38, 3e38)
        assert all(np.isfinite(array).all() for array in one.fit(1, start).values())


@pytest.mark.parametrize("training", [{}, SAMPLED], ids=["full batches", "sampled"])
@pytest.mark.parametrize("make", [study, plain], ids=["private", "plain"])
def test_a_hospital_without_a_patient_sends_noise_alone_or_the_very_model(
    make: Callable[..., Study], training: dict[str, Any]
) -> None:
    one = site(make(training=training), count=0)
    start = start_of(one)
    sent = one.fit(1, dict(start), loaded=start.clear)
    assert all(np.isfinite(array).all() for array in sent.values())
    assert same_bits(sent, start_of(one)) == (one.plan is None)


def test_the_pull_of_fedprox_comes_from_the_study() -> None:
    models = []
    for mu in (0.0, 5.0):
        one = site(
            plain(
                training={
                    "strategy": {"name": "fedprox", "proximal_mu": mu},
                    "local": {"batch_size": 5, "learning_rate": 0.1},
                }
            )
        )
        models.append(flat(one.fit(1, start_of(one))) - flat(start_of(one)))
    assert float(np.linalg.norm(models[1])) < float(np.linalg.norm(models[0]))
