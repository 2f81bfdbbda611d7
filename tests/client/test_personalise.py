"""A model of each hospital's own after the last round: it wins where a hospital differs, and nothing of it leaves."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import after_end
from client.id_hashes import prepare_hashes
from client.ledger import Ledger
from client.personalise import personalised
from client.site import Site
from client.worker import open_site
from configs.errors import ConfigError
from configs.schema import Study
from server.app import make_app
from simulations.engines import run_engine
from simulations.evaluate import evaluate, evaluate_at_home
from simulations.hospitals import Hospitals
from strategies.data.table import TablePatients
from strategies.exchange.arrays import Arrays
from strategies.learning import learning_of
from tests.builders import patients, plain, random_arrays, same_bits, study
from tests.client.ward import ROUNDS, study_of, ward

ASKED: dict[str, Any] = {"personalise": {"steps": 20, "pull": 0.1}}
LOCAL = {"epochs": 1, "batch_size": "full", "learning_rate": 4.0}
ODD = "lyon"  # where the effect is the opposite


def opposite(chosen: Study, seed: int = 0) -> dict[str, TablePatients]:
    made = {}
    for place, site in enumerate(chosen.sites):
        rng = np.random.default_rng([seed, place])
        x = rng.uniform(-1, 1, (150, 2)).astype(np.float32)
        chance = 1 / (1 + np.exp(-(3.0 if site != ODD else -3.0) * x[:, 0]))
        made[site] = TablePatients(x, (rng.random(150) < chance).astype(np.float32), np.arange(150), np.arange(151))
    return made


def test_a_hospital_with_the_opposite_effect_has_a_model_that_fedavg_cannot_give_it() -> None:
    chosen = study(training={"rounds": 15, "local": LOCAL, **ASKED})
    train, test, task = opposite(chosen), opposite(chosen, seed=1), learning_of(chosen)
    hospitals = Hospitals(chosen, train.__getitem__)
    model = run_engine("inprocess", hospitals, lambda done: make_app(chosen, done=done)).model
    spent = {site: hospitals.site(site).ledger.spent(site, delta=1e-5) for site in chosen.sites}
    own = {site: personalised(hospitals.site(site), model) for site in chosen.sites}
    assert spent == {site: hospitals.site(site).ledger.spent(site, delta=1e-5) for site in chosen.sites}  # no epsilon
    at_home = evaluate_at_home(chosen, task, own, test).result.per_site
    shared = evaluate(chosen, task, model, test).result.per_site
    values = {site: (at_home[site], shared[site]) for site in chosen.sites}
    scores = {site: (mine.value, ours.value) for site, (mine, ours) in values.items() if mine and ours}
    assert scores[ODD][0] > 0.75 > 0.3 > scores[ODD][1]
    assert all(mine > ours - 0.03 for site, (mine, ours) in scores.items() if site != ODD)


def _site(chosen: Study) -> Site:
    return Site("lille", chosen, patients(80, seed=1), Ledger.in_memory(), seeded=True)


def test_steps_go_down_the_loss_with_the_pull_to_the_shared_model() -> None:
    """At the end of many steps the gradient of loss + pull / 2 * |model - shared|^2 is 0."""
    chosen = plain(training={"personalise": {"steps": 3000, "pull": 0.5}})
    site, model = _site(chosen), random_arrays(_site(chosen).parameters, scale=0.5)
    own = personalised(site, model)
    rows = np.hstack([site.train.x, np.ones((80, 1))]).astype(np.float64)
    weights, shared = (np.concatenate([m["0.weight"].ravel(), m["0.bias"]]).astype(np.float64) for m in (own, model))
    gradient = rows.T @ (1 / (1 + np.exp(-rows @ weights)) - site.train.y) / 80 + 0.5 * (weights - shared)
    assert np.abs(gradient).max() < 1e-3


def test_it_has_the_same_bits_each_time_and_without_it_the_model_stays() -> None:
    model: Arrays = random_arrays(_site(study()).parameters)
    asked = study(training=ASKED)
    assert same_bits(personalised(_site(asked), model), personalised(_site(asked), model))
    assert not same_bits(personalised(_site(asked), model), model)
    assert same_bits(personalised(_site(study()), model), model)


def test_a_study_without_it_keeps_its_digest() -> None:
    assert "personalise" not in study().canonical
    assert study(training={"personalise": None}).sha256 == study().sha256
    assert study(training=ASKED).to_dict()["training"]["personalise"] == {"steps": 20, "pull": 0.1}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"steps": 0, "pull": 0.1}, r"training\.personalise\.steps: expected an integer from 1 to 10000, found 0"),
        ({"steps": 5, "pull": -1}, r"training\.personalise\.pull: expected a number from 0 to 1000, found -1"),
        ({"steps": 5}, r"training\.personalise\.pull"),
    ],
)
def test_its_keys_are_judged(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        study(training={"personalise": keys})


def test_a_hospital_makes_it_after_the_end_in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an intercept of its own too: a deployed hospital keeps, and has, what a simulated one does."""
    usual = study_of(1)
    chosen = replace(
        usual,
        model=replace(usual.model, site_intercept=True),
        training=replace(usual.training, personalise=study(training=ASKED).training.personalise),
    )
    hospital = ward(tmp_path)
    config = hospital.config
    prepare_hashes(config)
    rows = [f"{20 + i % 70},{('female', 'male')[i % 3 % 2]},{int(i % 70 > 30)}" for i in range(80)]
    (tmp_path / "patients.csv").write_text("\n".join(["age,sex,disease", *rows]) + "\n")
    with closing(Ledger.open(config.ledger)) as ledger:
        site, _ = open_site(config, ledger, chosen, seeded=True)
        simulated = Site("lille", chosen, site.train, Ledger.in_memory(), seeded=True)
        start = {"0.weight": learning_of(chosen).initial(0)["0.weight"]}
        for number in range(1, ROUNDS + 1):
            assert same_bits(site.fit(number, start), simulated.fit(number, start))
        folder = config.personal / chosen.sha256
        assert {path.name for path in folder.iterdir()} == {f"{n}.safetensors" for n in range(1, ROUNDS + 1)}
        model = random_arrays(site.parameters)
        end = type("End", (), {"rounds": ROUNDS, "has_model": True})
        monkeypatch.setattr(after_end, "model_of", lambda *_: model)
        monkeypatch.setattr(after_end, "kept", lambda *_: end)
        after_end.make(config, site)
        file = after_end.personal_path(config, chosen.sha256, ROUNDS)
        from safetensors.numpy import load_file

        assert file.stat().st_mode & 0o077 == 0
        assert same_bits(load_file(file), personalised(simulated, model))
        assert same_bits(after_end.own_model(config, chosen, ROUNDS), load_file(file))
        assert after_end.own_model(config, usual, ROUNDS) == {}
        assert same_bits(site.personal.final(), simulated.personal.final())  # the file beside is no round's
