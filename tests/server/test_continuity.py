"""A coordinator's folder that was restored, copied or moved is seen; one that was stopped or killed passes."""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from configs.coordinator import CoordinatorConfig
from configs.journal import Journal
from configs.records.coordinator_journal import Admitted, Connected, Initialised, Revoked
from configs.records.kinds import Kind
from server import continuity
from server.membership import Member, Membership

FILES = ("coordinator.sqlite", "journal.jsonl", "coordinator.mark")


@dataclass
class Centre:
    """A coordinator's folder, without its processes."""

    folder: Path

    @property
    def config(self) -> CoordinatorConfig:
        return CoordinatorConfig(self.folder, "Heart", ("localhost",))

    def note(self, record: Kind) -> None:
        """Write one decision of a person, as the command line does."""
        with closing(Membership.open(self.config.database)) as members:
            continuity.note(members, Journal(self.config.journal), record)

    def start(self) -> str:
        """A start; what shows that the folder is not as it was left."""
        with closing(Membership.open(self.config.database)) as members:
            journal = Journal(self.config.journal)
            difference = continuity.difference(self.config, members)
            continuity.begin(self.config, members, journal)
            continuity.note(members, journal, Connected(site="lille"))
        return difference

    def backup(self, to: Path) -> Path:
        shutil.copytree(self.folder, to)
        return to


@pytest.fixture
def centre(tmp_path: Path) -> Centre:
    folder = tmp_path / "consortium"
    folder.mkdir()
    centre = Centre(folder)
    centre.note(Initialised(name="Heart", names=("localhost",)))
    return centre


def test_a_folder_that_was_stopped_or_killed_goes_on(centre: Centre) -> None:
    for _ in range(3):
        assert centre.start() == ""
        centre.note(Revoked(site="lille"))


def test_a_crash_between_the_database_and_the_journal_is_no_restore(centre: Centre) -> None:
    centre.start()
    for _ in range(3):
        with closing(Membership.open(centre.config.database)) as members:
            members.count()
        assert centre.start() == ""


def test_a_folder_of_an_earlier_release_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    centre = Centre(folder)
    Journal(centre.config.journal).append("initialised", name="Heart")
    Journal(centre.config.journal).append("started", listen="0.0.0.0:8443")
    with closing(Membership.open(centre.config.database)) as members:
        members.admit(Member("lille", b"PEM", "ab" * 32, "2027-01-01T00:00:00+00:00"))
    centre.note(Admitted(site="lille", request="", signing_key="", without_certificate=False, replaced=""))
    assert centre.start() == ""
    assert centre.start() == ""


def in_place(backup: Path, folder: Path, names: tuple[str, ...] = FILES) -> None:
    """As `cp` does: the same inodes, other content."""
    for name in names:
        (folder / name).write_bytes((backup / name).read_bytes())


def whole(backup: Path, folder: Path, names: tuple[str, ...] = FILES) -> None:
    """As `tar` and `rsync` do: new files, with the times of the old."""
    for name in names:
        shutil.copy2(backup / name, folder / f"{name}.new")
        os.replace(folder / f"{name}.new", folder / name)


def renamed(backup: Path, folder: Path, names: tuple[str, ...] = FILES) -> None:
    """The folder goes, its copy comes in its place."""
    shutil.rmtree(folder)
    shutil.copytree(backup, folder)


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "the folder's copy": renamed,
    "each file anew": whole,
    "each file in place": in_place,
} | {
    f"{name} {how.__name__}": lambda backup, folder, name=name, how=how: how(backup, folder, (name,))  # type: ignore[misc]
    for name in FILES
    for how in (whole, in_place)
}


BY_TIME = ("the folder's copy", "each file in place", "journal.jsonl in_place")  # inodes may be used again, or the same


@pytest.mark.parametrize("since", ["another start", "a decision", "two decisions"])
@pytest.mark.parametrize("way", WAYS)
def test_whatever_is_restored_in_whatever_way_is_seen_once(
    centre: Centre, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, since: str
) -> None:
    centre.start()
    if way.startswith("coordinator.mark") and since != "another start":
        pytest.skip("the mark is of the same start: nothing went back")
    backup = centre.backup(tmp_path / "backup")
    if since == "another start":
        centre.start()
    for _ in range(1 + (since == "two decisions")):
        centre.note(Revoked(site="lille"))
    for name in FILES:  # the write-ahead log is merged when the last connection closes
        assert not (centre.folder / f"{name}-wal").exists()
    monkeypatch.setattr(
        continuity,
        "TOUCHED_S",
        -1.0 if way in BY_TIME else continuity.TOUCHED_S,
    )
    WAYS[way](backup, centre.folder)
    assert centre.start()
    monkeypatch.undo()
    assert centre.start() == ""


def test_a_journal_overwritten_in_place_is_seen_by_the_time_of_its_inode(
    centre: Centre, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two minutes lie between the last record and the restore; the kernel's clock is not the test's to move."""
    centre.start()
    backup = centre.backup(tmp_path / "backup")
    in_place(backup, centre.folder)
    os.utime(centre.config.journal, (time.time() - 120,) * 2)  # times that tools can set count for nothing
    monkeypatch.setattr(continuity, "TOUCHED_S", 0.0)
    assert centre.start() == "the journal's file was touched after its last record"
