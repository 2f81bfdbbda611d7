"""The task segmentation: its loss and score against their formulas, and a study that learns discs in made-up images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client.ledger import Ledger
from client.patients import Split
from client.site import Site
from client.views.study_rows import rows_of
from configs.errors import ConfigError, PolicyError, WireError
from configs.load import study_from
from configs.schema import Segmentation as Keys
from configs.schema import Study
from configs.schema.training import AUTO
from configs.site import Policy, SiteConfig
from server.app import make_app
from simulations import planning
from simulations.engines import run_engine
from simulations.evaluate import evaluate
from simulations.hospitals import Hospitals
from simulations.planning import plan_study
from strategies.data.table import TablePatients
from strategies.learning import learning_of
from strategies.releases.base import Request
from strategies.releases.registry import RELEASES
from strategies.releases.score_sum import mean, require_plausible, sums_of
from strategies.settings import settings_of
from strategies.tasks.segmentation import Segmentation
from tests.builders import study

SIDE = 12
KIND: Any = RELEASES["score_sum"]


def document(**changes: Any) -> dict[str, Any]:
    local = {"steps": 4, "batch_size": "full", "learning_rate": 0.03, "optimizer": "adam"}
    return {
        "task": {"type": "segmentation", "target": "mask", "reader": "npy", "size": [SIDE, SIDE]},
        "features": {"scan": {"type": "image", "reader": "npy", "size": [SIDE, SIDE], "window": [-1, 1]}},
        "model": {"name": "unet", "width": 4, "depth": 1},
        "training": {"rounds": 4, "local": local},
        "evaluation": {"test_fraction": 0.25},
        "cohort": {"brest": 40, "lille": 40},
    } | changes


def asked(**changes: Any) -> Study:
    return study(**document(**changes))


def images(count: int, seed: int, rows_each: int = 1) -> TablePatients:
    """Bright discs on noise, and where they are."""
    rng = np.random.default_rng(seed)
    rows = count * rows_each
    down, right = np.mgrid[:SIDE, :SIDE]
    centre, radius = rng.uniform(3, SIDE - 3, (2, rows, 1, 1)), rng.uniform(2, 4, (rows, 1, 1))
    y = ((down - centre[0]) ** 2 + (right - centre[1]) ** 2 < radius**2).astype(np.float32)[:, None]
    x = (rng.normal(0, 0.2, y.shape) + y - 0.5).astype(np.float32)
    return TablePatients(x, y, np.repeat(np.arange(count), rows_each), rows_each * np.arange(count + 1))


# Loss and score


def outcome(*structures: str, loss: str = "dice") -> Segmentation:
    return Segmentation(Keys("segmentation", "mask", structures=structures or ("a",), size=(4, 4), loss=loss))  # type: ignore[arg-type]


def test_the_loss_of_an_image_is_one_less_its_soft_dice_and_depends_on_no_other() -> None:
    task, chance = outcome("a", "b"), torch.Generator().manual_seed(0)
    outputs, y = torch.randn(3, 2, 4, 4, generator=chance), torch.randint(0, 3, (3, 1, 4, 4), generator=chance).float()
    expected: list[torch.Tensor] = []
    for i in range(3):
        each: list[torch.Tensor] = []
        for label in (1, 2):
            p, m = outputs[i, label - 1].sigmoid(), (y[i, 0] == label).float()
            each.append(1 - (2 * (p * m).sum() + 1) / (p.sum() + m.sum() + 1))
        expected.append(torch.stack(each).mean())
    torch.testing.assert_close(task.loss(outputs, y), torch.stack(expected))
    torch.testing.assert_close(task.loss(outputs[:1], y[:1])[0], expected[0])


def test_the_cross_entropy_is_a_mean_over_places() -> None:
    outputs, y = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    assert outcome(loss="bce").loss(outputs, y).tolist() == pytest.approx([np.log(2)] * 2)


def test_the_score_is_the_mean_dice_of_a_patients_images() -> None:
    outputs, y = np.full((3, 1, 4, 4), -1.0), np.zeros((3, 1, 4, 4), np.float32)
    y[0, 0, :2] = outputs[0, 0, :2] = 255  # all of it; of one structure every label counts
    y[1, 0, 0] = 1  # none of it
    assert outcome().score(outputs, y) == pytest.approx((1 + 0 + 1) / 3)  # the third has none, and none was found


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_outputs_that_are_no_numbers_have_a_score_all_the_same(odd: float) -> None:
    assert 0 <= outcome().score(np.full((1, 1, 4, 4), odd), np.ones((1, 1, 4, 4), np.float32)) <= 1


# The release


@given(st.lists(st.floats(0, 1), max_size=20), st.floats(0, 1))
def test_one_patient_more_moves_both_sums_by_at_most_one_patient(scores: list[float], one: float) -> None:
    moved = sums_of(np.array([*scores, one])) - sums_of(np.array(scores))
    assert (moved**2).sum() <= 256**2
    assert moved.sum() == 256


def test_intervals_hold_the_mean_as_often_as_they_say_or_more() -> None:
    rng, held, near = np.random.default_rng(0), 0, 0
    for _ in range(400):
        scores = rng.beta(6, 2, 150)
        noise = np.rint(rng.normal(0, 6 * 256, 2))
        found = mean((sums_of(scores) + noise) / 256, 36.0)
        assert found is not None
        held += found.low <= 0.75 <= found.high
        near += found.high - found.low < 0.25
    assert held >= 0.93 * 400
    assert near > 300


def test_a_mean_is_undefined_where_noise_may_hide_that_there_is_anybody() -> None:
    assert mean(np.array([8.0, 2.0]), 100.0) is None
    assert mean(np.array([8.0, 2.0]), 0.01) is not None


@pytest.mark.parametrize(
    ("sums", "flaw"),
    [
        ([0.3, 1.0], "whole numbers of 1/256"),
        ([np.nan, 1.0], "whole numbers of 1/256"),
        ([-60.0, 1.0], "far below zero"),
        ([90.0, 90.0], "no more patients than the hospital announced"),
    ],
)
def test_sums_that_no_honest_hospital_sends_are_refused(sums: list[float], flaw: str) -> None:
    require_plausible(np.array([20.0, 19.5], np.float32), 1.0, 40)
    with pytest.raises(WireError, match=flaw):
        require_plausible(np.array(sums, np.float32), 1.0, 40)


# In a study


@pytest.fixture(scope="module")
def run() -> tuple[Study, Any, dict[str, Split]]:
    chosen = asked(privacy={"epsilon": 50.0, "clip_norm": 1.0}, releases={"score_sum": {"epsilon": 2.0}})
    splits = {site: Split(images(30, i, 2), images(10, 9 + i, 2), {}) for i, site in enumerate(chosen.sites)}
    hospitals = Hospitals(chosen, lambda site: splits[site].train, test_of=lambda site: splits[site].test)
    return chosen, run_engine("inprocess", hospitals, lambda done: make_app(chosen, done=done)), splits


def test_a_federation_learns_to_find_discs_under_privacy(run: tuple[Study, Any, dict[str, Split]]) -> None:
    chosen, outcome, splits = run
    tests = {site: split.test for site, split in splits.items()}
    judged = evaluate(chosen, learning_of(chosen), outcome.model, tests)
    dice = judged.result.metrics["dice"]
    assert dice is not None
    assert dice.low < dice.value < dice.high
    assert dice.value > 0.5
    assert judged.result.per_site["brest"] != dice


def test_the_mean_score_is_released_once_beside_a_count(run: tuple[Study, Any, dict[str, Split]]) -> None:
    chosen, outcome, splits = run
    learning = learning_of(chosen)
    released = outcome.released["score_sum"].arrays
    scores = [learning.scores(outcome.model, split.test) for split in splits.values()]
    assert set(released) == set(chosen.sites)
    result = KIND.combine(chosen, released, {})
    assert result.score == "Dice coefficient"
    assert abs(result.patients.value - 20) < 30
    assert result.together is None or 0 <= result.together.low <= result.together.high <= 1
    assert float(np.concatenate(scores).mean()) > 0.5


def test_a_site_that_lets_no_metric_leave_refuses_it() -> None:
    chosen = asked(releases={"score_sum": {"epsilon": 1.0}})
    people = Split(images(30, 0), images(10, 1), {})
    site = Site("brest", chosen, people, Ledger.in_memory(), seeded=True, policy=Policy(metrics="none"))
    with pytest.raises(PolicyError):
        site.release("score_sum", Request(learning_of(chosen).initial(0)))


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"model": {"name": "resnet"}}, "model.name: expected a model that puts out a map of the record"),
        ({"model": {"name": "mlp"}}, "mlp reads rows of numbers, found features that are images of two axes"),
        ({"task": {"type": "binary", "target": "ill"}}, "expected a model that puts out a row of numbers"),
        (
            {"task": {"type": "segmentation", "target": "mask", "reader": "npy", "size": [8, 8]}},
            "task.size: expected the size of scan, found another",
        ),
        ({"evaluation": {"test_fraction": 0.2, "release": {"epsilon": 1.0}}}, "evaluation.release"),
        ({"evaluation": {"test_fraction": 0.2, "metrics": ["auroc"]}}, "one of dice for a segmentation task"),
        ({"model": {"name": "unet", "width": 6}}, "model.width: expected a multiple of 4"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(changes: dict[str, Any], mistake: str) -> None:
    with pytest.raises(ConfigError, match=mistake):
        asked(**changes)


def test_a_score_is_asked_for_only_where_patients_have_one() -> None:
    with pytest.raises(ConfigError, match=r"expected task.type: segmentation"):
        study(releases={"score_sum": {"epsilon": 1.0}})


def test_a_study_comes_back_from_its_canonical_form(tmp_path: Path) -> None:
    del tmp_path
    chosen = asked(task=document()["task"] | {"structures": ["core", "rim"], "loss": "bce"})
    again = study_from({key: value for key, value in chosen.to_dict().items() if key != "version"})
    assert again.sha256 == chosen.sha256
    assert learning_of(again).objective.outputs == 2
    assert isinstance(chosen.task, Keys)


def test_a_plan_times_a_few_records_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    timed = planning._timed
    monkeypatch.setattr(planning, "_timed", lambda task, some: (made.append(some.patients), timed(task, some))[1])
    plan = plan_study(asked(cohort={"brest": 4000, "lille": 4000}))
    assert made == [planning.FEW_RECORDS]
    assert any("of training at the largest" in note for note in plan.notes)


def test_settings_that_were_measured_on_rows_are_not_written_for_records() -> None:
    unfinished = replace(asked(), training=AUTO)
    with pytest.raises(ConfigError, match="training: expected rounds, strategy and local with a model that reads"):
        settings_of(unfinished)


def test_the_review_says_what_leaves_and_what_labels_mean(tmp_path: Path) -> None:
    site = SiteConfig(tmp_path, "brest", "coord.example.org:8443", policy=Policy(metrics="noisy"))
    shown = " ".join(row.text for row in rows_of(site, asked(releases={"score_sum": {"epsilon": 1.0}})))
    assert "two sums over test patients, of each one's Dice coefficient from 0 to 1" in shown
    assert "of the mask, every label above 0 is structure" in shown
