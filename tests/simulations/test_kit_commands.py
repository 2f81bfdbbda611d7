"""A researcher's way with a kit: begin, build, complete a study, simulate it."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from client.timing import children_s, slots_for
from configs.errors import ConfigError, KitError
from configs.load import load_study
from simulations.cautions import slow_children
from simulations.cli import main
from simulations.complete import load_completed
from simulations.kits.project import build, example, read_project
from strategies.kits.shelf import SHELF, Shelf

PRESET = Path(__file__).resolve().parents[2] / "configs" / "presets" / "kit.yaml"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kits")
    assert main(["kit", "new", "retina", "--out", str(folder)]) == 0
    return folder / "retina"


@pytest.fixture(scope="module")
def done(home: Path) -> Path:
    """The new kit's study, completed."""
    assert main(["complete", str(home / "study.yaml"), "--kit", str(home), "--out", str(home / "done.yaml")]) == 0
    return home / "done.yaml"


@pytest.fixture(autouse=True)
def _no_kits() -> None:
    SHELF.clear()


def test_a_wheel_has_the_same_bits_under_any_umask(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = []
    for mask, clock in ((0o022, "0"), (0o077, "1700000000")):
        before = os.umask(mask)
        monkeypatch.setenv("SOURCE_DATE_EPOCH", clock)
        path, kit = build(home)
        os.umask(before)
        os.utime(home / "archipel_kit_retina.py", (int(clock), int(clock)))
        wheels.append((path.read_bytes(), kit.sha256))
        path.unlink()
    assert wheels[0] == wheels[1]


def test_a_kit_is_tested_on_made_up_patients(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kit", "test", str(home)]) == 0
    assert "model retina/small_unet: none of the checks (a) to (e) warns" in capsys.readouterr().out


def test_a_new_kits_study_is_completed_and_planned(home: Path, done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"model\.start: expected the file that a kit's model begins from"):
        load_study(home / "study.yaml")
    assert dict(load_study(done).arrays)["0.weight"] == (4, 2)
    assert main(["plan", str(done), "--kit", str(home)]) == 0
    shown = capsys.readouterr().out
    assert "each round: " in shown
    assert "kit_run: forked" not in shown


def test_a_plan_warns_of_a_kits_children_that_a_round_does_not_wait_for(done: Path) -> None:
    study = load_study(done)
    patients = study.announced_train_patients(study.sites[0]) or 0
    seconds = children_s(study, patients)
    assert seconds == slots_for(patients)  # one step, of slots of one second
    sizes = {study.sites[0]: patients, study.sites[1]: 1}
    wait = replace(study, training=replace(study.training, round_timeout_s=seconds))
    assert slow_children(wait, sizes) == ()
    hurry = replace(study, training=replace(study.training, round_timeout_s=seconds - 1))
    (warning,) = slow_children(hurry, sizes)
    assert f"takes {seconds:,.0f} s at {study.sites[0]}" in warning
    assert "training.round_timeout_s" in warning
    assert slow_children(replace(hurry, kit=None), sizes) == ()


def test_a_kits_study_is_tuned_with_the_kit_of_a_folder(home: Path, done: Path, tmp_path: Path) -> None:
    asked = ["--set", "training.local.learning_rate=1,2", "--set", "training.rounds=1", "--seeds", "1"]
    assert main(["tune", str(done), "--kit", str(home), *asked, "--out", str(tmp_path / "tuned.yaml")]) == 0
    study = load_study(tmp_path / "tuned.yaml")
    assert study.kit is not None
    there = Shelf()
    there.follow(pickle.loads(pickle.dumps(SHELF)))  # as another process gets it
    assert there.files(study.kit).sha256 == study.kit.sha256


def test_the_preset_of_a_kit_runs_with_the_example_that_is_in_every_installation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = load_completed(PRESET)
    assert study.kit is not None
    assert study.kit.sha256 == example("heart").sha256
    assert main(["simulate", str(PRESET), "--no-baselines", "--out", str(tmp_path)]) == 0
    metrics = json.loads((tmp_path / "latest" / "metrics.json").read_text())
    assert (metrics["outcome"], metrics["study_sha256"]) == ("COMPLETE", study.sha256)
    assert metrics["models"]["federated"]["metrics"]["auroc"]["value"] > 0.85
    assert "own" in (tmp_path / "latest" / "report.html").read_text()
    assert capsys.readouterr().err


def test_another_kit_than_the_studys_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = home / "archipel_kit_retina.py"
    before = source.read_text()
    source.write_text(before + "# changed\n")
    try:
        assert main(["simulate", str(home / "study.yaml"), "--kit", str(home)]) == 2
    finally:
        source.write_text(before)
    assert "kit retina: expected version 1.0.0 with the digest" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("SHAPE = (1, 64, 64)", "def broken(:", "archipel_kit_retina, line 14, fails: SyntaxError: invalid syntax"),
        ("import torch\n", "import no_such_library\n", "line 8, fails: ModuleNotFoundError: No module named 'no_such"),
    ],
)
def test_code_that_cannot_be_opened_is_told_by_its_line_and_leaves_no_wheel(
    before: str, after: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["kit", "new", "retina", "--out", str(tmp_path)]) == 0
    home = tmp_path / "retina"
    source = home / "archipel_kit_retina.py"
    source.write_text(source.read_text().replace(before, after))
    for command in ("test", "build"):
        assert main(["kit", command, str(home)]) == 2
        complaint = capsys.readouterr().err
        assert complaint.startswith("archipel: kit retina: ")
        assert sentence in complaint
    assert not (home / "dist").exists()


