"""A release: the same wheel on every machine, a dated changelog, a tag, and a list of components."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("configs", "strategies", "client", "server", "simulations")
pytestmark = pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(), reason="not in a clone with git"
)


def run(*command: str, folder: Path, umask: int = 0o022) -> "subprocess.CompletedProcess[str]":
    """Run a command as a person with that umask would."""
    settings = {"GIT_AUTHOR_NAME": "Releaser", "GIT_AUTHOR_EMAIL": "r@example.org", "SBOM": "no"}
    settings |= {name.replace("AUTHOR", "COMMITTER"): value for name, value in settings.items() if "AUTHOR" in name}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, umask=umask, env=os.environ | settings, check=False
    )


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "clone"
    assert run("git", "clone", "--quiet", str(ROOT), str(folder), folder=ROOT).returncode == 0
    return folder


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_wheel_has_the_same_bits_under_any_umask_and_holds_what_hospitals_need(clone: Path, tmp_path: Path) -> None:
    for name, umask in (("open", 0o000), ("usual", 0o022), ("closed", 0o077)):
        built = run(".ci/wheel", sys.executable, str(tmp_path / name), folder=clone, umask=umask)
        assert built.returncode == 0, built.stderr
    wheels = [path for name in ("open", "usual", "closed") for path in (tmp_path / name).glob("*.whl")]
    assert len(wheels) == 3
    assert len({digest(path) for path in wheels}) == 1
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = set(wheel.namelist())
    assert {f"{room}/py.typed" for room in ROOMS} <= names
    assert "configs/site.example.yaml" in names
    assert not [name for name in names if name.startswith("tests")]


def test_a_release_dates_the_changelog_commits_tags_and_builds(clone: Path) -> None:
    released = run(".ci/release", sys.executable, "99.1.0", folder=clone)
    assert released.returncode == 0, released.stderr
    changelog = (clone / "CHANGELOG.md").read_text("utf-8")
    assert re.search(r"^## Unreleased\n\n## 99\.1\.0 \(\d{4}-\d{2}-\d{2}\)$", changelog, re.MULTILINE)
    assert 'version = "99.1.0"' in (clone / "pyproject.toml").read_text("utf-8")
    assert run("git", "describe", "--exact-match", folder=clone).stdout.strip() == "v99.1.0"
    assert run("git", "status", "--porcelain", "--untracked-files=no", folder=clone).stdout == ""
    sums = (clone / "dist" / "SHA256SUMS").read_text("utf-8").split()
    assert sums[1::2] == ["archipel-99.1.0-py3-none-any.whl"]
    assert sums[0] == digest(clone / "dist" / sums[1])


@pytest.mark.parametrize(
    ("version", "expected"),
    [("", "VERSION=X.Y.Z"), ("1.0", "VERSION=X.Y.Z"), ("v1.0.0", "VERSION=X.Y.Z"), ("0.0.1", "a version above")],
)
def test_a_release_of_a_wrong_version_changes_nothing(clone: Path, version: str, expected: str) -> None:
    before = run("git", "rev-parse", "HEAD", folder=clone).stdout
    refused = run(".ci/release", sys.executable, version, folder=clone)
    assert refused.returncode != 0
    assert expected in refused.stderr
    assert run("git", "rev-parse", "HEAD", folder=clone).stdout == before
    assert run("git", "status", "--porcelain", "--untracked-files=no", folder=clone).stdout == ""


def test_every_locked_file_has_a_hash_and_only_torch_is_left_out() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    for lock, wanted in (
        ("requirements.lock", project["dependencies"]),
        ("tests/requirements.lock", [*project["dependencies"], *extras["ray"], *extras["test"][1:]]),
    ):
        entries = re.split(r"^(?=[a-z])", (ROOT / lock).read_text("utf-8"), flags=re.MULTILINE)[1:]
        assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
        names = {re.split(r"[\[=><]", requirement)[0].lower() for requirement in wanted}
        assert names - {entry.split("==")[0] for entry in entries} == {"torch"}
