"""Bad input as its user meets it: exit code 2, one screen, no traceback, no patient's value, nothing half-written."""

import json
import os
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from configs.load import load_study
from configs.strict_yaml import dump_yaml, read_yaml
from simulations import cli
from simulations.hospitals import load_all

ROOT = Path(__file__).resolve().parents[2]
PRESET = ROOT / "configs" / "presets" / "heart_disease.yaml"
MARKER = "Durand-1937"


class Done(NamedTuple):
    """What a command left to its user."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Done]


def in_a_process(*arguments: object, before: Callable[[], None] | None = None, python: tuple[str, ...] = ()) -> Done:
    """A command in a process of its own, for what only a process has: its memory, its limits, what it imports."""
    command = [sys.executable, *python, "-m", "simulations.cli", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, preexec_fn=before, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def archipel(capsys: pytest.CaptureFixture[str]) -> Command:
    """A command in this process, which has imported what takes most of a short command's time."""

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        return Done(cli.main([*map(str, arguments)]), *capsys.readouterr())

    return run


@pytest.fixture
def refused(archipel: Command) -> Callable[..., str]:
    """What a command tells that refuses."""
    return lambda *arguments: told(archipel(*arguments))


def told(done: Done) -> str:
    """What is told when a command refuses, after checking how it is told."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert MARKER not in done.stdout + done.stderr
    assert len(done.stderr.splitlines()) <= 25
    return done.stderr


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The preset with copies of its data, to be spoilt."""
    document = read_yaml(PRESET)
    for site, source in document["simulation"]["sites"].items():
        shutil.copy(PRESET.parent / source["path"], tmp_path / f"{site}.csv")
        source["path"] = f"{site}.csv"
    path = tmp_path / "study.yaml"
    path.write_text(dump_yaml(document))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, not to be changed."""
    out = tmp_path_factory.mktemp("runs")
    assert cli.main(["simulate", str(PRESET), "--no-baselines", "--out", str(out)]) == 0
    return (out / "latest").resolve()


def test_a_study_that_does_not_exist_is_told() -> None:
    assert "cannot be read: No such file" in told(in_a_process("simulate", "nowhere.yaml"))


def test_a_mistyped_study_is_told_by_every_command(study: Path, refused: Callable[..., str]) -> None:
    study.write_text(study.read_text().replace("epsilon:", "epsilom:"))
    for command in ("simulate", "plan"):
        assert "privacy.epsilom: unknown key; did you mean 'epsilon'?" in refused(command, study)


HOPELESS: dict[str, tuple[str, str, str]] = {  # what is written, what in its place, what is told
    "no noise": (
        "clip_norm: 0.35",
        "clip_norm: 0.35\n  sigma: 0",
        "privacy.sigma: unknown key; the noise follows from",
    ),
    "no clip": ("clip_norm: 0.35", "clip_norm: 0", "privacy.clip_norm: expected a number from 1e-6 to 1e6"),
    "a rate over 1": ("batch_size: full", "batch_size: 1000", "at most the 30 training patients that switzerland"),
    "a rate in words": ("batch_size: full", "sampling_rate: 1.5", "sampling_rate: unknown key; the rate is batch_size"),
    "a delta of nothing": ("delta: 1.0e-05", "delta: 1.0e-15", "privacy.delta: expected 1e-12 <= delta < 1/patients"),
    "a delta of a patient": ("delta: 1.0e-05", "delta: 0.005", "privacy.delta: expected 1e-12 <= delta < 1/patients"),
    "too little epsilon": ("epsilon: 3.0", "epsilon: 0.001", "privacy.epsilon: expected 0.01 to 100, per patient"),
    "too much epsilon": ("epsilon: 3.0", "epsilon: 500", "privacy.epsilon: expected 0.01 to 100, per patient"),
}


@pytest.mark.parametrize(("written", "instead", "said"), HOPELESS.values(), ids=HOPELESS)
def test_a_guarantee_that_cannot_be_is_told_by_its_place(
    study: Path, refused: Callable[..., str], written: str, instead: str, said: str
) -> None:
    text = study.read_text()
    assert written in text
    study.write_text(text.replace(written, instead))
    assert said in refused("plan", study)


def test_spoilt_headers_are_told_for_every_hospital_and_no_run_begins(
    study: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    for site in ("cleveland", "hungary"):
        path = tmp_path / f"{site}.csv"
        path.write_text(path.read_text().replace("chol,", "choles,", 1))
    text = refused("simulate", study, "--out", tmp_path / "runs")
    assert "cleveland.csv" in text
    assert "hungary.csv" in text
    assert not (tmp_path / "runs").exists()


def test_odd_rows_are_told_for_every_hospital_by_their_lines_and_the_run_goes_on(study: Path, tmp_path: Path) -> None:
    for site in ("cleveland", "hungary"):
        path = tmp_path / f"{site}.csv"
        path.write_text(path.read_text().replace(",asymptomatic,", f",{MARKER},", 1))
    done = in_a_process("simulate", study, "--no-baselines", "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    for site in ("cleveland", "hungary"):
        assert re.search(
            rf"^{site}: cp: 1 of \d+ rows is no value that the study lists \(line \d+\)$", done.stderr, re.M
        )
    assert MARKER not in done.stdout + done.stderr


def test_patients_who_are_at_two_hospitals_are_counted_by_their_ids(study: Path, tmp_path: Path) -> None:
    study.write_text(study.read_text().replace("patient_id: null", "patient_id: pid"))
    for first, site in ((0, "cleveland"), (290, "hungary"), (2000, "switzerland"), (3000, "long_beach_va")):
        head, *rows = (tmp_path / f"{site}.csv").read_text().splitlines()
        ids = [f"{'0' if site == 'hungary' else ''}{first + n}" for n in range(len(rows))]
        lines = [f"pid,{head}", *(f"{one},{row}" for one, row in zip(ids, rows, strict=True))]
        (tmp_path / f"{site}.csv").write_text("\n".join(lines) + "\n")
    oddities = {site: people.oddities for site, people in load_all(load_study(study)).items()}
    shared = {site: [text for text in texts if "patient ids are at" in text] for site, texts in oddities.items()}
    assert {site: len(texts) for site, texts in shared.items() if texts} == {"cleveland": 1}
    assert shared["cleveland"][0].startswith("13 patient ids are at hungary too")


def test_a_private_study_that_announces_nobody_is_told_before_any_run(
    study: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    text = study.read_text().replace("batch_size: full", "batch_size: 32")
    study.write_text(
        text[: text.index("cohort:")] + text[text.index("scaling:") if "scaling:" in text else text.index("model:") :]
    )
    study.write_text(study.read_text().replace("weights: public", "weights: uniform"))
    text = refused("simulate", study, "--out", tmp_path / "runs")
    assert "cohort: expected each hospital's announced patients, found nothing" in text
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("epsilon", ["0.01", "100"])
def test_the_smallest_and_the_largest_epsilon_are_planned_in_bounded_memory(study: Path, epsilon: str) -> None:
    text = study.read_text().replace("epsilon: 3.0", f"epsilon: {epsilon}")
    study.write_text(text.replace("batch_size: full", "batch_size: 16"))
    done = in_a_process("plan", study)
    assert done.returncode == 0, done.stderr
    assert f"guarantee: epsilon {epsilon} at delta 1e-05" in done.stdout
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 2_000_000  # kB, of the largest child so far


def test_a_patient_with_ten_thousand_rows_is_one_patient(study: Path, tmp_path: Path, archipel: Command) -> None:
    study.write_text(study.read_text().replace("patient_id: null", "patient_id: pid"))
    for path in tmp_path.glob("*.csv"):
        head, *rows = path.read_text().splitlines()
        many = [9_999 if path.stem == "cleveland" and number == 0 else 0 for number in range(len(rows))]
        lines = [f"p{n},{row}" for n, row in enumerate(rows) for _ in range(1 + many[n])]
        path.write_text("\n".join([f"pid,{head}", *lines]) + "\n")
    done = archipel("simulate", study, "--no-baselines", "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((tmp_path / "runs/latest/metrics.json").read_text())
    cleveland = next(site for site in metrics["sites"] if site["site"] == "cleveland")
    assert cleveland["patients_train"] + cleveland["patients_test"] == 303
    assert 2.8 < cleveland["epsilon"] < 3.0  # what the study's spare releases would cost is not spent


def test_of_gradients_that_are_not_finite_nothing_is_released_and_what_was_reserved_stays_spent(
    study: Path, tmp_path: Path
) -> None:
    text = study.read_text().replace("  local:\n", "  local:\n    steps: 30\n    weight_decay: 10.0\n")
    study.write_text(text.replace("    epochs: 1\n", "").replace("learning_rate: 2.0", "learning_rate: 1000.0"))
    done = in_a_process("simulate", study, "--no-baselines", "--out", tmp_path / "runs")
    assert done.returncode == 1, done.stderr
    assert (
        "training diverged to values that are not finite, nothing is sent; lower the study's learning_rate"
        in done.stderr
    )
    (round_,) = json.loads((tmp_path / "runs/latest/metrics.json").read_text())["rounds"]
    assert round_["contributed"] == {}
    ledgers = list((tmp_path / "runs/latest/sites").glob("*/ledger.sqlite"))
    assert len(ledgers) == 4
    for path in ledgers:
        rows = sqlite3.connect(path).execute("SELECT round, attempt, state FROM releases ORDER BY id").fetchall()
        assert rows == [(1, attempt, "reserved") for attempt in range(3)]  # it was made anew twice, and spent each time


def test_a_folder_that_is_no_run_is_told(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "expected a run's folder with study.yaml" in refused("simulate", "--resume", tmp_path)
    for command in ("report", "compare"):
        assert "metrics.json" in refused(command, tmp_path)


def test_a_seed_cannot_be_given_to_a_resumed_run(run: Path, refused: Callable[..., str]) -> None:
    assert "--seed, --seeds: expected none with --resume" in refused("simulate", "--resume", run, "--seed", 1)


SPOILT: dict[str, Callable[[Path], object]] = {
    "truncated tensors": lambda folder: truncate(newest(folder)),
    "a changed byte": lambda folder: flip(newest(folder)),
    "missing tensors": lambda folder: newest(folder).unlink(),
    "truncated manifest": lambda folder: truncate(folder / "manifest.json"),
    "another study": lambda folder: rewrite(folder / "manifest.json", study_sha256="0" * 64),
    "garbage": lambda folder: (folder / "manifest.json").write_bytes(b"\x00\xff"),
}


def newest(folder: Path) -> Path:
    return max(folder.glob("*.safetensors"))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
def test_an_unreadable_checkpoint_is_told_and_the_run_is_left_as_it_was(
    spoil: Callable[[Path], object], run: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    spoil(copy / "checkpoints")
    metrics = (copy / "metrics.json").read_bytes()
    assert "checkpoints" in refused("simulate", "--resume", copy)
    assert (copy / "metrics.json").read_bytes() == metrics


def test_a_changed_journal_is_told(run: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    journal = copy / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"round":2,', '"round":3,', 1))
    assert "the record was changed" in refused("simulate", "--resume", copy)


def small_disk() -> None:
    """Files of more than a few kilobytes cannot be written: what a full disk does to a writer."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, 6_000))


