"""A folder that its owner alone can enter."""

import os
import stat
from pathlib import Path

from configs.errors import RunError


def private_folder(path: Path) -> Path:
    """Make a folder that its owner alone can enter, or take one that is.

    Raises:
        RunError: it is somebody else's, a link, or open to others: what would lie in it could be replaced.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise RunError(f"{path}: expected a folder of this user alone (mode 0700), found another; remove it")
    return path
