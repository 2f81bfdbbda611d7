"""What goes wrong inside: processes killed, disks full, nobody there; with real processes."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from configs.errors import JournalError
from configs.load import load_study
from simulations.federation import Federation
from tests.federation.deployed import (
    SITES,
    STAGED_NODE,
    assert_keys_are_in_no_other_file,
    await_held,
    go_on,
    health,
    hospitals,
    kill,
    model,
    records,
    reserved,
    run_journal,
    simulated,
    superlink_pid,
    until,
    worker_pid,
    write_study,
)

STUDIES = ("node-killed", "worker-killed", "coordinator-killed", "superlink-killed", "full", "node-lost", "restored")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with hospitals(tmp_path_factory.mktemp("fed"), STUDIES, node=STAGED_NODE) as running:
        yield running


def test_a_killed_node_comes_back_and_the_round_it_lost_is_spent(federation: Federation, tmp_path: Path) -> None:
    path = write_study(tmp_path, "node-killed", private=True, quorum=2, timeout_s=90, held={"cleveland": 1})
    study, run = load_study(path), federation.submit(path)
    await_held(federation, "cleveland")
    kill(federation, "cleveland")
    assert reserved(federation, "cleveland", study) == [(1, "reserved")]
    federation.start_site("cleveland")
    federation.await_state(run, "COMPLETE")
    first, second = records(run_journal(federation, run), "round")
    assert list(first["missing"]) == ["cleveland"]
    assert "counts as spent and is not made twice" in first["missing"]["cleveland"]
    assert sorted(second["contributed"]) == sorted(SITES)
    assert reserved(federation, "cleveland", study) == [(1, "reserved"), (2, "committed")]
    assert "1 of them begun and lost: they count" in federation.hospital("cleveland", "ledger")


def test_a_round_waits_for_a_killed_node_until_its_time_is_over_and_then_stops_by_the_quorum(
    federation: Federation, tmp_path: Path
) -> None:
    """Without its node.state the new process cannot sign the old one off: it is refused until the heartbeat lapses."""
    path = write_study(tmp_path, "node-lost", private=True, timeout_s=60, held={"cleveland": 1})
    study, run = load_study(path), federation.submit(path)
    await_held(federation, "cleveland")
    kill(federation, "cleveland")
    (federation.site_folder("cleveland") / "node.state").unlink()
    before = len(federation.log("cleveland"))
    federation.start_site("cleveland")
    until(lambda: "is not given up yet" in federation.log("cleveland")[before:], "the activation to be refused")
    assert "round 1" in federation.await_state(run, "INCOMPLETE")
    (only,) = records(run_journal(federation, run), "round")
    assert list(only["missing"]) == ["cleveland"]
    assert only["missing"]["cleveland"].startswith("no reply in time")
    assert only["seconds"] >= 60
    until(lambda: "connected to" in federation.log("cleveland")[before:], "the node to rejoin")
    assert reserved(federation, "cleveland", study) == [(1, "reserved")]


def test_a_killed_worker_costs_its_round_and_no_more_and_nobody_outside_is_told(
    federation: Federation, tmp_path: Path
) -> None:
    """Rows may have killed it: the round's booked release is made of nobody, and only the hospital knows."""
    path = write_study(tmp_path, "worker-killed", private=True, quorum=2, held={"hungary": 1})
    study, run = load_study(path), federation.submit(path)
    await_held(federation, "hungary")
    os.kill(worker_pid(federation, "hungary"), signal.SIGKILL)
    federation.await_state(run, "COMPLETE")
    first, second = records(run_journal(federation, run), "round")
    assert (first["missing"], second["missing"]) == ({}, {})
    assert sorted(first["contributed"]) == sorted(second["contributed"]) == sorted(SITES)
    assert reserved(federation, "hungary", study) == [(1, "reserved"), (2, "committed")]
    assert "noise alone leaves" in federation.log("hungary")


def test_a_killed_coordinator_goes_on_after_its_last_round_with_the_same_bits(
    federation: Federation, tmp_path: Path
) -> None:
    path = write_study(tmp_path, "coordinator-killed", rounds=3, held={"cleveland": 2})
    run = federation.submit(path)
    await_held(federation, "cleveland")
    kill(federation, "coordinator")
    go_on(federation, "cleveland")
    federation.start_coordinator()
    federation.await_state(run, "COMPLETE")  # by itself
    assert records(run_journal(federation, run), "resumed")
    assert model(federation, run) == simulated(path, tmp_path / "runs")


