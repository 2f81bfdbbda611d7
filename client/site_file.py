"""Reading of `site.yaml` beside the ledger.

Its errors never name an identity whose budget would begin anew.
"""

import argparse
import sqlite3
from contextlib import closing
from pathlib import Path

from configs import site
from configs.errors import RunError
from configs.lock import holder
from configs.site import SiteConfig


def load_site(folder: Path) -> SiteConfig:
    """Read `site.yaml` in a node's folder.

    Raises:
        ConfigError: the file cannot be read or holds mistakes; all of them are listed.
    """
    return site.load_site(folder, booked_identities)


def outdated(config: SiteConfig) -> bool:
    """Return whether a node runs here that was started with another site.yaml than this one."""
    return (holder(config.lock) or config.sha256) != config.sha256


def booked_identities(ledger: Path) -> tuple[str, ...]:
    """Return the identities under which a ledger holds releases, oldest first; none where it cannot be read."""
    if not ledger.is_file():
        return ()
    try:
        with closing(sqlite3.connect(ledger, timeout=5.0)) as connection:
            rows = connection.execute("SELECT dataset FROM releases GROUP BY dataset ORDER BY MIN(id)")
            return tuple(str(name) for (name,) in rows)
    except sqlite3.Error:
        return ()


def print_query(arguments: argparse.Namespace) -> int:
    """Print what a data base is asked for the study of a name, whole, as a person or `psql` can read it.

    Raises:
        RunError: no data set of that name asks a data base.
    """
    dataset = load_site(arguments.folder).dataset(arguments.name)
    if dataset is None or not dataset.source.query:
        there = "a file" if dataset is not None else "no such data set"
        raise RunError(f"{arguments.name}: expected a data set of site.yaml that asks a data base, found {there}")
    print(dataset.source.query)
    return 0