def test_a_model_that_cannot_be_built_is_told_by_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kit", "new", "retina", "--out", str(tmp_path)]) == 0
    home = tmp_path / "retina"
    source, study = home / "archipel_kit_retina.py", home / "study.yaml"
    sha256 = read_project(home).sha256
    source.write_text(
        source.read_text().replace("return nn.Sequential(nn.Linear(inputs", "1 / 0, nn.Sequential(nn.Linear(inputs")
    )
    study.write_text(study.read_text().replace(sha256, read_project(home).sha256))
    assert main(["complete", str(study), "--kit", str(home)]) == 2
    assert "line 50, fails: ZeroDivisionError: division by zero; mend it there" in capsys.readouterr().err


def test_a_library_that_a_reader_needs_is_required_by_its_project(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulations.kits.tested.results_of", lambda *_: {})
    assert main(["kit", "new", "retina", "--out", str(tmp_path)]) == 0
    source = tmp_path / "retina" / "archipel_kit_retina.py"
    source.write_text(source.read_text().replace("shape=SHAPE)", 'shape=SHAPE, needs=["numpy", "tifffile"])'))
    assert main(["kit", "test", str(tmp_path / "retina")]) == 1
    told = capsys.readouterr().out
    assert "reader retina/picture: warning: it needs tifffile, which pyproject.toml does not require: add it" in told


def test_a_project_that_breaks_a_rule_is_told(tmp_path: Path) -> None:
    assert main(["kit", "new", "odd", "--out", str(tmp_path)]) == 0
    project = tmp_path / "odd" / "pyproject.toml"
    text = project.read_text()
    for broken, sentence in (
        ('[project.scripts]\nx = "a:b"\n', "a kit installs no command"),
        ('[project.entry-points."pytest11"]\nx = "a:b"\n', "a kit installs no command"),
    ):
        project.write_text(text + broken)
        with pytest.raises(KitError, match=sentence):
            build(tmp_path / "odd")
    project.write_text(text.replace("dependencies = []", 'dependencies = ["x @ https://example.org/x.whl"]'))
    with pytest.raises(KitError, match="expected a requirement such as"):
        build(tmp_path / "odd")


def test_a_model_that_mixes_patients_is_built_and_completed_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["kit", "new", "mixed", "--out", str(tmp_path)])
    home = tmp_path / "mixed"
    source = home / "archipel_kit_mixed.py"
    faulty = source.read_text().replace("nn.Tanh()", "nn.BatchNorm1d(width, affine=False)")
    source.write_text(faulty[: faulty.index("small_unet = ")] + faulty[faulty.index("risk = ") :])
    project = home / "pyproject.toml"
    project.write_text(project.read_text().replace('small_unet = "archipel_kit_mixed:small_unet"\n', ""))
    assert main(["kit", "build", str(home)]) == 0
    out, err = capsys.readouterr()
    assert "warning: the probe says of model mixed/risk" in err
    study = home / "study.yaml"
    line = next(line for line in out.splitlines() if line.startswith("kit: "))
    study.write_text("\n".join(line if old.startswith("kit: ") else old for old in study.read_text().splitlines()))
    assert main(["complete", str(study), "--kit", str(home)]) == 0
    assert "warning: the probe says of model mixed/risk" in capsys.readouterr().err
