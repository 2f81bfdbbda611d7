"""A study whose settings were chosen on real patients says so, from its file to the report, and keeps its identity."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.load import load_study, study_from
from configs.records.result import TunedOn
from configs.schema.sites import Tuned
from configs.strict_yaml import dump_yaml
from simulations import cli

PRESET = Path(__file__).resolve().parents[2] / "configs" / "presets" / "heart_disease.yaml"
TUNED = Tuned(settings=27, seeds=3, validation=0.2, seed=0)
WRITTEN = {"settings": 27, "seeds": 3, "validation": 0.2, "seed": 0}


def test_how_a_study_was_tuned_is_no_part_of_its_identity_and_survives_its_file() -> None:
    study = load_study(PRESET)
    tuned = study_from(replace(study, tuned=TUNED).to_file())
    assert tuned.tuned == TUNED
    assert tuned.sha256 == study.sha256
    assert study.to_file()["simulation"].keys() == {"sites"}


def test_what_a_coordinator_keeps_names_no_source_but_says_that_it_was_tuned() -> None:
    study = load_study(PRESET)
    kept = replace(study, tuned=TUNED).to_submit()
    assert kept["simulation"] == {"tuned": WRITTEN}
    assert study_from(kept).tuned == TUNED
    assert study_from(kept).simulation == ()
    assert study.to_submit() == study.to_dict()


def test_screen_report_card_and_metrics_of_a_tuned_study_say_that_no_epsilon_covers_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = load_study(PRESET)
    study = replace(study, tuned=TUNED, training=replace(study.training, rounds=2))
    (tmp_path / "study.yaml").write_text(dump_yaml(study.to_file()))
    done = ["simulate", str(tmp_path / "study.yaml"), "--no-baselines", "--out", str(tmp_path / "runs")]
    assert cli.main(done) == 0
    assert TunedOn.warning in capsys.readouterr().out
    run = tmp_path / "runs" / "latest"
    assert json.loads((run / "metrics.json").read_text())["tuned"] == WRITTEN
    for name in ("report.html", "model_card.md"):
        text = " ".join((run / name).read_text().lower().replace("&nbsp;", " ").split())
        assert TunedOn.warning in text
        assert "27 settings were tried on 3 splits, with 20 % of the training patients as judges" in text
        assert "test patients were not read for it." in text
    assert cli.main([*done, "--seed", "1"]) == 0
    assert "its test patients took part in that choice" in (run / "model_card.md").read_text()


@pytest.mark.parametrize(
    ("tuned", "place"),
    [
        ({"settings": 0, "seeds": 3, "validation": 0.2}, "simulation.tuned.settings"),
        ({"settings": 3, "seeds": 3, "validation": 1}, "simulation.tuned.validation"),
        ({"settings": 3}, "simulation.tuned.seeds"),
        ("yes", "simulation.tuned"),
    ],
)
def test_a_mistake_in_it_is_named(tuned: object, place: str) -> None:
    document = load_study(PRESET).to_file()
    document["simulation"]["tuned"] = tuned
    with pytest.raises(ConfigError, match=place):
        study_from(document)
