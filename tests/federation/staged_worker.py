"""The worker of tests/federation/staged_node.py: ours, but it stops itself (SIGSTOP) in the midst of a round where the
study's purpose says "Held at SITE in round NUMBER.", once a study: what is booked is booked, nothing is trained yet.

So a test need not come upon a round by chance, nor let it compute for long. With `--seeded`, noise can be repeated.
"""

import os
import re
import signal
import sys
from typing import ClassVar

from client import worker
from client.children.of_kits import KitChildren
from configs.site import SiteConfig


class Staged(worker.Worker):
    """The worker whose hospitals are held. It is made after the process has left the network: imports begin here."""

    def __init__(self, config: SiteConfig, *, seeded: bool = False, children: KitChildren | None = None) -> None:
        super().__init__(config, seeded=seeded, children=children)
        _hold()


def _hold() -> None:
    import client.site
    from client.site import Site
    from strategies.exchange.arrays import Arrays
    from strategies.releases.base import Fit, Making, Request

    class Held(Site):
        due = False
        held: ClassVar[set[str]] = set()  # of this process

        def releasing(self, name: str, request: Request) -> Making:
            held = re.findall(r"Held at (\w+) in round (\d+)\.", self.study.purpose)
            self.due = (self.name, str(request.round)) in held and not (request.attempt or self.alone)
            return super().releasing(name, request)

        def work(self, fit: Fit) -> Arrays:
            if self.due and self.study.sha256 not in Held.held:
                Held.held.add(self.study.sha256)
                os.kill(os.getpid(), signal.SIGSTOP)
            return super().work(fit)

    client.site.Site = Held  # type: ignore[misc]


if __name__ == "__main__":
    worker.Worker = Staged  # type: ignore[misc]
    sys.exit(worker.main(sys.argv[-1:], seeded="--seeded" in sys.argv))
