"""The release `inference`: what it costs, what leaves, what is refused, and intervals that hold what they say."""

from typing import Any

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld

from client.ledger import Ledger
from client.patients import Split
from client.site import Site
from configs.errors import BudgetError, ConfigError, WireError
from configs.load import study_from
from configs.schema import Study
from simulations.benchmarks import inference as benchmark
from strategies.data.person_periods import HasPeriods, PersonPeriods, person_periods
from strategies.data.table import TablePatients
from strategies.effects import effects
from strategies.learning import learning_of
from strategies.privacy.grid import step_of
from strategies.privacy.modes.registry import mode_of
from strategies.privacy.randomness import Randomness
from strategies.releases.base import Request
from strategies.releases.inference import noised, require_plausible
from strategies.releases.information import frame_of, summed
from strategies.releases.registry import INFERENCE
from tests.builders import patients, random_arrays, study

ASKED: dict[str, Any] = {"inference": {"epsilon": 1.0}}
ARRAY = "information"


@pytest.fixture(scope="module")
def asking() -> Study:
    return study(releases=ASKED)


def multiplier(chosen: Study) -> float:
    plan = mode_of(chosen).plan(chosen, "lille")
    assert plan is not None
    event = INFERENCE.event(plan)
    assert event is not None
    return event.noise_multiplier


def site(chosen: Study, people: Any) -> Site:
    """A hospital that has trained all rounds."""
    made = Site("lille", chosen, people, Ledger.in_memory(), seeded=False)
    for number in range(1, chosen.training.rounds + 1):
        made.fit(number, random_arrays(learning_of(chosen).parameters))
    return made


def test_its_noise_keeps_its_epsilon_by_another_accountant(asking: Study) -> None:
    for chosen, releases in ((asking, 1), (study(releases=ASKED, privacy={"spare": 2}), 3)):
        accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
        accountant.compose(dp_accounting.GaussianDpEvent(multiplier(chosen)), releases)
        assert 0.98 < accountant.get_epsilon(1e-5) <= 1.001


def test_the_noise_is_the_multiplier_times_the_longest_patient_and_lies_on_the_grid(asking: Study) -> None:
    frame, chance = frame_of(asking), Randomness.seeded(0, "lille", 0)
    deviation = multiplier(asking) * frame.length
    drawn = np.concatenate([noised(np.zeros(frame.size), deviation, chance) for _ in range(1000)]).astype(np.float64)
    assert drawn.std() == pytest.approx(deviation, rel=0.03)
    assert abs(drawn.mean()) < 4 * deviation / len(drawn) ** 0.5
    assert (drawn / step_of(deviation) == np.rint(drawn / step_of(deviation))).all()


def test_it_is_booked_made_once_and_of_those_who_train(asking: Study) -> None:
    train, test = patients(40), patients(20, seed=9)
    hospital = site(asking, Split(train, test, {}))
    model = random_arrays(learning_of(asking).parameters)
    released = hospital.release("inference", Request(model))[ARRAY].astype(np.float64)
    exact = summed(train, learning_of(asking), model, frame_of(asking))
    assert np.abs(released - exact).max() < 8 * multiplier(asking) * frame_of(asking).length
    assert hospital.ledger.booked("lille", asking.sha256, 0, release="inference")
    with pytest.raises(BudgetError):
        hospital.release("inference", Request(model))


def test_a_hospital_that_has_not_trained_or_is_not_asked_refuses(asking: Study) -> None:
    model = random_arrays(learning_of(asking).parameters)
    with pytest.raises(WireError, match="has trained here before"):
        Site("lille", asking, patients(40), Ledger.in_memory(), seeded=False).release("inference", Request(model))
    with pytest.raises(WireError, match=r"releases\.inference"):
        site(study(), patients(40)).release("inference", Request(model))


