"""A strategy with a hospital's half and arrays of its own is one file and its registration."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from client.app import respond
from client.ledger import Ledger
from client.site import Site
from configs.errors import ConfigError, KindError, WireError
from configs.federated import FEDERATED
from configs.load import load_study
from configs.schema import Study
from configs.strict_yaml import dump_yaml, read_yaml
from server.app import make_app
from server.checkpoint import Checkpoints
from server.outcome import Outcome
from simulations import cli
from simulations.engines import run_engine
from simulations.hospitals import Hospitals
from strategies.data.table import TablePatients
from strategies.exchange.arrays import Arrays
from strategies.exchange.messages import read
from strategies.federated.registry import STRATEGIES, register
from strategies.models.registry import study_parameters
from strategies.releases.plausible import Plausibility
from strategies.releases.registry import arrays_of
from tests.builders import flat, patients, plain, random_arrays, same_bits, study, train_message
from tests.kits.shared_direction import SENT, SHARED_DIRECTION, install

PRESET = Path(__file__).resolve().parents[2] / "configs" / "presets" / "heart_disease.yaml"
STEPS, RATE = 4, 0.5
TRAINING = {
    "strategy": {"name": "shared_direction"},
    "rounds": 4,
    "weights": "uniform",
    "local": {"steps": STEPS, "batch_size": "full", "learning_rate": RATE},
}


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (STRATEGIES, FEDERATED):
        monkeypatch.setattr(registry, "_kinds", dict(registry._kinds))
    install()


def people(study: Study) -> dict[str, TablePatients]:
    return {site: patients(20 + 10 * i, seed=i) for i, site in enumerate(study.sites)}


def run_of(study: Study, checkpoints: Checkpoints | None = None, stop_after: int = 99) -> Outcome:
    def observer(record: Any, _model: Arrays) -> None:
        if record.round == stop_after:
            raise InterruptedError

    hospitals = Hospitals(study, people(study).__getitem__)
    made = lambda done: make_app(study, checkpoints=checkpoints, observer=observer, done=done)  # noqa: E731
    return run_engine("inprocess", hospitals, made)


def by_hand(study: Study, rounds: int, strength: float = 0.5) -> np.ndarray:
    """The toy's rule on logistic regression, in double precision: inputs' weights, then the bias."""
    data = [(np.hstack([p.x, np.ones((len(p.x), 1))]).astype(np.float64), p.y) for p in people(study).values()]
    x = before = np.zeros(3)
    for _ in range(rounds):
        models = []
        for rows, y in data:
            model = x.copy()
            for _ in range(STEPS):
                gradient = rows.T @ (1 / (1 + np.exp(-rows @ model)) - y) / len(y)
                model -= RATE * (gradient + strength * (before - x))
            models.append(model)
        before, x = x, np.mean(models, axis=0)
    return x


@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_a_federation_follows_the_published_algorithm(strength: float) -> None:
    chosen = plain(training=TRAINING | {"strategy": {"name": "shared_direction", "strength": strength}})
    model = run_of(chosen).model
    np.testing.assert_allclose(flat(model), by_hand(chosen, 4, strength), rtol=1e-4, atol=1e-5)
    fedavg = run_of(plain(training=TRAINING | {"strategy": {"name": "fedavg"}})).model
    assert np.abs(flat(model) - flat(fedavg)).max() > 1e-3


def test_a_resumed_federation_has_its_arrays_again(tmp_path: Path) -> None:
    chosen = plain(training=TRAINING)
    checkpoints = Checkpoints(tmp_path, chosen.sha256, durable=False)
    with pytest.raises(InterruptedError):
        run_of(chosen, checkpoints, stop_after=2)
    held = checkpoints.load()
    assert held is not None
    assert set(held.optimizer) == {f"start/{name}" for name in study_parameters(chosen)}
    assert same_bits(run_of(chosen, checkpoints).model, run_of(chosen).model)


def test_with_privacy_the_direction_comes_after_the_noise_and_an_honest_update_is_plausible() -> None:
    chosen = study(training=TRAINING)
    conducted = run_of(chosen)
    assert conducted.rounds.outcome == "COMPLETE"
    assert [record.missing for record in conducted.records] == [{}] * 4
    start, sent = random_arrays(study_parameters(chosen)), random_arrays(arrays_of("train", chosen), 1)
    directions = {name: array for name, array in sent.items() if name.startswith(SENT)}
    assert Plausibility(chosen, start, lambda _site: directions).bound("lille") > Plausibility(chosen, start).bound(
        "lille"
    )


def test_the_hospital_expects_the_arrays_and_sends_the_model_alone() -> None:
    chosen = plain(training=TRAINING)
    site = Site("lille", chosen, people(chosen)["lille"], Ledger.in_memory(), seeded=True)
    sent = random_arrays(arrays_of("train", chosen), scale=0.1)
    asked = train_message(chosen, 1, sent, arrays_of("train", chosen)).content
    reply = respond("train", lambda: site, lambda site: read("train", asked, site.forms["train"]))
    assert list(reply.arrays) == list(study_parameters(chosen))
    lacking = {name: sent[name] for name in study_parameters(chosen)}
    with pytest.raises(WireError, match=r"direction/0\.weight"):
        read("train", train_message(chosen, 1, lacking, study_parameters(chosen)).content, site.forms["train"])


def test_its_options_are_judged_as_any() -> None:
    with pytest.raises(ConfigError, match="strength: expected a share from 0 to 1, found 2"):
        plain(training=TRAINING | {"strategy": {"name": "shared_direction", "strength": 2}})
    assert plain(training=TRAINING).to_dict()["training"]["strategy"] == {"name": "shared_direction", "strength": 0.5}


def test_a_second_one_of_its_name_and_one_that_lacks_a_half_are_refused() -> None:
    with pytest.raises(KindError, match=r"strategy 'shared_direction' .*expected a name of its own, found strategy"):
        register(replace(SHARED_DIRECTION))
    half = SimpleNamespace(name="half", keys=SHARED_DIRECTION.keys, local_rule=SHARED_DIRECTION.local_rule)
    with pytest.raises(KindError, match="found no coordinator; add it"):
        register(half)  # type: ignore[arg-type]
    assert "half" not in STRATEGIES


def preset_in(folder: Path) -> Path:
    document = read_yaml(PRESET)
    for source in document["simulation"]["sites"].values():
        source["path"] = str((PRESET.parent / source["path"]).resolve())
    document["training"] |= {"strategy": {"name": "shared_direction"}, "rounds": 3}
    path = folder / "study.yaml"
    path.write_text(dump_yaml(document))
    return path


def test_it_is_planned_simulated_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = preset_in(tmp_path)
    assert cli.main(["plan", str(path)]) == 0
    assert "epsilon" in capsys.readouterr().out
    assert cli.main(["simulate", str(path), "--out", str(tmp_path / "runs")]) == 0
    run = tmp_path / "runs" / "latest"
    assert json.loads((run / "metrics.json").read_text())["strategy"] == "shared_direction"
    assert "combined by shared_direction" in (run / "report.html").read_text()
    assert load_study(run / "study.yaml").training.strategy.name == "shared_direction"
