"""A federation at its limits (one large model, many hospitals): memory, seconds, idle load.

    python -m simulations.benchmarks.deployed_scale [--megabytes 500] [--nodes 50] [--only model nodes]

`model`: two hospitals, a real round with a model of so many megabytes. Memory is the most that all processes of a side
(the coordinator's four, a hospital's two) held at one time, in models: resident sets added up ten times a second, code
and pages of files among them. `peaks_mb` is each process's own peak (VmHWM).
`nodes`: so many hospitals with the real node (keys, certificate, seals, journal, outbox, egress guard) around a worker
that sends back what it got, forked from one process so that they fit on a laptop. `idle_percent` is the coordinator's
share of one core, all its processes together, over a while in which nothing happens; `waiting_percent` the same while a
study waits for a person's approval at every hospital. `cpu_seconds_per_round` are the coordinator's and, of one
hospital, the node's: on a machine that does other things too, they say more than a clock.
"""

import argparse
import itertools
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from configs import journal as journals
from configs.load import load_study
from configs.records.run_journal import Round
from configs.strict_yaml import dump_yaml
from simulations.benchmarks.deployed_round import ends, write_study
from simulations.federation import Federation, federation_of, site_document

IDLE_S = 30.0
SETTLED_S = 150.0  # the longer nothing happens, the more seldom a node looks; by now as seldom as it ever does
POLICY: dict[str, Any] = {"allow_privacy_none": True, "require_approval": False, "max_message_mb": 2000}
ASKED: dict[str, Any] = {"allow_privacy_none": True}  # a person approves
COORDINATOR = ("server.cli", "server.superlink", "server.gateway", "server.conductor")
HOSPITAL = ("client.cli", "client.worker")


def main(arguments: list[str] | None = None) -> None:
    """Measure and print one JSON line a case."""
    parser = argparse.ArgumentParser(prog="python -m simulations.benchmarks.deployed_scale")
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--nodes", type=int, default=50)
    parser.add_argument("--only", nargs="+", choices=("model", "nodes"), default=["model", "nodes"])
    options = parser.parse_args(arguments)
    if "model" in options.only:
        print(json.dumps(large_model(options.megabytes)), flush=True)
    if "nodes" in options.only:
        print(json.dumps(many_nodes(options.nodes)), flush=True)


def large_model(megabytes: int) -> dict[str, Any]:
    """Run two rounds of two hospitals with a large model; return peaks in models."""
    width = round(math.sqrt(megabytes * 1e6 / 4 / 2))  # three layers of about width x width
    with TemporaryDirectory(prefix="archipel-") as name:
        folder = Path(name)
        path = write_study(folder, (width, width, width), nodes=2, rounds=2)
        with federation_of(load_study(path), folder / "federation", **POLICY) as federation, peaks(federation) as peak:
            run = federation.submit(path)
            federation.await_state(run, "COMPLETE", timeout_s=3600)
            rounds = [entry.seconds for entry in _rounds(federation, run)]
            size = (federation.coordinator / "runs" / run / "model.safetensors").stat().st_size
    return {
        "case": "model",
        "model_mb": round(size / 1e6),
        "nodes": 2,
        "seconds_per_round": rounds,
        "coordinator_peak_models": round(peak.together["coordinator"] / size, 2),
        "node_peak_models": round(
            max(models for owner, models in peak.together.items() if owner != "coordinator") / size, 2
        ),
        "peaks_mb": {key: round(value / 1e6) for key, value in sorted(peak.bytes.items())},
    }


