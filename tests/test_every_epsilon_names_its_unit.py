"""An epsilon without its unit and adjacency is half a number: every command that prints one says both, once a page."""

import re
from functools import partial
from pathlib import Path

import pytest

from client import cli as hospital
from client.admission import Admissions
from client.ledger import Ledger, Release
from client.policy import Deny, Spending, afford
from configs.coordinator import load_coordinator
from configs.errors import BudgetError, PrivacyError
from configs.journal import Journal
from configs.site import Policy, SiteConfig
from configs.strict_yaml import dump_yaml
from server import cli as consortium
from server.membership import Membership
from simulations import cli
from simulations.audit import show
from strategies.privacy.modes.local import plan_for
from strategies.privacy.plan import Budget, calibrate
from tests.builders import study
from tests.consortium import Consortium
from tests.simulations.test_audit import QUICK

PRESET = Path(__file__).resolve().parents[1] / "configs/presets/heart_disease.yaml"
STUDY = study()
UNIT = "per patient, add or remove one"
Output = pytest.CaptureFixture[str]


def require(text: str) -> None:
    words = " ".join(re.sub(r"<[^>]*>", " ", text).split())
    assert re.search(r"epsilon|ε", words, re.IGNORECASE), words
    assert UNIT in words.lower(), words


# The researcher's


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    assert cli.main(["simulate", str(PRESET), "--out", str(out), "--no-baselines"]) == 0
    return (out / "latest").resolve()


def test_simulate(tmp_path: Path, capsys: Output) -> None:
    assert cli.main(["simulate", str(PRESET), "--out", str(tmp_path), "--no-baselines"]) == 0
    require(capsys.readouterr().out)


def test_compare(run: Path, capsys: Output) -> None:
    assert cli.main(["compare", str(run), str(run)]) == 0
    require(capsys.readouterr().out)


@pytest.mark.parametrize("page", ["report.html", "model_card.md"])
def test_report(run: Path, page: str) -> None:
    require((run / page).read_text())


def test_plan(capsys: Output) -> None:
    assert cli.main(["plan", str(PRESET)]) == 0
    require(capsys.readouterr().out)


@pytest.mark.parametrize("command", [["plan"], ["plan", "--json"], ["simulate", "--out", "runs"]], ids=" ".join)
def test_statistics(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([command[0], str(PRESET.with_name("heart_statistics.yaml")), *command[1:]]) == 0
    require(capsys.readouterr().out)


def test_plan_for_programs(capsys: Output) -> None:
    assert cli.main(["plan", str(PRESET), "--json"]) == 0
    require(capsys.readouterr().out)


def test_a_plan_that_cannot_be() -> None:
    with pytest.raises(PrivacyError) as refused:
        calibrate(Budget(0.01, 1e-5), clip_norm=1.0, sampling_rate=1.0, steps_per_round=1, rounds=10**8, patients=10)
    require(str(refused.value))


def test_plan_worth(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "study.yaml").write_text(dump_yaml(STUDY.to_dict()))
    assert cli.main(["plan", str(tmp_path / "study.yaml"), "--worth", "--repetitions", "3"]) == 0
    require(capsys.readouterr().out.partition("Is it worth it?")[2])


def test_audit(tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "audit_and_show", partial(show.audit_and_show, effort=QUICK))
    cli.main(["audit", str(PRESET), "--out", str(tmp_path)])
    require(capsys.readouterr().out)
    require(next(tmp_path.rglob("audit.html")).read_text())


# The hospital's


@pytest.fixture
def lille(tmp_path: Path) -> SiteConfig:
    source = {STUDY.name: {"connector": "csv", "path": str(tmp_path / "patients.csv")}}
    return Consortium(tmp_path).hospital("lille", datasets=source)


def book(ledger: Ledger, number: int) -> None:
    plan = plan_for(STUDY, "lille", 100)
    with ledger.reserve(Release("lille", STUDY.sha256, number, plan.round_event), plan):
        pass


def test_ledger(lille: SiteConfig, capsys: Output) -> None:
    lille.ledger.parent.mkdir(parents=True, exist_ok=True)
    book(Ledger.open(lille.ledger), 1)
    assert hospital.main(["-C", str(lille.folder), "ledger"]) == 0
    require(capsys.readouterr().out)


def test_review_says_it_of_what_is_asked_and_of_what_is_left(lille: SiteConfig, capsys: Output) -> None:
    lille.admissions.parent.mkdir(parents=True, exist_ok=True)
    Admissions.open(lille.admissions).propose(STUDY.sha256, STUDY.name, STUDY.canonical)
    assert hospital.main(["-C", str(lille.folder), "review"]) == 0
    page = capsys.readouterr().out
    require(page.partition("privacy  ")[2].partition("budget  ")[0])
    require(page.partition("budget  ")[2])


def test_check(lille: SiteConfig, capsys: Output) -> None:
    hospital.main(["-C", str(lille.folder), "check"])
    require(capsys.readouterr().out)


def test_a_refusal_for_want_of_budget() -> None:
    verdict = afford(Spending(6.0, 8.01), Policy())
    assert isinstance(verdict, Deny)
    require(verdict.reason)
    ledger = Ledger.in_memory(Budget(0.5, 1e-5))
    with pytest.raises(BudgetError) as refused:
        book(ledger, 1)
    require(str(refused.value))


# The consortium's


@pytest.fixture
def centre(tmp_path: Path) -> Path:
    folder = tmp_path / "consortium"
    assert consortium.main(["-C", str(folder), "init", "--name", "Demo", "--names", "localhost"]) == 0
    config = load_coordinator(folder)
    (config.runs / "run").mkdir(parents=True)
    (config.runs / "run" / "study.yaml").write_text(dump_yaml(STUDY.to_dict()))
    members = Membership.open(config.database)
    members.submit("run")
    members.set_state("run", "RUNNING")
    members.set_presence("run", "lille", "takes part", "1.2345")
    return folder


def test_status(centre: Path, capsys: Output) -> None:
    capsys.readouterr()
    assert consortium.main(["-C", str(centre), "status"]) == 0
    require(capsys.readouterr().out)


def test_watch(centre: Path, capsys: Output) -> None:
    config = load_coordinator(centre)
    journal = Journal(config.runs / "run" / "journal.jsonl")
    journal.append("received", site="lille", epsilon="1.2345")
    journal.append("round", round=1, seconds=0.5, contributed={"lille": 10}, missing={})
    Membership.open(config.database).set_state("run", "COMPLETE")
    capsys.readouterr()
    assert consortium.main(["-C", str(centre), "watch", "run"]) == 0
    out = capsys.readouterr().out
    assert "epsilon left: lille 1.77" in out
    require(out)
