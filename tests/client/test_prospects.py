"""What `archipel-site` says before, between and after: can it run, who decided when, what left, what comes next."""

import contextlib
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client.admission import Admissions
from client.audit import Audit
from client.cli import main
from client.enrol import load_signing_key, load_welcome
from client.ledger import Ledger, Release
from client.views import notices
from configs import wire
from configs.frame import Frame
from configs.lock import only_one
from configs.papers import to_json
from configs.schema import Study
from configs.site import SiteConfig, load_site
from configs.strict_yaml import dump_yaml, read_yaml
from strategies.privacy.modes.local import plan_for
from tests.builders import counting, plain, study
from tests.consortium import Consortium

Output = pytest.CaptureFixture[str]
STUDY = study()
NOT_YET = Frame(
    "refusal", {"code": wire.WAITING_FOR_APPROVAL, "reason": "the hospital has not approved this study yet"}
)


@pytest.fixture
def lille(tmp_path: Path) -> SiteConfig:
    source = {STUDY.name: {"connector": "csv", "path": str(tmp_path / "patients.csv"), "identity": "cardiology"}}
    return Consortium(tmp_path).hospital("lille", datasets=source)


def changed(config: SiteConfig, **sections: Any) -> SiteConfig:
    """The hospital with other sections in its site.yaml."""
    path = config.folder / "site.yaml"
    path.write_text(dump_yaml(read_yaml(path) | sections))
    return load_site(config.folder)


def waiting(config: SiteConfig, *studies: Study) -> None:
    for one in studies:
        Admissions.open(config.admissions).propose(one.sha256, one.name, one.canonical)


