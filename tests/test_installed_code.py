"""Code comes from the installation alone: nothing that lies in the folder where a command is typed is ever imported.

Every command of the three programs runs in one folder that is full of planted modules, and does real work there.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from client import cli as site_cli
from configs import parts
from configs.load import load_study
from configs.strict_yaml import dump_yaml, read_yaml
from server import cli as coordinator_cli
from simulations import cli as simulation_cli
from simulations.federation import free_port

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = {"archipel": simulation_cli, "archipel-site": site_cli, "archipel-coordinator": coordinator_cli}
BIN = Path(sys.executable).parent
PLANTED = (
    *("client", "server", "configs", "strategies", "simulations"),
    *("random", "numpy", "yaml", "sitecustomize", "usercustomize", "json", "logging", "ctypes", "multiprocessing"),
    *("torch", "flwr", "cryptography", "uvicorn", "httpx", "psycopg", "scipy", "rich", "subprocess", "socket"),
)
PARTS = (
    *("client.worker", "client.forwarder", "client.data_check", "client.isolation_check", "client.rehearsal"),
    *("server.superlink", "server.gateway", "server.conductor"),
)
DEADLINE_S = 120.0


def plant(folder: Path, trace: Path) -> None:
    """Modules and packages that write their name into a file when they are imported."""
    code = f"open({str(trace)!r}, 'a').write(__name__ + '\\n')\n"
    for name in PLANTED:
        (folder / f"{name}.py").write_text(code)
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(code)


def commands_of(program: str) -> set[str]:
    """Every command that a program has."""
    parser = PROGRAMS[program]._parser()
    (commands,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return set(commands.choices)


class Folder:
    """A planted folder that is a hospital's, a consortium's and a researcher's in one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.trace, self.tried = folder, folder / "imported.txt", set[tuple[str, str]]()
        (folder / "consortium").mkdir()
        for planted in (folder, folder / "consortium"):
            plant(planted, self.trace)
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        self.environment |= {"OMP_NUM_THREADS": "1", "NO_PROXY": "localhost", "PYTHONWARNINGS": "ignore"}

    def type(self, program: str, *words: str, codes: tuple[int, ...] = (0,)) -> str:
        """Type a command; what it prints."""
        self.tried.add((program, words[0]))
        where = ["-C", "consortium"] if program == "archipel-coordinator" else []
        command = [str(BIN / program), *where, *words]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=DEADLINE_S
        )
        assert done.returncode in codes, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        self.clean(*command)
        return done.stdout + done.stderr

    def serve(self, program: str, ready: Callable[[str], bool]) -> "subprocess.Popen[bytes]":
        """Type `start`, and wait until it is ready."""
        self.tried.add((program, "start"))
        log = self.folder / f"{program}.log"
        where = ["-C", "consortium"] if program == "archipel-coordinator" else []
        command = [str(BIN / program), *where, "start"]
        with log.open("wb") as out:
            process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=out, stderr=out)
        self.wait(lambda: ready(log.read_text()), lambda: log.read_text())
        return process

    def wait(self, ready: Callable[[], bool], why: Callable[[], str]) -> None:
        """Wait for something to be so."""
        deadline = time.monotonic() + DEADLINE_S
        while not ready():
            assert time.monotonic() < deadline, why()
            time.sleep(0.1)

    def clean(self, *what: str) -> None:
        """Nothing that was planted has run."""
        assert not self.trace.exists(), f"{' '.join(what)}: {self.trace.read_text().split()}"


