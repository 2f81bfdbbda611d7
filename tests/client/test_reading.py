"""A patient who leaves is gone: what a living worker trains on, when it reads again, and what is written down of it."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import reading
from client.audit import Audit
from client.cli import main
from client.egress import REFUSAL
from client.enrol import load_signing_key
from client.patients import Split, load_patients
from client.reading import Reading, source_in
from client.worker import _answered
from configs import journal
from configs.errors import ConfigError, SourceError
from configs.frame import Frame
from configs.lock import only_one
from configs.schema import CsvFile, DataSource
from configs.site import load_site
from tests.builders import study
from tests.client.test_no_row_is_told import HEADER, Hospital, asked, requests
from tests.client.test_review_of_data import hospital, shown

ROWS = [f"p{n},{20 + n},male,{n % 2}" for n in range(10)]
STUDY = study(patient_id="ipp")


@dataclass
class Source:
    """A file of rows, a clock that is turned by hand, and a count of readings."""

    folder: Path
    now: float = 1000.0
    readings: int = 0
    chosen: list[DataSource] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.write(self.path, ROWS)
        self.chosen = [CsvFile(self.path)]

    @property
    def path(self) -> Path:
        return self.folder / "data.csv"

    def write(self, path: Path, rows: list[str]) -> None:
        """As an export does: a new file in the place of the old one."""
        part = path.with_suffix(".part")
        part.write_text("\n".join([HEADER, *rows]) + "\n")
        part.replace(path)

    def reading(self, **options: Any) -> Reading:
        usual: dict[str, Any] = {"reread_s": 100.0, "clock": lambda: self.now, "asked": self.folder / "reread"}
        return Reading(lambda: self.chosen[-1], STUDY, "lille", **(usual | options))


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    made = Source(tmp_path)

    def counted(*arguments: Any) -> Split:
        made.readings += 1
        return load_patients(*arguments)

    monkeypatch.setattr(reading, "load_patients", counted)
    return made


def people(one: Reading) -> int:
    count: int = one.patients().train.count
    return count


def test_rounds_share_a_reading_and_its_bits(source: Source) -> None:
    one = source.reading()
    digests = set()
    for _ in range(3):
        assert not one.renew_if_due() or source.readings == 1
        digests.add(one.patients().train.digest)
        source.now += 10
    assert (source.readings, len(digests)) == (1, 1)


CHANGES: dict[str, Callable[[Source], object]] = {
    "a row less": lambda s: s.write(s.path, ROWS[1:]),
    "a row changed to the same length": lambda s: s.write(s.path, [ROWS[0].replace("20", "21"), *ROWS[1:]]),
    "a line taken out in place": lambda s: s.path.write_text("\n".join([HEADER, *ROWS[1:]])),
    "another query or path": lambda s: (
        s.write(s.folder / "b.csv", ROWS[:4]),
        s.chosen.append(CsvFile(s.folder / "b.csv")),
    ),
    "a link that leads elsewhere": lambda s: (
        s.write(s.folder / "b.csv", ROWS[:4]),
        s.path.unlink(),
        s.path.symlink_to(s.folder / "b.csv"),
    ),
    "an older file put back": lambda s: (s.write(s.path, ROWS[:5]), os.utime(s.path, (1, 1))),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changed_is_read_by_the_next_round_after_the_watch_has_looked(
    change: Callable[[Source], object], source: Source
) -> None:
    one = source.reading()
    before = one.patients().train.digest
    change(source)
    assert one.renew_if_due()
    assert one.patients().train.digest != before
    assert source.readings == 2
    assert not one.renew_if_due()


def test_no_round_uses_a_reading_that_is_older_than_allowed(source: Source) -> None:
    one = source.reading()
    assert people(one) == 10
    status = source.path.stat()
    source.path.write_text("\n".join([HEADER, *ROWS[1:], "", "x,1,,"[: len(ROWS[0])]]))  # nothing tells the watch
    os.utime(source.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    source.now += 100.0
    assert people(one) == 10
    source.now += 0.1
    assert people(one) < 10
    assert source.readings == 2


def test_a_reading_is_renewed_before_a_round_has_to_wait_for_it(source: Source) -> None:
    one = source.reading()
    one.patients()
    source.now += 50
    assert not one.renew_if_due()
    source.now += 0.1
    assert one.renew_if_due()
    source.now += 100
    one.patients()
    assert source.readings == 2


@given(st.lists(st.tuples(st.sampled_from(["watch", "round"]), st.floats(0, 80)), max_size=30))
def test_whatever_the_order_no_round_trains_on_what_is_too_old(
    tmp_path_factory: pytest.TempPathFactory, steps: Any
) -> None:
    source = Source(tmp_path_factory.mktemp("any"))
    one = source.reading()
    for what, seconds in steps:
        source.now += seconds
        if what == "watch":
            one.renew_if_due()
            continue
        one.patients()
        assert one._last is not None
        assert source.now - one._last.since <= 100.0


def test_a_source_that_is_gone_serves_until_it_is_too_old_and_is_then_a_refusal_before_the_booking(
    source: Source,
) -> None:
    one = source.reading()
    one.patients()
    source.path.unlink()
    assert not one.renew_if_due()
    one.require()
    assert people(one) == 10
    source.now += 100.1
    with pytest.raises(SourceError, match="No such file"):
        one.require()


def test_a_person_who_asks_ends_a_reading_at_once(source: Source) -> None:
    one = source.reading()
    one.patients()
    (source.folder / "reread").write_text("")
    assert people(one) == 10
    assert source.readings == 2
    os.utime(source.folder / "reread", (5, 5))
    source.path.unlink()
    with pytest.raises(SourceError):
        one.require()


def test_a_reading_that_fails_is_logged_once_in_a_while_and_the_last_one_stays(
    source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    one = source.reading()
    one.patients()
    source.write(source.path, ["x"])
    source.path.write_text("other\nDurand\n")
    for _ in range(5):
        assert not one.renew_if_due()
    assert source.readings == 2
    assert caplog.text.count("not read again") == 1
    assert "Durand" not in caplog.text
    assert people(one) == 10
    source.now += 61
    one.renew_if_due()
    assert source.readings == 3


def test_a_file_that_changes_while_it_is_read_is_no_complete_reading(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = source.reading()
    one.patients()
    source.write(source.path, ROWS[:3])

    def half_written(*arguments: Any) -> Split:
        made = load_patients(*arguments)
        source.write(source.path, ROWS[:7])
        return made

    monkeypatch.setattr(reading, "load_patients", half_written)
    assert not one.renew_if_due()
    assert people(one) == 10
    monkeypatch.setattr(reading, "load_patients", load_patients)
    assert one.renew_if_due()
    assert people(one) == 7


def test_a_round_does_not_wait_while_the_watch_reads(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    one = source.reading()
    one.patients()
    began, go_on = threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Split:
        began.set()
        assert go_on.wait(60)
        return load_patients(*arguments)

    monkeypatch.setattr(reading, "load_patients", slow)
    source.write(source.path, ROWS[:3])
    thread = threading.Thread(target=one.renew_if_due)
    thread.start()
    assert began.wait(60)
    assert people(one) == 10
    go_on.set()
    thread.join(60)
    assert people(one) == 3


def failing(source: Source, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let every reading fail because of a row from now on; returns a list that grows with each."""
    tried: list[int] = []

    def fails(*arguments: Any) -> Split:
        tried.append(1)
        raise SourceError("invalid input syntax in a row")

    monkeypatch.setattr(reading, "load_patients", fails)
    return tried


