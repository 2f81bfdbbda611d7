"""The files that a hospital and a consortium start from, and the systemd units that they may use."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from configs.deployment import Policy, load_coordinator, load_site
from configs.errors import ConfigError
from configs.service import unit

ROOT = Path(__file__).resolve().parents[2]
MODULES = {"archipel-site": ("client.cli", "site"), "archipel-coordinator": ("server.cli", "coordinator")}


def test_the_hospitals_example_loads_and_shows_the_defaults(tmp_path: Path) -> None:
    shutil.copy(ROOT / "configs" / "site.example.yaml", tmp_path / "site.yaml")
    config = load_site(tmp_path)
    assert config.policy == Policy()
    assert config.datasets[0].identity == "cardiology-2020-2025"


def test_a_hospital_lets_figures_leave_only_where_its_policy_says_so(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    for line, metrics in (("", "none"), ("policy: {metrics: none}", "none"), ("policy: {metrics: noisy}", "noisy")):
        path.write_text(f"site: lille\ncoordinator: coord.example.org:8443\n{line}\n")
        assert load_site(tmp_path).policy.metrics == metrics
    path.write_text("site: lille\ncoordinator: coord.example.org:8443\npolicy: {metrics: exact}\n")
    with pytest.raises(ConfigError, match=r"policy\.metrics: expected one of none, noisy"):
        load_site(tmp_path)


def test_the_consortiums_example_loads(tmp_path: Path) -> None:
    shutil.copy(ROOT / "configs" / "coordinator.example.yaml", tmp_path / "coordinator.yaml")
    assert load_coordinator(tmp_path).names == ("coord.example.org",)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_command_prints_its_unit_for_its_own_folder(tmp_path: Path, name: str) -> None:
    module, example = MODULES[name]
    shutil.copy(ROOT / "configs" / f"{example}.example.yaml", tmp_path / f"{example}.yaml")
    command = [sys.executable, "-m", module, "-C", str(tmp_path), "start", "--print-systemd"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert f"ExecStart={Path(sys.executable).parent / name} -C {tmp_path} start" in done.stdout
    assert f"ReadWritePaths={tmp_path}\n" in done.stdout
    assert "User=archipel" in done.stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("worker", [True, False])
def test_systemd_understands_the_unit_and_rates_it_well(tmp_path: Path, worker: bool) -> None:
    path = tmp_path / "archipel.service"
    path.write_text(unit("a test", Path(sys.executable).name, Path(sys.executable).parent, tmp_path, worker=worker))
    verified = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert str(path) not in verified.stderr, verified.stderr
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout + rated.stderr  # exposure of at most 2.5 of 10