@pytest.fixture
def planted(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def study_of(folder: Path) -> Path:
    """Two hospitals, one round."""
    document = read_yaml(ROOT / "configs" / "presets" / "heart_disease.yaml")
    sites = ("cleveland", "hungary")
    data = ROOT / "simulations" / "data" / "heart_disease"
    document["name"] = "planted"
    document["cohort"] = {site: document["cohort"][site] for site in sites}
    document["training"] |= {"rounds": 1, "quorum": 1}
    document["simulation"]["sites"] = {site: {"connector": "csv", "path": str(data / f"{site}.csv")} for site in sites}
    path = folder / "study.yaml"
    path.write_text(dump_yaml(document))
    return path


def test_no_command_runs_what_lies_in_the_folder_where_it_is_typed(planted: Folder) -> None:
    study, listen = study_of(planted.folder), f"127.0.0.1:{free_port()}"
    planted.type("archipel", "plan", "study.yaml")
    planted.type("archipel", "kit", "new", "planted_kit")
    planted.type("archipel", "data", str(ROOT / "simulations" / "data" / "heart_disease" / "hungary.csv"))
    planted.type("archipel", "new", str(ROOT / "simulations" / "data" / "heart_disease" / "hungary.csv"))
    planted.type("archipel", "explain", "privacy.epsilon")
    planted.type("archipel", "schema", "site")
    planted.type("archipel", "simulate", "study.yaml", "--no-baselines", "--workers", "2", "--out", "runs-here")
    planted.type("archipel", "compare", "runs-here/latest")
    planted.type("archipel", "report", "runs-here/latest")
    planted.type("archipel", "complete", "study.yaml")
    planted.type("archipel", "export", "runs-here/latest", "--format", "safetensors", "--out", "export")
    planted.type("archipel", "tune", "study.yaml", "--set", "training.rounds=1,2", "--seeds", "1")
    planted.type("archipel", "audit", "no-such-study.yaml", codes=(2,))  # the whole one takes long, and starts nothing

    (planted.folder / "consortium" / "coordinator.yaml").write_text(
        dump_yaml({"name": "x", "names": ["localhost"], "listen": listen, "health": f"127.0.0.1:{free_port()}"})
    )
    data = ROOT / "simulations" / "data" / "heart_disease" / "cleveland.csv"
    (planted.folder / "site.yaml").write_text(
        dump_yaml(
            {
                "site": "cleveland",
                "coordinator": f"localhost:{listen.rpartition(':')[2]}",
                "datasets": {"planted": {"connector": "csv", "path": str(data), "identity": "here"}},
                "policy": {"min_patients": 10},
            }
        )
    )
    planted.type("archipel-coordinator", "init")
    planted.type("archipel-site", "enrol")
    planted.type("archipel-coordinator", "admit", "request.json")
    planted.type("archipel-site", "join", "consortium/welcome/cleveland.json")
    planted.type("archipel-coordinator", "sites")
    planted.type("archipel-site", "kit", "list")
    digest = load_study(study).sha256
    run = planted.type("archipel-coordinator", "submit", "study.yaml").split(":")[0]
    coordinator = planted.serve("archipel-coordinator", lambda log: "listening on" in log)
    node = planted.serve("archipel-site", lambda log: "connected to" in log)
    try:
        planted.wait(lambda: digest in planted.type("archipel-site", "review"), lambda: "no study arrived")
        planted.type("archipel-site", "approve", digest)
        planted.type("archipel-site", "check", codes=(0, 1, 2))
        planted.type("archipel-site", "rehearse", digest)
        planted.type("archipel-site", "refuse", digest, "--why", "no")
        planted.type("archipel-coordinator", "stop", run)
        planted.type("archipel-coordinator", "watch", run, codes=(1,))
        planted.type("archipel-coordinator", "status")
        planted.type("archipel-coordinator", "resume", run)
    finally:
        for process in (node, coordinator):
            process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE_S)
    planted.type("archipel-site", "reread", codes=(0, 2))
    planted.type("archipel-site", "settle", codes=(0, 2))
    planted.type("archipel-site", "predict", digest, "--out", "scores.csv", codes=(2,))  # no model is kept here
    planted.type("archipel-site", "evaluate", digest, codes=(2,))
    planted.type("archipel-site", "query", "planted", codes=(2,))  # its data are a file
    planted.type("archipel-site", "ledger")
    planted.type("archipel-site", "outbox")
    planted.type("archipel-site", "journal", "verify")
    planted.type("archipel-coordinator", "report", run, codes=(0, 2))
    planted.type("archipel-coordinator", "journal", "verify")
    planted.type("archipel-coordinator", "revoke", "cleveland")
    planted.clean("the parts that were started")
    untried = {p: commands_of(p) - {c for program, c in planted.tried if program == p} for p in PROGRAMS}
    assert not any(untried.values()), untried


@pytest.mark.parametrize("module", PARTS)
def test_no_part_runs_what_its_folder_or_a_variable_of_its_starter_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    trace = tmp_path / "imported.txt"
    plant(tmp_path, trace)
    for name in ("PYTHONPATH", "PYTHONUSERBASE", "PYTHONHOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "log").open("wb") as log:
        process = parts.start(module, folder=tmp_path, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        process.wait(DEADLINE_S)  # without arguments it ends, once everything is imported
    assert not trace.exists(), trace.read_text()
    assert "ModuleNotFoundError" not in (tmp_path / "log").read_text()


def test_a_part_gets_no_variable_that_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/tmp/x.so")
    monkeypatch.setenv("SSLKEYLOGFILE", "/tmp/keys")
    monkeypatch.setenv("ARCHIPEL_CA_PASSPHRASE", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:mine@proxy:3128")
    monkeypatch.setenv("EDS_URL", "postgresql://me:mine@db")
    monkeypatch.setenv("LC_TIME", "fr_FR")
    given = parts.environment()
    assert not {"LD_PRELOAD", "SSLKEYLOGFILE", "ARCHIPEL_CA_PASSPHRASE", "HTTPS_PROXY", "EDS_URL"} & set(given)
    assert given["LC_TIME"] == "fr_FR"
    assert parts.environment(["EDS_URL"])["EDS_URL"].startswith("postgresql")
    assert not [name for name in parts.environment(parts.PROXIES) if name.startswith("PYTHON")]
