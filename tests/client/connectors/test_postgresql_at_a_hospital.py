"""A hospital whose patients are in a PostgreSQL: worker, forwarder, check, review and simulation, all of them real."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import node
from client.admission import Admission, Admissions
from client.data_check import look_at_data
from client.doctor import examine
from client.findings import NOTE, OK, WARNING, WRONG, Finding, render
from client.node import Node
from client.worker_process import WorkerProcess
from configs import wire
from configs.frame import Frame
from configs.load import load_study, study_from
from configs.schema import SqlQuery, Study
from configs.site import SiteConfig
from configs.strict_yaml import dump_yaml, read_yaml
from simulations import cli as researcher
from simulations import federation
from strategies.exchange.messages import content, to_frame
from strategies.models.registry import study_parameters
from tests import builders
from tests.client.pages import page
from tests.consortium import Consortium
from tests.postgresql import DATA, HEART, PASSWORD, PostgreSql, heart

ROOT = Path(__file__).resolve().parents[3]
SITE = "cleveland"
QUERY = "select * from heart order by row_number"
MAX_BYTES = 10_000_000


def plain(name: str = "heart-disease", **changes: Any) -> Study:
    """The heart study without privacy, so that what is trained can be compared bit by bit."""
    document = read_yaml(ROOT / "configs" / "presets" / "heart_disease.yaml")
    document |= {"name": name, "privacy": {"mode": "none"}, "simulation": {}} | changes
    return study_from(document, source="test")


@pytest.fixture(autouse=True)
def address(server: PostgreSql, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Patients in the data base, its address in the variable; afterwards no file of the hospital holds the password."""
    server.table("heart", heart(SITE), HEART)
    monkeypatch.setenv("EDS_URL", f"{server.url()}?sslmode=verify-full&sslrootcert={server.ca}")
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []


@pytest.fixture
def hospital(server: PostgreSql, tmp_path: Path) -> Any:
    """Makes a hospital with these data sets that has approved these studies."""
    consortium = Consortium(tmp_path / "consortium")

    def make(datasets: dict[str, Any], *approved: Study, **document: Any) -> SiteConfig:
        document = {"worker_network": [f"localhost:{server.port}"]} | document
        config = consortium.hospital(SITE, datasets=datasets, policy={"allow_privacy_none": True}, **document)
        admissions = Admissions.open(config.admissions)
        for study in approved:
            admissions.propose(study.sha256, study.name, study.canonical)
            admissions.decide(study.sha256, "approved")
        admissions.close()
        return config

    return make


def sql(query: str = QUERY, **options: Any) -> dict[str, Any]:
    return {"connector": "sql", "url_env": "EDS_URL", "query": query, **options}


# The worker


def trained(worker: WorkerProcess, study: Study) -> builders.Arrays:
    """The model after a round that starts from zeros."""
    proposal: dict[str, str | int] = {"protocol": wire.PROTOCOL, "study": study.canonical}
    status, reply = worker.ask(Frame("hello", proposal), MAX_BYTES)
    assert reply.form == "hello reply", status.fields
    expected = study_parameters(study)
    zeros = {name: np.zeros(shape, np.float32) for name, (shape, _) in expected.items()}
    fields: dict[str, str | int] = {"study_sha256": study.sha256, "round": 1}
    status, reply = worker.ask(to_frame("train", content("train", fields, zeros, expected), expected), MAX_BYTES)
    assert reply.form == "train reply", status.fields
    return {name: np.frombuffer(bytes(part), np.uint8) for name, part in reply.arrays.items()}


def test_the_isolated_worker_trains_on_a_data_base_to_the_bits_of_the_csv_file(hospital: Any) -> None:
    in_file, in_base = plain("in-file"), plain("in-base")
    csv = {"connector": "csv", "path": str(DATA / f"{SITE}.csv")}
    config = hospital({"in-file": csv, "in-base": sql()}, in_file, in_base)
    worker = WorkerProcess(config)
    try:
        worker.start()
        if not worker.alone:
            pytest.skip("the kernel gives this user no network namespace")
        found = trained(worker, in_base)
        assert builders.same_bits(found, trained(worker, in_file))
        assert any(part.any() for part in found.values())
        (forwarder,) = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
        environment = Path(f"/proc/{forwarder}/environ").read_bytes()
        assert b"EDS_URL" in Path(f"/proc/{worker.pid}/environ").read_bytes()
        assert b"EDS_URL" not in environment
        assert b"PATH=" in environment
    finally:
        worker.stop()


def refused(config: SiteConfig, study: Study) -> str:
    """Why the worker refuses a study, as the hospital learns it; the coordinator gets the fixed sentence."""
    worker = WorkerProcess(config)
    try:
        worker.start()
        if not worker.alone:
            pytest.skip("the kernel gives this user no network namespace")
        proposal = Frame("hello", {"protocol": wire.PROTOCOL, "study": study.canonical})
        status, reply = worker.ask(proposal, MAX_BYTES)
    finally:
        worker.stop()
    assert dict(reply.fields) == {
        "code": 107,
        "reason": "the hospital's data cannot be read at present; its own log says why",
    }
    assert PASSWORD not in str(status.fields)
    return str(status.fields["why"])


