"""A hospital that is asked how good a model is: booked first, once, as the policy allows; nothing else leaves."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from flwr.app import Message

from client import egress
from client.app import make_app
from client.ledger import Ledger, Release
from client.patients import Split
from client.policy import NO_FIGURES
from client.site import Site
from client.worker import require_new
from configs import wire
from configs.errors import BudgetError, PolicyError, RunError
from configs.schema import CsvFile, Study
from configs.site import Dataset, Policy, SiteConfig
from strategies.exchange.arrays import Arrays
from strategies.exchange.messages import content, read
from strategies.privacy.accounting import SampledGaussian, epsilon
from strategies.privacy.modes.local import plan_for
from strategies.privacy.plan import Budget
from strategies.releases import score_histogram
from strategies.releases.base import Request
from strategies.releases.registry import SCORE_HISTOGRAM, arrays_of
from tests.builders import context, message, patients, random_arrays, same_bits, study
from tests.client.pages import page

BINS = 12
ASKS: dict[str, Any] = {"test_fraction": 0.3, "release": {"epsilon": 0.5, "bins": BINS}}
NOISY = Policy(metrics="noisy")
DELTA = 1e-5


def asking(**changes: Any) -> Study:
    return study(evaluation=ASKS, **changes)


@dataclass
class Hospital:
    """A site in a study that asks, with its ClientApp, and what its own log would hold."""

    chosen: Study = field(default_factory=asking)
    policy: Policy = NOISY
    cap: Budget | None = None
    seeded: bool = False
    tested: int = 40
    log: list[Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = Ledger.in_memory(self.cap)
        self.site = Site(
            "lille",
            self.chosen,
            Split(patients(70), patients(self.tested, seed=1), {}),
            self.ledger,
            seeded=self.seeded,
            policy=self.policy,
        )
        self.model = random_arrays(self.site.parameters, seed=9)

    def trains(self, rounds: int = 3) -> "Hospital":
        for number in range(1, rounds + 1):
            self.site.fit(number, random_arrays(self.site.parameters, seed=number))
        return self

    def evaluates(self) -> Arrays:
        return self.site.release("score histogram", Request(self.model))

    def answers(self, asked: Message) -> Message:
        app = make_app(lambda _: self.site, lambda _, error: self.log.append(error))
        return app(asked, context())

    def asked(self, digest: str | None = None) -> Message:
        fields: dict[str, str | int] = {"study_sha256": digest or self.chosen.sha256}
        return message(content("evaluate", fields, self.model, self.site.parameters), wire.EVALUATE)

    @property
    def booked(self) -> bool:
        return self.ledger.booked("lille", self.chosen.sha256, 0, release="score histogram")


# What leaves, and what it costs


def test_the_reply_is_one_histogram_of_the_bins_that_were_asked_for() -> None:
    hospital = Hospital().trains()
    reply = hospital.answers(hospital.asked())
    expected = arrays_of("evaluate reply", hospital.chosen)
    arrays = read("evaluate reply", reply.content, expected).arrays
    assert {name: (array.shape, array.dtype.name) for name, array in arrays.items()} == {
        "histogram": ((2, BINS), "float32")
    }
    assert set(reply.content) == {"arrays"}
    assert not hospital.log


def test_the_release_is_booked_as_one_step_with_everybody_that_costs_the_epsilon_asked() -> None:
    hospital = Hospital().trains()
    training = hospital.ledger.events("lille")
    hospital.evaluates()
    (event,) = set(hospital.ledger.events("lille")) - set(training)
    assert isinstance(event, SampledGaussian)
    assert (event.sampling_rate, event.steps) == (1.0, 1)
    assert 0.4995 < epsilon([event], DELTA) <= 0.5


def test_the_booked_noise_costs_what_the_reference_says() -> None:
    import dp_accounting
    from dp_accounting import pld

    event = plan_for(asking(), "lille", 70).evaluation
    assert event is not None
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(dp_accounting.GaussianDpEvent(event.noise_multiplier))
    assert accountant.get_epsilon(DELTA) == pytest.approx(0.5, abs=2e-3)


def test_the_noise_that_leaves_is_the_noise_that_is_booked() -> None:
    """Of many hospitals' replies about the same patients, less the mean of all: no cell's true count is needed."""
    replies = []
    for seed in range(150):
        hospital = Hospital(asking(seed=seed), seeded=True)
        replies.append(hospital.evaluates()["histogram"])
    sigma = hospital.site.plan.evaluation.noise_multiplier  # type: ignore[union-attr]
    spread = np.stack(replies).std(axis=0, ddof=1)
    assert np.sqrt((spread**2).mean()) == pytest.approx(math.sqrt(sigma**2 + 1 / 12), rel=0.05)
    assert np.stack(replies).sum() / 150 == pytest.approx(40, abs=4 * sigma * math.sqrt(2 * BINS / 150))


def test_a_hospital_without_test_patients_sends_noise_of_the_same_form() -> None:
    found = Hospital(tested=0).trains().evaluates()["histogram"]
    assert found.shape == (2, BINS)
    assert found.any()


def test_it_is_booked_before_a_patient_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    hospital = Hospital().trains()
    seen: list[bool] = []

    def score(*arguments: Any, **named: Any) -> Any:
        seen.append(hospital.booked)
        raise MemoryError

    monkeypatch.setattr(score_histogram, "counts", score)
    with pytest.raises(RunError):
        hospital.evaluates()
    assert seen == [True, True]  # of the patients, and of nobody
    assert hospital.booked  # whoever cannot prove that nothing left has spent it


def test_training_and_evaluation_fit_the_plan_and_one_round_more_does_not() -> None:
    hospital = Hospital().trains()
    hospital.evaluates()
    plan = hospital.site.plan
    assert plan is not None
    assert hospital.ledger.spent("lille", delta=DELTA) == pytest.approx(plan.whole_epsilon())
    assert plan.epsilon() < plan.whole_epsilon() < plan.epsilon() + 0.5
    with (
        pytest.raises(BudgetError, match="round 4: needs"),
        hospital.ledger.reserve(Release("lille", hospital.chosen.sha256, 4, plan.round_event), plan),
    ):
        pass


def test_asking_changes_no_bit_of_the_training() -> None:
    asked, not_asked = Hospital(seeded=True), Hospital(study(evaluation={"test_fraction": 0.3}), seeded=True)
    start = random_arrays(asked.site.parameters)
    assert same_bits(asked.site.fit(1, start), not_asked.site.fit(1, start))


# What is refused


def refused(hospital: Hospital, asked: Message | None = None) -> int:
    """The code of the refusal; the reply holds nothing else, and nobody was scored for it."""
    before = hospital.ledger.events("lille")
    reply = hospital.answers(asked or hospital.asked())
    assert not reply.has_content()
    assert reply.error.reason == egress.SENTENCES[reply.error.code]
    assert hospital.ledger.events("lille") == before
    return int(reply.error.code)


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: Any, **named: Any) -> Any:
        raise AssertionError("patients were scored")

    monkeypatch.setattr(score_histogram, "counts", never)


@pytest.mark.usefixtures("unseen")
@pytest.mark.parametrize(
    ("hospital", "code", "why"),
    [
        (lambda: Hospital(policy=Policy()).trains(), NO_FIGURES, "metrics: none"),
        (lambda: Hospital(study(evaluation={"test_fraction": 0.3})).trains(), 104, "a study that asks"),
        (lambda: Hospital(), 104, "has trained here"),
        (lambda: Hospital(cap=Budget(3.002, DELTA)).trains(), 101, "the data set has 3.00"),
    ],
    ids=["the policy says none", "the study does not ask", "nothing was trained", "the data set's budget is spent"],
)
def test_a_refusal_costs_nothing_and_nobody_is_scored(hospital: Callable[[], Hospital], code: int, why: str) -> None:
    made = hospital()
    assert refused(made) == code
    assert why in str(made.log[-1])


@pytest.mark.usefixtures("unseen")
def test_the_evaluation_of_another_study_is_refused() -> None:
    hospital = Hospital().trains()
    assert refused(hospital, hospital.asked("ab" * 32)) == 104


def test_a_second_evaluation_is_refused() -> None:
    hospital = Hospital().trains()
    hospital.evaluates()
    hospital.model = random_arrays(hospital.site.parameters, seed=10)
    assert refused(hospital) == 101
    with pytest.raises(BudgetError, match="the evaluation: it was begun before"):
        require_new(hospital.site, SCORE_HISTOGRAM)


def test_the_same_seeded_evaluation_is_the_same_bits_and_booked_once() -> None:
    hospital = Hospital(seeded=True).trains()
    first = hospital.evaluates()
    spent = hospital.ledger.spent("lille", delta=DELTA)
    assert same_bits(first, hospital.evaluates())
    assert hospital.ledger.spent("lille", delta=DELTA) == spent


def test_a_study_that_does_not_ask_has_no_plan_for_it_nor_a_hospital_whose_policy_says_none() -> None:
    for hospital in (Hospital(policy=Policy()), Hospital(study(evaluation={"test_fraction": 0.3}))):
        assert hospital.site.plan is not None
        assert hospital.site.plan.evaluation is None


def test_the_policy_is_none_unless_it_is_set() -> None:
    assert Policy().metrics == "none"
    with pytest.raises(PolicyError):
        Hospital(policy=Policy()).trains().evaluates()


def test_a_study_chosen_later_cannot_use_the_plain_rule_of_a_first_one_that_evaluates() -> None:
    """The first study's whole plan, its evaluation too, decides whether others may come at all."""
    greedy = study(evaluation=ASKS | {"release": {"epsilon": 4.0, "bins": BINS}})
    plan = plan_for(greedy, "lille", 70)
    ledger = Ledger.in_memory(Budget(plan.whole_epsilon() + 0.05, DELTA))
    with ledger.reserve(Release("lille", "first", 1, plan.round_event), plan):
        pass
    small = replace(plan, noise_multiplier=500.0, evaluation=None)
    with (
        pytest.raises(BudgetError, match="first study needs so much"),
        ledger.reserve(Release("lille", "second", 1, small.round_event), small),
    ):
        pass


