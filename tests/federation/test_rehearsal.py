"""The rehearsal study of one hospital: in one command, and through a hospital proxy that opens TLS."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from configs.seal import COORDINATOR
from configs.strict_yaml import dump_yaml
from server.pki import Pki
from simulations.federation import Federation
from tests.federation.deployed import ROOT, records, run_journal, site_document
from tests.proxy import OpeningProxy

STUDY = ROOT / "configs" / "presets" / "rehearsal.yaml"


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder of a short path: those of tests at once are too long for the sockets in a folder of the command's."""
    with TemporaryDirectory(prefix="one-") as folder:
        yield Path(folder)


def test_one_command_runs_a_study_between_processes_and_leaves_nothing_behind(short: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(short), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "simulations.federation", str(STUDY)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("Rehearse a federated study", "round 5/5", "COMPLETE", "none changed", "AUROC"):
        assert said in done.stdout
    assert list(short.iterdir()) == []
    assert _processes_with(str(short)) == []


def _processes_with(text: str) -> list[bytes]:
    """Command lines that name a folder, of every process of this machine but this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if text.encode() in line and int(path.parent.name) != os.getpid():
            found.append(line)
    return found


def test_a_hospital_behind_a_proxy_that_opens_tls_takes_part_by_its_signatures_alone_once_it_is_admitted_so(
    tmp_path: Path,
) -> None:
    inspecting = Pki(tmp_path / "inspecting")
    inspecting.create("Hospital proxy".ljust(64, "."), ["localhost"], None)  # so long that it says nothing of Archipel
    own = inspecting.folder
    with OpeningProxy(own / "server.crt", own / "server.key") as proxy:
        behind = {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}", "NO_PROXY": "", "no_proxy": ""}
        with Federation(tmp_path / "fed", environment=behind) as federation:
            federation.init()
            federation.start_coordinator()
            document = site_document("cleveland", federation.address, ("rehearsal",), require_approval=False)
            federation.enrol("cleveland", document)
            with pytest.raises(Exception, match="is opened on the way: it shows a certificate by CN=Hospital proxy"):
                federation.hospital("cleveland", "check")
            folder = federation.site_folder("cleveland")
            (folder / "site.yaml").write_text(dump_yaml({**document, "extra_ca": str(inspecting.ca_certificate)}))
            federation.consortium("admit", str(folder / "request.json"), "--signatures-alone")
            federation.hospital("cleveland", "join", str(federation.coordinator / "welcome" / "cleveland.json"))
            federation.start_site("cleveland")
            run = federation.submit(STUDY)
            federation.await_state(run, "COMPLETE")
            received = records(run_journal(federation, run), "received")
            noted = records(federation.coordinator / "journal.jsonl", "admitted")
            assert [fact["without_certificate"] for fact in noted] == [False, True]
            rounds = [r["round"] for r in received]
            assert sorted(number for number in rounds if number) == [1, 2, 3, 4, 5]
            assert 0 in rounds  # greeted, when it was proposed and when the run began
            assert f'"sender":"{COORDINATOR}"'.encode() in proxy.read  # it did pass through there, opened
            assert b"archipel-request: " in proxy.read  # each request signed whole: a copy of it is worth nothing
            assert b"PRIVATE KEY" not in proxy.read