def test_a_restored_coordinator_waits_for_a_person(federation: Federation, tmp_path: Path) -> None:
    path = write_study(tmp_path, "restored", rounds=3, held={"cleveland": 2})
    run = federation.submit(path)
    await_held(federation, "cleveland")
    kill(federation, "coordinator")
    go_on(federation, "cleveland")
    backup = federation.coordinator.with_name("backup")
    federation.coordinator.rename(backup)
    shutil.copytree(backup, federation.coordinator, ignore=shutil.ignore_patterns("sockets"))
    federation.start_coordinator()
    line = federation.await_state(run, "INCOMPLETE")
    assert "seems restored or copied" in line
    assert "resume" in line
    federation.consortium("resume", run)
    federation.await_state(run, "COMPLETE")
    assert model(federation, run) == simulated(path, tmp_path / "runs")
    shutil.rmtree(backup)  # it holds the keys, which another test looks for


def test_a_killed_superlink_is_started_again_and_the_run_goes_on(federation: Federation, tmp_path: Path) -> None:
    path = write_study(tmp_path, "superlink-killed", rounds=3, held={"cleveland": 2})
    run = federation.submit(path)
    await_held(federation, "cleveland")
    assert health(federation) == "SERVING"
    os.kill(superlink_pid(federation), signal.SIGKILL)
    until(lambda: health(federation) == "NOT_SERVING", "a probe to see it")
    go_on(federation, "cleveland")
    federation.await_state(run, "COMPLETE")
    assert health(federation) == "SERVING"
    assert model(federation, run) == simulated(path, tmp_path / "runs")


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
        if site in federation.processes:
            federation.end(site)
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()
        kept.rename(folder)
        federation.start_site(site)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_nothing_leaves_a_hospital_whose_disk_is_full_and_it_goes_on_when_there_is_room(
    federation: Federation, tmp_path: Path
) -> None:
    with small_disk(federation, "cleveland") as folder:
        path = write_study(tmp_path, "full", rounds=10_000, quorum=2, timeout_s=30, held={"cleveland": 1})
        run, journal = federation.submit(path), folder / "journal.jsonl"
        await_held(federation, "cleveland")
        with contextlib.suppress(OSError):
            (folder / "filling").write_bytes(b"x" * 10_000_000)
        go_on(federation, "cleveland")
        until(lambda: "it cannot be kept" in federation.log("cleveland"), "the node not to send what it trained")
        until(lambda: len(_rounds(federation, run)) > 1, "a second round without it")
        digest = load_study(path).sha256
        assert not [r for r in _between_two_tries(journal, "sent") if r["study"] == digest and r["round"]]
        without = [list(facts["missing"]) for facts in _rounds(federation, run)]
        assert without == [["cleveland"]] * len(without)
        (folder / "filling").unlink()
        until(lambda: "cleveland" in _rounds(federation, run)[-1]["contributed"], "cleveland to contribute again")
        federation.consortium("stop", run)
        federation.await_state(run, "INCOMPLETE")
    # What left in other tests lies on the hospital's own disk.
    assert "none changed" in federation.hospital("cleveland", "journal", "verify")


def _rounds(federation: Federation, run: str) -> list[dict[str, Any]]:
    return records(run_journal(federation, run), "round")


def _between_two_tries(journal: Path, kind: str) -> list[dict[str, Any]]:
    """Records of a journal on a full disk: a record that does not fit is cut off again, and may be seen half-way."""

    def whole() -> list[list[dict[str, Any]]]:
        try:
            return [records(journal, kind)]
        except JournalError:
            return []

    found: list[list[dict[str, Any]]] = until(whole, "a journal of whole records")
    return found[0]


def test_no_private_key_is_in_any_file_but_its_own(federation: Federation) -> None:
    assert_keys_are_in_no_other_file(federation)


def test_a_hospital_that_never_comes_is_not_waited_for_without_end(tmp_path: Path) -> None:
    with hospitals(tmp_path / "fed", ("lonely",), start=False, coordinator={"gather_timeout_s": 30}) as federation:
        federation.start_site("cleveland")
        until(lambda: "cleveland                connected" in federation.consortium("sites"), "cleveland to connect")
        run = federation.submit(write_study(tmp_path, "lonely"))
        line = federation.await_state(run, "INCOMPLETE")
        assert "1 hospitals take part (cleveland), the study asks for 3; hungary: not connected" in line
        status = federation.consortium("status", run)
        assert "hungary              contributed to 0 of 0 rounds; not connected" in status
