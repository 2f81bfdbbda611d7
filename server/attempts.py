"""Repeated requests for lost releases: to which hospitals, and for which attempt.

A private release is booked before it is made, and never made twice: where its hospital's process was killed, or the
reply that it had kept is gone, the round would be lost for ever. A study with `privacy.spare` lets that hospital make
another release in its place. The hospital is the judge of it (client/ledger.py): here nothing is counted over rounds,
each release is asked for at most `spare` times more, and a hospital that has none left says so. Hospitals that have
answered are not asked again: a reply that was kept comes back whatever attempt is asked for, so a coordinator that
starts anew begins with the first.

>>> from flwr.app import Error
>>> [is_lost(Error(code, "")) for code in (wire.BEGUN, 105, wire.NO_SPARE, 101)]
[True, True, False, False]
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import ConfigRecord, Error, Message, RecordDict

from configs import wire
from configs.schema import Study
from server.codes import BAD_SEAL

COULD_NOT, UNEXPECTED = 105, 199  # a killed worker among them
LOST = frozenset({wire.BEGUN, COULD_NOT, UNEXPECTED, BAD_SEAL})


def is_lost(error: Error) -> bool:
    """Tell whether a hospital's release may be spent without having arrived, so that another attempt makes sense."""
    return error.code in LOST


@dataclass(frozen=True)
class Again:
    """One hospital that is asked anew: its instruction, the attempt, and what it said of the last one."""

    site: str
    attempt: int
    why: str
    message: Message


class Attempts:
    """The attempts at one release of a study, a round or the evaluation, at the hospitals that were asked for it."""

    def __init__(self, study: Study, asked: Sequence[Message], nodes: Mapping[str, int]) -> None:
        """Begin with the first attempt.

        Args:
            asked: the instructions as they were sent, one a hospital.
            nodes: hospital -> node.
        """
        self._spare = study.privacy.spare
        instructions = {message.metadata.dst_node_id: message for message in asked}
        self._sites = {node: site for site, node in nodes.items() if node in instructions}
        self._asked = {site: instructions[node] for node, site in self._sites.items()}
        self._newest: list[str] = []
        self._last: dict[str, Error] = {}  # the newest error of each hospital that has sent no reply
        self.made: dict[str, int] = {}  # hospital -> the attempt that it was last asked for, of those asked anew

    def note(self, replies: Iterable[Message]) -> None:
        """Read what came; `again` speaks of the hospitals among these."""
        self._newest = []
        for reply in replies:
            site = self._sites.get(reply.metadata.src_node_id)
            if site is None:
                continue
            self._last.pop(site, None)
            if reply.has_error():
                self._last[site] = reply.error
                self._newest.append(site)

    def again(self) -> Iterator[Again]:
        """Yield the hospitals that are asked anew."""
        for site in self._newest:
            error, attempt = self._last[site], self.made.get(site, 0) + 1
            if is_lost(error) and attempt <= self._spare:
                self.made[site] = attempt
                yield Again(site, attempt, str(error.reason), _attempt(self._asked[site], attempt))

    @property
    def lost_for_good(self) -> list[str]:
        """Return the hospitals without a possible release in this run, in the order of their names."""
        return sorted(site for site, error in self._last.items() if self._is_final(site, error))

    def _is_final(self, site: str, error: Error) -> bool:
        """Return whether a hospital's last word says that no resume can have its release."""
        return error.code == wire.NO_SPARE or (error.code == wire.BEGUN and self.made.get(site, 0) >= self._spare)

    def explained(self, why: str) -> str:
        """Return why a run ends, with the releases that no resume can have."""
        if not (sites := self.lost_for_good):
            return why
        spare = f"its {self._spare} spare releases are used up" if self._spare else "the study has none spare"
        releases = f"the release of {sites[0]} is" if len(sites) == 1 else f"the releases of {', '.join(sites)} are"
        return (
            f"{why}; {releases} lost and {spare}: nothing more can be done in this run, resumed or not; submit a new "
            "study, with more privacy.spare or a lower quorum"
        )


def _attempt(asked: Message, attempt: int) -> Message:
    """Return the same instruction for another attempt; the arrays are shared."""
    metadata, content = asked.metadata, RecordDict(dict(asked.content))
    config = asked.content[wire.CONFIG]
    assert isinstance(config, ConfigRecord)
    fields = {name: value for name, value in config.items() if isinstance(value, str | int)}
    content[wire.CONFIG] = ConfigRecord(dict(wire.attempted(fields, attempt)))
    return Message(
        content, dst_node_id=metadata.dst_node_id, message_type=metadata.message_type, group_id=metadata.group_id
    )