def test_rows_that_cannot_be_read_cost_no_answer_the_time_of_a_reading(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, tried = source.reading(), failing(source, monkeypatch)
    assert not one.renew_if_due()
    probed: list[int] = []
    monkeypatch.setattr(reading, "probe", lambda *_: probed.append(1))
    for _ in range(5):
        one.require()
        with pytest.raises(SourceError):
            one.patients()
        source.now += 20
    assert (len(tried), probed) == (1, [])
    assert not one.renew_if_due()  # the watch tries again
    assert len(tried) == 2
    monkeypatch.setattr(reading, "load_patients", load_patients)
    source.write(source.path, ROWS[:4])
    assert people(one) == 4  # what was mended is read at once


def test_without_a_watch_rows_that_failed_are_read_again_after_a_while(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, tried = source.reading(), failing(source, monkeypatch)
    for seconds, expected in ((0.0, 1), (60.0, 1), (61.0, 2)):
        source.now += seconds
        with pytest.raises(SourceError):
            one.patients()
        assert len(tried) == expected


def test_a_source_that_is_closed_is_looked_at_each_time(source: Source) -> None:
    one = source.reading()
    away = source.path.rename(source.folder / "away.csv")
    assert not one.renew_if_due()
    with pytest.raises(SourceError, match="No such file"):
        one.require()
    away.rename(source.path)
    one.require()
    assert people(one) == 10


def test_the_digest_is_of_what_was_trained_on_not_of_what_was_read_since(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = source.reading(key=b"k" * 32)
    one.patients()
    before = one.digest
    source.write(source.path, ROWS[:4])
    assert one.renew_if_due()
    assert one.digest == before
    one.patients()
    assert one.digest not in ("", before)
    tried = failing(source, monkeypatch)
    source.now += 101
    with pytest.raises(SourceError):
        one.patients()
    assert (one.digest, len(tried)) == ("", 1)


def test_a_watch_outlives_a_look_that_fails(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, done = iter([RuntimeError(), MemoryError(), None]), threading.Event()

    def current() -> None:
        if (error := next(looks)) is not None:
            raise error
        done.set()
        threading.Event().wait()

    reading.watch(current, every_s=0.0)
    assert done.wait(60)


# At a hospital


def test_a_row_that_is_taken_out_is_gone_from_the_next_round_of_a_living_worker(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("\n".join([HEADER, *ROWS]))
    made = Hospital(tmp_path, STUDY, {"min_patients": 100})
    assert _answered(made.worker, requests(STUDY)[0])[1].form == "hello reply"
    one = made.worker.reading()
    assert one is not None
    said = []
    for number, rows in ((1, ROWS), (2, ROWS), (3, ROWS[1:])):
        (tmp_path / "data.csv").write_text("\n".join([HEADER, *rows]))
        one.renew_if_due()
        status, reply = _answered(made.worker, asked(STUDY, "train", round=number))
        assert reply.form == "train reply"
        said.append(str(status.fields["reading"]))
        assert people(one) == len(rows)
    assert said[0] == said[1] != said[2]
    assert all(len(digest) == 32 for digest in said)


def test_a_file_that_is_gone_as_a_whole_is_a_refusal_that_books_nothing(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("\n".join([HEADER, *ROWS]))
    made = Hospital(tmp_path, STUDY, {"min_patients": 100})
    _answered(made.worker, requests(STUDY)[0])
    (tmp_path / "data.csv").unlink()
    _, reply = _answered(made.worker, asked(STUDY, "train", round=1))
    assert (reply.form, reply.fields["code"]) == (REFUSAL, 107)
    assert not made.worker._ledger.booked("lille", STUDY.sha256, 1)


def test_a_query_or_path_that_was_corrected_is_followed_but_no_other_identity(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("\n".join([HEADER, *ROWS]))
    Hospital(tmp_path, STUDY, {})
    config = load_site(tmp_path)
    find = source_in(config, STUDY.name)
    text = (tmp_path / "site.yaml").read_text()
    assert find().path == tmp_path / "data.csv"
    for number, (written, path) in enumerate(
        [
            (text.replace("data.csv", "b.csv"), "b.csv"),
            (text.replace("data.csv", "c.csv").replace("identity: lille", "identity: other"), "b.csv"),
            ("site: [", "b.csv"),
            (text, "data.csv"),
        ]
    ):
        (tmp_path / "site.yaml").write_text(written)
        os.utime(tmp_path / "site.yaml", (number, number))
        assert find().path == tmp_path / path


def test_the_allowed_age_is_a_line_of_site_yaml(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("site: lille\ncoordinator: localhost:1\n")
    assert load_site(tmp_path).reread_s == 3600
    (tmp_path / "site.yaml").write_text("site: lille\ncoordinator: localhost:1\nreread_s: 600\n")
    assert load_site(tmp_path).reread_s == 600
    (tmp_path / "site.yaml").write_text("site: lille\ncoordinator: localhost:1\nreread_s: 5\n")
    with pytest.raises(ConfigError, match="reread_s"):
        load_site(tmp_path)


def test_a_person_who_asks_for_a_reading_is_in_the_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = hospital(tmp_path, ROWS, STUDY)
    assert "no node runs in this folder" in shown(config, capsys, "reread")
    with only_one(config.lock, "held"):
        assert "the node reads its data again now" in shown(config, capsys, "reread")
    assert config.reread.is_file()
    assert [record.kind for record in journal.read(config.journal)] == ["reread asked"] * 2
    first = config.reread.stat().st_mtime_ns
    assert main(["-C", str(config.folder), "reread"]) == 0
    assert config.reread.stat().st_mtime_ns > first


def test_an_answer_of_other_rows_than_the_one_before_is_noticed_after_a_restart_too(tmp_path: Path) -> None:
    config = hospital(tmp_path, ROWS, STUDY)
    key = load_signing_key(config)

    def answered(audit: Audit, reading: str, number: int) -> bool:
        audit.keep(
            Frame("train reply", {}),
            f"{number:032x}",
            study=STUDY.sha256,
            round=number,
            answers="a",
            content=f"{number}",
            reading=reading,
        )
        return audit.rows_changed(STUDY.sha256)

    audit = Audit(config, key)
    assert [answered(audit, reading, n) for n, reading in enumerate(["one", "one", "two", "two"])] == [0, 0, 1, 0]
    assert not audit.rows_changed("cd" * 32)
    again = Audit(config, key)
    assert not again.rows_changed(STUDY.sha256)
    assert [answered(again, reading, n) for n, reading in enumerate(["two", "three", "three"], 4)] == [0, 1, 0]
