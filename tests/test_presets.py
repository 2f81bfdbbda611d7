"""Every preset loads, runs to its end, and leaves what `metrics.json` promises."""

import json
from pathlib import Path
from typing import Any

import pytest

from simulations.cli import main
from simulations.complete import completed
from strategies.privacy.modes.local import plan_for

ALL = sorted((Path(__file__).resolve().parent.parent / "configs" / "presets").glob("*.yaml"))
ELSEWHERE = {"kit", "brain_seg"}  # tests/simulations/test_kit_commands.py, test_brains.py
ALL = [path for path in ALL if path.stem not in ELSEWHERE]
PRESETS = [path for path in ALL if completed(path).study.procedure == "training"]
KEYS = {
    *("study", "study_sha256", "engine", "seed", "outcome", "rounds_completed", "seconds", "model_sha256"),
    *("sites", "models"),
}
SITE_KEYS = {
    *("site", "patients_train", "patients_test", "epsilon", "delta", "noise_multiplier", "sampling_rate", "steps"),
    *("bytes_sent", "messages_sent"),
}
MODELS = {"federated", "federated_without_privacy", "local_only", "pooled"}

BITS = {  # of the model that each preset trains, on any processor, in any release
    "counts": "0b9cf461f79b09a8829b15f2e6b61d0dd6196da3b6595615bf316a3f36a0d603",
    "flamby_heart": "c76015e37161d580c3619cfeeb10767430fcfdbea2e555b18809e95f80f9c1c0",
    "heart_auto": "a422c3898b17e581457d4f48fa0d73cec7800fd92af75ca96c7bdaa1ef198af0",
    "heart_disease": "bf7b4c3613336946f107a894b9fc76759a2f91a9ca416c2aea581f7da089255a",
    "heart_disease_none": "ded25457b543ea0fd54dfcc1ed54686d7f717b455c57c8df84c609340d5acc09",
    "omop_risk": "b6a2fd0eed390cbbd5a53c8ad0d0f264a29d8e0ebbde9429d9bca805c00eb8fb",
    "survival": "177b9c78304907ad4ca016d6f8677102c205b2a2541473a22e7206cceb911677",
    "rehearsal": "1a3015ddd12bcb183d3689f2eb389d8df0cce94cc8057063b86e8e6c7ba19abb",
}


@pytest.fixture(scope="module", params=PRESETS, ids=lambda path: path.stem)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A preset and its metrics."""
    out = tmp_path_factory.mktemp("runs")
    assert main(["simulate", str(request.param), "--out", str(out)]) == 0
    return request.param, json.loads((out / "latest" / "metrics.json").read_text())


def test_a_preset_ends_complete_with_every_promised_figure(finished: tuple[Path, dict[str, Any]]) -> None:
    preset, metrics = finished
    study = completed(preset).study
    assert metrics.keys() >= KEYS
    assert (metrics["outcome"], metrics["rounds_completed"]) == ("COMPLETE", study.training.rounds)
    assert metrics["study_sha256"] == study.sha256
    assert all(site.keys() >= SITE_KEYS for site in metrics["sites"])
    assert metrics["models"].keys() == MODELS | ({"pooled_cox"} if preset.stem == "survival" else set())
    for model in metrics["models"].values():
        low, value, high = (model["metrics"][metrics["primary_metric"]][key] for key in ("low", "value", "high"))
        assert 0.5 < low < value < high < 1


def test_survival_comes_near_the_pooled_cox_model(finished: tuple[Path, dict[str, Any]]) -> None:
    if finished[0].stem != "survival":
        return
    c_index = {key: model["c_index"]["value"] for key, model in finished[1]["models"].items()}
    assert c_index["federated_without_privacy"] > c_index["pooled_cox"] - 0.01
    assert c_index["federated"] > c_index["pooled_cox"] - 0.02
    assert c_index["local_only"] < c_index["federated"]
    assert [point["time"] for point in finished[1]["models"]["federated"]["survival"]][-2:] == [910, 1095]


def test_a_preset_trains_the_bits_that_it_always_did(finished: tuple[Path, dict[str, Any]]) -> None:
    assert finished[1]["model_sha256"] == BITS[finished[0].stem]


def test_switzerland_has_no_auroc_in_any_preset(finished: tuple[Path, dict[str, Any]]) -> None:
    assert all(model["per_site"].get("switzerland") is None for model in finished[1]["models"].values())


def test_a_private_preset_spends_its_epsilon_and_no_more(finished: tuple[Path, dict[str, Any]]) -> None:
    study = completed(finished[0]).study
    for site in finished[1]["sites"]:
        if study.privacy.keys.budgeted:
            plan = plan_for(study, site["site"])
            assert 0.99 * study.privacy.epsilon < plan.epsilon() <= study.privacy.epsilon
            assert site["epsilon"] == pytest.approx(plan.epsilon(rounds=study.training.rounds))
            assert site["epsilon"] < plan.epsilon() or not study.privacy.spare  # nothing was lost
        else:
            assert site["epsilon"] is None


@pytest.mark.parametrize("preset", [path for path in ALL if path not in PRESETS], ids=lambda path: path.stem)
def test_a_preset_of_statistics_ends_complete_and_spends_its_epsilon_and_no_more(preset: Path, tmp_path: Path) -> None:
    study = completed(preset).study
    assert main(["simulate", str(preset), "--out", str(tmp_path)]) == 0
    metrics = json.loads((tmp_path / "latest" / "metrics.json").read_text())
    assert (metrics["outcome"], metrics["study_sha256"]) == ("COMPLETE", study.sha256)
    assert set(metrics["statistics"]["sites"]) == set(study.sites)
    plan = plan_for(study, study.sites[0])
    assert round(plan.epsilon(), 3) == study.privacy.epsilon
    assert [site["epsilon"] for site in metrics["sites"]] == [plan.epsilon(rounds=1)] * len(study.sites)
    assert all(site["epsilon"] <= study.privacy.epsilon for site in metrics["sites"])
