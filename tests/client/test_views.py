"""What `archipel-site` has to say is data; text and JSON are made of it, without a process."""

import json
from dataclasses import replace

import pytest

from client.admission import Admission, Admissions
from client.folder import SiteFolder
from client.ledger import Ledger, Release
from client.views import notices, outbox, review, spending, text
from client.views.journal import Entry
from configs.shown import DIGITS
from configs.site import SiteConfig
from configs.views import to_json
from strategies.privacy.modes.local import plan_for
from tests.client.test_site_commands import STUDY, lille

__all__ = ["lille"]  # a fixture


@pytest.fixture
def folder(lille: SiteConfig) -> SiteFolder:
    return SiteFolder(lille, lille.folder)


def test_a_page_is_rows_and_the_commands_that_may_follow(folder: SiteFolder) -> None:
    (admission,) = [a for a in folder.admissions.all() if a.sha256 == STUDY.sha256]
    page = review.page_of(folder, admission)
    rows = {row.title: row.text for row in page.rows}
    assert (page.name, page.digest, page.state, page.flaw, page.over) == (
        STUDY.name,
        STUDY.sha256,
        "waiting",
        "",
        False,
    )
    assert rows["digest"] == STUDY.sha256
    assert rows["announced"].endswith("hospitals") or rows["announced"].endswith("hospital")
    assert [command.typed.split()[3] for command in page.commands] == ["review", "approve", "refuse"]
    printed = text.page(page)
    assert all(row.title in printed for row in page.rows)
    assert json.loads(to_json([page]))[0]["rows"][0] == {"title": "purpose", "text": rows["purpose"]}


def test_a_study_that_breaks_its_page_has_one_that_says_so(folder: SiteFolder) -> None:
    broken = Admission("ab" * 32, "odd\x1b[2J", "{", "waiting", "", "now")
    page = review.page_of(folder, broken)
    assert (page.rows, len(page.commands)) == ((), 1)
    assert "cannot" in page.flaw
    assert "\x1b" not in text.page(page)


def test_a_study_that_was_decided_says_what_was_decided_and_why(folder: SiteFolder) -> None:
    Admissions.open(folder.config.admissions).decide(STUDY.sha256[:DIGITS], "refused", "no time")
    (view,) = [v for v in review.decided(folder) if v.digest == STUDY.sha256]
    assert (view.state, view.why, view.over) == ("refused", "no time", False)
    assert text.decided(view).startswith(f"refused: {STUDY.name} {STUDY.sha256[:DIGITS]} (no time)")


def test_spending_is_numbers_by_data_set_and_study(folder: SiteFolder) -> None:
    assert list(spending.spending(folder)) == []
    assert list(text.spending([])) == ["nothing is spent yet"]
    plan = plan_for(STUDY, "lille")
    with Ledger.open(folder.config.ledger).reserve(Release("cardiology", STUDY.sha256, 1, plan.round_event), plan):
        pass
    (view,) = spending.spending(folder)
    (study,) = view.studies
    assert (view.dataset, study.name, study.digest, study.rounds, study.lost) == (
        "cardiology",
        STUDY.name,
        STUDY.sha256,
        1,
        0,
    )
    assert 0 < study.epsilon == view.spent
    assert view.spent + view.left == pytest.approx(view.max_epsilon)
    first, second = text.spending([view])
    assert first.startswith(f"cardiology: epsilon {view.spent:.3f} spent")
    assert second.startswith(f"  {STUDY.name} {STUDY.sha256[:DIGITS]}: epsilon")
    assert json.loads(to_json([view]))[0]["studies"][0]["rounds"] == 1


def test_a_departure_that_was_repeated_is_one_line() -> None:
    view = outbox.Departure("2026-01-01T00:00:00", "ab" * 16, "cd" * 32, 0, "not yet", 1234, "ef" * 32, "answered: no")
    assert "times more" not in text.departure(view)
    more = replace(view, more=3, until="2026-01-02T00:00:00")
    assert text.departure(more) == f"{text.departure(view)}, and 3 times more until 2026-01-02T00:00:00"


def test_an_opened_message_shows_its_fields_its_arrays_and_its_counts() -> None:
    array = outbox.OpenedArray("bias", (1,), "float32", "[0.5]")
    view = outbox.OpenedMessage("ab", "train reply", "cd", {"loss": 1}, (array,), {"age": {"unknown": 2.4}})
    assert text.opened(view).splitlines() == [
        "ab: train reply, sha256 cd, as the journal says",
        "  loss: 1",
        "  bias [1] float32: [0.5]",
        "  counts of patients, noise included:",
        "  age: unknown 2",
    ]


def test_a_record_of_the_journal_is_on_one_line_whatever_stands_in_it() -> None:
    line = text.entry(Entry("2026-01-01T00:00:00", 7, "refused", {"why": "a\nb\x1b"}))
    assert line == "2026-01-01T00:00:00        7  refused        why 'a\\nb\\x1b'"


def test_a_notice_has_what_to_do_below_it() -> None:
    assert text.notice(notices.Notice("it is so")) == "WARNING  it is so"
    assert text.notice(notices.Notice("it is so", "mend it")) == "WARNING  it is so\n         mend it"
