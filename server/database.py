"""The file `coordinator.sqlite`, which several tables of the coordinator share."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from configs import database
from configs.errors import RunError
from configs.paths import too_long

Tables = TypeVar("Tables")


def opened(path: Path, tables: Callable[[sqlite3.Connection], Tables]) -> Tables:
    """Open or create the file, and return some of its tables.

    Raises:
        RunError: it cannot be opened.
    """
    try:
        connection = database.connect(path, keep_log=True)
        with database.closed_on_error(connection):
            return tables(connection)
    except sqlite3.Error as error:
        raise RunError(f"{path}: the coordinator's database cannot be opened: {error}{too_long(path)}") from None