# The page that a person reads


def reviewed(policy: Policy, chosen: Study, folder: Path) -> str:
    from client.admission import Admission

    source = Dataset(chosen.name, CsvFile(folder / "patients.csv"), "cardiology")
    config = SiteConfig(folder, "lille", "coord.example.org:8443", (source,), policy)
    shown = page(config, Admission(chosen.sha256, chosen.name, chosen.canonical, "waiting", "", "today"))
    return " ".join(shown.split())


def test_the_review_says_what_would_leave_and_what_it_costs(tmp_path: Path) -> None:
    shown = reviewed(NOISY, asking(), tmp_path)
    event = plan_for(asking(), "lille", 70).evaluation
    assert event is not None
    assert f"{2 * BINS} noisy counts of this hospital's test patients" in shown
    assert f"noise of standard deviation {event.noise_multiplier:.1f} patients" in shown
    assert "costs epsilon 0.5 at delta 1e-05 per patient, add or remove one, beside the training's" in shown


def test_the_review_says_which_states_of_survival_are_counted(tmp_path: Path) -> None:
    task = {"type": "survival", "time": "days", "event": "end", "unit": "days", "intervals": [0, 90, 180]}
    shown = reviewed(NOISY, asking(task=task), tmp_path)
    assert f"{3 * BINS} noisy counts of this hospital's test patients, by outcome (free of the event at" in shown
    assert "with it by then, lost from sight before) and by the model's score" in shown


