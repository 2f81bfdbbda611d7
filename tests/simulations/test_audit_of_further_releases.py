"""The audit looks at the noise of the releases `inference` and `subgroups`, and at how far one patient moves them."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.load import study_from
from configs.schema import Study
from simulations.audit.evaluation import Evaluator, largest_move
from simulations.audit.further import FURTHER, FurtherRelease, further_of
from simulations.audit.sensitivity import planted_patients
from simulations.audit.subject import Subject
from simulations.audit.verdict import Check
from strategies.data.person_periods import HasPeriods, person_periods
from strategies.data.table import TablePatients
from strategies.learning import learning_of
from strategies.releases import inference, information, subgroups
from tests.builders import patients, random_arrays, study

RELEASES: dict[str, Any] = {
    "inference": {"epsilon": 1.0},
    "subgroups": {"epsilon": 1.0, "by": ["sex", "age"], "bins": 5},
}
EVALUATIONS = 60
MODEL = {"0.weight": np.array([[0.7, -0.4]], np.float32), "0.bias": np.zeros(1, np.float32)}
releases = pytest.mark.parametrize("release", FURTHER, ids=lambda release: release.name)


def asking(scaling: str = "public") -> Study:
    return study(releases=RELEASES, evaluation={"test_fraction": 0.25}, scaling=scaling)


def people(count: int) -> TablePatients:
    made = patients(count)
    made.x[:, 1] = made.x[:, 1] > 0
    return made


def looked_at(release: FurtherRelease, folder: Path, scaling: str = "public") -> tuple[list[Check], Check]:
    """The checks of the noise, and that of the largest move."""
    chosen, crowd = asking(scaling), people(30)
    if scaling == "centred":
        crowd.x[:, 1] -= 0.5
    evaluator = Evaluator(Subject(), chosen, "lille", MODEL, folder / release.name, seeded=True)
    with closing(release.evaluator(evaluator)):
        checks = release.noise(evaluator, chosen, crowd, MODEL, range(EVALUATIONS))
        move = largest_move(evaluator, crowd, planted_patients(crowd), 3)
        return checks, release.move(evaluator, chosen, crowd, move)


def test_a_study_is_audited_for_what_it_asks() -> None:
    assert [release.name for release in further_of(asking())] == ["inference", "subgroups"]
    assert further_of(study()) == []


def test_a_healthy_release_of_hazards_passes(tmp_path: Path) -> None:
    (release,) = [release for release in FURTHER if release.name == "inference"]
    task = {
        "type": "survival",
        "time": "days",
        "event": "died",
        "intervals": [0, 90, 180, 270, 365],
        "outcome_share": 0.3,
    }
    document = study(releases={"inference": {"epsilon": 1.0}}).to_dict() | {"task": task}
    chosen = study_from(document | {"evaluation": {"test_fraction": 0.2}})
    rng, outcome = np.random.default_rng(3), learning_of(chosen).objective
    assert isinstance(outcome, HasPeriods)
    followed = np.stack([rng.uniform(0, 365, 30), rng.integers(0, 2, 30)], axis=1).astype(np.float32)
    crowd = person_periods(replace(people(30), y=followed), outcome)
    model = random_arrays(learning_of(chosen).parameters)
    evaluator = Evaluator(Subject(), chosen, "lille", model, tmp_path / "audit", seeded=True)
    with closing(release.evaluator(evaluator)):
        checks = release.noise(evaluator, chosen, crowd, model, range(EVALUATIONS))
        move = largest_move(evaluator, crowd, [("one more", crowd.subset(np.array([4])))], 3)
        checks.append(release.move(evaluator, chosen, crowd, move))
    assert [check.words for check in checks if not check.passed] == []


@releases
@pytest.mark.parametrize("scaling", ["public", "centred"])
def test_a_healthy_release_passes(release: FurtherRelease, scaling: str, tmp_path: Path) -> None:
    checks, move = looked_at(release, tmp_path, scaling)
    assert [check.name for check in [*checks, move] if not check.passed] == []


@releases
def test_too_little_noise_is_found(release: FurtherRelease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (inference, subgroups):
        honest: Callable[..., Any] = module.noised
        monkeypatch.setattr(module, "noised", lambda exact, size, chance, made=honest: made(exact, 0.7 * size, chance))
    checks, _ = looked_at(release, tmp_path)
    assert [check.name for check in checks if not check.passed]


def test_a_patient_of_several_weights_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(information, "_BELOW", 3.0)  # several rows are cut to three times the length of one
    _, move = looked_at(FURTHER[0], tmp_path)
    assert not move.passed
