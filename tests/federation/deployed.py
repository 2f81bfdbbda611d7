"""What the tests of a deployed federation share: three of the demo's hospitals, studies, and ways to hurt them."""

import contextlib
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from configs.journal import read
from configs.schema import Study
from configs.strict_yaml import dump_yaml, read_yaml
from simulations import cli
from simulations.federation import Federation

ROOT = Path(__file__).resolve().parents[2]
PRESET = ROOT / "configs" / "presets" / "heart_disease.yaml"
DATA = ROOT / "simulations" / "data" / "heart_disease"
SITES = ("cleveland", "hungary", "long_beach_va")
QUICK: dict[str, Any] = {"batch_size": "full", "learning_rate": 0.5}
STAGED_NODE = [sys.executable, "-P", str(Path(__file__).with_name("staged_node.py"))]  # its rounds can be held
SEEDED_NODE = [*STAGED_NODE, "--seeded"]  # with the simulation's noise too


def write_study(
    folder: Path,
    name: str,
    *,
    private: bool = False,
    rounds: int = 2,
    local: Mapping[str, object] = QUICK,
    quorum: int = 3,
    timeout_s: int = 120,
    release: Mapping[str, object] | None = None,
    spare: int = 0,
    held: Mapping[str, int] | None = None,
) -> Path:
    """A study of three of the demo's hospitals; at staged nodes, those in `held` stop in the midst of these rounds."""
    document = read_yaml(PRESET)
    document["name"] = name
    document["purpose"] += "".join(f". Held at {site} in round {number}." for site, number in (held or {}).items())
    document["cohort"] = {site: document["cohort"][site] for site in SITES}
    document["training"] = {
        "strategy": {"name": "fedavg"},
        "rounds": rounds,
        "local": dict(local),
        "quorum": quorum,
        "round_timeout_s": timeout_s,
    }
    document["privacy"] = {**document["privacy"], "spare": spare} if private else {"mode": "none"}
    if release:
        document["evaluation"]["release"] = dict(release)
    document["simulation"]["sites"] = {site: {"connector": "csv", "path": str(DATA / f"{site}.csv")} for site in SITES}
    path = folder / f"{name}.yaml"
    path.write_text(dump_yaml(document))
    return path


def write_statistics(folder: Path, name: str) -> Path:
    """A study of statistics of the same hospitals."""
    document = read_yaml(PRESET.with_name("heart_statistics.yaml")) | {"name": name, "training": {"quorum": 3}}
    document["cohort"] = {site: document["cohort"][site] for site in SITES}
    document["simulation"] = {"sites": {s: {"connector": "csv", "path": str(DATA / f"{s}.csv")} for s in SITES}}
    path = folder / f"{name}.yaml"
    path.write_text(dump_yaml(document))
    return path


def site_document(site: str, address: str, studies: tuple[str, ...], **policy: object) -> dict[str, Any]:
    """A site.yaml that has data for these studies, each with a budget of its own."""
    return {
        "site": site,
        "coordinator": address,
        "datasets": {
            study: {"connector": "csv", "path": str(DATA / f"{site}.csv"), "identity": f"{study}-{site}"}
            for study in studies
        },
        "policy": {"max_epsilon": 8.0, "allow_privacy_none": True, **policy},
    }


@contextlib.contextmanager
def hospitals(
    folder: Path,
    studies: tuple[str, ...],
    *,
    environment: Mapping[str, str] | None = None,
    node: Sequence[str] = (),
    start: bool = True,
    coordinator: Mapping[str, object] | None = None,
    **policy: object,
) -> Iterator[Federation]:
    """A coordinator and three hospitals, which let every study in unless the policy says otherwise."""
    with Federation(folder, environment=environment, node=node) as federation:
        federation.init(**(coordinator or {}))
        federation.start_coordinator()
        for site in SITES:
            document = site_document(site, federation.address, studies, **{"require_approval": False, **policy})
            federation.enrol(site, document)
            if start:
                federation.start_site(site)
        yield federation


