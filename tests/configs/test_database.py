"""A plain copy of one SQLite file holds what was committed, also after its process was killed."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from client.admission import Admissions
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
