"""What goes wrong in a week: processes killed, the network cut, clocks wrong, disks full; with real processes."""

import contextlib
import datetime
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.load import dump_yaml, load_study
from configs.papers import Request, from_json
from server import pki
from simulations.federation import Federation
from tests.federation.deployed import (
    DATA,
    SITES,
    finished,
    health,
    hospitals,
    kill,
    model,
    records,
    reserved,
    run_journal,
    simulated,
    site_document,
    slow_plain,
    slow_private,
    superlink_pid,
    trains,
    until,
    worker_pid,
    write_study,
)
from tests.proxy import Proxy

STUDIES = ("node-killed", "worker-killed", "coordinator-killed", "superlink-killed", "cut-short", "cut-long", "full")
STUDIES += ("clock", "twins", "marked", "node-lost", "expired")
MARKER, SURNAME = "7.77777", "Zzyzxdupont"  # what a test plants in patients' rows


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


def test_a_round_waits_for_a_killed_node_until_its_time_is_over_and_then_stops_by_the_quorum(
    federation: Federation, tmp_path: Path
) -> None:
    """Without its node.state the new process cannot sign the old one off: it is refused until the heartbeat lapses."""
    path = write_study(tmp_path, "node-lost", private=True, rounds=2, quorum=3, local=slow_private(), timeout_s=15)
    study, run = load_study(path), federation.submit(path)
    trains(federation, "cleveland", path)
    kill(federation, "cleveland")
    (federation.site_folder("cleveland") / "node.state").unlink()
    before = len(federation.log("cleveland"))
    federation.start_site("cleveland")
    until(lambda: "is not given up yet" in federation.log("cleveland")[before:], "the activation to be refused")
    assert "round 1" in federation.await_state(run, "INCOMPLETE")
    (only,) = records(run_journal(federation, run), "round")
    assert only["missing"] == {"cleveland": "no reply in time"}
    assert 15 <= only["seconds"] < 30
    until(lambda: "connected to" in federation.log("cleveland")[before:], "the node to rejoin")
    assert reserved(federation, "cleveland", study) == [(1, "reserved")]


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
    assert health(federation) == "SERVING"
    os.kill(superlink_pid(federation), signal.SIGKILL)
    until(lambda: health(federation) == "NOT_SERVING", "a probe to see it")
    federation.await_state(run, "COMPLETE")
    assert health(federation) == "SERVING"
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


def test_no_private_key_is_in_any_file_but_its_own(federation: Federation) -> None:
    keys = [path for path in federation.folder.rglob("*.key") if path.is_file()]
    assert len(keys) == 3 + 2 * len(SITES)
    written = {p: p.read_bytes() for p in federation.folder.rglob("*") if p.is_file()}
    for key in keys:
        secret = key.read_bytes().splitlines()[1]
        assert [path for path, data in written.items() if secret in data] == [key]


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