@pytest.mark.parametrize("listed", [[], ["127.0.0.1:5432"]])
def test_an_address_that_is_not_listed_is_refused_with_what_to_list(
    hospital: Any, server: PostgreSql, listed: list[str]
) -> None:
    config = hospital({"heart-disease": sql()}, plain(), worker_network=listed)
    expected = f"expected an address that site.yaml lists, found localhost:{server.port}; add it to worker_network"
    assert refused(config, plain()) == expected


def test_a_data_base_behind_the_forwarder_that_is_down_is_said(
    hospital: Any, monkeypatch: pytest.MonkeyPatch, server: PostgreSql
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        monkeypatch.setenv("EDS_URL", server.url().replace(f":{server.port}/", f":{port}/"))
        config = hospital({"heart-disease": sql()}, plain(), worker_network=[f"localhost:{port}"])
        assert f"localhost:{port} cannot be reached: its name, a firewall, or" in refused(config, plain())


def test_the_process_that_talks_to_the_coordinator_lets_go_of_the_address(
    hospital: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, bool]] = []

    def run(self: Node) -> None:
        assert isinstance(self.worker, WorkerProcess)
        seen.append(("EDS_URL" in os.environ, "EDS_URL" in self.worker._environment))

    monkeypatch.setattr(Node, "run", run)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    node.start(hospital({"heart-disease": sql()}))
    assert seen == [(False, True)]


# check and review


def data(config: SiteConfig) -> Finding:
    (finding,) = look_at_data(config)
    assert PASSWORD not in render([finding])
    return finding


def test_check_reads_the_data_base_of_an_approved_study_by_the_workers_way(hospital: Any) -> None:
    config = hospital({"heart-disease": sql()}, plain())
    assert data(config) == Finding("data", OK, "heart-disease: fits the approved study")
    assert data(config) in examine(config.folder)


def test_check_opens_a_session_but_reads_no_row_before_a_study_is_approved(hospital: Any, server: PostgreSql) -> None:
    finding = data(hospital({"heart-disease": sql("select 1/(age-age) as age from heart")}))
    assert finding.verdict == OK
    assert "takes the query; no row was read, no study of it is approved" in finding.text
    finding = data(hospital({"heart-disease": sql("select agee from heart")}))
    assert (finding.verdict, "a column of the query is not in the data base" in finding.text) == (WRONG, True)


def test_check_says_what_is_wrong_and_who_mends_it(
    hospital: Any, server: PostgreSql, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = hospital({"heart-disease": sql("select * from heart limit 0")}, plain())
    finding = data(config)
    assert (finding.verdict, finding.text) == (WARNING, "heart-disease: no patient at all: only noise would leave")
    assert finding.who == "whoever runs the data base, or whoever wrote site.yaml"
    monkeypatch.setenv("EDS_URL", server.url(password="wr0ng"))
    assert "does not accept this user and password" in data(config).text
    monkeypatch.delenv("EDS_URL")
    finding = data(config)
    assert (finding.verdict, finding.who) == (WRONG, "hospital IT")
    assert "the variable EDS_URL, which holds the data base's address, is not set here" in finding.text


def test_a_file_is_still_not_opened_before_a_study_is_approved(hospital: Any) -> None:
    csv = {"connector": "csv", "path": str(DATA / f"{SITE}.csv")}
    assert data(hospital({"heart-disease": csv})).verdict == NOTE


def test_review_shows_the_query_and_the_name_of_the_variable_alone(hospital: Any) -> None:
    study = plain()
    config = hospital({"heart-disease": sql(identity="cardiology")})
    text = page(config, Admission(study.sha256, study.name, study.canonical, "waiting", "", "now"))
    words = " ".join(text.split())
    assert f"sql, the data base whose address the variable EDS_URL holds: {QUERY} (budget of the data set" in words
    assert "any other column: one that the query gives is dropped as it arrives" in words
    assert "localhost" not in words


# Simulations


def study_file(path: Path, sites: dict[str, Any]) -> Path:
    document = read_yaml(ROOT / "configs" / "presets" / "heart_disease.yaml")
    document["training"] |= {"rounds": 2, "quorum": 1}
    document |= {"cohort": {SITE: 300}, "simulation": {"sites": sites}}
    path.write_text(dump_yaml(document))
    return path


def test_a_simulation_on_a_data_base_ends_with_the_bits_of_one_on_files(tmp_path: Path) -> None:
    csv = {"connector": "csv", "path": str(DATA / f"{SITE}.csv")}
    models = []
    for name, source in (("file", csv), ("base", sql())):
        path = study_file(tmp_path / f"{name}.yaml", {SITE: source})
        assert researcher.main(["simulate", str(path), "--out", str(tmp_path / name)]) == 0
        models.append((tmp_path / name / "latest" / "model.safetensors").read_bytes())
    assert models[0] == models[1]
    kept = load_study(tmp_path / "base" / "latest" / "study.yaml")
    read = dict(kept.simulation)[SITE]
    assert isinstance(read, SqlQuery)
    assert read.query == QUERY


def test_a_rehearsal_between_processes_needs_files_and_says_so(tmp_path: Path, capsys: Any) -> None:
    path = study_file(tmp_path / "base.yaml", {SITE: sql()})
    assert federation.main([str(path)]) == 2
    assert f"expected files for a rehearsal on this machine, found queries of {SITE}" in capsys.readouterr().err


def test_the_driver_is_loaded_by_those_alone_who_have_a_data_base() -> None:
    code = "import sys, client.connectors, client.site, client.doctor; sys.exit('psycopg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