def typed(config: SiteConfig, capsys: Output, *words: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(["-C", str(config.folder), *words]) == code
    said = capsys.readouterr()
    return " ".join((said.out + said.err).split())


def spent(config: SiteConfig, epsilon: float) -> None:
    """Another study has spent about so much of the data set."""
    other = study(seed=99, privacy={"epsilon": epsilon})
    plan = plan_for(other, "lille")
    ledger = Ledger.open(config.ledger)
    for number in range(1, other.training.rounds + 1):
        with ledger.reserve(Release("cardiology", other.sha256, number, plan.round_event), plan):
            pass
    ledger.close()


def no_data_set(config: SiteConfig) -> Study:
    changed(config, datasets={})
    return STUDY


def too_expensive(config: SiteConfig) -> Study:
    changed(config, policy={"max_epsilon": 2.0})
    return STUDY


def nothing_left(config: SiteConfig) -> Study:
    spent(config, 7.0)
    return STUDY


def too_few(config: SiteConfig) -> Study:
    changed(config, policy={"min_patients": 101})  # lille announces 100
    return STUDY


def too_large(config: SiteConfig) -> Study:
    changed(config, policy={"max_message_mb": 6})
    return study(model={"name": "mlp", "hidden": [4096, 4096]})


def not_of_the_cohort(config: SiteConfig) -> Study:
    return study(cohort={"brest": 60, "lyon": 80})


OBSTACLES: dict[str, tuple[Callable[[SiteConfig], Study], str]] = {
    "no data set": (no_data_set, "site.yaml names no data set for it"),
    "no privacy": (lambda config: plain(), "it trains without differential privacy"),
    "more than the cap": (too_expensive, "it needs epsilon"),
    "more than is left": (nothing_left, "is left of the data set's 8"),
    "too few patients announced": (too_few, "fewer than 101 (min_patients)"),
    "a large model": (too_large, "max_message_mb"),
    "not of the cohort": (not_of_the_cohort, "cohort: expected lille"),
}


@pytest.mark.parametrize(("arrange", "why"), OBSTACLES.values(), ids=OBSTACLES)
def test_what_cannot_run_here_says_so_first_and_is_not_approved(
    lille: SiteConfig, capsys: Output, arrange: Callable[[SiteConfig], Study], why: str
) -> None:
    one = arrange(lille)
    waiting(lille, one)
    page = typed(lille, capsys, "review")
    assert "CANNOT RUN HERE: " in page
    assert why in page
    assert page.index("CANNOT RUN HERE") < page.index("purpose")
    assert f"approve {one.sha256[:20]}" not in page
    assert f"refuse {one.sha256[:20]}" in page
    said = typed(lille, capsys, "approve", one.sha256, code=2)
    assert "cannot run here, so it is not approved" in said
    assert why in said
    assert [a.state for a in Admissions.open(lille.admissions).all()] == ["waiting"]


@pytest.mark.parametrize("one", [STUDY, counting()], ids=["training", "statistics"])
def test_what_can_run_is_offered_and_its_approval_says_what_comes_next(
    lille: SiteConfig, capsys: Output, one: Study
) -> None:
    changed(lille, datasets={one.name: read_yaml(lille.folder / "site.yaml")["datasets"][STUDY.name]})
    waiting(lille, one)
    page = typed(lille, capsys, "review")
    assert "CANNOT RUN" not in page
    assert f"approve {one.sha256[:20]} or" in page
    look = f"archipel-site -C {lille.folder} review --data {one.sha256[:20]} to see first"
    assert page.index(look) < page.index(f"approve {one.sha256[:20]}")
    said = typed(lille, capsys, "approve", one.sha256[:20])
    assert f"({one.training.quorum} of 3)" in said
    assert "WARNING" not in said
    assert f"no longer, at any time: archipel-site -C {lille.folder} refuse {one.sha256[:20]} --why REASON" in said
    assert Admissions.open(lille.admissions).require_known(one.sha256).state == "approved"


def test_the_page_explains_the_clip_norm_and_why_there_are_two_epsilons(lille: SiteConfig, capsys: Output) -> None:
    waiting(lille, STUDY)
    page = typed(lille, capsys, "review")
    assert "(its gradient) is cut to a length of at most 1 (clip norm)" in page
    assert "The study states its epsilon at its own delta, 1e-05; this budget is counted at site.yaml's, 1e-06" in page
    changed(lille, policy={"delta": 1e-5})
    assert "its own delta" not in typed(lille, capsys, "review")


def test_an_approval_says_that_the_node_follows_a_former_site_yaml(
    lille: SiteConfig, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting(lille, STUDY)
    monkeypatch.setattr(notices, "outdated", lambda _config: True)
    said = typed(lille, capsys, "approve", STUDY.sha256)
    assert f"approved: {STUDY.name}" in said
    assert "site.yaml changed since the node started, which follows the former one: restart the node" in said


def left(config: SiteConfig, form: str, number: int, message: str, frame: Frame | None = None) -> None:
    frame = frame or Frame(form, {})
    Audit(config, load_signing_key(config)).keep(
        frame, message, study=STUDY.sha256, round=number, answers="a", content=f"{form}{number}"
    )


def test_a_study_that_is_over_says_so_and_offers_nothing_to_decide(lille: SiteConfig, capsys: Output) -> None:
    waiting(lille, STUDY)
    typed(lille, capsys, "approve", STUDY.sha256)
    for number in range(1, STUDY.training.rounds + 1):
        assert "OVER here" not in typed(lille, capsys, "review")
        left(lille, "train reply", number, f"{number:032x}")
    assert f"approved: {STUDY.name} {STUDY.sha256[:20]}: 3 rounds sent" in typed(lille, capsys, "review")
    page = typed(lille, capsys, "review", STUDY.sha256)
    assert "approved, OVER here" in page
    assert "3 rounds sent" in page
    assert f"approve {STUDY.sha256[:20]}" not in page
    assert f"refuse {STUDY.sha256[:20]}" not in page


def test_an_approved_study_is_not_offered_again(lille: SiteConfig, capsys: Output) -> None:
    waiting(lille, STUDY)
    typed(lille, capsys, "approve", STUDY.sha256)
    page = typed(lille, capsys, "review", STUDY.sha256)
    assert f"approve {STUDY.sha256[:20]}" not in page
    assert f"refuse {STUDY.sha256[:20]} --why REASON" in page


def test_review_says_why_nothing_waits(lille: SiteConfig, capsys: Output) -> None:
    said = typed(lille, capsys, "review")
    assert f"its node does not run, and only a node receives studies: archipel-site -C {lille.folder} start" in said
    with only_one(lille.lock, "", lille.sha256):
        said = typed(lille, capsys, "review")
    assert "no study waits for this hospital yet; one that was just submitted arrives within a minute" in said


def test_next_commands_name_the_folder_as_it_was_typed(
    lille: SiteConfig, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting(lille, STUDY)
    monkeypatch.chdir(lille.folder.parent)
    capsys.readouterr()
    for words in (("review",), ("approve", STUDY.sha256)):
        assert main(["-C", "lille", *words]) == 0
    said = capsys.readouterr().out
    assert "archipel-site -C lille approve" in said
    assert "archipel-site -C lille refuse" in said
    assert f"-C {lille.folder}" not in said


# What left, and who decided


def test_the_outbox_folds_equal_refusals_and_says_what_they_answer(lille: SiteConfig, capsys: Output) -> None:
    for n in range(5):
        left(lille, "refusal", 0, f"{n:032x}", NOT_YET)
    left(lille, "hello reply", 0, "a" * 32)
    left(lille, "train reply", 1, "b" * 32)
    left(lille, "train reply", 2, "c" * 32)
    left(lille, "refusal", 0, "d" * 32, NOT_YET)
    capsys.readouterr()
    assert main(["-C", str(lille.folder), "outbox"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [re.split(r" {2,}", line)[1] for line in lines] == [
        "00000000",
        "aaaaaaaa",
        "bbbbbbbb",
        "cccccccc",
        "dddddddd",
    ]
    assert " not yet " in lines[0]
    assert "answered: the hospital has not approved this study yet, and 4 times more until 2" in lines[0]
    assert "answered" not in lines[1]
    assert "times more" not in lines[4]


def test_the_journal_can_be_read_and_tells_who_approved_when(
    lille: SiteConfig, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert typed(lille, capsys, "journal", "show") == ""
    waiting(lille, STUDY)
    monkeypatch.setenv("SUDO_USER", "dpo.martin")
    typed(lille, capsys, "approve", STUDY.sha256)
    left(lille, "train reply", 1, "b" * 32)
    typed(lille, capsys, "refuse", STUDY.sha256, "--why", "a patient\x1b[2J objects")
    capsys.readouterr()
    assert main(["-C", str(lille.folder), "journal", "show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert re.match(
        rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d +1  approved +study {STUDY.name} {STUDY.sha256[:20]}, by dpo.martin$",
        lines[0],
    )
    assert "\x1b" not in "".join(lines)
    assert r"a patient\x1b[2J objects" in lines[2]
    decisions = typed(lille, capsys, "journal", "show", "--decisions")
    assert "approved" in decisions
    assert "train reply" not in decisions


# Another authority


def test_a_welcome_of_another_authority_or_key_needs_a_person_who_says_replace(
    tmp_path: Path, lille: SiteConfig, capsys: Output
) -> None:
    mine = load_welcome(lille)
    own = lille.folder / "paper.json"
    said = typed(lille, capsys, "join", str(own))  # the same again
    assert "restart it if the address, the authority or the coordinator's key is another" in said
    (tmp_path / "theirs").mkdir()
    other = Consortium(tmp_path / "theirs")
    from client.enrol import enrol

    certificate, _ = other.pki.sign(enrol(lille)[1], "request", None)
    paper = tmp_path / "theirs.json"
    paper.write_bytes(to_json(other.welcome("lille", certificate)))
    said = typed(lille, capsys, "join", str(paper), code=2)
    assert "ca_certificate: expected the authority of the welcome that was joined before" in said
    assert "coordinator_key: expected the key" in said
    assert mine.fingerprint in said
    assert "join again with --replace" in said
    assert load_welcome(lille) == mine
    typed(lille, capsys, "join", str(paper), "--replace")
    assert load_welcome(lille) != mine


def test_a_study_that_was_stopped_is_named_as_such_and_asks_nobody_to_decide(lille: SiteConfig, capsys: Output) -> None:
    waiting(lille, STUDY)
    admissions = Admissions.open(lille.admissions)
    admissions.passed(3599.0)
    assert "purpose" in typed(lille, capsys, "review")
    admissions.passed(2.0)
    page = typed(lille, capsys, "review")
    assert "purpose" not in page
    assert f"not proposed any more: {STUDY.name} {STUDY.sha256[:20]}" in page
    assert "purpose" in typed(lille, capsys, "review", STUDY.sha256[:20])  # it can still be looked at
    main(["-C", str(lille.folder), "check"])
    assert "waits for a person here" not in " ".join(capsys.readouterr().out.split())
    admissions.proposed(STUDY.sha256)
    assert "purpose" in typed(lille, capsys, "review")
    admissions.decide(STUDY.sha256, "approved")
    admissions.passed(5000.0)
    assert "not proposed any more" not in typed(lille, capsys, "review")


def test_admissions_of_an_earlier_release_are_opened(tmp_path: Path) -> None:
    path = tmp_path / "admissions.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.execute(
            "CREATE TABLE studies (sha256 TEXT PRIMARY KEY, name TEXT NOT NULL, canonical TEXT NOT NULL, state TEXT NOT"
            " NULL CHECK (state IN ('waiting', 'approved', 'refused')), why TEXT NOT NULL DEFAULT '', arrived TEXT NOT"
            " NULL DEFAULT '2026-01-01T00:00:00Z')"
        )
        old.execute("INSERT INTO studies (sha256, name, canonical, state) VALUES ('ab', 'heart', '{}', 'waiting')")
        old.commit()
    for _ in range(2):
        admissions = Admissions.open(path)
        assert [(a.name, a.waits) for a in admissions.all()] == [("heart", True)]
        admissions.close()


def test_check_says_that_a_study_waits_and_how_to_look_at_it(lille: SiteConfig, capsys: Output) -> None:
    waiting(lille, STUDY)
    main(["-C", str(lille.folder), "check"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"note study: {STUDY.name} {STUDY.sha256[:20]} waits for a person here: archipel-site" in said
    assert f"-C {lille.folder} review {STUDY.sha256[:20]}" in said
