"""SCAFFOLD by the coordinator: the published algorithm, what it is good for, and where it is of no use."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import ConfigError
from configs.federated import CORRECTION
from configs.schema import Study
from server.app import make_app
from server.checkpoint import Checkpoints
from server.outcome import Outcome
from simulations.engines import run_engine
from simulations.hospitals import Hospitals
from strategies.data.table import TablePatients
from strategies.exchange.arrays import Arrays
from strategies.models.registry import study_parameters
from strategies.releases.plausible import Plausibility
from strategies.releases.registry import arrays_of
from tests.builders import flat, plain, random_arrays, same_bits, study

STEPS, RATE, ROUNDS = 8, 0.5, 15
LOCAL: dict[str, Any] = {"epochs": None, "steps": STEPS, "batch_size": "full", "learning_rate": RATE}
TRAINING: dict[str, Any] = {"strategy": {"name": "scaffold"}, "rounds": ROUNDS, "local": LOCAL}


def skewed(chosen: Study) -> dict[str, TablePatients]:
    """Return hospitals that each have a part of the inputs' range, and so other best models."""
    made = {}
    for place, site in enumerate(chosen.sites):
        rng = np.random.default_rng(place)
        x = (rng.normal(size=(60, 2)) + [[2.0, 0.0], [-2.0, 1.0], [0.0, -2.0]][place]).astype(np.float32)
        y = (rng.random(60) < 1 / (1 + np.exp(-(x[:, 0] * x[:, 1] + x[:, 0])))).astype(np.float32)
        made[site] = TablePatients(x, y, np.arange(60), np.arange(61))
    return made


def run_of(chosen: Study, checkpoints: Checkpoints | None = None, stop_after: int = 99) -> Outcome:
    def observer(record: Any, _model: Arrays) -> None:
        if record.round == stop_after:
            raise InterruptedError

    hospitals = Hospitals(chosen, skewed(chosen).__getitem__)
    made = lambda done: make_app(chosen, checkpoints=checkpoints, observer=observer, done=done)  # noqa: E731
    return run_engine("inprocess", hospitals, made)


def _gradient(rows: Any, y: Any, model: Any) -> Any:
    return rows.T @ (1 / (1 + np.exp(-rows @ model)) - y) / len(y)


def _shards(chosen: Study) -> list[tuple[float, Any, Any]]:
    """Return each hospital's share, rows with a 1 for the bias, and outcomes."""
    total = sum(chosen.announced_patients(site) or 0 for site in chosen.sites)
    return [
        ((chosen.announced_patients(site) or 0) / total, np.hstack([p.x, np.ones((len(p.x), 1))]).astype(float), p.y)
        for site, p in skewed(chosen).items()
    ]


def by_hand(chosen: Study, rounds: int) -> Any:
    """Algorithm 1 of the paper, option II, with weighted means, in double precision: weights, then the bias."""
    shards = _shards(chosen)
    x: Any = np.zeros(3)
    own = [np.zeros(3) for _ in shards]
    for _ in range(rounds):
        mean = sum(share * control for (share, _, _), control in zip(shards, own, strict=True))
        models, renewed = [], []
        for (share, rows, y), control in zip(shards, own, strict=True):
            model = x.copy()
            for _ in range(STEPS):
                model -= RATE * (_gradient(rows, y, model) - control + mean)
            renewed.append(control - mean + (x - model) / (STEPS * RATE))
            models.append(share * model)
        own, x = renewed, sum(models)
    return x


def best(chosen: Study) -> Any:
    """Return the minimiser of the weighted loss."""
    model, shards = np.zeros(3), _shards(chosen)
    for _ in range(1000):
        model -= 0.5 * sum(share * _gradient(rows, y, model) for share, rows, y in shards)
    return model


def test_with_eight_local_steps_on_skewed_shards_it_finds_the_model_that_fedavg_misses() -> None:
    chosen = plain(training=TRAINING)
    model, optimum = run_of(chosen).model, best(chosen)
    np.testing.assert_allclose(flat(model), by_hand(chosen, ROUNDS), rtol=1e-3, atol=1e-4)
    fedavg = run_of(plain(training=TRAINING | {"strategy": {"name": "fedavg"}})).model
    off, missed = (float(np.abs(flat(found) - optimum).max()) for found in (model, fedavg))
    assert off < 0.1 * missed


def test_a_resumed_run_has_the_controls_of_every_hospital_again(tmp_path: Path) -> None:
    chosen = plain(training=TRAINING | {"rounds": 4})
    checkpoints = Checkpoints(tmp_path, chosen.sha256, durable=False)
    with pytest.raises(InterruptedError):
        run_of(chosen, checkpoints, stop_after=2)
    held = checkpoints.load()
    assert held is not None
    assert {key.partition("/")[0] for key in held.optimizer} == set(chosen.sites)
    assert same_bits(run_of(chosen, checkpoints).model, run_of(chosen).model)


def test_with_privacy_the_correction_comes_after_the_noise_and_an_honest_update_is_plausible() -> None:
    chosen = study(training=TRAINING | {"rounds": 3})
    conducted = run_of(chosen)
    assert conducted.rounds.outcome == "COMPLETE"
    assert [record.missing for record in conducted.records] == [{}] * 3
    start, sent = random_arrays(study_parameters(chosen)), random_arrays(arrays_of("train", chosen), 1)
    corrections = {name: array for name, array in sent.items() if name.startswith(CORRECTION)}
    assert set(corrections) == {CORRECTION + name for name in study_parameters(chosen)}
    without = Plausibility(chosen, start).bound("lille")
    assert Plausibility(chosen, start, lambda _site: corrections).bound("lille") > without
    assert set(arrays_of("train reply", chosen)) == set(study_parameters(chosen))


@pytest.mark.parametrize(
    ("local", "words"),
    [
        ({"steps": 1}, "two local steps or more with scaffold, which corrects the later ones, found '1 step'"),
        ({"steps": None, "epochs": 1}, "raise local.steps, or use fedavg, which is the same with one step"),
        ({"optimizer": "adam"}, "expected sgd without momentum with scaffold"),
        ({"momentum": 0.9}, "expected sgd without momentum with scaffold"),
    ],
)
def test_where_it_has_nothing_to_correct_or_cannot_tell_it_is_refused(local: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plain(training=TRAINING | {"local": LOCAL | local})


def test_batches_of_an_epoch_are_local_steps_too() -> None:
    local = {"epochs": 1, "batch_size": 16, "learning_rate": RATE}
    assert plain(training=TRAINING | {"local": local}).training.strategy.name == "scaffold"
