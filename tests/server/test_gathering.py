"""Who is asked whether it takes part, who counts, and how long is waited for; on a clock that the test moves."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from flwr.app import Error, Message

from client.egress import DECISIONS, SENTENCES
from configs.schema import Study
from server.attendance import Connection
from server.codes import NOT_REACHED
from server.gathering import MOST_CHANGES, SLOW_LOOK_S, Gathering, Patience
from strategies.exchange.messages import content
from tests.builders import become_a_server, plain

COHORT = ("brest", "lille", "lyon")
NODES = {"brest": 31, "lille": 12, "lyon": 23, "paris": 99, "metz": 98}
OTHERS = ("paris", "metz")
YES = -1
Answer = int | None  # a code of client/egress.py, YES, or None: no answer


@dataclass
class World:
    """Hospitals as a post shows them; `says` is what each answers to a proposal, at once."""

    study: Study
    patience: Patience = field(default_factory=lambda: Patience(30 * 86_400.0, 3600.0, 60.0))
    now: float = 1000.0
    says: dict[str, Answer] = field(default_factory=dict)
    nodes: dict[str, Connection] = field(
        default_factory=lambda: {s: Connection(NODES[s], since="first") for s in COHORT}
    )
    proposals: list[str] = field(default_factory=list)
    waiting: list[Message] = field(default_factory=list)
    replies: list[Message] = field(default_factory=list)
    shown: dict[str, str] = field(default_factory=dict)
    written: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        become_a_server()
        self.gathering = Gathering(
            self.study,
            self,
            self.patience,
            presence=self.shown.__setitem__,
            write=lambda record: self.written.append({"kind": record.kind} | record.to_facts()),
            clock=lambda: self.now,
        )

    # The post

    def connections(self) -> Mapping[str, Connection]:
        return dict(self.nodes)

    def send(self, messages: Iterable[Message]) -> None:
        for message in messages:
            site = next(s for s, c in self.nodes.items() if c.node_id == message.metadata.dst_node_id)
            self.proposals.append(site)
            if (answer := self.says.get(site)) is None:
                self.waiting.append(message)
            else:
                self.replies.append(self.reply(message, site, answer))

    def look(self) -> list[Message]:
        came, self.replies = self.replies, []
        return came

    # What happens

    def reply(self, message: Message, site: str, answer: int) -> Message:
        message.metadata.__dict__["_message_id"] = f"proposal-{len(self.proposals)}"
        if answer == YES:
            fields: dict[str, str | int] = {"protocol": 1, "site": site, "study_sha256": self.study.sha256}
            return Message(content("hello reply", fields), reply_to=message)
        return Message(Error(code=answer, reason=SENTENCES.get(answer, "not reached")), reply_to=message)

    def answer_late(self, site: str, answer: int) -> None:
        """The oldest proposal that the hospital has not answered is answered now."""
        message = next(m for m in self.waiting if m.metadata.dst_node_id == NODES[site])
        self.waiting.remove(message)
        self.replies.append(self.reply(message, site, answer))

    def pass_by(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass, in the steps that the gathering asks for."""
        end = self.now + seconds
        while self.now < end and not until():
            self.gathering.step()
            self.now = min(self.now + self.gathering.rest_s, end)
        self.gathering.step()

    def lose(self, site: str, seconds: float = 0.0) -> None:
        self.nodes[site] = replace(self.nodes[site], online=False, offline_s=seconds, lost="2026-01-01 10:02 UTC")

    def connect(self, site: str, since: str = "second", node: int | None = None) -> None:
        self.nodes[site] = Connection(node or NODES[site], since=since)

    def asked(self, site: str) -> int:
        return self.proposals.count(site)


def world(quorum: int = 2, says: Mapping[str, Answer] | None = None, **patience: float) -> World:
    times = {"timeout_s": 30 * 86_400.0, "quorum_after_s": 3600.0, "absent_after_s": 60.0} | patience
    study = plain(training={"quorum": quorum, "rounds": 2})
    assert study.sites == COHORT
    return World(study, Patience(**times), says=dict(says if says is not None else dict.fromkeys(COHORT, YES)))


# Only the hospitals of the study


