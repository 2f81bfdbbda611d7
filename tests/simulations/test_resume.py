"""A run that goes on after interruptions: the curve, the times and the ledgers of all its legs."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from configs.commands import INTERRUPTED
from configs.errors import RunError
from configs.journal import Record
from configs.load import load_study
from configs.records.result import Point
from configs.strict_yaml import dump_yaml, read_yaml
from server.checkpoint import Checkpoint
from simulations import baselines, cli
from simulations import curve as curve_module
from simulations import run as under_test
from simulations.curve import Curve
from simulations.display import Options
from simulations.resume import Earlier
from simulations.run import resume, simulate

ROOT = Path(__file__).resolve().parents[2]
PRESET = ROOT / "configs" / "presets" / "heart_disease.yaml"
ROUNDS = 125  # a point of the curve after every second round, and one after the last
OPTIONS = Options(baselines=False)


class StoppedError(Exception):
    """The end of the researcher's process."""


class Stopping:
    """A display that ends the process after so many steps."""

    def __init__(self, after: int = 10**9) -> None:
        self.left = after

    @contextmanager
    def phase(self, title: str, total: int) -> Iterator["Stopping"]:
        yield self

    def advance(self, note: str = "") -> None:
        self.left -= 1
        if not self.left:
            raise StoppedError


def written(folder: Path, **changes: Any) -> Path:
    """The preset with other sections, its data found from anywhere."""
    document = read_yaml(PRESET)
    document["privacy"]["spare"] = 0  # so that the rounds cost all of epsilon
    for source in document["simulation"]["sites"].values():
        source["path"] = str((PRESET.parent / source["path"]).resolve())
    for section, values in changes.items():
        document[section] |= values
    path = folder / "study.yaml"
    path.write_text(dump_yaml(document))
    return path


def begun(out: Path, study: Path, rounds: int) -> Path:
    """A run that was stopped after so many rounds."""
    with pytest.raises(StoppedError):
        simulate(load_study(study), out, OPTIONS, Stopping(rounds))
    return (out / "latest").resolve()


def metrics_of(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "metrics.json").read_text()))