def test_a_hospital_whose_certificate_expired_yesterday_is_told_so_and_is_back_with_a_new_one(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = federation.site_folder("hungary")
    request = from_json(Request, (site / "request.json").read_bytes(), "request")
    with monkeypatch.context() as patch:
        patch.setattr(pki, "_BACKDATED", datetime.timedelta(days=3))
        patch.setattr(pki, "SITE_DAYS", -1)
        expired, _ = pki.Pki(federation.coordinator / "pki").sign(request, "request", None)
    (site / "keys" / "site.crt").write_text(expired)
    federation.end("hungary")
    before = len(federation.log("hungary"))
    federation.start_site("hungary")
    until(lambda: "see: archipel-site check" in federation.log("hungary")[before:], "the node to be refused")
    with pytest.raises(Exception, match="WRONG    certificate: expired on"):
        federation.hospital("hungary", "check")
    run = federation.submit(write_study(tmp_path, "expired", rounds=1))
    until(lambda: "hungary              not connected" in federation.consortium("status"), "status to say so")
    federation.consortium("admit", str(site / "request.json"))
    federation.hospital("hungary", "join", str(federation.coordinator / "welcome" / "hungary.json"))
    federation.end("hungary")
    federation.start_site("hungary")
    federation.await_state(run, "COMPLETE")
    assert "hungary" in records(run_journal(federation, run), "round")[0]["contributed"]


@contextlib.contextmanager
def small_disk(federation: Federation, site: str, size: str = "800k") -> Iterator[Path]:
    """A hospital's whole folder on a disk of its own, its node started anew there and, at the end, back."""
    folder, kept = federation.site_folder(site), federation.folder / f"{site}-kept"
    federation.end(site)
    folder.rename(kept)
    folder.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True).returncode == 0
    try:
        if not mounted:
            pytest.skip("this machine mounts no disks")
        shutil.copytree(kept, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("outbox", "*.frame"))
        federation.start_site(site)
        yield folder
        federation.end(site)
        shutil.copytree(folder, kept, dirs_exist_ok=True)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()
        kept.rename(folder)
        if site not in federation.processes:
            federation.start_site(site)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_nothing_leaves_a_hospital_whose_disk_is_full_and_it_goes_on_when_there_is_room(
    federation: Federation, tmp_path: Path
) -> None:
    with small_disk(federation, "cleveland") as folder:
        path = write_study(tmp_path, "full", rounds=3, quorum=2, timeout_s=20, local=slow_plain())
        run, journal = federation.submit(path), folder / "journal.jsonl"
        trains(federation, "cleveland", path)
        with contextlib.suppress(OSError):
            (folder / "filling").write_bytes(b"x" * 10_000_000)
        until(lambda: "it cannot be kept" in federation.log("cleveland"), "the node not to send what it trained")
        until(lambda: len(records(run_journal(federation, run), "round")) > 1, "a second round without it")
        digest = load_study(path).sha256
        assert not [r for r in records(journal, "sent") if r["study"] == digest and r["round"]]
        (folder / "filling").unlink()
        federation.await_state(run, "COMPLETE")
        first, second, third = records(run_journal(federation, run), "round")
        assert (list(first["missing"]), list(second["missing"])) == (["cleveland"], ["cleveland"])
        assert "cleveland" in third["contributed"]
        assert "none changed" in federation.hospital("cleveland", "journal", "verify")


def test_no_value_of_a_patient_is_written_or_sent(federation: Federation, tmp_path: Path) -> None:
    """A planted value breaks one training, planted names sit beside another: none is in a log, journal or message."""
    lines = [f"{line},{'surname' if n == 0 else SURNAME}" for n, line in enumerate(_rows("cleveland"))]
    row = lines[7].split(",")
    row[lines[0].split(",").index("age")] = MARKER + "x"
    marked = tmp_path / "marked.csv"
    site = federation.site_folder("cleveland") / "site.yaml"
    text = site.read_text()
    document = site_document("cleveland", federation.address, STUDIES, require_approval=False)
    document["datasets"]["marked"]["path"] = str(marked)
    site.write_text(dump_yaml(document))
    federation.end("cleveland")
    federation.start_site("cleveland")
    study = write_study(tmp_path, "marked", rounds=1, quorum=3)
    for rows, state in (([*lines[:7], ",".join(row), *lines[8:]], "INCOMPLETE"), (lines, "COMPLETE")):
        marked.write_text("\n".join(rows) + "\n")
        run = federation.submit(study)
        federation.await_state(run, state)
        refused = "the hospital's data do not fit the study" in run_journal(federation, run).read_text()
        assert refused == (state == "INCOMPLETE")
        assert "age" in federation.log("cleveland")
        written = {p: p.read_bytes() for p in federation.folder.rglob("*") if p.is_file()}
        assert not [p for p, data in written.items() if MARKER.encode() in data or SURNAME.encode() in data]
    assert [p for p in written if p.suffix == ".frame"]  # what was sent is among them, byte for byte
    site.write_text(text)


def _rows(site: str) -> list[str]:
    return (DATA / f"{site}.csv").read_text().splitlines()


def test_a_hospital_that_never_comes_is_not_waited_for_without_end(tmp_path: Path) -> None:
    with hospitals(tmp_path / "fed", ("lonely",), start=False, coordinator={"gather_timeout_s": 6}) as federation:
        federation.start_site("cleveland")
        run = federation.submit(write_study(tmp_path, "lonely"))
        until(lambda: "hungary              not connected" in federation.consortium("status"), "status to say so")
        line = federation.await_state(run, "INCOMPLETE")
        assert "1 hospitals take part (cleveland), the study asks for 3" in line
