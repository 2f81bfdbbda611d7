"""Proposals of a study to hospitals: their messages, and what a hospital's answer says.

server/gathering.py asks and waits; `gather_once` is for grids on which an absent answer never comes.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from flwr.app import Message
from flwr.serverapp import Grid

from configs import wire
from configs.errors import WireError
from configs.keys.values import SITE_NAME
from configs.records.kinds import Kind
from configs.records.run_journal import Refused
from configs.schema import Study
from configs.shown import printable
from server.attendance import Connection
from strategies.exchange.messages import content, read

NO_ANSWER = "has not answered yet"
QUICK_LOOK_S = 0.05  # between two looks at who is connected


class Post(Protocol):
    """The carrier of proposals: `SealedGrid` between machines, `GridPost` elsewhere."""

    def connections(self) -> Mapping[str, Connection]:
        """Return each hospital's node by the hospital's name (by another word where no name is known)."""

    def send(self, messages: Iterable[Message]) -> None:
        """Send, without waiting for replies."""

    def look(self) -> list[Message]:
        """Return the replies that came since the last look."""


class GridPost:
    """Any Flower grid as a post; hospitals' names are known from their replies alone."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._under_way: set[str] = set()

    def connections(self) -> Mapping[str, Connection]:
        """Return every node of the grid."""
        return {f"node {node}": Connection(node) for node in self._grid.get_node_ids()}

    def send(self, messages: Iterable[Message]) -> None:
        """Push messages to the grid."""
        self._under_way.update(self._grid.push_messages(messages))

    def look(self) -> list[Message]:
        """Pull replies from the grid."""
        replies = list(self._grid.pull_messages(self._under_way)) if self._under_way else []
        self._under_way -= {reply.metadata.reply_to_message_id for reply in replies}
        return replies


@dataclass(frozen=True)
class Roster:
    """The hospitals asked in a round (hospital -> node), those away and not needed, and why others are not asked."""

    asked: Mapping[str, int]
    away: Mapping[str, int] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)  # of every hospital of the study that is not asked

    def only(self, concerns: Callable[[str], bool]) -> "Roster":
        """Return the part of it that is about some hospitals."""
        kept = {name: {s: of[s] for s in of if concerns(s)} for name, of in vars(self).items()}
        return Roster(**kept)


def gather_once(
    grid: Grid, study: Study, timeout_s: float, write: Callable[[Kind], object]
) -> tuple[Roster, dict[str, int]]:
    """Ask every node once, when all are there or the time is over: on one machine an absent answer never comes.

    Returns:
        The hospitals that take part, and the bytes that each of them sent.
    """
    expected, deadline = len(study.sites) or study.training.quorum, time.monotonic() + timeout_s
    while len(nodes := sorted(grid.get_node_ids())) < expected and time.monotonic() < deadline:
        time.sleep(min(QUICK_LOOK_S, timeout_s))
    proposal = content("hello", {"protocol": wire.PROTOCOL, "study": study.canonical})
    messages = [Message(proposal, dst_node_id=node, message_type=wire.HELLO) for node in nodes]
    sites: dict[str, int] = {}
    reasons: list[str] = []
    for reply in grid.send_and_receive(messages, timeout=timeout_s) if messages else []:
        code, reason = (int(reply.error.code), plain(reply.error.reason)) if reply.has_error() else (0, "")
        try:
            if not reason:
                sites[read_hello(reply, study, set(sites))] = reply.metadata.src_node_id
                continue
        except WireError as error:
            reason = str(error)[:200]
        reasons.append(reason)
        write(Refused(code=code, reason=reason))
    why = "; or ".join(sorted(set(reasons)))[:200] or NO_ANSWER
    missing = {site: why for site in study.sites if site not in sites}
    return Roster(dict(sorted(sites.items())), {}, missing), {site: len(site) + 64 for site in sites}


def shortage(sites: Iterable[str], quorum: int, missing: Mapping[str, str]) -> str:
    """Say that too few hospitals take part, and why each of the others does not."""
    names, why = sorted(sites), "".join(f"; {site}: {reason}" for site, reason in sorted(missing.items()))
    return f"{len(names)} hospitals take part ({', '.join(names) or 'none'}), the study asks for {quorum}{why}"


def read_hello(reply: Message, study: Study, others: set[str]) -> str:
    """Return the name of the hospital that takes part.

    Args:
        others: hospitals that have answered for good.

    Raises:
        WireError: it is another study, another protocol, no hospital of the study, or a second one of the name.
    """
    fields = read("hello reply", reply.content).fields
    site = str(fields["site"])
    if fields["protocol"] != wire.PROTOCOL or not SITE_NAME.fullmatch(site):
        raise WireError("hello reply: expected this protocol and a hospital's name, found another or none")
    if fields["study_sha256"] != study.sha256:
        raise WireError("hello reply: expected the proposed study's digest, found another")
    if site in others or (study.sites and site not in study.sites):
        raise WireError("hello reply: expected a hospital of the cohort, once; found another or a second one")
    return site


def plain(reason: str | None) -> str:
    """Return a hospital's sentence as printable text of bounded length: it goes to journals and screens."""
    return printable(reason or "", 200) or "no reason given"
