"""What goes wrong in a week: processes killed, the network cut, clocks wrong, disks full; with real processes."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.load import load_study
from simulations.federation import Federation
from tests.federation.deployed import (
    DATA,
    SITES,
    finished,
    hospitals,
    kill,
    model,
    records,
    reserved,
    run_journal,
    simulated,
    site_document,
    site_journal,
    slow_plain,
    slow_private,
    trains,
    until,
    worker_pid,
    write_study,
)
from tests.proxy import Proxy

STUDIES = ("node-killed", "worker-killed", "coordinator-killed", "superlink-killed", "cut-short", "cut-long", "full")
STUDIES += ("clock", "twins", "marked")
MARKER = "7.77777"  # a value that a test plants in a patient's row


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    """The proxy of one hospital, the way of its node to the coordinator."""
    with Proxy("node:secret-of-the-proxy") as running:
        yield running


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, proxy: Proxy) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("fed")
    with hospitals(folder, STUDIES, start=False) as running:
        behind = {
            "HTTPS_PROXY": f"http://node:secret-of-the-proxy@127.0.0.1:{proxy.port}",
            "NO_PROXY": "",
            "no_proxy": "",
        }
        for site in SITES:
            running.start_site(site, **(behind if site == "long_beach_va" else {}))
        yield running


def test_a_killed_node_comes_back_and_the_round_it_lost_is_spent(federation: Federation, tmp_path: Path) -> None:
    path = write_study(tmp_path, "node-killed", private=True, rounds=2, quorum=2, local=slow_private(), timeout_s=90)
    study, run = load_study(path), federation.submit(path)
    trains(federation, "cleveland", path)
    kill(federation, "cleveland")
    assert reserved(federation, "cleveland", study) == [(1, "reserved")]
    federation.start_site("cleveland")
    federation.await_state(run, "COMPLETE")
    first, second = records(run_journal(federation, run), "round")
    assert first["missing"] == {"cleveland": "the hospital's privacy budget does not allow this round"}
    assert sorted(second["contributed"]) == sorted(SITES)
    assert reserved(federation, "cleveland", study) == [(1, "reserved"), (2, "committed")]
    assert "1 of them begun and lost: they count" in federation.hospital("cleveland", "ledger")


def test_a_killed_worker_costs_its_round_and_no_more(federation: Federation, tmp_path: Path) -> None:
    path = write_study(tmp_path, "worker-killed", private=True, rounds=2, quorum=2, local=slow_private())
    study, run = load_study(path), federation.submit(path)
    trains(federation, "hungary", path)
    os.kill(worker_pid(federation, "hungary"), signal.SIGKILL)
    federation.await_state(run, "COMPLETE")
    first, second = records(run_journal(federation, run), "round")
    assert first["missing"] == {"hungary": "the hospital could not train; its own log says why"}
    assert sorted(second["contributed"]) == sorted(SITES)
    assert reserved(federation, "hungary", study) == [(1, "reserved"), (2, "committed")]


def test_a_killed_coordinator_goes_on_after_its_last_round_with_the_same_bits(
    federation: Federation, tmp_path: Path
) -> None:
    path = write_study(tmp_path, "coordinator-killed", rounds=3, local=slow_plain())
    run = federation.submit(path)
    until(lambda: records(run_journal(federation, run), "round"), "the first round to end")
    trains(federation, "cleveland", path, round_number=2)
    kill(federation, "coordinator")
    federation.start_coordinator()
    assert "the coordinator was interrupted" in federation.await_state(run, "INCOMPLETE")
    federation.consortium("resume", run)
    federation.await_state(run, "COMPLETE")
    assert records(run_journal(federation, run), "resumed")
    assert model(federation, run) == simulated(path, tmp_path / "runs")


def test_a_killed_superlink_is_started_again_and_the_run_goes_on(federation: Federation, tmp_path: Path) -> None:
    path = write_study(tmp_path, "superlink-killed", rounds=3, local=slow_plain())
    run = federation.submit(path)
    until(lambda: records(run_journal(federation, run), "round"), "the first round to end")
    pid = federation.processes["coordinator"].pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (superlink,) = [c for c in children if b"server.superlink" in Path(f"/proc/{c}/cmdline").read_bytes()]
    os.kill(int(superlink), signal.SIGKILL)
    federation.await_state(run, "COMPLETE")
    assert model(federation, run) == simulated(path, tmp_path / "runs")


@pytest.mark.parametrize(("study", "seconds"), [("cut-short", 30), ("cut-long", 50)])
def test_a_hospital_whose_network_is_cut_sends_what_it_trained_when_it_is_back(
    federation: Federation, proxy: Proxy, tmp_path: Path, study: str, seconds: int
) -> None:
    """Thirty seconds, and longer than it takes until the SuperLink gives the node up."""
    path = write_study(tmp_path, study, private=True, rounds=2, local=slow_private(), timeout_s=300)
    run = federation.submit(path)
    trains(federation, "long_beach_va", path)
    proxy.cut.set()
    time.sleep(seconds)
    proxy.cut.clear()
    federation.await_state(run, "COMPLETE")
    rounds = records(run_journal(federation, run), "round")
    assert all(sorted(r["contributed"]) == sorted(SITES) for r in rounds)
    assert reserved(federation, "long_beach_va", load_study(path)) == [(1, "committed"), (2, "committed")]


def test_the_secret_of_the_proxy_is_in_no_file(federation: Federation, proxy: Proxy) -> None:
    assert proxy.asked
    written = [p for p in federation.folder.rglob("*") if p.is_file() and p.suffix != ".sock"]
    assert not [p for p in written if b"secret-of-the-proxy" in p.read_bytes()]


def test_two_nodes_of_one_identity_are_told_apart(federation: Federation, tmp_path: Path) -> None:
    twin = federation.folder / "twin"
    shutil.copytree(federation.site_folder("cleveland"), twin)
    federation._start("twin", "client.cli", twin)
    until(lambda: "another node is connected as this hospital" in federation.log("twin"), "the twin to be refused")
    path = write_study(tmp_path, "twins", rounds=1)
    run = finished(federation, path)
    assert sorted(records(run_journal(federation, run), "round")[0]["contributed"]) == sorted(SITES)
    assert not [r for r in records(twin / "journal.jsonl", "sent") if r["study"] == load_study(path).sha256]
    federation.end("twin")


def test_a_second_node_in_the_same_folder_does_not_start(federation: Federation) -> None:
    with pytest.raises(Exception, match="another node runs in this folder"):
        federation.hospital("cleveland", "start")


def test_a_clock_ten_minutes_off_is_corrected_and_said(federation: Federation, tmp_path: Path) -> None:
    late = tmp_path / "late"
    late.mkdir()
    for offset, said in ((600, r"clock is (59|60)\d s off"), (-600, r"clock is -(59|60)\d s off")):
        patch = f"import time\n_true = time.time\ntime.time = lambda: _true() + {offset}\n"
        (late / "sitecustomize.py").write_text(patch)
        federation.end("hungary")
        federation.start_site("hungary", PYTHONPATH=str(late))
        until(lambda: re.search(said, federation.log("hungary")), "the node to say so")  # noqa: B023
    run = finished(federation, write_study(tmp_path, "clock", rounds=1))
    assert "hungary" in records(run_journal(federation, run), "round")[0]["contributed"]
    federation.end("hungary")
    federation.start_site("hungary")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_nothing_leaves_a_hospital_whose_disk_is_full(federation: Federation, tmp_path: Path) -> None:
    outbox = federation.site_folder("cleveland") / "outbox"
    kept = tmp_path / "kept"
    outbox.mkdir(mode=0o700, exist_ok=True)  # nothing has left yet where this test runs alone
    shutil.move(outbox, kept)
    outbox.mkdir(mode=0o700)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(outbox)], capture_output=True)
    if mounted.returncode:
        shutil.rmtree(outbox)
        shutil.move(kept, outbox)
        pytest.skip("this machine mounts no disks")
    try:
        path = write_study(tmp_path, "full", rounds=1, quorum=2, timeout_s=40, local=slow_plain())
        run = federation.submit(path)
        trains(federation, "cleveland", path)
        with contextlib.suppress(OSError):
            (outbox / "filling").write_bytes(b"x" * 16_000)
        until(lambda: "it cannot be kept" in federation.log("cleveland"), "the node to say that its disk is full")
        digest = load_study(path).sha256
        assert not [
            r for r in records(site_journal(federation, "cleveland"), "sent") if r["study"] == digest and r["round"]
        ]
    finally:
        subprocess.run(["umount", str(outbox)], check=True)
        outbox.rmdir()
        shutil.move(kept, outbox)
    federation.await_state(run, "COMPLETE")


def test_no_value_of_a_patient_is_written_or_sent(federation: Federation, tmp_path: Path) -> None:
    """A planted value breaks the training, and appears in no log, journal, reply or message."""
    lines = (DATA / "cleveland.csv").read_text().splitlines()
    header, row = lines[0].split(","), lines[7].split(",")
    row[header.index("age")] = MARKER + "x"
    marked = tmp_path / "marked.csv"
    marked.write_text("\n".join([*lines[:7], ",".join(row), *lines[8:]]) + "\n")
    site = federation.site_folder("cleveland") / "site.yaml"
    text = site.read_text()
    document = site_document("cleveland", federation.address, STUDIES, require_approval=False)
    document["datasets"]["marked"]["path"] = str(marked)
    from configs.load import dump_yaml

    site.write_text(dump_yaml(document))
    federation.end("cleveland")
    federation.start_site("cleveland")
    run = federation.submit(write_study(tmp_path, "marked", rounds=1, quorum=3))
    federation.await_state(run, "INCOMPLETE")
    assert "the hospital's data do not fit the study" in run_journal(federation, run).read_text()
    assert "age" in federation.log("cleveland")
    written = [p for p in federation.folder.rglob("*") if p.is_file()]
    assert not [p for p in written if MARKER.encode() in p.read_bytes()]
    site.write_text(text)


def test_a_hospital_that_never_comes_is_not_waited_for_without_end(tmp_path: Path) -> None:
    with hospitals(tmp_path / "fed", ("lonely",), start=False, coordinator={"gather_timeout_s": 6}) as federation:
        federation.start_site("cleveland")
        run = federation.submit(write_study(tmp_path, "lonely"))
        until(lambda: "hungary              not connected" in federation.consortium("status"), "status to say so")
        line = federation.await_state(run, "INCOMPLETE")
        assert "1 hospitals take part (cleveland), the study asks for 3" in line
