"""Gathering of a study's hospitals: which take part, which have not answered, and why not.

Only the hospitals of the study are asked and counted. Each stands for itself: a hospital takes part, or a person there
refused the study; every other answer (no approval yet, no data set yet, a data base that restarts, a clock that is off,
a worker that was killed) keeps it among those that are asked again, at growing intervals, with its reason shown. A
proposal that is under way is not repeated: its reply counts whenever it comes. A hospital whose node connects anew is
the same hospital.

`Gathering` is a state machine without a loop: `step` does what is due now, `rest_s` says when to call it again. The
same object goes on during the rounds, so that a hospital that comes later takes part from the next round on.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from flwr.app import Message

from configs import wire
from configs.errors import WireError
from configs.keys.values import SITE_NAME
from configs.records.kinds import Kind
from configs.records.run_journal import Refused
from configs.schema import Study
from server.attendance import NEVER_CONNECTED, Connection
from server.codes import NOT_REACHED
from server.proposals import NO_ANSWER, Post, Roster, plain, read_hello
from strategies.exchange.messages import content

REFUSED_BY_A_PERSON = 111  # the one refusal that is final
FIRST_REPEAT_S, SLOWER, SLOWEST_REPEAT_S = 0.5, 1.6, 60.0  # when a hospital that is not ready is asked again
MOST_CHANGES = 50  # of a hospital's answer, and of its node's connection, after which it is asked again soon
UNREADY_REPEAT_S, SLOWEST_UNREADY_S = 2.0, 300.0  # the same, where it is not a person's approval that is missing
PATIENCE_S, LONGEST_PATIENCE_S = (
    900.0,
    21_600.0,
)  # a proposal without an answer is sent again after so long; the reply to either counts
QUICK_LOOK_S, LOOK_PART, SLOW_LOOK_S = 0.05, 0.25, 2.0  # between two looks: a part of the time since the last event
TOGETHER = 0.3  # hospitals that are due within this part of the slowest interval are asked together


@dataclass
class Standing:
    """The standing of one hospital: `state` is "", "takes part", "refused" or "not yet"; times are the machine's clock.

    `due` is when it is asked next, `sent` when the proposal under way was sent (None: there is none), `sent_at` the
    same for people, `since` the start of the node that was asked.
    """

    site: str = ""
    state: str = ""
    reason: str = NO_ANSWER
    code: int = -1
    due: float = 0.0
    repeat_s: float = 0.0
    sent: float | None = None
    sent_at: str = ""
    since: str = ""
    patience_s: float = PATIENCE_S
    changes: int = 0
    arrivals: int = 0

    @property
    def final(self) -> bool:
        """Return whether it need not be asked again."""
        return self.state in ("takes part", "refused")


@dataclass(frozen=True)
class Patience:
    """The times to wait, in seconds: for all hospitals, for more than the quorum, and for one that is not connected."""

    timeout_s: float
    quorum_after_s: float = 3600.0
    absent_after_s: float = 60.0


class Gathering:
    """One study's hospitals."""

    def __init__(
        self,
        study: Study,
        post: Post,
        patience: Patience,
        *,
        presence: Callable[[str, str], None] = lambda _site, _state: None,
        write: Callable[[Kind], object] = lambda _record: None,
        clock: Callable[[], float] = time.monotonic,
        expected: Iterable[str] = (),
    ) -> None:
        """Begin to gather.

        Args:
            expected: hospitals that must answer before it is over; by default all of the study.
        """
        self._study, self._post, self._patience = study, post, patience
        self._presence, self._write, self._clock = presence, write, clock
        self._expected = set(expected) or set(study.sites)
        self._proposal = content("hello", {"protocol": wire.PROTOCOL, "study": study.canonical})
        self._standings: dict[str, Standing] = {}  # by the word under which the post knows a hospital
        self._asked: dict[int, str] = {}  # node -> that word
        self._connections: Mapping[str, Connection] = {}
        self._shown: dict[str, str] = {}
        self._began = self._moved = clock()
        self._quorum_since: float | None = None
        self.bytes: dict[str, int] = {}

    # Asking

    def step(self) -> None:
        """Read what came, ask those that are due, and tell what changed."""
        self._connections = self._concerned(self._post.connections())
        for reply in self._post.look():
            self._read(reply)
        if due := self._due():
            self._ask(due)
        self._tell()
        if not self._study.has_quorum(self._present()):
            self._quorum_since = None
        elif self._quorum_since is None:
            self._quorum_since = self._clock()

    @property
    def rest_s(self) -> float:
        """Return when to call `step` again: soon after a proposal was sent, more seldom the longer nothing came."""
        now = self._clock()
        if any(standing.sent is not None for standing in self._standings.values()):
            return min(max(LOOK_PART * (now - self._moved), QUICK_LOOK_S), SLOW_LOOK_S)
        times = [when for word in self._connections if (when := self._when(word, now)) is not None]
        return min(max(min(times, default=now + SLOW_LOOK_S) - now, QUICK_LOOK_S), SLOW_LOOK_S)

    def _concerned(self, connections: Mapping[str, Connection]) -> dict[str, Connection]:
        """Return the nodes of the study's hospitals; others are neither asked nor counted."""
        cohort = self._study.sites
        return {
            word: connection
            for word, connection in connections.items()
            if not cohort or word in cohort or not SITE_NAME.fullmatch(word)
        }

    def _due(self) -> dict[str, Connection]:
        """Return hospitals to ask now, and those that are due so soon after that one look serves both."""
        now = self._clock()
        times = {word: when for word in self._connections if (when := self._when(word, now)) is not None}
        if not any(when <= now for when in times.values()):
            return {}
        together = {word: TOGETHER * self._standings[word].repeat_s if word in self._standings else 0 for word in times}
        return {word: self._connections[word] for word, when in times.items() if when <= now + together[word]}

    def _when(self, word: str, now: float) -> float | None:
        """Return when a hospital is asked next, None for never."""
        connection, standing = self._connections[word], self._standings.get(word)
        if not connection.online or (standing and standing.final):
            return None
        if standing is None:
            return now
        anew = connection.since != standing.since
        if anew and standing.arrivals < MOST_CHANGES:
            return now
        if standing.sent is None:
            return standing.due
        return standing.sent + (standing.repeat_s if anew else standing.patience_s)

    def _ask(self, due: Mapping[str, Connection]) -> None:
        now, sent_at = self._clock(), datetime.now(UTC).strftime("%H:%M UTC")
        for word, connection in due.items():
            standing = self._standings.setdefault(word, Standing(word if SITE_NAME.fullmatch(word) else ""))
            if connection.since != standing.since:
                self._arrived(standing)
            elif standing.sent is not None:
                standing.patience_s = min(2 * standing.patience_s, LONGEST_PATIENCE_S)
            standing.sent, standing.sent_at, standing.since = (
                now,
                sent_at if standing.sent is None else standing.sent_at,
                connection.since,
            )
            self._asked[connection.node_id] = word
        self._moved = now
        nodes = sorted(connection.node_id for connection in due.values())
        self._post.send([Message(self._proposal, dst_node_id=node, message_type=wire.HELLO) for node in nodes])

    @staticmethod
    def _arrived(standing: Standing) -> None:
        """Ask a node that connected anew soon; where it does so again and again, more and more seldom."""
        standing.arrivals += 1
        if standing.arrivals <= MOST_CHANGES:
            standing.repeat_s = 0.0
        elif standing.sent is not None:  # the former process never answered
            standing.repeat_s = max(standing.repeat_s, _slower(standing.repeat_s, FIRST_REPEAT_S, SLOWEST_REPEAT_S))

    # Reading

    def _read(self, reply: Message) -> None:
        """Read one hospital's answer; the first that is final counts."""
        word = self._asked.get(reply.metadata.src_node_id)
        if word is None or self._standings[word].final:
            return
        standing, self._moved = self._standings[word], self._clock()
        standing.sent, standing.patience_s = None, PATIENCE_S
        if reply.has_error() and reply.error.code == NOT_REACHED:
            standing.repeat_s = _slower(standing.repeat_s, UNREADY_REPEAT_S, SLOWEST_REPEAT_S)
            standing.due = self._clock() + standing.repeat_s
            return
        if reply.has_error():
            return self._not_yet(standing, int(reply.error.code), plain(reply.error.reason))
        try:
            standing.site = read_hello(reply, self._study, {s.site for s in self._standings.values() if s.final})
        except WireError as error:
            return self._not_yet(standing, 0, str(error)[:200])
        standing.state, standing.reason, standing.code = "takes part", "", 0
        self.bytes[standing.site] = len(standing.site) + 64

    def _not_yet(self, standing: Standing, code: int, reason: str) -> None:
        final = code == REFUSED_BY_A_PERSON
        approval = code == wire.WAITING_FOR_APPROVAL
        if (standing.code, standing.reason) != (code, reason):
            standing.changes += 1
            standing.repeat_s = 0.0 if standing.changes <= MOST_CHANGES else standing.repeat_s
            if not approval:
                self._write(Refused(site=standing.site, code=code, reason=reason, final=final))
        standing.state, standing.code, standing.reason = "refused" if final else "not yet", code, reason
        first, slowest = (FIRST_REPEAT_S, SLOWEST_REPEAT_S) if approval else (UNREADY_REPEAT_S, SLOWEST_UNREADY_S)
        standing.repeat_s = _slower(standing.repeat_s, first, slowest)
        standing.due = self._clock() + standing.repeat_s

    # Telling

    def _tell(self) -> None:
        """Say what each hospital does, where that has changed."""
        for word, standing in self._standings.items():
            text, site = self._text(standing), standing.site or word
            if site and text and self._shown.get(site) != text:
                self._shown[site] = text
                self._presence(site, text)

    def _text(self, standing: Standing) -> str:
        if standing.final or standing.sent is None:
            return standing.reason or standing.state
        if self._clock() - standing.sent < SLOW_LOOK_S:
            return self._shown.get(standing.site, "")  # about to answer: what was known of it stays
        return f"has not answered the proposal sent at {standing.sent_at} yet"

    # Judging

    @property
    def sites(self) -> dict[str, int]:
        """Return the hospitals that take part and their nodes, by name."""
        taking = {s.site: word for word, s in self._standings.items() if s.state == "takes part"}
        return {s: self._connections[taking[s]].node_id for s in sorted(taking) if taking[s] in self._connections}

    def _connection(self, site: str) -> Connection | None:
        word = next((word for word, s in self._standings.items() if s.site == site), site)
        return self._connections.get(word)

    def _present(self) -> list[str]:
        return [site for site in self.sites if (connection := self._connection(site)) and connection.online]

    @property
    def over(self) -> bool:
        """Return whether to wait no longer: all have answered, or the quorum waited long enough or cannot come."""
        now = self._clock()
        if now - self._began >= self._patience.timeout_s or self.hopeless:
            return True
        if self._quorum_since is None:
            return False
        return self._complete or now - self._quorum_since >= self._patience.quorum_after_s

    @property
    def _complete(self) -> bool:
        """Return whether every expected hospital has answered for good; of a study without a cohort, the quorum."""
        if not self._expected:
            return self._study.has_quorum(self._present())
        return {s.site for s in self._standings.values() if s.final} >= self._expected

    @property
    def hopeless(self) -> bool:
        """Return whether so many persons refused that the quorum cannot be there."""
        refused = [s.site or word for word, s in self._standings.items() if s.state == "refused"]
        left = len(self._study.training_sites) - sum(map(self._study.trains_at, refused))
        return bool(self._study.sites) and left < self._study.training.quorum

    def missing(self) -> dict[str, str]:
        """Return why each hospital of the study that does not take part does not, by name."""
        standings = {s.site: s for s in self._standings.values() if s.site}
        names = sorted(set(self._study.sites) | set(standings))
        reasons = {}
        for site in names:
            standing, connection = standings.get(site), self._connection(site)
            if standing is not None and standing.state == "takes part":
                continue
            reason = self._reason(standing) if standing else NO_ANSWER
            absence = connection.absence if connection else NEVER_CONNECTED
            reasons[site] = ": ".join(filter(None, (absence, reason)))[:200] if not _is_final(standing) else reason
        return reasons

    def _reason(self, standing: Standing) -> str:
        if standing.sent is not None and standing.state == "":
            return f"has not answered the proposal sent at {standing.sent_at} yet"
        return standing.reason

    def absence(self, site: str) -> str:
        """Say that a hospital is not connected, and since when; empty while it is."""
        connection = self._connection(site)
        return connection.absence if connection else NEVER_CONNECTED

    def roster(self) -> Roster:
        """Look once, and return the hospitals that are asked in the round that begins now.

        A hospital without a connection for `absent_after_s` is away, where the quorum is there without it.
        """
        self.step()
        sites = self.sites
        away = {s: node for s, node in sites.items() if self._offline_s(s) >= self._patience.absent_after_s}
        nodes = {site: node for site, node in sites.items() if site not in away}
        if not self._study.has_quorum(nodes):
            return Roster(sites, {}, self.missing())
        return Roster(nodes, away, self.missing() | {site: self.absence(site) for site in away})

    def _offline_s(self, site: str) -> float:
        connection = self._connection(site)
        return connection.offline_s if connection and not connection.online else 0.0


def _slower(repeat_s: float, first_s: float, slowest_s: float) -> float:
    return min(max(first_s, SLOWER * repeat_s), slowest_s)


def _is_final(standing: Standing | None) -> bool:
    return standing is not None and standing.final