def test_a_full_disk_leaves_every_file_whole_or_absent_and_the_run_can_go_on(tmp_path: Path, archipel: Command) -> None:
    text = told(in_a_process("simulate", PRESET, "--no-baselines", "--out", tmp_path, before=small_disk))
    assert "File too large" in text or "ledger" in text
    (run,) = [path for path in tmp_path.iterdir() if not path.is_symlink()]
    assert not list(run.rglob("*.part"))
    assert not (run / "metrics.json").exists()
    assert archipel("simulate", "--resume", run, "--no-baselines").returncode == 0
    assert json.loads((run / "metrics.json").read_text())["outcome"] == "COMPLETE"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "file").write_text("")
    assert "Not a directory" in refused("simulate", PRESET, "--out", tmp_path / "file" / "runs")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for there in ("file", "link"):
        said = refused("simulate", PRESET, "--out", tmp_path / there)
        assert f"{tmp_path / there}: expected a folder for runs, found a file or a broken link; give another" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("simulate", PRESET, "--seed", "abc"), "--seed: expected an integer from 0 to 4294967295, found 'abc'"),
        (("simulate", PRESET, "--seed", "-1"), "--seed: expected an integer from 0 to 4294967295, found '-1'"),
        (("simulate", PRESET, "--workers", "x"), "--workers: expected an integer from 1 to 1024, found 'x'"),
        (("simulate", PRESET, "--workers", "0"), "--workers: expected an integer from 1 to 1024, found '0'"),
        (("audit", PRESET, "--seed", "1.5"), "--seed: expected an integer from 0 to 4294967295, found '1.5'"),
    ],
)
def test_an_option_that_is_no_number_is_told_with_what_it_may_be(
    words: tuple[object, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([*map(str, words)])
    assert stopped.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("command", ["", "simulate", "plan", "compare", "report"])
def test_help_answers_without_importing_anything_heavy(command: str) -> None:
    done = in_a_process(*command.split(), "--help", python=("-X", "importtime"))
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "numpy", "flwr", "rich", "opacus", "yaml"}


def test_a_plan_of_statistics_is_told_without_importing_what_trains() -> None:
    done = in_a_process("plan", str(PRESET.with_name("heart_statistics.yaml")), python=("-X", "importtime"))
    assert (done.returncode, "guarantee: epsilon" in done.stdout) == (0, True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "flwr", "opacus", "scipy"}