@pytest.mark.parametrize("answer", [YES, *DECISIONS, *SENTENCES])
def test_a_member_outside_the_study_is_never_asked_and_never_counted(answer: int) -> None:
    there = world(quorum=3, says={"lille": YES, "paris": answer, "metz": answer})
    there.nodes |= {s: Connection(NODES[s], since="first") for s in OTHERS}
    there.pass_by(600)
    assert not set(OTHERS) & set(there.proposals)
    assert not there.gathering.over
    there.answer_late("lyon", YES)
    there.answer_late("brest", YES)
    there.pass_by(5)
    assert there.gathering.over
    assert set(there.gathering.roster().asked) == set(COHORT)
    assert not set(OTHERS) & (set(there.shown) | set(there.gathering.missing()))


def test_it_is_over_when_all_of_the_cohort_have_answered_for_good() -> None:
    there = world()
    there.pass_by(1)
    assert there.gathering.over
    assert there.proposals == ["lille", "lyon", "brest"]  # once each, in the order of nodes


NOT_FINAL = sorted({*SENTENCES} - {111})


@pytest.mark.parametrize("code", NOT_FINAL)
def test_every_answer_but_a_persons_no_keeps_the_hospital_among_those_that_are_asked(code: int) -> None:
    """A killed worker, a clock that is off, a data base that restarts, a budget to be raised, no data set yet."""
    there = world(quorum=3, says={"lille": YES, "lyon": YES, "brest": code})
    there.pass_by(3600)
    assert not there.gathering.over
    assert there.shown["brest"] == SENTENCES[code]
    assert there.gathering.missing() == {"brest": SENTENCES[code]}
    before = there.asked("brest")
    assert 4 < before < 100  # with growing intervals
    there.says["brest"] = YES
    there.pass_by(301)
    assert there.asked("brest") == before + 1
    assert there.gathering.over
    assert set(there.gathering.roster().asked) == set(COHORT)


def test_a_refusal_is_written_once_with_its_hospital_and_its_reason() -> None:
    there = world(quorum=3, says={"lille": YES, "lyon": 105, "brest": 110})
    there.pass_by(3600)
    there.says["lyon"] = 107
    there.pass_by(3600)
    refused = [r for r in there.written if r["kind"] == "refused"]
    assert [(r["site"], r["code"], r["reason"]) for r in refused] == [
        ("lyon", code, SENTENCES[code]) for code in (105, 107)
    ]


def test_a_persons_no_is_final() -> None:
    there = world(quorum=2, says={"lille": YES, "lyon": YES, "brest": 111})
    there.pass_by(1)
    assert there.gathering.over
    assert there.asked("brest") == 1
    assert there.gathering.roster().missing == {"brest": SENTENCES[111]}


def test_where_persons_refused_so_that_no_quorum_can_be_there_it_is_over() -> None:
    there = world(quorum=3, says={"lille": YES, "lyon": 110, "brest": 111})
    there.pass_by(1)
    assert there.gathering.over
    assert len(there.gathering.sites) == 1


# Late answers


def test_a_proposal_under_way_is_not_repeated_and_its_late_answer_counts() -> None:
    there = world(quorum=3, says={"lille": YES, "lyon": YES})
    there.pass_by(300)
    assert there.asked("brest") == 1
    assert there.shown["brest"].startswith("has not answered the proposal sent at ")
    assert there.gathering.missing()["brest"].startswith("has not answered the proposal sent at ")
    there.answer_late("brest", YES)
    there.pass_by(3)
    assert there.gathering.over
    assert there.asked("brest") == 1


@pytest.mark.parametrize("before", ["takes part", "not connected", SENTENCES[101], "no reply in time"])
def test_what_is_known_of_a_hospital_stays_until_it_answers_or_is_slow(before: str) -> None:
    """The study was proposed to it by the process before this one, which said what it answered."""
    there = world(says={})
    there.shown["brest"] = before
    there.pass_by(SLOW_LOOK_S / 2)
    assert there.proposals.count("brest") == 1
    assert there.shown == {"brest": before}
    there.pass_by(SLOW_LOOK_S)
    assert there.shown["brest"].startswith("has not answered the proposal sent at ")
    there.answer_late("brest", YES)
    there.pass_by(1)
    assert there.shown["brest"] == "takes part"


