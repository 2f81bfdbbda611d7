"""A lost release at the hospital: made anew as a booking of its own, with other noise, as often as the study has spare.

What the node was asked is kept apart from how often it was asked: a reply that is in the outbox answers every attempt.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.admission import Admission
from client.ledger import Ledger, Release
from client.patients import Split
from client.site import Site
from client.worker import require_new
from configs import wire
from configs.errors import BegunError, BudgetError, RunError, SpareError
from configs.frame import Frame
from configs.schema import Study
from configs.site import Policy
from strategies.exchange.arrays import Arrays
from strategies.models.registry import study_parameters
from strategies.privacy.accounting import epsilon
from strategies.privacy.modes.local import plan_for
from strategies.privacy.plan import Budget
from strategies.privacy.randomness import Randomness
from strategies.releases.base import Release as Kind
from strategies.releases.base import Request
from strategies.releases.registry import MODEL_UPDATE, SCORE_HISTOGRAM, STATISTICS
from tests import builders
from tests.client.pages import page
from tests.client.test_node import COHORT, Lille, serving
from tests.consortium import Consortium

DELTA = 1e-5
EVALUATING: dict[str, Any] = {"test_fraction": 0.3, "release": {"epsilon": 0.5, "bins": 6}}


EVALUATION = 0  # in the place of a round's number, in these tests


def kind_of(number: int) -> tuple[Kind, int]:
    """The kind of a release and its round, 0 of the evaluation."""
    return (SCORE_HISTOGRAM, 0) if number == EVALUATION else (MODEL_UPDATE, number)


def spared(spare: int, **changes: Any) -> Study:
    return builders.study(cohort=COHORT, privacy={"spare": spare}, evaluation=EVALUATING, **changes)


def site_of(chosen: Study, ledger: Ledger, *, seeded: bool = False) -> Site:
    people = Split(builders.patients(70), builders.patients(30, seed=1), {})
    return Site("lille", chosen, people, ledger, seeded=seeded, policy=Policy(metrics="noisy"))


def start(chosen: Study, number: int = 1) -> Arrays:
    return builders.random_arrays(study_parameters(chosen), seed=number)


def release(site: Site, number: int, attempt: int) -> Arrays:
    """What the worker does for one instruction."""
    require_new(site, *kind_of(number), attempt)
    model = start(site.study, number)
    if number == EVALUATION:
        return site.release("score histogram", Request(model, attempt=attempt))
    return site.fit(number, model, attempt=attempt)


# Chance


def test_the_first_attempt_has_the_bits_that_it_always_had_and_each_other_one_its_own() -> None:
    drawn = [Randomness.seeded(3, "lille", 2, attempt).gaussian(8, 1.0).tolist() for attempt in range(4)]
    assert drawn[0] == Randomness.seeded(3, "lille", 2).gaussian(8, 1.0).tolist()
    assert len({tuple(noise) for noise in drawn}) == 4
    assert Randomness.seeded(3, "lille", 21).gaussian(8, 1.0).tolist() != drawn[1]


def test_a_seeded_attempt_is_repeatable_and_no_other_attempts() -> None:
    chosen = spared(2)
    one, other = (site_of(chosen, Ledger.in_memory(), seeded=True) for _ in range(2))
    first, again = one.fit(1, start(chosen)), one.fit(1, start(chosen), attempt=1)
    assert builders.same_bits(again, other.fit(1, start(chosen), attempt=1))
    assert not builders.same_bits(first, again)


def test_without_privacy_every_attempt_has_the_same_bits() -> None:
    chosen = builders.plain(cohort=COHORT)
    site = Site("lille", chosen, builders.patients(70), Ledger.in_memory(), seeded=False)
    assert builders.same_bits(site.fit(1, start(chosen)), site.fit(1, start(chosen), attempt=1))


# The ledger


@pytest.mark.parametrize("number", [1, EVALUATION])
def test_a_lost_release_is_made_anew_once_for_each_spare_one(number: int) -> None:
    site = site_of(spared(2), Ledger.in_memory())
    release(site, 2, 0)
    for attempt in (0, 1, 2):
        release(site, number, attempt)
        with pytest.raises(BegunError, match="it was begun before and counts as spent"):
            release(site, number, attempt)
    with pytest.raises(SpareError, match=r"privacy\.spare\): 2, of which none is left"):
        release(site, number, 3)
    with pytest.raises(SpareError):
        release(site, 2, 1)
    release(site, 3, 0)  # the rounds themselves need nothing spare


def test_without_spare_nothing_is_made_anew() -> None:
    site = site_of(spared(0), Ledger.in_memory())
    release(site, 1, 0)
    with pytest.raises(SpareError):
        release(site, 1, 1)
    release(site, 2, 1)  # of a release that was never begun here, the first is the first


def test_statistics_are_made_anew_within_their_epsilon() -> None:
    privacy = {"mode": "local", "epsilon": 0.5, "delta": DELTA, "spare": 1}
    chosen = builders.counting(cohort=COHORT, training={"quorum": 1}, privacy=privacy)
    ledger = Ledger.in_memory()
    site = Site("lille", chosen, builders.patients(70, inputs=len(chosen.counted)), ledger, seeded=False)
    counts = []
    for attempt in (0, 1):
        require_new(site, STATISTICS, attempt=attempt)
        counts.append(site.release("statistics", Request(attempt=attempt))["counts"])
    assert (counts[0] != counts[1]).any()
    assert 0.499 < ledger.spent("lille", delta=DELTA) <= 0.5
    with pytest.raises(SpareError, match="the release of statistics"):
        require_new(site, STATISTICS, attempt=2)


instructions = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 4), st.sampled_from(["kept", "lost", "reopened"])), max_size=30
)


@settings(max_examples=60, deadline=None)
@given(spare=st.integers(0, 3), asked=instructions)
def test_whatever_is_asked_and_lost_never_more_is_booked_than_planned(
    tmp_path_factory: pytest.TempPathFactory, spare: int, asked: list[tuple[int, int, str]]
) -> None:
    """A coordinator asks for anything in any order, and any release may be lost: booked is at most what was planned."""
    chosen, path = spared(spare), tmp_path_factory.mktemp("hospital") / "ledger.sqlite"
    plan = plan_for(chosen, "lille")
    ledger = Ledger.open(path, cap=Budget(plan.whole_epsilon(), DELTA), durable=False)
    site, booked = site_of(chosen, ledger), Counter[int]()
    for number, attempt, fate in asked:
        if fate == "reopened":
            ledger.close()
            ledger = Ledger.open(path, cap=Budget(plan.whole_epsilon(), DELTA), durable=False)
            site = site_of(chosen, ledger)
        event = plan.evaluation if number == EVALUATION else plan.round_event
        assert event is not None
        try:
            require_new(site, *kind_of(number), attempt)
            with ledger.reserve(Release("lille", chosen.sha256, number, event, attempt=attempt), plan):
                booked[number] += 1
                if fate == "lost":
                    raise RunError("killed")
        except (BudgetError, RunError):
            pass
        assert sum(booked.values()) - len(booked) <= spare
        assert ledger.spent("lille", delta=DELTA) <= plan.whole_epsilon() + 1e-9
    rounds = sum(count for number, count in booked.items() if number != EVALUATION)
    assert rounds <= plan.rounds + spare
    ledger.close()


@pytest.mark.parametrize("spare", [0, 2])
def test_a_round_that_is_not_lost_is_never_refused_for_want_of_spare(spare: int) -> None:
    chosen = spared(spare)
    plan = plan_for(chosen, "lille")
    site = site_of(chosen, Ledger.in_memory(Budget(plan.whole_epsilon(), DELTA)))
    for attempt in range(1, spare + 1):
        release(site, 1, attempt)
    for number in (1, 2, 3, EVALUATION) if spare else (1, 2, 3):
        release(site, number, 0)


def test_the_first_study_of_a_data_set_is_counted_with_all_its_spare_releases_by_those_that_follow() -> None:
    chosen = spared(3)
    plan, ledger = plan_for(chosen, "lille"), Ledger.in_memory()
    release(site_of(chosen, ledger), 1, 0)
    assert epsilon(ledger._first_plan("lille"), DELTA) == pytest.approx(plan.whole_epsilon(), abs=1e-6)
    assert ledger.foreseen("lille", chosen.sha256, plan.events, Budget(4.0, DELTA)) == plan.whole_epsilon()


# The node


@pytest.fixture(scope="module")
def lille(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lille]:
    folder = tmp_path_factory.mktemp("consortium")
    ages = np.random.default_rng(0).integers(20, 90, 100)
    lines = ["age,sex,disease", *(f"{age},{'female' if age % 2 else 'male'},{int(age > 60)}" for age in ages)]
    data = folder / "patients.csv"
    data.write_text("\n".join(lines) + "\n")
    consortium = Consortium(folder)
    names = ("kept", "cleared", "killed", "counted")
    datasets = {name: {"connector": "csv", "path": str(data), "identity": name} for name in names}
    policy = {"require_approval": False, "max_epsilon": 4.0, "metrics": "noisy"}
    config = consortium.hospital("lille", datasets=datasets, policy=policy)
    with serving(consortium, config) as made:
        yield made


def let_in(lille: Lille, chosen: Study) -> Study:
    lille.propose(chosen)
    assert lille.answer(chosen, "hello reply").fields["site"] == "lille"
    return chosen


def ask(lille: Lille, chosen: Study, attempt: int) -> None:
    fields: dict[str, str | int] = {"study_sha256": chosen.sha256}
    if chosen.procedure == "training":
        lille.send(chosen, "train", wire.attempted({**fields, "round": 1}, attempt), start(chosen))
    else:
        lille.send(chosen, "statistics", wire.attempted(fields, attempt))


def attempts(lille: Lille, chosen: Study) -> list[int]:
    """What is booked of the study's first round."""
    with_file = Ledger.open(lille.config.ledger)
    booked = [n for n in range(5) if with_file.booked(chosen.name, chosen.sha256, 1, n)]
    with_file.close()
    return booked