def contents(run: Path) -> dict[str, bytes]:
    """Every file but the ledgers, which SQLite writes anew when it reads them."""
    files = [path for path in run.rglob("*") if path.is_file() and "sites" not in path.parts]
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, not to be changed."""
    out = tmp_path_factory.mktemp("runs")
    assert cli.main(["simulate", str(written(out)), "--no-baselines", "--out", str(out / "runs")]) == 0
    return (out / "runs" / "latest").resolve()


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


# The curve and the times


def test_a_run_interrupted_twice_has_the_curve_of_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = written(tmp_path, training={"rounds": ROUNDS})
    whole = metrics_of(simulate(load_study(study), tmp_path / "whole", OPTIONS, Stopping()))
    run = begun(tmp_path / "stopped", study, 31)

    def stop(*_: object) -> float:
        raise StoppedError

    with monkeypatch.context() as patch:  # after the checkpoint of round 32, before its point
        patch.setattr(curve_module, "curve_value", stop)
        with pytest.raises(StoppedError):
            resume(run, OPTIONS, Stopping())
    assert resume(run, OPTIONS, Stopping())
    found = metrics_of(run)
    assert found["convergence"] == whole["convergence"]
    assert len(found["convergence"]["federated"]) == ROUNDS // 2 + 1
    assert found["model_sha256"] == whole["model_sha256"]
    assert found["started"] == Earlier.of(run).times(datetime.now(UTC), 0.0)["started"]


def test_a_round_that_did_not_count_leaves_no_point_to_the_run_that_goes_on(tmp_path: Path) -> None:
    curve = Curve.__new__(Curve)
    curve.points, curve.earlier, curve.every, curve.journal = [], {1: 0.5, 2: 0.6, 3: 0.7}, 1, None
    curve.go_on(Checkpoint(2, {}, {}, {}))
    assert curve.points == [Point(1, 0.5), Point(2, 0.6)]


def test_the_seconds_of_all_legs_are_added_and_the_time_between_them_is_not() -> None:
    written = [("begin", "10:00:00"), ("round", "10:00:07"), ("begin", "12:00:00"), ("round", "12:00:01")]
    records = [Record(n, f"2026-01-01T{time}+00:00", kind, {}, "", "") for n, (kind, time) in enumerate(written, 1)]
    earlier = Earlier(tuple(records))
    assert earlier.seconds == 8.0
    assert earlier.times(datetime.now(UTC), 2.5) == {"seconds": 10.5, "started": "2026-01-01T10:00:00+00:00"}


# A run that is complete


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_run_begun_under_another_arithmetic_does_not_go_on(
    tmp_path: Path, rounds: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as earlier:
        for module in ("server.run", "server.checkpoint", "client.site"):
            earlier.setattr(f"{module}.ARITHMETIC", 1)
        run = begun(tmp_path / "runs", written(tmp_path), rounds)
    before = contents(run)
    assert cli.main(["simulate", "--resume", str(run)]) == 2
    said = capsys.readouterr().err
    assert "expected a run of arithmetic 2, found one begun with arithmetic 1" in said
    assert "finish the run with the release that began it, or start a new run" in said
    assert contents(run) == before


def test_the_figures_name_the_arithmetic(run: Path) -> None:
    assert metrics_of(run)["arithmetic"] == 2


def test_a_complete_run_is_left_as_it_is(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(run)
    assert cli.main(["simulate", "--resume", str(run)]) == 0
    assert contents(run) == before
    said = capsys.readouterr().out
    assert f"{run}: complete already, nothing was done again" in said
    assert "COMPLETE after 20 rounds" in said


def test_of_a_complete_run_only_a_paper_that_is_gone_is_written_again(run: Path) -> None:
    before = contents(run)
    (run / "report.html").unlink()
    assert cli.main(["simulate", "--resume", str(run)]) == 0
    assert contents(run) == before


@pytest.mark.parametrize("name", ["metrics.json", "model.safetensors"])
def test_a_complete_run_that_lacks_a_file_has_it_again_with_its_curve(run: Path, name: str) -> None:
    before, model = metrics_of(run), (run / "model.safetensors").read_bytes()
    (run / name).unlink()
    assert cli.main(["simulate", "--resume", str(run), "--no-baselines"]) == 0
    after = metrics_of(run)
    assert after["convergence"] == before["convergence"]
    assert after["seconds"] > before["seconds"]
    assert (run / "model.safetensors").read_bytes() == model


# The ledgers


def without_sites(run: Path) -> None:
    shutil.rmtree(run / "sites")


def with_an_empty_ledger(run: Path) -> None:
    for path in (run / "sites" / "hungary").iterdir():
        path.unlink()
    sqlite3.connect(run / "sites" / "hungary" / "ledger.sqlite").close()


def sql(statement: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        with sqlite3.connect(run / "sites/hungary/ledger.sqlite") as connection:
            connection.execute(statement)
        connection.close()

    return change


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (without_sites, "found no ledger"),
        (with_an_empty_ledger, "found epsilon 0.00"),
        (sql("DELETE FROM releases WHERE round = 5"), "found epsilon 2.9"),
        (sql("UPDATE releases SET noise_multiplier = 2 * noise_multiplier"), "found epsilon 1."),
    ],
    ids=["no folder", "empty", "a round gone", "more noise"],
)
@pytest.mark.parametrize("complete", [True, False], ids=["complete", "interrupted"])
def test_a_run_whose_ledgers_hold_less_than_what_left_does_not_go_on(
    run: Path, change: Callable[[Path], None], found: str, complete: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    change(run)
    if not complete:
        (run / "metrics.json").unlink()
    before = contents(run)
    assert cli.main(["simulate", "--resume", str(run)]) == 2
    said = capsys.readouterr().err
    assert f"sites/hungary/ledger.sqlite: expected epsilon 3.00 booked, {found}" in said
    assert "restore the run's folder sites/ from a backup, or start a new run" in said
    assert contents(run) == before


def test_a_run_that_lost_its_journal_too_is_held_against_its_checkpoint(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without_sites(run)
    (run / "journal.jsonl").unlink()
    assert cli.main(["simulate", "--resume", str(run)]) == 2
    assert capsys.readouterr().err.count("expected epsilon 3.00 booked, found no ledger") == 4


def test_the_evaluation_that_left_must_be_booked_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = read_yaml(written(tmp_path))
    document["training"]["rounds"] = 3
    document["evaluation"]["release"] = {"epsilon": 1.0, "bins": 6}
    study = tmp_path / "asking.yaml"
    study.write_text(dump_yaml(document))
    assert cli.main(["simulate", str(study), "--no-baselines", "--out", str(tmp_path / "runs")]) == 0
    run = (tmp_path / "runs" / "latest").resolve()
    assert cli.main(["simulate", "--resume", str(run)]) == 0
    sql("DELETE FROM releases WHERE round = 0")(run)
    capsys.readouterr()
    assert cli.main(["simulate", "--resume", str(run)]) == 2
    assert "expected epsilon 3.23 booked, found epsilon 3.00" in capsys.readouterr().err


def test_statistics_whose_ledgers_are_gone_are_not_released_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = ROOT / "configs" / "presets" / "heart_statistics.yaml"
    assert cli.main(["simulate", str(preset), "--out", str(tmp_path)]) == 0
    run = (tmp_path / "latest").resolve()
    assert cli.main(["simulate", "--resume", str(run)]) == 0
    assert "complete already" in capsys.readouterr().out
    without_sites(run)
    assert cli.main(["simulate", "--resume", str(run)]) == 2
    assert "expected epsilon 0.27 booked, found no ledger" in capsys.readouterr().err


# Ctrl-C


def interrupt(*_: object, **__: object) -> Any:
    raise KeyboardInterrupt


def test_an_interrupted_run_says_how_it_goes_on_by_its_own_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "two words"
    monkeypatch.setattr(curve_module, "curve_value", interrupt)
    assert cli.main(["simulate", str(PRESET), "--no-baselines", "--out", str(out)]) == INTERRUPTED
    run = (out / "latest").resolve()
    hint = f"interrupted; go on with: archipel simulate --resume '{run}'"
    assert hint in capsys.readouterr().err
    assert cli.main(["simulate", "--resume", str(run), "--no-baselines"]) == INTERRUPTED
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "stopped"),
    [
        (["plan", str(PRESET)], "simulations.planning.plan_study"),
        (["audit", str(PRESET)], "simulations.audit.auditor.load_all"),
        (["simulate", str(PRESET)], "simulations.run.load_all"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_interrupted_before_a_run_has_begun_names_none(
    words: list[str],
    stopped: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import simulations.audit.show
    import simulations.planning  # noqa: F401 - before its parts are replaced

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stopped, interrupt)
    assert cli.main(words) == INTERRUPTED
    assert capsys.readouterr().err == "\narchipel: interrupted\n"
    assert not list(tmp_path.iterdir())


# Figures that could not be made


def failing(
    monkeypatch: pytest.MonkeyPatch, name: str, error: type[BaseException], module: object = under_test
) -> None:
    """Let one of the run's steps fail."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(module, name, fail)


