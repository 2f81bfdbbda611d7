"""A privacy mode, in which another party adds the noise, is one file and its registration."""

import json
from pathlib import Path

import numpy as np
import pytest

from client.ledger import Ledger
from client.policy import Allow, Deny, Request, decide
from client.site import Site
from configs.errors import ConfigError, KindError, PrivacyError, WireError
from configs.schema import Study
from configs.schema.privacy import PRIVACY_MODES, ModeKeys
from configs.site import Policy
from configs.strict_yaml import dump_yaml, read_yaml
from simulations import cli
from simulations.memory import train
from strategies.data.table import TablePatients
from strategies.models.registry import study_parameters
from strategies.privacy.accounting import SampledGaussian, epsilon
from strategies.privacy.modes.base import PrivacyMode
from strategies.privacy.modes.registry import MODES, mode_of, register
from tests.builders import counting, flat, patients, plain, random_arrays, same_bits, study
from tests.kits.central import CENTRAL, Central, install

PRESET = Path(__file__).resolve().parents[2] / "configs" / "presets" / "heart_disease.yaml"
CLIP = 0.01


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (MODES, PRIVACY_MODES):
        monkeypatch.setattr(registry, "_kinds", dict(registry._kinds))
    install()


@pytest.fixture
def chosen(_registered: None) -> Study:
    return study(privacy={"mode": "central", "epsilon": 8.0, "clip_norm": CLIP})


def people(study: Study) -> dict[str, TablePatients]:
    return {site: patients(40 + 20 * i, seed=i) for i, site in enumerate(study.sites)}


def test_what_leaves_is_clipped_as_a_whole_and_booked(chosen: Study) -> None:
    start = random_arrays(study_parameters(chosen))
    ledger = Ledger.in_memory()
    sent = Site("lille", chosen, people(chosen)["lille"], ledger, seeded=True).fit(1, dict(start))
    exact = Site("lille", plain(), people(chosen)["lille"], Ledger.in_memory(), seeded=True).fit(1, dict(start))
    moved, whole = flat(sent) - flat(start), flat(exact) - flat(start)
    assert np.linalg.norm(whole) > 2 * CLIP
    np.testing.assert_allclose(moved, whole * CLIP / np.linalg.norm(whole), atol=1e-6)
    plan = mode_of(chosen).plan(chosen, "lille")
    assert plan is not None
    assert ledger.spent("lille", delta=1e-5) == epsilon([SampledGaussian(plan.noise_multiplier, 1.0, 1)], 1e-5)


def test_the_coordinator_adds_the_noise_that_the_accountant_counts(chosen: Study) -> None:
    plan = mode_of(chosen).plan(chosen, "lille")
    assert plan is not None
    assert 7.99 < epsilon([SampledGaussian(plan.noise_multiplier, 1.0, 1)] * 3, 1e-5) <= 8.0
    weights, zeros = {"lille": 100.0, "lyon": 60.0}, {"w": np.zeros(20_000, np.float32)}
    noise = mode_of(chosen).combine(chosen, zeros, weights, 1, seeded=True)["w"]
    assert np.std(noise) == pytest.approx(plan.noise_multiplier * CLIP * 100 / 160, rel=0.03)
    assert same_bits({"w": noise}, mode_of(chosen).combine(chosen, zeros, weights, 1, seeded=True))
    assert not same_bits({"w": noise}, mode_of(chosen).combine(chosen, zeros, weights, 2, seeded=True))


def test_a_federation_has_noise_in_its_model_and_the_planned_epsilon(chosen: Study) -> None:
    trained = train(chosen, people(chosen))
    assert trained.epsilon is not None
    assert 7.99 < trained.epsilon <= 8.0
    assert same_bits(trained.model, train(chosen, people(chosen)).model)
    unnoised = study(
        privacy={"mode": "central", "epsilon": 100.0, "clip_norm": 1e-6}
    )  # moves nothing, adds next to none
    assert np.abs(flat(train(unnoised, people(chosen)).model)).max() < 1e-4 < np.abs(flat(trained.model)).max()


def test_a_policy_refuses_it_unless_updates_may_leave_without_noise(chosen: Study) -> None:
    request = Request(chosen.privacy.keys, has_dataset=True, patients=100)
    refused = decide(request, Policy())
    assert isinstance(refused, Deny)
    assert refused.code == 113
    assert refused.reason.startswith("its updates leave without noise, which the coordinator adds; the policy does not")
    assert decide(request, Policy(allow_privacy_none=True)) == Allow()


