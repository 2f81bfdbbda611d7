"""The herald: proposes every waiting study to its hospitals, and tells them the ends of runs, whatever is under way.

    python -m server.herald FOLDER    # started by server/coordinator.py, ends when its standard input is closed

Each waiting study has a run of its own at the SuperLink, because a hospital compares the study in a proposal with its
run's bundle. When a study's hospitals have answered (server/gathering.py says when), it is ready: the coordinator
conducts those that are ready one by one, in the order in which they have their quorum. One that cannot have its quorum
ends here. Nothing is trained here. Ends and final models are told by server/telling.py.
"""

import logging
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from configs import journal as journals
from configs import wire
from configs.coordinator import CoordinatorConfig, load_coordinator
from configs.errors import ArchipelError
from configs.journal import Journal
from configs.load import load_study
from configs.parts import end_with_owner
from configs.records.coordinator_journal import Ended
from configs.records.run_journal import End, Gathered
from configs.schema import Study
from server import continuity
from server.bundle import build_bundle
from server.ends import owe_end
from server.gathering import Gathering, Patience
from server.logs import write_lines
from server.membership import Membership
from server.pki import Pki
from server.proposals import shortage
from server.shelf import Shelf
from server.sockets import SUPERLINK_SOCKET
from server.superlink.assignment import Directory, Sender, Watch
from server.superlink.client import SuperLinkClient
from server.superlink.grid import SuperLinkGrid
from server.superlink.sealed_grid import SealedGrid
from server.telling import Tellings

log = logging.getLogger("archipel.herald")
LOOK_S = 1.0  # between two looks at the queue
MEMBERS_S = 1.0  # how old the lists of members and of nodes may be


@dataclass
class Proposed:
    """A study under way to its hospitals. `closing` ends its run at the SuperLink."""

    study: Study
    journal: Journal
    grid: SuperLinkGrid
    gathering: Gathering
    closing: ExitStack
    due: float = 0.0


