"""The hospital's trust decision, rule by rule: facts in, verdict out. No process, no network, no data."""

import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import trust
from client.egress import SENTENCES, code_of
from client.policy import Deny, Spending
from client.trust import TRUSTED, Admission, Arrival, Bundle, Content, Subject, Verdict
from configs import wire
from configs.seal import COORDINATOR, Statement
from configs.site import Policy
from server.bundle import build_bundle
from tests import builders
from tests.test_architecture import imported_files

NOW = 1_000_000.0
POLICY = Policy(metrics="noisy", require_approval=False)
STUDY = builders.study(
    name="heart", cohort={"lille": 100}, evaluation={"test_fraction": 0.3, "release": {"epsilon": 0.5}}
)
UNFIGURED = builders.study(name="heart", cohort={"lille": 100})
COUNTING = builders.counting(name="heart", cohort={"lille": 100}, training={"quorum": 1})
OPEN = builders.study(name="heart", cohort={"lille": 100}, privacy={"mode": "none"})
STATEMENT = Statement(
    sender=COORDINATOR,
    to="lille",
    run="run-1",
    round=3,
    study=STUDY.sha256,
    message="ab" * 16,
    content="cd" * 32,
    answers="",
    expires=int(NOW) + 60,
    journal="",
    epsilon="",
)
ARRIVAL = Arrival(STATEMENT, site="lille", used=False)
SUBJECT = Subject("train", proposed=True)
CONTENT = Content(STATEMENT, STUDY.sha256, 3, "cd" * 32, NOW)
BUNDLE = Bundle(STUDY, build_bundle(STUDY)[0], overridden=False)
ADMISSION = Admission(STUDY, "evaluate", "waiting", POLICY, has_dataset=True, patients=100)
SPENDING = Spending(5.0, 8.0)  # to the last bit of the default policy's cap


def spend(spending: Spending) -> Verdict:
    return trust.spend(spending, POLICY)


STAGES: list[tuple[Callable[[Any], Verdict], Any]] = [
    (trust.hear, ARRIVAL),
    (trust.know, SUBJECT),
    (trust.match, CONTENT),
    (trust.enclose, BUNDLE),
    (trust.admit, ADMISSION),
    (spend, SPENDING),
]
SEALED, WAITING = 106, wire.WAITING_FOR_APPROVAL
BREAKS: list[tuple[int, Callable[[Any], Verdict], Any, dict[str, Any], int, str]] = [
    (2, trust.hear, ARRIVAL, {"statement": replace(STATEMENT, sender="lyon")}, SEALED, "found another sender"),
    (2, trust.hear, ARRIVAL, {"statement": replace(STATEMENT, answers="ef" * 16)}, SEALED, "moved or repeated"),
    (2, trust.hear, ARRIVAL, {"site": "lyon"}, SEALED, "it was sent to another address"),
    (3, trust.hear, ARRIVAL, {"used": True}, SEALED, "it was repeated"),
    (4, trust.know, SUBJECT, {"form": None}, wire.MISREAD, "found another kind"),
    (5, trust.know, SUBJECT, {"proposed": False}, WAITING, "was not proposed"),
    (6, trust.match, CONTENT, {"study": OPEN.sha256}, SEALED, "about another study or round"),
    (6, trust.match, CONTENT, {"round": 4}, SEALED, "about another study or round"),
    (7, trust.match, CONTENT, {"sha256": "ef" * 32}, SEALED, "changed on the way"),
    (7, trust.match, CONTENT, {"now": NOW + 1e6}, SEALED, "has expired"),
    (8, trust.enclose, BUNDLE, {"content": build_bundle(OPEN)[0]}, wire.MISREAD, "nothing of it was executed"),
    (8, trust.enclose, BUNDLE, {"content": b"PK"}, wire.MISREAD, "cannot be read"),
    (8, trust.enclose, BUNDLE, {"overridden": True}, wire.MISREAD, "no settings beside the study"),
    (9, trust.admit, ADMISSION, {"has_dataset": False}, 112, "names no data set"),
    (10, trust.admit, ADMISSION, {"study": OPEN}, 113, "allow_privacy_none"),
    (11, trust.admit, ADMISSION, {"policy": replace(POLICY, max_message_mb=0)}, 115, "max_message_mb"),
    (12, trust.admit, ADMISSION, {"patients": 49}, 116, "min_patients"),
    (12, trust.admit, ADMISSION, {"patients": None}, 116, "announces no number"),
    (
        13,
        trust.admit,
        ADMISSION,
        {"kit": Deny(wire.KIT_ABSENT, "it needs the study kit x")},
        122,
        "needs the study kit",
    ),
    (14, trust.admit, ADMISSION, {"state": "refused"}, 111, "refused this study"),
    (14, trust.admit, ADMISSION, {"policy": replace(POLICY, require_approval=True)}, WAITING, "not approved"),
    (15, trust.admit, ADMISSION, {"form": "statistics"}, wire.MISREAD, "a private study of statistics"),
    (15, trust.admit, ADMISSION, {"study": COUNTING, "form": "train"}, wire.MISREAD, "that trains a model"),
    (15, trust.admit, ADMISSION, {"study": UNFIGURED}, wire.MISREAD, "asks for figures"),
    (16, trust.admit, ADMISSION, {"policy": replace(POLICY, metrics="none")}, 117, "metrics: none"),
    (17, spend, SPENDING, {"after": 8.01}, 114, "3.00 is left"),
    (17, spend, SPENDING, {"after": float("inf")}, 114, "no study chosen later"),
]
IDS = [f"{rule} {next(iter(change))}" for rule, _, _, change, _, _ in BREAKS]