def test_a_study_is_held_to_what_the_mode_can_do() -> None:
    with pytest.raises(ConfigError, match="expected one of local, none, central, found 'centrale'"):
        study(privacy={"mode": "centrale"})
    with pytest.raises(ConfigError, match="mode: expected local, as no exact count"):
        counting(privacy={"mode": "central", "epsilon": 1.0, "delta": 1e-5, "clip_norm": 1.0})
    with pytest.raises(ConfigError, match=r"evaluation\.release: expected none where privacy.mode is central"):
        study(
            privacy={"mode": "central"},
            evaluation={"test_fraction": 0.2, "release": {"epsilon": 1.0, "bins": 10}},
        )
    adaptive = study(privacy={"mode": "central"}, training={"strategy": {"name": "fedadam"}})
    with pytest.raises(PrivacyError, match="expected a strategy that is a weighted mean"):
        mode_of(adaptive).plan(adaptive, "lille")


def test_a_second_one_of_its_name_is_refused() -> None:
    with pytest.raises(KindError, match=r"privacy mode 'central' .*expected a name of its own, found privacy mode"):
        register(type(CENTRAL)())
    assert MODES["central"] is CENTRAL


def preset_in(folder: Path) -> Path:
    document = read_yaml(PRESET)
    for source in document["simulation"]["sites"].values():
        source["path"] = str((PRESET.parent / source["path"]).resolve())
    document["training"] |= {"strategy": {"name": "fedavg"}, "rounds": 3}
    document["privacy"] = {"mode": "central", "epsilon": 8.0, "delta": 1e-5, "clip_norm": 0.1}
    document["evaluation"].pop("release", None)
    path = folder / "study.yaml"
    path.write_text(dump_yaml(document))
    return path


def test_it_is_planned_simulated_and_reported_with_its_guarantee(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = preset_in(tmp_path)
    assert cli.main(["plan", str(path)]) == 0
    planned = " ".join(capsys.readouterr().out.split())
    assert "epsilon 8 at delta 1e-05 per hospital, all of its patients or none, in the combined models" in planned
    assert "does not protect against the coordinator" in planned
    assert cli.main(["simulate", str(path), "--out", str(tmp_path / "runs")]) == 0
    assert "does not protect against the coordinator" in " ".join(capsys.readouterr().out.split())
    run = tmp_path / "runs" / "latest"
    privacy = json.loads((run / "metrics.json").read_text())["privacy"]
    assert (privacy["mode"], privacy["unit"], privacy["where"]) == ("central", "hospital", "in the combined models")
    for page in ("report.html", "model_card.md"):
        text = (run / page).read_text()
        assert "per hospital, all of its patients or none, in the combined models" in text
        assert "does not protect against the coordinator" in text
        assert "Each hospital adds noise" not in text


def test_an_audit_of_a_hospitals_noise_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit", str(preset_in(tmp_path))]) != 0
    assert "privacy.mode: expected local, found central" in " ".join(capsys.readouterr().err.split())


def test_a_person_at_a_hospital_reads_against_whom_it_does_not_protect(chosen: Study) -> None:
    assert "against whoever sees the combined models alone" in mode_of(chosen).review(chosen)
    assert "does not protect against the coordinator" in mode_of(chosen).review(chosen)


class Planless(PrivacyMode):
    keys = ModeKeys("planless", budgeted=True, noised_here=False, leaves="something")


class Noiseless(PrivacyMode):
    keys = ModeKeys("noiseless", budgeted=False, noised_here=True, leaves="")


@pytest.mark.parametrize("mode", [Planless(), Noiseless()], ids=lambda mode: mode.name)
def test_a_mode_whose_promise_nothing_keeps_is_not_registered(mode: PrivacyMode) -> None:
    with pytest.raises(KindError, match="expected its own"):
        register(mode)
    assert mode.name not in MODES
    assert mode.name not in PRIVACY_MODES


def test_a_budget_without_a_plan_lets_nothing_leave(chosen: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Central, "plan", lambda *_, **__: None)
    read = []
    site = Site("lille", chosen, lambda: read.append(1), Ledger.in_memory(), seeded=False)  # type: ignore[arg-type,return-value]
    with pytest.raises(WireError):
        site.fit(1, random_arrays(study_parameters(chosen)))
    assert not read
