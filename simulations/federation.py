"""A federation of separate processes on this machine, over mutual TLS on loopback.

Its processes are the coordinator and the hospitals. Everything goes through the commands that people type
(`archipel-coordinator`, `archipel-site`), in folders of a temporary directory; nothing is left behind. Tests use the
same class to hurt it.

    python -m simulations.federation STUDY

>>> from configs.schema import CsvFile
>>> sorted(site_document("lille", "localhost:8443", "heart", CsvFile(Path("/data/heart.csv"))))
['coordinator', 'datasets', 'policy', 'site']
"""

import argparse
import contextlib
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from configs import parts
from configs.coordinator import load_coordinator
from configs.database import read_only
from configs.errors import ArchipelError, RunError
from configs.load import load_study
from configs.records.result import StatisticsResult, TrainingResult
from configs.schema import DataSource, Study
from configs.strict_yaml import dump_yaml
from server.membership import ENDED
from server.result.read import load_result
from simulations.counting_tables import print_statistics

NAMES = ("localhost", "127.0.0.1")
START_TIMEOUT_S = 120.0
LOOK_S = 0.05  # between two looks at a run's state
QUIET_PROXY = {"NO_PROXY": "localhost,127.0.0.1", "no_proxy": "localhost,127.0.0.1"}  # loopback is not for a proxy
MIN_PATIENTS = 10  # the demo's smallest hospital has 46