def many_nodes(count: int) -> dict[str, Any]:
    """Measure rounds of many hospitals.

    What the coordinator uses while nothing happens, and while a study waits for them.
    """
    with TemporaryDirectory(prefix="archipel-") as name:
        folder = Path(name)
        path = write_study(folder, (90,), nodes=count, rounds=6)
        study = load_study(path)
        sites = [site for site, _ in study.simulation]
        with Federation(folder / "federation") as federation:
            federation.init()
            federation.start_coordinator()
            for site, source in study.simulation:
                enrol_here(federation, site, site_document(site, federation.address, study.name, source, **ASKED))
            pids = [fork_node(federation.site_folder(site)) for site in sites]
            try:
                connected = _until(lambda: _count(federation, " connected "), count, "connect")
                time.sleep(SETTLED_S)
                idle = busy_percent(federation)
                run = federation.submit(path)
                _until(lambda: sum(_waits(federation, site) for site in sites), count, "be asked")
                time.sleep(SETTLED_S)
                waiting = busy_percent(federation)
                for site in sites:
                    _approve(federation, site, study.sha256)
                used = _per_round(federation, run, pids, first=2, last=study.training.rounds - 1)
                federation.await_state(run, "COMPLETE", timeout_s=1200)
                times = list(ends(_journal(federation, run)))
                contributed = {len(entry.contributed) for entry in _rounds(federation, run)}
                still = _count(federation, " connected ")
            finally:
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
    return {
        "case": "nodes",
        "nodes": count,
        "seconds_to_connect": round(connected, 1),
        "idle_percent": round(idle, 2),
        "waiting_percent": round(waiting, 2),
        "seconds_per_round": [round(b - a, 2) for a, b in itertools.pairwise(times)],
        "cpu_seconds_per_round": used,
        "contributed_each_round": sorted(contributed),
        "connected_afterwards": still,
    }


def _until(count: Callable[[], int], expected: int, what: str) -> float:
    """Wait for so many hospitals; how long it took, in seconds."""
    began = time.monotonic()
    while (present := count()) < expected:
        if time.monotonic() - began > 300:
            sys.exit(f"expected {expected} hospitals to {what}, {present} did")
        time.sleep(0.5)
    return time.monotonic() - began


def _count(federation: Federation, word: str) -> int:
    return federation.consortium("sites").count(word)


def _waits(federation: Federation, site: str) -> bool:
    """Return whether the node has a study that waits for a person."""
    from client.admission import Admissions

    with closing(Admissions.open(federation.site_folder(site) / "admissions.sqlite")) as admissions:
        return any(admission.waits for admission in admissions.all())


def _approve(federation: Federation, site: str, digest: str) -> None:
    from client.cli import main as hospital

    with redirect_stdout(StringIO()):
        if hospital(["-C", str(federation.site_folder(site)), "approve", digest]):
            sys.exit(f"{site} could not approve")


def _per_round(federation: Federation, run: str, nodes: list[int], first: int, last: int) -> dict[str, float]:
    """Return the processor time of the coordinator and of one node, from the end of one round to another's."""

    def until(number: int) -> tuple[float, float]:
        path = _journal(federation, run)
        while not path.exists() or len(list(ends(path))) < number:
            time.sleep(0.05)
        return seconds_used(federation.processes["coordinator"].pid), sum(map(seconds_used, nodes)) / len(nodes)

    before, after = until(first), until(last)
    coordinator, node = ((b - a) / (last - first) for a, b in zip(before, after, strict=True))
    return {"coordinator": round(coordinator, 2), "node": round(node, 3)}


def _rounds(federation: Federation, run: str) -> list[Round]:
    return [entry for record in journals.read(_journal(federation, run)) if (entry := record.of(Round))]


def _journal(federation: Federation, run: str) -> Path:
    return federation.coordinator / "runs" / run / "journal.jsonl"


# Memory and time of processes, as Linux counts them


class Peaks:
    """The largest resident set of each process seen, by owner and module, and of all of an owner's at one time."""

    def __init__(self) -> None:
        self.bytes: dict[str, int] = {}
        self.together: dict[str, int] = {}

    def note(self, owner: str, seen: list[tuple[str, int, int]]) -> None:
        """Print what an owner's processes hold now: module, peak, and now."""
        for module, peak, _ in seen:
            key = f"{owner} {module}"
            self.bytes[key] = max(self.bytes.get(key, 0), peak)
        self.together[owner] = max(self.together.get(owner, 0), sum(now for _, _, now in seen))