@pytest.mark.parametrize(("rule", "judge", "facts", "change", "code", "why"), BREAKS, ids=IDS)
def test_a_fact_that_breaks_a_rule_is_refused_by_its_code_and_the_reason_stays(
    rule: int, judge: Callable[[Any], Verdict], facts: Any, change: dict[str, Any], code: int, why: str
) -> None:
    verdict = judge(replace(facts, **change))
    assert verdict.rule == rule
    assert verdict.error is not None
    assert why in str(verdict.error)
    assert code_of(verdict.error) == (code, SENTENCES[code])
    assert rule == 14 or str(verdict.error) not in SENTENCES.values()
    with pytest.raises(type(verdict.error), match=re.escape(str(verdict.error))):
        verdict.require()


@pytest.mark.parametrize(("judge", "facts"), STAGES)
def test_facts_that_break_none_are_trusted(judge: Callable[[Any], Verdict], facts: Any) -> None:
    assert judge(facts) == TRUSTED
    TRUSTED.require()


def test_the_table_has_every_rule_of_the_list_but_the_signature() -> None:
    """The signature itself is `unseal`'s: tests/strategies/exchange/test_messages.py."""
    listed = [int(number) for number in re.findall(r"^ ?(\d+)\. ", str(trust.__doc__), re.MULTILINE)]
    assert listed == list(range(1, 18))
    assert sorted({rule for rule, *_ in BREAKS}) == listed[1:]


@given(st.lists(st.sampled_from(BREAKS), min_size=1, max_size=6))
def test_whatever_else_holds_or_breaks_a_broken_rule_is_never_trusted(broken: list[Any]) -> None:
    for judge, facts in STAGES:
        changes: dict[str, Any] = {}
        lowest = 0
        for rule, whose, _, change, _, _ in broken:
            if whose is judge and not changes.keys() & change.keys():
                changes |= change
                lowest = min(lowest or rule, rule)
        verdict = judge(replace(facts, **changes))
        assert (verdict.error is None) == (not lowest)
        if lowest in (2, 3, 4, 5, 6, 7, 8, 17):  # of one stage, the first that is broken
            assert verdict.rule == lowest


@pytest.mark.parametrize("state", ["", "waiting", "deleted"])
def test_a_state_that_is_not_approval_lets_nothing_in_where_a_person_decides(state: str) -> None:
    policy = replace(POLICY, require_approval=True)
    assert trust.admit(replace(ADMISSION, policy=policy, state=state)).rule == 14
    assert trust.admit(replace(ADMISSION, policy=policy, state="approved")) == TRUSTED


def test_no_fact_can_hold_a_row() -> None:
    """A fact is of the message, the study, the policy or the hospital's own decision, never an array or a reading."""
    plain = {str, bool, int, float, bytes, str | None, int | None, Statement, type(STUDY), Policy, Deny | None}
    kinds: list[Any] = [Arrival, Subject, Content, Bundle, Admission, Spending]
    assert all(is_dataclass(kind) for kind in kinds)
    assert {hint for kind in kinds for hint in get_type_hints(kind).values()} <= plain
    assert all(kind.__dataclass_params__.frozen for kind in kinds)
    assert sum(len(fields(kind)) for kind in kinds) == 22


def test_the_decision_reaches_no_module_that_reads_patients_or_talks_to_anybody() -> None:
    graph, reached, waiting = imported_files(), set[str](), ["client/trust.py"]
    while waiting:
        for name in graph[waiting.pop()] - reached:
            reached.add(name)
            waiting.append(name)
    assert {name for name in reached if name.startswith("client/")} == {"client/policy.py"}
    assert {name.partition("/")[0] for name in reached} == {"client", "configs", "strategies"}


def test_a_verdict_is_the_same_whatever_the_data_hold(tmp_path: Any) -> None:
    from tests.consortium import Consortium

    data = tmp_path / "patients.csv"
    datasets = {"heart": {"connector": "csv", "path": str(data), "identity": "heart"}}
    config = Consortium(tmp_path).hospital("lille", datasets=datasets, policy={"metrics": "noisy"})
    verdicts = []
    for text in (None, "age,sex,disease\n", "age,sex,disease\n" + "61,male,1\n" * 500, "\0"):
        if text is not None:
            data.write_text(text)
        verdicts.append(trust.admit(Admission.at(config, STUDY, "evaluate", "approved")))
    assert verdicts == [TRUSTED] * 4