def finished(federation: Federation, study: Path, state: str = "COMPLETE") -> str:
    """Submit a study and wait for its end; the run's name."""
    run = federation.submit(study)
    line = federation.await_state(run, "COMPLETE", "INCOMPLETE")
    assert line.split("  ", 1)[1].startswith(state), line + "\n" + federation.log("coordinator")
    return run


def model(federation: Federation, run: str) -> bytes:
    return (federation.coordinator / "runs" / run / "model.safetensors").read_bytes()


def simulated(study: Path, out: Path) -> bytes:
    """The same study on the simulator; the model's bytes. Of what a process is to a run, test_engines.py knows."""
    assert cli.main(["simulate", str(study), "--no-baselines", "--out", str(out)]) == 0
    return (out / "latest" / "model.safetensors").read_bytes()


def until(condition: Callable[[], Any], what: str, timeout_s: float = 120.0) -> Any:
    """Wait for something to be so. Who looks rests longer than each look takes: some looks are whole processes."""
    deadline = time.monotonic() + timeout_s
    while True:
        began = time.monotonic()
        if found := condition():
            return found
        assert time.monotonic() < deadline, f"expected {what}, waited {timeout_s:.0f} s"
        time.sleep(max(0.02, 4 * (time.monotonic() - began)))


def records(path: Path, kind: str) -> list[dict[str, Any]]:
    """The facts of a journal's records of one kind."""
    return [record.facts for record in read(path) if record.kind == kind] if path.exists() else []


def run_journal(federation: Federation, run: str) -> Path:
    return federation.coordinator / "runs" / run / "journal.jsonl"


def site_journal(federation: Federation, site: str) -> Path:
    return federation.site_folder(site) / "journal.jsonl"


def reserved(federation: Federation, site: str, study: Study) -> list[tuple[int, str]]:
    """Rounds of a study in a hospital's ledger, with their state."""
    path = federation.site_folder(site) / "ledger.sqlite"
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as ledger:
        return list(ledger.execute("SELECT round, state FROM releases WHERE study = ? ORDER BY id", (study.sha256,)))


def await_held(federation: Federation, site: str) -> None:
    """Wait until a hospital's worker stopped itself in the midst of a round that is held."""

    def stopped() -> bool:
        with contextlib.suppress(OSError, ValueError):  # a worker that is about to be started, or just ended
            return Path(f"/proc/{worker_pid(federation, site)}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        return False

    until(stopped, f"{site} to be in the midst of its held round")


def go_on(federation: Federation, site: str) -> None:
    """Let a held worker train."""
    os.kill(worker_pid(federation, site), signal.SIGCONT)


def worker_pid(federation: Federation, site: str) -> int:
    """The process at a hospital that sees patients."""
    pid = federation.processes[site].pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def health(federation: Federation) -> str:
    """What grpc.health.v1 says of the coordinator, as a probe asks it."""
    with grpc.insecure_channel(federation.health) as channel:
        try:
            asked = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=""), timeout=5)
        except grpc.RpcError:
            return "no answer"
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(asked.status))


def superlink_pid(federation: Federation) -> int:
    """The process of Flower's SuperLink."""
    pid = federation.processes["coordinator"].pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (superlink,) = [c for c in children if b"server.superlink" in Path(f"/proc/{c}/cmdline").read_bytes()]
    return int(superlink)


def kill(federation: Federation, name: str) -> None:
    federation.end(name, signal.SIGKILL)


def assert_keys_are_in_no_other_file(federation: Federation) -> None:
    """Of everybody's private keys, each is in its own file alone."""
    keys = [path for path in federation.folder.rglob("*.key") if path.is_file()]
    assert len(keys) == 3 + 2 * len(SITES)
    written = {p: p.read_bytes() for p in federation.folder.rglob("*") if p.is_file()}
    for key in keys:
        secret = key.read_bytes().splitlines()[1]
        assert [path for path, data in written.items() if secret in data] == [key]
