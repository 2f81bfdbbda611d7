"""A data set is known by its declared identity: no new name, of a file or a study, gives its patients a new budget."""

from pathlib import Path

import pytest

from client.admission import Admissions
from client.cli import main
from client.data_check import look_at_data
from client.egress import REFUSAL
from client.findings import WARNING, WRONG, Finding
from client.ledger import Ledger
from client.node import start
from client.site_file import load_site
from client.worker import Worker
from configs.errors import ConfigError, RunError
from configs.frame import Frame
from configs.schema import Study
from configs.site import same_rows_twice
from configs.strict_yaml import dump_yaml
from tests.builders import counting

FIRST, SECOND = counting(name="first"), counting(name="second")  # each costs epsilon 0.6 at the policy's delta
BUDGET = 0.7
Entry = dict[str, str]


def entry(file: str, identity: str | None = "cardiology") -> Entry:
    return {"connector": "csv", "path": file} | ({"identity": identity} if identity else {})


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    rows = "\n".join(f"{20 + n},{'male' if n % 3 else 'female'},{n % 2}" for n in range(60))
    (tmp_path / "patients.csv").write_text(f"age,sex,disease\n{rows}\n")
    return tmp_path


def write_down(folder: Path, **datasets: Entry) -> None:
    document = {"site": "lille", "coordinator": "localhost:1", "policy": {"max_epsilon": BUDGET}, "datasets": datasets}
    (folder / "site.yaml").write_text(dump_yaml(document))


def answered(folder: Path, study: Study, *, seeded: bool = False) -> str:
    """What a fresh worker, with this folder's ledger, answers to an approved study of statistics."""
    config = load_site(folder)
    admissions = Admissions.open(config.admissions)
    admissions.propose(study.sha256, study.name, study.canonical)
    admissions.decide(study.sha256, "approved")
    _, reply = Worker(config, seeded=seeded).answer(Frame("statistics", {"study_sha256": study.sha256}))
    return reply.form


def spent(folder: Path, identity: str) -> float:
    return Ledger.open(folder / "ledger.sqlite").spent(identity, delta=1e-6)


def test_a_renamed_file_has_the_budget_that_is_left(hospital: Path) -> None:
    write_down(hospital, first=entry("patients.csv"))
    assert answered(hospital, FIRST) != REFUSAL
    before = spent(hospital, "cardiology")
    assert 0.5 < before < 0.7
    (hospital / "patients.csv").rename(hospital / "patients-2026.csv")
    write_down(hospital, second=entry("patients-2026.csv"))
    assert answered(hospital, SECOND) == REFUSAL  # it is not enough for both
    assert spent(hospital, "cardiology") == before


def test_patients_of_another_identity_have_a_budget_of_their_own(hospital: Path) -> None:
    write_down(hospital, first=entry("patients.csv"))
    assert answered(hospital, FIRST) != REFUSAL
    (hospital / "patients.csv").rename(hospital / "others.csv")
    write_down(hospital, second=entry("others.csv", "oncology"))
    assert answered(hospital, SECOND) != REFUSAL
    assert spent(hospital, "cardiology") == spent(hospital, "oncology") > 0


@pytest.mark.parametrize("declared", [(None, None), ("cardiology", None), (None, "cardiology")])
def test_two_studies_of_one_file_need_an_identity(hospital: Path, declared: tuple[str | None, str | None]) -> None:
    """Left out, it is the study's name: the same patients would have one budget a study."""
    (hospital / "link.csv").symlink_to(hospital / "patients.csv")
    write_down(hospital, first=entry("patients.csv", declared[0]), second=entry("link.csv", declared[1]))
    with pytest.raises(ConfigError) as refused:
        load_site(hospital)
    nameless = [f"datasets.{name}: " for name, one in zip(("first", "second"), declared, strict=True) if one is None]
    assert len(refused.value.problems) == len(nameless)
    for place, problem in zip(nameless, refused.value.problems, strict=True):
        assert problem.startswith(place + "expected an identity, as another study reads the same file")
        assert problem.endswith("give first and second the same identity")


@pytest.mark.parametrize("declared", [None, "pats"])
def test_the_identity_that_is_asked_for_is_the_one_that_has_the_budget(hospital: Path, declared: str | None) -> None:
    """A new name for both would give the patients of the first study a second budget."""
    write_down(hospital, first=entry("patients.csv", None))
    assert answered(hospital, FIRST) != REFUSAL
    write_down(hospital, second=entry("patients.csv", declared), first=entry("patients.csv", None))
    with pytest.raises(ConfigError) as refused:
        load_site(hospital)
    for problem in refused.value.problems:
        assert "give second and first the same identity, first: under this name the ledger holds" in problem


