"""Lowered privacy caps of site.yaml, followed while a node runs.

The file is read again when it has changed, and a cap that was lowered holds at once. Only a lower `max_epsilon` (or
`delta`) is followed so. A higher one, and everything else, holds from the next start: the person who restarts the node
looks once more at what spends more.
"""

import logging
from dataclasses import replace
from pathlib import Path

from client.site_file import load_site
from configs.errors import ArchipelError
from configs.site import SITE_FILE, Policy, SiteConfig

CAP = "cap"  # a field of the node's in a request to the worker, which cannot read a file that took site.yaml's place
log = logging.getLogger("archipel.node")


def told(policy: Policy) -> str:
    """Write a policy's cap for the worker."""
    return f"{policy.max_epsilon!r} {policy.delta!r}"


def lowered(policy: Policy, text: str) -> Policy:
    """Return a policy with the cap that `told` wrote, where that is lower, and otherwise unchanged.

    >>> [lowered(Policy(), text).max_epsilon for text in ("2.0 1e-06", "9.0 1e-06", "")]
    [2.0, 8.0, 8.0]
    """
    if not text:
        return policy
    epsilon, delta = map(float, text.split(" "))
    return replace(policy, max_epsilon=min(policy.max_epsilon, epsilon), delta=min(policy.delta, delta))


class Caps:
    """The policy of a hospital whose site.yaml may change while a process runs."""

    def __init__(self, config: SiteConfig) -> None:
        self.config, self._seen = config, stamp_of(config.folder / SITE_FILE)

    def look(self) -> SiteConfig:
        """Return the configuration with the cap that holds now: the lowest that site.yaml had since the start."""
        stamp = stamp_of(self.config.folder / SITE_FILE)
        if stamp == self._seen:
            return self.config
        self._seen = stamp
        try:
            current = load_site(self.config.folder).policy
        except (ArchipelError, OSError):
            log.warning("site.yaml changed and holds mistakes: the former one is followed; see: archipel-site check")
            return self.config
        policy = self.config.policy
        lower = lowered(policy, told(current))
        if lower != policy:
            log.info("site.yaml: max_epsilon is %g at delta %g from now on", lower.max_epsilon, lower.delta)
            self.config = replace(self.config, policy=lower)
        if lower != replace(lower, max_epsilon=current.max_epsilon, delta=current.delta):
            log.warning("site.yaml: a higher max_epsilon or delta holds once the node is restarted")
        return self.config


def stamp_of(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file does, zeros where it is not there."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0, 0
    return status.st_ino, status.st_mtime_ns, status.st_size