def test_the_review_says_that_the_policy_lets_none_leave(tmp_path: Path) -> None:
    assert "which site.yaml does NOT allow (policy.metrics: none)" in reviewed(Policy(), asking(), tmp_path)


def test_the_review_of_a_study_that_does_not_ask_says_that_no_metric_leaves(tmp_path: Path) -> None:
    assert "No row, no count, no metric." in reviewed(NOISY, study(), tmp_path)


def said_to_be_spent(policy: Policy, chosen: Study, folder: Path) -> float:
    found = re.search(r"this study would bring it to ([0-9.]+) spent", reviewed(policy, chosen, folder))
    assert found
    return float(found[1])


@pytest.mark.parametrize("metrics", ["none", "noisy"])
def test_the_review_says_what_the_study_will_cost_at_the_hospitals_own_delta(
    tmp_path: Path, metrics: Literal["none", "noisy"]
) -> None:
    policy = Policy(metrics=metrics, delta=1e-7)
    plan = plan_for(asking(), "lille", 70)
    events = plan.events if metrics == "noisy" else replace(plan, evaluation=None).events
    assert said_to_be_spent(policy, asking(), tmp_path) == pytest.approx(epsilon(events, 1e-7), abs=0.005)
    assert said_to_be_spent(policy, asking(), tmp_path) > asking().privacy.epsilon


def test_the_review_of_a_study_without_this_hospital_in_its_cohort_says_that_it_cannot_train_here(
    tmp_path: Path,
) -> None:
    shown = " ".join(reviewed(Policy(), study(cohort={"brest": 60}), tmp_path).split())
    assert "and the study cannot train here (cohort: expected lille with its announced patients, found none" in shown


def test_the_review_of_a_study_that_cannot_train_here_says_so(tmp_path: Path) -> None:
    local = {"steps": 100_000, "batch_size": "full", "learning_rate": 0.5}
    greedy = study(privacy={"epsilon": 0.01}, training={"local": local, "rounds": 10_000})
    shown = reviewed(Policy(), greedy, tmp_path)
    assert "and the study cannot train here (" in shown
    assert "ask for fewer steps or more epsilon" in shown
