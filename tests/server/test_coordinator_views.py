"""What `archipel-coordinator` has to say is data; text and JSON are made of it, without a process."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from configs.coordinator import coordinator_yaml
from configs.errors import RunError
from configs.journal import Journal
from configs.records.run_journal import Gathered, Joined, Postponed, Refused, Resumed, Round
from configs.shown import guarded
from configs.strict_yaml import dump_yaml
from configs.views import to_json
from server.folder import CoordinatorFolder
from server.membership import Member, Membership, Talk
from server.views import runs, sites, text
from tests.builders import study

STUDY = study()


@pytest.fixture
def folder(tmp_path: Path) -> CoordinatorFolder:
    (tmp_path / "coordinator.yaml").write_text(coordinator_yaml("Heart", ["localhost"], "127.0.0.1:8443"))
    opened = CoordinatorFolder.open(tmp_path)
    members = Membership.open(opened.config.database)
    for number, site in enumerate(STUDY.sites):
        members.admit(Member(site, site.encode(), f"{number:064x}", until(days=365)))
    run = opened.config.runs / "first"
    run.mkdir(parents=True)
    (run / "study.yaml").write_text(dump_yaml(STUDY.to_dict()))
    members.submit("first")
    members.close()
    return opened


def until(days: int) -> str:
    return (datetime.now(UTC) + timedelta(days=days, hours=1)).isoformat()


def test_a_hospital_is_a_row_and_what_is_odd_about_it_stands_behind(folder: CoordinatorFolder) -> None:
    members = folder.members
    first, second, *_ = STUDY.sites
    members.set_connected({first: True})
    members.set_talk(first, Talk(2, "0.0.1", 1))
    members.revoke(second)
    views = {view.site: view for view in sites.sites(members)}
    assert (views[first].state, views[first].days_left, views[first].release) == ("connected", 365, "0.0.1")
    assert views[second].state == "revoked"
    assert f"its node has archipel 0.0.1, here runs {views[first].coordinators_release}" in text.site(views[first])
    assert json.loads(to_json(list(views.values())))[0]["without_certificate"] is False


@pytest.mark.parametrize(("days", "note"), [(31, ""), (20, "expires soon"), (-1, "EXPIRED")])
def test_a_certificate_that_ends_is_said_before_it_ends(days: int, note: str) -> None:
    line = text.site(sites.Site("lille", "connected", "2026-01-01T00:00:00", days, False, "", "0.1.0"))
    assert line.endswith("until 2026-01-01") if not note else note in line


def test_a_run_says_what_each_hospital_does(folder: CoordinatorFolder) -> None:
    first, second, *others = STUDY.sites
    members = folder.members
    members.set_connected({first: True})
    members.set_presence("first", first, "takes part", "1.25")
    (run,) = runs.runs(folder)
    assert (run.name, run.state, run.report, run.parts) == ("first", "QUEUED", "", ())
    epsilon = STUDY.privacy.epsilon
    assert run.presence[0] == runs.Presence(first, "takes part", connected=True, epsilon="1.25", of=epsilon)
    assert not run.presence[1].connected
    lines = list(text.runs([run]))
    assert lines[1] == f"  {first:20} takes part, epsilon 1.25 of {STUDY.privacy.epsilon:g}"
    assert lines[2] == f"  {second:20} not connected (has not answered yet)"
    assert lines[-1].startswith("epsilon: per patient")
    assert len(lines) == 4 + len(others)


def test_one_run_says_to_how_many_rounds_each_contributed_and_why_not_to_more(folder: CoordinatorFolder) -> None:
    first, second, *_ = STUDY.sites
    journal = Journal(folder.config.runs / "first" / "journal.jsonl")
    for number in (1, 2):
        entry = Round(round=number, contributed={first: 9}, missing={second: "\x1b[2J"}, seconds=1.0)
        journal.append(entry.kind, **entry.to_facts())
    folder.members.set_state("first", "INCOMPLETE", "why")
    (run,) = runs.runs(folder, "first")
    parts = {part.site: part for part in run.parts}
    assert (parts[first].rounds, parts[first].of, parts[first].reason) == (2, 2, "")
    assert (parts[second].rounds, parts[second].reason) == (0, "\x1b[2J")
    assert all("\x1b" not in guarded(line) for line in text.runs([run]))
    assert json.loads(to_json(run))["why"] == "why"


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (
            Gathered(study_sha256="ab", sites=("lille",), bytes={}, missing={"lyon": "away"}),
            "gathered: lille; lyon: away",
        ),
        (Joined(sites=("lyon",), bytes={}, before_round=3), "lyon: takes part from round 3 on"),
        (Postponed(why="a quorum left"), "postponed: a quorum left"),
        (Refused(site="lyon", reason="no"), "lyon: no"),
        (Refused(reason="no"), ""),
        (Resumed(after_round=2), "goes on after round 2"),
        (
            Round(round=1, contributed={"lille": 9}, missing={}, seconds=2.0),
            "round 1/5  2.00 s  lille; epsilon left: lille 1.50",
        ),
        (None, ""),
    ],
)
def test_who_watches_sees_a_line_of_each_record_that_matters(entry: object, line: str) -> None:
    assert text.progress(entry, 5, 3.0, {"lille": "1.5"}) == line  # type: ignore[arg-type]


def test_a_run_that_is_none_is_said_to_be_none(folder: CoordinatorFolder) -> None:
    assert folder.run("latest") == folder.run("first") == "first"
    with pytest.raises(RunError, match="expected a run's name"):
        folder.run("second")
