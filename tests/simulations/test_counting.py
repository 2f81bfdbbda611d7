"""A study of statistics on one machine: simulated, planned and audited as a researcher does it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.ledger import Ledger, Release
from client.site import Site
from configs.load import load_study
from configs.schema import Study
from configs.strict_yaml import dump_yaml, read_yaml
from configs.wire import COUNTS
from simulations import cli
from simulations.audit.counting import audit_statistics
from simulations.audit.effort import Effort
from simulations.audit.verdict import Audit
from simulations.counting_plan import plan_statistics
from strategies.data.cells import places
from strategies.data.columns import layout_of
from strategies.exchange.arrays import Arrays
from strategies.privacy.plan import PrivacyPlan
from strategies.privacy.randomness import Randomness
from strategies.releases.base import Request
from strategies.releases.statistics import counts

ROOT = Path(__file__).resolve().parents[2]
PRESET = ROOT / "configs" / "presets" / "heart_statistics.yaml"
QUICK = Effort(smallest_loss=0.05, least_steps=300)


def written(folder: Path, preset: Path = PRESET, **changes: Any) -> Path:
    """The preset with other sections, its data found from anywhere."""
    document = read_yaml(preset)
    for source in document["simulation"]["sites"].values():
        source["path"] = str((preset.parent / source["path"]).resolve())
    path = folder / "study.yaml"
    path.write_text(dump_yaml(document | changes))
    return path


def simulated(folder: Path, study: Path = PRESET, *options: str) -> dict[str, Any]:
    assert cli.main(["simulate", str(study), "--out", str(folder), *options]) == 0
    return dict(json.loads((folder / "latest" / "metrics.json").read_text()))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    simulated(out)
    return (out / "latest").resolve()


def metrics_of(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "metrics.json").read_text()))


# Simulated


def test_worker_processes_release_the_same_bits_and_another_seed_others(run: Path, tmp_path: Path) -> None:
    first = metrics_of(run)["statistics"]["released"]
    assert simulated(tmp_path / "workers", PRESET, "--workers", "2")["statistics"]["released"] == first
    other = simulated(tmp_path / "seed", PRESET, "--seed", "1")["statistics"]["released"]
    assert all(other[site] != first[site] for site in first)


def test_a_run_resumed_says_the_same_and_spends_nothing_more(run: Path, tmp_path: Path) -> None:
    before = metrics_of(run)
    assert cli.main(["simulate", "--resume", str(run)]) == 0
    after = metrics_of(run)
    assert after["statistics"] == before["statistics"]
    assert [site["epsilon"] for site in after["sites"]] == [site["epsilon"] for site in before["sites"]]


def test_a_run_leaves_a_report_and_neither_model_nor_card(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names == {"study.yaml", "metrics.json", "journal.jsonl", "report.html", "sites"}


def test_the_terminal_says_patients_outcome_and_what_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simulated(tmp_path)
    said = capsys.readouterr().out
    assert "noise of 40.4 patients in each count" in " ".join(said.split())
    assert "disease = 1" in said
    assert "report.html" in said


def test_every_hospitals_interval_holds_its_own_patients(run: Path) -> None:
    """One draw of one seed: at 95 % each, four of four is the usual case; the sizes are those of the files."""
    true = {"cleveland": 303, "hungary": 261, "long_beach_va": 130, "switzerland": 46}
    found = metrics_of(run)["statistics"]["sites"]
    assert {
        site: found[site]["patients"]["low"] <= n <= found[site]["patients"]["high"] for site, n in true.items()
    } == (dict.fromkeys(true, True))


def test_a_hospital_whose_file_does_not_fit_is_told_before_anything_is_released(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = written(tmp_path, task={"type": "statistics", "target": "diagnosis"})
    assert cli.main(["simulate", str(study), "--out", str(tmp_path / "runs")]) == 2
    assert capsys.readouterr().err.count("columns 'diagnosis' are not in the header") == 4
    assert not (tmp_path / "runs").exists()


def test_three_patients_are_lost_in_the_noise_and_the_study_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (ROOT / "simulations/data/heart_disease/switzerland.csv").read_text().splitlines()[:4]
    few = tmp_path / "few.csv"
    few.write_text("\n".join(lines) + "\n")
    document = read_yaml(written(tmp_path))
    document["simulation"]["sites"]["switzerland"]["path"] = str(few)
    document["cohort"]["switzerland"] = 3
    study = tmp_path / "few.yaml"
    study.write_text(dump_yaml(document))
    found = simulated(tmp_path / "runs", study)["statistics"]
    assert found["sites"]["switzerland"]["outcome"] is None
    assert found["together"]["outcome"] is not None
    assert "hidden" in capsys.readouterr().out


# Planned


def test_the_plan_says_the_noise_and_who_is_too_small_to_be_seen(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(PRESET)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "noise of 40.4 patients in each count" in said
    assert "switzerland: too small to be seen" in said
    assert "cleveland: seen in outline: a count of fewer than 80 patients may be noise" in said
    assert "epsilon 0.5 at delta 1e-05 per patient, add or remove one" in said


def test_the_plan_and_the_report_agree_on_who_is_too_small_to_be_seen(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", str(PRESET)]) == 0
    seen = [line for line in capsys.readouterr().out.splitlines() if "too small to be seen" in line]
    assert [line.split(":")[0] for line in seen] == ["switzerland"]
    text = (run / "report.html").read_text()
    assert "Too small to be seen through so much noise: switzerland." in text
    assert "every hospital, patients are seen" not in text


def test_a_plans_table_and_its_verdict_round_the_hidden_count_alike(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(PRESET)]) == 0
    row, verdict = (line for line in capsys.readouterr().out.splitlines() if "all together" in line)
    assert row.split()[:4] == ["all", "together", "735", "159"]
    assert "fewer than 159 patients" in verdict


def test_the_epsilon_from_which_a_small_hospital_is_seen_is_the_one_from_which_it_is(tmp_path: Path) -> None:
    def verdict(epsilon: float) -> str:
        privacy = {"mode": "local", "epsilon": epsilon, "delta": 1e-5}
        views = plan_statistics(load_study(written(tmp_path, privacy=privacy))).sites
        return next(view.verdict for view in views if view.site == "switzerland")

    from_here = float(verdict(0.1).split("from epsilon ")[1].split()[0])
    assert "too small" not in verdict(from_here)
    assert "too small" in verdict(from_here - 0.02)


def test_at_a_tiny_epsilon_everybody_is_too_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = written(tmp_path, privacy={"mode": "local", "epsilon": 0.01, "delta": 1e-5})
    assert cli.main(["plan", str(study), "--json"]) == 0
    sites = json.loads(capsys.readouterr().out)["sites"]
    assert all("too small to be seen" in site["verdict"] and site["share"] is None for site in sites)


def test_without_announced_sizes_the_noise_is_the_same_and_the_plan_says_where_it_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = written(tmp_path, cohort={})
    assert cli.main(["plan", str(study)]) == 0
    said = capsys.readouterr().out
    assert "noise of 40.4 patients" in " ".join(said.split())
    assert "no cohort is announced" in said
    metrics = simulated(tmp_path / "runs", study)
    assert metrics["statistics"]["noise"] == pytest.approx(40.39, abs=0.01)
    assert metrics["sites"][0]["patients_announced"] is None


def test_a_target_that_is_a_number_has_no_rate_but_a_plan_a_table_and_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = read_yaml(written(tmp_path))
    del document["features"]["age"]
    task = {"type": "statistics", "target": "age", "range": [20, 90], "unit": "years", "bins": 4}
    study = written(tmp_path, task=task, features=document["features"])
    assert cli.main(["plan", str(study)]) == 0
    metrics = simulated(tmp_path / "runs", study)
    assert metrics["statistics"]["columns"][-1]["labels"][0] == "20 to 37.5"
    assert metrics["statistics"]["together"]["outcome"] is None
    assert " = " not in capsys.readouterr().out
    assert "age = " not in (tmp_path / "runs" / "latest" / "report.html").read_text()


def test_a_plan_reads_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulations.counting_plan.read_table", lambda *_: pytest.fail("data were read"))
    assert len(plan_statistics(load_study(PRESET)).sites) == 5


# What needs a model is refused in plain words


def test_a_worth_needs_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(PRESET), "--worth"]) == 2
    assert "expected a study that trains a model, found one of statistics" in capsys.readouterr().err


def test_runs_of_statistics_stand_side_by_side(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    simulated(tmp_path, PRESET, "--seed", "1")
    capsys.readouterr()
    assert cli.main(["compare", str(run), str(tmp_path / "latest")]) == 0
    said = capsys.readouterr().out
    rows = {line[:24].strip(): line[24:].split() for line in said.splitlines() if line.startswith("  ")}
    assert rows["noise in each count"] == ["40.4", "40.4"]
    for place, metrics in enumerate((metrics_of(run), metrics_of(tmp_path / "latest"))):
        assert rows["patients"][2 * place] == f"{metrics['statistics']['together']['patients']['value']:.0f}"
    assert "disease = 1:" in said
    assert "model digest" not in said
    assert "epsilon: per patient" in said


def test_a_run_of_statistics_stands_beside_one_of_a_model(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = written(tmp_path, ROOT / "configs/presets/heart_disease.yaml", seed=3)
    assert cli.main(["simulate", str(study), "--no-baselines", "--out", str(tmp_path / "runs")]) == 0
    capsys.readouterr()
    assert cli.main(["compare", str(run), str(tmp_path / "runs" / "latest")]) == 0
    rows = {line[:24].strip(): line[24:].split() for line in capsys.readouterr().out.splitlines()}
    assert rows["strategy"][0] == rows["model digest"][0] == rows["together, private"][0] == "-"
    assert rows["noise in each count"] == ["40.4", "-"]


# Audited


def audited(make: Callable[..., Site] = Site, **options: Any) -> Audit:
    return audit_statistics(load_study(PRESET), make=make, effort=QUICK, **{"seed": 1, **options})


def failed(done: Audit) -> set[str]:
    return {part.key for part in done.parts if part.verdict == "FAILED"}


@pytest.mark.parametrize("seed", [None, 1])
def test_an_audit_of_a_healthy_study_passes(seed: int | None) -> None:
    done = audited(seed=seed)
    assert {part.key: part.verdict for part in done.parts} == dict.fromkeys(("residual", "counts", "ledger"), "passed")


def test_an_audit_leaves_a_page_and_knows_a_runs_ledgers(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from simulations.audit import show

    assert show.audit_and_show(load_study(run / "study.yaml"), run, None, 1, QUICK) == 0
    assert "4 ledgers of run" in (run / "audit.json").read_text()
    assert "<script" not in (run / "audit.html").read_text()
    (run / "sites" / "hungary" / "ledger.sqlite").unlink()
    assert show.audit_and_show(load_study(run / "study.yaml"), run, None, 1, QUICK) == 1


class Quiet(Site):
    """Half the noise."""

    def release(self, name: str, request: Request) -> Arrays:
        released = super().release(name, request)[COUNTS]
        exact = counts(self.train.cells, layout_of(self.study))
        return {COUNTS: np.asarray(np.rint((released + exact) / 2), np.float32)}


class Exact(Site):
    """No noise at all."""

    def release(self, name: str, request: Request) -> Arrays:
        super().release(name, request)
        exact = counts(self.train.cells, layout_of(self.study))
        return {COUNTS: np.asarray(exact, np.float32)}


class Repeating(Site):
    """The same noise every time."""

    def _randomness(self, label: str, number: int, attempt: int) -> Any:
        return Randomness.seeded(7, "always", number)


class OneNorm(Site):
    """Noise of one column's sensitivity, for all columns."""

    def release(self, name: str, request: Request) -> Arrays:
        released, plan = super().release(name, request)[COUNTS], self.plan
        assert plan is not None
        exact = counts(self.train.cells, layout_of(self.study))
        return {COUNTS: np.asarray(exact + np.rint((released - exact) / plan.clip_norm), np.float32)}


