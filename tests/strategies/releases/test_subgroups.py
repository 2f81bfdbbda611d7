"""The release `subgroups`: who is in which group, what one patient moves, what leaves, and figures that hold."""

import json
import math
from typing import Any

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld

from client.ledger import Ledger
from client.patients import Split
from client.site import Site
from configs.errors import ConfigError, PolicyError, WireError
from configs.load import study_from
from configs.records.fields import plain
from configs.records.subgroups import SubgroupsKeys
from configs.schema import Study
from configs.site import Policy
from server.card import model_card
from server.report import page
from server.result.read import read
from strategies.data.table import TABLE, TablePatients, centres
from strategies.learning import learning_of
from strategies.privacy.modes.registry import mode_of
from strategies.privacy.randomness import Randomness
from strategies.releases.base import Request
from strategies.releases.further import given_keys
from strategies.releases.noisy_counts import cell_variance, noised
from strategies.releases.registry import SUBGROUPS
from strategies.releases.subgroups import counted, figures_of, groups_of, noise_of
from tests.builders import random_arrays, study

FEATURES: dict[str, Any] = {
    "age": {"type": "number", "range": [20, 90], "missing": ["?"]},
    "sex": {"type": "category", "values": ["female", "male"]},
    "stage": {"type": "category", "values": ["i", "ii", "iii"], "missing": ["?"]},
}
KEYS: dict[str, Any] = {"epsilon": 1.0, "by": ["sex", "age", "stage"], "bins": 10, "cuts": {"age": [50, 65]}}
COUNTS = "counts"


def asking(**changes: Any) -> Study:
    releases = {"subgroups": {key: value for key, value in (KEYS | changes).items() if value is not None}}
    return study(features=FEATURES, evaluation={"test_fraction": 0.25}, releases=releases)


def people(rng: np.random.Generator, count: int, rows_each: int = 1) -> TablePatients:
    """Columns: age, age unknown, sex = male, stage = ii, stage = iii, stage unknown."""
    rows = count * rows_each
    unknown, stage, male = rng.random(rows) < 0.1, rng.integers(-1, 3, rows), rng.random(rows) < 0.5
    age = np.where(unknown, 0.0, rng.uniform(-1, 1, rows))
    x = np.stack([age, unknown, male, stage == 1, stage == 2, stage == -1], 1).astype(np.float32)
    y = (rng.random(rows) < 1 / (1 + np.exp(-1.5 * age - 0.5 * male))).astype(np.float32)
    return TablePatients(x, y, np.repeat(np.arange(count), rows_each), np.arange(0, rows + 1, rows_each))


MODEL = {
    "0.weight": np.array([[1.5, 0.0, 0.5, 0.1, 0.2, 0.0]], np.float32),
    "0.bias": np.zeros(1, np.float32),
}


def test_everybody_is_in_one_group_of_each_column_and_the_cut_is_in_the_upper_one() -> None:
    chosen = asking()
    keys = given_keys(chosen, SubgroupsKeys)
    sex, age, stage = groups_of(chosen, keys)
    assert age.labels == ("under 50", "50 to under 65", "65 or more", "unknown")
    assert stage.labels == ("i", "ii", "iii", "unknown")
    ages = np.array([20, 49.9, 50, 64.9, 65, 90, 55])
    x = np.zeros((7, 6), np.float32)
    x[:, 0] = (ages - 20) / 70 * 2 - 1
    x[6, 0], x[6, 1] = 0.0, 1.0
    x[1:3, 2], x[0, 4], x[1, 5] = 1.0, 1.0, 1.0
    assert age.of(x).tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert sex.of(x).tolist() == [0, 1, 1, 0, 0, 0, 0]
    assert stage.of(x).tolist() == [2, 3, 0, 0, 0, 0, 0]


def test_groups_are_the_same_where_inputs_are_centred() -> None:
    plain, centred = asking(), study_from(asking().to_dict() | {"scaling": "centred"})
    crowd = people(np.random.default_rng(6), 50)
    off = np.array([centre for feature in centred.features for centre in centres(feature)], np.float32)
    assert off.any()
    both = [groups_of(chosen, given_keys(chosen, SubgroupsKeys)) for chosen in (plain, centred)]
    for one, other in zip(*both, strict=True):
        assert one.of(crowd.x).tolist() == other.of(crowd.x - off).tolist()


@pytest.mark.parametrize("rows_each", [1, 3])
def test_one_patient_moves_the_counts_by_the_root_of_the_columns(rows_each: int) -> None:
    chosen, rng = asking(), np.random.default_rng(0)
    learning = learning_of(chosen)
    for seed in range(5):
        model, crowd = random_arrays(learning.parameters, seed, 3.0), people(rng, 30, rows_each)
        everybody = counted(chosen, learning, model, crowd)
        assert everybody.sum() == 3 * 30
        for left_out in range(30):
            rest = counted(chosen, learning, model, crowd.subset(np.delete(np.arange(30), left_out)))
            assert float(np.linalg.norm(everybody - rest)) == pytest.approx(math.sqrt(3))
    assert not counted(chosen, learning, MODEL, TABLE.nobody(chosen)).any()


def test_its_noise_keeps_its_epsilon_by_another_accountant() -> None:
    chosen = asking()
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(dp_accounting.GaussianDpEvent(noise_of(chosen, "lille") / math.sqrt(3)))
    assert 0.98 < accountant.get_epsilon(1e-5) <= 1.001