class Federation:
    """One coordinator and its hospitals in a folder. Use as a context manager: what it started ends with it."""

    def __init__(self, folder: Path, *, environment: Mapping[str, str] | None = None, node: Sequence[str] = ()) -> None:
        """Prepare a federation. `node`: a command that serves a hospital's folder, instead of `archipel-site start`."""
        self.folder = folder
        self.coordinator = folder / "coordinator"
        self.listen, self.health = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.address = f"localhost:{self.listen.rpartition(':')[2]}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = {**parts.environment(parts.PROXIES), **QUIET_PROXY, **(environment or {})}
        self._node = node
        self._logs: list[IO[bytes]] = []

    def __enter__(self) -> "Federation":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            with contextlib.suppress(OSError):
                process.terminate()
        for name in list(self.processes):
            self.end(name)
        for log in self._logs:
            log.close()

    # The consortium

    def init(self, **settings: object) -> None:
        """Make the authority; `settings` are further keys of coordinator.yaml."""
        self.coordinator.mkdir(parents=True)
        document = {"name": "Demo", "names": list(NAMES), "listen": self.listen, "health": self.health, **settings}
        (self.coordinator / "coordinator.yaml").write_text(dump_yaml(document))
        self.consortium("init")

    def start_coordinator(self) -> None:
        """Start it, and wait until it listens."""
        folder = self.coordinator.resolve()
        self._start("coordinator", parts.command("server.cli", "-C", str(folder), "start"), folder)
        host, port = self.listen.split(":")
        self._wait_for("coordinator", lambda: listens(host, int(port)))

    def consortium(self, *arguments: str) -> str:
        """Run one command of the consortium; return its output.

        Raises:
            RunError: it failed.
        """
        return self._command("server.cli", self.coordinator, *arguments)

    # Hospitals

    def site_folder(self, site: str) -> Path:
        """Return a hospital's folder."""
        return self.folder / site

    def enrol(self, site: str, document: Mapping[str, object], *options: str) -> None:
        """Make a hospital with this site.yaml, and admit it."""
        folder = self.site_folder(site)
        folder.mkdir(parents=True)
        (folder / "site.yaml").write_text(dump_yaml(dict(document)))
        self.hospital(site, "enrol")
        self.consortium("admit", str(folder / "request.json"), *options)
        self.hospital(site, "join", str(self.coordinator / "welcome" / f"{site}.json"))

    def start_site(self, site: str, **environment: str) -> None:
        """Start a hospital's node, with these variables beside the others; it connects when it is ready."""
        folder = self.site_folder(site).resolve()
        usual = parts.command("client.cli", "-C", str(folder), "start")
        self._start(site, [*self._node, str(folder)] if self._node else usual, folder, environment)

    def hospital(self, site: str, *arguments: str) -> str:
        """Run one command of a hospital; return its output.

        Raises:
            RunError: it failed.
        """
        return self._command("client.cli", self.site_folder(site), *arguments)

    # Runs

    def submit(self, study: Path) -> str:
        """Submit a study; the run's name."""
        return self.consortium("submit", str(study)).split(":", 1)[0]

    def await_state(self, run: str, *states: str, timeout_s: float = 300.0) -> str:
        """Wait until a run is in one of these states; the line that `status` prints.

        Raises:
            RunError: it is not in time.
        """
        deadline = time.monotonic() + timeout_s
        ended = {*ENDED} - {*states}
        while (state := self._state(run)) not in states:
            if state in ended or time.monotonic() > deadline:
                raise RunError(
                    f"{run}: expected {' or '.join(states)}, found: {self._line(run)}\n{self.log('coordinator')}"
                )
            time.sleep(LOOK_S)
        return self._line(run)

    def _state(self, run: str) -> str:
        """Return a run's state, empty while it cannot be read.

        It is read from where `status` reads it: a command for each look would take the processor from the run.
        """
        database = load_coordinator(self.coordinator).database
        with contextlib.suppress(sqlite3.Error), contextlib.closing(read_only(database)) as members:
            row = members.execute("SELECT state FROM runs WHERE name = ?", (run,)).fetchone()
            return str(row[0]) if row else ""
        return ""

    def _line(self, run: str) -> str:
        return next((line for line in self.consortium("status").splitlines() if line.startswith(run)), "")

    def metrics(self, run: str) -> dict[str, Any]:
        """Return a run's metrics.json."""
        return dict(json.loads((self.coordinator / "runs" / run / "metrics.json").read_bytes()))

    # Processes

    def end(self, name: str, how: signal.Signals = signal.SIGTERM, patience_s: float = 20.0) -> int:
        """End a process and return its exit code."""
        process = self.processes.pop(name)
        with contextlib.suppress(OSError):
            process.send_signal(how)
        try:
            return process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def log(self, name: str) -> str:
        """Return what a process has printed so far."""
        return (self.folder / f"{name}.log").read_text("utf-8", "replace")

    def _start(self, name: str, command: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        self._logs.append(log)
        self.processes[name] = subprocess.Popen(  # noqa: S603 - our own modules
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**self._environment, **(environment or {})},
            start_new_session=True,
        )

    def _wait_for(self, name: str, ready: Any) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            if self.processes[name].poll() is not None or time.monotonic() > deadline:
                raise RunError(f"expected {name} to start, it did not:\n{self.log(name)}")
            time.sleep(0.1)

    def _command(self, module: str, folder: Path, *arguments: str) -> str:
        done = subprocess.run(  # noqa: S603 - our own modules
            parts.command(module, "-C", str(folder), *arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=self._environment,
            check=False,
        )
        if done.returncode:
            raise RunError(f"{module} {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


def site_document(site: str, coordinator: str, study: str, source: DataSource, **policy: object) -> dict[str, Any]:
    """Return a site.yaml for one study."""
    return {
        "site": site,
        "coordinator": coordinator,
        "datasets": {study: source.to_dict() | {"identity": f"{study}-{site}"}},
        "policy": {"min_patients": MIN_PATIENTS, **policy},
    }


@contextlib.contextmanager
def federation_of(study: Study, folder: Path, **policy: object) -> Iterator[Federation]:
    """Yield the coordinator and every hospital of a study's simulation, enrolled and started."""
    with Federation(folder) as federation:
        federation.init()
        federation.start_coordinator()
        for site, source in study.simulation:
            document = site_document(site, federation.address, study.name, source, **policy)
            federation.enrol(site, document)
            federation.start_site(site)
        yield federation


def free_port() -> int:
    """Return a port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(host: str, port: int) -> bool:
    """Return whether somebody takes a connection there."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def run(path: Path) -> int:
    """Run a study between processes and print the table of a simulation."""
    study = load_study(path)
    if not study.simulation:
        raise RunError(f"{path}: expected simulation.sites, which say where each hospital's data are; found none")
    if queried := [site for site, source in study.simulation if source.networked]:
        raise RunError(
            f"{path}: expected files for a rehearsal on this machine, found queries of {', '.join(queried)}; "
            "export them as CSV, or run: archipel simulate"
        )
    sites = [site for site, _ in study.simulation]
    with TemporaryDirectory(prefix="archipel-") as folder:
        _say(f"coordinator and {len(sites)} hospitals: {', '.join(sites)}")
        allow: dict[str, object] = {}
        if study.privacy.keys.refusal(allow_privacy_none=False):
            allow["allow_privacy_none"] = True
        if study.evaluation.release:
            allow["metrics"] = "noisy"
        with federation_of(study, Path(folder), **allow) as federation:
            name = federation.submit(path)
            _say(f"submitted {name}; each hospital reviews it and approves")
            for number, site in enumerate(sites):
                page = _await_review(federation, site, study)
                if number == 0:
                    print(page, flush=True)  # `watch` prints from a process of its own
                federation.hospital(site, "approve", study.sha256)
            _watch(federation, name)
            metrics = load_result(federation.coordinator / "runs" / name)
            for site in sites:
                print(f"{site}: {federation.hospital(site, 'journal', 'verify').strip().rpartition('/')[2]}")
            if isinstance(metrics, StatisticsResult):
                print_statistics(metrics)
            else:
                _print_table(study, metrics, federation.coordinator / "runs" / name / "model.safetensors")
    return 0 if metrics.outcome == "COMPLETE" else 1


def _await_review(federation: Federation, site: str, study: Study) -> str:
    """Return the page of the study, once it has arrived."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while study.sha256 not in (page := federation.hospital(site, "review")):
        if time.monotonic() > deadline:
            raise RunError(f"{site}: expected the study to arrive, it did not:\n{federation.log(site)}")
        time.sleep(0.3)
    return page


def _watch(federation: Federation, name: str) -> None:
    """Show the rounds as the consortium sees them."""
    subprocess.run(  # noqa: S603 - our own module
        parts.command("server.cli", "-C", str(federation.coordinator), "watch", name),
        env=parts.environment(),
        check=False,
    )


def _print_table(study: Study, metrics: TrainingResult, model: Path) -> None:
    """Print what a simulation prints, from all hospitals' patients: this machine has them, a consortium has not."""
    from safetensors.numpy import load_file

    from simulations.baselines import baselines, score
    from simulations.display import PlainDisplay
    from simulations.run import check
    from simulations.tables import print_table

    patients, _ = check(study)
    models = baselines(study, patients, PlainDisplay(), {})
    sites = tuple(
        replace(site, patients_train=people.train.count, patients_test=people.test.count)
        for site in metrics.sites
        for people in [patients[site.site]]
    )
    print_table(replace(metrics, models=score(study, load_file(model), models, patients), sites=sites))


def _say(text: str) -> None:
    print(f"── {text}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run one study."""
    parser = argparse.ArgumentParser(prog="python -m simulations.federation", description=run.__doc__)
    parser.add_argument("study", type=Path, metavar="STUDY")
    try:
        return run(parser.parse_args(arguments).study)
    except ArchipelError as error:
        print(f"federation: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