def clear_outbox(lille: Lille, frame: Frame) -> None:
    """Somebody removes what was kept."""
    for path in lille.left():
        if Frame.decode(path.read_bytes()) == frame:
            path.unlink()


def test_a_reply_that_was_kept_answers_every_attempt_and_nothing_is_booked(lille: Lille) -> None:
    chosen = let_in(lille, spared(2, name="kept"))
    ask(lille, chosen, 0)
    first = lille.answer(chosen, "train reply")
    for attempt in (1, 2, 0):
        ask(lille, chosen, attempt)
        assert lille.answer(chosen, "train reply") == first
    assert attempts(lille, chosen) == [0]


def test_a_reply_that_is_gone_is_made_anew_and_then_kept(lille: Lille) -> None:
    chosen = let_in(lille, spared(1, name="cleared"))
    ask(lille, chosen, 0)
    first = lille.answer(chosen, "train reply")
    clear_outbox(lille, first)
    ask(lille, chosen, 0)
    assert lille.code(chosen) == wire.BEGUN
    ask(lille, chosen, 1)
    second = lille.answer(chosen, "train reply")
    assert second != first
    for attempt in (0, 1):  # a coordinator that starts again asks for the first
        ask(lille, chosen, attempt)
        assert lille.answer(chosen, "train reply") == second
    clear_outbox(lille, second)
    ask(lille, chosen, 2)
    assert lille.code(chosen) == wire.NO_SPARE
    assert attempts(lille, chosen) == [0, 1]


