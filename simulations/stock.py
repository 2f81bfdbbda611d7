"""Stock Flower on this machine: a SuperLink over TLS and SuperNodes.

They are started as its own commands start them. What Archipel is compared with, and where its apps are shown to be
plain Flower apps.

>>> sorted(ENVIRONMENT)[0]
'FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION'
"""

import contextlib
import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import httpx

from configs.errors import RunError
from configs.parts import environment as listed
from configs.parts import programs
from server.pki import Pki
from simulations.federation import NAMES, QUIET_PROXY, free_port

ENVIRONMENT = {
    **QUIET_PROXY,
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "OMP_NUM_THREADS": "1",
}


class StockFlower:
    """A SuperLink and its SuperNodes. Use as a context manager: what it started ends with it."""

    def __init__(self, folder: Path, nodes: Sequence[Mapping[str, str]]) -> None:
        """Prepare a federation. `nodes` are the environment variables of each SuperNode."""
        self.folder, self._nodes = folder, nodes
        self._port = free_port()
        self._pki = Pki(folder / "pki")
        self._processes: list[subprocess.Popen[bytes]] = []
        self._logs: list[IO[bytes]] = []
        self._control: Any = None

    def __enter__(self) -> "StockFlower":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._pki.create("stock", NAMES, None)
        pki = self._pki.folder
        command = ["flower-superlink", "--port", str(self._port), "--disable-runtime-dependency-installation"]
        command += ["--ssl-ca-certfile", str(self._pki.ca_certificate)]
        command += ["--ssl-certfile", str(pki / "server.crt"), "--ssl-keyfile", str(pki / "server.key")]
        self._start("superlink", command, {"ARCHIPEL_RUNS": str(self.folder / "runs")})
        self._connect()
        for number, environment in enumerate(self._nodes):
            command = ["flower-supernode", "--root-certificates", str(self._pki.ca_certificate)]
            command += ["--superlink", f"localhost:{self._port}", "--port", str(free_port())]
            self._start(f"supernode-{number}", command, environment)
        self._wait(lambda: self._online() == len(self._nodes), "the SuperNodes to connect")
        return self

    def __exit__(self, *_: object) -> None:
        if self._control is not None:
            self._control.close()
        for process in self._processes:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGTERM)  # a SIGTERM to Flower alone can leave an orphan
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for log in self._logs:
            log.close()

    def run(self, bundle: bytes, timeout_s: float = 600.0) -> str:
        """Run a bundle to its end; Flower's word for how it ended.

        Raises:
            RunError: it does not end in time.
        """
        run_id = self._control.start_run(bundle, hashlib.sha256(bundle).hexdigest(), {})
        status = None

        def ended() -> bool:
            nonlocal status
            status = self._control.status(run_id)
            return bool(status.status == "finished")

        self._wait(ended, "the run to end", timeout_s)
        assert status is not None
        return f"{status.sub_status}"

    def logs(self) -> str:
        """Return what every process has printed."""
        return "\n".join(f"== {p.name}\n{p.read_text('utf-8', 'replace')}" for p in sorted(self.folder.glob("*.log")))

    def _connect(self) -> None:
        from server.superlink.flower_inside import Control

        self._control = Control.at(f"localhost:{self._port}", self._pki.ca_certificate.read_bytes())
        self._wait(lambda: self._online() >= 0, "the SuperLink to start")

    def _online(self) -> int:
        try:
            nodes = self._control.nodes()
        except httpx.TransportError:
            return -1
        return sum(node.status == "online" for node in nodes)

    def _start(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        home = self.folder / f"{name}.home"
        home.mkdir()
        log = (self.folder / f"{name}.log").open("ab")
        self._logs.append(log)
        binary = programs() / command[0]
        path = f"{binary.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        self._processes.append(
            subprocess.Popen(  # noqa: S603 - the installed Flower
                [str(binary), *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**listed(), **ENVIRONMENT, "FLWR_HOME": str(home), "PATH": path, **environment},
                start_new_session=True,
            )
        )

    def _wait(self, ready: Any, what: str, timeout_s: float = 120.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            if time.monotonic() > deadline:
                raise RunError(f"expected {what}, waited {timeout_s:.0f} s\n{self.logs()[-4000:]}")
            time.sleep(0.5)
