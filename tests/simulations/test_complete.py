"""`training: auto`: what is left open is completed from public facts, the same way each time, and nowhere else."""

import json
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.load import load_study, study_from
from configs.strict_yaml import dump_yaml, read_yaml
from simulations.cli import main
from simulations.complete import completed
from simulations.tuning import command
from simulations.tuning.tune import Tuning
from strategies.learning import learning_of

BLOCK = """\
# Our study.
name: lungs   # short
purpose: Show what completing does
task: {type: binary, target: ill, outcome_share: 0.3, outcome_share_source: literature}
patient_id: null
features:
  age: {type: number, range: [20, 90]}
  sex: {type: category, values: [female, male]}
cohort: {lille: 300, lyon: 120}
model: {name: logistic}  # as ever
# What we promise.
privacy:
  mode: local
  epsilon: 3.0   # per patient
  delta: 1.0e-5
evaluation: {test_fraction: 0.25}
simulation:
  sites:
    lille: {connector: csv, path: data/lille.csv}
    lyon: {connector: csv, path: data/lyon.csv}
"""
ONE_LINE = BLOCK.replace(
    "privacy:\n  mode: local\n  epsilon: 3.0   # per patient\n  delta: 1.0e-5\n",
    "training: auto   # an expert is not at hand\nprivacy: {mode: local, epsilon: 3.0, delta: 1.0e-5}  # ours\n",
)


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(text)
        return path

    return write


def test_the_word_and_its_absence_mean_the_same_study(written: Any) -> None:
    absent = completed(written(BLOCK)).study
    assert completed(written(ONE_LINE)).study.sha256 == absent.sha256
    assert not absent.is_unfinished
    assert absent.privacy.clip_norm > 0
    assert absent.model.init == "share"


@pytest.mark.parametrize("text", [BLOCK, ONE_LINE])
def test_the_finished_file_keeps_its_comments_and_is_what_a_command_completes_in_memory(
    text: str, written: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(text)
    in_memory = completed(path).study
    assert main(["complete", str(path)]) == 0
    assert in_memory.sha256 in capsys.readouterr().out
    finished = path.read_text()
    assert load_study(path).sha256 == in_memory.sha256
    for comment in ("# Our study.", "# short", "# as ever", "# What we promise."):
        assert comment in finished
    lines = finished.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("training:"))
    end = next(i for i in range(begin + 1, len(lines)) if not lines[i].startswith(" "))
    assert all("  # " in line for line in lines[begin:end])  # each with its reason
    assert "clip_norm" in finished