def test_a_ledger_that_cannot_be_read_does_not_hide_the_mistakes_of_site_yaml(hospital: Path) -> None:
    (hospital / "ledger.sqlite").write_text("no ledger")
    write_down(hospital, first=entry("patients.csv", None), second=entry("patients.csv", None))
    with pytest.raises(ConfigError, match="expected an identity"):
        load_site(hospital)


def data_findings(folder: Path) -> list[Finding]:
    return [finding for finding in look_at_data(load_site(folder)) if finding.check == "identity"]


def test_a_budget_that_site_yaml_lost_sight_of_is_said(
    hospital: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    write_down(hospital, first=entry("patients.csv", None))
    assert answered(hospital, FIRST) != REFUSAL
    assert data_findings(hospital) == []
    write_down(hospital, first=entry("patients.csv", "pats"), second=entry("patients.csv", "pats"))
    (finding,) = data_findings(hospital)
    assert (finding.verdict, finding.who) == (WRONG, "the DPO and whoever wrote site.yaml")
    assert "spent under the identity 'first' by first, and no data set of site.yaml has" in finding.text
    assert "their data set has 'pats' now" in finding.text
    assert finding.todo.startswith("give the data set of these patients `identity: first`")
    for command in ("ledger", "review"):
        capsys.readouterr()
        assert main(["-C", str(hospital), command]) == 0
        assert "WARNING  the ledger holds epsilon" in capsys.readouterr().out
    with pytest.raises(RunError, match="not joined"):  # it says so before anything else
        start(load_site(hospital))
    assert "spent under the identity 'first'" in caplog.text
    assert answered(hospital, SECOND) != REFUSAL  # both have spent now: there is no right one any more
    assert [finding.verdict for finding in data_findings(hospital)] == [WARNING]
    write_down(hospital, first=entry("patients.csv", "first"))
    assert ["'pats'" in finding.text for finding in data_findings(hospital)] == [True]


def query(text: str, identity: str | None = None) -> Entry:
    return {"connector": "sql", "url_env": "EDS_URL", "query": text} | ({"identity": identity} if identity else {})


def test_two_studies_of_one_data_base_need_an_identity_and_may_have_two(hospital: Path) -> None:
    """Whether two queries meet the same patients, the hospital alone knows: it says so."""
    write_down(hospital, first=query("select 1"), second=query("select 2", "oncology"))
    with pytest.raises(ConfigError) as refused:
        load_site(hospital)
    (problem,) = refused.value.problems
    assert problem.startswith("datasets.first: expected an identity, as another study reads the same data base")
    assert problem.endswith("or each its own where no patient is in both")
    write_down(hospital, first=query("select 1", "cardiology"), second=query("select 2", "oncology"))
    assert same_rows_twice(load_site(hospital).datasets) == []
    write_down(hospital, first=query("select 1", "cardiology"), second=query("select 1", "oncology"))
    assert [(a.study, b.study) for a, b in same_rows_twice(load_site(hospital).datasets)] == [("second", "first")]


@pytest.mark.parametrize(
    "odd",
    [{"connector": "excel", "path": "a.xlsx"}, {"connector": "sql", "query": "select 1"}, {"connector": "csv"}],
    ids=["no connector", "no variable", "no path"],
)
def test_a_source_with_a_mistake_is_compared_with_no_other(hospital: Path, odd: Entry) -> None:
    write_down(hospital, first=odd, second={"connector": odd["connector"], "query": "select 2"} | odd)
    with pytest.raises(ConfigError) as refused:
        load_site(hospital)
    assert not [problem for problem in refused.value.problems if "identity" in problem]


def test_two_studies_of_one_file_share_what_is_declared(hospital: Path) -> None:
    write_down(hospital, first=entry("patients.csv"), second=entry("patients.csv"))
    assert [dataset.identity for dataset in load_site(hospital).datasets] == ["cardiology"] * 2


@pytest.mark.parametrize("seeded", [False, True], ids=["the system's", "seeded"])
def test_the_ledger_says_which_generator_made_the_noise(
    hospital: Path, seeded: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    write_down(hospital, first=entry("patients.csv"))
    assert answered(hospital, FIRST, seeded=seeded) != REFUSAL
    assert Ledger.open(hospital / "ledger.sqlite").seeded("cardiology", FIRST.sha256) == seeded
    assert main(["-C", str(hospital), "ledger"]) == 0
    said = "the noise of 1 came from a seed: it protects nobody who knows the seed"
    assert (said in capsys.readouterr().out) == seeded
