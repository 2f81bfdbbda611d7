"""The plan: within the budget, tight, and known before anybody looks at data."""

from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import PrivacyError
from configs.schema import CohortMember, Study
from strategies.privacy.accounting import SampledGaussian, epsilon
from strategies.privacy.modes.local import plan_for
from strategies.privacy.modes.registry import mode_of
from strategies.privacy.plan import Budget, PrivacyPlan, calibrate
from tests.builders import plain, study
from tests.strategies.privacy.accountants import by_google

LOCALS: dict[str, dict[str, object]] = {
    "full batch, one epoch": {"batch_size": "full", "epochs": 1},
    "full batch, three epochs": {"batch_size": "full", "epochs": 3},
    "full batch, five steps": {"batch_size": "full", "steps": 5},
    "batch of 16, one epoch": {"batch_size": 16, "epochs": 1},
    "batch of 16, two epochs": {"batch_size": 16, "epochs": 2},
    "batch of 7, four steps": {"batch_size": 7, "steps": 4},
    "batch of everybody": {"batch_size": 60, "epochs": 1},
}


def with_local(local: dict[str, object], **privacy: float) -> PrivacyPlan:
    chosen = study(training={"local": {"learning_rate": 0.5} | local, "rounds": 2}, privacy=privacy)
    return plan_for(chosen, "brest", 60)


@settings(max_examples=25)
@given(st.floats(0.05, 20.0), st.integers(1, 3000))
def test_a_full_batch_plan_is_within_its_budget_and_tight(target: float, steps: int) -> None:
    plan = calibrate(
        Budget(target, 1e-5), clip_norm=1.0, sampling_rate=1.0, steps_per_round=steps, rounds=1, patients=100
    )
    less = SampledGaussian(round(plan.noise_multiplier - 1e-4, 4), 1.0, steps)
    assert plan.epsilon() <= target < epsilon([less], 1e-5)


@pytest.mark.parametrize(("target", "rate", "steps"), [(1.0, 0.1, 40), (3.0, 0.3, 25), (8.0, 0.05, 60)])
def test_a_sampled_plan_is_within_its_budget_and_tight(target: float, rate: float, steps: int) -> None:
    plan = calibrate(
        Budget(target, 1e-5), clip_norm=1.0, sampling_rate=rate, steps_per_round=steps, rounds=1, patients=100
    )
    less = SampledGaussian(round(plan.noise_multiplier - 1e-4, 4), rate, steps)
    assert plan.epsilon() <= target < epsilon([less], 1e-5)


@pytest.mark.parametrize("local", LOCALS.values(), ids=LOCALS)
def test_the_whole_study_composes_to_at_most_its_epsilon_says_google_too(local: dict[str, object]) -> None:
    plan = with_local(local)
    rounds = [SampledGaussian(plan.noise_multiplier, plan.sampling_rate, plan.steps_per_round)] * 2
    assert 2.99 < by_google(rounds, 1e-5) <= 3.0 + 1e-3
    assert epsilon(rounds, 1e-5) <= 3.0


@pytest.mark.parametrize("spare", [1, 2, 7])
@pytest.mark.parametrize("local", LOCALS.values(), ids=LOCALS)
def test_every_mixture_of_spare_releases_stays_within_both_budgets_says_google_too(
    local: dict[str, object], spare: int
) -> None:
    training = {"local": {"learning_rate": 0.5} | local, "rounds": 2}
    evaluation = {"test_fraction": 0.25, "release": {"epsilon": 0.5, "bins": 5}}
    chosen = study(training=training, privacy={"spare": spare}, evaluation=evaluation, cohort={"brest": 80})
    plan = plan_for(chosen, "brest")
    assert plan.evaluation is not None
    whole = plan.whole_epsilon()
    for again in {0, 1, spare}:  # evaluations made anew; the rest of the spare are rounds
        events = [plan.round_event] * (2 + spare - again) + [plan.evaluation] * (1 + again)
        assert epsilon(events, 1e-5) <= whole
        assert by_google(events, 1e-5) <= whole + 2e-3
    assert 2.98 < by_google([plan.round_event] * (2 + spare), 1e-5) <= 3.0 + 1e-3
    assert 0.49 < by_google([plan.evaluation] * (1 + spare), 1e-5) <= 0.5 + 1e-3
    assert plan.epsilon() <= 3.0 < epsilon([plan.round_event] * (3 + spare), 1e-5)
    assert plan.epsilon(rounds=2) < plan.epsilon()


