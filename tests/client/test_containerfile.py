"""The hospital's image: what can be said of it without building it. It was built and run with Podman by hand."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.test_architecture import MAY_IMPORT

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "client" / "Containerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COPIED = {source for line in re.findall(r"^COPY (.+) \S+$", TEXT, re.MULTILINE) for source in line.split()}


def test_it_holds_the_node_and_what_the_node_may_import_and_no_other_room() -> None:
    rooms = {name for name in COPIED if (ROOT / name).is_dir()}
    assert rooms == {"client", *MAY_IMPORT["client"]}


def test_it_has_the_files_that_an_installation_asks_for() -> None:
    assert {"pyproject.toml", "requirements.lock", PROJECT["readme"], *PROJECT["license-files"]} <= COPIED


def test_commands_whose_room_is_not_there_are_taken_out() -> None:
    removed = re.search(r"&& rm (archipel.*?) &&", TEXT)
    assert removed
    missing = {name for name, entry in PROJECT["scripts"].items() if entry.split(".")[0] not in COPIED}
    assert set(removed[1].split()) == missing


def test_it_is_built_in_the_format_that_keeps_its_health_check() -> None:
    assert re.search(r"^HEALTHCHECK ", TEXT, re.MULTILINE)
    builds = re.findall(r"^#.* podman build (.+)$", TEXT, re.MULTILINE)
    assert builds
    assert all("--format docker" in line for line in builds)


@pytest.mark.parametrize("flag", ["--init", "--restart=always", "--stop-timeout=300"])
def test_the_node_that_stays_is_started_so(flag: str) -> None:
    """Without --init the processes that health checks leave are never buried; the time-out is a round's."""
    (started,) = re.findall(r"^#.* podman run -d (.+)$", TEXT, re.MULTILINE)
    assert flag in started.split()