def test_after_a_failure_noise_alone_leaves(asking: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    hospital, failures = site(asking, patients(4000)), list[Exception]()
    monkeypatch.setattr(hospital, "on_failure", failures.append)
    read = hospital._people

    def broken(kind: Any) -> Any:
        read(kind)
        raise MemoryError

    monkeypatch.setattr(hospital, "_people", broken)
    model = random_arrays(learning_of(asking).parameters)
    released = hospital.release("inference", Request(model))[ARRAY]
    assert [type(error) for error in failures] == [MemoryError]
    deviation = multiplier(asking) * frame_of(asking).length
    assert 0 < np.abs(released).max() < 8 * deviation  # of 4,000 patients it would be hundreds of patients' lengths


def hostile(honest: np.ndarray[Any, Any], change: str) -> np.ndarray[Any, Any]:
    wrong = honest.copy()
    if change == "off the grid":
        wrong[0] += 1e-5
    elif change == "not finite":
        wrong[1] = np.nan
    elif change == "too long":
        wrong *= 4096
    else:
        wrong[3:] *= -1
    return wrong


@pytest.mark.parametrize("change", ["off the grid", "not finite", "too long", "no second derivative"])
def test_what_no_hospital_can_have_sent_is_refused(asking: Study, change: str) -> None:
    frame, deviation = frame_of(asking), multiplier(asking) * frame_of(asking).length
    model, judge = random_arrays(learning_of(asking).parameters, scale=0.1), INFERENCE.judge(asking, {}, lambda _: {})
    exact = summed(patients(80), learning_of(asking), model, frame)
    for seed in range(50):
        judge.require("lille", {ARRAY: noised(exact, deviation, Randomness.seeded(seed, "lille", 0))})
    many = noised(40 * exact, 0.5, Randomness.seeded(0, "lille", 0))  # so little noise that everything shows
    require_plausible(many, frame, 0.5, announced=1600)
    with pytest.raises(WireError, match="inference reply: expected"):
        require_plausible(hostile(many, change), frame, 0.5, announced=1600)


@pytest.mark.parametrize("model", [{"name": "mlp", "hidden": [4]}, {"name": "logistic"}])
def test_a_study_without_ratios_cannot_ask_for_it(model: dict[str, Any]) -> None:
    task = {"type": "multiclass", "classes": ["a", "b", "c"]} if model["name"] == "logistic" else {}
    with pytest.raises(ConfigError, match=r"releases\.inference\.epsilon: expected a logistic model"):
        study(releases=ASKED, model=model, task=task)


def test_too_few_patients_are_called_drowned_and_no_figure_is_told(asking: Study) -> None:
    model = random_arrays(learning_of(asking).parameters)
    released = {"lille": site(asking, patients(60)).release("inference", Request(model))}
    told = INFERENCE.combine(asking, released, model)
    assert "drown" in told.undefined
    assert [(row.estimate, row.pooled) for row in told.rows] == [(None, None)] * 2


@pytest.mark.parametrize("case", [benchmark.QUICK, benchmark.QUICK_HAZARDS], ids=lambda case: case.name)
def test_many_simulations_hold_what_the_intervals_say(case: benchmark.Case) -> None:
    row = benchmark.row(case, 200 if case is benchmark.QUICK else 60)
    assert row["undefined"] == 0
    for name in ("pooled", "truth"):
        assert 0.92 <= row[name] <= 0.98  # 95 %; four coefficients of one simulation are not independent
    assert 1 < row["width"] < 1.5
    assert row["error"] < (row["straight_error"] / 3 if case is benchmark.QUICK else 0.2)


SURVIVAL: dict[str, Any] = {"type": "survival", "time": "days", "event": "died", "intervals": [0, 90, 180, 365]}


def hazards(**task: Any) -> Study:
    document = study(releases=ASKED).to_dict() | {"task": SURVIVAL | task}
    return study_from(document | {"evaluation": {"test_fraction": 0.2}})


@pytest.mark.parametrize("share", [None, 0.001, 0.1, 0.3, 0.6, 0.99])
def test_no_patient_with_many_rows_moves_the_sums_by_more_than_is_booked(share: float | None) -> None:
    chosen = hazards(**({"outcome_share": share} if share else {}))
    frame, task, rng = frame_of(chosen), learning_of(chosen), np.random.default_rng(0)
    assert 0 < frame.share <= 3.34
    for scale in (0.1, 1.0, 30.0):
        model = random_arrays(task.parameters, scale=scale)
        everybody = followed(rng, 40)
        for number in range(40):
            one = summed(everybody.subset(np.array([number])), task, model, frame)
            assert np.linalg.norm(one) <= frame.length
        parts = [summed(everybody.subset(some), task, model, frame) for some in np.array_split(np.arange(40), 3)]
        assert np.allclose(np.sum(parts, axis=0), summed(everybody, task, model, frame), rtol=1e-12, atol=1e-12)


def followed(rng: np.random.Generator, count: int) -> PersonPeriods:
    """Patients of hazards with any follow-up, among them some who were never at risk."""
    chosen = hazards()
    x = np.stack([rng.uniform(-1, 1, count), rng.integers(0, 2, count)], axis=1).astype(np.float32)
    y = np.stack([rng.uniform(0, 365, count), rng.integers(0, 2, count)], axis=1).astype(np.float32)
    y[:3] = [[0, 0], [0, 1], [365, 0]]
    rows = np.arange(count)
    outcome = learning_of(chosen).objective
    assert isinstance(outcome, HasPeriods)
    return person_periods(TablePatients(x, y, rows, np.arange(count + 1)), outcome)


def test_who_was_never_at_risk_adds_nothing() -> None:
    chosen = hazards()
    model = random_arrays(learning_of(chosen).parameters)
    nobody = followed(np.random.default_rng(0), 10).subset(np.array([0]))  # lost from sight on the first day
    assert not summed(nobody, learning_of(chosen), model, frame_of(chosen)).any()


def test_several_causes_have_no_such_release() -> None:
    with pytest.raises(ConfigError, match=r"hazards of one cause"):
        hazards(causes=["tumour", "heart"], censored="0")


# Ratios without an interval


def test_the_models_coefficients_are_told_per_step_and_against_the_reference() -> None:
    chosen = study(
        features={
            "age": {"type": "number", "range": [20, 90], "unit": "years"},
            "sex": {"type": "category", "values": ["female", "male"], "missing": ["?"]},
            "dose": {"type": "number", "range": [0, 4], "curve": 3},
        }
    )
    weights = np.array([[0.7, 9.0, 9.0, 0.5, -0.2]], np.float32)
    told = effects(chosen, {"0.weight": weights, "0.bias": np.zeros(1, np.float32)})
    assert told is not None
    assert (told.measure, told.of, told.curved) == ("odds ratio", "the odds of disease", ("dose",))
    assert [(row.column, row.contrast, round(row.value or 0, 4)) for row in told.rows] == [
        ("age", "per 10 years", round(float(np.exp(0.7 * 2 * 10 / 70)), 4)),
        ("sex", "male against female", round(float(np.exp(0.5)), 4)),
        ("sex", "unknown against female", round(float(np.exp(-0.2)), 4)),
    ]


def test_a_mean_difference_is_in_the_targets_unit_and_an_mlp_has_no_ratio() -> None:
    task = {"type": "regression", "range": [0, 50]}
    straight = study(task=task, model={"name": "linear"})
    told = effects(straight, {"0.weight": np.array([[0.35, 0.2]], np.float32), "0.bias": np.zeros(1, np.float32)})
    assert told is not None
    assert told.measure == "mean difference"
    assert [round(row.value or 0, 3) for row in told.rows] == [round(0.35 * 2 / 7 * 25, 3), 5.0]
    layers = study(model={"name": "mlp", "hidden": [4]})
    assert effects(layers, random_arrays(learning_of(layers).parameters)) is None


def test_a_ratio_beyond_a_number_is_null(asking: Study) -> None:
    weights = {"0.weight": np.array([[1.0, 3e4]], np.float32), "0.bias": np.zeros(1, np.float32)}
    told = effects(asking, weights)
    assert told is not None
    assert told.rows[1].value is None


@pytest.mark.parametrize(
    ("task", "model", "told_as"),
    [
        (
            {"type": "survival", "time": "days", "event": "died", "intervals": [0, 90, 365]},
            "logistic",
            ("hazard ratio", "the hazard of died (its odds within an interval)"),
        ),
        ({"type": "counts", "target": "falls", "range": [0, 20]}, "linear", ("rate ratio", "the rate of falls")),
    ],
)
def test_hazards_and_rates_are_told_as_ratios_of_the_columns_alone(
    task: dict[str, Any], model: str, told_as: tuple[str, str]
) -> None:
    document = study().to_dict() | {"task": task, "model": {"name": model}}
    document["evaluation"] = {"test_fraction": 0.2}
    chosen = study_from(document)
    arrays = random_arrays(learning_of(chosen).parameters)
    told = effects(chosen, arrays)
    assert told is not None
    assert (told.measure, told.of) == told_as
    weights = arrays["0.weight"][0].astype(float)
    assert [row.column for row in told.rows] == ["age", "sex"]
    assert told.rows[1].value == pytest.approx(np.exp(weights[1]))


def test_a_plan_warns_where_public_numbers_say_that_everything_will_drown() -> None:
    assert "too few for 2 inputs at epsilon 0.05" in INFERENCE.outlook(study(releases={"inference": {"epsilon": 0.05}}))
    assert INFERENCE.outlook(study(releases=ASKED, cohort={"brest": 60_000, "lille": 90_000})) == ""
    few = study(releases=ASKED, cohort={"brest": 20, "lille": 20})
    assert "drown" in INFERENCE.outlook(few)
