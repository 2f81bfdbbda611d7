"""`archipel-site` as hospital IT types it: the page of a waiting study, decisions, what left."""

import json
import re
from pathlib import Path

import pytest

from client.admission import Admissions
from client.audit import Audit
from client.cli import main
from client.enrol import load_signing_key
from client.ledger import Ledger, Release
from configs import journal
from configs.frame import Frame
from configs.site import SiteConfig
from strategies.models.registry import study_parameters
from strategies.privacy.modes.local import plan_for
from tests.builders import study
from tests.consortium import Consortium

Output = pytest.CaptureFixture[str]
STUDY = study()


@pytest.fixture
def lille(tmp_path: Path) -> SiteConfig:
    """A hospital where a study waits."""
    source = {STUDY.name: {"connector": "csv", "path": str(tmp_path / "patients.csv"), "identity": "cardiology"}}
    config = Consortium(tmp_path).hospital("lille", datasets=source)
    Admissions.open(config.admissions).propose(STUDY.sha256, STUDY.name, STUDY.canonical)
    return config


def typed(config: SiteConfig, capsys: Output, *words: str) -> str:
    capsys.readouterr()
    assert main(["-C", str(config.folder), *words]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_a_waiting_study_is_one_page_that_says_what_it_reads_what_would_leave_and_what_it_costs(
    lille: SiteConfig, capsys: Output
) -> None:
    plan = plan_for(STUDY, "lille", 100)
    with Ledger.open(lille.ledger).reserve(Release("cardiology", "ab" * 32, 1, plan.round_event), plan):
        pass
    spent = Ledger.open(lille.ledger).spent("cardiology", delta=lille.policy.delta)
    assert spent > 0.1
    page = typed(lille, capsys, "review")
    numbers = sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape, _ in study_parameters(STUDY).values())
    rounds = STUDY.training.rounds
    for said in (
        f"purpose | {STUDY.purpose}",
        "reads 'age': a number from 20 to 90 'sex': one of 'female', 'male' 'disease': the outcome ('0', '1')",
        f"learns {STUDY.task.type} '{STUDY.task.target}' ('0', '1') with a {STUDY.model.name} model",
        f"rounds {rounds}, with at least {STUDY.training.quorum} hospitals",
        f"{numbers} numbers of the trained model ({4 * numbers} bytes, and some hundreds of packing), in all at most "
        f"{numbers * rounds:,} numbers",
        f"epsilon {STUDY.privacy.epsilon:g} at delta {STUDY.privacy.delta:g}",
        f"epsilon {spent:.2f} of 8 is spent on this data set",
        f"{8 - spent:.2f} is left",
        f"digest {STUDY.sha256}",
        f"archipel-site -C {lille.folder} approve {STUDY.sha256[:20]}",
    ):
        assert said in page, said


def test_the_page_says_where_a_study_asks_for_the_reference_engine(lille: SiteConfig, capsys: Output) -> None:
    assert "for comparison" not in typed(lille, capsys, "review")
    asks = study(training={"local": {"batch_size": "full", "learning_rate": 0.5, "engine": "opacus"}})
    Admissions.open(lille.admissions).propose(asks.sha256, asks.name, asks.canonical)
    assert "BUT by Opacus's engine (training.local.engine), which is for comparison" in typed(lille, capsys, "review")


def test_an_approval_is_for_one_digest_and_a_changed_study_waits_anew(lille: SiteConfig, capsys: Output) -> None:
    assert STUDY.sha256 in typed(lille, capsys, "approve", STUDY.sha256[:20])
    changed = study(seed=1)
    Admissions.open(lille.admissions).propose(changed.sha256, changed.name, changed.canonical)
    page = typed(lille, capsys, "review")
    assert f"digest {changed.sha256}" in page
    assert f"digest {STUDY.sha256}" not in page
    assert f"approved: {STUDY.name} {STUDY.sha256[:20]}" in page


def test_a_refusal_keeps_its_reason_here(lille: SiteConfig, capsys: Output) -> None:
    typed(lille, capsys, "refuse", STUDY.sha256, "--why", "the DPO says no")
    (fact,) = [record.facts for record in journal.read(lille.journal) if record.kind == "refused study"]
    assert (fact["study"], fact["why"]) == (STUDY.sha256, "the DPO says no")
    assert f"refused: {STUDY.name} {STUDY.sha256[:20]} (the DPO says no)" in typed(lille, capsys, "review")
    with pytest.raises(SystemExit):
        main(["-C", str(lille.folder), "refuse", STUDY.sha256])


def test_the_outbox_says_when_for_which_study_and_round_what_how_large_and_its_hash(
    lille: SiteConfig, capsys: Output
) -> None:
    assert typed(lille, capsys, "outbox") == "nothing has left"
    frame = Frame("refusal", {"code": 105, "reason": "the hospital could not train; its own log says why"})
    Audit(lille, load_signing_key(lille)).keep(
        frame, "c0ffee00" * 4, study=STUDY.sha256, round=3, answers="asked", content="ab"
    )
    line = typed(lille, capsys, "outbox")
    assert re.fullmatch(
        rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d c0ffee00 study {STUDY.sha256[:20]} round 3 refusal "
        rf"{len(b''.join(frame.encode()))} bytes sha256 {frame.sha256[:16]} "
        "answered: the hospital could not train; its own log says why",
        line,
    )
    shown = typed(lille, capsys, "outbox", "--show", "c0ffee00")
    assert f"sha256 {frame.sha256}, as the journal says code: 105 reason: the hospital could not train" in shown


def test_a_study_of_before_that_announces_no_sizes_is_shown_as_one_that_cannot_run_and_its_ledger_is_told(
    lille: SiteConfig, capsys: Output
) -> None:
    document = json.loads(STUDY.canonical) | {"cohort": {}}
    Admissions.open(lille.admissions).propose("cd" * 32, "of-before", json.dumps(document))
    plan = plan_for(STUDY, "lille")
    with Ledger.open(lille.ledger).reserve(Release("cardiology", "cd" * 32, 1, plan.round_event), plan):
        pass
    page = typed(lille, capsys, "review")
    assert "of-before: waiting, and cannot run: " in page
    assert "cohort: expected each hospital's announced patients, found" in page
    assert f"refuse {'cd' * 10} --why REASON" in page
    assert f"digest {STUDY.sha256}" in page
    assert f"of-before {'cd' * 10}: epsilon" in typed(lille, capsys, "ledger")


@pytest.mark.parametrize("command", ["review", "ledger", "outbox", "check"])
def test_what_is_data_is_printed_as_json_for_monitoring(lille: SiteConfig, capsys: Output, command: str) -> None:
    main(["-C", str(lille.folder), command, "--json"])
    assert isinstance(json.loads(capsys.readouterr().out), list)
