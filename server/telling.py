"""The telling of ends: each hospital that took part in a run learns how it ended, and has the model that came of it.

The herald does it, beside its proposals, so that no run waits for it. Only hospitals with a node that reads such a
message are told (`Form.since` of configs/wire.py); one that is not connected is told when it is back. A refusal ends
it, unless it is one that waits for a person: the hospital was told.
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from safetensors.numpy import load_file

from configs import wire
from configs.coordinator import CoordinatorConfig
from configs.errors import ArchipelError
from configs.load import load_study
from server.codes import NOT_REACHED
from server.ends import Ends, Owed
from server.membership import ENDED, Membership
from server.shelf import FOLDER, Shelf
from server.superlink.client import Node
from server.superlink.grid import SuperLinkGrid
from server.superlink.sealed_grid import SealedGrid
from strategies.exchange.messages import content
from strategies.models.registry import study_parameters

log = logging.getLogger("archipel.herald")
QUICK_LOOK_S, LOOK_S = 0.1, 1.0  # between two looks: while an answer is awaited, and else
AGAIN_S = 3600.0  # a hospital that did not answer is told again after so long; at once where its node connects anew
NOT_YET = wire.WAITING | {NOT_REACHED}
FORM = wire.ASKS[wire.END]
Key = tuple[str, str, int, int]
Open = Callable[[str, ExitStack, Shelf], tuple[SuperLinkGrid, SealedGrid]]


@dataclass
class _Telling:
    """One run's end on its way; `awaited`: node -> the hospital that has yet to answer."""

    end: Owed
    instruction: RecordDict
    carrier: SuperLinkGrid
    grid: SealedGrid
    shelf: Shelf
    closing: ExitStack
    awaited: dict[int, str] = field(default_factory=dict)

    def close(self) -> None:
        """End the run at the SuperLink, and delete what was offered."""
        self.closing.close()
        self.shelf.clear()


class Tellings:
    """All ends that are owed by one coordinator."""

    def __init__(
        self, config: CoordinatorConfig, members: Membership, nodes: Callable[[], Mapping[int, Node]], open_run: Open
    ) -> None:
        """Begin with none.

        Args:
            nodes: which are registered.
            open_run: opens a run of the same study at the SuperLink: messages of a run that is over do not arrive.
        """
        self._config, self._members, self._nodes, self._open = config, members, nodes, open_run
        self._ends = Ends.open(config.database)
        self._tellings: dict[Key, _Telling] = {}
        self._tried: dict[tuple[Key, str], tuple[str, float]] = {}  # end, hospital -> its node's start, when again
        self._broken: set[Key] = set()
        self._due = 0.0

    def step(self) -> float:
        """Tell hospitals that are connected, read what they answered, and return when to call again, in seconds."""
        if (rest_s := self._due - time.monotonic()) > 0:
            return rest_s
        owed = [end for end in self._ends.owed() if end.key not in self._broken and self._is_over(end.run)]
        for key in set(self._tellings) - {end.key for end in owed}:
            self._tellings.pop(key).close()
        able = self._able() if owed else {}
        for end in owed:
            try:
                self._tell(end, able)
            except (ArchipelError, OSError) as error:  # its folder is gone or changed: no other run waits for it
                log.error("%s: its hospitals cannot be told its end: %s", end.run, error)
                self._broken.add(end.key)
        rest_s = QUICK_LOOK_S if self._tellings else LOOK_S
        self._due = time.monotonic() + rest_s
        return rest_s

    def _is_over(self, run: str) -> bool:
        """Return whether a run has ended; one that was resumed will owe its next end."""
        state = self._members.run(run)
        return state is not None and state.state in ENDED

    def _able(self) -> dict[str, Node]:
        """Return the connected nodes that read such a message, by their hospitals."""
        talks, since = self._members.talks(), wire.FORMS[FORM].since
        by_key = {member.public_key: site for site, member in self._members.members().items()}
        online = {by_key[n.public_key]: n for n in self._nodes().values() if n.online and n.public_key in by_key}
        return {site: node for site, node in online.items() if site in talks and talks[site].protocol >= since}

    def _tell(self, end: Owed, able: Mapping[str, Node]) -> None:
        """Tell those who are due, and read the answers of the others.

        Raises:
            ArchipelError, OSError: the run's folder cannot be read.
        """
        now = time.monotonic()
        due = {site: able[site] for site in end.sites if site in able and self._is_due(end.key, site, able[site], now)}
        if end.key not in self._tellings and not due:
            return
        if end.key not in self._tellings:
            self._tellings[end.key] = self._begin(end)
        telling = self._tellings[end.key]
        telling.carrier.identify()
        for site, node in due.items():
            self._tried[end.key, site] = node.since, now + AGAIN_S
            telling.awaited[node.node_id] = site
        telling.grid.send(
            [Message(telling.instruction, dst_node_id=n.node_id, message_type=wire.END) for n in due.values()]
        )
        self._read(telling)
        telling.awaited = {n: site for n, site in telling.awaited.items() if site in able}  # others: when they are back
        if not telling.awaited:
            self._tellings.pop(end.key).close()

    def _is_due(self, end: Key, site: str, node: Node, now: float) -> bool:
        since, again = self._tried.get((end, site), ("", 0.0))
        return since != node.since or now >= again

    def _begin(self, end: Owed) -> _Telling:
        closing, shelf, instruction = ExitStack(), Shelf(self._config.folder / FOLDER, end.run), self._instruction(end)
        carrier, grid = self._open(end.run, closing, shelf)
        return _Telling(end, instruction, carrier, grid, shelf, closing)

    def _read(self, telling: _Telling) -> None:
        run, key = telling.end.run, telling.end.key
        for reply in telling.grid.look():
            site = telling.awaited.pop(reply.metadata.src_node_id, None)
            if site is None or (reply.has_error() and reply.error.code in NOT_YET):
                continue
            log.info("%s: %s %s", run, site, "refused to be told its end" if reply.has_error() else "was told its end")
            self._tried.pop((key, site), None)
            self._ends.told(run, site)

    def _instruction(self, end: Owed) -> RecordDict:
        """Return what each hospital is told.

        Raises:
            ArchipelError, OSError: the run's folder cannot be read.
        """
        folder = self._config.runs / end.run
        study = load_study(folder / "study.yaml")
        fields: dict[str, str | int] = {"study_sha256": study.sha256, "outcome": end.outcome}
        fields |= {"code": end.code, "rounds": end.rounds}
        parameters = study_parameters(study)
        if not end.rounds or not parameters:
            return content(FORM, fields)
        return content(FORM, fields, load_file(folder / "model.safetensors"), parameters)
