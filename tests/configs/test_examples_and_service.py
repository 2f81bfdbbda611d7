"""The files that a hospital and a consortium start from, and the systemd units that they may use."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.coordinator import load_coordinator
from configs.errors import ConfigError
from configs.schema import SqlQuery
from configs.service import unit
from configs.site import Policy, SiteConfig, load_site

ROOT = Path(__file__).resolve().parents[2]
MODULES = {"archipel-site": ("client.cli", "site"), "archipel-coordinator": ("server.cli", "coordinator")}


def test_the_hospitals_example_loads_and_shows_the_defaults(tmp_path: Path) -> None:
    shutil.copy(ROOT / "configs" / "site.example.yaml", tmp_path / "site.yaml")
    config = load_site(tmp_path)
    assert config.policy == Policy()
    assert config.datasets[0].identity == "cardiology-2020-2025"


def test_the_hospitals_example_of_a_data_base_loads_once_it_is_no_comment(tmp_path: Path) -> None:
    text = (ROOT / "configs" / "site.example.yaml").read_text()
    begin, end = text.index("  heart-disease:"), text.index("\npolicy:")
    lines = text[text.index("  # heart-disease:") : text.index("\n  # lung-cancer:")].splitlines()
    uncommented = "\n".join("  " + line.removeprefix("  # ") for line in lines)
    text = text[:begin] + uncommented + text[end:]
    (tmp_path / "site.yaml").write_text(text.replace("\n# worker_network", "\nworker_network"))
    config = load_site(tmp_path)
    (dataset,) = config.datasets
    assert isinstance(dataset.source, SqlQuery)
    assert (dataset.identity, dataset.source.url_env, dataset.source.query_timeout_s) == (
        "cardiology-2020-2025",
        "EDS_URL",
        300,
    )
    assert dataset.source.query.endswith("order by pseudonym")
    assert config.worker_network == ("db.chu-lille.fr:5432",)


def test_a_hospital_lets_figures_leave_only_where_its_policy_says_so(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    for line, metrics in (("", "none"), ("policy: {metrics: none}", "none"), ("policy: {metrics: noisy}", "noisy")):
        path.write_text(f"site: lille\ncoordinator: coord.example.org:8443\n{line}\n")
        assert load_site(tmp_path).policy.metrics == metrics
    path.write_text("site: lille\ncoordinator: coord.example.org:8443\npolicy: {metrics: exact}\n")
    with pytest.raises(ConfigError, match=r"policy\.metrics: expected one of none, noisy"):
        load_site(tmp_path)


def site_with(folder: Path, line: str) -> SiteConfig:
    (folder / "site.yaml").write_text(f"site: lille\ncoordinator: coord.example.org:8443\n{line}\n")
    return load_site(folder)


def test_a_worker_reaches_no_address_unless_some_are_listed(tmp_path: Path) -> None:
    for line in ("", "worker_network:", "worker_network: []", "worker_network: false"):
        assert site_with(tmp_path, line).worker_network == ()
    listed = site_with(tmp_path, "worker_network: [db.chu-lille.fr:5432, '[2001:db8::7]:1433', 10.0.0.5:5432]")
    assert listed.worker_network == ("db.chu-lille.fr:5432", "[2001:db8::7]:1433", "10.0.0.5:5432")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("true", "worker_network: expected a list of at most 8 addresses host:port, found True; list the data bases"),
        ("db:5432", "worker_network: expected a list of at most 8 addresses host:port, found 'db:5432'; list"),
        (str([f"db:{n}" for n in range(1, 10)]), "expected a list of at most 8 addresses host:port, found '9 of them'"),
        ("[db:5432, db]", "worker_network.1: expected host:port, found 'db'; correct it"),
        ("[db:65536]", "worker_network.0: expected a port from 1 to 65535, found 'db:65536'"),
        ("['2001:db8::7:1433']", "worker_network.0: expected host:port, found '2001:db8::7:1433'"),
        (
            "[5432, {db: 1}]",
            "worker_network.0: expected host:port, found 5432; correct it\n  worker_network.1: expected",
        ),
        ("[db:5432, DB:05432]", "worker_network.1: expected each address once, found 'DB:05432'; take it out"),
    ],
)
def test_every_mistake_in_the_list_of_addresses_is_said_with_its_place(tmp_path: Path, value: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        site_with(tmp_path, f"worker_network: {value}")
    assert said in str(caught.value)


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


@pytest.mark.parametrize("name", sorted(MODULES))
def test_the_unit_says_how_to_install_it_and_the_commands_it_names_exist(tmp_path: Path, name: str) -> None:
    printed = unit("a test", name, Path("/opt/archipel/bin"), tmp_path, worker=name == "archipel-site")
    head, section, _ = printed.partition("[Unit]\n")
    assert section
    assert all(line.startswith("#") for line in head.splitlines())  # systemd reads none of it
    module, _ = MODULES[name]
    called = re.findall(rf"/opt/archipel/bin/{name} -C {re.escape(str(tmp_path))} (.+?)(?: >.*)?$", head, re.MULTILINE)
    assert len(called) == (3 if name == "archipel-site" else 2)
    for words in called:
        command = [sys.executable, "-m", module, *words.split(), "--help"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
        assert f"usage: {name} {words.split()[0]} " in shown
        assert all(option in shown for option in words.split()[1:])


@pytest.mark.parametrize(("command", "file"), [(load_site, "site.yaml"), (load_coordinator, "coordinator.yaml")])
def test_a_command_in_the_wrong_folder_says_how_to_name_the_right_one(
    tmp_path: Path, command: Callable[[Path], object], file: str
) -> None:
    with pytest.raises(ConfigError, match=rf"{file}: expected the file, found none; name its folder: -C"):
        command(tmp_path)


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
