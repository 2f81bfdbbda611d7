"""Keyed hashes of patients' ids, kept at the hospital to find patients in two data sets.

The key is this hospital's own and signs nothing; without it the hashes tell nothing. All files are made before a
process fences itself in (client/fence.py), as none can be made later. client/connectors/ids.py makes the hashes.
"""

import os
import secrets
from pathlib import Path

from configs.site import SiteConfig

HASH_BYTES = 16
KEY_BYTES = 32


def prepare_hashes(config: SiteConfig) -> None:
    """Make the folder, the key and a file for each data set, where they are not there yet.

    Raises:
        OSError: they cannot be made.
    """
    config.ids.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not config.id_key.exists():
        part = config.id_key.with_suffix(f".{os.getpid()}")
        with os.fdopen(_open(part, os.O_EXCL), "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, config.id_key)  # another process was first and has made it
        except FileExistsError:
            pass
        finally:
            part.unlink()
    for dataset in config.datasets:
        os.close(_open(_path(config, dataset.study)))


def id_key(config: SiteConfig) -> bytes:
    """Return the key.

    Raises:
        OSError: it cannot be read.
    """
    return config.id_key.read_bytes()


def keep(config: SiteConfig, study: str, hashes: set[bytes]) -> None:
    """Write down the hashes of the patients in a study's data set."""
    with os.fdopen(_open(_path(config, study), os.O_TRUNC), "wb") as file:
        file.write(b"".join(sorted(hashes)))


def kept(config: SiteConfig, study: str) -> set[bytes]:
    """Return the hashes that were written down, none before the first check."""
    path = _path(config, study)
    data = path.read_bytes() if path.is_file() else b""
    return {data[i : i + HASH_BYTES] for i in range(0, len(data) - HASH_BYTES + 1, HASH_BYTES)}


def _path(config: SiteConfig, study: str) -> Path:
    return config.ids / f"{study}.hashes"


def _open(path: Path, flags: int = 0) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
