"""Noisy counts of how and when times ended: their cost, the risks that follow, and what their intervals hold."""

from typing import Any

import numpy as np
import pytest

from client.ledger import Ledger
from client.site import Site
from configs.errors import ConfigError, WireError
from configs.schema import Study, Survival
from server.app import make_app
from simulations.engines import run_engine
from simulations.hospitals import Hospitals
from strategies.data.registry import data_of
from strategies.data.source import Table
from strategies.releases.base import Request
from strategies.releases.kaplan_meier import counts, observed
from strategies.releases.noisy_counts import cell_variance
from strategies.releases.registry import RELEASES
from tests.builders import study

CUTS = [0, 150, 300, 450, 600, 800]
TASK = {"type": "survival", "time": "days", "event": "end", "unit": "days", "intervals": CUTS}
REPEATS = 500
RELEASED = {"kaplan_meier": {"epsilon": 1.0}}
KIND: Any = RELEASES["kaplan_meier"]


def asked(**changes: Any) -> Study:
    training = {"rounds": 1, "local": {"steps": 1, "batch_size": "full", "learning_rate": 1.0}}
    return study(**{"task": TASK, "training": training, "releases": RELEASED} | changes)


def followed(rng: np.random.Generator, count: int, causes: int = 1) -> np.ndarray:
    """Times with a constant rate of each cause, and of being lost from sight."""
    death, lost = rng.exponential(1200 / causes, count), rng.uniform(100, 1500, count)
    cause = np.where(death <= lost, rng.integers(1, causes + 1, count), 0)
    time = np.minimum(death, lost)
    return np.stack([np.minimum(time, CUTS[-1]), np.where(time > CUTS[-1], 0, cause)], axis=1).astype(np.float32)


def task(causes: tuple[str, ...] = ("1",)) -> Survival:
    return Survival("survival", "days", causes, event="end", intervals=tuple(map(float, CUTS)), horizon=800.0)


def test_a_patient_is_in_one_cell() -> None:
    ends = np.array([[0, 1], [150, 2], [151, 1], [800, 1], [149, 0], [150, 0], [799, 0], [800, 0]], np.float32)
    for each, cell in zip(ends, [0, 5, 1, 4, 10, 11, 14, 15], strict=True):
        assert np.flatnonzero(counts(each[None], task(("1", "2")))).tolist() == [cell]
    assert counts(ends, task(("1", "2"))).sum() == 8


@pytest.mark.parametrize(("causes", "hospitals", "deviation"), [(1, 1, 9.0), (1, 4, 9.0), (2, 1, 4.0)])
def test_intervals_hold_the_truth_as_often_as_they_say(causes: int, hospitals: int, deviation: float) -> None:
    rng = np.random.default_rng(0)
    of, names = task(tuple("12"[:causes])), range(hospitals)
    truth = (1 - np.exp(-causes * np.array(CUTS[1:]) / 1200)) / causes
    held = np.zeros(len(CUTS) - 1)
    for _ in range(REPEATS):
        exact = np.sum([counts(followed(rng, 300, causes), of) for _ in names], axis=0)
        noise = np.sum([np.rint(rng.normal(0, deviation, exact.shape)) for _ in names], axis=0)
        variance = hospitals * cell_variance(deviation) if deviation else 0.0
        risks = [each.risk for each in observed(exact + noise, of, variance)[: len(truth)]]
        held += [risk is not None and risk.low <= share <= risk.high for risk, share in zip(risks, truth, strict=True)]
    assert ((held >= 0.92 * REPEATS) & (held <= 0.98 * REPEATS)).all()  # give or take 1 %
    assert 0.93 * REPEATS <= held.mean() <= 0.97 * REPEATS


def test_a_curve_ends_where_noise_would_drown_it() -> None:
    exact = counts(followed(np.random.default_rng(1), 60), task())
    known = [each.risk is not None for each in observed(exact, task(), 64.0)]
    assert known == sorted(known, reverse=True)
    assert known[0]
    assert not known[-1]
    assert all(each.risk is None for each in observed(exact * 0, task(), 64.0))


def people(chosen: Study, count: int, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    time, end = followed(rng, count).astype(float).T
    numbers, sexes = {"age": rng.uniform(20, 90, count)}, {"sex": rng.integers(0, 2, count)}
    table = Table(numbers, sexes, {"days": time, "end": end}, np.arange(count), tuple(f"{i:05d}" for i in range(count)))
    return data_of(chosen).read(table, chosen)[0]


def test_it_is_released_once_after_the_training_and_combined() -> None:
    chosen = asked(cohort={"brest": 400, "lille": 400}, privacy={"spare": 0})
    patients = {site: people(chosen, 400, i) for i, site in enumerate(chosen.sites)}
    hospitals = Hospitals(chosen, patients.__getitem__)
    conducted = run_engine("inprocess", hospitals, lambda done: make_app(chosen, done=done))
    result = KIND.combine(chosen, conducted.released["kaplan_meier"].arrays, {})
    exact = observed(counts(np.concatenate([p.outcomes for p in patients.values()]), task()), task(), 0.0)
    assert set(result.sites) == {"brest", "lille"}
    for each, without_noise in zip(result.together, exact, strict=True):
        assert without_noise.risk is not None
        assert each.risk.low <= without_noise.risk.value <= each.risk.high


def test_one_patient_more_moves_one_count_by_one_at_the_booked_noise() -> None:
    chosen = asked()
    patients, ledger = people(chosen, 100, 0), Ledger.in_memory()
    site = Site("lille", chosen, patients, ledger, seeded=True)
    assert site.plan is not None
    event = KIND.event(site.plan)
    assert event.sampling_rate == 1.0
    assert event.noise_multiplier > 1
    released = site.release("kaplan_meier", Request())["endings"]
    assert released.shape == (2 * 5 + 1,)
    assert np.abs(released - counts(patients.outcomes, chosen.task)).max() < 8 * event.noise_multiplier  # type: ignore[arg-type]


def test_counts_that_noise_cannot_explain_are_refused() -> None:
    chosen = asked()
    judge = KIND.judge(chosen, {}, lambda _: {})
    good = np.full(11, 10, np.float32)
    judge.require("lille", {"endings": good})
    for bad in (good + 0.5, good * 1000, good - 1000, good * np.nan):
        with pytest.raises(WireError, match="kaplan_meier reply: expected"):
            judge.require("lille", {"endings": bad.astype(np.float32)})


def test_it_is_refused_beside_an_outcome_without_time() -> None:
    with pytest.raises(ConfigError, match=r"releases.kaplan_meier.epsilon: expected task.type: survival"):
        study(releases=RELEASED)