def test_a_study_without_spare_has_the_plan_that_it_had() -> None:
    without, zero = study(), study(privacy={"spare": 0})
    assert without.sha256 == zero.sha256
    assert "spare" not in without.canonical
    assert plan_for(without, "brest") == plan_for(zero, "brest")
    assert plan_for(without, "brest") != plan_for(study(privacy={"spare": 1}), "brest")


def test_the_name_that_a_plan_has_in_older_ledgers_stays() -> None:
    assert "spare" not in repr(plan_for(study(privacy={"spare": 1}), "brest"))


@pytest.mark.parametrize(
    ("name", "rate", "steps_per_round"),
    [
        ("full batch, one epoch", 1.0, 1),
        ("full batch, three epochs", 1.0, 3),
        ("full batch, five steps", 1.0, 5),
        ("batch of 16, one epoch", 16 / 60, 4),
        ("batch of 16, two epochs", 16 / 60, 8),
        ("batch of 7, four steps", 7 / 60, 4),
        ("batch of everybody", 1.0, 1),
    ],
)
def test_rate_and_steps_follow_from_the_study(name: str, rate: float, steps_per_round: int) -> None:
    plan = with_local(LOCALS[name])
    assert (plan.sampling_rate, plan.steps_per_round, plan.rounds) == (rate, steps_per_round, 2)


def test_fewer_rounds_cost_less_and_all_rounds_are_the_default() -> None:
    plan = with_local(LOCALS["full batch, one epoch"])
    spent = [plan.epsilon(rounds=n) for n in (1, 2)]
    assert plan.epsilon() == spent[-1] > spent[0] > 0


@pytest.mark.parametrize("counted", [1, 40, 59, 61, 5000])
def test_the_number_of_patients_in_the_data_does_not_change_an_announced_plan(counted: int) -> None:
    chosen = study(training={"local": {"batch_size": 16, "learning_rate": 0.5}})
    assert plan_for(chosen, "brest", counted) == plan_for(chosen, "brest", 60)


def test_the_announced_size_does_change_it() -> None:
    chosen = study(training={"local": {"batch_size": 16, "learning_rate": 0.5}})
    assert plan_for(chosen, "brest", 60) != plan_for(chosen, "lille", 60)


def test_the_divisor_is_the_rate_times_the_announced_training_patients() -> None:
    chosen = study(training={"local": {"batch_size": 16, "learning_rate": 0.5}}, evaluation={"test_fraction": 0.25})
    assert plan_for(chosen, "lille", 3).expected_patients == pytest.approx(16.0)  # 16 of 75
    assert plan_for(study(evaluation={"test_fraction": 0.25}), "lille", 3).expected_patients == 75.0


@pytest.mark.parametrize("cohort", [{}, {"lille": 100}])
@pytest.mark.parametrize("batch_size", [16, None])
def test_without_an_announcement_there_is_no_plan_and_the_count_is_not_told(
    cohort: dict[str, int], batch_size: int | None
) -> None:
    chosen = study(training={"local": {"batch_size": 16, "learning_rate": 0.5}})
    local = replace(chosen.training.local, batch_size=batch_size)
    members = tuple(CohortMember(site, patients) for site, patients in cohort.items())
    chosen = replace(chosen, cohort=members, training=replace(chosen.training, local=local))
    with pytest.raises(PrivacyError, match="cohort: expected brest with its announced patients, found none") as told:
        plan_for(chosen, "brest", 4711)
    assert "4711" not in str(told.value)


@pytest.mark.parametrize("change", [{"learning_rate": 0.01}, {"optimizer": "adam"}, {"momentum": 0.9}])
def test_settings_that_cannot_change_privacy_do_not_change_the_plan(change: dict[str, object]) -> None:
    assert with_local(LOCALS["batch of 16, one epoch"] | change) == with_local(LOCALS["batch of 16, one epoch"])


