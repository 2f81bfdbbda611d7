"""The file of initial values that a study of a kit's model names: carried with its run, read when it begins.

The coordinator opens no kit: what the first round sends is this file, checked by the digest in the study.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.numpy import load

from configs.errors import RunError
from configs.files import write_atomically
from configs.schema import Study
from configs.schema.kit import start_file
from strategies.exchange.tensors import as_bytes
from strategies.kits.shelf import SHELF

if TYPE_CHECKING:  # imports Flower, which commands that plan do without
    from strategies.exchange.arrays import Arrays


def start_path(study: Study, folder: Path) -> Path:
    """Return where the file lies, for a study in this folder."""
    return folder / start_file(study.name)


def provide_start(study: Study, folder: Path) -> None:
    """Keep the initial values that a study names for the training of this process, if they lie in the folder.

    Raises:
        RunError: the file is none, or another one than the study names.
    """
    sha256, path = getattr(study.model, "start", None), start_path(study, folder)
    if sha256 is None or SHELF.start(sha256) is not None or not path.is_file():
        return
    if (present := SHELF.begin_from(read_start(path))) != sha256:
        raise RunError(
            f"{path}: expected the file of digest {sha256[:12]} (model.start), found {present[:12]}; put the right one "
            "there, or write it anew: archipel complete STUDY"
        )


def write_start(study: Study, folder: Path) -> None:
    """Write the file beside a study, where it names one that is known.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    sha256 = getattr(study.model, "start", None)
    arrays = None if sha256 is None else SHELF.start(sha256)
    if arrays is not None:
        write_atomically(start_path(study, folder), as_bytes(arrays))


def require_start(study: Study, folder: Path) -> None:
    """Check that the file lies beside a study that names one, and keep its values.

    Raises:
        RunError: it is not there, or another one than the study names.
    """
    sha256 = getattr(study.model, "start", None)
    provide_start(study, folder)
    if sha256 is not None and SHELF.start(sha256) is None:
        raise RunError(
            f"{start_path(study, folder)}: expected the file that the study's model begins from, found none; "
            "archipel complete writes it beside the study"
        )


def read_start(path: Path) -> "Arrays":
    """Return the arrays of a file of initial values.

    Raises:
        RunError: it is none.
    """
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}: expected a safetensors file, found another ({error})") from None