def test_completing_a_finished_file_changes_no_byte(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(BLOCK)
    main(["complete", str(path)])
    once, stamp = path.read_bytes(), path.stat().st_mtime_ns
    assert main(["complete", str(path)]) == 0
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (once, stamp)
    assert "nothing was changed" in capsys.readouterr().out
    assert main(["complete", str(path), "--out", str(path.with_name("same.yaml"))]) == 0
    assert path.with_name("same.yaml").read_bytes() == once


def test_a_file_in_another_folder_names_the_same_data(written: Any, tmp_path: Path) -> None:
    path, out = written(BLOCK), tmp_path / "elsewhere" / "finished.yaml"
    out.parent.mkdir()
    assert main(["complete", str(path), "--out", str(out)]) == 0
    path = dict(load_study(out).simulation)["lille"].path
    assert path is not None
    assert path.resolve() == (tmp_path / "data" / "lille.csv").resolve()
    assert "# short" in out.read_text()


def test_a_file_of_an_unusual_form_is_written_anew(written: Any) -> None:
    document = read_yaml(written(BLOCK))
    path = written(json.dumps(document))  # YAML all the same, on one line
    expected = completed(path).study.sha256
    assert main(["complete", str(path)]) == 0
    assert load_study(path).sha256 == expected


def test_what_the_file_says_itself_is_kept(written: Any) -> None:
    text = BLOCK.replace("{name: logistic}", "{name: logistic, init: zeros}") + "training: auto\n"
    own = completed(written(text.replace("mode: local\n", "mode: local\n  clip_norm: 0.7\n"))).study
    assert (own.privacy.clip_norm, own.model.init) == (0.7, "zeros")
    assert own.training.rounds > 1


def test_nothing_but_public_facts_of_the_study_decides(written: Any) -> None:
    first = completed(written(BLOCK)).study
    other = completed(written(BLOCK.replace("name: lungs", "name: hearts").replace("data/", "other/"))).study
    assert (first.training, first.privacy) == (other.training, other.privacy)


def test_no_one_but_completing_reads_an_unfinished_study(written: Any) -> None:
    path = written(ONE_LINE)
    with pytest.raises(ConfigError, match=rf"training: expected settings .*found 'auto'.*archipel complete {path}"):
        load_study(path)
    with pytest.raises(ConfigError, match="archipel complete STUDY"):  # as a hospital reads what is proposed
        study_from(read_yaml(path), source="proposal")


@pytest.mark.parametrize("section", ["fast", "privacy: {}"])
def test_a_training_that_is_neither_auto_nor_a_section_is_refused(section: str, written: Any) -> None:
    with pytest.raises(ConfigError, match="training: expected a mapping with strategy, rounds, local, or auto, found"):
        completed(written(BLOCK + f"training: [{section}]\n"))


def test_an_explicit_training_needs_its_clip_norm(written: Any) -> None:
    training = "{strategy: {name: fedavg}, rounds: 3, local: {batch_size: full, learning_rate: 1}}"
    with pytest.raises(ConfigError, match=r"privacy.clip_norm: expected a number from 1e-6 to 1e6, found nothing; add"):
        completed(written(BLOCK + f"training: {training}\n"))


@pytest.mark.parametrize("share", ["0", "1", "1.5", "-0.1", "thirty", ".nan"])
def test_a_share_of_no_patients_or_of_all_is_refused(share: str, written: Any) -> None:
    with pytest.raises(ConfigError, match=r"task.outcome_share: expected a share of patients above 0 and below 1"):
        completed(written(BLOCK.replace("outcome_share: 0.3", f"outcome_share: {share}")))


def test_a_source_is_one_of_two_and_needs_a_share(written: Any) -> None:
    with pytest.raises(ConfigError, match="outcome_share_source: expected literature, or statistics:DIGEST"):
        completed(written(BLOCK.replace("source: literature", "source: my patients")))
    with pytest.raises(ConfigError, match="outcome_share_source: expected nothing without an outcome_share"):
        completed(written(BLOCK.replace("outcome_share: 0.3, ", "")))
    digest = "statistics:" + "0f" * 32
    study = completed(written(BLOCK.replace("source: literature", f"source: {digest}"))).study
    assert study.task.outcome_share_source == digest


def test_a_study_without_privacy_is_completed_without_a_clip_norm(written: Any) -> None:
    text = BLOCK.replace("mode: local\n  epsilon: 3.0   # per patient\n  delta: 1.0e-5", "mode: none")
    assert completed(written(text)).study.privacy.to_dict() == {"mode": "none"}


def test_everybody_begins_at_the_announced_share(written: Any) -> None:
    study = completed(written(BLOCK)).study
    learning = learning_of(study)
    model = learning.initial(study.seed)
    assert not model["0.weight"].any()
    chance = learning.objective.predict(model["0.bias"][None].astype(float))[0, 1]
    assert chance == pytest.approx(0.3, abs=1e-6)


def test_a_network_begins_at_the_share_with_hidden_layers_that_can_learn(written: Any) -> None:
    study = completed(written(BLOCK.replace("{name: logistic}", "{name: mlp, hidden: [4]}"))).study
    model = learning_of(study).initial(study.seed)
    assert model["0.weight"].any()
    assert not model["2.weight"].any()


def test_share_without_a_share_is_refused(written: Any) -> None:
    text = BLOCK.replace(", outcome_share: 0.3, outcome_share_source: literature", "")
    with pytest.raises(ConfigError, match=r"model.init: expected zeros or random without task.outcome_share"):
        completed(written(text.replace("{name: logistic}", "{name: logistic, init: share}")))
    assert completed(written(text)).study.model.init == "zeros"


def test_a_share_that_is_not_announced_changes_no_digest(written: Any) -> None:
    study = completed(written(BLOCK.replace(", outcome_share: 0.3, outcome_share_source: literature", ""))).study
    assert "outcome_share" not in study.canonical


def test_plan_says_in_one_line_what_it_completed(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(written(BLOCK)), "--json"]) == 0
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert "training: auto is " in printed.err
    assert json.loads(printed.out)


def test_a_finished_study_is_read_as_it_was_written_anew(written: Any) -> None:
    study = completed(written(BLOCK)).study
    assert study_from(json.loads(study.canonical)).sha256 == study.sha256
    assert load_study(written(dump_yaml(study.to_file()))).sha256 == study.sha256


def test_a_search_for_better_settings_begins_at_those_that_were_completed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    preset, searches = Path(__file__).parents[2] / "configs" / "presets" / "heart_auto.yaml", []

    def noted(tuning: Tuning, _arguments: Any) -> int:
        searches.append(tuning.study)
        return 0

    monkeypatch.setattr(command, "_carry_out", noted)
    assert main(["tune", str(preset), "--out", str(tmp_path / "tuned.yaml")]) == 0
    assert [study.sha256 for study in searches] == [completed(preset).study.sha256]