class Unbooked(Site):
    """A release that is not in the ledger."""

    def __init__(self, name: str, study: Study, people: Any, ledger: Ledger, **options: Any) -> None:
        super().__init__(name, study, people, _NoLedger(), **options)  # type: ignore[arg-type]


class BookedAfter(Site):
    """Booked when all is done."""

    def __init__(self, name: str, study: Study, people: Any, ledger: Ledger, **options: Any) -> None:
        super().__init__(name, study, people, _Late(ledger), **options)  # type: ignore[arg-type]


class _NoLedger:
    @contextmanager
    def reserve(self, release: Release, plan: PrivacyPlan) -> Iterator[None]:
        yield


class _Late(_NoLedger):
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    @contextmanager
    def reserve(self, release: Release, plan: PrivacyPlan) -> Iterator[None]:
        yield
        with self._ledger.reserve(release, plan):
            pass


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (Quiet, "residual"),
        (Exact, "residual"),
        (Repeating, "residual"),
        (OneNorm, "residual"),
        (Unbooked, "ledger"),
        (BookedAfter, "ledger"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_an_audit_finds_a_sabotaged_hospital(make: type[Site], part: str) -> None:
    assert failed(audited(make)) == {part}


def test_an_audit_finds_rows_that_count_as_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    import simulations.audit.counting as under_test

    def by_row(table: Any, study: Study) -> Any:
        return places(
            type(table)(
                table.numbers,
                table.categories,
                table.targets,
                np.arange(len(table.patients)),
                tuple(map(str, range(len(table.patients)))),
            ),
            study,
        )

    monkeypatch.setattr(under_test, "places", by_row)
    assert failed(audited()) == {"counts"}