class Herald:
    """All waiting studies of one folder."""

    def __init__(self, config: CoordinatorConfig) -> None:
        self._config = config
        self._members = Membership.open(config.database)
        self._key = Pki(config.pki).load_signing_key()
        self._journal = Journal(config.journal, sign=self._key.sign)
        self._link = SuperLinkClient(config.sockets / SUPERLINK_SOCKET)
        self._nodes, self._known = Recent(self._link.nodes), Recent(self._members.members)
        self._proposed: dict[str, Proposed] = {}
        self._tellings = Tellings(config, self._members, self._nodes, self._opened_to_tell)

    def run(self, over: threading.Event) -> None:
        """Propose until `over`.

        Raises:
            httpx.TransportError: the SuperLink is away.
        """
        rest_s = 0.0
        while not over.wait(rest_s):
            self._follow_the_queue()
            now = time.monotonic()
            for name, proposed in list(self._proposed.items()):
                if proposed.due <= now:
                    self._step(name, proposed)
            told_s = self._tellings.step()
            dues = (proposed.due - time.monotonic() for proposed in self._proposed.values())
            rest_s = min(max(min(dues, default=LOOK_S), 0.02), LOOK_S, told_s)

    def _follow_the_queue(self) -> None:
        """Take up studies that wait, drop those that do not any more."""
        waiting = self._members.unready()
        for name in [name for name in self._proposed if name not in waiting]:
            self._proposed.pop(name).closing.close()
        for name in [name for name in waiting if name not in self._proposed]:
            try:
                self._proposed[name] = self._propose(name)
            except ArchipelError as error:
                self._finish(name, str(error)[:500])

    def _propose(self, name: str) -> Proposed:
        """Open a run of the study at the SuperLink.

        Raises:
            ArchipelError: the run's folder cannot be read.
        """
        run, config, members = self._config.runs / name, self._config, self._members
        study = load_study(run / "study.yaml")
        journal = Journal(run / "journal.jsonl", sign=self._key.sign)
        closing = ExitStack()
        watch = Watch(
            epsilon=lambda site, epsilon: members.set_presence(name, site, "takes part", epsilon),
            talk=members.set_talk,
            statement=members.set_statement,
        )
        grid, sealed_grid = self._opened(Sender(name, study, self._key, journal), watch, closing)
        # A study that had begun does not wait for more than its quorum again as long as at its first start.
        records = journals.read(journal.path) if journal.path.exists() else ()
        began = any(gathered.sites for record in records if (gathered := record.of(Gathered)))
        more_s = min(config.absent_after_s, config.gather_quorum_after_s) if began else config.gather_quorum_after_s
        gathering = Gathering(
            study,
            sealed_grid,
            Patience(config.gather_timeout_s, more_s, config.absent_after_s),
            presence=lambda site, state: members.set_presence(name, site, state),
            write=journal.write,
        )
        members.set_state(name, "WAITING")
        log.info("%s is proposed to its hospitals", name)
        return Proposed(study, journal, grid, gathering, closing)

    def _opened(
        self, sender: Sender, watch: Watch, closing: ExitStack, shelf: Shelf | None = None
    ) -> tuple[SuperLinkGrid, SealedGrid]:
        """Open a run of a study at the SuperLink."""
        grid = closing.enter_context(self._link.run(*build_bundle(sender.study)))
        directory = Directory(self._nodes, self._known, self._members.talks(), self._members.statements)
        absent_after_s = self._config.absent_after_s
        return grid, SealedGrid(grid, directory, sender, watch=watch, absent_after_s=absent_after_s, shelf=shelf)

    def _opened_to_tell(self, name: str, closing: ExitStack, shelf: Shelf) -> tuple[SuperLinkGrid, SealedGrid]:
        """Open a run to tell the end of an earlier one.

        Raises:
            ArchipelError: the run's folder cannot be read.
        """
        run = self._config.runs / name
        journal = Journal(run / "journal.jsonl", sign=self._key.sign)
        watch = Watch(talk=self._members.set_talk, statement=self._members.set_statement)
        return self._opened(Sender(name, load_study(run / "study.yaml"), self._key, journal), watch, closing, shelf)

    def _step(self, name: str, proposed: Proposed) -> None:
        proposed.grid.identify()
        gathering = proposed.gathering
        gathering.step()
        proposed.due = time.monotonic() + gathering.rest_s
        if not gathering.over:
            return
        sites = sorted(gathering.sites)
        if proposed.study.has_quorum(sites):
            self._members.set_ready(name, sites)
            log.info("%s is ready: %s", name, ", ".join(sites))
        else:
            sha256, missing = proposed.study.sha256, gathering.missing()
            proposed.journal.write(
                Gathered(study_sha256=sha256, sites=tuple(sites), bytes=dict(gathering.bytes), missing=missing)
            )
            for site, reason in gathering.missing().items():
                self._members.set_presence(name, site, reason)
            why = shortage(sites, proposed.study.training.quorum, gathering.missing())
            proposed.journal.write(End(outcome="INCOMPLETE", why=why))
            owe_end(self._config, name, "INCOMPLETE", wire.FEW_TAKE_PART)
            self._finish(name, why)
        self._proposed.pop(name).closing.close()

    def _finish(self, name: str, why: str) -> None:
        """End a study that is not being conducted."""
        self._members.set_state(name, "INCOMPLETE", why)
        continuity.note(self._members, self._journal, Ended(run=name, outcome="INCOMPLETE", why=why))
        log.info("%s: INCOMPLETE: %s", name, why)


class Recent:
    """A list that is asked for more often than it changes."""

    def __init__(self, ask: Callable[[], Mapping[Any, Any]]) -> None:
        self._ask, self._then = ask, -MEMBERS_S
        self._last: Mapping[Any, Any] = {}

    def __call__(self) -> Any:
        """Return the list, asked for anew where it is too old."""
        if time.monotonic() - self._then > MEMBERS_S:
            self._last, self._then = self._ask(), time.monotonic()
        return self._last


def main(arguments: list[str]) -> int:
    """Propose until standard input is closed. Exit code 2: an error that is explained; it is started again."""
    os.umask(0o077)
    write_lines()
    end_with_owner()
    try:
        Herald(load_coordinator(Path(arguments[0]))).run(threading.Event())
    except (ArchipelError, httpx.HTTPError, sqlite3.Error, OSError) as error:
        print(f"herald: {error or type(error).__name__}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