def test_a_proposal_that_nobody_ever_answers_is_sent_again_and_the_answer_to_the_first_still_counts() -> None:
    there = world(quorum=3, says={"lille": YES, "lyon": YES})
    there.pass_by(2 * 86_400)
    assert 2 < there.asked("brest") < 30
    there.answer_late("brest", YES)
    there.pass_by(3)
    assert there.gathering.over


def test_a_late_no_after_a_yes_changes_nothing() -> None:
    there = world(quorum=3, says={"lille": YES, "lyon": YES})
    there.pass_by(2000)
    assert there.asked("brest") == 2
    there.answer_late("brest", YES)
    there.answer_late("brest", 105)
    there.pass_by(3)
    assert set(there.gathering.roster().asked) == set(COHORT)


def test_a_proposal_that_did_not_reach_its_hospital_is_sent_again() -> None:
    there = world(quorum=3, says={"lille": YES, "lyon": YES, "brest": NOT_REACHED})
    there.pass_by(1)
    assert there.shown.get("brest", "has not answered yet") == "has not answered yet"
    there.says["brest"] = YES
    there.pass_by(5)
    assert there.gathering.over


class Moody(dict[str, Answer]):
    """Answers of which that of brest is another each time."""

    times = 0

    def get(self, site: str, default: Answer = None) -> Answer:  # type: ignore[override]
        self.times += site == "brest"
        return (105, 199, 110)[self.times % 3] if site == "brest" else super().get(site, default)


def test_a_hospital_that_always_answers_otherwise_is_asked_more_and_more_seldom() -> None:
    there = world(quorum=3)
    there.says = Moody(there.says)
    there.pass_by(4 * 3600)
    assert there.asked("brest") < 500
    assert len(there.written) < 500
    there.says = {"brest": YES}
    there.pass_by(310)
    assert there.gathering.over


# Connections


def test_a_hospital_that_connects_anew_is_asked_at_once_and_is_the_same() -> None:
    there = world(quorum=3, says={"lille": YES, "lyon": YES, "brest": 110})
    there.pass_by(1800)
    before = there.asked("brest")
    there.says["brest"] = YES
    there.connect("brest", since="second", node=77)
    there.pass_by(2)
    assert there.asked("brest") == before + 1
    assert there.gathering.over
    there.connect("lille", since="second", node=78)  # one that takes part is not asked again
    there.pass_by(2)
    assert there.gathering.roster().asked == {"brest": 77, "lille": 78, "lyon": NODES["lyon"]}
    assert there.asked("lille") == 1


def test_a_member_that_is_admitted_later_counts() -> None:
    there = world(quorum=3)
    gone = there.nodes.pop("brest")
    there.pass_by(7200)
    assert not there.gathering.over
    assert there.gathering.missing() == {"brest": "not connected: has not answered yet"}
    there.nodes["brest"] = gone
    there.pass_by(3)
    assert there.gathering.over


def test_a_hospital_without_a_connection_is_not_asked_before_it_is_back() -> None:
    there = world(quorum=3)
    there.lose("brest")
    there.pass_by(7200)
    assert there.asked("brest") == 0
    assert "not connected since 2026-01-01 10:02 UTC" in there.gathering.missing()["brest"]
    there.connect("brest")
    there.pass_by(3)
    assert there.gathering.over


def test_a_study_does_not_begin_while_its_quorum_is_not_connected() -> None:
    there = world(quorum=3, says={"lille": YES, "lyon": YES})
    there.pass_by(60)
    there.lose("lille", 90.0)
    there.answer_late("brest", YES)
    there.pass_by(7200)
    assert not there.gathering.over
    there.connect("lille")
    there.pass_by(3)
    assert there.gathering.over


# How long


@pytest.mark.parametrize("after_s", [0.0, 600.0, 3600.0])
def test_with_the_quorum_it_goes_on_after_the_time_that_the_consortium_set(after_s: float) -> None:
    there = world(quorum=2, says={"lille": YES, "brest": 110}, quorum_after_s=after_s)
    there.pass_by(20_000)
    assert not there.gathering.over  # however long it took for the quorum
    there.answer_late("lyon", YES)
    there.pass_by(after_s * 0.9 + 1, lambda: bool(there.gathering.over))
    assert there.gathering.over == (after_s == 0)
    there.pass_by(after_s * 0.1 + 3)
    assert there.gathering.over
    assert set(there.gathering.roster().asked) == {"lille", "lyon"}


