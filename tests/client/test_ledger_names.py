"""Ledgers that were written before releases had names: what they hold counts as it did, and what is new has a name."""

import sqlite3
from pathlib import Path

import pytest

from client import ledger_file
from client.ledger import Ledger, Release
from client.reconcile import Facts, contradictions
from client.traces import Traces
from configs import database
from configs.errors import BegunError, RunError, SpareError
from configs.records.site_journal import Booked, Sent
from strategies.privacy.accounting import SampledGaussian
from strategies.privacy.plan import Budget, calibrate

FORMER = Path(__file__).parent / "ledger_version_2.sql"  # written by the release before
HEAD = "cece1b1757211729aaf31ba8a85016f117ead30641e4333439fd99e20297f782"  # that its journal noted
TRAINED, COUNTED = "7" * 64, "c" * 64
DELTA = 1e-5
HISTOGRAM, STATISTICS = "score histogram", "statistics"
PLAN = calibrate(Budget(30.0, DELTA), clip_norm=1.0, sampling_rate=1.0, steps_per_round=1, rounds=9, patients=200)


def former(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(FORMER.read_text())
    connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    former(tmp_path / "ledger.sqlite")
    return tmp_path / "ledger.sqlite"


def release(number: int, name: str = "model update", study: str = TRAINED, attempt: int = 0) -> Release:
    return Release("heart", study, number, PLAN.round_event, attempt=attempt, release=name)


def test_a_former_ledger_is_opened_as_it_was_and_a_copy_of_it_is_kept(path: Path) -> None:
    before = path.read_bytes()
    ledger = Ledger.open(path)
    assert ledger.flaw == ""
    assert ledger.head == (7, HEAD)
    assert ledger.spent("heart", delta=DELTA) == pytest.approx(3.058103924612447, abs=1e-12)
    assert ledger.spent("kidney", delta=DELTA) == pytest.approx(0.34273699029956717, abs=1e-12)
    ledger.close()
    kept = path.with_name("ledger.sqlite.version-2")
    assert kept.stat().st_mode & 0o077 == 0
    with sqlite3.connect(kept) as copy, sqlite3.connect(f"file:{path}?mode=ro", uri=True) as now:
        rows = copy.execute("SELECT * FROM releases ORDER BY id").fetchall()
        columns = [column[1] for column in copy.execute("PRAGMA table_info(releases)")]
        assert now.execute(f"SELECT {', '.join(columns)} FROM releases ORDER BY id").fetchall() == rows
        assert copy.execute("PRAGMA user_version").fetchone()[0] == 2
    former(again := path.with_name("again.sqlite"))
    assert before == again.read_bytes()  # the fixture itself is what was opened


def test_what_was_booked_by_a_number_is_booked_by_its_name(path: Path) -> None:
    ledger = Ledger.open(path)
    assert [ledger.booked("heart", TRAINED, number) for number in (1, 2, 3, 4)] == [True, True, True, False]
    assert ledger.booked("heart", TRAINED, 2, attempt=1)
    assert ledger.booked("heart", TRAINED, 0, release=HISTOGRAM)
    assert ledger.booked("kidney", COUNTED, 0, release=STATISTICS)
    assert not ledger.booked("heart", TRAINED, 0, release="survival counts")
    with pytest.raises(BegunError, match=r"^the evaluation: it was begun before"):
        ledger.require_spare(release(0, HISTOGRAM), 5)
    assert ledger.asked_once("heart", TRAINED) == [HISTOGRAM]


@pytest.mark.parametrize(
    ("dataset", "study", "number", "name"),
    [("heart", TRAINED, 0, HISTOGRAM), ("kidney", COUNTED, 0, STATISTICS), ("heart", TRAINED, 3, "model update")],
)
def test_another_attempt_at_what_was_booked_by_a_number_takes_a_spare_release(
    path: Path, dataset: str, study: str, number: int, name: str
) -> None:
    """The study has made one release anew before at heart, and none at kidney."""
    ledger, spent = Ledger.open(path), 1 if dataset == "heart" else 0
    again = Release(dataset, study, number, PLAN.round_event, None, 1, name)
    ledger.require_spare(again, spent + 1)
    with pytest.raises(SpareError):
        ledger.require_spare(again, spent)


def test_new_releases_have_their_names_in_the_chain(path: Path) -> None:
    ledger = Ledger.open(path)
    for booking in (release(4), release(0, "survival counts", study="b" * 64)):
        with ledger.reserve(booking, PLAN):
            pass
    ledger.close()
    with database.connect(path) as connection:
        assert ledger_file.flaw_of(connection) == ""
        names = [row[0] for row in connection.execute("SELECT release FROM releases ORDER BY id")]
        assert names == [None] * 7 + ["model update", "survival counts"]
        connection.execute("UPDATE releases SET release = NULL WHERE id = 8")
        assert ledger_file.flaw_of(connection).startswith("row 8 is not as it was written")
        connection.execute("UPDATE releases SET release = 'model update' WHERE id = 8")
        connection.execute("UPDATE releases SET release = 'model update' WHERE id = 2")
        assert ledger_file.flaw_of(connection).startswith("row 2 is not as it was written")


def test_the_former_ledger_put_back_is_behind_what_the_journal_lists(path: Path) -> None:
    ledger = Ledger.open(path)
    with ledger.reserve(release(4), PLAN):
        pass
    (rows, digest), listed = ledger.head, ledger.releases(after=7)
    ledger.close()
    path.unlink()
    former(path)
    back = Ledger.open(path)
    traces = Traces()
    traces.take(Booked(rows=rows, ledger=digest, releases=tuple(listed)))
    facts = Facts(rows=back.head[0], noted=traces.noted, digest=back.digest_at(rows), booked=back.places())
    assert contradictions(facts) == ["ledger.sqlite holds 7 releases, the journal lists 8; it was deleted or put back"]


def test_a_journal_of_before_fits_a_ledger_of_now(path: Path) -> None:
    """The journal quotes rows and their last digest, and names replies by their forms."""
    ledger = Ledger.open(path)
    rows = [row[:-1] for row in ledger.releases()]  # as they were written then
    traces = Traces()
    traces.take(Booked(rows=7, ledger=HEAD, releases=tuple(rows)))
    assert traces.listed == ledger.releases()
    forms = (("train reply", TRAINED, 3), ("evaluate reply", TRAINED, 0), ("statistics reply", COUNTED, 1))
    for form, study, number in forms:
        traces.take(Sent.from_facts({"message": form, "study": study, "round": number, "form": form}))
    assert traces.left == {(TRAINED, "model update", 3), (TRAINED, HISTOGRAM, 0), (COUNTED, STATISTICS, 0)}
    left = frozenset((study, *ledger_file.place(name, number)) for study, name, number in traces.left)
    facts = Facts(rows=7, noted=traces.noted, digest=ledger.digest_at(7), left=left, booked=ledger.places())
    assert contradictions(facts) == []


def test_a_ledger_of_a_later_release_is_refused_and_not_written(path: Path) -> None:
    Ledger.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {ledger_file.VERSION + 1}")
    connection.close()
    before = sorted((file.name, file.read_bytes()) for file in path.parent.iterdir())
    with pytest.raises(RunError, match="written by a newer version"):
        Ledger.open(path)
    assert sorted((file.name, file.read_bytes()) for file in path.parent.iterdir()) == before


def test_what_a_later_kind_of_release_costs_is_counted_where_the_kind_is_not_installed(path: Path) -> None:
    ledger = Ledger.open(path)
    before = ledger.spent("heart", delta=DELTA)
    booking = Release("heart", "d" * 64, 0, SampledGaussian(2.0, 1.0, 1), release="survival counts")
    with ledger.reserve(booking, PLAN, Budget(9.0, DELTA)):
        pass
    assert ledger.spent("heart", delta=DELTA) > before
    assert booking.what == "the survival counts"