@pytest.mark.parametrize("step", ["score", "baselines"])
@pytest.mark.parametrize("error", [MemoryError, StoppedError])
def test_a_run_whose_figures_fail_has_its_model_and_its_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: type[BaseException]
) -> None:
    study = written(tmp_path, training={"rounds": 2})
    whole = simulate(load_study(study), tmp_path / "whole", Options(), Stopping())
    with monkeypatch.context() as patch:
        failing(patch, step, error)
        expected = RunError if error is MemoryError else error
        with pytest.raises(expected, match=r"memory does not suffice.*the model and the rounds are there|^$"):
            simulate(load_study(study), tmp_path / "stopped", Options(), Stopping())
    run = (tmp_path / "stopped" / "latest").resolve()
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    found, expected_metrics = metrics_of(run), metrics_of(whole)
    assert found["rounds_completed"] == 2
    assert [site["epsilon"] for site in found["sites"]] == [site["epsilon"] for site in expected_metrics["sites"]]
    assert set(found["models"].values()) == {None}
    assert cli.main(["report", str(run)]) == 0
    assert "How good it is was not measured yet" in (run / "model_card.md").read_text()
    assert resume(run, Options(), Stopping())
    found = metrics_of(run)
    for key in ("models", "convergence", "model_sha256", "rounds_completed"):
        assert found[key] == expected_metrics[key], key
    assert sorted(p.name for p in run.iterdir()) == sorted(p.name for p in whole.iterdir())


def test_a_run_that_goes_on_after_its_figures_failed_trains_nothing_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = written(tmp_path, training={"rounds": 2})
    with monkeypatch.context() as patch:
        failing(patch, "score", MemoryError)
        with pytest.raises(RunError):
            simulate(load_study(study), tmp_path / "stopped", Options(), Stopping())
    run = (tmp_path / "stopped" / "latest").resolve()
    with monkeypatch.context() as patch:
        failing(patch, "_train_plainly", AssertionError, baselines)
        failing(patch, "_converged", AssertionError, baselines)
        assert resume(run, Options(), Stopping())
    assert all(metrics_of(run)["models"].values())


@pytest.mark.parametrize("spoilt", ["local_only.json", "pooled.safetensors", "federated_without_privacy.json"])
def test_a_kept_baseline_that_is_not_whole_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    study = written(tmp_path, training={"rounds": 2})
    whole = simulate(load_study(study), tmp_path / "whole", Options(), Stopping())
    with monkeypatch.context() as patch:
        failing(patch, "score", MemoryError)
        with pytest.raises(RunError):
            simulate(load_study(study), tmp_path / "stopped", Options(), Stopping())
    run = (tmp_path / "stopped" / "latest").resolve()
    path = run / "baselines" / spoilt
    path.write_bytes(path.read_bytes()[:-3] + b"xyz")
    assert resume(run, Options(), Stopping())
    assert metrics_of(run)["models"] == metrics_of(whole)["models"]
