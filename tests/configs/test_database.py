"""A plain copy of one SQLite file holds what was committed, also after its process was killed."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from client.admission import Admissions
from configs import database
from configs.errors import RunError
from server.membership import Membership

ROOT = Path(__file__).resolve().parents[2]
APPROVE = """
    from client.admission import Admissions
    admissions = Admissions.open(path)
    for number in range(1, 2_000):
        digest = f"{number:064x}"
        admissions.propose(digest, "heart", "{}")
        admissions._connection.execute("UPDATE studies SET state = 'approved' WHERE sha256 = ?", (digest,))
        print(number, flush=True)
"""
ADMIT = """
    from server.membership import Member, Membership
    members = Membership.open(path)
    for number in range(1, 2_000):
        members.set_presence("run", f"site-{number}", "trains")
        members.admit(Member(f"site-{number}", bytes([number % 256, number // 256]), f"{number:064x}", "2027"))
        print(number, flush=True)
"""


def approvals(path: Path) -> int:
    admissions = Admissions.open(path)
    count = len([a for a in admissions.all() if a.state == "approved"])
    admissions.close()
    return count


def members(path: Path) -> int:
    membership = Membership.open(path)
    count = len(membership.members())
    membership.close()
    return count


@pytest.mark.parametrize(("script", "count"), [(APPROVE, approvals), (ADMIT, members)], ids=["approvals", "members"])
def test_a_plain_copy_of_the_one_file_of_a_killed_process_holds_all(tmp_path: Path, script: str, count: object) -> None:
    assert callable(count)
    path = tmp_path / "file.sqlite"
    head = f"from pathlib import Path\npath = Path({str(path)!r})\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", head + textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        done = [int(process.stdout.readline()) for _ in range(20)][-1]
        process.send_signal(signal.SIGKILL)
        done = max([done, *map(int, process.stdout.read().split())])
    shutil.copyfile(path, tmp_path / "copy.sqlite")  # and nothing of what lies beside it
    assert count(tmp_path / "copy.sqlite") >= done


def test_a_file_of_an_earlier_release_gets_its_columns_and_its_number(tmp_path: Path) -> None:
    path = tmp_path / "sites.sqlite"
    with closing(database.connect(path)) as connection:
        connection.execute("CREATE TABLE sites (name TEXT)")
        connection.execute("INSERT INTO sites VALUES ('lille')")
    with closing(database.connect(path)) as connection:
        added = [("sites", "signs", "INTEGER NOT NULL DEFAULT 0")]
        for _ in range(2):
            database.prepare(connection, "", version=1, what="the list", added=added)
        assert connection.execute("SELECT name, signs FROM sites").fetchall() == [("lille", 0)]
        assert database.version_of(connection) == 1


def test_a_file_of_a_newer_release_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "sites.sqlite"
    with closing(database.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")
    before = path.read_bytes()
    with closing(database.connect(path)) as connection, pytest.raises(RunError, match="newer release"):
        database.prepare(connection, "CREATE TABLE sites (name TEXT)", version=1, what="the list")
    assert path.read_bytes() == before


@pytest.mark.parametrize("opened", [Membership.open, Admissions.open])
def test_members_and_approvals_of_a_newer_release_are_refused(tmp_path: Path, opened: Any) -> None:
    path = tmp_path / "of.sqlite"
    opened(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(RunError, match=r"form 99, this one knows 1\); install that one"):
        opened(path)
