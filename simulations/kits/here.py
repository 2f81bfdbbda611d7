"""Where a laptop finds the kit that a study names: a project's folder, a wheel, or what pip installed.

Its digest is compared with the study's before anything of it is executed; see `strategies/kits/shelf.py`.
"""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from configs.errors import ConfigError, KitError
from configs.files import write_atomically
from configs.kit import PROJECT, KitFiles
from configs.kit_rules import require_kit
from configs.schema import Study
from configs.schema.kit import KitKeys
from simulations.kits.project import read_project
from strategies.exchange.arrays import Arrays
from strategies.exchange.tensors import as_bytes
from strategies.kits.shelf import SHELF

_BY_PIP = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}


def bring(kit: Path | None) -> None:
    """Let studies find their kits: in a project's folder or wheel where one is given, else as pip installed them."""
    SHELF.finder = installed if kit is None else lambda _: at(kit)


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


def start_path(study: Study, folder: Path) -> Path:
    """Return where the file of initial values lies, for a study in this folder."""
    return folder / f"{study.name}.start.safetensors"


def bring_start(study: Study, folder: Path) -> None:
    """Make ready what a study needs of kits: where they are, and the initial values that it names, if they are there.

    Raises:
        ConfigError: the file is another one than the study names.
    """
    if SHELF.finder is None:
        bring(None)
    sha256 = getattr(study.model, "start", None)
    path = start_path(study, folder)
    if sha256 is None or SHELF.start(sha256) is not None or not path.is_file():
        return
    if (found := SHELF.begin_from(read_start(path))) != sha256:
        why = f"model.start: expected the file {path.name} of digest {sha256[:12]}, found {found[:12]}"
        raise ConfigError(path.name, [f"{why}; put the right one there, or write it anew: archipel complete STUDY"])


def kit_warnings(study: Study) -> Iterator[str]:
    """Yield what the probe warns of in the kit that a study names; nothing of a study without one."""
    if study.kit is not None:
        from simulations.kits.tested import warnings_of  # PyTorch, which a study without a kit starts without

        yield from warnings_of(SHELF.files(study.kit))


def write_start(study: Study, folder: Path) -> None:
    """Write the file of initial values beside a study that names one, where they are known and not there yet.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    sha256 = getattr(study.model, "start", None)
    arrays = SHELF.start(sha256) if sha256 is not None else None
    if arrays is not None:
        write_atomically(start_path(study, folder), as_bytes(arrays))


def read_start(path: Path) -> Arrays:
    """Return the arrays of a file of initial values.

    Raises:
        ConfigError: it is none.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise ConfigError(str(path), [f"expected a safetensors file, found another ({error})"]) from None
