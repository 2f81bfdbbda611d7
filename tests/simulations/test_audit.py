"""The audit's command, its bad inputs, its bound on epsilon, and old runs whose books do not add up."""

import errno
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from client.ledger import Ledger, Release
from configs.journal import Journal, read
from configs.load import load_study
from configs.strict_yaml import dump_yaml, read_yaml
from simulations import cli
from simulations.audit import ledger_replay, show
from simulations.audit.auditor import audit
from simulations.audit.canaries import Design, design, lower_bound, p_value
from simulations.audit.effort import Effort
from simulations.audit.recording import joined, marked, patient_gradients
from simulations.audit.residuals import noise_checks
from simulations.audit.subject import Subject
from simulations.audit.verdict import LEVEL, noise_values_needed, smallest_loss
from strategies.learning import learning_of
from strategies.privacy.modes.local import plan_for
from strategies.privacy.plan import Budget, calibrate
from tests import builders

ROOT = Path(__file__).resolve().parents[2]
PRESET = ROOT / "configs/presets/heart_disease.yaml"
QUICK = Effort(
    smallest_loss=0.2, least_steps=40, few_steps=20, run_steps=40, canaries=100, neighbours=2, starts=1, places=1
)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "audit_and_show", partial(show.audit_and_show, effort=QUICK))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    assert cli.main(["simulate", str(PRESET), "--out", str(out), "--no-baselines"]) == 0
    return (out / "latest").resolve()


@pytest.fixture
def run(simulated: Path, tmp_path: Path) -> Path:
    return shutil.copytree(simulated, tmp_path / "run")


def verdicts(folder: Path) -> dict[str, str]:
    return {part["part"]: part["verdict"] for part in json.loads((folder / "audit.json").read_text())["parts"]}


# The command


