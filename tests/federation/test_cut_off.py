"""What goes wrong on the way and at the door: networks cut, twins, wrong clocks, old certificates; and what is never
written or sent, whatever goes wrong; with real processes."""

import datetime
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs import parts
from configs.load import load_study
from configs.papers import Request, from_json
from configs.strict_yaml import dump_yaml
from server import pki
from simulations.federation import Federation
from tests.federation.deployed import (
    DATA,
    SITES,
    STAGED_NODE,
    assert_keys_are_in_no_other_file,
    await_held,
    finished,
    go_on,
    hospitals,
    records,
    reserved,
    run_journal,
    site_document,
    until,
    write_study,
)
from tests.proxy import Proxy

STUDIES = ("cut-short", "cut-long", "clock", "twins", "marked", "expired")
LATE_NODE = Path(__file__).with_name("late_node.py")
MARKER, SURNAME = "7.77777", "Zzyzxdupont"  # what a test plants in patients' rows


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    """The proxy of one hospital, the way of its node to the coordinator."""
    with Proxy("node:secret-of-the-proxy") as running:
        yield running


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, proxy: Proxy) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("fed")
    with hospitals(folder, STUDIES, node=STAGED_NODE, start=False) as running:
        behind = {
            "HTTPS_PROXY": f"http://node:secret-of-the-proxy@127.0.0.1:{proxy.port}",
            "NO_PROXY": "",
            "no_proxy": "",
        }
        for site in SITES:
            running.start_site(site, **(behind if site == "long_beach_va" else {}))
        yield running


@pytest.mark.parametrize(("study", "seconds"), [("cut-short", 30), ("cut-long", 50)])
def test_a_hospital_whose_network_is_cut_sends_what_it_trained_when_it_is_back(
    federation: Federation, proxy: Proxy, tmp_path: Path, study: str, seconds: int
) -> None:
    """Thirty seconds, and longer than it takes until the SuperLink gives the node up."""
    path = write_study(tmp_path, study, private=True, timeout_s=300, held={"long_beach_va": 1})
    run = federation.submit(path)
    await_held(federation, "long_beach_va")
    proxy.cut.set()
    go_on(federation, "long_beach_va")
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
    assert_keys_are_in_no_other_file(federation)


def test_two_nodes_of_one_identity_are_told_apart(federation: Federation, tmp_path: Path) -> None:
    twin = federation.folder / "twin"
    shutil.copytree(federation.site_folder("cleveland"), twin)
    federation._start("twin", parts.command("client.cli", "-C", str(twin), "start"), twin)
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
    folder = federation.site_folder("hungary").resolve()
    for offset, said in ((600, r"clock is (59|60)\d s off"), (-600, r"clock is -(59|60)\d s off")):
        federation.end("hungary")
        federation._start("hungary", [sys.executable, "-P", str(LATE_NODE), str(offset), str(folder)], folder)
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


def test_no_value_of_a_patient_is_written_or_sent(federation: Federation, tmp_path: Path) -> None:
    """A planted value that fits no column, names beside others: none is in a log, journal or message."""
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
    for number, rows in enumerate(([*lines[:7], ",".join(row), *lines[8:]], lines)):
        marked.write_text("\n".join(rows) + "\n")
        finished(federation, write_study(tmp_path, "marked", rounds=1 + number, quorum=3))
        read = federation.hospital("cleveland", "review", "--data", load_study(tmp_path / "marked.yaml").sha256)
        assert ("no number" in read) == (number == 0)
        written = {p: p.read_bytes() for p in federation.folder.rglob("*") if p.is_file()}
        assert not [p for p, data in written.items() if MARKER.encode() in data or SURNAME.encode() in data]
        assert MARKER not in read
        assert SURNAME not in read
    assert [p for p in written if p.suffix == ".frame"]  # what was sent is among them, byte for byte
    site.write_text(text)


def _rows(site: str) -> list[str]:
    return (DATA / f"{site}.csv").read_text().splitlines()