def test_the_clip_norm_does_not_change_the_noise_multiplier() -> None:
    narrow, wide = with_local({"batch_size": "full"}, clip_norm=0.1), with_local({"batch_size": "full"}, clip_norm=10.0)
    assert narrow.noise_multiplier == wide.noise_multiplier
    assert (narrow.clip_norm, wide.clip_norm) == (0.1, 10.0)


def with_batch(size: int, announced: int) -> Study:
    """Brest announced so many; the loader would refuse some of these before."""
    chosen = study(cohort={"brest": 100}, training={"local": {"batch_size": size, "learning_rate": 0.5}})
    return replace(chosen, cohort=(CohortMember("brest", announced),))


def test_a_batch_larger_than_the_hospital_is_refused_with_both_numbers() -> None:
    chosen = with_batch(64, announced=63)
    with pytest.raises(PrivacyError, match=r"brest: training\.local\.batch_size: .* 63 training patients .*, got 64"):
        plan_for(chosen, "brest", 100)


def test_a_batch_as_large_as_the_hospital_is_everybody() -> None:
    assert plan_for(with_batch(64, announced=64), "brest", 3).sampling_rate == 1.0


def test_a_budget_that_no_noise_reaches_is_refused() -> None:
    with pytest.raises(PrivacyError, match="ask for fewer steps or more epsilon"):
        calibrate(
            Budget(0.01, 1e-5), clip_norm=1.0, sampling_rate=1.0, steps_per_round=1000, rounds=10_000, patients=10
        )


def test_a_plan_cannot_be_changed() -> None:
    plan = with_local(LOCALS["full batch, one epoch"])
    with pytest.raises(FrozenInstanceError):
        plan.noise_multiplier = 0.1  # type: ignore[misc]


def test_a_study_without_privacy_is_not_private() -> None:
    assert mode_of(plain()).guarantee(plain()) is None


GOOD = {"clip_norm": 1.0, "noise_multiplier": 1.0, "sampling_rate": 0.1, "steps_per_round": 1, "rounds": 1}
GOOD |= {"delta": 1e-5, "expected_patients": 10.0}
NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clip_norm", 0.0),
        ("clip_norm", NAN),
        ("noise_multiplier", 0.0),
        ("noise_multiplier", NAN),
        ("sampling_rate", 0.0),
        ("sampling_rate", 1.01),
        ("sampling_rate", NAN),
        ("steps_per_round", 0),
        ("rounds", 0),
        ("delta", 0.0),
        ("delta", 1.0),
        ("expected_patients", 0.0),
    ],
)
def test_a_plan_that_cannot_be_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(PrivacyError, match=f"privacy: {name}: expected"):
        PrivacyPlan(**GOOD | {name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("target", "delta"), [(0.0, 1e-5), (NAN, 1e-5), (1.0, 0.0), (1.0, 1.0), (1.0, NAN)])
def test_a_budget_that_cannot_be_is_refused(target: float, delta: float) -> None:
    with pytest.raises(PrivacyError, match=r"privacy: (epsilon|delta): expected"):
        Budget(target, delta)


@pytest.mark.parametrize("delta", [1e-3, 0.01])
def test_a_delta_of_one_over_the_patients_or_more_is_refused(delta: float) -> None:
    with pytest.raises(PrivacyError, match=r"expected 0 < delta < 1/patients \(= 1\.0e-03\)"):
        calibrate(Budget(1.0, delta), clip_norm=1.0, sampling_rate=1.0, steps_per_round=1, rounds=1, patients=1000)


@pytest.mark.parametrize("delta", [1e-15, 1e-5])
@pytest.mark.parametrize("rate", [0.1, 1.0])
@pytest.mark.parametrize("target", [0.01, 500.0])
def test_a_very_small_and_a_very_large_epsilon_have_a_plan(target: float, rate: float, delta: float) -> None:
    plan = calibrate(
        Budget(target, delta), clip_norm=1.0, sampling_rate=rate, steps_per_round=10, rounds=10, patients=1000
    )
    assert 0.98 * target < plan.epsilon() <= target