def test_a_healthy_study_passes_and_is_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit", str(PRESET), "--out", str(tmp_path)]) == 0
    (folder,) = tmp_path.iterdir()
    found = json.loads((folder / "audit.json").read_text())
    assert found["verdict"] == "passed"
    assert found["guarantee"] == {"unit": "patient", "adjacency": "add or remove one"}
    assert set(verdicts(folder)) == {"residual", "sensitivity", "sampler", "ledger", "canaries"}
    page = (folder / "audit.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    shown = capsys.readouterr().out
    assert "residual      passed  " in shown
    assert "[" not in shown


def test_a_runs_folder_is_audited_with_its_ledgers(run: Path) -> None:
    assert cli.main(["audit", str(run), "--seed", "1"]) == 0
    assert "4 ledgers of run" in (run / "audit.json").read_text()


def test_a_ledger_that_was_reset_after_the_run_fails_the_audit(run: Path) -> None:
    with sqlite3.connect(run / "sites/hungary/ledger.sqlite") as connection:
        connection.execute("DELETE FROM releases WHERE round <= 15")
    connection.close()
    assert cli.main(["audit", str(run), "--seed", "1"]) == 1
    assert {part for part, verdict in verdicts(run).items() if verdict == "FAILED"} == {"ledger"}


# Bad input


def test_a_study_without_privacy_cannot_be_audited(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit", str(ROOT / "configs/presets/heart_disease_none.yaml")]) == 2
    assert "expected local, found none" in capsys.readouterr().err


def test_a_study_without_data_cannot_be_audited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(PRESET.read_text().partition("simulation:")[0])
    assert cli.main(["audit", str(path)]) == 2
    assert "expected each hospital's data" in capsys.readouterr().err


def test_a_folder_that_is_no_run_cannot_be_audited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit", str(tmp_path)]) == 2
    assert "expected a study file or a run's folder" in capsys.readouterr().err
    shutil.copy(PRESET, tmp_path / "study.yaml")
    text = PRESET.read_text().replace("../../simulations", str(ROOT / "simulations"))
    (tmp_path / "study.yaml").write_text(text)
    assert cli.main(["audit", str(tmp_path)]) == 2
    assert "journal.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "audit.json").exists()


@pytest.mark.parametrize("out", ["file", "file/audits"])
def test_an_audit_that_cannot_be_written_is_told_before_it_is_computed(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(show, "audit", lambda *_, **__: pytest.fail("it was computed"))
    assert cli.main(["audit", str(PRESET), "--out", str(tmp_path / out)]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_a_run_whose_folder_cannot_be_written_is_told_before_it_is_audited(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read_only(*_: object, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(options["dir"]))

    monkeypatch.setattr(show, "TemporaryFile", read_only)
    monkeypatch.setattr(show, "audit", lambda *_, **__: pytest.fail("it was computed"))
    assert cli.main(["audit", str(run)]) == 2
    assert f"{run}: Permission denied" in capsys.readouterr().err


def test_an_audit_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    out = tmp_path / "new" / "audits"
    assert cli.main(["audit", str(ROOT / "configs/presets/heart_disease_none.yaml"), "--out", str(out)]) == 2
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_does_not_swallow_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(show, "write_atomically", full)
    assert cli.main(["audit", str(PRESET), "--seed", "1", "--out", str(tmp_path)]) == 2
    found = capsys.readouterr()
    assert "passed after" in found.out
    assert "No space left on device" in found.err


# Old runs


def replayed(run: Path) -> set[str]:
    """The names of the checks that fail on a run's folder."""
    study = load_study(run / "study.yaml")
    plans = {site: plan_for(study, site, 1) for site in study.sites}
    replays, journal = ledger_replay.replay_run(Subject(), run, study, plans)
    return {check.name for check in [journal, *(c for r in replays for c in r.checks)] if not check.passed}


def test_a_run_as_it_ended_replays(run: Path) -> None:
    assert replayed(run) == set()


def sql(statement: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        with sqlite3.connect(run / "sites/cleveland/ledger.sqlite") as connection:
            connection.execute(statement)
        connection.close()

    return change


def without_round_five(run: Path) -> None:
    records = list(read(run / "journal.jsonl"))
    (run / "journal.jsonl").unlink()
    journal = Journal(run / "journal.jsonl")
    for record in records:
        if record.facts.get("round") != 5:
            journal.append(record.kind, **record.facts)


def with_a_changed_record(run: Path) -> None:
    text = (run / "journal.jsonl").read_text()
    (run / "journal.jsonl").write_text(text.replace('"round":5', '"round":6', 1))


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (sql("DELETE FROM releases WHERE round = 5"), "rounds booked"),
        (sql("DELETE FROM releases WHERE round = 5"), "no row vanished"),
        (sql("UPDATE releases SET noise_multiplier = 2 * noise_multiplier WHERE round = 3"), "events"),
        (sql("UPDATE releases SET noise_multiplier = 2 * noise_multiplier WHERE round = 3"), "epsilon stated"),
        (sql("DELETE FROM releases"), "epsilon stated"),
        (lambda run: shutil.rmtree(run / "sites/cleveland"), "ledger"),
        (without_round_five, "no round skipped"),
        (with_a_changed_record, "journal"),
    ],
)
def test_books_that_were_changed_after_the_run_do_not_replay(
    run: Path, change: Callable[[Path], None], check: str
) -> None:
    change(run)
    assert check in replayed(run)


# The bound on epsilon


@pytest.mark.parametrize(("epsilon", "guesses"), [(0.5, 40), (1.0, 100), (3.0, 60)])
def test_randomised_response_reaches_the_bound_without_delta(epsilon: float, guesses: int) -> None:
    """Each coin told rightly with e^eps / (1 + e^eps) is epsilon private, and its right guesses are binomial."""
    rng = np.random.default_rng(1)
    right = (rng.random((20_000, guesses)) < np.exp(epsilon) / (1 + np.exp(epsilon))).sum(1)
    for v in np.quantile(right, [0.5, 0.9, 0.99]).astype(int):
        seen = float((right >= v).mean())
        assert p_value(guesses, guesses, int(v), epsilon=epsilon, delta=0.0) == pytest.approx(seen, abs=0.015)


@pytest.mark.parametrize("delta", [1e-3, 1e-2])
def test_a_mechanism_that_gives_coins_away_with_chance_delta_stays_below_the_bound(delta: float) -> None:
    """Randomised response that tells each coin outright with chance delta is (epsilon, delta) private."""
    m, epsilon = 50, 1.0
    p = np.exp(epsilon) / (1 + np.exp(epsilon))
    law = stats.binom(m, delta + (1 - delta) * p)
    for v in range(m + 1):
        assert law.sf(v - 1) <= p_value(m, m, v, epsilon=epsilon, delta=delta) + 1e-12


def test_a_mechanism_that_gives_everything_away_with_chance_delta_stays_below_the_bound() -> None:
    m, epsilon, delta = 50, 1.0, 1e-3
    law = stats.binom(m, np.exp(epsilon) / (1 + np.exp(epsilon)))
    for v in range(m + 1):
        assert delta + (1 - delta) * law.sf(v - 1) <= p_value(m, m, v, epsilon=epsilon, delta=delta) + 1e-12


def test_a_true_epsilon_is_refuted_in_no_more_than_one_run_of_twenty() -> None:
    rng = np.random.default_rng(2)
    right = rng.binomial(200, np.exp(1.0) / (1 + np.exp(1.0)), 2_000)
    refuted = np.mean([lower_bound(400, 200, int(v), delta=1e-5) > 1.0 for v in right])
    assert refuted <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2_000)


def shown(fixed: Design, right: int) -> float:
    return lower_bound(fixed.canaries, fixed.guesses, right, delta=1e-5, confidence=fixed.confidence)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0, 5.0])
def test_a_healthy_gaussian_study_is_accused_by_its_canaries_less_often_than_by_any_other_check(epsilon: float) -> None:
    """Its scores are N(-gap / 2, 1) or N(gap / 2, 1): simulated here, and compared with the guesses that accuse it."""
    plan = calibrate(
        Budget(epsilon, 1e-5), clip_norm=1.0, sampling_rate=1.0, steps_per_round=1, rounds=20, patients=200
    )
    fixed = design(plan, epsilon, 20, 1000)
    accusing = next(v for v in range(fixed.guesses + 1) if shown(fixed, v) > epsilon)
    rng, half, right = np.random.default_rng(4), fixed.guesses // 2, []
    for _ in range(200):
        chosen = rng.random(1000) < 0.5
        order = np.argsort(rng.normal(size=1000) + chosen * np.sqrt(20) / plan.noise_multiplier)
        right.append(chosen[order[-half:]].sum() + (~chosen[order[:half]]).sum())
    share = np.mean(right) / fixed.guesses
    assert stats.binom.sf(accusing - 1, fixed.guesses, share) < 2 * LEVEL  # the share itself is simulated


# What is measured


def test_too_little_noise_is_noticed_as_often_as_planned_for() -> None:
    rng = np.random.default_rng(3)
    steps = noise_values_needed(0.05) // 50 + 1
    noticed = 0
    for _ in range(40):
        size = noise_checks(0.95 * rng.normal(size=(steps, 50)), np.ones((steps, 50)))[0]
        noticed += not size.passed
    assert noticed == 40  # one in a thousand is missed
    assert smallest_loss(noise_values_needed(0.05)) == pytest.approx(0.05, rel=1e-3)


def test_the_reference_gradient_of_a_patient_is_the_sum_over_their_rows() -> None:
    study = builders.study(model={"name": "mlp", "hidden": [4], "init": "random"})
    task, rows = learning_of(study), builders.patients(12)
    several = joined(rows)
    each, together = (np.stack([*patient_gradients(task, task.initial(0), people)]) for people in (rows, several))
    sums = np.add.reduceat(each, several.starts[:-1], axis=0)
    np.testing.assert_allclose(together, sums, rtol=1e-10, atol=1e-12)


def test_marks_tell_every_row_and_keep_their_order() -> None:
    people = builders.patients(300)
    first = marked(people).x[:, 0]
    assert len(np.unique(first)) == 300
    assert (np.argsort(first) == np.argsort(people.x[:, 0], kind="stable")).all()


def asking(folder: Path) -> Path:
    """The preset, three rounds of it, that asks for figures."""
    document = read_yaml(PRESET)
    document["training"]["rounds"] = 3
    document["privacy"]["spare"] = 0  # all of epsilon is spent
    document["evaluation"]["release"] = {"epsilon": 1.0, "bins": 6}
    document["simulation"]["sites"] = {
        site: {"connector": "csv", "path": str(PRESET.parent / source["path"])}
        for site, source in document["simulation"]["sites"].items()
    }
    path = folder / "study.yaml"
    path.write_text(dump_yaml(document))
    return path


def ledger_part(folder: Path) -> dict[str, Any]:
    parts = json.loads((folder / "audit.json").read_text())["parts"]
    return next(part for part in parts if part["part"] == "ledger")


def test_a_run_that_evaluated_is_booked_as_it_should_and_one_that_hides_it_fails(tmp_path: Path) -> None:
    """The one noisy histogram after the last round is in the ledger, and is no round."""
    assert cli.main(["simulate", str(asking(tmp_path)), "--no-baselines", "--out", str(tmp_path / "runs")]) == 0
    run = (tmp_path / "runs" / "latest").resolve()
    assert cli.main(["audit", str(run)]) == 0
    found = ledger_part(run)
    assert found["verdict"] == "passed"
    assert "epsilon 3.230 released" in found["figure"]
    assert "3.230 stated" in found["figure"]
    with sqlite3.connect(run / "sites/cleveland/ledger.sqlite") as connection:
        connection.execute("DELETE FROM releases WHERE round = 0")
    connection.close()
    assert cli.main(["audit", str(run)]) == 1
    assert "cleveland: the evaluation left and is not booked" in ledger_part(run)["words"]


@pytest.mark.parametrize("seed", [None, 1])
def test_the_evaluation_of_a_study_is_audited_with_its_training(tmp_path: Path, seed: int | None) -> None:
    study = load_study(asking(tmp_path))
    assert show.audit_and_show(study, None, tmp_path / "runs", seed) == 0
    folder = next((tmp_path / "runs").iterdir())
    found = ledger_part(folder)
    assert "epsilon 3.230 released" in found["figure"]
    assert "with its evaluation (epsilon 1 by itself)" in found["words"]
    assert "Epsilon released" in (folder / "audit.html").read_text()
    claimed = [part for part in json.loads((folder / "audit.json").read_text())["parts"] if part["part"] == "canaries"]
    assert "3.00 claimed" in claimed[0]["figure"], "canaries are of the training alone"


class ForgetsTheEvaluation(Ledger):
    """Books training alone."""

    @contextmanager
    def reserve(self, release: Release, *rest: Any, **more: Any) -> Iterator[None]:
        if release.release == "score histogram":
            yield
            return
        with super().reserve(release, *rest, **more):
            yield


def test_an_evaluation_that_is_not_booked_fails_the_audit(tmp_path: Path) -> None:
    study = load_study(asking(tmp_path))
    subject = Subject(ledger=lambda path: ForgetsTheEvaluation.open(path, durable=False))
    done = audit(study, subject, seed=1, effort=QUICK)
    assert [part.key for part in done.parts if part.verdict == "FAILED"] == ["ledger"]