def hospital(chosen: Study, metrics: str) -> Site:
    train, test = (people(np.random.default_rng(seed), 200) for seed in (1, 2))
    policy = Policy(metrics=metrics)  # type: ignore[arg-type]
    made = Site("lille", chosen, Split(train, test, {}), Ledger.in_memory(), seeded=False, policy=policy)
    made.fit(1, MODEL)
    return made


def test_it_is_of_the_test_patients_and_leaves_only_where_the_policy_lets_figures_leave() -> None:
    chosen = asking()
    site = hospital(chosen, "noisy")
    released = site.release("subgroups", Request(MODEL))[COUNTS]
    exact = counted(chosen, learning_of(chosen), MODEL, people(np.random.default_rng(2), 200))
    assert (released == np.rint(released)).all()
    assert np.abs(released - exact).max() < 8 * noise_of(chosen, "lille")
    assert site.ledger.booked("lille", chosen.sha256, 0, release="subgroups")
    with pytest.raises(PolicyError, match="metrics: none"):
        hospital(chosen, "none").release("subgroups", Request(MODEL))


@pytest.mark.parametrize("change", ["parts of patients", "far below zero", "more patients", "columns differ"])
def test_what_no_hospital_can_have_sent_is_refused(change: str) -> None:
    chosen = asking()
    judge = SUBGROUPS.judge(chosen, {}, lambda _: {})
    exact = counted(chosen, learning_of(chosen), MODEL, people(np.random.default_rng(3), 100))
    honest = noised(exact, noise_of(chosen, "lille"), Randomness.seeded(0, "lille", 0))
    judge.require("lille", {COUNTS: honest})
    wrong = honest.copy()
    if change == "parts of patients":
        wrong[0] += 0.5
    elif change == "far below zero":
        wrong[0] = -1000
    elif change == "more patients":
        wrong += 1000
    else:
        wrong[:40] -= 60
    with pytest.raises(WireError, match="subgroups reply: expected"):
        judge.require("lille", {COUNTS: wrong})


def test_the_intervals_hold_what_the_population_has() -> None:
    chosen = asking(by=["sex"], cuts=None)
    learning, rng = learning_of(chosen), np.random.default_rng(4)
    truth = figures_of(chosen, counted(chosen, learning, MODEL, people(rng, 200_000)), 0.0)
    deviation, hits = noise_of(chosen, "lille"), []
    for _ in range(100):
        exact = np.sum([counted(chosen, learning, MODEL, people(rng, 500)) for _ in range(3)], axis=0)
        noisy = exact + np.rint(rng.normal(0, math.sqrt(3) * deviation, len(exact)))
        for group, true in zip(figures_of(chosen, noisy, 3 * cell_variance(deviation)), truth, strict=True):
            assert group.auroc is not None
            assert true.auroc is not None
            off, true_off = group.calibrated.in_the_large, true.calibrated.in_the_large
            assert off is not None
            assert true_off is not None
            hits.append(
                (group.auroc.low <= true.auroc.value <= group.auroc.high, off.low <= true_off.value <= off.high)
            )
    auroc, in_the_large = np.mean(hits, axis=0)
    assert 0.9 <= auroc <= 0.99  # 200 intervals of 95 %
    assert 0.9 <= in_the_large <= 0.99


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"by": ["sex", "weight"]}, "expected columns among the features, found 'weight'"),
        ({"cuts": {"sex": [1]}}, "expected numbers that are listed in by, found 'sex'"),
        ({"cuts": {"age": [65, 50]}}, "ascending numbers"),
        ({"cuts": {"age": [10]}}, "expected cuts within the public range"),
    ],
)
def test_a_study_with_a_mistake_is_told_what_to_correct(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        asking(**changes)


def test_a_study_without_test_patients_or_outcome_cannot_ask_for_it() -> None:
    releases = {"subgroups": KEYS}
    with pytest.raises(ConfigError, match="expected test patients"):
        study(features=FEATURES, releases=releases)
    task = {"type": "regression", "range": [0, 5]}
    with pytest.raises(ConfigError, match="expected a task with one outcome"):
        study(features=FEATURES, releases=releases, task=task, model={"name": "linear"})


def test_report_and_card_show_every_group_and_what_the_noise_drowns() -> None:
    chosen = asking()
    exact = counted(chosen, learning_of(chosen), MODEL, people(np.random.default_rng(5), 3000))
    told = SUBGROUPS.combine(chosen, {"lille": {COUNTS: exact.astype(np.float32)}}, {})
    told = SUBGROUPS.rehearsed(chosen, told, MODEL, [Split(None, people(np.random.default_rng(5), 3000), {})])

    document = {"study": "a", "study_sha256": "", "outcome": "COMPLETE", "rounds_completed": 1}
    run = read(json.dumps(document | {"releases": {"subgroups": plain(told)}}))
    for text in (page.render(run), model_card.render(run)):
        assert all(f"{group.column} {group.group}" in text for group in told.groups)
        assert "Calibration in the large" in text
    assert "The same without noise" in page.render(run)
    plan = mode_of(chosen).plan(chosen, "lille")
    assert plan is not None
    assert plan.whole_epsilon() > plan.epsilon()
