"""Two engines, one path: the same bits from every engine, on every run, and after a kill -9."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.journal import verify
from configs.load import load_study
from configs.strict_yaml import dump_yaml, read_yaml
from simulations import cli
from strategies.privacy.modes.local import plan_for

ROOT = Path(__file__).resolve().parents[2]
PRESET = ROOT / "configs" / "presets" / "heart_disease.yaml"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
ROUNDS = 200  # of a study that is killed after 20: several seconds are left for the kill


def command(*arguments: object) -> list[str]:
    """The command as a user runs it."""
    return [sys.executable, "-m", "simulations.cli", *map(str, arguments)]


def archipel(*arguments: object) -> None:
    """The command in a process of its own."""
    done = subprocess.run(command(*arguments), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def archipel_here(*arguments: object) -> None:
    """The command in this process, where runs before it have left what they leave."""
    assert cli.main([*map(str, arguments)]) == 0


def only_run(out: Path) -> Path:
    (run,) = [path for path in out.iterdir() if not path.is_symlink()]
    return run


def simulate(out: Path, *options: object, study: Path = PRESET, run: Callable[..., None] = archipel) -> Path:
    run("simulate", study, "--no-baselines", "--out", out, *options)
    return only_run(out)


def model(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def variant(folder: Path, **changes: object) -> Path:
    """The preset with other training or privacy settings."""
    document = read_yaml(PRESET)
    for section, values in changes.items():
        document[section] |= values
    for source in document["simulation"]["sites"].values():
        source["path"] = str((PRESET.parent / source["path"]).resolve())
    path = folder / "study.yaml"
    path.write_text(dump_yaml(document))
    return path


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("first"))


@pytest.mark.parametrize("run", [archipel, archipel_here])
def test_a_second_run_ends_with_the_same_bits(first: Path, tmp_path: Path, run: Callable[..., None]) -> None:
    assert model(simulate(tmp_path, run=run)) == model(first)


def test_another_seed_ends_with_other_bits(first: Path, tmp_path: Path) -> None:
    assert model(simulate(tmp_path, "--seed", 1, run=archipel_here)) != model(first)


def test_worker_processes_end_with_the_same_bits(first: Path, tmp_path: Path) -> None:
    assert model(simulate(tmp_path, "--workers", 2)) == model(first)


def test_ray_ends_with_the_same_bits(first: Path, tmp_path: Path) -> None:
    run = simulate(tmp_path, "--engine", "ray")
    assert model(run) == model(first)
    assert json.loads((run / "metrics.json").read_text())["engine"] == "ray"


def test_ray_and_this_process_agree_for_sampled_batches_and_an_adaptive_strategy(tmp_path: Path) -> None:
    study = variant(
        tmp_path,
        training={
            "rounds": 3,
            "strategy": {"name": "fedadam"},
            "local": {"epochs": 1, "batch_size": 16, "learning_rate": 0.5, "momentum": 0.5},
        },
    )
    here = simulate(tmp_path / "inprocess", "--engine", "inprocess", study=study, run=archipel_here)
    assert model(here) == model(simulate(tmp_path / "ray", "--engine", "ray", study=study))


@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm", "fedadam"])
def test_killed_between_two_rounds_and_resumed_it_ends_with_the_same_bits(strategy: str, tmp_path: Path) -> None:
    study = variant(tmp_path, training={"rounds": ROUNDS, "strategy": {"name": strategy}})
    undisturbed = simulate(tmp_path / "undisturbed", study=study, run=archipel_here)

    killed = command("simulate", study, "--no-baselines", "--out", tmp_path / "killed")
    process = subprocess.Popen(killed, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    rounds = kill_after(process, tmp_path / "killed", rounds=20)
    assert 20 <= rounds < ROUNDS, "the kill came too late to prove anything"

    run = only_run(tmp_path / "killed")
    archipel_here("simulate", "--resume", run, "--no-baselines")
    assert model(run) == model(undisturbed)
    metrics = [json.loads((r / "metrics.json").read_text()) for r in (run, undisturbed)]
    assert metrics[0]["outcome"] == "COMPLETE"
    assert [s["epsilon"] for s in metrics[0]["sites"]] == [s["epsilon"] for s in metrics[1]["sites"]]
    verify(run / "journal.jsonl")


def kill_after(process: "subprocess.Popen[bytes]", out: Path, rounds: int) -> int:
    """Send SIGKILL once so many rounds have a checkpoint; the number of rounds that the checkpoint then has."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for manifest in out.glob("*/checkpoints/manifest.json"):
            if json.loads(manifest.read_text())["round"] >= rounds:
                process.send_signal(signal.SIGKILL)
                process.wait()
                return int(json.loads(manifest.read_text())["round"])
        time.sleep(0.002)
    process.kill()
    pytest.fail("no checkpoint was seen before the study ended")


def test_a_run_leaves_what_is_promised(first: Path) -> None:
    names = {path.name for path in first.iterdir()}
    assert names == {
        *("study.yaml", "metrics.json", "model.safetensors", "model_card.md", "journal.jsonl"),
        *("checkpoints", "report.html", "sites", "tripod.md"),
    }
    assert (first.parent / "latest").resolve() == first.resolve()


def test_a_finished_run_resumed_does_not_train_again(first: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(first, copy)
    archipel_here("simulate", "--resume", copy, "--no-baselines")
    assert model(copy) == model(first)
    sites = [json.loads((run / "metrics.json").read_text())["sites"] for run in (copy, first)]
    assert [s["epsilon"] for s in sites[0]] == [s["epsilon"] for s in sites[1]]


def test_the_ledger_of_each_hospital_spent_what_was_asked_and_no_more(first: Path) -> None:
    study = load_study(PRESET)
    for site in json.loads((first / "metrics.json").read_text())["sites"]:
        plan = plan_for(study, site["site"])
        assert 2.99 < plan.epsilon() <= 3.0  # with every spare release
        assert site["epsilon"] == pytest.approx(plan.epsilon(study.training.rounds), abs=1e-3)  # none was lost