def test_without_the_quorum_it_is_over_when_the_time_is() -> None:
    there = world(quorum=2, says={"lille": YES, "brest": 110}, timeout_s=2 * 86_400.0)
    there.pass_by(1.9 * 86_400)
    assert not there.gathering.over
    there.pass_by(0.1 * 86_400 + 1)
    assert there.gathering.over
    assert set(there.gathering.missing()) == {"brest", "lyon"}


# Rounds


def test_a_hospital_that_comes_after_the_start_takes_part_from_the_next_round_on() -> None:
    there = world(quorum=2, says={"lille": YES, "lyon": YES, "brest": 110}, quorum_after_s=0.0)
    there.pass_by(1)
    assert there.gathering.over
    assert there.gathering.roster().missing == {"brest": SENTENCES[110]}
    there.says["brest"] = YES
    there.now += 600  # a round
    there.gathering.roster()  # asks; the answer is there at the next
    there.now += 600
    assert set(there.gathering.roster().asked) == set(COHORT)


def test_an_absent_hospital_is_not_asked_where_the_quorum_is_there_and_asked_when_it_is_back() -> None:
    there = world(quorum=2)
    there.pass_by(1)
    there.lose("lyon", 59.0)
    assert set(there.gathering.roster().asked) == set(COHORT)  # it may be back in a moment
    there.lose("lyon", 61.0)
    roster = there.gathering.roster()
    assert (set(roster.asked), roster.away) == ({"brest", "lille"}, {"lyon": NODES["lyon"]})
    assert roster.missing == {"lyon": "not connected since 2026-01-01 10:02 UTC"}
    there.connect("lyon")
    assert set(there.gathering.roster().asked) == set(COHORT)
    assert there.asked("lyon") == 1


def test_an_absent_hospital_is_asked_where_there_is_no_quorum_without_it() -> None:
    there = world(quorum=3)
    there.pass_by(1)
    there.lose("lyon", 600.0)
    roster = there.gathering.roster()
    assert (set(roster.asked), dict(roster.away), dict(roster.missing)) == (set(COHORT), {}, {})


def test_fifty_hospitals_that_wait_are_asked_in_few_looks() -> None:
    sites = {f"chu{n:02}": 100 for n in range(50)}
    study = plain(cohort=sites, training={"quorum": 50, "rounds": 2})
    there = World(study)
    there.nodes = {site: Connection(n, since="first") for n, site in enumerate(sites, 1)}
    there.says = dict.fromkeys(sites, 110)
    looks, look = 0, there.look

    def counted() -> list[Message]:
        nonlocal looks
        looks += 1
        return look()

    there.look = counted  # type: ignore[method-assign]
    there.pass_by(7200)
    sent, looks = len(there.proposals), 0
    there.pass_by(3600)
    assert len(there.proposals) - sent <= 50 * 61  # once a minute each
    assert looks < 60 * 35  # they are asked together: no look a second all the time


@pytest.mark.parametrize("every_s", [0.3, 40.0])
@pytest.mark.parametrize("answers", [(110,), (105,), (NOT_REACHED,), (None,), (110, 105, None, NOT_REACHED)])
def test_a_hospital_that_connects_anew_again_and_again_is_asked_more_and_more_seldom(
    answers: tuple[Answer, ...], every_s: float
) -> None:
    there = world(quorum=3, says={"lille": YES, "lyon": YES})
    start, connected = there.now, 0.0
    for number in range(20_000):
        if there.now - start > 4 * 3600:
            break
        if there.now - connected >= every_s:
            there.connect("brest", since=f"start {number}")
            connected = there.now
        there.says["brest"] = answers[there.asked("brest") % len(answers)]
        there.gathering.step()
        there.now += max(there.gathering.rest_s, 0.5)
    hours = (there.now - start) / 3600
    assert 60 <= there.asked("brest") <= 10 * MOST_CHANGES + 100 * hours
    assert len(there.written) <= 10 * MOST_CHANGES + 100 * hours
    there.says["brest"] = YES
    there.pass_by(301)  # it is not forgotten
    assert there.gathering.over
    assert set(there.gathering.roster().asked) == set(COHORT)