@contextmanager
def peaks(federation: Federation) -> Iterator[Peaks]:
    """Watch every process of a federation."""
    measured, over = Peaks(), threading.Event()
    roots = {name: process.pid for name, process in federation.processes.items()}

    def watch() -> None:
        while not over.wait(0.1):
            for owner, root in roots.items():
                measured.note(owner, [status for pid in family(root) if (status := _status(pid)) is not None])

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield measured
    finally:
        over.set()
        thread.join()


def family(pid: int) -> list[int]:
    """Return a process and all below it."""
    pids = [pid]
    for parent in pids:
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except OSError:
            continue
        pids += [int(child) for child in children]
    return pids


def _status(pid: int) -> tuple[str, int, int] | None:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    module = next((w.decode() for w in words if w.decode("utf-8", "replace") in (*COORDINATOR, *HOSPITAL)), "")
    fields = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmHWM:", "VmRSS:"))}
    return (module, fields["VmHWM:"], fields["VmRSS:"]) if module and len(fields) == 2 else None


def busy_percent(federation: Federation) -> float:
    """Return the processor time of the coordinator's processes over a quiet while, in percent of one core."""
    pid = federation.processes["coordinator"].pid
    before = seconds_used(pid)
    time.sleep(IDLE_S)
    return 100 * (seconds_used(pid) - before) / IDLE_S


def seconds_used(root: int) -> float:
    """Return the processor time of a process and all below it so far."""
    ticks = 0
    for pid in family(root):
        with suppress(OSError):  # it has ended
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


# Hospitals in processes that share their imports


def enrol_here(federation: Federation, site: str, document: dict[str, Any]) -> None:
    """Do what `enrol`, `admit` and `join` do, without a process for each."""
    from client.cli import main as hospital
    from server.cli import main as consortium

    folder = federation.site_folder(site)
    folder.mkdir(parents=True)
    (folder / "site.yaml").write_text(dump_yaml(document))
    with redirect_stdout(StringIO()):
        done = hospital(["-C", str(folder), "enrol"])
        done += consortium(["-C", str(federation.coordinator), "admit", str(folder / "request.json")])
        done += hospital(["-C", str(folder), "join", str(federation.coordinator / "welcome" / f"{site}.json")])
    if done:
        sys.exit(f"{site} could not be enrolled")


def fork_node(folder: Path) -> int:
    """Return the real node in a process of its own, around a worker that sends back what it got; its process id."""
    import client.node  # noqa: F401 - before the fork, so that its pages are shared
    import server.superlink.sealed_grid  # noqa: F401

    if pid := os.fork():
        return pid
    try:
        _node(folder)
    finally:
        os._exit(1)


def _node(folder: Path) -> None:
    from client.isolation import die_with_parent
    from client.node import Node
    from client.worker import STATUS
    from client.worker_process import WorkerProcess
    from configs import wire
    from configs.frame import Frame
    from configs.site import load_site

    die_with_parent()
    log = os.open(folder / "node.log", os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    config = load_site(folder)

    class Echo(WorkerProcess):
        def start(self) -> None:
            self.alone = True

        def ask(self, request: Frame, max_bytes: int) -> tuple[Frame, Frame]:  # noqa: ARG002 - WorkerProcess's
            if request.form == "hello":
                fields: dict[str, str | int] = {"protocol": wire.PROTOCOL, "site": config.site}
                return Frame(STATUS, {"why": ""}), Frame("hello reply", {**fields, "study_sha256": _digest(request)})
            return Frame(STATUS, {"why": ""}), Frame("train reply", {}, request.arrays)

    Node(config, Echo(config)).run()


def _digest(request: Any) -> str:
    import hashlib

    return hashlib.sha256(str(request.fields.get("study", "")).encode()).hexdigest()


if __name__ == "__main__":
    main()
