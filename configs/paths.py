"""Checks of paths that are too long for the files below them.

>>> require_short(Path("/srv/archipel"), Path("sites/lille/ledger.sqlite"))
>>> too_long(Path("/" + 600 * "a"))
'; its path has 601 bytes, SQLite takes 490: choose a folder with a shorter path'
"""

import os
from pathlib import Path

from configs.errors import RunError

MOST = 490  # bytes: SQLite takes 512, for its own files beside one too


def too_long(path: Path) -> str:
    """Return the end of an error's sentence if a data base's path is too long for SQLite, else nothing."""
    length = len(os.fsencode(path))
    return f"; its path has {length} bytes, SQLite takes {MOST}: choose a folder with a shorter path" * (length > MOST)


def require_short(folder: Path, inside: Path) -> None:
    """See that a data base inside a folder has a path that SQLite takes.

    Raises:
        RunError: it is too long.
    """
    if hint := too_long(folder / inside):
        raise RunError(f"{folder}: expected a folder for data bases such as {inside}, found one too deep{hint}")
