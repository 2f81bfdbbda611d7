"""Where a laptop finds the kit that a study names: a project's folder, a wheel, or what pip installed.

Its digest is compared with the study's before anything of it is executed; see `strategies/kits/shelf.py`.
"""

from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from configs.errors import KitError
from configs.kit import PROJECT, KitFiles
from configs.kit_rules import require_kit
from configs.schema import Study
from configs.schema.kit import KitKeys
from server.starts import provide_start
from simulations.kits.project import example, read_project
from strategies.kits.shelf import SHELF

_BY_PIP = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}


def bring(kit: Path | None) -> None:
    """Let studies find their kits: in a project's folder or wheel where one is given, else as pip installed them."""
    SHELF.finder = installed if kit is None else partial(_given, kit)


def _given(path: Path, _keys: KitKeys) -> KitFiles:
    return at(path)


def at(path: Path) -> KitFiles:
    """Return the kit of a project's folder or of a wheel.

    Raises:
        KitError, RunError: there is none, or it breaks a rule.
    """
    if path.is_dir():
        return read_project(path)
    try:
        wheel = path.read_bytes()
    except OSError as error:
        raise KitError(f"{path}: expected a kit's folder or wheel, found none ({error.strerror})") from None
    return require_kit(wheel, path.name)


def installed(keys: KitKeys) -> KitFiles:
    """Return the kit that pip installed under a name.

    Raises:
        KitError: there is none, or it was changed since.
    """
    try:
        found = distribution(PROJECT + keys.name.replace("_", "-"))
    except PackageNotFoundError:
        if (kit := example(keys.name)).sha256 == keys.sha256:
            return kit  # of a preset: it is in every installation
        raise KitError(
            f"kit {keys.name} {keys.version}: expected it here, found none; install its wheel with pip, "
            "or say where it is: --kit FOLDER"
        ) from None
    names = [str(path) for path in found.files or [] if "__pycache__" not in str(path) and path.name not in _BY_PIP]
    if not names:
        raise KitError(f"kit {keys.name}: expected the list of its files, found none; install its wheel with pip anew")
    try:
        return KitFiles.of_files({name: Path(str(found.locate_file(name))).read_bytes() for name in names})
    except OSError:
        raise KitError(f"kit {keys.name}: a file of it is missing here; install its wheel with pip anew") from None


def bring_start(study: Study, folder: Path) -> None:
    """Make ready what a study needs of kits: where they are, and the initial values that it names, if they are there.

    Raises:
        RunError: the file beside the study is another one than it names.
    """
    if SHELF.finder is None:
        bring(None)
    SHELF.hold(study.kit)
    provide_start(study, folder)


def kit_warnings(study: Study) -> Iterator[str]:
    """Yield what the probe warns of in the kit that a study names; nothing of a study without one."""
    if study.kit is not None:
        from simulations.kits.tested import warnings_of  # PyTorch, which a study without a kit starts without

        yield from warnings_of(SHELF.files(study.kit))
