"""A deployed study: real processes, a real SuperLink, mutual TLS; what it leaves, and what it lets nobody do."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs import wire
from configs.coordinator import load_coordinator
from configs.journal import GENESIS, read
from configs.load import load_study
from simulations import cli
from simulations.federation import Federation
from tests.federation.deployed import (
    SEEDED_NODE,
    SITES,
    await_held,
    finished,
    go_on,
    hospitals,
    model,
    records,
    run_journal,
    simulated,
    site_journal,
    superlink_pid,
    until,
    write_statistics,
    write_study,
)

RELEASE = {"epsilon": 5.0, "bins": 12}
STUDIES = (
    "parity-private",
    "counted",
    "parity-plain",
    "asked",
    "refused",
    "first",
    "second",
    "slowly",
    "left-alone",
    "waits",
    "overtakes",
    "given-up",
)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("fed")
    with hospitals(folder, STUDIES, node=SEEDED_NODE, max_epsilon=50.0, metrics="noisy") as running:
        yield running


@pytest.fixture(scope="module")
def private_run(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    study = write_study(tmp_path_factory.mktemp("study"), "parity-private", private=True, rounds=3, release=RELEASE)
    return study, finished(federation, study)


def test_a_deployed_study_ends_with_the_bits_of_its_simulation(
    federation: Federation, private_run: tuple[Path, str], tmp_path: Path
) -> None:
    study, run = private_run
    assert model(federation, run) == simulated(study, tmp_path / "runs")
    released = json.loads((tmp_path / "runs" / "latest" / "metrics.json").read_bytes())["released"]
    assert set(released["histograms"]) == set(SITES)
    assert federation.metrics(run)["released"] == released


def test_every_hospital_has_the_model_that_came_of_a_study_once_it_is_over(
    federation: Federation, private_run: tuple[Path, str]
) -> None:
    study, run = private_run
    digest = load_study(study).sha256
    for site in SITES:
        kept = federation.site_folder(site) / "models" / f"{digest}.json"
        until(kept.exists, f"{site} to keep the end")
        assert json.loads(kept.read_bytes()) | {"received": ""} == {
            **{"study": digest, "name": "parity-private", "outcome": "COMPLETE", "code": 0, "rounds": 3, "run": run},
            **{"why": wire.ENDS[0], "coordinator": federation.address, "received": ""},
            "model_sha256": hashlib.sha256(model(federation, run)).hexdigest(),
        }
        assert kept.with_suffix(".safetensors").read_bytes() == model(federation, run)


def test_deployed_statistics_are_those_of_the_simulation(federation: Federation, tmp_path: Path) -> None:
    study = write_statistics(tmp_path, "counted")
    run = finished(federation, study)
    command = ["simulate", str(study), "--out", str(tmp_path / "runs")]
    assert cli.main(command) == 0
    here = json.loads((tmp_path / "runs" / "latest" / "metrics.json").read_bytes())
    there = federation.metrics(run)
    assert set(here["statistics"]["sites"]) == set(SITES)
    assert there["statistics"] == here["statistics"]
    assert all(0.2 < site["epsilon"] < 0.5 for site in there["sites"])  # what its spare would cost is not spent
    assert "Who are the patients?" in Path(federation.consortium("report", run).strip()).read_text()
    assert "its statistics" in federation.hospital(SITES[0], "ledger")


def test_so_does_one_without_privacy(federation: Federation, tmp_path: Path) -> None:
    local = {"epochs": 2, "batch_size": 32, "optimizer": "adam", "learning_rate": 0.01}
    study = write_study(tmp_path, "parity-plain", rounds=3, local=local)
    assert model(federation, finished(federation, study)) == simulated(study, tmp_path / "runs")


def test_the_run_leaves_what_a_simulation_leaves_without_what_needs_patients(
    federation: Federation, private_run: tuple[Path, str]
) -> None:
    _, run = private_run
    metrics = federation.metrics(run)
    assert metrics["outcome"] == "COMPLETE"
    assert metrics["engine"] == "deployed"
    assert {name for name, found in metrics["models"].items() if found} == {"federated"}
    assert [site["patients_train"] for site in metrics["sites"]] == [None] * 3
    assert all(site["epsilon"] == pytest.approx(metrics["privacy"]["epsilon"], abs=1e-3) for site in metrics["sites"])
    report = (federation.coordinator / "runs" / run / "report.html").read_text()
    assert all(site in report for site in SITES)


def test_the_noisy_figures_of_the_hospitals_are_in_the_run_and_in_its_report(
    federation: Federation, private_run: tuple[Path, str], tmp_path: Path
) -> None:
    _, run = private_run
    found = federation.metrics(run)["models"]["federated"]
    assert 0.0 < found["auroc"]["low"] < found["auroc"]["value"] < found["auroc"]["high"] <= 1.0
    assert set(found["per_site"]) == set(SITES)
    assert f"{found['auroc']['value']:.2f}" in (federation.coordinator / "runs" / run / "report.html").read_text()
    assert "and the evaluation" in federation.hospital("hungary", "ledger")


def test_each_sides_journal_proves_what_was_sent(federation: Federation, private_run: tuple[Path, str]) -> None:
    study, run = private_run
    digest = load_study(study).sha256
    sent = records(run_journal(federation, run), "sent")
    received = records(run_journal(federation, run), "received")
    ours = [json.loads(line)["hash"] for line in run_journal(federation, run).read_text().splitlines()]
    for site in SITES:
        at_site = site_journal(federation, site)
        came = {r["content"] for r in records(at_site, "received") if r["study"] == digest}
        left = {r["content"] for r in records(at_site, "sent") if r["study"] == digest}
        assert {r["content"] for r in sent if r["site"] == site} == came
        assert {r["content"] for r in received if r["site"] == site} == left
        heads = [json.loads(line)["hash"] for line in at_site.read_text().splitlines()]
        assert {r["their_journal"] for r in received if r["site"] == site} <= set(heads)
        quoted = {r["their_journal"] for r in records(at_site, "received") if r["study"] == digest}
        assert quoted <= {*ours, GENESIS}  # a proposal may come before the run has a journal
        assert len(quoted) > 3
        assert "none changed" in federation.hospital(site, "journal", "verify")
    assert "none changed" in federation.consortium("journal", "verify", run)


def test_the_hospital_opens_a_message_that_left(federation: Federation, private_run: tuple[Path, str]) -> None:
    lines = federation.hospital("cleveland", "outbox").splitlines()
    for form, array in (("train reply", "0.weight [1, 15] float32"), ("evaluate reply", "histogram [2, 12] float32")):
        line = next(line for line in lines if form in line)
        assert array in federation.hospital("cleveland", "outbox", "--show", line.split()[1])


def test_the_ledger_says_what_was_spent(federation: Federation, private_run: tuple[Path, str]) -> None:
    said = federation.hospital("hungary", "ledger")
    assert "parity-private-hungary: epsilon " in said
    assert "3 rounds" in said


def test_a_record_that_was_changed_cut_out_or_moved_is_named(
    federation: Federation, private_run: tuple[Path, str]
) -> None:
    path = site_journal(federation, "long_beach_va")
    good = path.read_bytes()
    lines = good.splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines) if b'"kind":"sent"' in line)
    changed = lines[number].replace(b'"kind":"sent"', b'"kind":"lost"')
    spoilt = {
        number + 1: [*lines[:number], changed, *lines[number + 1 :]],
        5: [*lines[:4], *lines[5:]],
        3: [*lines[:2], lines[3], lines[2], *lines[4:]],
    }
    try:
        for record, bad in spoilt.items():
            path.write_bytes(b"".join(bad))
            with pytest.raises(Exception, match=f"record {record}:"):
                federation.hospital("long_beach_va", "journal", "verify")
    finally:
        path.write_bytes(good)
    assert "none changed" in federation.hospital("long_beach_va", "journal", "verify")


def test_the_consortium_watches_rounds_with_who_contributed_how_long_and_the_epsilon_that_each_hospital_has_left(
    federation: Federation, private_run: tuple[Path, str]
) -> None:
    study, run = private_run
    lines = federation.consortium("watch", run).splitlines()
    asked = load_study(study).privacy.epsilon
    rounds = [line for line in lines if line.startswith("round ")]
    assert [line.split("  ")[0] for line in rounds] == ["round 1/3", "round 2/3", "round 3/3"]
    left: dict[str, list[float]] = {site: [] for site in SITES}
    for number, line in enumerate(rounds, 1):
        assert re.search(r"  \d+\.\d\d s  cleveland, hungary, long_beach_va; epsilon left: ", line)
        for site, said in re.findall(r"(\w+) (\d\.\d\d)(?:,|$)", line.partition("epsilon left: ")[2]):
            received = records(run_journal(federation, run), "received")
            (reply,) = [r for r in received if r["site"] == site and r["round"] == number]
            assert float(said) == pytest.approx(asked - float(reply["epsilon"]), abs=0.006)
            left[site].append(float(said))
    assert all(first > second > third == 0.0 for first, second, third in left.values())
    assert lines[-2] == "COMPLETE"
    assert lines[-1].startswith("report: ")


def test_the_report_of_a_run_says_who_took_part_in_each_round(
    federation: Federation, private_run: tuple[Path, str]
) -> None:
    _, run = private_run
    (path := federation.coordinator / "runs" / run / "report.html").unlink()
    assert federation.consortium("report", run).strip() == str(path)
    page = path.read_text()
    assert "Who took part in each round?" in page
    assert all(f"{site}: contributed" in page for site in SITES)


def test_the_superlink_has_no_port_and_its_socket_is_its_owners(federation: Federation) -> None:
    """Other users of the machine could take over a run through a port on loopback."""
    pid = superlink_pid(federation)
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    for table in ("tcp", "tcp6", "udp", "udp6"):
        rows = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        assert inodes.isdisjoint(row.split()[9] for row in rows)
    sockets = load_coordinator(federation.coordinator).sockets
    assert inodes
    assert sockets.stat().st_mode & 0o777 == 0o700
    assert (sockets / "superlink.sock").stat().st_mode & 0o777 == 0o600
    if os.geteuid() == 0:
        knock = "import os, socket; os.setuid(65534); socket.socket(socket.AF_UNIX).connect('superlink.sock')"
        done = subprocess.run([sys.executable, "-c", knock], cwd=sockets, capture_output=True, text=True, check=False)
        assert "PermissionError" in done.stderr
        knock = knock.replace("os.setuid(65534); ", "")
        assert subprocess.run([sys.executable, "-c", knock], cwd=sockets, check=False).returncode == 0


def test_a_revoked_hospital_is_out_within_the_round(federation: Federation, tmp_path: Path) -> None:
    study = write_study(tmp_path, "slowly", rounds=3, quorum=2, held={"hungary": 1})
    run = federation.submit(study)
    await_held(federation, "hungary")
    try:
        federation.consortium("revoke", "hungary")
        until(lambda: records(run_journal(federation, run), "round"), "the first round to end without it")
        go_on(federation, "hungary")
        federation.await_state(run, "COMPLETE")
        (first, second, third) = records(run_journal(federation, run), "round")
        assert first["missing"]["hungary"] == "it was revoked"
        assert "hungary" not in second["contributed"] | third["contributed"]
        assert "hungary                  revoked" in federation.consortium("sites")
        until(lambda: "does not accept this hospital" in federation.log("hungary"), "the node to say so")
    finally:
        go_on(federation, "hungary")
        federation.consortium("admit", str(federation.site_folder("hungary") / "request.json"), "--replace")
        welcome = federation.coordinator / "welcome" / "hungary.json"
        federation.hospital("hungary", "join", str(welcome))
        federation.end("hungary")
        federation.start_site("hungary")
        until(lambda: "hungary                  connected" in federation.consortium("sites"), "hungary to be back")


def test_of_two_studies_at_once_one_is_conducted_after_the_other(federation: Federation, tmp_path: Path) -> None:
    runs = [federation.submit(write_study(tmp_path, name, rounds=2)) for name in ("first", "second")]
    for run in runs:
        federation.await_state(run, "COMPLETE")
    times = {run: [(r.kind, r.time) for r in read(run_journal(federation, run))] for run in runs}
    spans = sorted((dict(records)["begin"], records[-1][1]) for records in times.values())
    assert spans[0][1] < spans[1][0]


def test_a_study_that_waits_for_an_approval_is_shown_beside_others_and_stops_none(
    federation: Federation, tmp_path: Path
) -> None:
    """Neither the proposal of the second nor its rounds wait for the first."""
    site = federation.site_folder("cleveland") / "site.yaml"
    text = site.read_text()
    site.write_text(text.replace("require_approval: false", "require_approval: true"))
    federation.end("cleveland")
    federation.start_site("cleveland")
    studies = [write_study(tmp_path, name, rounds=1) for name in ("waits", "overtakes", "given-up")]
    runs = [federation.submit(study) for study in studies]
    digests = [load_study(study).sha256 for study in studies]
    try:
        until(lambda: all(d in federation.hospital("cleveland", "review") for d in digests), "all three to be shown")
        federation.hospital("cleveland", "approve", digests[1][:20])
        federation.await_state(runs[1], "COMPLETE")
        status = federation.consortium("status")
        assert [f"{run}  WAITING" in status for run in runs] == [True, False, True]
        federation.consortium("stop", runs[2])
        assert "stopped by the consortium" in federation.await_state(runs[2], "INCOMPLETE")
        federation.hospital("cleveland", "approve", digests[0][:20])
        federation.await_state(runs[0], "COMPLETE")
    finally:
        site.write_text(text)
        federation.end("cleveland")
        federation.start_site("cleveland")


def test_a_run_that_is_stopped_is_incomplete_and_goes_on_when_it_is_resumed(
    federation: Federation, tmp_path: Path
) -> None:
    study = write_study(tmp_path, "left-alone", rounds=4, held={"cleveland": 2})
    run = federation.submit(study)
    await_held(federation, "cleveland")
    federation.consortium("stop", run)
    go_on(federation, "cleveland")
    assert "stopped by the consortium" in federation.await_state(run, "INCOMPLETE")
    kept = federation.site_folder("hungary") / "models" / f"{load_study(study).sha256}.json"
    until(kept.exists, "the hospital to learn the end")
    assert json.loads(kept.read_bytes())["code"] == wire.STOPPED
    federation.consortium("resume", run)
    federation.await_state(run, "COMPLETE")
    until(lambda: json.loads(kept.read_bytes())["outcome"] == "COMPLETE", "the hospital to learn the new end")
    assert records(run_journal(federation, run), "resumed")
    assert model(federation, run) == simulated(study, tmp_path / "runs")


def test_a_hospital_twenty_times_slower_than_the_rest_is_waited_for(federation: Federation, tmp_path: Path) -> None:
    study = write_study(tmp_path, "slowly", quorum=2, timeout_s=300, held={"cleveland": 1})
    run = federation.submit(study)
    await_held(federation, "cleveland")
    began = time.monotonic()
    try:
        until(lambda: _answers(federation, run) == len(SITES) - 1, "the others to be done")
        others_s = max(time.monotonic() - began, 0.5)
        time.sleep(20 * others_s)
        assert _answers(federation, run) == len(SITES) - 1
    finally:
        go_on(federation, "cleveland")
    federation.await_state(run, "COMPLETE")
    first, second = records(run_journal(federation, run), "round")
    assert sorted(first["contributed"]) == sorted(second["contributed"]) == sorted(SITES)
    assert first["seconds"] > 20 * others_s


def _answers(federation: Federation, run: str) -> int:
    """How many hospitals have answered the first round."""
    return sum(r["round"] == 1 for r in records(run_journal(federation, run), "received"))


def test_nothing_happens_before_a_person_approves(federation: Federation, tmp_path: Path) -> None:
    """The policy of one hospital asks for approval; the coordinator sees who waits."""
    site = federation.site_folder("cleveland") / "site.yaml"
    text = site.read_text()
    site.write_text(text.replace("require_approval: false", "require_approval: true"))
    federation.end("cleveland")
    federation.start_site("cleveland")
    study = write_study(tmp_path, "asked", rounds=1)
    run = federation.submit(study)
    digest = load_study(study).sha256
    until(lambda: digest in federation.hospital("cleveland", "review"), "the study to arrive")
    until(lambda: "has not approved this study yet" in federation.consortium("status"), "the coordinator to see it")
    page = federation.hospital("cleveland", "review")
    assert "Predict angiographic coronary disease" in page
    assert "NONE: the model's numbers leave without noise" in page
    federation.hospital("cleveland", "approve", digest[:20])
    federation.await_state(run, "COMPLETE")

    other = write_study(tmp_path, "refused", rounds=1)
    run = federation.submit(other)
    digest = load_study(other).sha256
    until(lambda: digest in federation.hospital("cleveland", "review"), "the other study to arrive")
    federation.hospital("cleveland", "refuse", digest, "--why", "SECRET-REASON of the DPO")
    assert "INCOMPLETE" in federation.await_state(run, "INCOMPLETE")
    assert "the hospital refused this study" in run_journal(federation, run).read_text()
    everything = b"".join(p.read_bytes() for p in federation.coordinator.rglob("*") if p.is_file())
    assert b"SECRET-REASON" not in everything
    site.write_text(text)
