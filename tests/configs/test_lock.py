"""The lock file of a folder is our own, or none: what somebody planted in its place is neither followed nor written."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.errors import RunError
from configs.lock import holder, only_one


@pytest.mark.parametrize("planted", ["link", "link to nothing", "hard link", "folder", "pipe", "link to a folder"])
def test_what_lies_in_the_place_of_a_lock_is_not_written(tmp_path: Path, planted: str) -> None:
    victim, lock = tmp_path / "ledger.sqlite", tmp_path / "node.lock"
    victim.write_bytes(b"what was spent")
    plant: dict[str, Callable[[], object]] = {
        "link": lambda: lock.symlink_to(victim),
        "link to nothing": lambda: lock.symlink_to(tmp_path / "made"),
        "hard link": lambda: os.link(victim, lock),
        "folder": lock.mkdir,
        "pipe": lambda: os.mkfifo(lock),
        "link to a folder": lambda: lock.symlink_to(tmp_path),
    }
    plant[planted]()
    refusal = r"node\.lock: expected a lock file of our own, found something else; remove it"
    with pytest.raises(RunError, match=refusal), only_one(lock, "taken", "note"):
        pass
    assert victim.read_bytes() == b"what was spent"
    assert not (tmp_path / "made").exists()
    assert holder(lock) is None


def test_a_lock_is_its_owners_and_forgets_its_last_holder(tmp_path: Path) -> None:
    lock = tmp_path / "node.lock"
    with only_one(lock, "taken", "a long note of the first"):
        assert lock.stat().st_mode & 0o777 == 0o600
        with pytest.raises(RunError, match="taken"), only_one(lock, "taken", "second"):
            pass
        assert holder(lock) == "a long note of the first"
    with only_one(lock, "taken", "short"):
        assert holder(lock) == "short"