def test_a_release_whose_worker_is_killed_is_made_anew(lille: Lille, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = let_in(lille, spared(1, name="killed"))
    answer = lille.worker.worker.ask

    def killed(*arguments: Any) -> tuple[Frame, Frame]:
        answer(*arguments)
        lille.worker.stop()
        raise RunError("the worker ended while it worked")

    with monkeypatch.context() as patch:
        patch.setattr(lille.worker, "instead", killed)
        ask(lille, chosen, 0)
        assert lille.code(chosen) == 105
    ask(lille, chosen, 0)
    assert lille.code(chosen) == wire.BEGUN
    ask(lille, chosen, 1)
    assert lille.answer(chosen, "train reply").arrays
    assert attempts(lille, chosen) == [0, 1]


def test_lost_statistics_are_counted_anew(lille: Lille) -> None:
    privacy = {"mode": "local", "epsilon": 0.5, "delta": DELTA, "spare": 1}
    chosen = builders.counting(name="counted", cohort=COHORT, training={"quorum": 1}, privacy=privacy)
    let_in(lille, chosen)
    ask(lille, chosen, 0)
    first = lille.answer(chosen, "statistics reply")
    clear_outbox(lille, first)
    ask(lille, chosen, 0)
    assert lille.code(chosen) == wire.BEGUN
    ask(lille, chosen, 1)
    assert lille.answer(chosen, "statistics reply") != first


@pytest.mark.parametrize(("spare", "said"), [(0, None), (1, "once at most"), (2, "2 times at most")])
@pytest.mark.parametrize("trains", [True, False])
def test_the_page_of_a_study_says_how_often_a_lost_release_can_be_made_anew(
    lille: Lille, spare: int, said: str | None, trains: bool
) -> None:
    privacy = {"mode": "local", "epsilon": 0.5, "delta": DELTA, "spare": spare}
    counted = builders.counting(name="counted", cohort=COHORT, training={"quorum": 1}, privacy=privacy)
    chosen = spared(spare, name="kept") if trains else counted
    admission = Admission(chosen.sha256, chosen.name, chosen.canonical, "waiting", "", "2026-01-01")
    text = " ".join(page(lille.config, admission).split())
    assert ("a release that is lost can be made anew with other noise" in text) is (said is not None)
    assert said is None or said in text.replace(", ", " ")
