"""A kit's project folder: read into the files of its one wheel, and built.

Only what a kit may have is taken along: the sources under its one top-level name, and what pyproject.toml says. Tests,
data and notes stay in the folder.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.errors import KitError, RunError
from configs.files import write_atomically
from configs.kit import MODELS, PREFIX, READERS, About, KitFiles, checked, tree_of
from configs.kit_rules import require_kit, require_requirement
from configs.shown import escaped

EXAMPLE, MODULE = "retina", f"{PREFIX}retina.py"  # what a new kit begins as
_TEMPLATE = Path(__file__).parent / "template"
SKIPPED = ("__pycache__", ".pyc", ".pyo")


def read_project(folder: Path) -> KitFiles:
    """Return the kit in a project's folder.

    Raises:
        KitError: it breaks a rule of kits; the message says which. RunError: there is no project.
    """
    path = folder / "pyproject.toml"
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise RunError(
            f"{path}: expected a kit's project, found none ({error.strerror}); begin with: archipel kit new NAME"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise KitError(f"{path}: expected TOML, found {error}; correct it") from None
    about = _about(document, str(path))
    kit = KitFiles(about, _sources(folder, about.package))
    require_kit(kit.wheel, kit.wheel_name)
    return kit


def example(name: str) -> KitFiles:
    """Return the kit that `archipel kit new NAME` writes.

    Raises:
        KitError: the name is no kit's.
    """
    package = f"{PREFIX}{name}"
    document = tomllib.loads(of_template("pyproject.toml", name))
    return KitFiles(_about(document, "the example"), {f"{package}.py": of_template(MODULE, name).encode()})


def of_template(file: str, name: str) -> str:
    """Return a file of a new kit of that name."""
    text = (_TEMPLATE / f"{file}.txt").read_text("utf-8")
    return text.replace(EXAMPLE, name).replace(EXAMPLE.capitalize(), name.capitalize())


def _about(document: Mapping[str, Any], source: str) -> About:
    project = document.get("project")
    if not isinstance(project, Mapping) or not all(isinstance(project.get(key), str) for key in ("name", "version")):
        raise KitError(f"{source}: expected [project] with name and version, found none; add them")
    groups = project.get("entry-points", {})
    strange = sorted({*groups} - {MODELS, READERS}) if isinstance(groups, Mapping) else ["?"]
    if strange or project.get("scripts") or project.get("gui-scripts"):
        raise KitError(
            f"{source}: expected entry points of {MODELS} and {READERS} alone, found others; a kit installs no command"
        )
    requires = project.get("dependencies", [])
    if not isinstance(requires, list) or not all(isinstance(entry, str) for entry in requires):
        raise KitError(f"{source}: expected dependencies as a list of texts, found another; correct it")
    for requirement in requires:
        require_requirement(requirement)
    name = project["name"].lower().replace("-", "_")
    return checked(
        About(
            name.removeprefix(PREFIX) if name.startswith(PREFIX) else "",
            project["version"],
            escaped(" ".join(str(project.get("description", "")).split()))[:200],
            tuple(requires),
            dict(groups.get(MODELS, {})),
            dict(groups.get(READERS, {})),
        )
    )


def _sources(folder: Path, package: str) -> dict[str, bytes]:
    whole = folder / package
    if whole.is_dir():
        files = {f"{package}/{name}": content for name, content in tree_of(whole).items()}
        return {name: content for name, content in files.items() if not any(odd in name for odd in SKIPPED)}
    try:
        return {f"{package}.py": (folder / f"{package}.py").read_bytes()}
    except OSError:
        raise KitError(
            f"{folder}: expected {package}.py or a folder {package}, the one top-level name of this kit, found none"
        ) from None


def build(folder: Path) -> tuple[Path, KitFiles]:
    """Write a project's wheel into its folder `dist`, whole or not at all; return its path and the kit.

    Raises:
        KitError, RunError: as `read_project`, or the wheel cannot be written.
    """
    kit = read_project(folder)
    path = folder / "dist" / kit.wheel_name
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, kit.wheel)
        path.chmod(0o644)
    except OSError as error:
        raise RunError(f"{path}: the wheel cannot be written: {error.strerror}") from None
    return path, kit


def lines_for_a_study(kit: KitFiles) -> str:
    """Return what a study says of a kit, as YAML."""
    about = kit.about
    return f"kit: {{name: {about.name}, version: {about.version}, sha256: {kit.sha256}}}"
