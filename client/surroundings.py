"""Changes around a running worker that require it to be restarted.

They are what was replaced since its fence was put up. The fence (client/fence.py) names files and folders as they are
when the worker starts. A data file that is replaced by renaming lies in a folder that it names, and is read. What it
does not follow is told here: site.yaml, whose new file the worker cannot open (most editors write a new one), data in
another folder than before, a folder that was renamed and made anew, and the password file of a data base.

Of site.yaml only where the rows are is followed so. What else it says holds from the node's next start.
"""

from collections.abc import Mapping
from pathlib import Path

from client.caps import stamp_of
from client.fence import named_once
from configs.errors import ArchipelError
from configs.schema import DataSource
from configs.site import SITE_FILE, SiteConfig, load_site


class Surroundings:
    """The files and folders around one worker, as they were when it started."""

    def __init__(self, config: SiteConfig, environment: Mapping[str, str]) -> None:
        """Look at them.

        Args:
            environment: the worker's.
        """
        self._config, self._path = config, config.folder / SITE_FILE
        self._site = stamp_of(self._path)
        self._wanted = self._sources = _sources(config)
        self._read()
        self._sources = self._wanted
        self._inodes = {path: _inode(path) for path in named_once(config, environment)}

    def replaced(self) -> str:
        """Return in words what was replaced, empty where nothing was."""
        for path, inode in self._inodes.items():
            if _inode(path) not in (inode, None):
                return str(path)
        if (stamp := stamp_of(self._path)) != self._site:
            self._site = stamp
            self._read()
        return "where site.yaml says that the rows are" if self._wanted != self._sources else ""

    def _read(self) -> None:
        """Take over from site.yaml where the rows are, as far as it can be read and names the same data sets."""
        try:
            sources = _sources(load_site(self._config.folder))
        except (ArchipelError, OSError):
            return
        if sources.keys() == self._sources.keys():
            self._wanted = sources


def _sources(config: SiteConfig) -> dict[tuple[str, str], DataSource]:
    return {(dataset.study, dataset.identity): dataset.source for dataset in config.datasets}


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
