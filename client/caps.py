"""A cap that is lowered holds at once: site.yaml is read again when it has changed while a node runs.

Only a lower `max_epsilon` (or `delta`) is followed so. A higher one, and everything else, holds from the next start:
whoever restarts the node looks once more at what spends more.
"""

import logging
from dataclasses import replace

from configs.deployment import SITE_FILE, SiteConfig, load_site
from configs.errors import ArchipelError

log = logging.getLogger("archipel.node")


class Caps:
    """The policy of a hospital whose site.yaml may change while a process runs."""

    def __init__(self, config: SiteConfig) -> None:
        self.config, self._seen = config, self._stamp(config)

    def look(self) -> SiteConfig:
        """Return the configuration with the cap that holds now: the lowest that site.yaml had since the start."""
        stamp = self._stamp(self.config)
        if stamp == self._seen:
            return self.config
        self._seen = stamp
        try:
            wanted = load_site(self.config.folder).policy
        except (ArchipelError, OSError):
            log.warning("site.yaml changed and holds mistakes: the former one is followed; see: archipel-site check")
            return self.config
        policy = self.config.policy
        lower = replace(
            policy, max_epsilon=min(policy.max_epsilon, wanted.max_epsilon), delta=min(policy.delta, wanted.delta)
        )
        if lower != policy:
            log.info("site.yaml: max_epsilon is %g at delta %g from now on", lower.max_epsilon, lower.delta)
            self.config = replace(self.config, policy=lower)
        if lower != replace(lower, max_epsilon=wanted.max_epsilon, delta=wanted.delta):
            log.warning("site.yaml: a higher max_epsilon or delta holds once the node is restarted")
        return self.config

    @staticmethod
    def _stamp(config: SiteConfig) -> tuple[int, int, int]:
        """Return what changes when the file does, zeros where it is not there."""
        try:
            found = (config.folder / SITE_FILE).stat()
        except OSError:
            return 0, 0, 0
        return found.st_ino, found.st_mtime_ns, found.st_size
